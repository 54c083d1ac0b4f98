//! What accumulators hold → the columns of windows.

use std::iter::repeat_n;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, ArrowPrimitiveType, Int64Array, PrimitiveArray};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{Float64Type, Int64Type};

use super::accumulate::{Accumulate, Count, FloatSum, IntSquares, IntSum, IntSumEver, int_sum};
use super::distinct::Distinct;
use super::ordered::Extreme;
use super::spec::{Fold, How, OutputSpec, ValueType};
use super::values::ordered_to_float;
use super::wide::{self, FRACTION_BITS, Wide};
use crate::error::ScoreError;

/// What was read of an accumulator, row by row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Read<'a> {
    words: &'a [u64],
    /// Words from one row to the next.
    stride: usize,
    /// Where in a row its own begin.
    at: usize,
}

impl<'a> Read<'a> {
    /// The first `rows` of rows of `stride` words.
    pub(super) fn of(words: &'a [u64], rows: usize, stride: usize) -> Self {
        Self { words: &words[..rows * stride], stride, at: 0 }
    }

    /// Of each row what begins at `at`.
    pub(super) const fn part(self, at: usize) -> Self {
        Self { at, ..self }
    }

    /// The same, some rows at a time.
    pub(super) fn parts(self, rows: usize) -> impl Iterator<Item = Self> {
        self.words.chunks(rows * self.stride).map(move |words| Self { words, ..self })
    }

    fn rows(self) -> impl ExactSizeIterator<Item = &'a [u64]> {
        self.words.chunks_exact(self.stride).map(move |words| &words[self.at..])
    }
}

/// One output column under construction.
#[derive(Debug)]
pub(super) enum Column {
    Count(Vec<i64>),
    Int(Nullable<Int64Type>),
    Float(Nullable<Float64Type>),
}

/// Values that may be null, apart from whether they are: as an array has them.
#[derive(Debug)]
pub(super) struct Nullable<T: ArrowPrimitiveType> {
    values: Vec<T::Native>,
    valid: Vec<bool>,
}

impl<T: ArrowPrimitiveType> Nullable<T> {
    fn new(rows: usize) -> Self {
        Self { values: Vec::with_capacity(rows), valid: Vec::with_capacity(rows) }
    }

    /// Appends a value for each row for which any event counts, and null for the others: their first word
    /// says so.
    fn extend<'a>(
        &mut self,
        of_rows: impl ExactSizeIterator<Item = &'a [u64]>,
        value: impl Fn(&[u64]) -> T::Native,
    ) {
        self.extend_where(of_rows, |words| words[0] > 0, value);
    }

    /// Appends a value for each row that has `any`, and null for the others.
    fn extend_where<'a>(
        &mut self,
        of_rows: impl ExactSizeIterator<Item = &'a [u64]>,
        any: impl Fn(&[u64]) -> bool,
        value: impl Fn(&[u64]) -> T::Native,
    ) {
        let before = self.valid.len();
        self.valid.resize(before + of_rows.len(), false);
        let valid = self.valid[before..].iter_mut();
        self.values.extend(of_rows.zip(valid).map(|(words, valid)| {
            *valid = any(words);
            if *valid { value(words) } else { T::Native::default() }
        }));
    }

    fn push(&mut self, value: Option<T::Native>) {
        self.values.push(value.unwrap_or_default());
        self.valid.push(value.is_some());
    }

    fn push_nulls(&mut self, rows: usize) {
        self.values.extend(repeat_n(T::Native::default(), rows));
        self.valid.extend(repeat_n(false, rows));
    }

    fn finish(self) -> ArrayRef {
        let nulls = self.valid.contains(&false).then(|| NullBuffer::from(self.valid));
        Arc::new(PrimitiveArray::<T>::new(self.values.into(), nulls))
    }
}

