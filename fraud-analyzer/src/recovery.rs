//! From the newest checkpoint, through the decided records after it, to the present.
//!
//! `transactions.decided` is the journal: each record says in `seq` where its event stood in the order
//! of processing, and a batch is appended all or none. Taking the events in again in that order leads
//! to the state the analyzer had when it stopped, and to the decisions it made, which is checked.

use std::time::Duration;

use anyhow::Context as _;
use eventlog::EventLog;
use events::{Decided, Taken};
use scoring::{Ruleset, Scorer, SnapshotError, transactions};

use crate::checkpoint::{Checkpoint, Checkpoints};
use crate::generations::Generations;
use crate::intake::{self, DEAD_LETTER_TOPIC};
use crate::journal::Journal;
use crate::labels;
use crate::lane::Lane;
use crate::lists;
use crate::metrics::Metrics;
use crate::progress::Progress;

/// Records read from a partition at a time, and events scored at a time.
const READ_RECORDS: usize = 2_048;
/// Transactions taken in between two looks whether to go on.
const PART_TRANSACTIONS: usize = 65_536;

/// A scorer made of what a lane has decided, and how far it is.
#[derive(Debug)]
pub(crate) struct Recovered {
    lane: Lane,
    pub(crate) scorer: Scorer,
    pub(crate) progress: Progress,
    /// Where its checkpoints go, and its segments.
    pub(crate) checkpoints: Checkpoints,
    journal: Journal,
    /// Whether the newest of what was taken in was decided when there was another number of lanes.
    after_others: bool,
    /// Whether its state is the one that decisions were made with: then it must make the same.
    verifies: bool,
}

/// Restores a lane's newest usable checkpoint and replays what was decided after it. `None` when it was told to
/// give up meanwhile.
pub(crate) async fn recover(
    log: &dyn EventLog,
    lane: Lane,
    generations: &Generations,
    ruleset: Ruleset,
    metrics: &Metrics,
    give_up: impl Fn() -> bool,
) -> anyhow::Result<Option<Recovered>> {
    let mut recovered = match newest_usable(lane, generations, &ruleset)? {
        Some(found) => found,
        None => Recovered::begin(log, lane, generations, ruleset).await?,
    };
    recovered.rebuild_lists(log, metrics).await?;
    let mut replayed = 0;
    loop {
        let taken = recovered.replay_decided(log, u64::MAX, PART_TRANSACTIONS, metrics).await?;
        replayed += taken;
        if give_up() {
            return Ok(None);
        }
        if taken < PART_TRANSACTIONS {
            break;
        }
    }
    if replayed > 0 {
        let next_seq = recovered.progress.next_seq;
        tracing::info!(lane = lane.number, replayed, next_seq, "recovered from the decided transactions");
    }
    recovered.skip_dead_letters(log).await?;
    generations.keep_only(&recovered.checkpoints).context("removing checkpoints that are of no more use")?;
    Ok(Some(recovered))
}

fn newest_usable(
    lane: Lane,
    generations: &Generations,
    ruleset: &Ruleset,
) -> anyhow::Result<Option<Recovered>> {
    let mut others = false;
    for checkpoints in generations.newest_first().context("listing checkpoints")? {
        for checkpoint in checkpoints.readable().context("listing checkpoints")? {
            match Scorer::restore(ruleset.clone(), &checkpoints.segments(), &checkpoint.state.bytes) {
                Ok(scorer) => return Ok(Some(Recovered::restored(lane, scorer, checkpoint, checkpoints))),
                Err(SnapshotError::OtherFeatures) => {
                    others = true;
                    break;
                }
                Err(reason) => tracing::error!(%reason, "a checkpoint cannot be used; trying the one before"),
            }
        }
    }
    if others {
        tracing::warn!(
            "all checkpoints were written under other features: windows are rebuilt from the decided \
             transactions the log still holds"
        );
    }
    Ok(None)
}

