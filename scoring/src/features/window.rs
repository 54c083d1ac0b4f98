//! One window expression → accumulators and a way to read them, or the reason why it cannot be kept.

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::expr::{WindowFunction, WindowFunctionParams};
use datafusion::logical_expr::{Expr, ExprSchemable as _, WindowFrameBound, WindowFrameUnits};

use super::label::{mentions_label, with_label};
use super::plan::{event_time, unaliased};
use crate::transactions::{EVENT_TIME, FRAUD};
use crate::windows::accumulate::MAX_RING_ROWS;
use crate::windows::inputs::can_be_key;
use crate::windows::spec::{
    AccumulatorSpec, Argument, ConditionSpec, DictionarySpec, Fold, Frame, How, Keep, LabelledCondition,
    MAX_BITS, Magnitude, OutputSpec, Read, ValueSpec, ValueType, WindowPlan,
};
use crate::windows::values::float_to_ordered;

/// The functions that can be kept, as SQL names them.
const SUPPORTED: &str =
    "count, sum, avg, var, var_pop, stddev, stddev_pop, min, max, first_value, last_value and lag";

const NO_FILTER: &str = "FILTER is for aggregates, not for first_value, last_value and lag";

/// A layer's windows under construction, each part once.
#[derive(Debug, Default)]
pub(super) struct Builder {
    pub(super) plan: WindowPlan,
    /// The expressions of the plan's inputs, over slots.
    pub(super) inputs: Vec<Expr>,
}

/// What a file says beside its SQL.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Options {
    /// After how long a silence, in microseconds, the history of a key is forgotten.
    pub(super) expiry_us: Option<i64>,
}

impl Builder {
    /// Adds a window expression over `schema` and returns the index of its output.
    pub(super) fn window(
        &mut self,
        function: &WindowFunction,
        schema: &DFSchema,
        data_type: &DataType,
        options: Options,
    ) -> Result<usize, String> {
        let name = function.fun.name().to_lowercase();
        let params = &function.params;
        if params.null_treatment.is_some() {
            return Err("IGNORE NULLS and RESPECT NULLS are not supported".to_owned());
        }
        if params.distinct && name != "count" {
            return Err(format!("DISTINCT is supported in count(DISTINCT …) only, not in {name}"));
        }
        let function = match name.as_str() {
            "count" if params.distinct => Function::CountDistinct,
            "count" => Function::Count,
            "sum" => Function::Sum,
            "avg" | "mean" => Function::Average,
            "var" | "var_samp" => Function::Variance { sample: true, root: false },
            "var_pop" => Function::Variance { sample: false, root: false },
            "stddev" | "stddev_samp" => Function::Variance { sample: true, root: true },
            "stddev_pop" => Function::Variance { sample: false, root: true },
            "min" => Function::Min,
            "max" => Function::Max,
            "first_value" => Function::First,
            "last_value" => Function::Last,
            "lag" => Function::Lag,
            _ => return Err(format!("window function {name} cannot be kept incrementally: {SUPPORTED} can")),
        };
        ordered_by_time(params)?;
        let reach = if function == Function::Lag { history(options)? } else { reach(params, options)? };
        let keep_us = reach.frame().keep_us();
        let key = self.dictionary(&params.partition_by, schema, keep_us)?;
        let filter = params.filter.as_ref().map(|f| self.filter(f, function, reach)).transpose()?;
        let window = Window { key, reach, filter };
        let (read, value_type) = self.read(function, params, schema, window)?;
        Ok(index_of(&mut self.plan.outputs, OutputSpec { read, value_type, data_type: data_type.clone() }))
    }

