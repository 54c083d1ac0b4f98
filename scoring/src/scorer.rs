//! A ruleset with its state: a batch of transactions in, a decision on each out.

use std::sync::Arc;

use datafusion::arrow::array::{AsArray as _, RecordBatch};
use events::{Decision, ListChange, ListId, Severity, TransactionId};
use serde::Serialize;

use crate::binary::{Reader, Writer};
use crate::error::{ScoreError, SnapshotError};
use crate::lists::{ListChangeError, Lists};
use crate::probe::{Probe, Stage};
use crate::rules::compile::{Known, Said};
use crate::ruleset::Ruleset;
use crate::store::{SegmentId, SegmentStore};
use crate::transactions::{self, TRANSACTION_ID};
use crate::windows::{Label, WindowState};

const MAGIC: u32 = u32::from_le_bytes(*b"pays");
const FORMAT: u32 = 8;

/// What scoring says of one transaction.
#[derive(Debug, Clone, PartialEq)]
pub struct Scored {
    /// The decision.
    pub decision: Decision,
    /// The severity of the alert to raise, if any.
    pub alert: Option<Severity>,
}

/// A consistent cut of a [`Scorer`]'s state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// What [`Scorer::restore`] takes.
    pub bytes: Vec<u8>,
    /// The sealed segments it goes on from: they must be durable before the bytes are.
    pub segments: Vec<SegmentId>,
    /// Per reservoir, the segment that is not sealed yet: what is before it and not among `segments` is of
    /// no use to this cut or any later one.
    pub open: Vec<SegmentId>,
}

/// What a [`Scorer`] holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Events in the segments that some window still needs.
    pub events: u64,
    /// Keys and distinct values that some window still needs.
    pub keys: u64,
    /// Bytes of memory for the words of accumulators, per key; lists and counts of pairs come on top.
    pub state_bytes: u64,
    /// Bytes of sealed segments in the store.
    pub segment_bytes: u64,
    /// Events in sealed segments.
    pub sealed_events: u64,
}

/// A rule that does not fire yet: not everything is known that its features look back at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WarmingRule {
    /// The rule's id.
    pub rule: String,
    /// The window time from which on it fires, in microseconds since the Unix epoch.
    pub warm_at_us: i64,
}

/// Scores transactions in the order they are given.
#[derive(Debug)]
pub struct Scorer {
    ruleset: Ruleset,
    /// Windows that share a reservoir.
    windows: Vec<WindowState>,
    lists: Lists,
    last_time_us: i64,
    /// The window time since which it has seen every transaction; `i64::MIN` when it has seen all there
    /// ever were.
    complete_since_us: i64,
}

impl Scorer {
    /// A scorer that has seen nothing yet and leaves its segments in `store`.
    #[must_use]
    pub fn new(ruleset: Ruleset, store: &Arc<dyn SegmentStore>) -> Self {
        let plans = (0..).zip(&ruleset.features.windows);
        let windows = plans
            .map(|(reservoir, (_, plan))| WindowState::new(Arc::clone(plan), reservoir, Arc::clone(store)));
        let windows = windows.collect();
        let lists = Lists::new(&ruleset.lists);
        Self { windows, lists, ruleset, last_time_us: i64::MIN, complete_since_us: i64::MIN }
    }

    /// Says, before the first transaction, that there were others up to the window time `last_time_us`,
    /// which are not known. Rules that look back at them do not fire: see [`Self::warming_rules`].
    pub fn begin_after(&mut self, last_time_us: i64) {
        self.last_time_us = last_time_us;
        self.complete_since_us = last_time_us.saturating_add(1);
    }

    /// Decides under another ruleset from the next transaction on, and keeps the state. Returns `false`,
    /// and changes nothing, when the ruleset has other windows. When it has other lists
    /// ([`Ruleset::has_lists_of`]), all changes to lists have to be taken in again.
    #[must_use]
    pub fn adopt(&mut self, ruleset: Ruleset) -> bool {
        if !ruleset.has_windows_of(&self.ruleset) {
            return false;
        }
        for (windows, (_, plan)) in self.windows.iter_mut().zip(&ruleset.features.windows) {
            windows.adopt(Arc::clone(plan));
        }
        if !ruleset.has_lists_of(&self.ruleset) {
            self.lists = Lists::new(&ruleset.lists);
        }
        self.ruleset = ruleset;
        true
    }

