//! The features of a ruleset by stock DataFusion, in batch.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use datafusion::arrow::array::{AsArray as _, RecordBatch, new_null_array};
use datafusion::arrow::compute::{concat_batches, sort_to_indices, take};
use datafusion::arrow::datatypes::{DataType, Field, Schema, TimestampMicrosecondType};
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use scoring::{KnownLabel, LABELS, Label, SourceFile, definition, labels, transactions};

/// The relation with every feature appended, by files in order, and the time the queries took: on one
/// thread, without planning, and without the sort that puts the answers back in order.
pub(super) async fn features(
    relation: &RecordBatch,
    known: &[KnownLabel],
    files: &[SourceFile],
) -> anyhow::Result<(RecordBatch, Duration)> {
    let mut table = with_label_column(relation)?;
    let known = labels(known);
    let mut took = Duration::ZERO;
    for file in files {
        let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
        let rows = MemTable::try_new(table.schema(), vec![vec![table.clone()]])?;
        context.register_table(transactions::RELATION, Arc::new(rows))?;
        let known = MemTable::try_new(known.schema(), vec![vec![known.clone()]])?;
        context.register_table(LABELS, Arc::new(known))?;
        let plan = definition(&context, file)?;
        let query = context.execute_logical_plan(plan).await?.create_physical_plan().await?;
        let began = Instant::now();
        let answer = datafusion::physical_plan::collect(query, context.task_ctx()).await;
        took += began.elapsed();
        let answer = answer.with_context(|| format!("{}: in batch", file.name))?;
        let schema = answer.first().context("the input has no rows")?.schema();
        let answer = concat_batches(&schema, &answer)?;
        let order = sort_to_indices(answer.column(0), None, None)?;
        let mut fields: Vec<Arc<Field>> = table.schema().fields().iter().cloned().collect();
        let mut columns = table.columns().to_vec();
        for (field, column) in schema.fields().iter().zip(answer.columns()).skip(1) {
            fields.push(Arc::new(Field::new(field.name(), field.data_type().clone(), true)));
            columns.push(take(column, &order, None)?);
        }
        table = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?;
    }
    Ok((table, took))
}

/// Feature SQL names the label; its values come from the relation of labels.
fn with_label_column(relation: &RecordBatch) -> anyhow::Result<RecordBatch> {
    let mut fields: Vec<Arc<Field>> = relation.schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(transactions::FRAUD, DataType::Boolean, true)));
    let mut columns = relation.columns().to_vec();
    columns.push(new_null_array(&DataType::Boolean, relation.num_rows()));
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

/// Labels as a batch query needs them, gathered batch by batch.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) labels: Vec<KnownLabel>,
    last_us: Option<i64>,
}

impl Known {
    /// Takes in what became known between the rows of a batch in window time.
    pub(super) fn extend(&mut self, batch: &RecordBatch, labels: &[Label]) -> anyhow::Result<()> {
        let times = batch.column_by_name(transactions::EVENT_TIME).context("no event_time")?;
        let times_us = times.as_primitive::<TimestampMicrosecondType>().values();
        self.labels.extend(labels.iter().filter_map(|label| {
            let before = label.before_row.checked_sub(1).map(|row| times_us[row]).or(self.last_us)?;
            Some(KnownLabel {
                window_time_us: label.window_time_us,
                fraud: label.fraud,
                known_after_us: before,
            })
        }));
        self.last_us = times_us.last().copied().or(self.last_us);
        Ok(())
    }
}
