//! The events of a step and its rows as the accumulators of a frame see them.

use super::drive::{Course, Feed};
use super::layout::{CourseSpec, Layout, Placed};
use super::repeats::Repeats;
use super::reservoir::{CONDITIONS, KEYS, TIME};
use super::runs::{Act, Source};
use super::tails::Passing;

/// What is known of the events of a step in frames that end together, beside what the reservoir has.
#[derive(Debug, Default)]
pub(super) struct Happening {
    /// Where something tells which events repeat a value: the condition bits of those that leave, with what it tells.
    leaving: Vec<i64>,
    /// The same of those that enter.
    entering: Vec<i64>,
    /// In a delayed frame in which something asks for it: how many events have left when each of those that enter does.
    left: Vec<usize>,
    /// Condition bits that some event has.
    bits: u64,
}

/// A step: what passes each tail, the columns of the rows, and the number of the first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment<'a> {
    pub(super) passing: &'a [Passing],
    pub(super) rows: &'a [&'a [i64]],
    pub(super) first_seq: u64,
}

impl CourseSpec {
    /// The condition bits of events that pass, if its accumulators ask for them.
    fn conditions<'a>(&self, passing: &'a Passing) -> &'a [i64] {
        if self.conditional { passing.column(CONDITIONS) } else { &[] }
    }

    /// The events that enter the frames or leave them, in the order in which they do between two rows. In a delayed frame
    /// an event may enter and leave there; in any other, one that leaves before another enters lets the frame be empty
    /// for a moment.
    pub(super) fn sources<'a>(
        &self,
        layout: &'a Layout,
        key: usize,
        passing: &'a [Passing],
    ) -> Vec<Source<'a>> {
        let leaving = self.leaves.iter().enumerate().map(|(frame, &tail)| (Act::Leave(frame), tail));
        let entering = self.enter.map(|tail| (Act::Enter, tail));
        let source = |(act, tail): (Act, usize)| {
            let passing = &passing[tail];
            let (keys, times_us) = (passing.column(KEYS + key), passing.column(TIME));
            Source { act, keys, times_us, ends: &passing.ends, tail: &layout.tails[tail] }
        };
        entering.into_iter().chain(leaving).map(source).collect()
    }
}

impl Happening {
    /// Finds out what the accumulators of frames ask for of a step.
    pub(super) fn follow(
        &mut self,
        (layout, spec): (&Layout, &CourseSpec),
        moment: Moment<'_>,
        repeats: &[Repeats],
    ) {
        let Moment { passing, rows, .. } = moment;
        let entering = spec.enter.map(|tail| &passing[tail]);
        if !spec.repeats.is_empty() {
            let leaving = &passing[spec.leaves[0]];
            let (entering_events, entering_conditions) = match entering {
                None => (rows[TIME].len(), if spec.conditional { rows[CONDITIONS] } else { &[] }),
                Some(entering) => (entering.events, spec.conditions(entering)),
            };
            let begin = |column: &mut Vec<i64>, conditions: &[i64], events: usize| {
                column.clear();
                column.extend_from_slice(conditions);
                column.resize(events, 0);
            };
            begin(&mut self.leaving, spec.conditions(leaving), leaving.events);
            begin(&mut self.entering, entering_conditions, entering_events);
            let left = match entering {
                None => &leaving.cuts,
                Some(entering) => {
                    self.left.clear();
                    for (entered, left) in entering.cuts_after(leaving) {
                        self.left.resize(entered, left);
                    }
                    &self.left
                }
            };
            for &told in &spec.repeats {
                let (bit, mask) = (layout.repeats[told].bit, layout.repeats[told].mask);
                let conditions = (&mut self.leaving[..], &mut self.entering[..]);
                repeats[told].tell((bit, mask), (leaving.first_seq, left), conditions);
            }
        }
        let bits = |conditions: &[i64]| conditions.iter().fold(0, |all, bits| all | bits.cast_unsigned());
        self.bits = if !spec.repeats.is_empty() {
            bits(&self.leaving) | bits(&self.entering)
        } else if spec.conditional {
            let of_tail = |&tail: &usize| bits(passing[tail].column(CONDITIONS));
            let of_rows = if entering.is_none() { bits(rows[CONDITIONS]) } else { 0 };
            spec.leaves.iter().chain(&spec.enter).map(of_tail).fold(of_rows, |all, bits| all | bits)
        } else {
            0
        };
    }

    /// What an accumulator sees of the events of a step.
    pub(super) fn of<'a>(&'a self, spec: &CourseSpec, moment: Moment<'a>, placed: &Placed) -> Course<'a> {
        let Moment { passing, rows, first_seq } = moment;
        // Where nothing is asked of a column, any will do.
        let any = KEYS + placed.key;
        let conditions = if spec.conditional { CONDITIONS } else { any };
        let values = placed.column.unwrap_or(any);
        let told = !spec.repeats.is_empty();
        let feed = |tail: &usize, told_of: &'a [i64]| {
            let passing = &passing[*tail];
            let conditions = if told { told_of } else { passing.column(conditions) };
            let (keys, values) = (passing.column(any), passing.column(values));
            Feed { first_seq: passing.first_seq, keys, conditions, values }
        };
        let of_rows = if told && spec.enter.is_none() { &self.entering } else { rows[conditions] };
        let rows = Feed { first_seq, keys: rows[any], conditions: of_rows, values: rows[values] };
        let entering = spec.enter.as_ref().map(|tail| feed(tail, &self.entering));
        Course::new(rows, entering, spec.leaves.iter().map(|tail| feed(tail, &self.leaving)))
    }

    /// Whether no event of the step counts for an accumulator that asks for these condition bits.
    pub(super) const fn passes_by(&self, mask: u64) -> bool {
        self.bits & mask != mask
    }
}
