//! From the newest checkpoint, through the decided records after it, to the present.
//!
//! `transactions.decided` is the journal: each record says in `seq` where its event stood in the order
//! of processing, and a batch is appended all or none. Taking the events in again in that order leads
//! to the state the analyzer had when it stopped, and to the decisions it made, which is checked.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use eventlog::EventLog;
use events::{Decided, Message as _, Taken, topics};
use scoring::{Ruleset, Scorer, SegmentStore, SnapshotError, transactions};

use crate::checkpoint::Checkpoints;
use crate::intake::{self, DEAD_LETTER_TOPIC};
use crate::labels;
use crate::lists;
use crate::metrics::Metrics;
use crate::progress::Progress;
use crate::segments::SegmentDir;

/// Records read from a partition at a time, and events scored at a time.
const READ_RECORDS: usize = 2_048;

/// The scorer and how far it is.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) scorer: Scorer,
    pub(crate) progress: Progress,
}

/// Restores the newest usable checkpoint and replays what was decided after it.
pub(crate) async fn recover(
    log: &dyn EventLog,
    checkpoints: &Checkpoints,
    ruleset: Ruleset,
    metrics: &Metrics,
) -> anyhow::Result<Recovered> {
    let store: Arc<dyn SegmentStore> = Arc::<SegmentDir>::clone(checkpoints.segments());
    let (scorer, progress) = match newest_usable(checkpoints, &store, &ruleset)? {
        Some(found) => found,
        None => {
            // Their places in the order of processing may be ahead of where this run begins: they would
            // pass for newer than what it writes.
            checkpoints.clear().context("removing checkpoints that cannot be used")?;
            let progress = Progress::start(log).await.context("asking the log for its bounds")?;
            (Scorer::new(ruleset, &store), progress)
        }
    };
    let mut recovered = Recovered { scorer, progress };
    recovered.rebuild_lists(log, metrics).await?;
    recovered.replay_decided(log, metrics).await?;
    recovered.skip_dead_letters(log).await?;
    Ok(recovered)
}

fn newest_usable(
    checkpoints: &Checkpoints,
    store: &Arc<dyn SegmentStore>,
    ruleset: &Ruleset,
) -> anyhow::Result<Option<(Scorer, Progress)>> {
    for checkpoint in checkpoints.readable().context("listing checkpoints")? {
        match Scorer::restore(ruleset.clone(), store, &checkpoint.state.bytes) {
            Ok(scorer) => return Ok(Some((scorer, checkpoint.progress))),
            Err(reason @ SnapshotError::OtherFeatures) => {
                tracing::warn!(%reason, "windows are rebuilt from the decided transactions the log still holds");
                return Ok(None);
            }
            Err(reason) => tracing::error!(%reason, "a checkpoint cannot be used; trying the one before"),
        }
    }
    Ok(None)
}

impl Recovered {
    async fn replay_decided(&mut self, log: &dyn EventLog, metrics: &Metrics) -> anyhow::Result<()> {
        let from = self.progress.next_seq;
        // Without a checkpoint the journal begins wherever retention has left it.
        let mut any_start = from == 0;
        let mut journal = Journal::open(log, &self.progress.decided).await?;
        let mut batch: Vec<Decided> = Vec::with_capacity(READ_RECORDS);
        let mut labels = Vec::new();
        while let Some((partition, decided)) = journal.next(log).await? {
            if decided.seq != self.progress.next_seq && !std::mem::take(&mut any_start) {
                anyhow::bail!(
                    "the decided topic continues at place {} where {} was expected: records are missing; \
                     restore the log from a backup, or remove the analyzer's checkpoints to rebuild from what is there",
                    decided.seq,
                    self.progress.next_seq
                );
            }
            any_start = false;
            self.progress.next_seq = decided.seq + 1;
            let source = decided.source_partition as usize;
            let created =
                self.progress.created.get_mut(source).context("a decision from an unknown partition")?;
            *created = decided.source_offset + 1;
            self.progress.decided[partition] += 1;
            if let Some(Taken { labelled, lists }) = &decided.taken {
                if !lists.is_empty() && *lists != self.progress.lists {
                    // They change between batches.
                    self.score(&batch, &labels, metrics)?;
                    batch.clear();
                    labels.clear();
                    self.take_lists(log, lists, metrics).await?;
                }
                // Its dead letters were written with the decision.
                let read = labels::read_until(log, &mut self.progress.labelled, labelled).await?;
                let before_row = batch.len();
                labels.extend(read.labels.into_iter().map(|label| scoring::Label { before_row, ..label }));
            }
            batch.push(decided);
            if batch.len() == READ_RECORDS {
                self.score(&batch, &labels, metrics)?;
                batch.clear();
                labels.clear();
            }
        }
        self.score(&batch, &labels, metrics)?;
        let replayed = self.progress.next_seq - from;
        if replayed > 0 {
            tracing::info!(
                replayed,
                next_seq = self.progress.next_seq,
                "recovered from the decided transactions"
            );
        }
        Ok(())
    }

