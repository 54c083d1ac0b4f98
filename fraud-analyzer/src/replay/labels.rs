//! Labels of a file, on their way to the rows that see them.

use std::collections::BTreeSet;

use anyhow::Context as _;
use datafusion::arrow::array::RecordBatch;
use scoring::{Label, transactions};
use serde::{Deserialize, Serialize};

use super::input::Checked;

/// Labels that are not known yet, by when they become known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LabelQueue {
    /// The window time of the newest row.
    last_us: i64,
    waiting: BTreeSet<Waiting>,
}

/// A label of a transaction that has been seen, ordered by when it becomes known and then by transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Waiting {
    known_at_us: i64,
    window_time_us: i64,
    fraud: bool,
}

impl Default for LabelQueue {
    fn default() -> Self {
        Self { last_us: i64::MIN, waiting: BTreeSet::new() }
    }
}

impl LabelQueue {
    /// Puts the rows in window time and says what becomes known between them: a label is seen by rows
    /// after its transaction whose time is not before that of the label.
    pub(crate) fn pass(&mut self, checked: &Checked) -> anyhow::Result<(RecordBatch, Vec<Label>)> {
        let (batch, times_us) =
            transactions::in_window_time(self.last_us, &checked.batch).context("window time")?;
        let mut labels = Vec::new();
        for (row, &window_time_us) in times_us.iter().enumerate() {
            while let Some(label) = self.waiting.first().filter(|w| w.known_at_us <= window_time_us).copied()
            {
                labels.push(Label {
                    before_row: row,
                    window_time_us: label.window_time_us,
                    fraud: label.fraud,
                });
                self.waiting.remove(&label);
            }
            if let Some((fraud, known_at_us)) = checked.verdict(row) {
                self.waiting.insert(Waiting { known_at_us, window_time_us, fraud });
            }
            self.last_us = window_time_us;
        }
        Ok((batch, labels))
    }
}
