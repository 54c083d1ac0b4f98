//! What occurs most over the last five minutes, in steps of ten seconds.

use std::collections::BTreeMap;
use std::hash::Hash;

use rustc_hash::FxHashMap;

use super::series::WINDOW_S;

const STEP_S: i64 = 10;
/// Keys counted per step. A merchant beyond them in ten seconds is not among the top ten anyway, unless
/// all are equal.
const MAX_KEYS: usize = 2_000;

/// Counters per key over a sliding window; keys are ranked by the first counter.
pub(crate) struct Top<K, const N: usize> {
    steps: BTreeMap<i64, FxHashMap<K, [i64; N]>>,
    totals: FxHashMap<K, [i64; N]>,
}

impl<K: Clone + Ord + Hash, const N: usize> Top<K, N> {
    pub(crate) fn new() -> Self {
        Self { steps: BTreeMap::new(), totals: FxHashMap::default() }
    }

    pub(crate) fn add(&mut self, now_s: i64, at_s: i64, key: &K, counts: [i64; N]) {
        let at_s = at_s.min(now_s);
        if at_s <= now_s - WINDOW_S {
            return;
        }
        let step = self.steps.entry(at_s.div_euclid(STEP_S)).or_default();
        if !step.contains_key(key) && step.len() >= MAX_KEYS {
            return;
        }
        for map in [step, &mut self.totals] {
            let sums = map.entry(key.clone()).or_insert([0; N]);
            for (sum, count) in sums.iter_mut().zip(counts) {
                *sum = sum.saturating_add(count);
            }
        }
    }

    /// Takes out what is older than the window.
    pub(crate) fn expire(&mut self, now_s: i64) {
        let first_kept = (now_s - WINDOW_S).div_euclid(STEP_S) + 1;
        let kept = self.steps.split_off(&first_kept);
        for (key, counts) in std::mem::replace(&mut self.steps, kept).into_values().flatten() {
            if let Some(sums) = self.totals.get_mut(&key) {
                for (sum, count) in sums.iter_mut().zip(counts) {
                    *sum = sum.saturating_sub(count);
                }
                if sums[0] <= 0 {
                    self.totals.remove(&key);
                }
            }
        }
    }

    /// The first `n`, most first; equal ones in the order of their keys.
    pub(crate) fn most(&self, n: usize) -> Vec<(K, [i64; N])> {
        let mut all: Vec<(&K, &[i64; N])> = self.totals.iter().collect();
        let order = |a: &(&K, &[i64; N]), b: &(&K, &[i64; N])| b.1[0].cmp(&a.1[0]).then_with(|| a.0.cmp(b.0));
        if all.len() > n {
            all.select_nth_unstable_by(n, order);
            all.truncate(n);
        }
        all.sort_unstable_by(order);
        all.into_iter().map(|(key, counts)| (key.clone(), *counts)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_come_first_and_leave_with_the_window() {
        let mut top: Top<String, 1> = Top::new();
        for (key, times) in [("a", 2), ("b", 5), ("c", 2)] {
            (0..times).for_each(|_| top.add(1_000, 1_000, &key.to_owned(), [1]));
        }
        top.add(1_000, 600, &"old".to_owned(), [9]);
        let names = |top: &Top<String, 1>, n| top.most(n).into_iter().map(|(k, _)| k).collect::<Vec<_>>();
        assert_eq!(names(&top, 10), ["b", "a", "c"]);
        assert_eq!(names(&top, 2), ["b", "a"]);
        top.add(1_200, 1_200, &"c".to_owned(), [1]);
        top.expire(1_200);
        assert_eq!(names(&top, 10), ["b", "c", "a"]);
        top.expire(1_310);
        assert_eq!(top.most(10), [("c".to_owned(), [1])]);
        top.expire(1_600);
        assert_eq!(top.most(10), []);
    }

    #[test]
    fn a_flood_of_keys_does_not_grow_the_memory_without_end() {
        let mut top: Top<u32, 1> = Top::new();
        (0..10_000).for_each(|key| top.add(1_000, 1_000, &key, [1]));
        assert_eq!(top.totals.len(), MAX_KEYS);
    }
}
