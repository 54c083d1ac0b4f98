//! `count(DISTINCT …)`: how often each value occurs, so that it is known when the last of a value leaves.

use std::hash::BuildHasher as _;
use std::hint::black_box;

use rustc_hash::FxBuildHasher;

use super::accumulate::{Accumulate, Item, key};
use crate::shards::Shards;

/// How many different values: `[n, value | times << 32]`, and how often each (key, value) pair occurs
/// whose value is not the one in the words. Most keys have one value, and need no more than the words.
#[derive(Debug)]
pub(super) struct Distinct {
    shards: Shards<(u64, u32)>,
    pairs: usize,
}

/// From how many pairs on the table no longer fits the processor's nearer caches.
const FAR_PAIRS: usize = 1 << 14;

impl Distinct {
    pub(super) fn new() -> Self {
        Self { shards: Shards::new(), pairs: 0 }
    }

    /// Lets an event enter or leave whose value is not the one in the words.
    fn apply_to_others(&mut self, words: &mut [u64], sign: i64, id: u32, value: u32) {
        match sign {
            1 if self.enter_table(id, value) => {}
            1 => {
                words[0] += 1;
                if Near::of(words[1]).times > 0 {
                    self.insert(id, value);
                } else {
                    words[1] = Near { value, times: 1 }.word();
                }
            }
            -1 => words[0] -= u64::from(self.leave_table(id, value)),
            _ => {}
        }
    }

    /// Takes in another occurrence of a pair that is in the table. Returns whether it is.
    fn enter_table(&mut self, id: u32, value: u32) -> bool {
        let (pair, hash) = pair(id, value);
        let found = self.shards.of_mut(hash).find_mut(hash, |entry| entry.0 == pair);
        found.map(|(_, times)| *times += 1).is_some()
    }

    fn insert(&mut self, id: u32, value: u32) {
        let (pair, hash) = pair(id, value);
        self.shards.of_mut(hash).insert_unique(hash, (pair, 1), |entry| FxBuildHasher.hash_one(entry.0));
        self.pairs += 1;
    }

    /// Takes an occurrence of a pair out of the table. Returns whether it was the last.
    fn leave_table(&mut self, id: u32, value: u32) -> bool {
        let (pair, hash) = pair(id, value);
        let Ok(mut entry) = self.shards.of_mut(hash).find_entry(hash, |entry| entry.0 == pair) else {
            return false;
        };
        entry.get_mut().1 -= 1;
        let last = entry.get().1 == 0;
        if last {
            entry.remove();
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

#[inline(always)]
fn pair(id: u32, value: u32) -> (u64, u64) {
    let pair = u64::from(id) << 32 | u64::from(value);
    (pair, FxBuildHasher.hash_one(pair))
}

impl Accumulate for Distinct {
    const WORDS: usize = 2;
    const READ: usize = 1;

    #[inline(always)]
    fn approach(&self, events: impl Iterator<Item = (u32, i64)>) {
        if self.pairs < FAR_PAIRS {
            return;
        }
        let mut found = 0_u32;
        for (id, value) in events {
            let (pair, hash) = pair(id, key(value));
            found = found
                .wrapping_add(self.shards.of(hash).find(hash, |entry| entry.0 == pair).map_or(0, |e| e.1));
        }
        black_box(found);
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
