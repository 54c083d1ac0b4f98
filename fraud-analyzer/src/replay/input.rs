//! The file as batches of the relation `transactions`.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use datafusion::arrow::array::{
    Array as _, ArrayRef, AsArray as _, BooleanArray, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use datafusion::arrow::compute::filter_record_batch;
use datafusion::arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::prelude::{CsvReadOptions, ParquetReadOptions, SessionConfig, SessionContext};
use events::{AmountMinor, MerchantId, TransactionId};
use scoring::transactions::{self, EVENT_TIME, TRANSACTION_ID};

use super::mapping::{LABEL_COLUMNS, Mapping};

const TABLE: &str = "input";
/// One row far in the future would empty every window, and hold the clock until then.
const EVENT_TIMES_US: std::ops::Range<i64> = 0..7_258_118_400_000_000;

/// An open file.
pub(crate) struct Input {
    context: SessionContext,
    select: String,
    /// Rows of the file.
    pub(crate) rows: u64,
}

/// A batch of the file after checks.
pub(crate) struct Checked {
    /// The rows that can be transactions, in the relation's form.
    pub(crate) batch: RecordBatch,
    /// The file's own ids of those rows.
    pub(crate) original_ids: ArrayRef,
    /// How many rows could not be transactions.
    pub(crate) rejected: u64,
    /// Why the first of them could not, for the report.
    pub(crate) first_reason: Option<String>,
    /// What those rows turned out to be, and when that became known.
    fraud: BooleanArray,
    known_at: TimestampMicrosecondArray,
}

impl Checked {
    /// What a row turned out to be, and when that became known, in microseconds.
    pub(crate) fn verdict(&self, row: usize) -> Option<(bool, i64)> {
        let known = self.fraud.is_valid(row) && self.known_at.is_valid(row);
        known.then(|| (self.fraud.value(row), self.known_at.value(row)))
    }
}

impl Input {
    /// Opens a Parquet or CSV file and checks that the mapping fits it.
    pub(crate) async fn open(path: &Path, mapping: &Mapping, batch_rows: usize) -> anyhow::Result<Self> {
        let mut config = SessionConfig::new()
            .with_target_partitions(1)
            .with_batch_size(batch_rows)
            .with_repartition_file_scans(false);
        // Ids in upper case stay as they are written: TX_AMOUNT, not tx_amount.
        config.options_mut().sql_parser.enable_ident_normalization = false;
        let context = SessionContext::new_with_config(config);
        let text = path.to_str().context("the input's path must be valid UTF-8")?;
        match path.extension().and_then(|e| e.to_str()) {
            Some("parquet") => context.register_parquet(TABLE, text, ParquetReadOptions::default()).await,
            Some("csv") => context.register_csv(TABLE, text, CsvReadOptions::new()).await,
            _ => bail!("{}: must end in .parquet or .csv", path.display()),
        }
        .with_context(|| format!("opening {}", path.display()))?;
        let select = mapping.select(TABLE);
        let count = context.sql(&format!("SELECT count(*) FROM {TABLE}")).await?.collect().await;
        let count = count.with_context(|| format!("reading {}", path.display()))?;
        let rows = count.first().map_or(0, |b| b.column(0).as_primitive::<Int64Type>().value(0));
        context.sql(&select).await.context("the mapping does not fit the file")?;
        Ok(Self { context, select, rows: u64::try_from(rows).unwrap_or(0) })
    }

    /// The rows from `skip` on, in the file's order.
    pub(crate) async fn stream(&self, skip: u64) -> anyhow::Result<SendableRecordBatchStream> {
        let sql = format!("{} OFFSET {skip}", self.select);
        let stream = self.context.sql(&sql).await?.execute_stream().await;
        stream.context("reading the input")
    }
}

/// Sorts out rows that cannot be transactions, and gives the others ids of the wire form.
pub(crate) fn check(batch: &RecordBatch) -> anyhow::Result<Checked> {
    let rows = batch.num_rows();
    let mut keep = vec![true; rows];
    let mut first_reason = None;
    let mut reject = |row: usize, reason: &dyn Fn() -> String| {
        keep[row] = false;
        first_reason.get_or_insert_with(reason);
    };
    for (field, column) in transactions::schema().fields().iter().zip(batch.columns()) {
        if !field.is_nullable() && column.null_count() > 0 {
            for row in (0..rows).filter(|&row| column.is_null(row)) {
                reject(row, &|| format!("{} is NULL", field.name()));
            }
        }
    }
    let amounts = column(batch, "amount_minor")?.as_primitive::<Int64Type>();
    for row in 0..rows {
        if amounts.is_valid(row) && AmountMinor::try_from(amounts.value(row)).is_err() {
            reject(row, &|| {
                format!("amount_minor is {}, outside 0 to {}", amounts.value(row), AmountMinor::MAX)
            });
        }
    }
    let times = column(batch, EVENT_TIME)?.as_primitive::<TimestampMicrosecondType>();
    for row in (0..rows).filter(|&row| times.is_valid(row) && !EVENT_TIMES_US.contains(&times.value(row))) {
        reject(row, &|| format!("event_time is {} microseconds, outside of 1970 to 2200", times.value(row)));
    }
    for name in ["lat", "lon"] {
        let degrees = column(batch, name)?.as_primitive::<Float64Type>();
        for row in (0..rows).filter(|&row| degrees.is_valid(row) && !degrees.value(row).is_finite()) {
            reject(row, &|| format!("{name} is {}", degrees.value(row)));
        }
    }
    let rejected = keep.iter().filter(|&&k| !k).count() as u64;
    let kept = filter_record_batch(batch, &BooleanArray::from(keep)).context("rejecting rows")?;
    let (batch, original_ids) = with_wire_ids(&kept)?;
    let fraud = column(&kept, LABEL_COLUMNS[0])?.as_boolean().clone();
    let known_at = column(&kept, LABEL_COLUMNS[1])?.as_primitive::<TimestampMicrosecondType>().clone();
    Ok(Checked { batch, original_ids, rejected, first_reason, fraud, known_at })
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> anyhow::Result<&'a ArrayRef> {
    batch.column_by_name(name).with_context(|| format!("the batch has no column {name}"))
}

fn with_wire_ids(batch: &RecordBatch) -> anyhow::Result<(RecordBatch, ArrayRef)> {
    let merchant: MerchantId = "file".parse().context("a constant merchant id")?;
    let original_ids = Arc::clone(column(batch, TRANSACTION_ID)?);
    let wire = original_ids.as_string::<i32>().iter().map(|id| {
        let id = id.unwrap_or_default();
        let wire = id.parse().unwrap_or_else(|_| TransactionId::derive(&merchant, id));
        Some(wire.to_string())
    });
    let wire: ArrayRef = Arc::new(wire.collect::<StringArray>());
    let relation = transactions::schema();
    let columns = relation.fields().iter().zip(batch.columns()).map(|(field, column)| {
        if field.name() == TRANSACTION_ID { Arc::clone(&wire) } else { Arc::clone(column) }
    });
    // The relation's own schema: the file's may differ in what it says may be NULL.
    let batch = RecordBatch::try_new(Arc::clone(&relation), columns.collect())
        .context("the mapping's columns do not have the relation's types")?;
    Ok((batch, original_ids))
}
