//! What a condition needs of single columns, so that a batch in which no row can meet it is passed over.
//!
//! A bound may say "may hold" of a batch in which no row matches, never the other way round. A row on
//! which an expression fails is NULL there, and so does not match, whatever its columns hold.

use std::cell::OnceCell;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrowPrimitiveType, AsArray as _, PrimitiveArray, RecordBatch};
use datafusion::arrow::compute::{max_boolean, min_boolean};
use datafusion::arrow::datatypes::{DataType, Float64Type, Int32Type, Int64Type, Schema};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{
    BinaryExpr, CastExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, Literal, NotExpr, TryCastExpr,
};

use crate::windows::values::float_to_ordered;

/// What a batch must have for a condition to hold on any of its rows.
///
/// Values of every type are integers here, in the order SQL compares them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Bound {
    /// Nothing that can be told from single columns.
    Unknown,
    /// Nothing would do.
    Never,
    /// A value in the column from `low` to `high`.
    Within { column: usize, low: i64, high: i64 },
    /// A NULL in the column.
    Null { column: usize },
    /// Both.
    All(Box<[Self; 2]>),
    /// Either.
    Any(Box<[Self; 2]>),
}

impl Bound {
    /// The bound of a condition over batches of `schema`, whose constants are folded.
    pub(super) fn of(condition: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Self {
        bound(condition, true, schema)
    }

    /// False only when the condition is true of no row of the batch.
    pub(super) fn may_hold(&self, ranges: &Ranges<'_>) -> bool {
        match self {
            Self::Unknown => true,
            Self::Never => false,
            Self::Within { column, low, high } => {
                ranges.of(*column).is_some_and(|(lowest, highest)| lowest <= *high && *low <= highest)
            }
            Self::Null { column } => ranges.batch.column(*column).logical_null_count() > 0,
            Self::All(both) => both.iter().all(|bound| bound.may_hold(ranges)),
            Self::Any(either) => either.iter().any(|bound| bound.may_hold(ranges)),
        }
    }

    fn all(left: Self, right: Self) -> Self {
        match (left, right) {
            (Self::Never, _) | (_, Self::Never) => Self::Never,
            (Self::Unknown, bound) | (bound, Self::Unknown) => bound,
            (left, right) => Self::All(Box::new([left, right])),
        }
    }

    fn any(left: Self, right: Self) -> Self {
        match (left, right) {
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            (Self::Never, bound) | (bound, Self::Never) => bound,
            (left, right) => Self::Any(Box::new([left, right])),
        }
    }

    /// Any value at all.
    const fn value(column: usize) -> Self {
        Self::Within { column, low: i64::MIN, high: i64::MAX }
    }
}

/// The lowest and highest values of a batch's columns, each looked for when it is first asked for.
#[derive(Debug)]
pub(super) struct Ranges<'a> {
    batch: &'a RecordBatch,
    found: Vec<OnceCell<Option<(i64, i64)>>>,
}

impl<'a> Ranges<'a> {
    pub(super) fn new(batch: &'a RecordBatch) -> Self {
        Self { batch, found: vec![OnceCell::new(); batch.num_columns()] }
    }

    /// `None` for a column that is NULL throughout.
    fn of(&self, column: usize) -> Option<(i64, i64)> {
        *self.found[column].get_or_init(|| range(self.batch.column(column)))
    }
}

fn range(array: &dyn Array) -> Option<(i64, i64)> {
    match array.data_type() {
        DataType::Boolean => {
            Some((min_boolean(array.as_boolean())?.into(), max_boolean(array.as_boolean())?.into()))
        }
        DataType::Int32 => extremes(array.as_primitive::<Int32Type>(), i64::from),
        DataType::Int64 => extremes(array.as_primitive::<Int64Type>(), |value| value),
        DataType::Float64 => extremes_of_floats(array.as_primitive()),
        _ => (array.null_count() < array.len()).then_some((i64::MIN, i64::MAX)),
    }
}

/// In one pass; arrow's kernels take one for each end, and several times as long on a batch of one row.
fn extremes<T: ArrowPrimitiveType>(
    array: &PrimitiveArray<T>,
    ordered: impl Fn(T::Native) -> i64,
) -> Option<(i64, i64)> {
    let widen = |(low, high): &mut (i64, i64), value: T::Native| {
        let value = ordered(value);
        (*low, *high) = ((*low).min(value), (*high).max(value));
    };
    let widened = |range: (i64, i64), values: &[T::Native]| {
        // Several at a time, since each comparison waits for the one before it.
        let (of_four, rest) = values.as_chunks::<4>();
        let mut ranges = [range; 4];
        for values in of_four {
            ranges.iter_mut().zip(values).for_each(|(range, &value)| widen(range, value));
        }
        rest.iter().for_each(|&value| widen(&mut ranges[0], value));
        ranges.into_iter().fold(range, |all, range| (all.0.min(range.0), all.1.max(range.1)))
    };
    let mut range = (i64::MAX, i64::MIN);
    each_valid(array, |values| range = widened(range, values));
    (range.0 <= range.1).then_some(range)
}

