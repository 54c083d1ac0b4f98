//! The section `[analyzer]`.

use serde::Deserialize;

use crate::remote::Remote;

/// How the analyzer batches and when it checkpoints.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnalyzerConfig {
    /// Most transactions scored at once. A batch is whatever is there, up to this: it never waits to
    /// fill.
    pub max_batch_transactions: usize,
    /// Time between checkpoints while transactions flow, in milliseconds.
    pub checkpoint_interval_ms: u64,
    /// Into how many lanes the partitions are divided. One: all windows are exact, and one process decides.
    /// More: processes share them, and windows are exact by card.
    pub lanes: u32,
    /// Where checkpoints are copied to, so that another machine can go on: `file:///…` or `s3://bucket/…`;
    /// empty: nowhere.
    pub checkpoint_url: String,
    /// How long a stop may take to decide what is in the log, in milliseconds.
    pub drain_deadline_ms: u64,
}

impl Default for AnalyzerConfig {
    fn default() -> Self {
        Self {
            max_batch_transactions: 2_048,
            checkpoint_interval_ms: 10_000,
            lanes: 1,
            checkpoint_url: String::new(),
            drain_deadline_ms: 5_000,
        }
    }
}

impl AnalyzerConfig {
    /// What is wrong with the values: key and message each.
    #[must_use]
    pub fn validate(&self) -> Vec<(String, String)> {
        let mut errors = Vec::new();
        let mut check = |ok: bool, key: &str, message: &str| {
            if !ok {
                errors.push((key.to_owned(), message.to_owned()));
            }
        };
        check(
            (1..=65_536).contains(&self.max_batch_transactions),
            "max_batch_transactions",
            "must be 1 to 65536",
        );
        check(
            (100..=3_600_000).contains(&self.checkpoint_interval_ms),
            "checkpoint_interval_ms",
            "must be 100 to 3600000 (one hour)",
        );
        check((1..=1_024).contains(&self.lanes), "lanes", "must be 1 to 1024");
        check(
            (1..=3_600_000).contains(&self.drain_deadline_ms),
            "drain_deadline_ms",
            "must be 1 to 3600000 (one hour)",
        );
        if let Err(message) = Remote::check(&self.checkpoint_url) {
            check(false, "checkpoint_url", &message);
        }
        errors
    }
}