    /// The ruleset decisions are made under.
    #[must_use]
    pub fn ruleset(&self) -> &Ruleset {
        &self.ruleset
    }

    /// The window time of the newest transaction, in microseconds; `i64::MIN` before the first.
    #[must_use]
    pub fn last_time_us(&self) -> i64 {
        self.last_time_us
    }

    /// The rules that would not fire on the next transaction, whatever it is, if it came at once; soonest
    /// warm first.
    #[must_use]
    pub fn warming_rules(&self) -> Vec<WarmingRule> {
        let since_us = self.complete_since_us;
        if since_us == i64::MIN {
            return Vec::new();
        }
        let rules = self.ruleset.rules.reaches_us().map(|(rule, reach_us)| WarmingRule {
            rule: rule.to_owned(),
            warm_at_us: since_us.saturating_add(reach_us),
        });
        let mut warming: Vec<_> =
            rules.filter(|rule| rule.warm_at_us > self.last_time_us.saturating_add(1)).collect();
        warming.sort_by_key(|rule| rule.warm_at_us);
        warming
    }

    /// Events in the segments that some window still needs.
    #[must_use]
    pub fn live_events(&self) -> u64 {
        self.windows.iter().map(WindowState::live_events).max().unwrap_or(0)
    }

    /// What is held, and where: adds up over all segments.
    #[must_use]
    pub fn held(&self) -> Held {
        let sum = |of: fn(&WindowState) -> u64| self.windows.iter().map(of).sum();
        Held {
            events: self.live_events(),
            keys: sum(|w| w.live_keys() as u64),
            state_bytes: sum(|w| w.state_bytes() as u64),
            segment_bytes: sum(WindowState::sealed_bytes),
            sealed_events: self.windows.iter().map(WindowState::sealed_events).max().unwrap_or(0),
        }
    }

    /// Takes a change to a list in: it holds from the next transaction on.
    ///
    /// Lists are not part of a checkpoint, as the log keeps every change to them.
    ///
    /// # Errors
    /// [`ListChangeError`] when it has no effect under this ruleset. The lists are as before; carry on.
    pub fn change_list(&mut self, change: &ListChange) -> Result<(), ListChangeError> {
        self.lists.change(change, self.last_time_us)
    }

    /// How many entries each list holds, in the order of their files. An expired one counts until its memory
    /// is needed.
    pub fn list_entries(&self) -> impl Iterator<Item = (&ListId, usize)> {
        self.lists.counts()
    }

    /// Bytes of memory for the entries of all lists.
    #[must_use]
    pub fn list_bytes(&self) -> usize {
        self.lists.bytes()
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
        self.score_labelled(batch, &[], &mut ())
    }

    /// As [`Self::score`], with what becomes known of earlier transactions before, between and after the
    /// rows, in order of their rows, and telling `probe` where the time goes.
    ///
    /// # Errors
    /// As [`Self::score`].
    pub fn score_labelled(
        &mut self,
        batch: &RecordBatch,
        labels: &[Label],
        probe: &mut dyn Probe,
    ) -> Result<Vec<Scored>, ScoreError> {
        if batch.schema().fields() != transactions::schema().fields() {
            return Err(ScoreError::Batch(format!("its columns are {}", batch.schema())));
        }
        let ids = ids(batch)?;
        let (batch, times_us) = transactions::in_window_time(self.last_time_us, batch)?;
        self.last_time_us = times_us.last().copied().unwrap_or(self.last_time_us);
        let features = self.ruleset.features.run(&batch, &times_us, labels, &mut self.windows, probe)?;
        // Putting the columns together is no rule's work.
        probe.ended(Stage::Expressions);
        let known = Known { times_us: &times_us, since_us: self.complete_since_us };
        let fired = self.ruleset.rules.matches(features, &self.lists, &ids, known, probe)?;
        probe.ended(Stage::Rules);
        let ruleset = &self.ruleset;
        // Nearly all have no match at all.
        let mut matches = Vec::new();
        let unmatched = ruleset.rules.say(&[], &mut matches).verdict;
        let scored = ids.into_iter().zip(times_us).map(|(transaction_id, window_time_us)| Scored {
            decision: Decision {
                transaction_id,
                window_time_us,
                outcome: unmatched.outcome,
                risk_score: unmatched.risk_score,
                risk_level: unmatched.risk_level,
                reasons: Vec::new(),
                shadow_reasons: Vec::new(),
                ruleset: ruleset.shared_hash(),
                model: None,
            },
            alert: unmatched.alert,
        });
        let mut scored: Vec<Scored> = scored.collect();
        for of_row in fired.chunk_by(|a, b| a.row() == b.row()) {
            let Scored { decision, alert } = &mut scored[of_row[0].row()];
            let Said { verdict, reasons, shadow_reasons } = ruleset.rules.say(of_row, &mut matches);
            decision.outcome = verdict.outcome;
            decision.risk_score = verdict.risk_score;
            decision.risk_level = verdict.risk_level;
            decision.reasons = reasons;
            decision.shadow_reasons = shadow_reasons;
            *alert = verdict.alert;
        }
        probe.ended(Stage::Decisions);
        Ok(scored)
    }

