//! Outcomes and decision latency per second, over the last five minutes.

use events::Outcome;
use serde::Serialize;

/// Seconds the page shows.
pub(crate) const WINDOW_S: i64 = 300;
/// Seconds kept: the window, and room for seconds that are not complete.
const RING: usize = WINDOW_S as usize + 20;

/// One second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Point {
    pub(crate) t_s: i64,
    pub(crate) approve: u64,
    pub(crate) review: u64,
    pub(crate) challenge: u64,
    pub(crate) decline: u64,
    pub(crate) p50_ms: Option<f64>,
    pub(crate) p99_ms: Option<f64>,
}

/// The window, one list per line of the chart.
#[derive(Debug, Default, Serialize)]
pub(crate) struct SeriesView {
    t_s: Vec<i64>,
    approve: Vec<u64>,
    review: Vec<u64>,
    challenge: Vec<u64>,
    decline: Vec<u64>,
    p50_ms: Vec<Option<f64>>,
    p99_ms: Vec<Option<f64>>,
}

#[derive(Clone)]
struct Slot {
    t_s: i64,
    outcomes: [u64; Outcome::ALL.len()],
    latency: Histogram,
}

/// A ring of seconds.
pub(crate) struct Series {
    slots: Vec<Slot>,
}

impl Series {
    pub(crate) fn new() -> Self {
        let empty = Slot { t_s: i64::MIN, outcomes: [0; 4], latency: Histogram::default() };
        Self { slots: vec![empty; RING] }
    }

    fn index(t_s: i64) -> usize {
        usize::try_from(t_s.rem_euclid(RING as i64)).expect("a remainder is not negative")
    }

    /// Counts a decision in the second it was made; what is older than the window is left out, and a
    /// clock that runs ahead counts as now.
    pub(crate) fn add(&mut self, now_s: i64, at_s: i64, outcome: Outcome, latency_us: i64) {
        let at_s = at_s.min(now_s);
        if at_s <= now_s - RING as i64 {
            return;
        }
        let slot = &mut self.slots[Self::index(at_s)];
        if slot.t_s != at_s {
            *slot = Slot { t_s: at_s, outcomes: [0; 4], latency: Histogram::default() };
        }
        slot.outcomes[outcome as usize] += 1;
        slot.latency.record(latency_us);
    }

    pub(crate) fn point(&self, t_s: i64) -> Point {
        let slot = &self.slots[Self::index(t_s)];
        if slot.t_s != t_s {
            return Point {
                t_s,
                approve: 0,
                review: 0,
                challenge: 0,
                decline: 0,
                p50_ms: None,
                p99_ms: None,
            };
        }
        let [approve, review, challenge, decline] = slot.outcomes;
        Point {
            t_s,
            approve,
            review,
            challenge,
            decline,
            p50_ms: slot.latency.quantile_ms(0.5),
            p99_ms: slot.latency.quantile_ms(0.99),
        }
    }

    /// The window that ends with the second `last_s`.
    pub(crate) fn view(&self, last_s: i64) -> SeriesView {
        let mut view = SeriesView::default();
        for t_s in last_s - WINDOW_S + 1..=last_s {
            let point = self.point(t_s);
            view.t_s.push(point.t_s);
            view.approve.push(point.approve);
            view.review.push(point.review);
            view.challenge.push(point.challenge);
            view.decline.push(point.decline);
            view.p50_ms.push(point.p50_ms);
            view.p99_ms.push(point.p99_ms);
        }
        view
    }
}

/// Buckets per doubling: a quantile is off by at most one sixteenth.
const SUB_BUCKETS: u64 = 8;
/// Up to 2^26 µs, which is more than a minute.
const BUCKETS: usize = 200;

/// Latencies in logarithmic buckets.
#[derive(Clone)]
struct Histogram {
    counts: Box<[u32; BUCKETS]>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: Box::new([0; BUCKETS]), total: 0 }
    }
}

