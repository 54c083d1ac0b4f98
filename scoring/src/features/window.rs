//! One window expression → accumulators and a way to read them, or the reason why it cannot be kept.

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::execution::SessionState;
use datafusion::logical_expr::expr::{WindowFunction, WindowFunctionParams};
use datafusion::logical_expr::{Expr, ExprSchemable as _, WindowFrameBound, WindowFrameUnits};

use crate::transactions::EVENT_TIME;
use crate::windows::spec::{
    AccumulatorSpec, ConditionSpec, DictionarySpec, Frame, Input, Keep, MAX_CONDITIONS, OutputSpec, Read,
    ValueSpec, ValueType, WindowPlan,
};

const SUPPORTED: [&str; 5] = ["count", "sum", "avg", "min", "max"];

/// Adds windows to a plan, each part once.
pub(super) struct Builder<'a> {
    pub(super) state: &'a SessionState,
    pub(super) plan: WindowPlan,
}

impl Builder<'_> {
    /// Adds a window expression over `schema` and returns the index of its output.
    pub(super) fn window(
        &mut self,
        function: &WindowFunction,
        schema: &DFSchema,
        data_type: &DataType,
    ) -> Result<usize, String> {
        let name = function.fun.name().to_lowercase();
        let params = &function.params;
        if !SUPPORTED.contains(&name.as_str()) {
            return Err(format!(
                "window function {name} cannot be kept incrementally: {} can",
                SUPPORTED.join(", ")
            ));
        }
        if params.null_treatment.is_some() {
            return Err("IGNORE NULLS and RESPECT NULLS are not supported".to_owned());
        }
        ordered_by_time(params)?;
        let frame = frame(params)?;
        let key = self.dictionary(&params.partition_by, schema, frame.start_us)?;
        let filter = params.filter.as_ref().map(|f| self.input(f, schema)).transpose()?;
        let window = Window { key, frame, filter };
        let read = self.read(&name, params, schema, window)?;
        Ok(index_of(&mut self.plan.outputs, OutputSpec { read, data_type: data_type.clone() }))
    }

    fn read(
        &mut self,
        name: &str,
        params: &WindowFunctionParams,
        schema: &DFSchema,
        window: Window,
    ) -> Result<Read, String> {
        let argument = match params.args.as_slice() {
            [argument] => argument,
            [] if name == "count" => &Expr::Literal(ScalarValue::Int64(Some(1)), None),
            _ => return Err(format!("{name} takes one argument here")),
        };
        if params.distinct && name != "count" {
            return Err(format!("DISTINCT is supported in count(DISTINCT …) only, not in {name}"));
        }
        match name {
            "count" if params.distinct => {
                let counted =
                    self.dictionary(std::slice::from_ref(argument), schema, window.frame.start_us)?;
                let input = self.plan.dictionaries[counted].inputs[0];
                let condition = self.condition(window.filter, Some(input))?;
                Ok(Read::Count(self.accumulator(window, condition, Keep::Distinct(counted))))
            }
            "count" => {
                let condition = self.not_null(argument, schema, window)?;
                Ok(Read::Count(self.accumulator(window, condition, Keep::Count)))
            }
            "sum" | "avg" => {
                let argument = without_float_cast(argument, schema);
                let data_type = argument.get_type(schema).map_err(|e| e.to_string())?;
                if !data_type.is_integer() {
                    return Err(format!(
                        "{name} over {data_type} would drift as values come and go: use an integer, such as \
                         minor units"
                    ));
                }
                let value = self.value(argument, schema, ValueType::Int)?;
                let condition = self.not_null(argument, schema, window)?;
                let sum = self.accumulator(window, condition, Keep::Sum(value));
                let count = self.accumulator(window, condition, Keep::Count);
                Ok(if name == "sum" { Read::Sum { sum, count } } else { Read::Average { sum, count } })
            }
            "min" | "max" => {
                let value_type = value_type(name, &argument.get_type(schema).map_err(|e| e.to_string())?)?;
                let value = self.value(argument, schema, value_type)?;
                let condition = self.not_null(argument, schema, window)?;
                let keep = if name == "min" { Keep::Min(value) } else { Keep::Max(value) };
                Ok(Read::Extreme { of: self.accumulator(window, condition, keep), value_type })
            }
            other => unreachable!("{other} is not among the supported functions"),
        }
    }

    fn accumulator(&mut self, window: Window, condition: Option<usize>, keep: Keep) -> usize {
        let spec = AccumulatorSpec { key: window.key, frame: window.frame, condition, keep };
        index_of(&mut self.plan.accumulators, spec)
    }

    /// The condition that the window's filter holds and `argument` is not null; `None` when that is
    /// always so.
    fn not_null(
        &mut self,
        argument: &Expr,
        schema: &DFSchema,
        window: Window,
    ) -> Result<Option<usize>, String> {
        let nullable = argument.nullable(schema).map_err(|e| e.to_string())?;
        let input = if nullable { Some(self.input(argument, schema)?) } else { None };
        self.condition(window.filter, input)
    }

    fn condition(&mut self, filter: Option<usize>, not_null: Option<usize>) -> Result<Option<usize>, String> {
        if filter.is_none() && not_null.is_none() {
            return Ok(None);
        }
        let index = index_of(&mut self.plan.conditions, ConditionSpec { filter, not_null });
        if index >= MAX_CONDITIONS {
            return Err(format!("more than {MAX_CONDITIONS} different filters and nullable arguments"));
        }
        Ok(Some(index))
    }

    fn value(&mut self, argument: &Expr, schema: &DFSchema, value_type: ValueType) -> Result<usize, String> {
        let input = self.input(argument, schema)?;
        Ok(index_of(&mut self.plan.values, ValueSpec { input, value_type }))
    }

    /// The numbering of the values of `exprs`, kept for at least `keep_us` after each event.
    fn dictionary(&mut self, exprs: &[Expr], schema: &DFSchema, keep_us: i64) -> Result<usize, String> {
        let inputs = exprs.iter().map(|e| self.input(e, schema)).collect::<Result<Vec<_>, _>>()?;
        let dictionaries = &mut self.plan.dictionaries;
        if let Some(index) = dictionaries.iter().position(|d| d.inputs == inputs) {
            dictionaries[index].keep_us = dictionaries[index].keep_us.max(keep_us);
            return Ok(index);
        }
        dictionaries.push(DictionarySpec { inputs, keep_us });
        Ok(dictionaries.len() - 1)
    }

    fn input(&mut self, expr: &Expr, schema: &DFSchema) -> Result<usize, String> {
        let text = expr.to_string();
        if let Some(index) = self.plan.inputs.iter().position(|i| i.text == text) {
            return Ok(index);
        }
        let expr = self.state.create_physical_expr(expr.clone(), schema).map_err(|e| e.to_string())?;
        self.plan.inputs.push(Input { text, expr });
        Ok(self.plan.inputs.len() - 1)
    }
}

