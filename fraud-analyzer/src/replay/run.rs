//! The loop: rows in, decisions out, a checkpoint every so often.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use datafusion::arrow::array::RecordBatch;
use futures::StreamExt as _;
use scoring::{DecisionHash, Ruleset, RulesetSource, Scorer};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::input::{Input, check};
use super::mapping::Mapping;
use super::results::{ResultsWriter, concatenate};
use super::work::{Work, WorkCheckpoint};

/// What to replay.
#[derive(Debug, Clone)]
pub struct ReplayConfig {
    /// A Parquet or CSV file with one transaction per row, oldest first.
    pub input: PathBuf,
    /// The YAML text of the mapping.
    pub mapping: String,
    /// The Parquet file to write.
    pub output: PathBuf,
    /// Features and rules to score under.
    pub ruleset: RulesetSource,
    /// Rows scored at a time. Makes no difference to the decisions.
    pub batch_rows: usize,
    /// Rows between checkpoints: what a run that was cut off does again at the most.
    pub checkpoint_rows: u64,
    /// Whether to start over even where an earlier run can be carried on.
    pub fresh: bool,
}

/// How far a replay is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplayProgress {
    /// Rows of the input dealt with.
    pub rows: u64,
    /// Rows of the input in all.
    pub total_rows: u64,
}

/// What a replay did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReplayReport {
    /// Rows of the input.
    pub rows: u64,
    /// Decisions made: rows less rejected ones.
    pub decisions: u64,
    /// Rows that cannot be transactions.
    pub rejected: u64,
    /// Why the first of them was rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_rejection: Option<String>,
    /// The hash over all decisions in order: equal for equal decisions.
    pub decision_hash: String,
    /// The ruleset's hash.
    pub ruleset: String,
    /// The row an earlier run had come to, when this one carried it on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resumed_at_row: Option<u64>,
    /// Rows this run dealt with, per second.
    pub rows_per_s: f64,
}

/// Replays a file. A run that was cut off, by a crash or an interrupt, is carried on by running it
/// again: what it had done is in `<output>.work`.
///
/// # Errors
/// When the ruleset, the mapping or the input is wrong, or the output cannot be written.
pub async fn run(
    config: &ReplayConfig,
    progress: &mut (dyn FnMut(ReplayProgress) + Send),
) -> anyhow::Result<ReplayReport> {
    let ruleset = Ruleset::load(&config.ruleset).context("loading the ruleset")?;
    let mapping = Mapping::parse(&config.mapping).context("reading the mapping")?;
    let input = Input::open(&config.input, &mapping, config.batch_rows).await?;
    let fingerprint = fingerprint(&config.input, &config.mapping, ruleset.hash())?;
    let ruleset_hash = ruleset.hash().to_owned();
    let work = Work::open(&config.output)?;
    let mut replay = Replay::begin(work, ruleset, fingerprint, config.fresh)?;
    let resumed_at_row = Some(replay.done.rows).filter(|&rows| rows > 0);

    let began = Instant::now();
    let mut stream = input.stream(replay.done.rows).await?;
    while let Some(batch) = stream.next().await {
        replay.take(&batch.context("reading the input")?)?;
        progress(ReplayProgress { rows: replay.done.rows, total_rows: input.rows });
        if replay.done.rows - replay.saved_rows >= config.checkpoint_rows {
            replay.checkpoint()?;
        }
    }
    let rows = replay.done.rows;
    #[allow(clippy::cast_precision_loss)] // a rate for people
    let rows_per_s = (rows - resumed_at_row.unwrap_or(0)) as f64 / began.elapsed().as_secs_f64();
    let (done, first_rejection) = replay.finish(&config.output)?;
    Ok(ReplayReport {
        rows,
        decisions: done.decisions,
        rejected: done.rejected,
        first_rejection,
        decision_hash: done.decision_hash,
        ruleset: ruleset_hash,
        resumed_at_row,
        rows_per_s,
    })
}

struct Replay {
    work: Work,
    scorer: Scorer,
    hash: DecisionHash,
    done: WorkCheckpoint,
    saved_rows: u64,
    part: ResultsWriter,
    first_rejection: Option<String>,
}

impl Replay {
    fn begin(work: Work, ruleset: Ruleset, fingerprint: String, fresh: bool) -> anyhow::Result<Self> {
        let earlier = if fresh { None } else { work.resume(&fingerprint) };
        let (done, scorer) = match earlier {
            Some((done, state)) => {
                let scorer = Scorer::restore(ruleset, &work.segments(), &state)
                    .context("carrying on an earlier run")?;
                (done, scorer)
            }
            None => {
                work.start_over().context("forgetting an earlier run")?;
                (WorkCheckpoint::new(fingerprint), Scorer::new(ruleset, &work.segments()))
            }
        };
        let mut hash_state = [0; 32];
        hex::decode_to_slice(&done.decision_hash, &mut hash_state).context("the earlier run's hash")?;
        let part = ResultsWriter::create(&work.part(done.parts))?;
        let saved_rows = done.rows;
        let hash = DecisionHash::from_state(hash_state);
        Ok(Self { work, scorer, hash, done, saved_rows, part, first_rejection: None })
    }

    fn take(&mut self, batch: &RecordBatch) -> anyhow::Result<()> {
        let checked = check(batch)?;
        let (in_window_time, labels) = self.done.labels.pass(&checked)?;
        let scored = self.scorer.score_labelled(&in_window_time, &labels, &mut ()).context("scoring")?;
        for scored in &scored {
            self.hash.add(&scored.decision);
        }
        self.part.write(&checked.original_ids, &scored)?;
        self.done.rows += batch.num_rows() as u64;
        self.done.decisions += scored.len() as u64;
        self.done.rejected += checked.rejected;
        self.first_rejection = self.first_rejection.take().or(checked.first_reason);
        Ok(())
    }

    fn checkpoint(&mut self) -> anyhow::Result<()> {
        let next = ResultsWriter::create(&self.work.part(self.done.parts + 1))?;
        std::mem::replace(&mut self.part, next).finish()?;
        self.done.parts += 1;
        self.done.decision_hash = self.hash.to_string();
        self.work.save(self.done.clone(), &self.scorer.checkpoint()).context("saving a checkpoint")?;
        self.saved_rows = self.done.rows;
        Ok(())
    }

    fn finish(mut self, output: &Path) -> anyhow::Result<(WorkCheckpoint, Option<String>)> {
        self.part.finish()?;
        let parts: Vec<_> = (0..=self.done.parts).map(|part| self.work.part(part)).collect();
        concatenate(&parts, output)?;
        self.done.decision_hash = self.hash.to_string();
        self.work.remove().context("removing the work directory")?;
        Ok((self.done, self.first_rejection))
    }
}

/// What must be the same for a run to be carried on.
fn fingerprint(input: &Path, mapping: &str, ruleset: &str) -> anyhow::Result<String> {
    const BUFFER_BYTES: usize = 1 << 20;
    let mut hasher = Sha256::new();
    let mut file = File::open(input).with_context(|| format!("opening {}", input.display()))?;
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = file.read(&mut buffer).with_context(|| format!("reading {}", input.display()))?;
        if read == 0 {
            break;
        }
        hasher.update(&buffer[..read]);
    }
    hasher.update(mapping);
    hasher.update(ruleset);
    Ok(hex::encode(hasher.finalize()))
}
