//! What can go wrong: at load, while scoring, and when state is restored.

use std::fmt;

use datafusion::error::DataFusionError;

use crate::store::SegmentId;

/// One thing wrong with a feature or rule file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadError {
    /// The file's name, as given.
    pub file: String,
    /// Line and column, from 1, when they are known.
    pub at: Option<(usize, usize)>,
    /// What is wrong and what to write instead.
    pub reason: String,
}

impl LoadError {
    pub(crate) fn new(file: &str, at: Option<(usize, usize)>, reason: impl Into<String>) -> Self {
        Self { file: file.to_owned(), at, reason: reason.into() }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some((line, column)) => write!(f, "{}:{line}:{column}: {}", self.file, self.reason),
            None => write!(f, "{}: {}", self.file, self.reason),
        }
    }
}

impl std::error::Error for LoadError {}

/// Everything wrong with a ruleset, one line each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadErrors(pub Vec<LoadError>);

impl fmt::Display for LoadErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for LoadErrors {}

/// Why a batch could not be scored. The state may have taken part of the batch in: restore it from a
/// checkpoint before going on.
#[derive(Debug, thiserror::Error)]
pub enum ScoreError {
    /// The batch is not of the relation `transactions`.
    #[error("not a batch of transactions: {0}")]
    Batch(String),
    /// A segment of the past could not be fetched.
    #[error("reading segment {id} of the windows' events: {source}")]
    Store {
        /// Which.
        id: SegmentId,
        /// What the store said.
        source: std::io::Error,
    },
    /// A segment of the past is not what was written.
    #[error("segment {id} of the windows' events: {source}")]
    Segment {
        /// Which.
        id: SegmentId,
        /// What is wrong with it.
        source: SnapshotError,
    },
    /// A frame has more events than can be counted.
    #[error(
        "the longest frame reaches back over {events} events, and may over {}: shorten it, or spread \
         transactions over more partitions",
        crate::windows::FRAME_EVENTS
    )]
    LongFrame {
        /// How many.
        events: u64,
    },
    /// An expression does not give what its type says.
    #[error("evaluating `{expression}`: {source}")]
    Evaluate {
        /// The feature or rule.
        expression: String,
        /// What the engine said.
        source: DataFusionError,
    },
}

/// Why a checkpoint cannot be restored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Not a checkpoint, cut short, or with a flipped bit.
    #[error("the checkpoint is damaged: {0}")]
    Damaged(&'static str),
    /// Written by a build with another format.
    #[error("the checkpoint has format {found}, this build reads format {known}")]
    Version {
        /// The format of the checkpoint.
        found: u32,
        /// The format this build reads.
        known: u32,
    },
    /// A segment it goes on from is missing or damaged.
    #[error("segment {id} that the checkpoint goes on from: {reason}")]
    Segment {
        /// Which.
        id: SegmentId,
        /// What is wrong with it.
        reason: String,
    },
    /// Its segments could not be read.
    #[error("the checkpoint's segments: {0}")]
    Unreadable(String),
    /// Written under other feature definitions.
    #[error("the checkpoint was written under other features: its windows do not fit")]
    OtherFeatures,
}