impl Histogram {
    fn record(&mut self, latency_us: i64) {
        let us = u64::try_from(latency_us).unwrap_or(0);
        self.counts[bucket(us)] = self.counts[bucket(us)].saturating_add(1);
        self.total += 1;
    }

    /// The latency that a share `q` of all does not exceed, to the bucket.
    fn quantile_ms(&self, q: f64) -> Option<f64> {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let rank = ((self.total as f64 * q).ceil() as u64).max(1);
        let mut seen = 0;
        let at = self.counts.iter().position(|&count| {
            seen += u64::from(count);
            seen >= rank
        })?;
        #[allow(clippy::cast_precision_loss)] // far below 2^53
        let ms = middle_us(at) as f64 / 1_000.0;
        Some((ms * 1_000.0).round() / 1_000.0)
    }
}

const fn bucket(us: u64) -> usize {
    if us < SUB_BUCKETS {
        return us as usize;
    }
    let shift = us.ilog2() - SUB_BUCKETS.ilog2();
    let sub = (us >> shift) - SUB_BUCKETS;
    let at = (shift as usize + 1) * SUB_BUCKETS as usize + sub as usize;
    if at < BUCKETS { at } else { BUCKETS - 1 }
}

const fn middle_us(bucket: usize) -> u64 {
    let at = bucket as u64;
    if at < SUB_BUCKETS {
        return at;
    }
    let shift = at / SUB_BUCKETS - 1;
    ((SUB_BUCKETS + at % SUB_BUCKETS) << shift) + ((1 << shift) >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_within_a_sixteenth_of_the_exact_one() {
        let mut histogram = Histogram::default();
        let mut exact: Vec<i64> = (1..=5_000_i64).map(|i| i * i % 90_001 + 40).collect();
        exact.iter().for_each(|&us| histogram.record(us));
        exact.sort_unstable();
        for (q, rank) in [(0.5, 2_500), (0.99, 4_950)] {
            let (found, expected) = (histogram.quantile_ms(q).unwrap(), exact[rank - 1] as f64 / 1_000.0);
            assert!((found - expected).abs() <= expected / 16.0, "q {q}: {found} for {expected}");
        }
    }

    #[test]
    fn every_latency_has_a_bucket_near_it() {
        for us in (0..200_000).step_by(7).chain([u64::MAX, 1 << 40]) {
            let middle = middle_us(bucket(us));
            assert!(
                us > 60_000_000 || middle.abs_diff(us) <= us / 16 + 1,
                "{us} µs in a bucket around {middle}"
            );
        }
    }

    #[test]
    fn a_second_is_forgotten_when_the_ring_comes_round_to_it() {
        let mut series = Series::new();
        series.add(1_000, 1_000, Outcome::Decline, 2_000);
        assert_eq!(series.point(1_000).decline, 1);
        let round = 1_000 + RING as i64;
        assert_eq!(series.point(round).decline, 0, "the same slot, another second");
        series.add(round, round, Outcome::Approve, 1);
        assert_eq!((series.point(round).approve, series.point(round).decline), (1, 0));
        series.add(round, 1_000, Outcome::Decline, 1);
        assert_eq!(series.point(round).decline, 0, "too old to count");
    }

    #[test]
    fn the_window_has_a_point_for_every_second_also_without_traffic() {
        let mut series = Series::new();
        series.add(1_000, 998, Outcome::Review, 1_500);
        series.add(1_000, 2_000, Outcome::Approve, 1_500);
        let view = series.view(1_000);
        assert_eq!(view.t_s.len(), 300);
        assert_eq!((view.t_s[0], view.t_s[299]), (701, 1_000));
        assert_eq!((view.review[297], view.p50_ms[296]), (1, None));
        assert!(view.p99_ms[297].is_some());
        assert_eq!(view.approve[299], 1, "a clock that is ahead counts as now");
    }
}
