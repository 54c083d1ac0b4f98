//! The relation `transactions`: what feature SQL and rules may refer to.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::{
    ArrayRef, AsArray as _, BooleanArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};
use datafusion::arrow::error::ArrowError;
use events::{TestBehaviour, Transaction};

use crate::error::ScoreError;

/// The relation's name in SQL.
pub const RELATION: &str = "transactions";
/// The column that windows are ordered by: UTC, strictly increasing.
pub const EVENT_TIME: &str = "event_time";
/// The column that says what a transaction turned out to be, as far as is known: a boolean, NULL until it
/// is labelled. Feature SQL may use it in `FILTER`; a batch of transactions does not have it, and rules
/// do not either, since nothing is known of the current row.
pub const FRAUD: &str = "fraud";
/// The column of the transaction's id.
pub const TRANSACTION_ID: &str = "transaction_id";
/// The column of whose transaction it is.
pub(crate) const MERCHANT_ID: &str = "merchant_id";
/// The column that is false for transactions under a test key.
pub(crate) const LIVEMODE: &str = "livemode";

type MakeColumn = fn(&[&Transaction]) -> ArrayRef;

struct ColumnSpec {
    name: &'static str,
    data_type: DataType,
    nullable: bool,
    make: MakeColumn,
}

macro_rules! column {
    ($name:expr, $type:expr, $nullable:literal, $array:ident, $get:expr) => {{
        let make: MakeColumn = |list| Arc::new(list.iter().map(|&t| $get(t)).collect::<$array>());
        ColumnSpec { name: $name, data_type: $type, nullable: $nullable, make }
    }};
}

macro_rules! text {
    ($name:expr, $get:expr) => {
        column!($name, DataType::Utf8, true, StringArray, |t: &'_ Transaction| -> Option<String> { $get(t) })
    };
    (required $name:expr, $get:expr) => {
        column!($name, DataType::Utf8, false, StringArray, |t: &'_ Transaction| -> Option<String> {
            Some($get(t))
        })
    };
}

/// Every column, in order, with how it is read off a transaction.
static COLUMNS: LazyLock<Vec<ColumnSpec>> = LazyLock::new(|| {
    let time = DataType::Timestamp(TimeUnit::Microsecond, None);
    vec![
        text!(required TRANSACTION_ID, |t: &Transaction| t.id.to_string()),
        column!(EVENT_TIME, time, false, TimestampMicrosecondArray, |t: &Transaction| Some(t.accepted_at_us)),
        text!(required MERCHANT_ID, |t: &Transaction| t.merchant_id.to_string()),
        column!(LIVEMODE, DataType::Boolean, false, BooleanArray, |t: &Transaction| Some(t.livemode)),
        column!("amount_minor", DataType::Int64, false, Int64Array, |t: &Transaction| Some(
            t.amount_minor.get()
        )),
        text!(required "currency", |t: &Transaction| t.currency.to_string()),
        column!("reporting_amount_minor", DataType::Int64, true, Int64Array, |t: &Transaction| t
            .reporting_amount_minor),
        text!(required "card", |t: &Transaction| t.card.token.to_string()),
        text!(required "bin", |t: &Transaction| t.card.bin.clone()),
        text!(required "last4", |t: &Transaction| t.card.last4.clone()),
        text!(required "card_brand", |t: &Transaction| t.card.brand.clone()),
        column!("exp_month", DataType::Int32, false, Int32Array, |t: &Transaction| Some(i32::from(
            t.card.exp_month
        ))),
        column!("exp_year", DataType::Int32, false, Int32Array, |t: &Transaction| Some(i32::from(
            t.card.exp_year
        ))),
        text!("customer_id", |t: &Transaction| t.customer.id.clone()),
        text!("email", |t: &Transaction| t.customer.email.clone()),
        text!("phone", |t: &Transaction| t.customer.phone.clone()),
        text!("device_id", |t: &Transaction| t.device.id.clone()),
        text!("ip", |t: &Transaction| t.device.ip.clone()),
        text!("user_agent", |t: &Transaction| t.device.user_agent.clone()),
        text!("billing_country", |t: &Transaction| t.billing.country.clone()),
        text!("shipping_country", |t: &Transaction| t.shipping.country.clone()),
        text!("location_country", |t: &Transaction| t.location.as_ref().and_then(|l| l.country.clone())),
        column!("lat", DataType::Float64, true, Float64Array, |t: &Transaction| t
            .location
            .as_ref()
            .map(|l| l.lat)),
        column!("lon", DataType::Float64, true, Float64Array, |t: &Transaction| t
            .location
            .as_ref()
            .map(|l| l.lon)),
        text!("mcc", |t: &Transaction| t.mcc.clone()),
        text!("terminal_id", |t: &Transaction| t.terminal_id.clone()),
        text!("test_behaviour", |t: &Transaction| t
            .test_behaviour
            .map(TestBehaviour::as_str)
            .map(str::to_owned)),
    ]
});

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let field = |c: &ColumnSpec| Field::new(c.name, c.data_type.clone(), c.nullable);
    Arc::new(Schema::new(COLUMNS.iter().map(field).collect::<Vec<_>>()))
});

/// The relation's schema.
#[must_use]
pub fn schema() -> SchemaRef {
    Arc::clone(&SCHEMA)
}

/// Transactions as one batch of the relation, in the given order, with the accept time as event time.
///
/// # Panics
/// Never: every column is as long as the list and of the type the schema names.
#[must_use]
pub fn batch(transactions: &[&Transaction]) -> RecordBatch {
    let columns = COLUMNS.iter().map(|c| (c.make)(transactions)).collect();
    RecordBatch::try_new(schema(), columns).expect("columns are made by the table that makes the schema")
}

/// A batch with window time in place of event time, and those times in microseconds: the event time, or
/// one microsecond after the row before it where the clock stood still or went back. The first row goes on
/// after `last_us`, which is `i64::MIN` at the beginning.
///
/// # Errors
/// [`ScoreError::Batch`] when the batch is not of the relation.
pub fn in_window_time(last_us: i64, batch: &RecordBatch) -> Result<(RecordBatch, Vec<i64>), ScoreError> {
    let wrong = |e: ArrowError| ScoreError::Batch(e.to_string());
    let index = batch.schema().index_of(EVENT_TIME).map_err(wrong)?;
    let given = batch.column(index).as_primitive_opt::<TimestampMicrosecondType>();
    let given = given.ok_or_else(|| ScoreError::Batch(format!("{EVENT_TIME} is not a time")))?;
    let rising = given.values().iter().scan(last_us, |last_us, &us| {
        *last_us = us.max(last_us.saturating_add(1));
        Some(*last_us)
    });
    let times_us: Vec<i64> = rising.collect();
    let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
    columns[index] = Arc::new(TimestampMicrosecondArray::from(times_us.clone()));
    Ok((RecordBatch::try_new(batch.schema(), columns).map_err(wrong)?, times_us))
}