/// What all aggregates of a window share.
#[derive(Clone, Copy)]
struct Window {
    key: usize,
    frame: Frame,
    filter: Option<usize>,
}

fn index_of<T: PartialEq>(list: &mut Vec<T>, item: T) -> usize {
    list.iter().position(|have| *have == item).unwrap_or_else(|| {
        list.push(item);
        list.len() - 1
    })
}

fn ordered_by_time(params: &WindowFunctionParams) -> Result<(), String> {
    let by_time = match params.order_by.as_slice() {
        [sort] => sort.asc && matches!(&sort.expr, Expr::Column(column) if column.name == EVENT_TIME),
        _ => false,
    };
    by_time
        .then_some(())
        .ok_or_else(|| format!("a window must be ORDER BY {EVENT_TIME}, ascending, and by nothing else"))
}

fn frame(params: &WindowFunctionParams) -> Result<Frame, String> {
    const WRITE: &str = "write RANGE BETWEEN INTERVAL '…' PRECEDING AND CURRENT ROW";
    let frame = &params.window_frame;
    if frame.units != WindowFrameUnits::Range {
        return Err(format!("{} frames are not supported: {WRITE}", frame.units));
    }
    let start_us = match &frame.start_bound {
        WindowFrameBound::Preceding(bound) => micros(bound)?,
        WindowFrameBound::CurrentRow | WindowFrameBound::Following(_) => {
            return Err(format!("the frame must begin before the current row: {WRITE}"));
        }
    };
    let end_us = match &frame.end_bound {
        WindowFrameBound::CurrentRow => None,
        WindowFrameBound::Preceding(bound) => Some(micros(bound)?).filter(|&us| us > 0),
        WindowFrameBound::Following(_) => {
            return Err(format!("the frame must not reach past the current row: {WRITE}"));
        }
    };
    if end_us.is_some_and(|end_us| end_us > start_us) {
        return Err("the frame ends before it begins".to_owned());
    }
    Ok(Frame { start_us, end_us })
}

fn micros(bound: &ScalarValue) -> Result<i64, String> {
    const NANOS_PER_MICRO: i64 = 1_000;
    const MICROS_PER_DAY: i64 = 86_400_000_000;
    let ScalarValue::IntervalMonthDayNano(Some(interval)) = bound else {
        return if bound.is_null() {
            Err("UNBOUNDED PRECEDING would grow without end: give an INTERVAL".to_owned())
        } else {
            Err(format!("a frame bound must be an INTERVAL, not {bound}"))
        };
    };
    if interval.months != 0 {
        return Err("a frame bound in months or years has no fixed length: use days".to_owned());
    }
    if interval.nanoseconds % NANOS_PER_MICRO != 0 {
        return Err("a frame bound must be in whole microseconds".to_owned());
    }
    let us = i64::from(interval.days) * MICROS_PER_DAY + interval.nanoseconds / NANOS_PER_MICRO;
    if us < 0 { Err("a frame bound must not be negative".to_owned()) } else { Ok(us) }
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

fn value_type(name: &str, data_type: &DataType) -> Result<ValueType, String> {
    match data_type {
        DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::Timestamp(TimeUnit::Microsecond, _) => Ok(ValueType::Int),
        DataType::Float64 => Ok(ValueType::Float),
        other => Err(format!("{name} over {other} is not supported: use an integer, a float or a time")),
    }
}
