//! A batch of transactions → what each event needs in the windows.

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, new_null_array};
use datafusion::arrow::compute::{cast, concat};
use datafusion::arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion::arrow::row::{RowConverter, SortField};
use datafusion::error::DataFusionError;
use datafusion::physical_expr::PhysicalExpr;

use super::dictionary::Dictionary;
use super::spec::{ConditionSpec, ValueSpec, ValueType, WindowPlan};
use super::values::float_to_ordered;
use crate::error::ScoreError;

/// The events of one batch, row-major where a row is read as a whole.
#[derive(Debug, Default)]
pub(super) struct BatchInputs {
    /// `[row * dictionaries + dictionary]`.
    pub(super) ids: Vec<u32>,
    /// One bit per condition.
    pub(super) conditions: Vec<u64>,
    /// `[row * values + value]`.
    pub(super) values: Vec<i64>,
}

/// Turns columns into key bytes: Arrow's row format, equal for equal values and only for those.
#[derive(Debug)]
pub(super) struct KeyEncoders(Vec<Option<RowConverter>>);

impl KeyEncoders {
    pub(super) fn new(plan: &WindowPlan) -> Self {
        Self(plan.dictionaries.iter().map(|_| None).collect())
    }

    /// Numbers the values of dictionary `index` in a batch, one event more each.
    fn encode(
        &mut self,
        index: usize,
        columns: &[ArrayRef],
        rows: usize,
        dictionary: &mut Dictionary,
        mut put: impl FnMut(usize, u32),
    ) -> Result<(), ScoreError> {
        if columns.is_empty() {
            (0..rows).for_each(|row| put(row, dictionary.acquire(b"")));
            return Ok(());
        }
        let failed = |source: datafusion::arrow::error::ArrowError| ScoreError::Batch(source.to_string());
        let encoder = &mut self.0[index];
        if encoder.is_none() {
            let fields = columns.iter().map(|c| SortField::new(c.data_type().clone())).collect();
            *encoder = Some(RowConverter::new(fields).map_err(failed)?);
        }
        let encoder = encoder.as_mut().expect("it was made above");
        let keys = encoder.convert_columns(columns).map_err(failed)?;
        for (row, key) in keys.iter().enumerate() {
            put(row, dictionary.acquire(key.as_ref()));
        }
        Ok(())
    }
}

/// Computes every input once, then numbers keys, sets condition bits and collects values.
pub(super) fn prepare(
    plan: &WindowPlan,
    batch: &RecordBatch,
    encoders: &mut KeyEncoders,
    dictionaries: &mut [Dictionary],
) -> Result<BatchInputs, ScoreError> {
    let rows = batch.num_rows();
    let columns = plan
        .inputs
        .iter()
        .map(|input| evaluate(&input.text, &*input.expr, batch))
        .collect::<Result<Vec<_>, _>>()?;

    let width = dictionaries.len();
    let mut ids = vec![0; rows * width];
    for (index, dictionary) in dictionaries.iter_mut().enumerate() {
        let keys: Vec<ArrayRef> =
            plan.dictionaries[index].inputs.iter().map(|&i| columns[i].clone()).collect();
        encoders.encode(index, &keys, rows, dictionary, |row, id| ids[row * width + index] = id)?;
    }

    let mut conditions = vec![0_u64; rows];
    for (bit, condition) in plan.conditions.iter().enumerate() {
        set_bits(condition, 1 << bit, &columns, &mut conditions);
    }

    let mut values = vec![0_i64; rows * plan.values.len()];
    for (index, value) in plan.values.iter().enumerate() {
        let put = |(row, number): (usize, i64)| values[row * plan.values.len() + index] = number;
        collect(value, &plan.inputs[value.input].text, &columns[value.input])?
            .into_iter()
            .enumerate()
            .for_each(put);
    }
    Ok(BatchInputs { ids, conditions, values })
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

fn set_bits(condition: &ConditionSpec, mask: u64, columns: &[ArrayRef], bits: &mut [u64]) {
    let filter: Option<&BooleanArray> = condition.filter.map(|i| columns[i].as_boolean());
    let not_null = condition.not_null.map(|i| &columns[i]);
    for (row, bits) in bits.iter_mut().enumerate() {
        let passes = filter.is_none_or(|f| f.is_valid(row) && f.value(row));
        if passes && not_null.is_none_or(|a| a.is_valid(row)) {
            *bits |= mask;
        }
    }
}

fn collect(value: &ValueSpec, text: &str, column: &ArrayRef) -> Result<Vec<i64>, ScoreError> {
    let as_type = match value.value_type {
        ValueType::Int => DataType::Int64,
        ValueType::Float => DataType::Float64,
    };
    let column = cast(column, &as_type)
        .map_err(|source| ScoreError::Evaluate { expression: text.to_owned(), source: source.into() })?;
    Ok(match value.value_type {
        ValueType::Int => column.as_primitive::<Int64Type>().values().to_vec(),
        ValueType::Float => {
            column.as_primitive::<Float64Type>().values().iter().map(|&v| float_to_ordered(v)).collect()
        }
    })
}
