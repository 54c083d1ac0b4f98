//! What events turn out to be: a label changes what windows see of an event from then on.

use std::collections::BTreeMap;
use std::ops::Range;

use super::drive::{Course, drive};
use super::layout::Leave;
use super::reservoir::{CONDITIONS, KEYS, LabelRecord, TIME};
use super::spec::WindowPlan;
use super::state::{Kind, WindowState, with_accumulator};
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

    /// Takes a label in. An event that no window can reach any more, or that never was, has none.
    fn label(&mut self, label: &Label) -> Result<(), ScoreError> {
        let Some(seq) = self.reservoir.find(label.window_time_us)? else { return Ok(()) };
        let before = self.labels.insert(seq, label.fraud);
        if before == Some(label.fraud) {
            return Ok(());
        }
        self.new_labels.push(LabelRecord { seq, fraud: label.fraud });
        let mut of_event = Vec::with_capacity(1);
        self.reservoir.gather(CONDITIONS, seq..seq + 1, &mut of_event)?;
        let plan = std::sync::Arc::clone(&self.plan);
        let conditions =
            [effective(&plan, of_event[0], before), effective(&plan, of_event[0], Some(label.fraud))];
        let layout = std::sync::Arc::clone(&self.layout);
        for (index, placed) in layout.placed.iter().enumerate() {
            let Leave::Tail { tail, .. } = placed.leave else { continue };
            let entered = placed.enter.is_none_or(|enter| seq < self.tails[enter]);
            let counts = |bits: i64| bits.cast_unsigned() & placed.place.mask == placed.place.mask;
            if !entered || seq < self.tails[tail] || counts(conditions[0]) == counts(conditions[1]) {
                continue;
            }
            // It leaves as what it was, and comes again as what it is. In counts and sums it makes no
            // difference that others came after it.
            let mut twice = |column: usize| {
                of_event.clear();
                self.reservoir.gather(column, seq..seq + 1, &mut of_event).map(|()| [of_event[0]; 2])
            };
            let keys = twice(KEYS + placed.key)?;
            let values = twice(placed.column.unwrap_or(TIME))?;
            let course = Course {
                signs: &[-1, 1],
                reads: &[0, 0],
                order: &[0, 1],
                seqs: &[seq.cast_signed(); 2],
                keys: &keys,
                conditions: &conditions,
                values: &values,
            };
            let state = &mut self.words[placed.key];
            with_accumulator!(&mut self.kinds[index], accumulator => {
                drive(accumulator, state, placed.place, course, 0, &mut Vec::new());
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
