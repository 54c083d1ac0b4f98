//! Accumulators that keep values in the order in which they came: the oldest one, the smallest and the largest.

use std::hint::select_unpredictable;

use super::accumulate::{Accumulate, Item};
use super::chunked::Chunked;

/// Doubly linked lists in one arena, one list per key: `[first | last << 32]`, places counted from 1.
#[derive(Debug)]
struct Lists {
    nodes: Chunked<Node>,
    used: u32,
    free: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Node {
    seq: u64,
    value: i64,
    valid: bool,
    before: u32,
    after: u32,
}

impl Lists {
    const fn new() -> Self {
        Self { nodes: Chunked::new(1), used: 0, free: 0 }
    }

    fn node(&self, place: u32) -> &Node {
        &self.nodes.row(place as usize)[0]
    }

    fn node_mut(&mut self, place: u32) -> &mut Node {
        &mut self.nodes.row_mut(place as usize)[0]
    }

    fn first(word: u64) -> u32 {
        lower(word)
    }

    fn last(word: u64) -> u32 {
        (word >> 32) as u32
    }

    fn push_last(&mut self, word: &mut u64, item: Item) {
        let place = if self.free > 0 {
            let place = self.free;
            self.free = self.node(place).after;
            place
        } else {
            self.used = self.used.checked_add(1).expect("fewer than 2^32 values fit in memory");
            self.nodes.grow(self.used as usize + 1);
            self.used
        };
        let last = Self::last(*word);
        *self.node_mut(place) =
            Node { seq: item.seq, value: item.value, valid: item.valid, before: last, after: 0 };
        if last > 0 {
            self.node_mut(last).after = place;
            *word = u64::from(place) << 32 | u64::from(Self::first(*word));
        } else {
            *word = u64::from(place) << 32 | u64::from(place);
        }
    }

    fn pop_last(&mut self, word: &mut u64) {
        let place = Self::last(*word);
        let before = self.node(place).before;
        if before > 0 {
            self.node_mut(before).after = 0;
            *word = u64::from(before) << 32 | u64::from(Self::first(*word));
        } else {
            *word = 0;
        }
        self.give_back(place);
    }

    fn pop_first(&mut self, word: &mut u64) {
        let place = Self::first(*word);
        let after = self.node(place).after;
        if after > 0 {
            self.node_mut(after).before = 0;
            *word = u64::from(Self::last(*word)) << 32 | u64::from(after);
        } else {
            *word = 0;
        }
        self.give_back(place);
    }

    fn give_back(&mut self, place: u32) {
        let free = self.free;
        self.node_mut(place).after = free;
        self.free = place;
    }

    /// Lets go of all of a list that is not empty.
    fn clear(&mut self, word: &mut u64) {
        let free = self.free;
        self.node_mut(Self::last(*word)).after = free;
        self.free = Self::first(*word);
        *word = 0;
    }

    fn first_of(&self, word: u64) -> Option<&Node> {
        (word != 0).then(|| self.node(Self::first(word)))
    }

    fn last_of(&self, word: u64) -> Option<&Node> {
        (word != 0).then(|| self.node(Self::last(word)))
    }
}

/// The smallest (`MIN`) or the largest value, with the events behind it that may yet become it, in order. In the words:
/// `[event of the first | how many there are in the words << 32, its value, list of those for which there is no place,
/// events of those behind the first, two to a word…, their values…]`. Of events there are the lower 32 bits, which tell
/// those of a frame apart. Read as `[valid, value]`.
///
/// They are a monotone list: one that enters takes the place of those that are no better. How many are is counted
/// among all that could be, so that no branch depends on which of two values is better, which nobody can guess.
#[derive(Debug)]
pub(super) struct Extreme<const MIN: bool, const PLACES: usize>(Lists);

/// An event that may become the smallest or the largest, by the lower bits of its number, and its value.
type Candidate = (u32, i64);

/// Which of the words is the list of candidates that are not in the words.
const OTHERS: usize = 2;
/// Where the events of those behind the first begin.
const EVENTS: usize = 3;

impl<const MIN: bool, const PLACES: usize> Extreme<MIN, PLACES> {
    /// Where the values of those behind the first begin.
    const VALUES: usize = EVENTS + PLACES.div_ceil(2);
    /// What is in place of them for an event that does not join them.
    const NONE: &'static [u64; PLACES] = &[0; PLACES];

