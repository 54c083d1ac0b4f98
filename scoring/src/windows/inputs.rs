//! A batch of transactions → what each event needs in the windows, as columns of numbers.

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, new_null_array,
};
use datafusion::arrow::buffer::BooleanBuffer;
use datafusion::arrow::compute::{cast, concat};
use datafusion::arrow::datatypes::{ArrowNativeType as _, DataType, Float64Type, Int64Type};
use datafusion::error::DataFusionError;
use datafusion::physical_expr::PhysicalExpr;

use super::chunked::AHEAD;
use super::dictionary::Dictionary;
use super::records::KeyRecord;
use super::reservoir::{CONDITIONS, KEYS, SEGMENT_EVENTS, TIME};
use super::spec::{ConditionSpec, Lender, Magnitude, ValueSpec, ValueType, WindowPlan};
use super::values::float_to_ordered;
use super::wide::{FLOAT_LIMIT, SQUARE_LIMIT};
use crate::error::ScoreError;
use crate::probe::{Probe, Stage};

/// The value of a key without columns: the window over all events.
const NO_COLUMNS: &[u8] = b"*";
/// What stands for null, and for a text without characters, where a text alone is a key: no text is like
/// them, since they are not UTF-8, and no value is empty.
const NULL_TEXT: &[u8] = b"\xff";
const EMPTY_TEXT: &[u8] = b"\xfe";

/// Computes every input once, then numbers keys, sets condition bits and collects values: the columns
/// that the reservoir takes. Keys met for the first time are added to `new_keys`; numbers of layers below are what
/// `lent` says.
pub(super) fn prepare<'a>(
    plan: &WindowPlan,
    batch: &RecordBatch,
    times_us: &[i64],
    first_seq: u64,
    (dictionaries, new_keys): (&mut [Dictionary], &mut Vec<KeyRecord>),
    lent: impl Fn(Lender) -> &'a [i64],
    probe: &mut dyn Probe,
) -> Result<Vec<Vec<i64>>, ScoreError> {
    let rows = batch.num_rows();
    let inputs = plan
        .inputs
        .iter()
        .map(|input| evaluate(&input.text, &*input.expr, batch))
        .collect::<Result<Vec<_>, _>>()?;

    let mut columns = vec![Vec::new(); KEYS];
    columns[TIME] = times_us.to_vec();
    let mut bits = vec![0_u64; rows];
    for (bit, condition) in plan.conditions.iter().enumerate() {
        set_bits(condition, 1 << bit, &inputs, &mut bits);
    }
    columns[CONDITIONS] = bits.into_iter().map(u64::cast_signed).collect();
    probe.ended(Stage::Inputs);
    for (index, (dictionary, spec)) in dictionaries.iter_mut().zip(&plan.dictionaries).enumerate() {
        if let Some(lender) = spec.lender {
            columns.push(lent(lender).to_vec());
            continue;
        }
        let keys = spec.inputs.iter().map(|&i| KeyColumn::new(&inputs[i]));
        let keys = keys.collect::<Result<Vec<_>, _>>()?;
        columns.push(number(index, &keys, rows, first_seq, dictionary, new_keys));
    }
    probe.ended(Stage::Keys);
    for value in &plan.values {
        columns.push(collect(*value, &plan.inputs[value.input].text, &inputs[value.input])?);
    }
    probe.ended(Stage::Inputs);
    Ok(columns)
}

/// A column that is part of a key.
enum KeyColumn {
    Text(StringArray),
    Number(Int64Array),
}

impl KeyColumn {
    fn new(array: &ArrayRef) -> Result<Self, ScoreError> {
        let failed = |e: datafusion::arrow::error::ArrowError| ScoreError::Batch(e.to_string());
        Ok(match array.data_type() {
            DataType::Utf8 => Self::Text(array.as_string::<i32>().clone()),
            DataType::LargeUtf8 | DataType::Utf8View => {
                Self::Text(cast(array, &DataType::Utf8).map_err(failed)?.as_string::<i32>().clone())
            }
            DataType::Float64 => {
                let ordered = array.as_primitive::<Float64Type>().unary::<_, Int64Type>(float_to_ordered);
                Self::Number(ordered)
            }
            _ => Self::Number(
                cast(array, &DataType::Int64).map_err(failed)?.as_primitive::<Int64Type>().clone(),
            ),
        })
    }

