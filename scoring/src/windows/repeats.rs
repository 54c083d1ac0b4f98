//! Which events repeat a value that their key had before: all that `count(DISTINCT …)` has to know.
//!
//! The number of different values in a frame grows with an event that enters unless the event before it with the
//! same value is in the frame, and shrinks with one that leaves unless an event after it has the same value. Which
//! those are does not depend on how long a frame is: it is looked up once for each event, as it enters. What is left
//! for each frame is to count events, as [`Count`](super::accumulate::Count) does.
//!
//! Some values are in the row of their key with the newest event of each; further ones are in a table. None is taken
//! out when no frame has its events any more: another takes its place. What the table has of a value that has come to be
//! in the row is outdated, and older than that.

use std::collections::VecDeque;
use std::hint::select_unpredictable;
use std::ops::Range;

use hashbrown::DefaultHashBuilder;

use super::accumulate::key;
use super::chunked::{AHEAD, Chunked};
use super::drive::holds;
use super::table::{Entry, Table, hash_of_pair, tag};

/// Values in the row of a key.
const NEAR: usize = 6;
/// Words in the row of a key, a cache line of them: `[base, one more than the newest of its events in the table, value |
/// one more than the newest event with it, as a distance from the base << 32 …]`. All zeroes before its first event; a
/// distance of 0 is no value.
pub(crate) const WORDS: usize = 2 + NEAR;
/// Which of the words says what is in the table.
const IN_TABLE: usize = 1;
/// The longest distance from the base that a word has room for.
const REACH: u64 = u32::MAX as u64;

/// The newest event of each key and value, and which events are not the newest of theirs.
#[derive(Debug)]
pub(super) struct Repeats {
    newest: Table<Newest>,
    hasher: DefaultHashBuilder,
    /// A bit for each event from 64 * `first_word` on: whether a later one has the same key and value. Those at the end
    /// are left out.
    repeated: VecDeque<u64>,
    first_word: u64,
    /// The first of the events that enter in a step.
    entering: u64,
    /// Of each of them: one more than the event that it repeats, 0 for none, or [`NOT_COUNTED`].
    before: Vec<u64>,
    /// Those to be looked up in the table, reused.
    sought: Vec<Sought>,
}

/// An event whose key and value may be in the table.
#[derive(Debug, Clone, Copy, Default)]
struct Sought {
    hash: u64,
    /// Which of those that enter in a step.
    event: usize,
    /// Whether it is in the words of its key already.
    kept: bool,
}

/// What the words of its key tell of an event that enters.
#[derive(Debug, Clone, Copy)]
struct Near {
    /// One more than the event that it repeats as far as they know, or 0.
    before: u64,
    /// Whether it is in the words now.
    kept: bool,
    /// Whether the table may know of one that it repeats, or is where it is put.
    sought: bool,
}

/// The newest event of a key with a value.
#[derive(Debug, Clone, Copy, Default)]
struct Newest {
    id: u32,
    value: u32,
    /// One more than the event; 0 for no entry.
    after: u64,
}

impl Entry for Newest {
    #[inline(always)]
    fn is_none(&self) -> bool {
        self.after == 0
    }
}

/// What [`Repeats`] has in place of the event before for one that does not count.
const NOT_COUNTED: u64 = u64::MAX;

const WORD_BITS: u64 = u64::BITS as u64;

/// Events in order, with what of them is counted as distinct.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pairs<'a> {
    pub(super) first_seq: u64,
    pub(super) keys: &'a [i64],
    pub(super) values: &'a [i64],
    pub(super) conditions: &'a [i64],
    /// Condition bits that an event must have to count.
    pub(super) mask: u64,
    /// Where the [`WORDS`] are in the row of a key.
    pub(super) at: usize,
}

impl Pairs<'_> {
    #[inline(always)]
    fn pair(&self, event: usize) -> (u32, u32) {
        (key(self.keys[event]), key(self.values[event]))
    }
}

impl Repeats {
    pub(super) fn new() -> Self {
        Self {
            newest: Table::new(),
            hasher: DefaultHashBuilder::default(),
            repeated: VecDeque::new(),
            first_word: 0,
            entering: 0,
            before: Vec::new(),
            sought: Vec::new(),
        }
    }

