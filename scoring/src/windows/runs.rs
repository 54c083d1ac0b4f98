//! The events of a step and its rows, in the order in which a window takes them.
//!
//! An accumulator of one key is nothing to that of another. So what matters is the order of the events and rows of each
//! key, and all others can be taken as it suits the processor: of some rows at a time, first all events that enter or
//! leave a frame before one of them, one after the other as they are in memory, and then the rows. Only events whose key
//! is that of one of these rows have to wait for their turn.

use super::accumulate::key;
use super::chunked::AHEAD;
use super::layout::Tail;

/// What events in a row do, or rows, in frames that end together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Events enter all of the frames.
    Enter,
    /// Events leave one of them.
    Leave(usize),
    /// Rows are read. Where no other events enter, each of them does before that.
    Read,
}

/// Some of the events that do the same, or of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) act: Act,
    pub(super) from: usize,
    pub(super) to: usize,
}

impl Run {
    /// Events that do the same, in runs that are short enough for memory to be asked for in between.
    pub(super) fn all(act: Act, events: usize) -> Vec<Self> {
        let run = |from: usize| Self { act, from, to: events.min(from + AHEAD) };
        (0..events).step_by(AHEAD).map(run).collect()
    }

    pub(super) const fn len(self) -> usize {
        self.to - self.from
    }
}

/// Rows whose events are taken before them.
pub(super) const BLOCK: usize = 32;
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

/// Puts the events of a step and its rows, which have these times, in order, by key: before each row those of each
/// source, in their order. `occurrences` are those of the rows' keys.
pub(super) fn order(occurrences: &Occurrences, sources: &[Source<'_>], rows_us: &[i64], out: &mut Vec<Run>) {
    out.clear();
    let mut put = |act: Act, from: usize, to: usize| {
        if from < to {
            out.push(Run { act, from, to });
        }
    };
    let mut passed = vec![0; sources.len()];
    // Events that wait for a row.
    let mut waiting: Vec<(usize, Act, usize)> = Vec::new();
    for (block, rows_us) in rows_us.chunks(BLOCK).enumerate() {
        let (first, end) = (block * BLOCK, block * BLOCK + rows_us.len());
        for (source, passed) in sources.iter().zip(&mut passed) {
            let (act, to) = (source.act, source.ends[block]);
            let mut from = *passed;
            for event in *passed..to {
                if occurrences.may_have(block, source.keys[event]) {
                    put(act, from, event);
                    from = event + 1;
                    let time_us = source.times_us[event];
                    let before = rows_us.partition_point(|&row_us| time_us >= source.tail.edge(row_us));
                    waiting.push((first + before, act, event));
                }
            }
            put(act, from, to);
            *passed = to;
        }
        // Those of a row stay in the order of their sources.
        waiting.sort_by_key(|&(row, ..)| row);
        let mut from = first;
        for (row, act, event) in waiting.drain(..) {
            put(Act::Read, from, row);
            from = row;
            put(act, event, event + 1);
        }
        put(Act::Read, from, end);
    }
    for (source, passed) in sources.iter().zip(passed) {
        put(source.act, passed, source.keys.len());
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
            let (mut occurrences, mut runs) = (Occurrences::new(), Vec::new());
            // What was before is forgotten.
            occurrences.take(&[5; STEP_ROWS]);
            occurrences.take(&keys);
            order(&occurrences, &sources, &rows_us, &mut runs);

            // Of each source and key, how many came by; of each source, all that did.
            let mut came: Vec<(HashMap<i64, usize>, usize)> = vec![Default::default(); all.len()];
            let mut row = 0;
            for run in runs {
                prop_assert!(run.from < run.to);
                if run.act == Act::Read {
                    prop_assert_eq!(run.from, row, "rows in order");
                    for at in run.from..run.to {
                        for ((_, tail, events), (of_keys, _)) in all.iter().zip(&came) {
                            let before = &events[..passed(events, tail, rows[at].1)];
                            let expected = before.iter().filter(|event| event.0 == rows[at].0).count();
                            prop_assert_eq!(of_keys.get(&rows[at].0).copied().unwrap_or(0), expected);
                        }
                    }
                    row = run.to;
                } else {
                    let source = all.iter().position(|(act, ..)| *act == run.act).unwrap();
                    let (of_keys, count) = &mut came[source];
                    for event in run.from..run.to {
                        let (id, _) = all[source].2[event];
                        let of_key = of_keys.entry(id).or_default();
                        let nth = all[source].2[..event].iter().filter(|event| event.0 == id).count();
                        prop_assert_eq!(nth, *of_key, "events of a key in order");
                        *of_key += 1;
                        *count += 1;
                    }
                }
            }
            prop_assert_eq!(row, rows.len());
            for ((_, _, events), (_, count)) in all.iter().zip(came) {
                prop_assert_eq!(events.len(), count);
            }
        }
    }
}