    /// Checkpoints do not hold lists: they are what the topic adds up to, as far as it had been taken in.
    async fn rebuild_lists(&mut self, log: &dyn EventLog, metrics: &Metrics) -> anyhow::Result<()> {
        let until = std::mem::take(&mut self.progress.lists);
        self.progress.lists = vec![0; until.len()];
        self.take_lists(log, &until, metrics).await
    }

    async fn take_lists(
        &mut self,
        log: &dyn EventLog,
        until: &[u64],
        metrics: &Metrics,
    ) -> anyhow::Result<()> {
        let mut intake = lists::Intake { log, scorer: &mut self.scorer, metrics };
        // Their dead letters were written when they were taken in first.
        intake.take_until(&mut self.progress.lists, until).await.map(drop)
    }

    fn score(
        &mut self,
        batch: &[Decided],
        labels: &[scoring::Label],
        metrics: &Metrics,
    ) -> anyhow::Result<()> {
        let list: Vec<_> = batch.iter().map(|d| &d.transaction).collect();
        let scored = self.scorer.score_labelled(&transactions::batch(&list), labels, &mut ());
        let scored = scored.context("replaying decided transactions")?;
        for (again, logged) in scored.iter().zip(batch) {
            // Under other rules another decision is right: the logged one stands, the state is the same.
            let comparable = again.decision.ruleset == logged.decision.ruleset;
            if comparable && again.decision != logged.decision {
                metrics.replay_mismatches.inc();
                tracing::error!(transaction = %logged.transaction.id, seq = logged.seq,
                    "a decision made again differs from the logged one: please report this");
            }
        }
        Ok(())
    }

    /// Dead letters have no decision: those written since the checkpoint say how far reading got.
    async fn skip_dead_letters(&mut self, log: &dyn EventLog) -> anyhow::Result<()> {
        for (partition, next) in (0_u32..).zip(&mut self.progress.dead) {
            loop {
                let records =
                    log.read(DEAD_LETTER_TOPIC, partition, *next, READ_RECORDS, Duration::ZERO).await?;
                let Some(last) = records.last() else { break };
                *next = last.offset + 1;
                for origin in records.iter().filter_map(intake::origin) {
                    if let Some(created) = self.progress.created.get_mut(origin.partition as usize) {
                        *created = (*created).max(origin.offset + 1);
                    }
                }
            }
        }
        Ok(())
    }
}

/// The decided records of all partitions, merged by their place in the analyzer's order.
struct Journal {
    partitions: Vec<JournalPartition>,
}

struct JournalPartition {
    next_offset: u64,
    buffered: VecDeque<Decided>,
}

impl Journal {
    async fn open(log: &dyn EventLog, from: &[u64]) -> anyhow::Result<Self> {
        let mut partitions = Vec::new();
        for &next_offset in from {
            partitions.push(JournalPartition { next_offset, buffered: VecDeque::new() });
        }
        let mut journal = Self { partitions };
        for partition in 0..journal.partitions.len() {
            journal.fill(log, partition).await?;
        }
        Ok(journal)
    }

    async fn fill(&mut self, log: &dyn EventLog, partition: usize) -> anyhow::Result<()> {
        let number = u32::try_from(partition).context("too many partitions")?;
        let state = &mut self.partitions[partition];
        let records =
            log.read(topics::DECIDED, number, state.next_offset, READ_RECORDS, Duration::ZERO).await?;
        for record in records {
            let decided = Decided::decode(&record.value).with_context(|| {
                format!(
                    "{}/{number} offset {}: the analyzer's own record cannot be read",
                    topics::DECIDED,
                    record.offset
                )
            })?;
            state.next_offset = record.offset + 1;
            state.buffered.push_back(decided);
        }
        Ok(())
    }

    async fn next(&mut self, log: &dyn EventLog) -> anyhow::Result<Option<(usize, Decided)>> {
        let heads = self.partitions.iter().enumerate();
        let first = heads.filter_map(|(i, p)| p.buffered.front().map(|d| (d.seq, i))).min();
        let Some((_, partition)) = first else { return Ok(None) };
        let decided = self.partitions[partition].buffered.pop_front();
        if self.partitions[partition].buffered.is_empty() {
            self.fill(log, partition).await?;
        }
        Ok(decided.map(|d| (partition, d)))
    }
}
