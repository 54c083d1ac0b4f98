//! Which events repeat a value that their key had before: all that `count(DISTINCT …)` has to know.
//!
//! The number of different values in a frame grows with an event that enters unless the event before it with the
//! same value is in the frame, and shrinks with one that leaves unless an event after it has the same value. Which
//! those are does not depend on how long a frame is: it is looked up once for each event, as it enters. What is left
//! for each frame is to count events, as [`Count`](super::accumulate::Count) does.
//!
//! [`newest`](super::newest) knows the newest event of each key and value.

use std::collections::VecDeque;
use std::ops::Range;

use super::accumulate::key;
use super::chunked::AHEAD;
use super::drive::holds;
use super::newest::Newest;

/// Events for each key of which it is asked whether its values have more room than they need.
const EVENTS_PER_TURN: u64 = 64;

/// The newest event of each key and value, and which events are not the newest of theirs.
#[derive(Debug)]
pub(super) struct Repeats {
    newest: Newest,
    /// A bit for each event from 64 * `first_word` on: whether a later one has the same key and value. Those at the end
    /// are left out.
    repeated: VecDeque<u64>,
    first_word: u64,
    /// The first of the events that enter in a step.
    entering: u64,
    /// Of each of them: one more than the event that it repeats, 0 for none, or [`NOT_COUNTED`].
    before: Vec<u64>,
    /// Of those that repeat an event that some frame had: one more than that.
    repeating: Vec<u64>,
}

/// Events looked up, and asked for ahead, in turn.
const IN_TURN: usize = 8;

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
}

impl Pairs<'_> {
    /// The key and the value of some of them, and whether it counts.
    #[inline(always)]
    fn part(&self, events: Range<usize>) -> impl Iterator<Item = (u32, u32, bool)> {
        let pairs = self.keys[events.clone()].iter().zip(&self.values[events.clone()]);
        let mask = self.mask;
        let pair = move |((&id, &value), &conditions)| (key(id), key(value), holds(conditions, mask));
        pairs.zip(&self.conditions[events]).map(pair)
    }
}

impl Repeats {
    pub(super) fn new() -> Self {
        Self {
            newest: Newest::new(),
            repeated: VecDeque::new(),
            first_word: 0,
            entering: 0,
            before: Vec::new(),
            repeating: Vec::new(),
        }
    }

    /// Bytes that are kept of keys and their values, but for those that have very many.
    pub(super) fn bytes(&self) -> usize {
        self.newest.bytes()
    }