impl Column {
    pub(super) fn new(output: &OutputSpec, rows: usize) -> Self {
        let float = || Self::Float(Nullable::new(rows));
        match (output.read.how, output.value_type) {
            (How::Count | How::Rows { fold: Fold::Count, .. }, _) => Self::Count(Vec::with_capacity(rows)),
            (How::Average | How::Variance { .. }, _) => float(),
            (How::Rows { fold: Fold::Average | Fold::Variance { .. }, .. }, _) => float(),
            (How::Sum | How::Value | How::Rows { .. }, ValueType::Float) => float(),
            (How::Sum | How::Value | How::Rows { .. }, ValueType::Int) => Self::Int(Nullable::new(rows)),
        }
    }

    /// Appends what is made of what was read of an accumulator.
    pub(super) fn extend(&mut self, output: &OutputSpec, read: Read<'_>) {
        let of_rows = read.rows();
        let float = output.value_type == ValueType::Float;
        match (self, output.read.how) {
            (Self::Count(list), How::Count) => list.extend(of_rows.map(|words| words[0].cast_signed())),
            (Self::Int(list), How::Sum) => list.extend(of_rows, |words| saturate(int_sum(&words[1..3]))),
            (Self::Int(list), How::Value) => list.extend(of_rows, |words| words[1].cast_signed()),
            (Self::Float(list), How::Sum) => {
                list.extend(of_rows, |words| wide::to_double_double(&words[1..5], FRACTION_BITS).0);
            }
            (Self::Float(list), How::Average) => list.extend(of_rows, |words| average(words, float)),
            (Self::Float(list), How::Variance { sample, root }) => {
                let enough = |words: &[u64]| words[0] > u64::from(sample);
                list.extend_where(of_rows, enough, |words| spread(words, float, sample, root));
            }
            (Self::Float(list), How::Value) => {
                list.extend(of_rows, |words| ordered_to_float(words[1].cast_signed()));
            }
            // Places that hold no row are not valid.
            (Self::Int(list), How::Rows { oldest, fold: Fold::At { or: None }, .. }) => list.extend_where(
                of_rows,
                |words| words[1] >> oldest & 1 == 1,
                |words| words[2 + oldest].cast_signed(),
            ),
            (column, How::Rows { newest, oldest, fold }) => {
                for words in of_rows {
                    column.push_rows(&Rows { words, newest, oldest, float }, fold);
                }
            }
            (Self::Count(_) | Self::Int(_), _) | (Self::Float(_), How::Count) => {
                unreachable!("Column::new makes the column that fits")
            }
        }
    }

    /// Appends what an accumulator over a frame in time reads where no event counts, for `rows` rows.
    pub(super) fn extend_by_nothing(&mut self, rows: usize) {
        match self {
            Self::Count(list) => list.extend(repeat_n(0, rows)),
            Self::Int(list) => list.push_nulls(rows),
            Self::Float(list) => list.push_nulls(rows),
        }
    }

    fn push_rows(&mut self, rows: &Rows<'_>, fold: Fold) {
        match self {
            Self::Count(list) => list.push(i64::try_from(rows.values().count()).unwrap_or(i64::MAX)),
            Self::Int(list) => list.push(match fold {
                Fold::Sum => rows.total().map(saturate),
                Fold::Min => rows.values().min(),
                Fold::Max => rows.values().max(),
                other => rows.one(other),
            }),
            Self::Float(list) => {
                let float = |ordered: i64| if rows.float { ordered_to_float(ordered) } else { 0.0 };
                list.push(match fold {
                    Fold::Sum => {
                        rows.moments().map(|words| wide::to_double_double(&words[1..5], FRACTION_BITS).0)
                    }
                    Fold::Average => rows.moments().map(|words| average(&words, rows.float)),
                    Fold::Variance { sample, root } => {
                        let enough = rows.moments().filter(|words| words[0] > u64::from(sample));
                        enough.map(|words| spread(&words, rows.float, sample, root))
                    }
                    Fold::Min => rows.values().min().map(float),
                    Fold::Max => rows.values().max().map(float),
                    other => rows.one(other).map(float),
                });
            }
        }
    }