impl Recovered {
    /// Nothing yet, before the oldest decided transactions the log still holds.
    pub(crate) async fn begin(
        log: &dyn EventLog,
        lane: Lane,
        generations: &Generations,
        ruleset: Ruleset,
    ) -> anyhow::Result<Self> {
        let checkpoints = generations.create().context("making a directory for the windows")?;
        let progress = Progress::start(log, lane).await.context("asking the log for its bounds")?;
        let scorer = Scorer::new(ruleset, &checkpoints.segments());
        let journal = Journal::new(lane, &progress.decided);
        Ok(Self { lane, scorer, progress, checkpoints, journal, after_others: false, verifies: true })
    }

    fn restored(lane: Lane, scorer: Scorer, checkpoint: Checkpoint, checkpoints: Checkpoints) -> Self {
        let Checkpoint { progress, decides, .. } = checkpoint;
        let journal = Journal::new(lane, &progress.decided);
        Self { lane, scorer, progress, checkpoints, journal, after_others: false, verifies: decides }
    }

    /// Takes in what was decided, from where it is up to the place `until`, of which everything before has
    /// been appended; at most so many transactions. Returns how many.
    pub(crate) async fn replay_decided(
        &mut self,
        log: &dyn EventLog,
        until: u64,
        at_most: usize,
        metrics: &Metrics,
    ) -> anyhow::Result<usize> {
        // Without a checkpoint the journal begins wherever retention has left it.
        let mut any_start = self.progress.next_seq == 0;
        let mut taken = 0;
        let mut batch: Vec<Decided> = Vec::with_capacity(READ_RECORDS.min(at_most));
        let mut labels = Vec::new();
        self.journal.look(log).await?;
        while taken < at_most
            && let Some((at, decided)) = self.journal.next(log, until).await?
        {
            let in_order = decided.lanes == self.lane.of && !self.after_others;
            self.after_others = decided.lanes != self.lane.of;
            if self.after_others || decided.seq != self.progress.next_seq {
                if in_order && !any_start {
                    anyhow::bail!(
                        "the decided topic continues at place {} where {} was expected: records are missing; \
                         restore the log from a backup, or remove the analyzer's checkpoints to rebuild from what is there",
                        decided.seq,
                        self.progress.next_seq
                    );
                }
                if any_start {
                    self.scorer.begin_after(decided.decision.window_time_us.saturating_sub(1));
                }
                self.verifies = false;
            }
            any_start = false;
            taken += 1;
            if !self.after_others {
                self.progress.next_seq = decided.seq + 1;
            }
            let source = decided.source_partition as usize;
            let created =
                self.progress.created.get_mut(source).context("a decision from an unknown partition")?;
            *created = decided.source_offset + 1;
            self.progress.decided[at.partition as usize] = at.offset + 1;
            if let Some(Taken { labelled, lists }) = &decided.taken {
                if !lists.is_empty() && *lists != self.progress.lists {
                    // They change between batches.
                    self.score(&batch, &labels, metrics)?;
                    batch.clear();
                    labels.clear();
                    self.take_lists(log, lists, metrics).await?;
                }
                // Its dead letters were written with the decision.
                let read = labels::read_until(log, self.lane, &mut self.progress.labelled, labelled).await?;
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
        Ok(taken)
    }

    /// Checkpoints do not hold lists: they are what the topic adds up to, as far as it had been taken in.
    async fn rebuild_lists(&mut self, log: &dyn EventLog, metrics: &Metrics) -> anyhow::Result<()> {
        let until = std::mem::take(&mut self.progress.lists);
        self.progress.lists = vec![0; until.len()];
        self.take_lists(log, &until, metrics).await
    }

    /// Takes in what changed on lists up to `until`.
    pub(crate) async fn take_lists(
        &mut self,
        log: &dyn EventLog,
        until: &[u64],
        metrics: &Metrics,
    ) -> anyhow::Result<()> {
        let mut intake = lists::Intake { log, lane: self.lane, scorer: &mut self.scorer, metrics };
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
            let comparable = self.verifies && again.decision.ruleset == logged.decision.ruleset;
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
        for (partition, next) in self.lane.own(&mut self.progress.dead) {
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