    fn read(
        &mut self,
        function: Function,
        params: &WindowFunctionParams,
        schema: &DFSchema,
        window: Window,
    ) -> Result<(Read, ValueType), String> {
        let one = Expr::Literal(ScalarValue::Int64(Some(1)), None);
        let argument = match params.args.as_slice() {
            [argument, ..] if function == Function::Lag => argument,
            [argument] => argument,
            [] if function == Function::Count => &one,
            _ => return Err("the function takes one argument here".to_owned()),
        };
        match function {
            Function::Lag => self.lag(params, argument, schema, window),
            Function::CountDistinct => {
                let Reach::Frame(frame @ Frame::Range { .. }) = window.reach else {
                    return Err(
                        "count(DISTINCT …) needs a frame in time: RANGE BETWEEN INTERVAL '…' PRECEDING"
                            .to_owned(),
                    );
                };
                let counted = self.dictionary(std::slice::from_ref(argument), schema, frame.keep_us())?;
                let input = self.plan.dictionaries[counted].inputs[0];
                let condition = self.condition(window.filter, Some((input, Magnitude::Any)))?;
                let of = self.accumulator(window, condition, Keep::Distinct(counted));
                self.check_bits()?;
                Ok((Read { of, how: How::Count }, ValueType::Int))
            }
            Function::Count => {
                let condition = self.counts(argument, schema, window, Magnitude::Any)?;
                let read = match window.reach {
                    Reach::Frame(_) => {
                        Read { of: self.accumulator(window, condition, Keep::Count), how: How::Count }
                    }
                    Reach::Rows { .. } => self.ring(window, None, condition, Fold::Count)?,
                };
                Ok((read, ValueType::Int))
            }
            Function::Sum | Function::Average | Function::Variance { .. } => {
                self.moments(function, argument, schema, window)
            }
            Function::Min | Function::Max => {
                let value_type = value_type(&argument.get_type(schema).map_err(|e| e.to_string())?)?;
                let value = self.value(argument, value_type);
                let magnitude =
                    if value_type == ValueType::Float { Magnitude::Finite } else { Magnitude::Any };
                let condition = self.counts(argument, schema, window, magnitude)?;
                let (keep, fold) = if function == Function::Min {
                    (Keep::Min(value), Fold::Min)
                } else {
                    (Keep::Max(value), Fold::Max)
                };
                let read = match window.reach {
                    Reach::Frame(_) => {
                        Read { of: self.accumulator(window, condition, keep), how: How::Value }
                    }
                    Reach::Rows { .. } => self.ring(window, Some(value), condition, fold)?,
                };
                Ok((read, value_type))
            }
            Function::First | Function::Last => {
                let value_type = value_type(&argument.get_type(schema).map_err(|e| e.to_string())?)?;
                let value = self.value(argument, value_type);
                if window.filter.is_some() {
                    return Err(NO_FILTER.to_owned());
                }
                let valid = self.counts(argument, schema, window, Magnitude::Any)?;
                let kept = Argument { value: Some(value), valid };
                let (keep, fold) = if function == Function::First {
                    (Keep::First(kept), Fold::Oldest)
                } else {
                    (Keep::Last(kept), Fold::Newest)
                };
                let read = match window.reach {
                    Reach::Frame(_) => Read { of: self.accumulator(window, None, keep), how: How::Value },
                    Reach::Rows { .. } => self.ring(window, Some(value), valid, fold)?,
                };
                Ok((read, value_type))
            }
        }
    }

    fn moments(
        &mut self,
        function: Function,
        argument: &Expr,
        schema: &DFSchema,
        window: Window,
    ) -> Result<(Read, ValueType), String> {
        let squares = matches!(function, Function::Variance { .. });
        let argument = without_float_cast(argument, schema);
        let data_type = argument.get_type(schema).map_err(|e| e.to_string())?;
        let (value_type, magnitude) = match data_type {
            DataType::Float64 if squares => (ValueType::Float, Magnitude::Squarable),
            DataType::Float64 => (ValueType::Float, Magnitude::Summable),
            DataType::UInt64 => return Err("UInt64 does not fit a sum: CAST it to BIGINT".to_owned()),
            ref integer if integer.is_integer() => (ValueType::Int, Magnitude::Any),
            other => return Err(format!("{other} cannot be summed here: use an integer or a double")),
        };
        let value = self.value(argument, value_type);
        let condition = self.counts(argument, schema, window, magnitude)?;
        let (how, fold) = match function {
            Function::Average => (How::Average, Fold::Average),
            Function::Variance { sample, root } => {
                (How::Variance { sample, root }, Fold::Variance { sample, root })
            }
            _ => (How::Sum, Fold::Sum),
        };
        let read = match window.reach {
            Reach::Frame(_) => {
                Read { of: self.accumulator(window, condition, Keep::Sum { value, squares }), how }
            }
            Reach::Rows { .. } => self.ring(window, Some(value), condition, fold)?,
        };
        Ok((read, value_type))
    }

