//! A step through all accumulators: what enters, what leaves, and what is read.

use std::sync::Arc;

use super::accumulate::{Accumulate as _, Count, History as _, IntSum, Ring, key};
use super::chunked::{AHEAD, Chunked};
use super::course::Happening;
use super::drive::{Course, Feed, Place, Walk, drive, drive_history, read_only, room_for};
use super::kind::{Kind, with_accumulator};
use super::lanes::{self, Lane};
use super::layout::{Layout, Leave, Placed, Silence, Window};
use super::read::Column;
use super::reservoir::{CONDITIONS, KEYS, TIME};
use super::spec::WindowPlan;
use super::state::WindowState;
use crate::probe::Probe;

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
        for (spec, course) in layout.courses.iter().zip(&mut self.courses) {
            course.follow((&layout, spec), &self.passing, (rows, first_seq), &self.repeats);
            probe.states(&spec.accumulators);
        }
        for (repeats, spec) in self.repeats.iter_mut().zip(&layout.repeats) {
            repeats.settle(spec.oldest(|tail| self.tails[tail]));
            probe.states(&spec.accumulators);
        }
        let mut expired = Vec::with_capacity(layout.silences.len());
        for silence in &layout.silences {
            expired.push(self.silence(silence, rows, first_seq));
            probe.states(&silence.accumulators);
        }
        // At once, while what silences touched is near.
        for &index in &layout.histories {
            self.run_history(index, &expired, rows, first_seq, outputs);
            probe.states(&[index]);
        }
        self.note_counted(rows[TIME].len(), outputs);
        self.run_windows(&layout, rows, outputs, probe);
        self.release(&layout);
    }

    /// Looks up which events that enter repeat others.
    fn look_up_repeats(&mut self, layout: &Layout, rows: &[&[i64]], first_seq: u64, probe: &mut dyn Probe) {
        for (repeats, spec) in self.repeats.iter_mut().zip(&layout.repeats) {
            let pairs = match spec.enter {
                None => spec.pairs(first_seq, |column| rows[column]),
                Some(tail) => {
                    let entering = &self.passing[tail];
                    spec.pairs(entering.first_seq, |column| &entering.columns[column])
                }
            };
            let oldest = spec.oldest(|tail| self.passing[tail].first_seq);
            repeats.enter(&mut self.words[spec.key], pairs, oldest);
            probe.states(&spec.accumulators);
        }
    }

    /// Takes windows through the step, one after the other: what the loops of one touch stays near meanwhile. Its first
    /// loop asks for it.
    fn run_windows(
        &mut self,
        layout: &Layout,
        rows: &[&[i64]],
        outputs: &mut [Column],
        probe: &mut dyn Probe,
    ) {
        let Self { plan, words, kinds, courses, counted, spare, lines, read, .. } = self;
        for window in &layout.windows {
            let (keys, happening) = (rows[KEYS + window.key], &courses[window.course]);
            let state = &mut words[window.key];
            let units = units(layout, window, happening, kinds, keys.len(), spare);
            let steps = happening.steps();
            lines.clear();
            if !units.is_empty() {
                state.lines(&window.words, happening.keys(window.key, steps), lines);
            }
            let mut lines = lines.as_slice();
            for unit in units {
                let walk = Walk { steps, lines: std::mem::take(&mut lines) };
                let then = |index: usize, read: &[u64]| {
                    show(plan, &layout.placed[index], read, keys.len(), outputs);
                };
                let accumulators = unit.run((kinds, state), walk, keys.len(), then, spare);
                probe.states(&accumulators);
            }
            for &index in window.groups.iter().flat_map(|group| &group.all).chain(&window.singles) {
                let placed = &layout.placed[index];
                if counted[index] && happening.passes_by(placed.place.mask) {
                    with_accumulator!(&kinds[index], accumulator => {
                        read_only(accumulator, state, placed.place, keys, read);
                    }, ring => unreachable!("rows are kept by history"));
                    show(plan, placed, read, keys.len(), outputs);
                    probe.states(&[index]);
                }
            }
        }
    }

    /// Lets go of keys and values of events that have passed the last tail that needs them.
    fn release(&mut self, layout: &Layout) {
        for (passing, spec) in self.passing.iter().zip(&layout.tails) {
            for &dictionary in &spec.releases {
                let ids = &passing.columns[KEYS + dictionary];
                self.dictionaries[dictionary].release(passing.first_seq, ids);
            }
        }
    }

    /// Notes which accumulators events count for. The others, for which none ever did, read nothing.
    fn note_counted(&mut self, rows: usize, outputs: &mut [Column]) {
        for (counted, placed) in self.counted.iter_mut().zip(&self.layout.placed) {
            let Leave::Tail { course, .. } = placed.leave else { continue };
            *counted |= !self.courses[course].passes_by(placed.place.mask);
            if !*counted {
                each_output(placed, outputs, |column, _| column.extend_by_nothing(rows));
            }
        }
    }

    /// Takes one accumulator of keys' whole histories through the step; `expired` are, for each silence, the keys
    /// that it ends.
    fn run_history(
        &mut self,
        index: usize,
        expired: &[Vec<(usize, u32)>],
        rows: &[&[i64]],
        first_seq: u64,
        outputs: &mut [Column],
    ) {
        let placed = &self.layout.placed[index];
        let Leave::Silence(silence) = placed.leave else { unreachable!("the layout says so") };
        let keys = rows[KEYS + placed.key];
        let arriving = Feed {
            first_seq,
            keys,
            conditions: rows[CONDITIONS],
            values: rows[placed.column.unwrap_or(CONDITIONS)],
        };
        let feeds = (&arriving, expired[silence].as_slice());
        let (state, read) = (&mut self.words[placed.key], &mut self.read);
        with_accumulator!(&mut self.kinds[index], accumulator => {
            drive_history(accumulator, state, placed.place, feeds, read);
        }, ring => drive_history(&mut Ring, state, placed.place, feeds, read));
        show(&self.plan, placed, read, keys.len(), outputs);
    }

    /// The keys that a silence ends, each with the row before which it does.
    fn silence(&mut self, silence: &Silence, rows: &[&[i64]], first_seq: u64) -> Vec<(usize, u32)> {
        let passing = &self.passing[silence.tail];
        let state = &mut self.words[silence.key];
        let mut expired = Vec::new();
        let leaving = &passing.columns[KEYS + silence.key];
        // Histories are at the end of a row.
        let (far, last) = (state.is_far(), self.layout.words[silence.key] - 1);
        let approach = |state: &Chunked<u64>, keys: &[i64], done: usize| {
            if far && let Some(&id) = keys.get(done + AHEAD) {
                state.approach(key(id) as usize, silence.at);
                state.approach(key(id) as usize, last);
            }
        };
        let mut left = 0;
        let mut leave = |state: &mut Chunked<u64>, end: usize, row: usize| {
            while left < end {
                approach(state, leaving, left);
                let newest = &mut state.row_mut(key(leaving[left]) as usize)[silence.at];
                if *newest == passing.first_seq + left as u64 + 1 {
                    *newest = 0;
                    expired.push((row, key(leaving[left])));
                }
                left += 1;
            }
        };
        let keys = rows[KEYS + silence.key];
        for ((row, &id), seq) in keys.iter().enumerate().zip(first_seq..) {
            approach(state, keys, row);
            leave(state, passing.cuts[row], row);
            state.row_mut(key(id) as usize)[silence.at] = seq + 1;
        }
        leave(state, leaving.len(), rows[TIME].len());
        expired
    }
}

