//! `count(DISTINCT …)`: how often each value occurs, so that it is known when the last of a value leaves.

use std::hash::BuildHasher as _;
use std::hint::black_box;

use hashbrown::DefaultHashBuilder;

use super::accumulate::{Accumulate, Item, key};
use super::drive::Course;
use super::table::{Entry, Table, tag};

/// How many different values: `[n, value | times << 32]`, and how often each (key, value) pair occurs
/// whose value is not the one in the words. Most keys have one value, and need no more than the words.
#[derive(Debug)]
pub(super) struct Distinct {
    table: Table<Pair>,
    pairs: usize,
    hasher: DefaultHashBuilder,
}

/// How often a value occurs for a key.
#[derive(Debug, Clone, Copy, Default)]
struct Pair {
    id: u32,
    value: u32,
    times: u32,
    tag: u32,
}

impl Entry for Pair {
    #[inline(always)]
    fn tag(&self) -> u32 {
        self.tag
    }

    #[inline(always)]
    fn is_none(&self) -> bool {
        self.times == 0
    }
}

/// From how many pairs on the table no longer fits the processor's nearer caches.
const FAR_PAIRS: usize = 1 << 14;

impl Distinct {
    pub(super) fn new() -> Self {
        Self { table: Table::new(), pairs: 0, hasher: DefaultHashBuilder::default() }
    }

    #[inline(always)]
    fn hash(&self, id: u32, value: u32) -> u64 {
        self.hasher.hash_one(u64::from(id) << 32 | u64::from(value))
    }

    /// Lets an event enter or leave whose value is not the one in the words.
    fn apply_to_others(&mut self, words: &mut [u64], sign: i64, id: u32, value: u32) {
        match sign {
            1 => self.enter_other(words, id, value),
            -1 => words[0] -= u64::from(self.leave_other(id, value)),
            _ => {}
        }
    }

    #[inline]
    fn enter_other(&mut self, words: &mut [u64], id: u32, value: u32) {
        let hash = self.hash(id, value);
        let (shard, tag) = (self.table.of_mut(hash), tag(hash));
        match shard.seek(tag, |pair| (pair.id, pair.value) == (id, value)) {
            Ok(place) => shard.at_mut(place).times += 1,
            Err(place) => {
                words[0] += 1;
                if Near::of(words[1]).times > 0 {
                    shard.put(place, Pair { id, value, times: 1, tag });
                    self.pairs += 1;
                } else {
                    words[1] = Near { value, times: 1 }.word();
                }
            }
        }
    }

    /// Takes an occurrence of a pair out of the table. Returns whether it was the last.
    #[inline]
    fn leave_other(&mut self, id: u32, value: u32) -> bool {
        let hash = self.hash(id, value);
        let shard = self.table.of_mut(hash);
        let Ok(place) = shard.seek(tag(hash), |pair| (pair.id, pair.value) == (id, value)) else {
            return false;
        };
        let times = &mut shard.at_mut(place).times;
        *times -= 1;
        let last = *times == 0;
        if last {
            shard.remove(place);
            self.pairs -= 1;
        }
        last
    }
}

/// The one value that a key's words hold, and how often it occurs: 0 times for none.
#[derive(Debug, Clone, Copy)]
struct Near {
    value: u32,
    times: u64,
}

impl Near {
    #[inline(always)]
    fn of(word: u64) -> Self {
        Self { value: key(word.cast_signed()), times: word >> 32 }
    }

    #[inline(always)]
    fn word(self) -> u64 {
        self.times << 32 | u64::from(self.value)
    }
}

impl Accumulate for Distinct {
    const WORDS: usize = 2;
    const READ: usize = 1;

    #[inline(never)]
    fn approach(&self, course: &Course<'_>, done: usize) {
        if self.pairs < FAR_PAIRS {
            return;
        }
        course.coming(done).for_each(|(id, value)| self.table.approach(self.hash(id, key(value))));
    }

    #[inline(always)]
    fn apply(&mut self, words: &mut [u64], sign: i64, item: Item) {
        let near = Near::of(words[1]);
        let (in_words, value) = (u64::from(near.times > 0), key(item.value));
        // The one value that there is, or the first. The box keeps the compiler from making two branches of it,
        // each of which would depend on whether the event enters or leaves; together they hardly do.
        if black_box((words[0] == 0) | ((in_words == 1) & (near.value == value))) {
            let times = near.times.wrapping_add_signed(sign);
            words[0] = words[0] + u64::from(times > 0) - in_words;
            words[1] = Near { value, times }.word();
        } else {
            self.apply_to_others(words, sign, item.key, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet, VecDeque};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_the_number_of_different_values_in_the_frame(
            events in prop::collection::vec((0..3_u32, 0..4_i64, -1..=1_i64), 0..200),
        ) {
            let mut distinct = Distinct::new();
            let mut rows: BTreeMap<u32, [u64; Distinct::WORDS]> = BTreeMap::new();
            let mut frame: VecDeque<(u32, i64)> = VecDeque::new();
            for (id, value, sign) in events {
                let event = match sign {
                    -1 => frame.pop_front(),
                    _ => Some((id, value)),
                };
                let Some((id, value)) = event else { continue };
                if sign == 1 {
                    frame.push_back((id, value));
                }
                let words = rows.entry(id).or_default();
                distinct.apply(words, sign, Item { seq: 0, key: id, value, valid: true });
                let values: BTreeSet<i64> = frame.iter().filter(|e| e.0 == id).map(|e| e.1).collect();
                prop_assert_eq!(words[0], values.len() as u64);
            }
        }
    }
}