    fn lag(
        &mut self,
        params: &WindowFunctionParams,
        argument: &Expr,
        schema: &DFSchema,
        window: Window,
    ) -> Result<(Read, ValueType), String> {
        if window.filter.is_some() {
            return Err(NO_FILTER.to_owned());
        }
        let data_type = argument.get_type(schema).map_err(|e| e.to_string())?;
        let value_type = value_type(&data_type)?;
        let literal = |index: usize| match params.args.get(index).map(unaliased) {
            None => Ok(None),
            Some(Expr::Literal(value, _)) => Ok(Some(value.clone())),
            Some(other) => Err(format!("lag: `{other}` must be a constant")),
        };
        let back = match literal(1)? {
            None => 1,
            Some(offset) => {
                let offset = offset.cast_to(&DataType::Int64).map_err(|e| e.to_string())?;
                let ScalarValue::Int64(Some(offset)) = offset else {
                    return Err("lag: the offset must be a number".to_owned());
                };
                usize::try_from(offset).map_err(|_| "lag: the offset must not be negative".to_owned())?
            }
        };
        let or = match literal(2)? {
            None => None,
            Some(value) => stored(&value.cast_to(&data_type).map_err(|e| e.to_string())?, value_type)?,
        };
        let value = self.value(argument, value_type);
        let valid = self.counts(argument, schema, window, Magnitude::Any)?;
        let Reach::Frame(frame) = window.reach else { unreachable!("lag has all of a key's history") };
        if (back, or) == (1, None) {
            let keep = Keep::Previous(Argument { value: Some(value), valid });
            return Ok((Read { of: self.accumulator(window, None, keep), how: How::Value }, value_type));
        }
        let window = Window { reach: Reach::Rows { newest: back, oldest: back, frame }, ..window };
        Ok((self.ring(window, Some(value), valid, Fold::At { or })?, value_type))
    }

    /// A ring that reaches back as far as the window does; one ring serves all that read the same values.
    fn ring(
        &mut self,
        window: Window,
        value: Option<usize>,
        valid: Option<usize>,
        fold: Fold,
    ) -> Result<Read, String> {
        let Reach::Rows { newest, oldest, frame } = window.reach else {
            unreachable!("rings are for frames in rows")
        };
        if oldest >= MAX_RING_ROWS {
            return Err(format!(
                "a frame in rows or a lag reaches back {} rows at the most",
                MAX_RING_ROWS - 1
            ));
        }
        let argument = Argument { value, valid };
        let known = self.plan.accumulators.iter().position(|a| {
            let same = (a.key, a.frame) == (window.key, frame);
            same && matches!(a.keep, Keep::Ring { argument: of, .. } if of == argument)
        });
        let of = known.unwrap_or_else(|| {
            let keep = Keep::Ring { rows: 0, argument };
            self.plan.accumulators.push(AccumulatorSpec { key: window.key, frame, condition: None, keep });
            self.plan.accumulators.len() - 1
        });
        if let Keep::Ring { rows, .. } = &mut self.plan.accumulators[of].keep {
            *rows = (*rows).max(oldest + 1);
        }
        Ok(Read { of, how: How::Rows { newest, oldest, fold } })
    }

    /// A filter as inputs: three where it depends on the label, one for each that an event can have.
    fn filter(&mut self, filter: &Expr, function: Function, reach: Reach) -> Result<Filter, String> {
        if !mentions_label(filter) {
            return Ok(Filter { unknown: self.input(filter), labelled: None });
        }
        let kept = matches!(function, Function::Count | Function::Sum | Function::Average);
        if !kept || !matches!(reach, Reach::Frame(Frame::Range { .. })) {
            return Err(format!(
                "{FRAUD} may be used in FILTER (WHERE …) of count, sum and avg over a frame in time only"
            ));
        }
        let mut when = |label: Option<bool>| with_label(filter, label).map(|filter| self.input(&filter));
        Ok(Filter { unknown: when(None)?, labelled: Some((when(Some(true))?, when(Some(false))?)) })
    }

