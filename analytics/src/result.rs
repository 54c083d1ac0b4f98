//! The answer to a query, and its form as JSON.

use datafusion::arrow::array::{Array, ArrayRef, AsArray as _, RecordBatch};
use datafusion::arrow::datatypes::{
    DataType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, SchemaRef, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use serde::Serialize;
use serde_json::Value;

/// Times as RFC 3339 with milliseconds.
const TIME_FORMAT: &str = "%Y-%m-%dT%H:%M:%S%.3fZ";

/// A column of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ResultColumn {
    /// Its name.
    pub name: String,
    /// Its Arrow type, as text.
    #[serde(rename = "type")]
    pub data_type: String,
}

/// The rows a query answered.
#[derive(Debug, Clone)]
pub struct QueryResult {
    /// Names and types of the columns.
    pub schema: SchemaRef,
    /// The rows.
    pub batches: Vec<RecordBatch>,
    /// How many rows there are.
    pub row_count: usize,
    /// Whether there would have been more.
    pub truncated: bool,
}

impl QueryResult {
    pub(crate) fn new(schema: SchemaRef, batches: Vec<RecordBatch>, truncated: bool) -> Self {
        let row_count = batches.iter().map(RecordBatch::num_rows).sum();
        Self { schema, batches, row_count, truncated }
    }

    /// Names and types of the columns.
    #[must_use]
    pub fn columns(&self) -> Vec<ResultColumn> {
        let column = |f: &std::sync::Arc<datafusion::arrow::datatypes::Field>| ResultColumn {
            name: f.name().clone(),
            data_type: type_name(f.data_type()),
        };
        self.schema.fields().iter().map(column).collect()
    }

    /// The rows as JSON values: numbers as numbers, times as RFC 3339, what JSON has no form for as text.
    ///
    /// # Errors
    /// When a value cannot be formatted.
    pub fn json_rows(&self) -> Result<Vec<Vec<Value>>, ArrowError> {
        let mut rows = Vec::with_capacity(self.row_count);
        for batch in &self.batches {
            let columns: Vec<Vec<Value>> =
                batch.columns().iter().map(json_column).collect::<Result<_, _>>()?;
            let mut columns: Vec<_> = columns.into_iter().map(Vec::into_iter).collect();
            for _ in 0..batch.num_rows() {
                rows.push(columns.iter_mut().map(|column| column.next().unwrap_or(Value::Null)).collect());
            }
        }
        Ok(rows)
    }

    /// The rows as JSON objects.
    ///
    /// # Errors
    /// When a value cannot be formatted.
    pub fn json_objects(&self) -> Result<Vec<serde_json::Map<String, Value>>, ArrowError> {
        let names: Vec<&String> = self.schema.fields().iter().map(|f| f.name()).collect();
        let object = |row: Vec<Value>| names.iter().map(|n| (*n).clone()).zip(row).collect();
        Ok(self.json_rows()?.into_iter().map(object).collect())
    }
}

fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Timestamp(_, _) => "timestamp".to_owned(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".to_owned(),
        other => other.to_string().to_lowercase(),
    }
}

macro_rules! numbers {
    ($array:expr, $kind:ty) => {
        Ok($array.as_primitive::<$kind>().iter().map(Value::from).collect())
    };
}

fn json_column(array: &ArrayRef) -> Result<Vec<Value>, ArrowError> {
    match array.data_type() {
        DataType::Boolean => Ok(array.as_boolean().iter().map(Value::from).collect()),
        DataType::Int8 => numbers!(array, Int8Type),
        DataType::Int16 => numbers!(array, Int16Type),
        DataType::Int32 => numbers!(array, Int32Type),
        DataType::Int64 => numbers!(array, Int64Type),
        DataType::UInt8 => numbers!(array, UInt8Type),
        DataType::UInt16 => numbers!(array, UInt16Type),
        DataType::UInt32 => numbers!(array, UInt32Type),
        DataType::UInt64 => numbers!(array, UInt64Type),
        DataType::Float32 => numbers!(array, Float32Type),
        DataType::Float64 => numbers!(array, Float64Type),
        DataType::Utf8 => Ok(array.as_string::<i32>().iter().map(Value::from).collect()),
        DataType::Null => Ok(vec![Value::Null; array.len()]),
        _ => formatted(array),
    }
}

fn formatted(array: &ArrayRef) -> Result<Vec<Value>, ArrowError> {
    let options = FormatOptions::new()
        .with_timestamp_format(Some(TIME_FORMAT))
        .with_timestamp_tz_format(Some(TIME_FORMAT));
    let formatter = ArrayFormatter::try_new(array.as_ref(), &options)?;
    (0..array.len())
        .map(|row| {
            if array.is_null(row) {
                return Ok(Value::Null);
            }
            formatter.value(row).try_to_string().map(Value::from)
        })
        .collect()
}