    pub(super) fn finish(self, output: &OutputSpec) -> Result<ArrayRef, ScoreError> {
        let array: ArrayRef = match self {
            Self::Count(list) => Arc::new(Int64Array::from(list)),
            Self::Int(list) => list.finish(),
            Self::Float(list) => list.finish(),
        };
        if *array.data_type() == output.data_type {
            return Ok(array);
        }
        cast(&array, &output.data_type).map_err(|source| ScoreError::Evaluate {
            expression: "a window".to_owned(),
            source: source.into(),
        })
    }
}

/// What is read of a ring: `[rows, valid bits, values…]`, newest first.
struct Rows<'a> {
    words: &'a [u64],
    newest: usize,
    oldest: usize,
    float: bool,
}

impl Rows<'_> {
    fn held(&self) -> usize {
        usize::try_from(self.words[0]).expect("a ring is short")
    }

    fn at(&self, back: usize) -> Option<i64> {
        (self.words[1] >> back & 1 == 1).then(|| self.words[2 + back].cast_signed())
    }

    /// The values of the frame's rows, newest first, without nulls.
    fn values(&self) -> impl Iterator<Item = i64> + '_ {
        (self.newest..self.held().min(self.oldest + 1)).filter_map(|back| self.at(back))
    }

    fn one(&self, fold: Fold) -> Option<i64> {
        let last = self.held().checked_sub(1)?;
        match fold {
            Fold::Oldest => (self.newest <= last).then(|| self.at(last.min(self.oldest))).flatten(),
            Fold::Newest => (self.newest <= last).then(|| self.at(self.newest)).flatten(),
            Fold::At { or } => {
                if self.oldest <= last {
                    self.at(self.oldest)
                } else {
                    or
                }
            }
            _ => unreachable!("folds of several rows are made by the caller"),
        }
    }

    fn total(&self) -> Option<i128> {
        self.values().map(i128::from).reduce(|sum, value| sum + value)
    }

    /// What would be read of [`IntSquares`] or [`FloatSum`] over the same values; `None` when there are none.
    fn moments(&self) -> Option<Vec<u64>> {
        let item = |value| super::accumulate::Item { seq: 0, key: 0, value, valid: true };
        let mut words = vec![0; if self.float { FloatSum::<true>::WORDS } else { IntSumEver::<true>::WORDS }];
        for value in self.values() {
            if self.float {
                FloatSum::<true>.enter(&mut words, item(value));
            } else {
                IntSumEver::<true>.enter(&mut words, item(value));
            }
        }
        (words[0] > 0).then_some(words)
    }
}

/// `[n, sum…]` → sum / n, where n is not 0.
#[inline]
#[allow(clippy::cast_precision_loss)] // an average is a float, as in SQL
fn average(words: &[u64], float: bool) -> f64 {
    let sum = if float {
        wide::to_double_double(&words[1..5], FRACTION_BITS).0
    } else {
        to_float(int_sum(&words[1..3]))
    };
    sum / words[0].cast_signed() as f64
}

#[inline]
#[allow(clippy::cast_precision_loss)] // as above
fn to_float(sum: i128) -> f64 {
    // Nearly always the first, which costs a tenth of the other.
    if let Ok(sum) = i64::try_from(sum) { sum as f64 } else { long_to_float(sum) }
}

/// Not inlined: a compiler would make one of this and the conversion of shorter numbers, at the cost of this.
#[cold]
#[inline(never)]
#[allow(clippy::cast_precision_loss)] // as above
const fn long_to_float(sum: i128) -> f64 {
    sum as f64
}

/// `[n, sum…, squares…]` → the variance or its root, where n is not 0, and not 1 of a sample.
#[inline]
fn spread(words: &[u64], float: bool, sample: bool, root: bool) -> f64 {
    let ints = || spread_of_short_ints(words, sample).or_else(|| spread_of_ints(words, sample));
    let exact = if float { None } else { ints() };
    let variance = exact.unwrap_or_else(|| spread_of_any(words, float, sample));
    if root { variance.sqrt() } else { variance }
}

