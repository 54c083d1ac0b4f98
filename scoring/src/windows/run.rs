//! A step through all accumulators: what enters, what leaves, and what is read.

use std::sync::Arc;

use super::accumulate::{Ring, key};
use super::chunked::{AHEAD, Chunked};
use super::course::Moment;
use super::drive::{Course, Feed, Walk, drive, drive_history, read_only};
use super::grouping::Group;
use super::kind::{Kind, with_accumulator};
use super::lanes::{Lanes, Summed};
use super::layout::{Layout, Placed, Silence};
use super::read::{Column, Read};
use super::reservoir::{CONDITIONS, KEYS, TIME};
use super::runs::Act;
use super::spec::WindowPlan;
use super::state::WindowState;
use crate::probe::Probe;

/// Rows whose histories, or whose outputs, are taken in turn: what they touch stays in the first cache meanwhile.
const ROWS_AT_ONCE: usize = 128;

impl WindowState {
    /// Takes the events that were fetched, and rows of which each is read, through all accumulators.
    pub(super) fn run(
        &mut self,
        rows: &[&[i64]],
        first_seq: u64,
        outputs: &mut [Column],
        probe: &mut dyn Probe,
    ) {
        let layout = Arc::clone(&self.layout);
        self.look_up_repeats(&layout, rows, first_seq, probe);
        let moment = Moment { passing: &self.passing, rows, first_seq };
        for (spec, course) in layout.courses.iter().zip(&mut self.courses) {
            course.follow((&layout, spec), moment, &self.repeats);
            probe.states(&spec.accumulators);
        }
        for (repeats, spec) in self.repeats.iter_mut().zip(&layout.repeats) {
            repeats.settle(spec.oldest(|tail| self.tails[tail]));
            probe.states(&spec.accumulators);
        }
        for silence in &layout.silences {
            self.run_histories(silence, rows, first_seq, outputs);
            probe.states(&silence.accumulators);
        }
        self.run_windows(&layout, rows, first_seq, outputs, probe);
        self.release(&layout);
    }

    /// Looks up which events that enter repeat others.
    fn look_up_repeats(&mut self, layout: &Layout, rows: &[&[i64]], first_seq: u64, probe: &mut dyn Probe) {
        for (repeats, spec) in self.repeats.iter_mut().zip(&layout.repeats) {
            let pairs = match spec.enter {
                None => spec.pairs(first_seq, |column| rows[column]),
                Some(tail) => {
                    let entering = &self.passing[tail];
                    spec.pairs(entering.first_seq, |column| entering.column(column))
                }
            };
            let oldest = spec.oldest(|tail| self.passing[tail].first_seq);
            repeats.enter(self.words[spec.key].room(), pairs, oldest);
            probe.states(&spec.accumulators);
        }
    }

    /// Takes windows through the step, one after the other: what the loops of one touch stays near meanwhile. Its first
    /// loop asks for it. Of what no event at hand counts for, there is only what it reads.
    fn run_windows(
        &mut self,
        layout: &Layout,
        rows: &[&[i64]],
        first_seq: u64,
        outputs: &mut [Column],
        probe: &mut dyn Probe,
    ) {
        let Self { plan, words, kinds, courses, counted, read, passing, occurrences, order, .. } = self;
        let moment = Moment { passing, rows, first_seq };
        let mut occurring = None;
        for window in &layout.windows {
            let (keys, happening) = (rows[KEYS + window.key], &courses[window.course]);
            let (spec, state) = (&layout.courses[window.course], &mut words[window.key]);
            let counts = |&index: &usize| !happening.passes_by(layout.placed[index].place.mask);
            let (groups, idle): (Vec<_>, Vec<_>) =
                window.groups.iter().partition(|(_, group)| group.all.iter().any(counts));
            let (singles, idle_singles): (Vec<usize>, Vec<usize>) =
                window.singles.iter().partition(|index| counts(index));
            if !groups.is_empty() || !singles.is_empty() {
                // Windows of a key come one after the other.
                if occurring.replace(window.key) != Some(window.key) {
                    occurrences.take(keys);
                }
                order.put_all(occurrences, &spec.sources(layout, window.key, passing), rows[TIME]);
            }
            let spans = state.spans(&window.words);
            let mut spans = spans.as_slice();
            let (order, rows) = (&*order, keys.len());
            let mut walk = || Walk { order, rows, spans: std::mem::take(&mut spans) };
            for (at, group) in groups {
                let lanes = lanes(layout, group, *at, |placed| happening.of(spec, moment, placed));
                let course = happening.of(spec, moment, &layout.placed[group.frames[0][0]]);
                let of_all = lanes.run(state, &course, walk(), read);
                for &index in &group.all {
                    counted[index] = true;
                }
                for of_rows in of_all.parts(ROWS_AT_ONCE) {
                    for (&index, place) in group.all.iter().zip(lanes.places()) {
                        show(plan, &layout.placed[index], of_rows.part(place), outputs);
                    }
                }
                probe.states(&group.all);
            }
            for index in singles {
                let placed = &layout.placed[index];
                counted[index] = true;
                with_accumulator!(&mut kinds[index], accumulator => {
                    let course = happening.of(spec, moment, placed);
                    let read = drive(accumulator, state, placed.place, &course, walk(), read);
                    show(plan, placed, read, outputs);
                }, ring => unreachable!("rows are kept by history"));
                probe.states(&[index]);
            }
            for index in idle.iter().flat_map(|(_, group)| &group.all).chain(&idle_singles) {
                let (index, placed) = (*index, &layout.placed[*index]);
                if !counted[index] {
                    each_output(placed, outputs, |column, _| column.extend_by_nothing(keys.len()));
                    continue;
                }
                with_accumulator!(&mut kinds[index], accumulator => {
                    let rows = *happening.of(spec, moment, placed).all(Act::Read);
                    let read = read_only(accumulator, state, placed.place, rows, read);
                    show(plan, placed, read, outputs);
                }, ring => unreachable!("rows are kept by history"));
                probe.states(&[index]);
            }
        }
    }