    /// Looks up what the events of a step that enter repeat; no frame has events before `oldest` any more. `state`
    /// has a row for each key.
    ///
    /// First in the rows of keys, where no event depends on what another is found to be elsewhere; then, for those that
    /// ask for it, in the table.
    pub(super) fn enter(&mut self, state: &mut Chunked<u64>, events: Pairs<'_>, oldest: u64) {
        let far = state.is_far();
        self.entering = events.first_seq;
        self.before.clear();
        // Room for all of them, so that whether one is looked up in the table is no branch.
        self.sought.resize(events.keys.len(), Sought::default());
        let mut sought = 0;
        for (event, after) in (0..events.keys.len()).zip(events.first_seq + 1..) {
            if far && let Some(&id) = events.keys.get(event + AHEAD) {
                state.approach(key(id) as usize, events.at);
            }
            if !holds(events.conditions[event], events.mask) {
                self.before.push(NOT_COUNTED);
                continue;
            }
            let (id, value) = events.pair(event);
            let words = state.part_mut(id as usize, events.at, WORDS).as_mut_array();
            let words: &mut [u64; WORDS] = words.expect("the layout makes room");
            if after - words[0] > REACH {
                self.rebase(words, id, after, oldest);
            }
            let near = enter_near(words, value, after, oldest);
            self.before.push(near.before);
            let hash = hash_of_pair(&self.hasher, id, value);
            self.sought[sought] = Sought { hash, event, kept: near.kept };
            sought += usize::from(near.sought);
        }
        for at in 0..sought {
            if far && let Some(next) = self.sought[..sought].get(at + AHEAD) {
                self.newest.approach(next.hash);
            }
            let Sought { hash, event, kept } = self.sought[at];
            let after = events.first_seq + event as u64 + 1;
            self.before[event] = self.enter_table(hash, events.pair(event), after, kept, oldest);
        }
    }

    /// Finds the newest event of a key with a value in the table, and returns one more than it, or 0. The event before
    /// `after` is the newest now: what the table has is outdated if that is `kept` in the words, and replaced if not.
    #[inline(always)]
    fn enter_table(
        &mut self,
        hash: u64,
        (id, value): (u32, u32),
        after: u64,
        kept: bool,
        oldest: u64,
    ) -> u64 {
        let Self { newest, hasher, .. } = self;
        let shard = newest.of_mut(hash);
        let needed = |entry: &Newest| entry.after > oldest;
        match shard.seek(tag(hash), |entry| (entry.id, entry.value) == (id, value), needed) {
            Ok(place) => {
                let newest = &mut shard.at_mut(place).after;
                std::mem::replace(newest, select_unpredictable(kept, *newest, after))
            }
            Err(place) => {
                if !kept {
                    let tag_of = |entry: &Newest| tag(hash_of_pair(hasher, entry.id, entry.value));
                    shard.put(place, Newest { id, value, after }, tag_of, needed);
                }
                0
            }
        }
    }

    /// Moves the base of a key on, so that the event before `after` is within reach. Values whose events are too far
    /// back for that, and are held all the same, go to the table.
    #[cold]
    #[inline(never)]
    fn rebase(&mut self, words: &mut [u64; WORDS], id: u32, after: u64, oldest: u64) {
        let [base, in_table, near @ ..] = words;
        let to = oldest.max(after - REACH);
        for near in near {
            let (value, then) = (key(near.cast_signed()), *base + (*near >> 32));
            let live = (*near >> 32 > 0) & (then > oldest);
            *near = if live & (then > to) { word(value, then - to) } else { 0 };
            if live & (then <= to) {
                *in_table = then.max(*in_table);
                self.enter_table(hash_of_pair(&self.hasher, id, value), (id, value), then, false, oldest);
            }
        }
        *base = to;
    }

    /// Sets `bit` of each of the events that change the number of different values in a frame: of those that leave
    /// it, and of those that enter, each after so many of the others as `left` says.
    pub(super) fn tell(
        &self,
        (bit, mask): (usize, u64),
        (first_leaving, left): (u64, &[usize]),
        (leaving, entering): (&mut [i64], &mut [i64]),
    ) {
        for (conditions, seq) in leaving.iter_mut().zip(first_leaving..) {
            let last = holds(*conditions, mask) & !self.is_repeated(seq);
            *conditions |= i64::from(last) << bit;
        }
        for ((conditions, &before), &left) in entering.iter_mut().zip(&self.before).zip(left) {
            let new = before <= first_leaving + left as u64;
            *conditions |= i64::from(new) << bit;
            // One that leaves later in this step is repeated by then. Few are: whether an event is new is no branch.
            let later = before.wrapping_sub(1 + first_leaving);
            if !new & (later < leaving.len() as u64) {
                leaving[to_usize(later)] &= !(1 << bit);
            }
        }
    }

    /// The condition bits, of which only those of `told` may be set, of a part of the events that entered in this
    /// step, in a frame that begins at `from`: set of those that bring a value to it.
    pub(super) fn tell_new(&self, told: u64, part: Range<u64>, from: u64) -> Vec<i64> {
        let part = to_usize(part.start - self.entering)..to_usize(part.end - self.entering);
        let bits = |&before: &u64| if before <= from { told.cast_signed() } else { 0 };
        self.before[part].iter().map(bits).collect()
    }

