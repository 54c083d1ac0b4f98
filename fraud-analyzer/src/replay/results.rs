//! Decisions as rows of a Parquet file.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use anyhow::Context as _;
use datafusion::arrow::array::{
    Array as _, ArrayRef, AsArray as _, RecordBatch, StringArray, TimestampMicrosecondArray, UInt8Array,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use events::Decision;
use scoring::Scored;

use crate::durable;

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let text = |name: &str| Field::new(name, DataType::Utf8, false);
    Arc::new(Schema::new(vec![
        text("transaction_id"),
        text("decision_id"),
        Field::new("window_time", DataType::Timestamp(TimeUnit::Microsecond, None), false),
        text("outcome"),
        Field::new("risk_score", DataType::UInt8, false),
        text("risk_level"),
        // JSON lists, as on the wire: `reasons` took effect, `shadow_reasons` did not.
        text("reasons"),
        text("shadow_reasons"),
        text("ruleset"),
    ]))
});

/// Writes decisions to a file that appears whole, or not at all.
pub(super) struct ResultsWriter {
    path: PathBuf,
    writer: ArrowWriter<File>,
}

impl ResultsWriter {
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path.with_extension("tmp"));
        let file = file.with_context(|| format!("creating {}", path.display()))?;
        Ok(Self { path: path.to_owned(), writer: ArrowWriter::try_new(file, Arc::clone(&SCHEMA), None)? })
    }

    pub(super) fn write(&mut self, original_ids: &ArrayRef, scored: &[Scored]) -> anyhow::Result<()> {
        self.write_batch(&rows(original_ids, scored)?)
    }

    fn write_batch(&mut self, batch: &RecordBatch) -> anyhow::Result<()> {
        self.writer.write(batch).with_context(|| format!("writing {}", self.path.display()))
    }

    /// Makes the file durable under its name.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        let finish = || -> anyhow::Result<()> {
            self.writer.into_inner()?.sync_all()?;
            std::fs::rename(self.path.with_extension("tmp"), &self.path)?;
            Ok(durable::sync_dir_of(&self.path)?)
        };
        finish().with_context(|| format!("finishing {}", self.path.display()))
    }
}

/// Puts parts together, in order, into one file.
pub(super) fn concatenate(parts: &[PathBuf], output: &Path) -> anyhow::Result<()> {
    let mut writer = ResultsWriter::create(output)?;
    for part in parts {
        let file = File::open(part).with_context(|| format!("opening {}", part.display()))?;
        for batch in ParquetRecordBatchReaderBuilder::try_new(file)?.build()? {
            writer.write_batch(&batch?)?;
        }
    }
    writer.finish()
}

fn rows(original_ids: &ArrayRef, scored: &[Scored]) -> anyhow::Result<RecordBatch> {
    let text = |get: &dyn Fn(&Decision) -> String| -> ArrayRef {
        Arc::new(scored.iter().map(|s| Some(get(&s.decision))).collect::<StringArray>())
    };
    let times = scored.iter().map(|s| s.decision.window_time_us);
    let scores = scored.iter().map(|s| s.decision.risk_score);
    let json = |list: &Vec<events::Reason>| serde_json::to_string(list).unwrap_or_default();
    let ids: ArrayRef = Arc::new(original_ids.as_string::<i32>().clone());
    anyhow::ensure!(ids.len() == scored.len(), "as many ids as decisions");
    let columns: Vec<ArrayRef> = vec![
        ids,
        text(&|d| d.transaction_id.to_string()),
        Arc::new(TimestampMicrosecondArray::from_iter_values(times)),
        text(&|d| d.outcome.to_string()),
        Arc::new(UInt8Array::from_iter_values(scores)),
        text(&|d| d.risk_level.as_str().to_owned()),
        text(&|d| json(&d.reasons)),
        text(&|d| json(&d.shadow_reasons)),
        text(&|d| d.ruleset.to_string()),
    ];
    RecordBatch::try_new(Arc::clone(&SCHEMA), columns).context("decisions as rows")
}
