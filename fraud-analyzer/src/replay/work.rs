//! What is kept beside the output so that a run that was cut off carries on where it was.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use scoring::{Cut, SegmentStore};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::labels::LabelQueue;
use crate::durable;
use crate::segments::SegmentDir;

const FORMAT: u32 = 4;
const CHECKPOINT: &str = "checkpoint.json";

/// The directory `<output>.work`, removed when the run is done.
#[derive(Debug)]
pub(super) struct Work {
    dir: PathBuf,
    segments: Arc<SegmentDir>,
}

/// How far a run got: everything up to `rows` is in the parts and in the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WorkCheckpoint {
    format: u32,
    /// What must be the same for the run to carry on: input, mapping, features and rules.
    pub(super) fingerprint: String,
    /// Rows of the input dealt with.
    pub(super) rows: u64,
    pub(super) decisions: u64,
    pub(super) rejected: u64,
    /// The state of the decision hash, in hexadecimal.
    pub(super) decision_hash: String,
    /// Finished parts, numbered from 0.
    pub(super) parts: u32,
    /// Labels of rows dealt with that are not known yet.
    pub(super) labels: LabelQueue,
    state_sha256: String,
}

impl Work {
    pub(super) fn open(output: &Path) -> anyhow::Result<Self> {
        let mut name = output.as_os_str().to_owned();
        name.push(".work");
        let dir = PathBuf::from(name);
        let segments = SegmentDir::open(&dir.join("segments"));
        let segments = segments.with_context(|| format!("creating {}", dir.display()))?;
        Ok(Self { dir, segments })
    }

    /// Where the scorer leaves its segments.
    pub(super) fn segments(&self) -> Arc<dyn SegmentStore> {
        Arc::<SegmentDir>::clone(&self.segments)
    }

    pub(super) fn part(&self, number: u32) -> PathBuf {
        self.dir.join(format!("part-{number:05}.parquet"))
    }

    /// The checkpoint of a run with the same fingerprint, and the scorer's state.
    pub(super) fn resume(&self, fingerprint: &str) -> Option<(WorkCheckpoint, Vec<u8>)> {
        let checkpoint: WorkCheckpoint =
            serde_json::from_slice(&fs::read(self.dir.join(CHECKPOINT)).ok()?).ok()?;
        let state = fs::read(self.state(checkpoint.parts)).ok()?;
        let usable = checkpoint.format == FORMAT
            && checkpoint.fingerprint == fingerprint
            && checkpoint.state_sha256 == hex::encode(Sha256::digest(&state))
            && (0..checkpoint.parts).all(|part| self.part(part).exists());
        usable.then_some((checkpoint, state))
    }

    /// Forgets an earlier run: what is written from here on is not its.
    pub(super) fn start_over(&self) -> io::Result<()> {
        match fs::remove_file(self.dir.join(CHECKPOINT)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => durable::sync_dir_of(&self.dir.join(CHECKPOINT)),
        }
    }

    /// Makes a checkpoint durable. Segments and state go first, under names of their own: the checkpoint
    /// that names them is replaced whole.
    pub(super) fn save(&self, mut checkpoint: WorkCheckpoint, cut: &Cut) -> io::Result<()> {
        self.segments.persist(&cut.segments)?;
        let state = &cut.bytes;
        checkpoint.format = FORMAT;
        checkpoint.state_sha256 = hex::encode(Sha256::digest(state));
        durable::replace(&self.state(checkpoint.parts), state)?;
        let json = serde_json::to_vec_pretty(&checkpoint).map_err(io::Error::other)?;
        durable::replace(&self.dir.join(CHECKPOINT), &json)?;
        self.segments.clean(&cut.segments.iter().copied().collect(), &cut.open)?;
        match checkpoint.parts.checked_sub(1).map(|before| fs::remove_file(self.state(before))) {
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    pub(super) fn remove(self) -> io::Result<()> {
        fs::remove_dir_all(&self.dir)
    }

    fn state(&self, parts: u32) -> PathBuf {
        self.dir.join(format!("state-{parts:05}.bin"))
    }
}

impl WorkCheckpoint {
    pub(super) fn new(fingerprint: String) -> Self {
        Self {
            format: FORMAT,
            fingerprint,
            rows: 0,
            decisions: 0,
            rejected: 0,
            decision_hash: hex::encode([0; 32]),
            parts: 0,
            labels: LabelQueue::default(),
            state_sha256: String::new(),
        }
    }
}