/// What one loop takes through a window.
struct Unit<'a> {
    /// As indexes into the plan's: for lanes, counts and then sums.
    accumulators: Vec<usize>,
    course: Course<'a>,
    run: Run<'a>,
}

enum Run<'a> {
    Lanes { counts: Vec<Lane<'a>>, sums: Vec<Lane<'a>> },
    Single { place: Place, out: Vec<u64> },
}

/// The loops over a window, of those accumulators that events at hand count for.
fn units<'a>(
    layout: &Layout,
    window: &Window,
    happening: &'a Happening,
    kinds: &[Kind],
    rows: usize,
    spare: &mut Vec<Vec<u64>>,
) -> Vec<Unit<'a>> {
    let spec = &layout.courses[window.course];
    let counting = |all: &[usize]| -> Vec<usize> {
        all.iter().copied().filter(|&index| !happening.passes_by(layout.placed[index].place.mask)).collect()
    };
    let course = |index: usize| happening.of(spec, &layout.placed[index]);
    let mut room = |words: usize| {
        let mut out = spare.pop().unwrap_or_default();
        room_for(rows, words, &mut out);
        out
    };
    let mut units = Vec::with_capacity(window.groups.len() + window.singles.len());
    for group in &window.groups {
        let (mut accumulators, sums) = (counting(&group.counts), counting(&group.sums));
        let mut lanes = |of: &[usize], words: usize| -> Vec<Lane<'a>> {
            let lane = |&index: &usize| {
                let Place { at, mask, .. } = layout.placed[index].place;
                Lane { at, mask, values: course(index).values, out: room(words) }
            };
            of.iter().map(lane).collect()
        };
        let run = Run::Lanes { counts: lanes(&accumulators, Count::READ), sums: lanes(&sums, IntSum::READ) };
        accumulators.extend(sums);
        if let Some(&any) = accumulators.first() {
            units.push(Unit { course: course(any), accumulators, run });
        }
    }
    for index in counting(&window.singles) {
        let place = layout.placed[index].place;
        let words = with_accumulator!(&kinds[index], accumulator => accumulator.words_shown(place.words),
            ring => unreachable!("rows are kept by history"));
        let run = Run::Single { place, out: room(words) };
        units.push(Unit { accumulators: vec![index], course: course(index), run });
    }
    units
}