    fn accumulator(&mut self, window: Window, condition: Option<usize>, keep: Keep) -> usize {
        let spec = AccumulatorSpec { key: window.key, frame: window.reach.frame(), condition, keep };
        index_of(&mut self.plan.accumulators, spec)
    }

    /// The condition that the window's filter holds and `argument` is a value; `None` when that is
    /// always so.
    fn counts(
        &mut self,
        argument: &Expr,
        schema: &DFSchema,
        window: Window,
        magnitude: Magnitude,
    ) -> Result<Option<usize>, String> {
        // An expression that fails on a row is NULL there, whatever its type says.
        let simple = matches!(unaliased(argument), Expr::Column(_) | Expr::Literal(..));
        let nullable = !simple || argument.nullable(schema).map_err(|e| e.to_string())?;
        let input = (nullable || magnitude != Magnitude::Any).then(|| (self.input(argument), magnitude));
        self.condition(window.filter, input)
    }

    fn condition(
        &mut self,
        filter: Option<Filter>,
        argument: Option<(usize, Magnitude)>,
    ) -> Result<Option<usize>, String> {
        if filter.is_none() && argument.is_none() {
            return Ok(None);
        }
        let spec = |filter| ConditionSpec { filter, argument };
        let index = match filter.and_then(|filter| Some((filter.unknown, filter.labelled?))) {
            None => self.condition_bit(spec(filter.map(|filter| filter.unknown))),
            Some((unknown, (fraud, legit))) => {
                let (fraud, legit) =
                    (self.condition_bit(spec(Some(fraud))), self.condition_bit(spec(Some(legit))));
                self.labelled_bit(spec(Some(unknown)), fraud, legit)
            }
        };
        self.check_bits()?;
        Ok(Some(index))
    }

    fn check_bits(&self) -> Result<(), String> {
        if self.plan.conditions.len() + self.plan.repeats().len() > MAX_BITS {
            return Err(format!(
                "more than {MAX_BITS} different filters, nullable arguments and, over more than a week, things \
                 counted as distinct (a filter on {FRAUD} counts as three)"
            ));
        }
        Ok(())
    }

    /// The bit of a condition that no label changes.
    fn condition_bit(&mut self, spec: ConditionSpec) -> usize {
        let plan = &mut self.plan;
        let changes = |bit: usize| plan.labelled.iter().any(|labelled| labelled.unknown == bit);
        let known = (0..plan.conditions.len()).find(|&bit| plan.conditions[bit] == spec && !changes(bit));
        known.unwrap_or_else(|| {
            plan.conditions.push(spec);
            plan.conditions.len() - 1
        })
    }

    /// The bit of a condition that becomes another one's with the label.
    fn labelled_bit(&mut self, spec: ConditionSpec, fraud: usize, legit: usize) -> usize {
        let plan = &mut self.plan;
        let same = |l: &&LabelledCondition| {
            plan.conditions[l.unknown] == spec && (l.fraud, l.legit) == (fraud, legit)
        };
        if let Some(known) = plan.labelled.iter().find(same) {
            return known.unknown;
        }
        plan.conditions.push(spec);
        let unknown = plan.conditions.len() - 1;
        plan.labelled.push(LabelledCondition { unknown, fraud, legit });
        unknown
    }

    fn value(&mut self, argument: &Expr, value_type: ValueType) -> usize {
        let input = self.input(argument);
        index_of(&mut self.plan.values, ValueSpec { input, value_type })
    }