    pub(super) const fn new() -> Self {
        Self(Lists::new())
    }

    /// Whether a value outlives a newer one: one as good does not, since it leaves before that.
    #[inline(always)]
    const fn better(value: i64, newer: i64) -> bool {
        if MIN { value < newer } else { value > newer }
    }

    /// How many candidates there are in the words.
    #[inline(always)]
    const fn held(words: &[u64]) -> usize {
        (words[0] >> 32) as usize
    }

    #[inline(always)]
    const fn first((event, value): Candidate, held: usize) -> [u64; 2] {
        [event as u64 | (held as u64) << 32, value.cast_unsigned()]
    }

    /// The candidate in a place behind the first.
    #[inline(always)]
    fn behind(words: &[u64], place: usize) -> Candidate {
        (lower(words[EVENTS + place / 2] >> (place % 2 * 32)), words[Self::VALUES + place].cast_signed())
    }

    #[inline(always)]
    fn put_behind(words: &mut [u64], place: usize, (event, value): Candidate) {
        let (events, shift) = (&mut words[EVENTS + place / 2], place % 2 * 32);
        *events = with_half(*events, shift, event);
        words[Self::VALUES + place] = value.cast_unsigned();
    }

    /// How many of those behind the first outlive a newer value: all that come before the others.
    #[inline(always)]
    fn outlive(values: &[u64; PLACES], behind: usize, newer: i64) -> usize {
        let bit =
            |(place, value): (usize, &u64)| u32::from(Self::better(value.cast_signed(), newer)) << place;
        let bits: u32 = values.iter().enumerate().map(bit).fold(0, |all, bit| all | bit);
        behind.min(bits.trailing_ones() as usize)
    }

    /// Takes in what is not as good as the first, nor better than any in the words, of which there are all.
    #[inline(never)]
    fn enter_others(&mut self, others: &mut u64, item: Item) {
        while self.0.last_of(*others).is_some_and(|last| !Self::better(last.value, item.value)) {
            self.0.pop_last(others);
        }
        self.0.push_last(others, item);
    }

    /// Lets the first leave, behind which there are others.
    #[inline(never)]
    fn leave_others(&mut self, words: &mut [u64]) {
        let mut held = Self::held(words) - 1;
        let first = Self::behind(words, 0);
        for place in 1..held {
            Self::put_behind(words, place - 1, Self::behind(words, place));
        }
        if let Some(other) = self.0.first_of(words[OTHERS]) {
            Self::put_behind(words, held - 1, (lower(other.seq), other.value));
            self.0.pop_first(&mut words[OTHERS]);
            held += 1;
        }
        words[..OTHERS].copy_from_slice(&Self::first(first, held));
    }
}

/// A word with other bits from `shift` on.
#[inline(always)]
const fn with_half(word: u64, shift: usize, bits: u32) -> u64 {
    word & !((u32::MAX as u64) << shift) | (bits as u64) << shift
}

/// The lower bits of an event's number, or of a word.
#[inline(always)]
const fn lower(word: u64) -> u32 {
    (word & u32::MAX as u64) as u32
}

impl<const MIN: bool, const PLACES: usize> Accumulate for Extreme<MIN, PLACES> {
    const WORDS: usize = Self::VALUES + PLACES;
    const READ: usize = 2;
    const LEFT: usize = EVENTS;

    #[inline(always)]
    fn apply(&mut self, words: &mut [u64], sign: i64, item: Item) {
        let (first, value, held) = (words[0], words[1], Self::held(words));
        let new = (lower(item.seq), item.value);
        let enters = sign > 0;
        let beats = (held == 0) | !Self::better(value.cast_signed(), item.value);
        let (as_first, joins) = (enters & beats, enters & !beats);
        let leaves = (sign < 0) & (held > 0) & (lower(first) == new.0);
        // What does not join those behind the first looks at none of them, and writes what is written over below.
        let values: &[u64; PLACES] = words[Self::VALUES..].first_chunk().expect("they are at the end");
        let values = select_unpredictable(joins, values, Self::NONE);
        let place = Self::outlive(values, held.saturating_sub(1), item.value);
        if (leaves & (held > 1)) | (enters & (words[OTHERS] != 0)) | (joins & (place == PLACES)) {
            if leaves {
                return self.leave_others(words);
            } else if joins & (place == PLACES) {
                return self.enter_others(&mut words[OTHERS], item);
            }
            self.0.clear(&mut words[OTHERS]);
        }
        let event_at = select_unpredictable(joins, EVENTS + place / 2, 0);
        words[event_at] = with_half(words[event_at], place % 2 * 32, new.0);
        words[select_unpredictable(joins, Self::VALUES + place, 1)] = item.value.cast_unsigned();
        let held = select_unpredictable(joins, 2 + place, held);
        let stays = Self::first((lower(first), value.cast_signed()), held);
        let alone = choose(enters, Self::first(new, 1), [0; 2]);
        let [first, value] = choose(as_first | leaves, alone, stays);
        (words[0], words[1]) = (first, value);
    }