    /// Whether all rows have the same value, or none: as in what nobody sends, and with one merchant alone.
    fn is_constant(&self) -> bool {
        match self {
            Self::Text(array) => match array.null_count() {
                0 => is_one_text(array),
                nulls => nulls == array.len(),
            },
            Self::Number(array) => match array.null_count() {
                0 => array.values().windows(2).all(|pair| pair[0] == pair[1]),
                nulls => nulls == array.len(),
            },
        }
    }

    /// Appends the value in a form that no other value, and no other split of a key into columns, has.
    fn encode(&self, row: usize, last: bool, out: &mut Vec<u8>) {
        match self {
            Self::Text(array) if array.is_valid(row) => {
                let text = array.value(row).as_bytes();
                out.push(1);
                if !last {
                    out.extend_from_slice(&(text.len() as u64).to_le_bytes());
                }
                out.extend_from_slice(text);
            }
            Self::Number(array) if array.is_valid(row) => {
                out.push(1);
                out.extend_from_slice(&array.value(row).to_le_bytes());
            }
            Self::Text(_) | Self::Number(_) => out.push(0),
        }
    }
}

/// Whether all texts, of which none is null, are the same: all are as long, and the bytes go on as they began.
fn is_one_text(texts: &StringArray) -> bool {
    let (Some(&first), Some(&last)) = (texts.value_offsets().first(), texts.value_offsets().last()) else {
        return true;
    };
    let bytes = &texts.value_data()[first.as_usize()..last.as_usize()];
    let length = bytes.len().checked_div(texts.len()).unwrap_or(0);
    let as_long = |pair: &[i32]| (pair[1] - pair[0]).as_usize() == length;
    texts.value_offsets().windows(2).all(as_long) && bytes[length..] == bytes[..bytes.len() - length]
}

/// Whether values of a type can be keys, or be counted as distinct.
pub(crate) fn can_be_key(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Utf8
            | DataType::LargeUtf8
            | DataType::Utf8View
            | DataType::Float64
            | DataType::Boolean
            | DataType::Date32
            | DataType::Timestamp(_, _)
    ) || data_type.is_integer() && *data_type != DataType::UInt64
}

fn number(
    index: usize,
    keys: &[KeyColumn],
    rows: usize,
    first_seq: u64,
    dictionary: &mut Dictionary,
    new_keys: &mut Vec<KeyRecord>,
) -> Vec<i64> {
    if rows == 0 {
        return Vec::new();
    }
    // One value for all of them needs to be looked up once.
    let (rows, repeated) = if keys.iter().all(KeyColumn::is_constant) { (1, rows - 1) } else { (rows, 0) };
    let mut ids = if let [KeyColumn::Text(texts)] = keys {
        let value = |row: usize| match texts.value(row) {
            _ if texts.is_null(row) => NULL_TEXT,
            "" => EMPTY_TEXT,
            text => text.as_bytes(),
        };
        look_up(index, rows, value, first_seq, dictionary, new_keys)
    } else {
        let (mut values, mut ends) = (Vec::new(), Vec::with_capacity(rows + 1));
        ends.push(0);
        for row in 0..rows {
            for (i, key) in keys.iter().enumerate() {
                key.encode(row, i + 1 == keys.len(), &mut values);
            }
            if keys.is_empty() {
                values.extend_from_slice(NO_COLUMNS);
            }
            ends.push(values.len());
        }
        let value = |row: usize| &values[ends[row]..ends[row + 1]];
        look_up(index, rows, value, first_seq, dictionary, new_keys)
    };
    if repeated > 0 {
        let id = ids[0];
        dictionary.again(super::accumulate::key(id), first_seq + repeated as u64);
        ids.resize(1 + repeated, id);
    }
    ids
}

/// The numbers of the values of rows.
fn look_up<'a>(
    index: usize,
    rows: usize,
    value: impl Fn(usize) -> &'a [u8],
    first_seq: u64,
    dictionary: &mut Dictionary,
    new_keys: &mut Vec<KeyRecord>,
) -> Vec<i64> {
    // All hashes first, so that the look-ups that follow can wait for memory together.
    let hashes: Vec<u64> = (0..rows).map(|row| dictionary.hash(value(row))).collect();
    let mut before = None;
    let mut ids = Vec::with_capacity(rows);
    let far = dictionary.is_far();
    // Of the rows to come.
    let mut likely = [None; AHEAD];
    for (row, seq) in (0..rows).zip(first_seq..) {
        let seen = std::mem::take(&mut likely[row % AHEAD]);
        if far {
            likely[row % AHEAD] = dictionary.approach(&hashes, row);
        }
        let (value, hash) = (value(row), hashes[row]);
        // Many keys are the same as the one before.
        if let Some((last, last_hash, id)) = before
            && last_hash == hash
            && last == value
        {
            dictionary.again(id, seq);
            ids.push(i64::from(id));
            continue;
        }
        let (id, new) = dictionary.acquire(value, hash, seen, seq, seq / SEGMENT_EVENTS);
        if new {
            new_keys.push(KeyRecord { dictionary: index, id, since: seq, history: Box::default() });
        }
        before = Some((value, hash, id));
        ids.push(i64::from(id));
    }
    ids
}