    /// The numbering of the values of `exprs`, kept for at least `keep_us` after each event.
    fn dictionary(&mut self, exprs: &[Expr], schema: &DFSchema, keep_us: i64) -> Result<usize, String> {
        for expr in exprs {
            let data_type = expr.get_type(schema).map_err(|e| e.to_string())?;
            if !can_be_key(&data_type) {
                return Err(format!(
                    "a {data_type} cannot be a key or be counted as distinct: CAST it to text"
                ));
            }
        }
        let inputs: Vec<usize> = exprs.iter().map(|e| self.input(e)).collect();
        let dictionaries = &mut self.plan.dictionaries;
        if let Some(index) = dictionaries.iter().position(|d| d.inputs == inputs) {
            dictionaries[index].keep_us = dictionaries[index].keep_us.max(keep_us);
            return Ok(index);
        }
        if dictionaries.len() > usize::from(u8::MAX) {
            return Err("more than 256 different keys".to_owned());
        }
        dictionaries.push(DictionarySpec { inputs, keep_us, lender: None });
        Ok(dictionaries.len() - 1)
    }

    fn input(&mut self, expr: &Expr) -> usize {
        index_of(&mut self.inputs, unaliased(expr).clone())
    }
}

/// A window function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Function {
    Count,
    CountDistinct,
    Sum,
    Average,
    Variance { sample: bool, root: bool },
    Min,
    Max,
    First,
    Last,
    Lag,
}

/// What all aggregates of a window share.
#[derive(Debug, Clone, Copy)]
struct Window {
    key: usize,
    reach: Reach,
    filter: Option<Filter>,
}

/// A filter, as inputs.
#[derive(Debug, Clone, Copy)]
struct Filter {
    /// The filter where no label is known, or where none matters.
    unknown: usize,
    /// The filter of what is labelled fraud, and of what is labelled legit.
    labelled: Option<(usize, usize)>,
}

/// How far back a window sees.
#[derive(Debug, Clone, Copy)]
enum Reach {
    Frame(Frame),
    /// Rows, within a key's history.
    Rows {
        newest: usize,
        oldest: usize,
        frame: Frame,
    },
}

impl Reach {
    const fn frame(self) -> Frame {
        match self {
            Self::Frame(frame) | Self::Rows { frame, .. } => frame,
        }
    }
}

fn index_of<T: PartialEq>(list: &mut Vec<T>, item: T) -> usize {
    list.iter().position(|have| *have == item).unwrap_or_else(|| {
        list.push(item);
        list.len() - 1
    })
}

fn ordered_by_time(params: &WindowFunctionParams) -> Result<(), String> {
    let by_time = match params.order_by.as_slice() {
        [sort] => sort.asc && sort.expr == event_time(),
        _ => false,
    };
    by_time
        .then_some(())
        .ok_or_else(|| format!("a window must be ORDER BY {EVENT_TIME}, ascending, and by nothing else"))
}

fn history(options: Options) -> Result<Reach, String> {
    let expiry_us = options.expiry_us.ok_or_else(|| {
        "what reaches back without end (UNBOUNDED PRECEDING, ROWS, lag) needs to know when a silent key is \
         forgotten: add a line such as -- EXPIRE KEYS AFTER INTERVAL '90 days'"
            .to_owned()
    })?;
    Ok(Reach::Frame(Frame::History { expiry_us }))
}

