//! The relation `transactions`: what feature SQL and rules may refer to.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use events::{TestBehaviour, Transaction};

/// The relation's name in SQL.
pub const RELATION: &str = "transactions";
/// The column that windows are ordered by: UTC, strictly increasing.
pub const EVENT_TIME: &str = "event_time";
/// The column of the transaction's id.
pub const TRANSACTION_ID: &str = "transaction_id";

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
        text!(required "merchant_id", |t: &Transaction| t.merchant_id.to_string()),
        column!("livemode", DataType::Boolean, false, BooleanArray, |t: &Transaction| Some(t.livemode)),
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