/// As [`extremes`], in the order of numbers, by which processors compare several at once; what is not a number has none.
fn extremes_of_floats(array: &PrimitiveArray<Float64Type>) -> Option<(i64, i64)> {
    const LANES: usize = 8;
    let (mut low, mut high) = ([f64::INFINITY; LANES], [f64::NEG_INFINITY; LANES]);
    // A value that is not a number, where one came by.
    let mut other = [0.0; LANES];
    each_valid(array, |values| {
        let mut widen = |lane: usize, value: f64| {
            low[lane] = if value < low[lane] { value } else { low[lane] };
            high[lane] = if value > high[lane] { value } else { high[lane] };
            other[lane] = if value.is_nan() { value } else { other[lane] };
        };
        let (of_lanes, rest) = values.as_chunks::<LANES>();
        for values in of_lanes {
            for (lane, &value) in values.iter().enumerate() {
                widen(lane, value);
            }
        }
        rest.iter().for_each(|&value| widen(0, value));
    });
    if other.iter().any(|other: &f64| other.is_nan()) {
        return extremes(array, ordered_float);
    }
    let low = low.into_iter().fold(f64::INFINITY, f64::min);
    let high = high.into_iter().fold(f64::NEG_INFINITY, f64::max);
    (low <= high).then(|| (ordered_float(low), ordered_float(high)))
}

/// Calls `take` with all values that are not NULL, as many at a time as lie side by side.
fn each_valid<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>, mut take: impl FnMut(&[T::Native])) {
    let values = array.values();
    match array.nulls() {
        None => take(values),
        Some(nulls) => nulls.valid_slices().for_each(|(from, to)| take(&values[from..to])),
    }
}

/// SQL knows one zero, the total order two.
fn ordered_float(value: f64) -> i64 {
    float_to_ordered(if value == 0.0 { 0.0 } else { value })
}

/// What a batch must have for a boolean expression to be `wanted` on any of its rows.
fn bound(expr: &Arc<dyn PhysicalExpr>, wanted: bool, schema: &Schema) -> Bound {
    if let Some(literal) = expr.downcast_ref::<Literal>() {
        let is_wanted = *literal.value() == ScalarValue::Boolean(Some(wanted));
        return if is_wanted { Bound::Unknown } else { Bound::Never };
    }
    if let Some(not) = expr.downcast_ref::<NotExpr>() {
        return bound(not.arg(), !wanted, schema);
    }
    if let Some(is_null) = expr.downcast_ref::<IsNullExpr>() {
        return null(is_null.arg(), wanted);
    }
    if let Some(is_not_null) = expr.downcast_ref::<IsNotNullExpr>() {
        return null(is_not_null.arg(), !wanted);
    }
    if let Some(column) = expr.downcast_ref::<Column>() {
        return Bound::Within { column: column.index(), low: wanted.into(), high: wanted.into() };
    }
    if let Some(list) = expr.downcast_ref::<InListExpr>() {
        // NOT IN an empty list holds for NULL as well.
        return if wanted == list.negated() { Bound::Unknown } else { known(list.expr()) };
    }
    let Some(binary) = expr.downcast_ref::<BinaryExpr>() else { return Bound::Unknown };
    let (left, right) = (binary.left(), binary.right());
    match (binary.op(), wanted) {
        (Operator::And, true) | (Operator::Or, false) => {
            Bound::all(bound(left, wanted, schema), bound(right, wanted, schema))
        }
        (Operator::And, false) | (Operator::Or, true) => {
            Bound::any(bound(left, wanted, schema), bound(right, wanted, schema))
        }
        (operator, true) => comparison(left, *operator, right, schema),
        (operator, false) => {
            operator.negate().map_or(Bound::Unknown, |negated| comparison(left, negated, right, schema))
        }
    }
}

/// Whether an operand is NULL somewhere, or is known somewhere.
fn null(operand: &Arc<dyn PhysicalExpr>, wanted: bool) -> Bound {
    match operand.downcast_ref::<Column>() {
        Some(column) if wanted => Bound::Null { column: column.index() },
        Some(column) => Bound::value(column.index()),
        None => Bound::Unknown,
    }
}

/// What it takes for an operand to be known somewhere.
fn known(operand: &Arc<dyn PhysicalExpr>) -> Bound {
    match (operand.downcast_ref::<Column>(), cast_of(operand)) {
        (Some(column), _) => Bound::value(column.index()),
        (None, Some((inner, _))) => known(inner),
        (None, None) => Bound::Unknown,
    }
}

fn cast_of(expr: &Arc<dyn PhysicalExpr>) -> Option<(&Arc<dyn PhysicalExpr>, &DataType)> {
    let cast = expr.downcast_ref::<CastExpr>().map(|cast| (cast.expr(), cast.cast_type()));
    cast.or_else(|| expr.downcast_ref::<TryCastExpr>().map(|cast| (cast.expr(), cast.cast_type())))
}