    /// Ends a step: its events repeat those before them, and nothing more is asked of events before `oldest`.
    pub(super) fn settle(&mut self, oldest: u64) {
        let (passed, _) = self.place(oldest);
        self.repeated.drain(..passed.min(self.repeated.len()));
        self.first_word += passed as u64;
        let newest = self.before.iter().copied().filter(|&before| before != NOT_COUNTED).max();
        if let Some(newest) = newest.filter(|&newest| newest > oldest) {
            // Room for all of them at once: which of them are repeated is no branch then.
            let words = self.place(newest - 1).0 + 1;
            self.repeated.resize(words.max(self.repeated.len()), 0);
            for index in 0..self.before.len() {
                let before = self.before[index];
                let counts = (before > oldest) & (before != NOT_COUNTED);
                let (at, bit) = self.place(select_unpredictable(counts, before.wrapping_sub(1), oldest));
                self.repeated[at] |= u64::from(counts) << bit;
            }
        }
        self.before.clear();
    }

    #[inline(always)]
    fn is_repeated(&self, seq: u64) -> bool {
        let (at, bit) = self.place(seq);
        self.repeated.get(at).is_some_and(|word| word >> bit & 1 == 1)
    }

    /// The word of an event's bit, and which of the bits in it.
    #[inline(always)]
    fn place(&self, seq: u64) -> (usize, u64) {
        (to_usize(seq / WORD_BITS - self.first_word), seq % WORD_BITS)
    }
}

/// Lets the event before `after` enter the words of its key: to where its value is, or else to a place that is free,
/// since no frame has events before `oldest` any more.
#[inline(always)]
fn enter_near(words: &mut [u64; WORDS], value: u32, after: u64, oldest: u64) -> Near {
    let [base, in_table, ..] = *words;
    let gone = oldest.saturating_sub(base);
    // Places among the words; no place is where the word is that says what is in the table.
    let (mut found, mut free) = (IN_TABLE, IN_TABLE);
    for (at, &word) in words.iter().enumerate().skip(WORDS - NEAR) {
        let live = word >> 32 > gone;
        let is_it = live & (key(word.cast_signed()) == value);
        found = select_unpredictable(is_it, at, found);
        free = select_unpredictable(live, free, at);
    }
    let (is_found, is_free) = (found != IN_TABLE, free != IN_TABLE);
    let before = select_unpredictable(is_found, base + (words[found] >> 32), 0);
    let kept = is_found | is_free;
    words[select_unpredictable(is_found, found, free)] =
        select_unpredictable(kept, word(value, after - base), after);
    Near { before, kept, sought: !is_found & (!is_free | (in_table > oldest)) }
}

/// What the words of a key have of a value.
#[inline(always)]
fn word(value: u32, distance: u64) -> u64 {
    distance << 32 | u64::from(value)
}

