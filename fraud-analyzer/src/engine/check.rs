//! Every feature of every row, kept incrementally, against the same SQL in batch.

use std::sync::Arc;

use anyhow::Context as _;
use datafusion::arrow::array::{Array as _, ArrayRef, AsArray as _, RecordBatch};
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::compute::kernels::cmp::not_distinct;
use datafusion::arrow::datatypes::{DataType, Float64Type};
use datafusion::arrow::util::display::array_value_to_string;
use scoring::{MemoryStore, Ruleset, RulesetSource, Scorer, SegmentStore, transactions};
use serde::Serialize;

use super::batch_sql::{self, Known};
use super::source::EngineInput;

/// Two floats that differ by no more than this share of the larger are equal.
const TOLERANCE: f64 = 1e-9;
/// Differences described one by one.
const DESCRIBED: usize = 10;

/// What to check.
#[derive(Debug, Clone)]
pub struct CheckConfig {
    /// Where transactions come from.
    pub input: EngineInput,
    /// Features (the rules are not looked at).
    pub ruleset: RulesetSource,
    /// Rows scored at a time.
    pub batch_rows: usize,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// Rows compared.
    pub rows: u64,
    /// Features compared on each.
    pub features: usize,
    /// Values that differ: integers at all, floats by more than a billionth.
    pub differences: u64,
    /// The features that differ, each with how often.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub by_feature: Vec<(String, u64)>,
    /// The first of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub first: Vec<Difference>,
}

/// One value that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The feature.
    pub feature: String,
    /// The row of the input, from 0.
    pub row: usize,
    /// What batch SQL says.
    pub batch: String,
    /// What the engine says.
    pub incremental: String,
}

/// Checks, holding the whole input and all features in memory, twice.
///
/// # Errors
/// When the ruleset or the input is wrong.
pub async fn run(config: &CheckConfig) -> anyhow::Result<CheckReport> {
    let ruleset = Ruleset::load(&config.ruleset).context("loading the ruleset")?;
    let names = ruleset.feature_names();
    let store: Arc<dyn SegmentStore> = MemoryStore::new();
    let mut scorer = Scorer::new(ruleset, &store);
    let mut batches = Vec::new();
    let mut known = Known::default();
    config
        .input
        .each(config.batch_rows, &mut |batch, labels| {
            known.extend(&batch, labels)?;
            batches.push(scorer.features(&batch, labels).context("computing features")?);
            Ok(())
        })
        .await?;
    let schema = batches.first().context("the input has no rows")?.schema();
    let found = concat_batches(&schema, &batches)?;
    drop(batches);
    let width = transactions::schema().fields().len();
    let relation = found.project(&(0..width).collect::<Vec<_>>())?;
    let (expected, _) = batch_sql::features(&relation, &known.labels, &config.ruleset.features).await?;
    compare(&names, &expected, &found)
}

fn compare(names: &[String], expected: &RecordBatch, found: &RecordBatch) -> anyhow::Result<CheckReport> {
    let mut report = CheckReport {
        rows: found.num_rows() as u64,
        features: names.len(),
        differences: 0,
        by_feature: Vec::new(),
        first: Vec::new(),
    };
    for name in names {
        let column = |batch: &RecordBatch| {
            batch.column_by_name(name).map(Arc::clone).with_context(|| format!("no column {name}"))
        };
        let (expected, found) = (column(expected)?, column(found)?);
        let rows = differences(&expected, &found)?;
        if rows.is_empty() {
            continue;
        }
        report.differences += rows.len() as u64;
        report.by_feature.push((name.clone(), rows.len() as u64));
        for row in rows.into_iter().take(DESCRIBED.saturating_sub(report.first.len())) {
            let text = |column: &ArrayRef| -> anyhow::Result<String> {
                Ok(if column.is_null(row) { "NULL".to_owned() } else { array_value_to_string(column, row)? })
            };
            let (batch, incremental) = (text(&expected)?, text(&found)?);
            report.first.push(Difference { feature: name.clone(), row, batch, incremental });
        }
    }
    Ok(report)
}

fn differences(expected: &ArrayRef, found: &ArrayRef) -> anyhow::Result<Vec<usize>> {
    if *expected.data_type() != DataType::Float64 || *found.data_type() != DataType::Float64 {
        let same = not_distinct(expected, found)?;
        return Ok((0..same.len()).filter(|&row| !same.value(row)).collect());
    }
    let (expected, found) = (expected.as_primitive::<Float64Type>(), found.as_primitive::<Float64Type>());
    let close = |row: usize| match (expected.is_valid(row), found.is_valid(row)) {
        (true, true) => {
            let (e, f) = (expected.value(row), found.value(row));
            e == f || (e.is_nan() && f.is_nan()) || (e - f).abs() <= TOLERANCE * e.abs().max(f.abs())
        }
        (e, f) => e == f,
    };
    Ok((0..expected.len()).filter(|&row| !close(row)).collect())
}
