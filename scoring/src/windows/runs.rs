//! The events of a step and its rows, in the order in which a window takes them.
//!
//! An accumulator of one key is nothing to that of another. So what matters is the order of the events and rows of each
//! key, and all others can be taken as it suits the processor: of some rows at a time, first all events that enter or
//! leave a frame before one of them, one after the other as they are in memory, and then the rows. Only events whose key
//! is that of one of these rows have to wait for their turn. Where many do, since all events have a few keys, they are
//! taken one by one with the rows.

use std::ops::Range;

use super::accumulate::key;
use super::chunked::AHEAD;
use super::layout::Tail;
use super::tails::advance;

/// What events do, or rows, in frames that end together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Rows are read. Where no other events enter, each of them does before that.
    Read,
    /// Events enter all of the frames.
    Enter,
    /// Events leave one of them.
    Leave(usize),
}

impl Act {
    /// In order: rows, those that enter, those that leave each frame.
    #[inline(always)]
    pub(super) const fn number(self) -> usize {
        match self {
            Self::Read => READS,
            Self::Enter => 1,
            Self::Leave(frame) => LEAVES + frame,
        }
    }
}

/// The number of [`Act::Read`], and the first of [`Act::Leave`].
pub(super) const READS: usize = 0;
pub(super) const LEAVES: usize = 2;

/// Events and rows that come one after the other, some of those that do the same or some of [`Order::steps`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// What they do; `None` for steps.
    pub(super) act: Option<Act>,
    pub(super) from: usize,
    pub(super) to: usize,
}

impl Run {
    pub(super) const fn len(self) -> usize {
        self.to - self.from
    }
}

/// One event or row: what it does, and which of those that do the same it is.
///
/// In 32 bits, since each accumulator goes through all of them: the act in the upper four.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Step(u32);

impl Step {
    const EVENT_BITS: u32 = 28;

    #[inline(always)]
    fn new(act: Act, event: usize) -> Self {
        let event = u32::try_from(event).expect("a step is short");
        debug_assert!(
            event < 1 << Self::EVENT_BITS && act.number() < 16,
            "a step is short, and there are few frames"
        );
        #[allow(clippy::cast_possible_truncation)] // as above
        Self((act.number() as u32) << Self::EVENT_BITS | event)
    }

    /// The same with an event so many further on.
    #[inline(always)]
    const fn after(self, events: u32) -> Self {
        Self(self.0 + events)
    }

    /// [`Act::number`] of what it does.
    #[inline(always)]
    pub(super) const fn act(self) -> usize {
        (self.0 >> Self::EVENT_BITS) as usize
    }

    #[inline(always)]
    pub(super) const fn event(self) -> usize {
        (self.0 & ((1 << Self::EVENT_BITS) - 1)) as usize
    }
}

/// What happens in a window in a step.
#[derive(Debug, Default)]
pub(super) struct Order {
    pub(super) runs: Vec<Run>,
    pub(super) steps: Vec<Step>,
}

impl Order {
    /// Events that do the same, in runs that are short enough for memory to be asked for in between.
    pub(super) fn of_all(act: Act, events: usize) -> Self {
        let run = |from: usize| Run { act: Some(act), from, to: events.min(from + AHEAD) };
        Self { runs: (0..events).step_by(AHEAD).map(run).collect(), steps: Vec::new() }
    }

    /// Puts events that do the same, however many, in runs that are not long.
    fn put(&mut self, act: Act, from: usize, to: usize) {
        for from in (from..to).step_by(LONG) {
            self.runs.push(Run { act: Some(act), from, to: to.min(from + LONG) });
        }
    }
}

/// Events in a run at the most: memory is asked for a whole run at a time. Mostly there are about [`BLOCK`].
const LONG: usize = 4 * AHEAD;
/// Rows whose events are taken before them.
pub(super) const BLOCK: usize = 32;
/// Events of a block that may wait without being taken one by one with its rows.
const FEW: usize = 3;
/// Rows taken through all accumulators at a time: what they touch stays in the cache meanwhile.
pub(super) const STEP_ROWS: usize = BLOCK * u32::BITS as usize;
/// Places for keys, as a power of two: few enough for the processor's nearest cache, and many enough for few rows of a
/// block to share one with an event of another key.
const PLACES: usize = 1 << 12;

/// In which blocks of rows a key occurs.
#[derive(Debug)]
pub(super) struct Occurrences {
    /// By the lower bits of the key: a bit for each block.
    blocks: Box<[u32; PLACES]>,
    /// Where some are set.
    taken: Vec<usize>,
}

impl Occurrences {
    pub(super) fn new() -> Self {
        Self { blocks: Box::new([0; PLACES]), taken: Vec::with_capacity(STEP_ROWS) }
    }

    /// Takes the keys of a step's rows in, in place of those before.
    pub(super) fn take(&mut self, keys: &[i64]) {
        debug_assert!(keys.len() <= STEP_ROWS, "a bit for each block");
        // Not all of them, for the sake of few rows.
        self.taken.drain(..).for_each(|place| self.blocks[place] = 0);
        self.taken.extend(keys.iter().map(|&id| place(id)));
        for (block, places) in self.taken.chunks(BLOCK).enumerate() {
            places.iter().for_each(|&place| self.blocks[place] |= 1 << block);
        }
    }