    /// Takes a batch and labels in as [`Self::score_labelled`] does and returns the batch with its
    /// features, without deciding.
    ///
    /// # Errors
    /// [`ScoreError`]; the state must then be restored.
    pub fn features(&mut self, batch: &RecordBatch, labels: &[Label]) -> Result<RecordBatch, ScoreError> {
        let (batch, times_us) = transactions::in_window_time(self.last_time_us, batch)?;
        self.last_time_us = times_us.last().copied().unwrap_or(self.last_time_us);
        self.ruleset.features.run(&batch, &times_us, labels, &mut self.windows, &mut ())
    }

    /// A consistent cut between two batches: bytes that, with the segments they name, are the whole
    /// state. Its cost follows what is not in a sealed segment yet, not what is held.
    #[must_use]
    pub fn checkpoint(&self) -> Cut {
        let mut out = Writer::default();
        out.u32(MAGIC);
        out.u32(FORMAT);
        out.bytes(&self.ruleset.windows_digest());
        out.i64(self.last_time_us);
        out.i64(self.complete_since_us);
        for windows in &self.windows {
            windows.write(&mut out);
        }
        let segments = self.windows.iter().flat_map(WindowState::segments).collect();
        let open = self.windows.iter().flat_map(WindowState::open_segments).collect();
        Cut { bytes: out.finish(), segments, open }
    }

    /// A scorer that goes on from a checkpoint as if it had never stopped. The rules may have changed
    /// since; the features may not. Of its lists it knows what their files say: whoever owns it gives it all
    /// [changes](Self::change_list) again that were taken in before the checkpoint.
    ///
    /// # Errors
    /// [`SnapshotError`] when the bytes or a segment are damaged, of another format, or of other
    /// features.
    pub fn restore(
        ruleset: Ruleset,
        store: &Arc<dyn SegmentStore>,
        checkpoint: &[u8],
    ) -> Result<Self, SnapshotError> {
        let mut input = Reader::new(checkpoint)?;
        if input.u32()? != MAGIC {
            return Err(SnapshotError::Damaged("it is not a checkpoint"));
        }
        let found = input.u32()?;
        if found != FORMAT {
            return Err(SnapshotError::Version { found, known: FORMAT });
        }
        if input.bytes()? != ruleset.windows_digest() {
            return Err(SnapshotError::OtherFeatures);
        }
        let last_time_us = input.i64()?;
        let complete_since_us = input.i64()?;
        let mut windows = Vec::new();
        for (_, plan) in &ruleset.features.windows {
            let (plan, store) = (Arc::clone(plan), Arc::clone(store));
            windows.push(WindowState::restore(plan, windows.len(), store, &mut input, &windows)?);
        }
        input.finish()?;
        let lists = Lists::new(&ruleset.lists);
        Ok(Self { ruleset, windows, lists, last_time_us, complete_since_us })
    }
}

fn ids(batch: &RecordBatch) -> Result<Vec<TransactionId>, ScoreError> {
    let column = batch
        .column_by_name(TRANSACTION_ID)
        .ok_or_else(|| ScoreError::Batch(format!("column {TRANSACTION_ID} is missing")))?;
    let mut ids = Vec::with_capacity(batch.num_rows());
    for id in column.as_string::<i32>() {
        let id = id.unwrap_or_default().parse();
        ids.push(id.map_err(|e| ScoreError::Batch(format!("{TRANSACTION_ID}: {e}")))?);
    }
    Ok(ids)
}