/// Evaluates an expression over a batch, to an array as long as the batch.
///
/// A row on which it fails, by an integer division by zero for example, is NULL there: one hostile
/// transaction must neither stop the stream nor change what its neighbours in a batch get.
pub(crate) fn evaluate(
    text: &str,
    expr: &dyn PhysicalExpr,
    batch: &RecordBatch,
) -> Result<ArrayRef, ScoreError> {
    let whole =
        |batch: &RecordBatch| expr.evaluate(batch).and_then(|value| value.into_array(batch.num_rows()));
    if let Ok(array) = whole(batch) {
        return Ok(array);
    }
    let failed = |source: DataFusionError| ScoreError::Evaluate { expression: text.to_owned(), source };
    let data_type = expr.data_type(&batch.schema()).map_err(failed)?;
    let rows: Vec<ArrayRef> = (0..batch.num_rows())
        .map(|row| whole(&batch.slice(row, 1)).unwrap_or_else(|_| new_null_array(&data_type, 1)))
        .collect();
    let rows: Vec<&dyn Array> = rows.iter().map(AsRef::as_ref).collect();
    concat(&rows).map_err(|e| failed(e.into()))
}

fn set_bits(condition: &ConditionSpec, mask: u64, inputs: &[ArrayRef], bits: &mut [u64]) {
    let mut holds: Option<BooleanBuffer> = condition.filter.map(|filter| {
        let filter = inputs[filter].as_boolean();
        filter.nulls().map_or_else(|| filter.values().clone(), |valid| filter.values() & valid.inner())
    });
    let mut and = |other: &BooleanBuffer| {
        holds = Some(holds.as_ref().map_or_else(|| other.clone(), |holds| holds & other));
    };
    if let Some((argument, magnitude)) = condition.argument {
        let argument = &inputs[argument];
        if let Some(valid) = argument.logical_nulls() {
            and(valid.inner());
        }
        let limit = match magnitude {
            Magnitude::Any => None,
            Magnitude::Finite => Some(f64::INFINITY),
            Magnitude::Summable => Some(FLOAT_LIMIT),
            Magnitude::Squarable => Some(SQUARE_LIMIT),
        };
        if let Some(limit) = limit {
            let floats = argument.as_primitive::<Float64Type>().values();
            // False for what is not a number.
            and(&BooleanBuffer::collect_bool(floats.len(), |row| floats[row].abs() < limit));
        }
    }
    let all = bits.len();
    match holds.map(|holds| (holds.count_set_bits(), holds)) {
        Some((0, _)) => {}
        Some((some, holds)) if some < all => {
            for (bits, holds) in bits.iter_mut().zip(&holds) {
                *bits |= mask & u64::from(holds).wrapping_neg();
            }
        }
        _ => bits.iter_mut().for_each(|bits| *bits |= mask),
    }
}

fn collect(value: ValueSpec, text: &str, column: &ArrayRef) -> Result<Vec<i64>, ScoreError> {
    let as_type = match value.value_type {
        ValueType::Int => DataType::Int64,
        ValueType::Float => DataType::Float64,
    };
    let column = cast(column, &as_type)
        .map_err(|source| ScoreError::Evaluate { expression: text.to_owned(), source: source.into() })?;
    let mut values: Vec<i64> = match value.value_type {
        ValueType::Int => column.as_primitive::<Int64Type>().values().to_vec(),
        ValueType::Float => {
            column.as_primitive::<Float64Type>().values().iter().map(|&v| float_to_ordered(v)).collect()
        }
    };
    // What is under a null is not looked at, but is packed with the others: zeroes pack well.
    if let Some(valid) = column.nulls().filter(|nulls| nulls.null_count() > 0) {
        for (value, valid) in values.iter_mut().zip(valid) {
            *value &= i64::from(valid).wrapping_neg();
        }
    }
    Ok(values)
}