/// An index of an event among those that are held.
#[inline(always)]
fn to_usize(n: u64) -> usize {
    usize::try_from(n).expect("live events fit in memory")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const COUNTED: u64 = 1;
    const BIT: usize = 5;

    /// An event: key, value, and whether it counts.
    type Event = (i64, i64, bool);

    /// A frame as it goes through steps: its oldest event, and how many different values each of three keys has.
    #[derive(Default)]
    struct FrameOf {
        oldest: usize,
        counts: [i64; 3],
    }

    /// Takes `events` from `from` on into a frame that holds `length` of them at the most, and compares after each.
    fn step(
        repeats: &Repeats,
        frame: &mut FrameOf,
        length: usize,
        all: &[Event],
        from: usize,
    ) -> Result<(), TestCaseError> {
        let columns = |events: &[Event]| -> Vec<i64> { events.iter().map(|e| i64::from(e.2)).collect() };
        let oldest_after = |event: usize| (event + 1).saturating_sub(length).max(frame.oldest);
        // The room is made before an event enters it.
        let left: Vec<usize> = (from..all.len()).map(|event| oldest_after(event) - frame.oldest).collect();
        let leaves = left.last().copied().unwrap_or(0);
        let mut leaving = columns(&all[frame.oldest..frame.oldest + leaves]);
        let mut entering = columns(&all[from..]);
        repeats.tell((BIT, COUNTED), (frame.oldest as u64, &left), (&mut leaving, &mut entering));
        let first_leaving = frame.oldest;
        for (event, &left) in (from..all.len()).zip(&left) {
            while frame.oldest < first_leaving + left {
                let key = usize::try_from(all[frame.oldest].0).unwrap();
                frame.counts[key] -= leaving[frame.oldest - first_leaving] >> BIT & 1;
                frame.oldest += 1;
            }
            let key = usize::try_from(all[event].0).unwrap();
            frame.counts[key] += entering[event - from] >> BIT & 1;
            let inside = all[frame.oldest..=event].iter().filter(|e| e.2 && e.0 == all[event].0);
            let values: BTreeSet<i64> = inside.map(|e| e.1).collect();
            prop_assert_eq!(frame.counts[key], i64::try_from(values.len()).unwrap());
        }
        Ok(())
    }

    fn rows() -> Chunked<u64> {
        let mut rows = Chunked::new(1 + WORDS);
        rows.grow(3);
        rows
    }

    fn enter(
        repeats: &mut Repeats,
        rows: &mut Chunked<u64>,
        events: &[Event],
        first_seq: usize,
        oldest: usize,
    ) {
        let column = |of: fn(&Event) -> i64| -> Vec<i64> { events.iter().map(of).collect() };
        let (keys, values, conditions) = (column(|e| e.0), column(|e| e.1), column(|e| i64::from(e.2)));
        let pairs = Pairs {
            first_seq: first_seq as u64,
            keys: &keys,
            values: &values,
            conditions: &conditions,
            mask: COUNTED,
            at: 1,
        };
        repeats.enter(rows, pairs, oldest as u64);
    }

    proptest! {
        #[test]
        fn frames_of_any_length_know_how_many_values_are_different(
            events in prop::collection::vec((0..3_i64, 0..40_i64, prop::bool::weighted(0.9)), 0..600),
            steps in prop::collection::vec(1..90_usize, 1..30),
            lengths in (1..8_usize, 1..300_usize),
        ) {
            let (mut repeats, mut rows, mut frames) = (Repeats::new(), rows(), [FrameOf::default(), FrameOf::default()]);
            let lengths = [lengths.0, lengths.1];
            let mut from = 0;
            for length in steps.into_iter().cycle() {
                let to = events.len().min(from + length);
                let oldest = |frames: &[FrameOf; 2]| frames[0].oldest.min(frames[1].oldest);
                enter(&mut repeats, &mut rows, &events[from..to], from, oldest(&frames));
                for (frame, length) in frames.iter_mut().zip(lengths) {
                    step(&repeats, frame, length, &events[..to], from)?;
                }
                repeats.settle(oldest(&frames) as u64);
                if to == events.len() {
                    break;
                }
                from = to;
            }
        }
    }

    #[test]
    fn what_no_frame_has_any_more_is_let_go_of() {
        let (mut repeats, mut rows) = (Repeats::new(), rows());
        let events: Vec<Event> = (0..100_000).map(|value| (0, value, true)).collect();
        for (step, part) in events.chunks(1_000).enumerate() {
            let oldest = (step * 1_000).saturating_sub(2_000);
            enter(&mut repeats, &mut rows, part, step * 1_000, oldest);
            repeats.settle(oldest as u64);
        }
        assert!(repeats.newest.places() < 20_000, "{} places for 3,000 events", repeats.newest.places());
        assert!(repeats.repeated.is_empty() && repeats.first_word == 97_000 / WORD_BITS);
    }

    #[test]
    fn what_begins_late_takes_no_more_room() {
        let (mut repeats, mut rows) = (Repeats::new(), rows());
        let late = 1 << 50;
        for seq in late..late + 3 {
            enter(&mut repeats, &mut rows, &[(0, 7, true)], seq, late);
            repeats.settle(late as u64);
        }
        assert_eq!([0, 1, 2].map(|at| repeats.is_repeated(late as u64 + at)), [true, true, false]);
        assert_eq!(repeats.repeated.len(), 1);
    }

    #[test]
    fn an_event_of_very_long_ago_is_repeated_all_the_same() {
        let (mut repeats, mut rows) = (Repeats::new(), rows());
        let mut before = |value: i64, seq: usize, oldest: usize| {
            enter(&mut repeats, &mut rows, &[(1, value, true)], seq, oldest);
            repeats.before[0]
        };
        let far = 5 << 32;
        assert_eq!([before(7, 0, 0), before(8, 1, 0), before(7, 2, 0)], [0, 0, 1]);
        assert_eq!([before(9, far, 0), before(8, far + 1, 0), before(7, far + 2, 0)], [0, 2, 3]);
        assert_eq!([before(7, far + 3, 0), before(9, far + 4, 0)], [far as u64 + 3, far as u64 + 1]);
        // What is in the words and in the table, and is not held any more, is as good as forgotten.
        let farther = 2 * far;
        assert!([7, 8, 9].iter().all(|&value| before(value, farther, far + 6) <= far as u64 + 6));
    }
}
