//! `count(DISTINCT …)` over short frames: how often each value occurs, so that it is known when the last of a value
//! leaves. Most keys have one value there, and need no more than their row; where they have many, [`Repeats`] costs
//! less.
//!
//! [`Repeats`]: super::repeats::Repeats

use std::hint::black_box;

use hashbrown::DefaultHashBuilder;

use super::accumulate::{Accumulate, Item, key};
use super::drive::Course;
use super::runs::{Order, Run};
use super::table::{Entry, Table, hash_of_pair, tag};

/// How many different values: `[n, value | times << 32]`, and how often each (key, value) pair occurs whose value is
/// not the one in the words.
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

impl Pair {
    const fn tag(&self) -> u32 {
        self.tag
    }
}

impl Entry for Pair {
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
        hash_of_pair(&self.hasher, id, value)
    }

    /// Lets an event enter or leave whose value is not one of those in the words.
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
        match shard.seek(tag, |pair| (pair.id, pair.value) == (id, value), |_| true) {
            Ok(place) => shard.at_mut(place).times += 1,
            Err(place) => {
                words[0] += 1;
                if Near::of(words[1]).times == 0 {
                    words[1] = Near { value, times: 1 }.word();
                } else {
                    shard.put(place, Pair { id, value, times: 1, tag }, Pair::tag, |_| true);
                    self.pairs += 1;
                }
            }
        }
    }

    /// Takes an occurrence of a pair out of the table. Returns whether it was the last.
    #[inline]
    fn leave_other(&mut self, id: u32, value: u32) -> bool {
        let hash = self.hash(id, value);
        let shard = self.table.of_mut(hash);
        let found = shard.seek(tag(hash), |pair| (pair.id, pair.value) == (id, value), |_| true);
        let Ok(place) = found else { return false };
        let times = &mut shard.at_mut(place).times;
        *times -= 1;
        let last = *times == 0;
        if last {
            shard.remove(place, Pair::tag);
            self.pairs -= 1;
        }
        last
    }
}

/// The value that a key's words hold, and how often it occurs: 0 times for none.
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
    fn approach(&self, course: &Course<'_>, order: &Order, to_come: &[Run]) {
        if self.pairs < FAR_PAIRS {
            return;
        }
        for &run in to_come {
            course.each_pair(order, run, |id, value| {
                self.table.approach(self.hash(key(id), key(value)));
            });
        }
    }

    #[inline(always)]
    fn apply(&mut self, words: &mut [u64], sign: i64, item: Item) {
        let value = key(item.value);
        let near = Near::of(words[1]);
        let any = near.times > 0;
        // The value in the words, or one for which there is place, and no other could be elsewhere. The box keeps the
        // compiler from making several branches of it, each of which would depend on whether the event enters or
        // leaves; together they hardly do.
        if black_box((any & (near.value == value)) | (!any & (words[0] == 0))) {
            let times = near.times.wrapping_add_signed(sign);
            words[0] = words[0] + u64::from(times > 0) - u64::from(any);
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

    use super::super::drive::Feed;
    use super::super::runs::Act;
    use super::*;

    /// Takes events in and out and compares what is counted with the frame after each.
    fn compare(events: &[(u32, i64, i64)]) -> Result<(), TestCaseError> {
        let mut distinct = Distinct::new();
        let mut rows: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
        let mut frame: VecDeque<(u32, i64)> = VecDeque::new();
        for &(id, value, sign) in events {
            let event = match sign {
                -1 => frame.pop_front(),
                _ => Some((id, value)),
            };
            let Some((id, value)) = event else { continue };
            if sign == 1 {
                frame.push_back((id, value));
            }
            let words = rows.entry(id).or_insert_with(|| vec![0; Distinct::WORDS]);
            distinct.apply(words, sign, Item { seq: 0, key: id, value, valid: true });
            let values: BTreeSet<i64> = frame.iter().filter(|e| e.0 == id).map(|e| e.1).collect();
            prop_assert_eq!(words[0], values.len() as u64);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn it_is_the_number_of_different_values_in_the_frame(
            // More enter than leave, so that there are more values than the words hold.
            events in prop::collection::vec((0..3_u32, 0..10_i64, prop::sample::select(vec![1, 1, -1, 0])), 0..300),
        ) {
            compare(&events)?;
        }
    }

    #[test]
    fn pairs_too_many_to_be_near_are_asked_for_and_counted() {
        let mut distinct = Distinct::new();
        let mut words = [0; Distinct::WORDS];
        let values: Vec<i64> = (0..3 * FAR_PAIRS as i64 / 2).collect();
        let keys = vec![0; values.len()];
        let rows = Feed { first_seq: 0, keys: &keys, conditions: &keys, values: &values };
        let course = Course::new(rows, None, std::iter::empty());
        for sign in [1, -1] {
            for (at, &value) in values.iter().enumerate() {
                let to_come = Run { act: Some(Act::Read), from: at, to: values.len().min(at + 8) };
                distinct.approach(&course, &Order::default(), &[to_come]);
                distinct.apply(&mut words, sign, Item { seq: 0, key: 0, value, valid: true });
                let passed = at as u64 + 1;
                assert_eq!(words[0], if sign > 0 { passed } else { values.len() as u64 - passed });
            }
        }
        assert_eq!(distinct.pairs, 0);
    }
}
