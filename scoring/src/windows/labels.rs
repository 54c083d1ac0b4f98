//! What events turn out to be: a label changes what windows see of an event from then on.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use super::drive::{Course, Feed, Walk, drive, holds};
use super::kind::{Kind, with_accumulator};
use super::layout::Leave;
use super::records::LabelRecord;
use super::reservoir::{CONDITIONS, KEYS, TIME};
use super::runs::{Act, Order, Run};
use super::spec::WindowPlan;
use super::state::WindowState;
use crate::error::ScoreError;

/// What became known of an earlier transaction, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label {
    /// How many rows of the batch come before it: those after it see it, those before it do not.
    pub before_row: usize,
    /// The transaction's window time in microseconds, as its decision has it.
    pub window_time_us: i64,
    /// Fraud, or legit. A later label on the same transaction replaces an earlier one.
    pub fraud: bool,
}

impl WindowState {
    /// Takes in the labels that no row before them could tell from known, which is most of them, and returns the
    /// others: only for those must the batch, whose rows have these times, be cut.
    pub(super) fn settle(&mut self, labels: &[Label], times_us: &[i64]) -> Result<Vec<Label>, ScoreError> {
        if self.plan.labelled.is_empty() {
            return Ok(Vec::new());
        }
        let mut others = Vec::new();
        let mut pending = BTreeSet::new();
        for label in labels {
            match self.labelled(label)? {
                Some(seq)
                    if !pending.contains(&label.window_time_us)
                        && !self.is_seen_early(seq, label, times_us)? =>
                {
                    self.turns_out(seq, label.fraud)?;
                }
                // Without an event, it is one of this very batch, perhaps.
                _ => {
                    pending.insert(label.window_time_us);
                    others.push(*label);
                }
            }
        }
        Ok(others)
    }

    /// Whether a label changes a frame that its event is in before the label is known: not if it changes none, nor
    /// if it comes before its event enters, as labels do that mature until a delayed frame begins.
    fn is_seen_early(&mut self, seq: u64, label: &Label, times_us: &[i64]) -> Result<bool, ScoreError> {
        let Some(last_row) = label.before_row.checked_sub(1) else { return Ok(false) };
        let last_us = times_us.get(last_row).copied().unwrap_or(i64::MAX);
        let conditions = self.conditions(seq, label.fraud)?;
        let entered = |enter: usize| {
            seq < self.tails[enter] || label.window_time_us < self.layout.tails[enter].edge(last_us)
        };
        Ok(self.layout.placed.iter().any(|placed| {
            let Leave::Tail(tail) = placed.leave else { return false };
            let [before, after] = conditions.map(|conditions| holds(conditions, placed.place.mask));
            before != after && seq >= self.tails[tail] && placed.enter.is_none_or(entered)
        }))
    }