    /// Whether a row of a block may have a key.
    #[inline(always)]
    fn may_have(&self, block: usize, id: i64) -> bool {
        self.blocks[place(id)] >> block & 1 == 1
    }
}

#[inline(always)]
fn place(id: i64) -> usize {
    key(id) as usize % PLACES
}

/// Events that do the same in a window as they pass a tail.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) act: Act,
    pub(super) keys: &'a [i64],
    pub(super) times_us: &'a [i64],
    /// Per [`BLOCK`] of rows: how many of them pass before its last row.
    pub(super) ends: &'a [usize],
    pub(super) tail: &'a Tail,
}

impl Order {
    /// Puts the events of a step and its rows, which have these times, in order, by key: before each row those of each
    /// source, in their order. `occurrences` are those of the rows' keys.
    pub(super) fn put_all(&mut self, occurrences: &Occurrences, sources: &[Source<'_>], rows_us: &[i64]) {
        self.runs.clear();
        self.steps.clear();
        let mut passed = vec![0; sources.len()];
        for (block, rows_us) in rows_us.chunks(BLOCK).enumerate() {
            let rows = block * BLOCK..block * BLOCK + rows_us.len();
            let wait = |(source, &from): (&Source<'_>, &usize)| {
                let keys = &source.keys[from..source.ends[block]];
                keys.iter().map(|&id| usize::from(occurrences.may_have(block, id))).sum::<usize>()
            };
            match sources.iter().zip(&passed).map(wait).sum() {
                0 => {
                    for (source, &from) in sources.iter().zip(&passed) {
                        self.put(source.act, from, source.ends[block]);
                    }
                    self.put(Act::Read, rows.start, rows.end);
                }
                1..=FEW => {
                    let waits = |id: i64| occurrences.may_have(block, id);
                    self.put_block(sources, &passed, (block, rows, rows_us), waits);
                }
                _ => self.put_steps(sources, &passed, (block, rows, rows_us)),
            }
            for (source, passed) in sources.iter().zip(&mut passed) {
                *passed = source.ends[block];
            }
        }
        for (source, passed) in sources.iter().zip(passed) {
            self.put(source.act, passed, source.keys.len());
        }
    }

    /// Puts a block in order, of which few events have to wait for a row: those whose key `waits`.
    fn put_block(
        &mut self,
        sources: &[Source<'_>],
        passed: &[usize],
        (block, rows, rows_us): (usize, Range<usize>, &[i64]),
        waits: impl Fn(i64) -> bool,
    ) {
        let mut waiting: Vec<(usize, Act, usize)> = Vec::with_capacity(FEW);
        for (source, &passed) in sources.iter().zip(passed) {
            let (act, to, mut from) = (source.act, source.ends[block], passed);
            for event in passed..to {
                if waits(source.keys[event]) {
                    self.put(act, from, event);
                    from = event + 1;
                    let time_us = source.times_us[event];
                    let before = rows_us.partition_point(|&row_us| time_us >= source.tail.edge(row_us));
                    waiting.push((rows.start + before, act, event));
                }
            }
            self.put(act, from, to);
        }
        // Those of a row stay in the order of their sources.
        waiting.sort_by_key(|&(row, ..)| row);
        let mut from = rows.start;
        for (row, act, event) in waiting {
            self.put(Act::Read, from, row);
            from = row;
            self.put(act, event, event + 1);
        }
        self.put(Act::Read, from, rows.end);
    }

    /// Puts a block in order of time, each event by itself.
    fn put_steps(
        &mut self,
        sources: &[Source<'_>],
        passed: &[usize],
        (block, rows, rows_us): (usize, Range<usize>, &[i64]),
    ) {
        /// Steps written at once, and so room behind the last: mostly more than there are before a row, so that how many
        /// there are is no branch.
        const ROOM: usize = 4;
        let mut passed = passed.to_vec();
        let events: usize =
            sources.iter().zip(&passed).map(|(source, passed)| source.ends[block] - passed).sum();
        let (from, to) = (self.steps.len(), self.steps.len() + events + rows.len());
        self.steps.resize(to + ROOM, Step(0));
        let (steps, mut at) = (self.steps.as_mut_slice(), from);
        for (row, &row_us) in rows.zip(rows_us) {
            for (source, passed) in sources.iter().zip(&mut passed) {
                let times_us = &source.times_us[..source.ends[block]];
                let before = advance::<ROOM>(times_us, *passed, source.tail.edge(row_us));
                let (mut next, mut left) = (Step::new(source.act, *passed), before - *passed);
                *passed = before;
                loop {
                    steps[at..at + ROOM].copy_from_slice(&[0, 1, 2, 3].map(|further| next.after(further)));
                    let put = left.min(ROOM);
                    #[allow(clippy::cast_possible_truncation)] // at most four
                    {
                        next = next.after(put as u32);
                    }
                    at += put;
                    left -= put;
                    if left == 0 {
                        break;
                    }
                }
            }
            steps[at] = Step::new(Act::Read, row);
            at += 1;
        }
        debug_assert!(at == to, "all of them");
        self.steps.truncate(to);
        self.runs.push(Run { act: None, from, to });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap};

    use proptest::prelude::*;

    use super::*;

    /// A key and a time, in microseconds.
    type Event = (i64, i64);

    /// Some keys are rare, and some share a place with another.
    fn events(most: usize) -> impl Strategy<Value = Vec<Event>> {
        let shared = PLACES as i64;
        let key = prop_oneof![0..4_i64, shared..shared + 2, 0..9 * shared];
        let in_order = |mut events: Vec<Event>| {
            events.sort_by_key(|event| event.1);
            events
        };
        prop::collection::vec((key, 0..100_i64), 0..most).prop_map(in_order)
    }

    fn columns(events: &[Event]) -> (Vec<i64>, Vec<i64>) {
        events.iter().copied().unzip()
    }

    proptest! {
        #[test]
        fn rows_see_the_events_of_their_key_that_pass_before_them(
            rows in events(150),
            leaving in prop::collection::vec((0..40_i64, events(200)), 1..4),
            entering in prop::option::of((0..20_i64, events(200))),
        ) {
            let (keys, rows_us) = columns(&rows);
            let tail = |bound_us, enters| {
                Tail { bound_us, enters, columns: BTreeSet::new(), by_row: false, releases: Vec::new() }
            };
            let enters = entering.into_iter().map(|(bound_us, events)| (Act::Enter, tail(bound_us, true), events));
            let leaves = leaving.into_iter().enumerate()
                .map(|(frame, (bound_us, events))| (Act::Leave(frame), tail(bound_us, false), events));
            // After the last row nothing passes; where there is none, all does.
            let passing = |(act, tail, mut events): (Act, Tail, Vec<Event>)| {
                events.retain(|event| rows_us.last().is_none_or(|&last_us| event.1 < tail.edge(last_us)));
                (act, tail, events)
            };
            let all: Vec<(Act, Tail, Vec<Event>)> = enters.chain(leaves).map(passing).collect();
            let passed = |events: &[Event], tail: &Tail, row_us: i64| {
                events.iter().take_while(|event| event.1 < tail.edge(row_us)).count()
            };
            let split: Vec<_> = all.iter().map(|(_, tail, events)| {
                let last_of_blocks = rows_us.chunks(BLOCK).map(|rows_us| rows_us[rows_us.len() - 1]);
                let ends: Vec<usize> = last_of_blocks.map(|row_us| passed(events, tail, row_us)).collect();
                (columns(events), ends)
            }).collect();
            let sources: Vec<Source<'_>> = all.iter().zip(&split).map(|((act, tail, _), ((keys, times_us), ends))| {
                Source { act: *act, keys, times_us, ends, tail }
            }).collect();
            let (mut occurrences, mut order) = (Occurrences::new(), Order::default());
            // What was before is forgotten.
            occurrences.take(&[5; STEP_ROWS]);
            occurrences.take(&keys);
            order.put_all(&occurrences, &sources, &rows_us);

            // Of each source and key, how many came by; of each source, all that did.
            let mut came: Vec<(HashMap<i64, usize>, usize)> = vec![Default::default(); all.len()];
            let mut row = 0;
            let steps = order.runs.iter().flat_map(|run| {
                assert!(run.from < run.to, "no run is empty");
                (run.from..run.to).map(|at| run.act.map_or_else(|| order.steps[at], |act| Step::new(act, at)))
            });
            let mut last = HashMap::new();
            for step in steps {
                let event = step.event();
                if step.act() == READS {
                    prop_assert_eq!(event, row, "rows in order");
                    for ((_, tail, events), (of_keys, _)) in all.iter().zip(&came) {
                        let before = &events[..passed(events, tail, rows[event].1)];
                        let expected = before.iter().filter(|other| other.0 == rows[event].0).count();
                        prop_assert_eq!(of_keys.get(&rows[event].0).copied().unwrap_or(0), expected);
                    }
                    row += 1;
                } else {
                    let source = all.iter().position(|(act, ..)| act.number() == step.act()).unwrap();
                    let (of_keys, count) = &mut came[source];
                    let (id, time_us) = all[source].2[event];
                    let before = rows_us.partition_point(|&row_us| time_us >= all[source].1.edge(row_us));
                    let other = last.insert((id, before), source);
                    prop_assert!(other <= Some(source), "those that enter come first, between two rows");
                    let of_key = of_keys.entry(id).or_default();
                    let nth = all[source].2[..event].iter().filter(|event| event.0 == id).count();
                    prop_assert_eq!(nth, *of_key, "events of a key in order");
                    *of_key += 1;
                    *count += 1;
                }
            }
            prop_assert_eq!(row, rows.len());
            for ((_, _, events), (_, count)) in all.iter().zip(came) {
                prop_assert_eq!(events.len(), count);
            }
        }
    }
}
