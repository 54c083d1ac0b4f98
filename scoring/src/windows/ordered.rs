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
        (word & 0xffff_ffff) as u32
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

/// The smallest (`MIN`) or the largest value: a monotone list, so that its front is always it. The first `NEAR` are
/// in the words: `[list of the others, seq of the first + 1 or 0 for none, its value, the same of those after it…]`.
/// Few events touch more than that, and none of what they do then is a branch: which event becomes or was the best,
/// nobody can guess. Read as `[valid, value]`.
#[derive(Debug)]
pub(super) struct Extreme<const MIN: bool, const NEAR: usize>(Lists);

impl<const MIN: bool, const NEAR: usize> Extreme<MIN, NEAR> {
    pub(super) const fn new() -> Self {
        Self(Lists::new())
    }

    /// Whether a value outlives a newer one: one as good does not, since it leaves before that.
    #[inline(always)]
    const fn better(value: i64, newer: i64) -> bool {
        if MIN { value < newer } else { value > newer }
    }

    /// Takes in an event that is behind those in the words.
    fn enter_behind(&mut self, others: &mut u64, item: Item) {
        while self.0.last_of(*others).is_some_and(|last| !Self::better(last.value, item.value)) {
            self.0.pop_last(others);
        }
        self.0.push_last(others, item);
    }

    /// Takes the first of the others out, as the last in the words that it becomes.
    fn pop_other(&mut self, others: &mut u64) -> [u64; 2] {
        let first = self.0.first_of(*others).map(|node| [node.seq + 1, node.value.cast_unsigned()]);
        if first.is_some() {
            self.0.pop_first(others);
        }
        first.unwrap_or_default()
    }
}

/// One of two pairs, without a branch.
#[inline(always)]
fn choose(first: bool, a: [u64; 2], b: [u64; 2]) -> [u64; 2] {
    [select_unpredictable(first, a[0], b[0]), select_unpredictable(first, a[1], b[1])]
}

impl<const MIN: bool, const NEAR: usize> Accumulate for Extreme<MIN, NEAR> {
    const WORDS: usize = 1 + 2 * NEAR;
    const READ: usize = 2;

    #[inline(always)]
    fn apply(&mut self, words: &mut [u64], sign: i64, item: Item) {
        const NONE: [u64; 2] = [0; 2];
        let near: [[u64; 2]; NEAR] = std::array::from_fn(|at| [words[1 + 2 * at], words[2 + 2 * at]]);
        let new = [item.seq + 1, item.value.cast_unsigned()];
        let (enters, leaves) = (sign > 0, (sign < 0) & (near[0][0] == new[0]));
        // Of those before a place, whether the last outlives the event that enters; then all do.
        let mut before_stays = true;
        for at in 0..NEAR {
            let [seq, value] = near[at];
            let stays = before_stays & (seq > 0) & Self::better(value.cast_signed(), item.value);
            let entered = choose(stays, near[at], choose(before_stays, new, NONE));
            let left = choose(leaves, near.get(at + 1).copied().unwrap_or(NONE), near[at]);
            [words[1 + 2 * at], words[2 + 2 * at]] = choose(enters, entered, left);
            before_stays = stays;
        }
        let comes_behind = enters & before_stays;
        if (words[0] != 0) | comes_behind {
            if leaves {
                [words[2 * NEAR - 1], words[2 * NEAR]] = self.pop_other(&mut words[0]);
            } else if comes_behind {
                self.enter_behind(&mut words[0], item);
            } else if enters {
                self.0.clear(&mut words[0]);
            }
        }
    }

    #[inline(always)]
    fn read(&self, words: &[u64], out: &mut [u64]) {
        out.copy_from_slice(&[u64::from(words[1] > 0), words[2]]);
    }
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
    fn compare<const MIN: bool, const NEAR: usize>(events: &[(i64, i64)]) -> Result<(), TestCaseError> {
        let mut extreme = Extreme::<MIN, NEAR>::new();
        let mut words = vec![0_u64; Extreme::<MIN, NEAR>::WORDS];
        let mut frame: VecDeque<Item> = VecDeque::new();
        for (seq, &(value, sign)) in (0..).zip(events) {
            let arriving = Item { seq, key: 0, value, valid: true };
            let item = if sign < 0 { frame.pop_front() } else { Some(arriving) };
            let Some(item) = item else { continue };
            if sign > 0 {
                frame.push_back(item);
            }
            extreme.apply(&mut words, sign, item);
            let values = frame.iter().map(|item| item.value);
            let expected = if MIN { values.min() } else { values.max() };
            let mut read = vec![0; Extreme::<MIN, NEAR>::READ];
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
            let (held, free) = (length(Lists::first(words[0])), length(extreme.0.free));
            prop_assert_eq!(held + free, extreme.0.used, "no place is lost");
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn it_is_the_smallest_or_largest_of_the_frame(
            // Few values, so that many are equal; more enter than leave, so that lists grow long.
            events in prop::collection::vec((0..8_i64, prop::sample::select(vec![1, 1, 1, -1, -1, 0])), 0..200),
        ) {
            compare::<true, 1>(&events)?;
            compare::<true, 2>(&events)?;
            compare::<false, 2>(&events)?;
            compare::<true, 6>(&events)?;
            compare::<false, 6>(&events)?;
        }
    }
}