/// As [`spread`] without the root, of doubles or of whatever is wider than [`spread_of_ints`] can tell.
#[inline(never)]
fn spread_of_any(words: &[u64], float: bool, sample: bool) -> f64 {
    let n = words[0];
    let (sum, squares) = if float {
        let double = |words: &[u64]| wide::to_double_double(words, FRACTION_BITS);
        (double(&words[1..5]), double(&words[5..9]))
    } else {
        let sign = if words[2] >> 63 == 1 { u64::MAX } else { 0 };
        let sum: Wide = [words[1], words[2], sign, sign];
        (wide::to_double_double(&sum, 0), wide::to_double_double(&words[3..7], 0))
    };
    let population = wide::variance(n, sum, squares);
    #[allow(clippy::cast_precision_loss)] // counts are far below 2^53
    if sample { population * (n as f64 / (n - 1) as f64) } else { population }
}

/// As [`spread_of_ints`], where 64 bits are enough, as they nearly always are.
#[inline]
#[allow(clippy::cast_precision_loss)] // as above
fn spread_of_short_ints(words: &[u64], sample: bool) -> Option<f64> {
    let (n, sum, squares) = (words[0].cast_signed(), words[1].cast_signed(), words[3]);
    let above = words[4] | words[5] | words[6];
    let sum_fits = (words[2].cast_signed() == sum >> 63) & (sum.unsigned_abs() < 1 << 31);
    // Below 2^20 * 2^43, 2^62 and 2^40.
    let fits = sum_fits & (n < 1 << 20) & (squares < 1 << 43) & (above == 0);
    let spread = || n * squares.cast_signed() - sum * sum;
    fits.then(|| spread() as f64 / (n * if sample { n - 1 } else { n }) as f64)
}

/// The variance of integers whose sums are small enough for `n * squares - sum^2` to fit 128 bits: exact
/// up to the division, and nearly always so.
#[inline(never)]
fn spread_of_ints(words: &[u64], sample: bool) -> Option<f64> {
    let n = i128::from(u32::try_from(words[0]).ok()?);
    let sum = i128::from(i64::try_from(int_sum(&words[1..3])).ok()?);
    let squares = (words[5] | words[6] == 0 && words[4] < 1 << 31).then(|| int_sum(&words[3..5]))?;
    // Below 2^32 * 2^95 and 2^126.
    let spread = n * squares - sum * sum;
    Some(to_float(spread) / to_float(n * if sample { n - 1 } else { n }))
}

/// A sum beyond an `i64` stays at its end: a rule that asks for "more than" still holds.
fn saturate(sum: i128) -> i64 {
    i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX })
}

const _: () = {
    // What is read begins with the same words wherever one accumulator stands in for another.
    assert!(Count::READ == 1 && IntSum::READ == 3 && IntSquares::READ == 7 && Distinct::READ == 1);
    assert!(IntSumEver::<false>::READ == IntSum::READ && IntSumEver::<true>::READ == IntSquares::READ);
    assert!(Extreme::<true, 2>::READ == 2);
};

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::windows::accumulate::Item;

    proptest! {
        #[test]
        fn variances_in_64_bits_are_those_of_wider_numbers(
            values in prop_oneof![
                prop::collection::vec(-9_i64..9, 2..200),
                prop::collection::vec(-250_000_i64..250_000, 2..200),
                prop::collection::vec(any::<i64>(), 2..9),
            ],
            sample: bool,
        ) {
            let mut words = [0; IntSumEver::<true>::WORDS];
            for &value in &values {
                IntSumEver::<true>.enter(&mut words, Item { seq: 0, key: 0, value, valid: true });
            }
            let wide = spread_of_ints(&words, sample);
            if let Some(short) = spread_of_short_ints(&words, sample) {
                prop_assert_eq!(Some(short.to_bits()), wide.map(f64::to_bits));
            } else {
                prop_assert!(values.iter().any(|value| value.unsigned_abs() > 200_000), "they are short");
            }
        }
    }
}
