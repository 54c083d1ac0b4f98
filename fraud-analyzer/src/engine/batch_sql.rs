//! The features of a ruleset by stock DataFusion, in batch.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::{concat_batches, sort_to_indices, take};
use datafusion::arrow::datatypes::{Field, Schema};
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use scoring::{SourceFile, definition, transactions};

/// The relation with every feature appended, by files in order, and the time the queries took: on one
/// thread, without planning, and without the sort that puts the answers back in order.
pub(super) async fn features(
    relation: RecordBatch,
    files: &[SourceFile],
) -> anyhow::Result<(RecordBatch, Duration)> {
    let mut table = relation;
    let mut took = Duration::ZERO;
    for file in files {
        let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
        let rows = MemTable::try_new(table.schema(), vec![vec![table.clone()]])?;
        context.register_table(transactions::RELATION, Arc::new(rows))?;
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