    #[inline(always)]
    fn read(&self, words: &[u64], out: &mut [u64]) {
        out.copy_from_slice(&[u64::from(Self::held(words) > 0), words[1]]);
    }
}

/// One of two pairs, without a branch.
#[inline(always)]
fn choose(first: bool, a: [u64; 2], b: [u64; 2]) -> [u64; 2] {
    [select_unpredictable(first, a[0], b[0]), select_unpredictable(first, a[1], b[1])]
}

/// The oldest value: all of them in order. Read as `[valid, value]`.
#[derive(Debug)]
pub(super) struct First(Lists);

impl First {
    pub(super) const fn new() -> Self {
        Self(Lists::new())
    }
}

impl Accumulate for First {
    const WORDS: usize = 1;
    const READ: usize = 2;

    fn enter(&mut self, words: &mut [u64], item: Item) {
        self.0.push_last(&mut words[0], item);
    }

    fn leave(&mut self, words: &mut [u64], _: Item) {
        self.0.pop_first(&mut words[0]);
    }

    fn read(&self, words: &[u64], out: &mut [u64]) {
        let first = self.0.first_of(words[0]);
        out.copy_from_slice(
            &first.map_or([0; 2], |node| [u64::from(node.valid), node.value.cast_unsigned()]),
        );
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    /// Takes events in and out and compares what is kept with the frame after each.
    fn compare<const MIN: bool, const PLACES: usize>(events: &[(i64, i64)]) -> Result<(), TestCaseError> {
        let mut extreme = Extreme::<MIN, PLACES>::new();
        let mut words = vec![0_u64; Extreme::<MIN, PLACES>::WORDS];
        let mut frame: VecDeque<Item> = VecDeque::new();
        // Half of their lower bits begin anew.
        for (seq, &(value, sign)) in (u64::from(u32::MAX) - 100..).zip(events) {
            let arriving = Item { seq, key: 0, value, valid: true };
            let item = if sign < 0 { frame.pop_front() } else { Some(arriving) };
            let Some(item) = item else { continue };
            if sign > 0 {
                frame.push_back(item);
            }
            extreme.apply(&mut words, sign, item);
            let values = frame.iter().map(|item| item.value);
            let expected = if MIN { values.min() } else { values.max() };
            let mut read = vec![0; Extreme::<MIN, PLACES>::READ];
            extreme.read(&words, &mut read);
            let found = (read[0] > 0).then_some(read[1].cast_signed());
            prop_assert_eq!(found, expected);
            let length = |mut place: u32| {
                let mut nodes = 0;
                while place > 0 {
                    nodes += 1;
                    place = extreme.0.node(place).after;
                }
                nodes
            };
            let (held, free) = (length(Lists::first(words[OTHERS])), length(extreme.0.free));
            prop_assert_eq!(held + free, extreme.0.used, "no place is lost");
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn it_is_the_smallest_or_largest_of_the_frame(
            // Few values, so that many are equal; more enter than leave, so that lists grow long where values fall.
            events in prop::collection::vec((0..8_i64, prop::sample::select(vec![1, 1, 1, -1, -1, 0])), 0..200),
        ) {
            compare::<true, 1>(&events)?;
            compare::<false, 1>(&events)?;
            compare::<true, 3>(&events)?;
            compare::<true, 7>(&events)?;
            compare::<false, 7>(&events)?;
            compare::<true, 8>(&events)?;
            compare::<false, 8>(&events)?;
            let falling: Vec<(i64, i64)> =
                (0..).zip(&events).map(|(at, &(value, sign))| (value - at, sign)).collect();
            compare::<false, 1>(&falling)?;
            compare::<false, 7>(&falling)?;
            compare::<false, 8>(&falling)?;
        }
    }
}