    /// Takes in the labels that come before `row`, and returns those that do not.
    pub(super) fn label_all<'a>(
        &mut self,
        labels: &'a [Label],
        row: usize,
    ) -> Result<&'a [Label], ScoreError> {
        let (now, later) = labels.split_at(labels.partition_point(|label| label.before_row <= row));
        for label in now {
            self.label(label)?;
        }
        Ok(later)
    }

    /// The event that a label is of, while some window that asks for labels may see it.
    fn labelled(&mut self, label: &Label) -> Result<Option<u64>, ScoreError> {
        let first_seq = self.reservoir.first_seq_of(CONDITIONS);
        Ok(self.reservoir.find(label.window_time_us)?.filter(|&seq| seq >= first_seq))
    }

    /// The condition bits of an event as it is labelled now, and as it will be.
    fn conditions(&mut self, seq: u64, fraud: bool) -> Result<[i64; 2], ScoreError> {
        let mut bits = Vec::with_capacity(1);
        self.reservoir.gather(CONDITIONS, seq..seq + 1, &mut bits)?;
        let label = self.labels.get(&seq).copied();
        Ok([effective(&self.plan, bits[0], label), effective(&self.plan, bits[0], Some(fraud))])
    }

    /// Takes a label in. An event that no window can reach any more, or that never was, has none.
    fn label(&mut self, label: &Label) -> Result<(), ScoreError> {
        match self.labelled(label)? {
            Some(seq) => self.turns_out(seq, label.fraud),
            None => Ok(()),
        }
    }

    /// Lets windows see an event as what it turned out to be.
    fn turns_out(&mut self, seq: u64, fraud: bool) -> Result<(), ScoreError> {
        self.last_labelled = seq;
        let conditions = self.conditions(seq, fraud)?;
        if self.labels.insert(seq, fraud) == Some(fraud) {
            return Ok(());
        }
        self.new_labels.push(LabelRecord { seq, fraud });
        if conditions[0] == conditions[1] {
            return Ok(());
        }
        let layout = Arc::clone(&self.layout);
        for (index, placed) in layout.placed.iter().enumerate() {
            let Leave::Tail(tail) = placed.leave else { continue };
            let entered = placed.enter.is_none_or(|enter| seq < self.tails[enter]);
            let counted = conditions.map(|conditions| holds(conditions, placed.place.mask));
            if !entered || seq < self.tails[tail] || counted[0] == counted[1] {
                continue;
            }
            // It leaves as what it was, and comes again as what it is. In counts and sums it makes no
            // difference that others came after it.
            let mut column = |column: usize| {
                let mut of_event = Vec::with_capacity(1);
                self.reservoir.gather(column, seq..seq + 1, &mut of_event).map(|()| of_event)
            };
            let keys = column(KEYS + placed.key)?;
            let values = column(placed.column.unwrap_or(TIME))?;
            let as_it = |of: usize| Feed {
                first_seq: seq,
                keys: &keys,
                conditions: &conditions[of..=of],
                values: &values,
            };
            let course = Course::new(Feed::NONE, Some(as_it(1)), [as_it(0)].into_iter());
            let runs = [Act::Leave(0), Act::Enter].map(|act| Run { act: Some(act), from: 0, to: 1 });
            let order = Order { runs: runs.to_vec(), steps: Vec::new() };
            let walk = Walk { order: &order, rows: 0, spans: &[] };
            self.counted[index] = true;
            let (state, read) = (&mut self.words[placed.key], &mut self.read);
            with_accumulator!(&mut self.kinds[index], accumulator => {
                drive(accumulator, state, placed.place, &course, walk, read);
            }, ring => unreachable!("labels are for frames in time"));
        }
        Ok(())
    }

    /// Takes up labels that segments have, oldest first.
    pub(super) fn restore_labels(&mut self, labels: impl Iterator<Item = LabelRecord>) {
        let first_seq = self.reservoir.first_seq();
        self.labels.extend(labels.filter(|l| l.seq >= first_seq).map(|l| (l.seq, l.fraud)));
    }
}

/// Puts what is known now into the condition bits of the events of `range`.
pub(super) fn relabel(
    plan: &WindowPlan,
    labels: &BTreeMap<u64, bool>,
    range: Range<u64>,
    conditions: &mut [i64],
) {
    if plan.labelled.is_empty() || range.is_empty() {
        return;
    }
    let first = range.start;
    for (&seq, &fraud) in labels.range(range) {
        let at = usize::try_from(seq - first).expect("a step is short");
        conditions[at] = effective(plan, conditions[at], Some(fraud));
    }
}

/// The condition bits of an event as they are once it is labelled.
fn effective(plan: &WindowPlan, bits: i64, fraud: Option<bool>) -> i64 {
    let Some(fraud) = fraud else { return bits };
    plan.labelled.iter().fold(bits, |bits, condition| {
        let holds = bits >> if fraud { condition.fraud } else { condition.legit } & 1;
        bits & !(1 << condition.unknown) | holds << condition.unknown
    })
}