fn comparison(
    left: &Arc<dyn PhysicalExpr>,
    operator: Operator,
    right: &Arc<dyn PhysicalExpr>,
    schema: &Schema,
) -> Bound {
    use Operator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    if !matches!(operator, Eq | NotEq | Lt | LtEq | Gt | GtEq) {
        return Bound::Unknown;
    }
    let (operand, operator, constant) =
        match (left.downcast_ref::<Literal>(), right.downcast_ref::<Literal>(), operator.swap()) {
            (_, Some(constant), _) => (left, operator, constant.value()),
            (Some(constant), None, Some(swapped)) => (right, swapped, constant.value()),
            // Whatever is compared with NULL is NULL.
            _ => return Bound::all(known(left), known(right)),
        };
    if constant.is_null() {
        return Bound::Never;
    }
    let scale = Scale::of(operand, schema).filter(|scale| scale.data_type == constant.data_type());
    let (Some(scale), Some(constant)) = (scale, ordered(constant)) else { return known(operand) };
    let below = || constant.checked_sub(1).map_or(Bound::Never, |high| scale.within(i64::MIN, high));
    let above = || constant.checked_add(1).map_or(Bound::Never, |low| scale.within(low, i64::MAX));
    match operator {
        Lt => below(),
        LtEq => scale.within(i64::MIN, constant),
        Gt => above(),
        GtEq => scale.within(constant, i64::MAX),
        Eq => scale.within(constant, constant),
        _ => Bound::any(below(), above()),
    }
}

/// A constant as an integer of the same order among constants of its type.
fn ordered(constant: &ScalarValue) -> Option<i64> {
    Some(match constant {
        ScalarValue::Boolean(value) => (*value)?.into(),
        ScalarValue::Int8(value) => (*value)?.into(),
        ScalarValue::Int16(value) => (*value)?.into(),
        ScalarValue::Int32(value) => (*value)?.into(),
        ScalarValue::Int64(value) => (*value)?,
        ScalarValue::Float64(value) => ordered_float((*value)?),
        _ => return None,
    })
}

/// A column as it is compared: perhaps through casts, none of which changes the order of values.
struct Scale {
    column: usize,
    data_type: DataType,
    /// The value compared, for a value of the column; never falls.
    compared: fn(i64) -> i64,
}

impl Scale {
    fn of(operand: &Arc<dyn PhysicalExpr>, schema: &Schema) -> Option<Self> {
        if let Some(column) = operand.downcast_ref::<Column>() {
            let data_type = schema.field(column.index()).data_type().clone();
            let has_range = matches!(
                data_type,
                DataType::Boolean | DataType::Int32 | DataType::Int64 | DataType::Float64
            );
            return has_range.then_some(Self { column: column.index(), data_type, compared: |value| value });
        }
        let (inner, data_type) = cast_of(operand)?;
        let inner = Self::of(inner, schema)?;
        let compared = match (&inner.data_type, data_type) {
            (from, to) if from == to => inner.compared,
            // A value that does not fit fails, or is NULL: either way its row does not match.
            (from, to) if from.is_signed_integer() && to.is_signed_integer() => inner.compared,
            #[allow(clippy::cast_precision_loss)] // as the cast rounds
            (from, DataType::Float64) if from.is_signed_integer() => |value| ordered_float(value as f64),
            _ => return None,
        };
        Some(Self { data_type: data_type.clone(), compared, ..inner })
    }

    /// A value of the column that is compared as one from `low` to `high`.
    fn within(&self, low: i64, high: i64) -> Bound {
        let lowest = first(|value| (self.compared)(value) >= low);
        let beyond = first(|value| (self.compared)(value) > high);
        let highest = beyond.map_or(Some(i64::MAX), |value| value.checked_sub(1));
        match (lowest, highest) {
            (Some(low), Some(high)) if low <= high => Bound::Within { column: self.column, low, high },
            _ => Bound::Never,
        }
    }
}

/// The lowest integer for which something holds that holds for all above it as well.
fn first(holds: impl Fn(i64) -> bool) -> Option<i64> {
    let (mut low, mut high) = (i64::MIN, i64::MAX);
    while low < high {
        // Rounded down, so that the middle is below `high`.
        let middle = (low & high) + ((low ^ high) >> 1);
        if holds(middle) { high = middle } else { low = middle + 1 }
    }
    holds(low).then_some(low)
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::Float64Array;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    proptest! {
        #[test]
        fn extremes_of_doubles_are_those_of_their_total_order(
            values in prop::collection::vec(prop_oneof![
                6 => (-9.0..9.0_f64).prop_map(Some),
                1 => select(vec![-0.0, 0.0, f64::INFINITY, f64::NEG_INFINITY]).prop_map(Some),
                1 => Just(None),
            ], 0..40),
            other in prop_oneof![
                3 => Just(None),
                1 => (any::<prop::sample::Index>(), select(vec![f64::NAN, -f64::NAN])).prop_map(Some),
            ],
        ) {
            let mut values = values;
            if let Some((at, other)) = other.filter(|_| !values.is_empty()) {
                let at = at.index(values.len());
                values[at] = Some(other);
            }
            let array = Float64Array::from(values);
            prop_assert_eq!(extremes_of_floats(&array), extremes(&array, ordered_float));
        }
    }
}