    /// Lets go of keys and values of events that have passed the last tail that needs them.
    fn release(&mut self, layout: &Layout) {
        for (passing, spec) in self.passing.iter().zip(&layout.tails) {
            for &dictionary in &spec.releases {
                let ids = passing.column(KEYS + dictionary);
                self.dictionaries[dictionary].release(passing.first_seq, ids);
            }
        }
    }

    /// Takes accumulators of keys' whole histories through the step: those that one silence ends, some rows at a time,
    /// so that what they keep of a key, which is side by side, stays near meanwhile.
    fn run_histories(&mut self, silence: &Silence, rows: &[&[i64]], first_seq: u64, outputs: &mut [Column]) {
        let Self { plan, layout, passing, words, kinds, read, .. } = self;
        let (passing, state) = (&passing[silence.tail], &mut words[silence.key]);
        let (leaving, keys) = (passing.column(KEYS + silence.key), rows[KEYS + silence.key]);
        // Histories are at the end of a row.
        let words = silence.at..layout.words[silence.key];
        let spans = state.spans(&[words]);
        let approach = |state: &Chunked<u64>, keys: &[i64], done: usize| {
            if let Some(&span) = spans.first() {
                state.ask(span, keys.get(done + AHEAD).map(|&id| key(id) as usize).into_iter());
            }
        };
        let mut left = 0;
        // Whether it came as far as `end`: a key that has fallen silent after an event of which its history is `unread`
        // yet stops it.
        let mut leave = |state: &mut Chunked<u64>, end: usize, unread: u64| {
            while left < end {
                approach(state, leaving, left);
                let (own, seq) =
                    (state.row_mut(key(leaving[left]) as usize), passing.first_seq + left as u64);
                if own[silence.at] == seq + 1 {
                    if seq >= unread {
                        return false;
                    }
                    silence.forget(layout, own);
                }
                left += 1;
            }
            true
        };
        let (mut row, count) = (0, keys.len());
        while row < count {
            let (from, unread) = (row, first_seq + row as u64);
            while row < count.min(from + ROWS_AT_ONCE) && leave(state, passing.cuts[row], unread) {
                approach(state, keys, row);
                state.row_mut(key(keys[row]) as usize)[silence.at] = first_seq + row as u64 + 1;
                row += 1;
            }
            for &index in &silence.accumulators {
                let placed = &layout.placed[index];
                // Where nothing is asked of a column, any will do.
                let feed = Feed {
                    first_seq: unread,
                    keys: &keys[from..row],
                    conditions: &rows[CONDITIONS][from..row],
                    values: &rows[placed.column.unwrap_or(CONDITIONS)][from..row],
                };
                let read = with_accumulator!(&mut kinds[index], accumulator => {
                    drive_history(accumulator, state, placed.place, feed, read)
                }, ring => drive_history(&mut Ring, state, placed.place, feed, read));
                show(plan, placed, read, outputs);
            }
        }
        leave(state, leaving.len(), first_seq + count as u64);
    }
}

/// The lanes of a group whose words begin at `at`; `course` is what an accumulator sees of the events at hand.
fn lanes<'a>(layout: &Layout, group: &Group, at: usize, course: impl Fn(&Placed) -> Course<'a>) -> Lanes<'a> {
    // Frames only differ in when events leave them.
    let placed = || group.frames[0].iter().map(|&index| &layout.placed[index]);
    Lanes {
        at,
        frames: group.frames.len(),
        counts: placed().take(group.counts).map(|placed| placed.place.mask).collect(),
        sums: placed()
            .skip(group.counts)
            .map(|placed| Summed { mask: placed.place.mask, course: course(placed) })
            .collect(),
    }
}

/// Appends what was read of an accumulator to the outputs that are made of it.
fn show(plan: &WindowPlan, placed: &Placed, read: Read<'_>, outputs: &mut [Column]) {
    each_output(placed, outputs, |column, output| column.extend(&plan.outputs[output], read));
}

/// Calls `extend` with each output that is made of an accumulator, and its number.
fn each_output(placed: &Placed, outputs: &mut [Column], mut extend: impl FnMut(&mut Column, usize)) {
    for &output in &placed.outputs {
        if let Some(column) = outputs.get_mut(output) {
            extend(column, output);
        }
    }
}