    /// Looks up what the events of a step that enter repeat; no frame has events before `oldest` any more. Keys are
    /// below `keys`.
    pub(super) fn enter(&mut self, keys: usize, events: Pairs<'_>, oldest: u64) {
        self.newest.make_room(keys);
        let all = events.keys.len();
        self.entering = events.first_seq;
        // Room for all of them at once: which of them repeat another is no branch then.
        self.before.clear();
        self.before.resize(all, NOT_COUNTED);
        self.repeating.clear();
        self.repeating.resize(all, 0);
        let mut repeating = 0;
        for from in (0..all).step_by(IN_TURN) {
            // Some at a time, so that the processor waits for as many as it can: first for what says where the values of
            // keys are, and later for these.
            let ahead = |by: usize| {
                let begin = if from == 0 { 0 } else { from + by };
                events.part(begin.min(all)..all.min(from + by + IN_TURN))
            };
            self.newest.approach_heads(ahead(2 * AHEAD).map(|(id, ..)| id));
            ahead(AHEAD).filter(|pair| pair.2).for_each(|(id, value, _)| self.newest.approach(id, value));
            let part = from..all.min(from + IN_TURN);
            let before = self.before[part.clone()].iter_mut();
            for (((id, value, counts), before), seq) in
                events.part(part).zip(before).zip(events.first_seq + from as u64..)
            {
                if counts {
                    *before = self.newest.enter(id, (value, seq + 1), oldest);
                    self.repeating[repeating] = *before;
                    repeating += usize::from(*before > oldest);
                }
            }
        }
        self.repeating.truncate(repeating);
        let after = events.first_seq + all as u64;
        for turn in events.first_seq.div_ceil(EVENTS_PER_TURN)..after.div_ceil(EVENTS_PER_TURN) {
            let id = key((turn % self.newest.room() as u64).cast_signed());
            self.newest.look_after(id, turn, (after, oldest));
        }
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
        if let Some(&newest) = self.repeating.iter().max().filter(|&&newest| newest > oldest) {
            let words = self.place(newest - 1).0 + 1;
            self.repeated.resize(words.max(self.repeated.len()), 0);
            for &before in self.repeating.iter().filter(|&&before| before > oldest) {
                let (at, bit) = self.place(before - 1);
                self.repeated[at] |= 1 << bit;
            }
        }
        self.repeating.clear();
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

/// An index of an event among those that are held.
#[inline(always)]
fn to_usize(n: u64) -> usize {
    usize::try_from(n).expect("live events fit in memory")
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::super::lines;
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

    /// For so many keys there is room.
    const KEYS: usize = 3;

    fn enter(repeats: &mut Repeats, events: &[Event], first_seq: usize, oldest: usize) {
        let column = |of: fn(&Event) -> i64| -> Vec<i64> { events.iter().map(of).collect() };
        let (keys, values, conditions) = (column(|e| e.0), column(|e| e.1), column(|e| i64::from(e.2)));
        let pairs = Pairs {
            first_seq: first_seq as u64,
            keys: &keys,
            values: &values,
            conditions: &conditions,
            mask: COUNTED,
        };
        repeats.enter(KEYS, pairs, oldest as u64);
    }

    proptest! {
        #[test]
        fn frames_of_any_length_know_how_many_values_are_different(
            events in prop::collection::vec((0..3_i64, 0..400_i64, prop::bool::weighted(0.9)), 0..600),
            // Of how many values there are, for a while each: they come to be many, and few again.
            most in prop::collection::vec(prop::sample::select(vec![3_i64, 12, 40, 40, 400]), 1..6),
            steps in prop::collection::vec(1..90_usize, 1..30),
            lengths in (1..8_usize, 1..300_usize),
            side_by_side in prop::bool::ANY,
        ) {
            let phase = |event: usize| most[event * most.len() / events.len()];
            // Numbers that belong in the same lines, or as they come.
            let number = |value: i64| if side_by_side { i64::from(lines::side_by_side(key(value))) } else { value };
            let events: Vec<Event> = events.iter().enumerate()
                .map(|(event, &(key, value, counts))| (key, number(value % phase(event)), counts)).collect();
            let (mut repeats, mut frames) = (Repeats::new(), [FrameOf::default(), FrameOf::default()]);
            let lengths = [lengths.0, lengths.1];
            let mut from = 0;
            for (turn, length) in (0..).zip(steps.into_iter().cycle()) {
                let to = events.len().min(from + length);
                let oldest = |frames: &[FrameOf; 2]| frames[0].oldest.min(frames[1].oldest);
                enter(&mut repeats, &events[from..to], from, oldest(&frames));
                for id in 0..3 {
                    let now = (to as u64, oldest(&frames) as u64);
                    repeats.newest.look_after(id, turn, now);
                }
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

    /// Takes events in, and compares what each repeats with the newest event of each key and value; `held` of them are
    /// in the longest frame.
    fn compare(repeats: &mut Repeats, from: usize, held: usize, events: &[Event]) {
        let mut newest = BTreeMap::new();
        for (first, events) in (from..).step_by(1_000).zip(events.chunks(1_000)) {
            let oldest = first.saturating_sub(held);
            enter(repeats, events, first, oldest);
            for (seq, (event, &before)) in (first..).zip(events.iter().zip(&repeats.before)) {
                let needed = |&after: &u64| after > oldest.max(from) as u64;
                let expected = newest.insert((event.0, event.1), seq as u64 + 1).filter(needed);
                assert_eq!(Some(before).filter(needed), expected, "of event {seq}");
            }
            repeats.settle(oldest as u64);
        }
    }

    #[test]
    fn values_are_in_one_line_of_their_key_or_in_several_or_in_the_table() {
        let mut repeats = Repeats::new();
        // All values again and again, in another order each time.
        let all =
            |values: usize| (0..20_000).map(move |seq| (2, (seq * 7_919 % values) as i64, true)).collect();
        let mut from = 0;
        let mut lines_with = |values: usize| {
            let events: Vec<Event> = all(values);
            compare(&mut repeats, from, 2 * values, &events);
            from += events.len() + 100_000;
            repeats.newest.lines_of(2)
        };
        assert_eq!(lines_with(5), 1);
        assert!(lines_with(100) > 20);
        assert_eq!(lines_with(5_000), 0);
        assert_eq!(lines_with(3), 1);
        assert!(lines_with(30) > 5);
    }

    #[test]
    fn values_that_belong_in_one_line_are_in_the_next_ones() {
        let mut repeats = Repeats::new();
        let value = |seq: usize| i64::from(lines::side_by_side(key((seq * 7_919 % 101) as i64)));
        let events: Vec<Event> = (0..50_000).map(|seq| (1, value(seq), true)).collect();
        compare(&mut repeats, 0, 90, &events);
        assert!(repeats.newest.lines_of(1) > 20);
    }

    #[test]
    fn keys_that_had_many_values_give_their_lines_to_others() {
        let mut repeats = Repeats::new();
        compare(&mut repeats, 0, 3, &[(0, 0, true), (1, 0, true), (2, 0, true)]);
        let (mut first, mut used) = (3, 0);
        for id in [0, 1, 2, 0, 1, 2] {
            // A hundred values, then one for so long that it has been asked of all keys.
            let turn = 2 * usize::try_from(EVENTS_PER_TURN).unwrap() * repeats.newest.room();
            let events: Vec<Event> =
                (0..100).map(|value| (id, value, true)).chain((0..turn).map(|_| (id, 0, true))).collect();
            compare(&mut repeats, first, 1_000, &events);
            first += events.len();
            let now = repeats.newest.used().0;
            used = if used == 0 { now } else { used };
            assert!(used > 20 && now == used, "{now} lines after {used}");
            assert_eq!(repeats.newest.lines_of(key(id)), 1);
        }
    }

    #[test]
    fn what_no_frame_has_any_more_is_let_go_of() {
        let mut repeats = Repeats::new();
        let events: Vec<Event> = (0..100_000).map(|value| (0, value, true)).collect();
        for (step, part) in events.chunks(1_000).enumerate() {
            let oldest = (step * 1_000).saturating_sub(2_000);
            enter(&mut repeats, part, step * 1_000, oldest);
            repeats.settle(oldest as u64);
        }
        let (_, places) = repeats.newest.used();
        assert!(places < 20_000, "{places} places for 3,000 events");
        assert!(repeats.repeated.is_empty() && repeats.first_word == 97_000 / WORD_BITS);
    }

    #[test]
    fn what_begins_late_takes_no_more_room() {
        let mut repeats = Repeats::new();
        let late = 1 << 50;
        for seq in late..late + 3 {
            enter(&mut repeats, &[(0, 7, true)], seq, late);
            repeats.settle(late as u64);
        }
        assert_eq!([0, 1, 2].map(|at| repeats.is_repeated(late as u64 + at)), [true, true, false]);
        assert_eq!(repeats.repeated.len(), 1);
    }

    #[test]
    fn an_event_of_very_long_ago_is_repeated_all_the_same() {
        let mut repeats = Repeats::new();
        let mut before = |value: i64, seq: usize, oldest: usize| {
            enter(&mut repeats, &[(1, value, true)], seq, oldest);
            repeats.before[0]
        };
        let far = 5 << 32;
        assert_eq!([before(7, 0, 0), before(8, 1, 0), before(7, 2, 0)], [0, 0, 1]);
        assert_eq!([before(9, far, 0), before(8, far + 1, 0), before(7, far + 2, 0)], [0, 2, 3]);
        assert_eq!([before(7, far + 3, 0), before(9, far + 4, 0)], [far as u64 + 3, far as u64 + 1]);
        // What is in lines and in the table, and is not held any more, is as good as forgotten.
        let farther = 2 * far;
        assert!([7, 8, 9].iter().all(|&value| before(value, farther, far + 6) <= far as u64 + 6));
    }
}
