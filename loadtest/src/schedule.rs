//! When requests are meant to be sent, whatever the server does.

use std::time::Duration;

use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::random::{Domain, Rng, stream};

/// How the requests of a run are spread over its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrivals {
    /// At random, independently of each other, as real customers come: bursts and gaps included. A run of
    /// given length still has exactly rate × duration requests (a Poisson process, given its count).
    #[default]
    Poisson,
    /// At equal distances.
    Uniform,
}

/// The intended send times of one run, in order, as offsets from its start.
#[derive(Debug)]
pub(crate) struct Schedule {
    arrivals: Arrivals,
    rate_per_s: f64,
    /// Seconds and number of requests; `None` when the run has no end.
    bounds: Option<(f64, u64)>,
    issued: u64,
    at_s: f64,
    rng: Rng,
}

impl Schedule {
    pub(crate) fn new(arrivals: Arrivals, rate_per_s: f64, duration: Option<Duration>, seed: u64) -> Self {
        let bounds = duration.map(|d| (d.as_secs_f64(), (rate_per_s * d.as_secs_f64()).round() as u64));
        Self { arrivals, rate_per_s, bounds, issued: 0, at_s: 0.0, rng: stream(seed, Domain::Arrivals, 0) }
    }

    pub(crate) fn next(&mut self) -> Option<Duration> {
        if self.bounds.is_some_and(|(_, total)| self.issued >= total) {
            return None;
        }
        let (nth, left) =
            (self.issued as f64, self.bounds.map(|(end_s, n)| (end_s, (n - self.issued) as f64)));
        self.at_s = match (self.arrivals, left) {
            (Arrivals::Uniform, _) => nth / self.rate_per_s,
            // The first of `left` times spread evenly over what remains.
            (Arrivals::Poisson, Some((end_s, left))) => {
                self.at_s + (end_s - self.at_s) * (1.0 - (1.0 - self.rng.random::<f64>()).powf(1.0 / left))
            }
            (Arrivals::Poisson, None) => self.at_s - (1.0 - self.rng.random::<f64>()).ln() / self.rate_per_s,
        };
        self.issued += 1;
        Some(Duration::from_secs_f64(self.at_s))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(arrivals: Arrivals, rate: f64, seconds: u64) -> Vec<f64> {
        let mut schedule = Schedule::new(arrivals, rate, Some(Duration::from_secs(seconds)), 5);
        std::iter::from_fn(|| schedule.next()).map(|at| at.as_secs_f64()).collect()
    }

    #[test]
    fn a_run_has_exactly_rate_times_duration_requests_within_its_time() {
        for arrivals in [Arrivals::Poisson, Arrivals::Uniform] {
            let times = times(arrivals, 3_000.0, 30);
            assert_eq!(times.len(), 90_000);
            assert!(times.is_sorted() && times[89_999] <= 30.0);
        }
    }

    #[test]
    fn poisson_arrivals_come_in_bursts_and_uniform_ones_do_not() {
        // The count in a window of a Poisson process varies as much as its mean; an even one hardly at all.
        let dispersion = |times: &[f64]| {
            let mut counts = [0.0_f64; 1_000];
            for &at in times {
                counts[((at * 100.0) as usize).min(999)] += 1.0;
            }
            let mean = counts.iter().sum::<f64>() / 1_000.0;
            counts.iter().map(|c| (c - mean).powi(2)).sum::<f64>() / 1_000.0 / mean
        };
        assert!((0.8..1.2).contains(&dispersion(&times(Arrivals::Poisson, 1_000.0, 10))));
        assert!(dispersion(&times(Arrivals::Uniform, 1_000.0, 10)) < 0.1);
    }

    #[test]
    fn an_endless_schedule_keeps_its_mean_rate() {
        let mut schedule = Schedule::new(Arrivals::Poisson, 50.0, None, 5);
        let last = (0..10_000).filter_map(|_| schedule.next()).last().expect("it does not end");
        assert!((190.0..210.0).contains(&last.as_secs_f64()), "{last:?}");
    }
}
