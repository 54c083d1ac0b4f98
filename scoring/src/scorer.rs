//! A ruleset with its state: a batch of transactions in, a decision on each out.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray as _, RecordBatch, TimestampMicrosecondArray};
use datafusion::arrow::datatypes::TimestampMicrosecondType;
use events::{Decision, Severity, TransactionId};
use sha2::{Digest as _, Sha256};

use crate::binary::{Reader, Writer};
use crate::error::{ScoreError, SnapshotError};
use crate::rules::decide::decide;
use crate::ruleset::Ruleset;
use crate::transactions::{self, EVENT_TIME, TRANSACTION_ID};
use crate::windows::WindowState;

const MAGIC: u32 = u32::from_le_bytes(*b"pays");
const FORMAT: u32 = 1;

/// What scoring says of one transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// The decision.
    pub decision: Decision,
    /// The severity of the alert to raise, if any.
    pub alert: Option<Severity>,
}

/// Scores transactions in the order they are given.
#[derive(Debug)]
pub struct Scorer {
    ruleset: Ruleset,
    windows: WindowState,
    last_time_us: i64,
}

impl Scorer {
    /// A scorer that has seen nothing yet.
    #[must_use]
    pub fn new(ruleset: Ruleset) -> Self {
        let windows = WindowState::new(Arc::clone(&ruleset.features.windows));
        Self { ruleset, windows, last_time_us: i64::MIN }
    }

    /// The ruleset decisions are made under.
    #[must_use]
    pub fn ruleset(&self) -> &Ruleset {
        &self.ruleset
    }

    /// Events held because some window still needs them.
    #[must_use]
    pub fn live_events(&self) -> u64 {
        self.windows.live_events()
    }

    /// Scores a batch of the relation `transactions`, one decision per row, in order. How a stream is
    /// cut into batches makes no difference.
    ///
    /// Window time is the row's event time, or one microsecond after the row before it where the clock
    /// stood still or went back: so no two events are peers, and the current row is the last.
    ///
    /// # Errors
    /// [`ScoreError`]; the state must then be restored.
    pub fn score(&mut self, batch: &RecordBatch) -> Result<Vec<Scored>, ScoreError> {
        if batch.num_rows() == 0 {
            return Ok(Vec::new());
        }
        if batch.schema().fields() != transactions::schema().fields() {
            return Err(ScoreError::Batch(format!("its columns are {}", batch.schema())));
        }
        let ids = ids(batch)?;
        let (batch, times_us) = self.in_window_time(batch)?;
        let columns = self.windows.process(&batch, &times_us)?;
        let features = self.ruleset.features.append(&batch, &columns)?;
        let matches = self.ruleset.rules.matches(&features, &ids)?;
        let scored =
            matches.into_iter().zip(ids).zip(times_us).map(|((matches, transaction_id), window_time_us)| {
                let verdict = decide(matches.live, &self.ruleset.rules.thresholds);
                let decision = Decision {
                    transaction_id,
                    window_time_us,
                    outcome: verdict.outcome,
                    risk_score: verdict.risk_score,
                    risk_level: verdict.risk_level,
                    reasons: verdict.reasons,
                    shadow_reasons: matches.shadow,
                    ruleset: self.ruleset.hash().to_owned(),
                    model: None,
                };
                Scored { decision, alert: verdict.alert }
            });
        Ok(scored.collect())
    }

    /// Takes a batch in as [`Self::score`] does and returns it with its features, without deciding.
    ///
    /// # Errors
    /// [`ScoreError`]; the state must then be restored.
    pub fn features(&mut self, batch: &RecordBatch) -> Result<RecordBatch, ScoreError> {
        let (batch, times_us) = self.in_window_time(batch)?;
        let columns = self.windows.process(&batch, &times_us)?;
        self.ruleset.features.append(&batch, &columns)
    }

    fn in_window_time(&mut self, batch: &RecordBatch) -> Result<(RecordBatch, Vec<i64>), ScoreError> {
        let index = batch.schema().index_of(EVENT_TIME).map_err(|e| ScoreError::Batch(e.to_string()))?;
        let given = batch.column(index).as_primitive::<TimestampMicrosecondType>();
        let mut last_us = self.last_time_us;
        let times_us: Vec<i64> = given
            .values()
            .iter()
            .map(|&us| {
                last_us = us.max(last_us.saturating_add(1));
                last_us
            })
            .collect();
        self.last_time_us = last_us;
        let mut columns: Vec<ArrayRef> = batch.columns().to_vec();
        columns[index] = Arc::new(TimestampMicrosecondArray::from(times_us.clone()));
        let batch =
            RecordBatch::try_new(batch.schema(), columns).map_err(|e| ScoreError::Batch(e.to_string()))?;
        Ok((batch, times_us))
    }

    /// The whole state as bytes: a consistent cut between two batches.
    #[must_use]
    pub fn checkpoint(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u32(MAGIC);
        out.u32(FORMAT);
        out.bytes(&features_digest(&self.ruleset));
        out.i64(self.last_time_us);
        self.windows.write(&mut out);
        out.finish()
    }

    /// A scorer that goes on from a checkpoint as if it had never stopped. The rules may have changed
    /// since; the features may not.
    ///
    /// # Errors
    /// [`SnapshotError`] when the bytes are damaged, of another format, or of other features.
    pub fn restore(ruleset: Ruleset, checkpoint: &[u8]) -> Result<Self, SnapshotError> {
        let mut input = Reader::new(checkpoint)?;
        if input.u32()? != MAGIC {
            return Err(SnapshotError::Damaged("it is not a checkpoint"));
        }
        let found = input.u32()?;
        if found != FORMAT {
            return Err(SnapshotError::Version { found, known: FORMAT });
        }
        if input.bytes()? != features_digest(&ruleset) {
            return Err(SnapshotError::OtherFeatures);
        }
        let last_time_us = input.i64()?;
        let windows = WindowState::restore(Arc::clone(&ruleset.features.windows), &mut input)?;
        input.finish()?;
        Ok(Self { ruleset, windows, last_time_us })
    }
}

fn features_digest(ruleset: &Ruleset) -> [u8; 32] {
    Sha256::digest(ruleset.features.windows.describe()).into()
}

fn ids(batch: &RecordBatch) -> Result<Vec<TransactionId>, ScoreError> {
    let column = batch
        .column_by_name(TRANSACTION_ID)
        .ok_or_else(|| ScoreError::Batch(format!("column {TRANSACTION_ID} is missing")))?;
    let parse = |id: Option<&str>| {
        id.unwrap_or_default().parse().map_err(|e| ScoreError::Batch(format!("{TRANSACTION_ID}: {e}")))
    };
    column.as_string::<i32>().iter().map(parse).collect()
}