fn reach(params: &WindowFunctionParams, options: Options) -> Result<Reach, String> {
    const WRITE: &str = "write RANGE BETWEEN INTERVAL '…' PRECEDING AND CURRENT ROW";
    let frame = &params.window_frame;
    let unbounded = matches!(&frame.start_bound, WindowFrameBound::Preceding(bound) if bound.is_null());
    let to_current_row = matches!(frame.end_bound, WindowFrameBound::CurrentRow);
    if matches!(frame.end_bound, WindowFrameBound::Following(_)) {
        return Err(format!("the frame must not reach past the current row: {WRITE}"));
    }
    if frame.units == WindowFrameUnits::Groups {
        return Err(format!("GROUPS frames are not supported: {WRITE}"));
    }
    if unbounded {
        return if to_current_row {
            history(options)
        } else {
            Err("UNBOUNDED PRECEDING goes with AND CURRENT ROW only: give the delayed frame an INTERVAL to begin \
                 with"
                .to_owned())
        };
    }
    if frame.units == WindowFrameUnits::Rows {
        let rows = |bound: &WindowFrameBound| match bound {
            WindowFrameBound::Preceding(ScalarValue::UInt64(Some(rows))) => {
                usize::try_from(*rows).map_err(|_| "the frame has too many rows".to_owned())
            }
            WindowFrameBound::CurrentRow => Ok(0),
            _ => Err("the frame must be ROWS BETWEEN n PRECEDING AND CURRENT ROW".to_owned()),
        };
        let (oldest, newest) = (rows(&frame.start_bound)?, rows(&frame.end_bound)?);
        if newest > oldest {
            return Err("the frame ends before it begins".to_owned());
        }
        return Ok(Reach::Rows { newest, oldest, frame: history(options)?.frame() });
    }
    let start_us = match &frame.start_bound {
        WindowFrameBound::Preceding(bound) => micros(bound)?,
        WindowFrameBound::CurrentRow | WindowFrameBound::Following(_) => {
            return Err(format!("the frame must begin before the current row: {WRITE}"));
        }
    };
    let end_us = match &frame.end_bound {
        WindowFrameBound::Preceding(bound) if bound.is_null() => {
            return Err(format!("the frame ends before it begins: {WRITE}"));
        }
        WindowFrameBound::Preceding(bound) => Some(micros(bound)?).filter(|&us| us > 0),
        WindowFrameBound::CurrentRow | WindowFrameBound::Following(_) => None,
    };
    if end_us.is_some_and(|end_us| end_us > start_us) {
        return Err("the frame ends before it begins".to_owned());
    }
    Ok(Reach::Frame(Frame::Range { start_us, end_us }))
}

/// The length of an interval, which must be fixed.
pub(super) fn micros(bound: &ScalarValue) -> Result<i64, String> {
    const NANOS_PER_MICRO: i64 = 1_000;
    const MICROS_PER_DAY: i64 = 86_400_000_000;
    let ScalarValue::IntervalMonthDayNano(Some(interval)) = bound else {
        return Err(format!("a frame bound must be an INTERVAL, not {bound}"));
    };
    if interval.months != 0 {
        return Err("a frame bound in months or years has no fixed length: use days".to_owned());
    }
    if interval.nanoseconds % NANOS_PER_MICRO != 0 {
        return Err("a frame bound must be in whole microseconds".to_owned());
    }
    let days_us = i64::from(interval.days).checked_mul(MICROS_PER_DAY);
    let us = days_us.and_then(|us| us.checked_add(interval.nanoseconds / NANOS_PER_MICRO));
    us.filter(|&us| us >= 0)
        .ok_or_else(|| "a frame bound must not be negative, nor longer than 292,000 years".to_owned())
}

/// The integer under the cast to a float that SQL's `avg` puts around its argument: summed exactly,
/// and divided at the end.
fn without_float_cast<'a>(argument: &'a Expr, schema: &DFSchema) -> &'a Expr {
    if let Expr::Cast(cast) = argument
        && *cast.field.data_type() == DataType::Float64
        && cast.expr.get_type(schema).is_ok_and(|t| t.is_integer())
    {
        return &cast.expr;
    }
    argument
}

fn value_type(data_type: &DataType) -> Result<ValueType, String> {
    match data_type {
        DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::Boolean
        | DataType::Timestamp(TimeUnit::Microsecond, _) => Ok(ValueType::Int),
        DataType::Float64 => Ok(ValueType::Float),
        other => Err(format!("a {other} cannot be kept: use an integer, a double, a boolean or a time")),
    }
}

/// A constant in the form in which values are stored.
fn stored(value: &ScalarValue, value_type: ValueType) -> Result<Option<i64>, String> {
    if value.is_null() {
        return Ok(None);
    }
    let as_type = match value_type {
        ValueType::Int => DataType::Int64,
        ValueType::Float => DataType::Float64,
    };
    match value.cast_to(&as_type).map_err(|e| e.to_string())? {
        ScalarValue::Int64(value) => Ok(value),
        ScalarValue::Float64(value) => Ok(value.map(float_to_ordered)),
        other => Err(format!("{other} is not a number")),
    }
}
