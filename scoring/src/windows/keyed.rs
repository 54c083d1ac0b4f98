//! What is kept per key: one row of words, and side tables for what does not fit in words.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::layout::{KeySizes, Op, Step};
use super::reservoir::EventRef;

/// The accumulators of all keys of one dictionary, indexed by the key's number. A key whose events
/// have all left has nothing but zeroes and empty tables, so its number can be given to another key.
#[derive(Debug)]
pub(super) struct KeyedState {
    sizes: KeySizes,
    words: Vec<u64>,
    /// `[side][key]`: sequence number and signed value, values strictly decreasing.
    extremes: Vec<Vec<VecDeque<(u64, i64)>>>,
    /// `[side][key]`: how often each number occurs in the frame.
    distincts: Vec<Vec<FxHashMap<u32, u32>>>,
}

impl KeyedState {
    pub(super) fn new(sizes: KeySizes) -> Self {
        Self {
            sizes,
            words: Vec::new(),
            extremes: vec![Vec::new(); sizes.extremes],
            distincts: vec![Vec::new(); sizes.distincts],
        }
    }

    /// Makes room for keys numbered below `keys`.
    pub(super) fn grow(&mut self, keys: usize) {
        if self.words.len() < keys * self.sizes.words {
            self.words.resize(keys * self.sizes.words, 0);
        }
        for side in &mut self.extremes {
            if side.len() < keys {
                side.resize_with(keys, VecDeque::new);
            }
        }
        for side in &mut self.distincts {
            if side.len() < keys {
                side.resize_with(keys, FxHashMap::default);
            }
        }
    }

    /// Takes an event into the frames of a key.
    #[inline]
    pub(super) fn enter(&mut self, key: u32, steps: &[Step], seq: u64, event: EventRef<'_>) {
        let key = key as usize;
        let row = key * self.sizes.words;
        for step in steps {
            if event.conditions & step.condition_mask != step.condition_mask {
                continue;
            }
            match step.op {
                Op::Count { word } => self.words[row + word] += 1,
                Op::Sum { word, value } => self.add(row + word, i128::from(event.values[value])),
                Op::Extreme { side, value, sign } => {
                    let deque = &mut self.extremes[side][key];
                    let value = ordered(event.values[value], sign);
                    while deque.back().is_some_and(|&(_, last)| last <= value) {
                        deque.pop_back();
                    }
                    deque.push_back((seq, value));
                }
                Op::Distinct { side, dictionary } => {
                    *self.distincts[side][key].entry(event.ids[dictionary]).or_insert(0) += 1;
                }
            }
        }
    }

    /// Takes an event, the oldest in them, out of the frames of a key.
    #[inline]
    pub(super) fn leave(&mut self, key: u32, steps: &[Step], seq: u64, event: EventRef<'_>) {
        let key = key as usize;
        let row = key * self.sizes.words;
        for step in steps {
            if event.conditions & step.condition_mask != step.condition_mask {
                continue;
            }
            match step.op {
                Op::Count { word } => self.words[row + word] -= 1,
                Op::Sum { word, value } => self.add(row + word, -i128::from(event.values[value])),
                Op::Extreme { side, .. } => {
                    let deque = &mut self.extremes[side][key];
                    if deque.front().is_some_and(|&(first, _)| first == seq) {
                        deque.pop_front();
                        if deque.is_empty() {
                            *deque = VecDeque::new();
                        }
                    }
                }
                Op::Distinct { side, dictionary } => {
                    let counts = &mut self.distincts[side][key];
                    let id = event.ids[dictionary];
                    if let Some(count) = counts.get_mut(&id) {
                        *count -= 1;
                        if *count == 0 {
                            counts.remove(&id);
                            if counts.is_empty() {
                                *counts = FxHashMap::default();
                            }
                        }
                    }
                }
            }
        }
    }

    fn add(&mut self, word: usize, amount: i128) {
        let sum = self.sum_at(word) + amount;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // the two halves of an i128
        {
            self.words[word] = sum as u64;
            self.words[word + 1] = (sum >> 64) as u64;
        }
    }

    fn sum_at(&self, word: usize) -> i128 {
        (i128::from(self.words[word + 1].cast_signed()) << 64) | i128::from(self.words[word])
    }

    /// A count, or a count of distinct values.
    pub(super) fn count(&self, key: u32, op: Op) -> u64 {
        let key = key as usize;
        match op {
            Op::Count { word } => self.words[key * self.sizes.words + word],
            Op::Distinct { side, .. } => self.distincts[side][key].len() as u64,
            Op::Sum { .. } | Op::Extreme { .. } => unreachable!("the planner reads counts off counters only"),
        }
    }

    /// A sum.
    pub(super) fn sum(&self, key: u32, op: Op) -> i128 {
        let Op::Sum { word, .. } = op else { unreachable!("the planner reads sums off sums only") };
        self.sum_at(key as usize * self.sizes.words + word)
    }

    /// A minimum or maximum.
    pub(super) fn extreme(&self, key: u32, op: Op) -> Option<i64> {
        let Op::Extreme { side, sign, .. } = op else {
            unreachable!("the planner reads extremes off extremes only")
        };
        self.extremes[side][key as usize].front().map(|&(_, value)| ordered(value, sign))
    }
}

/// Turns the order around for a minimum: bitwise not, since `-i64::MIN` does not exist.
const fn ordered(value: i64, sign: i64) -> i64 {
    if sign < 0 { !value } else { value }
}