impl Unit<'_> {
    /// Takes it through a window, and calls `then` with each accumulator and what was read of `rows` rows. Returns
    /// the accumulators, and gives back the room.
    fn run(
        self,
        (kinds, state): (&mut [Kind], &mut Chunked<u64>),
        walk: Walk<'_>,
        rows: usize,
        mut then: impl FnMut(usize, &[u64]),
        spare: &mut Vec<Vec<u64>>,
    ) -> Vec<usize> {
        let read: Vec<Vec<u64>> = match self.run {
            Run::Lanes { mut counts, mut sums } => {
                lanes::run(&mut counts, &mut sums, state, self.course, walk);
                counts.into_iter().chain(sums).map(|lane| lane.out).collect()
            }
            Run::Single { place, mut out } => {
                with_accumulator!(&mut kinds[self.accumulators[0]], accumulator => {
                    drive(accumulator, state, place, self.course, walk, &mut out);
                }, ring => unreachable!("rows are kept by history"));
                vec![out]
            }
        };
        for (&index, read) in self.accumulators.iter().zip(read) {
            let words = read.len() / (rows + 1);
            then(index, &read[..rows * words]);
            spare.push(read);
        }
        self.accumulators
    }
}

/// Appends what was read of an accumulator to the outputs that are made of it.
fn show(plan: &WindowPlan, placed: &Placed, read: &[u64], rows: usize, outputs: &mut [Column]) {
    each_output(placed, outputs, |column, output| column.extend(&plan.outputs[output], read, rows));
}

/// Calls `extend` with each output that is made of an accumulator, and its number.
fn each_output(placed: &Placed, outputs: &mut [Column], mut extend: impl FnMut(&mut Column, usize)) {
    for &output in &placed.outputs {
        if let Some(column) = outputs.get_mut(output) {
            extend(column, output);
        }
    }
}
