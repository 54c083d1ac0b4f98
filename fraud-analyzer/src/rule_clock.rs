//! What each rule costs, for the metrics: the engine has no clock.

use std::time::{Duration, Instant};

use prometheus::{Counter, IntCounter};
use scoring::{Probe, RuleRun, Ruleset, Stage};

use crate::metrics::Metrics;

/// Of so many batches, one is timed and counts for all of them. A look at the clock for each rule takes
/// about as long as passing over it, so timing every batch would show in the latency of small ones.
const BATCHES_PER_TIMED: u32 = 32;

/// Counts how often each rule is evaluated and skipped, and times some of it.
#[derive(Debug)]
pub(crate) struct RuleClock {
    /// By the rules' places in the ruleset.
    rules: Vec<RuleCounters>,
    /// Until a batch is timed again.
    batches_left: u32,
    /// When what went before the next rule ended, in a batch that is timed.
    last: Option<Instant>,
}

#[derive(Debug)]
struct RuleCounters {
    evaluated: IntCounter,
    skipped: IntCounter,
    seconds: Counter,
}

impl RuleClock {
    pub(crate) fn new(metrics: &Metrics, ruleset: &Ruleset) -> Self {
        let rules = ruleset.rule_ids().into_iter().map(|id| RuleCounters {
            evaluated: metrics.rule_batches.with_label_values(&[id.as_str(), "evaluated"]),
            skipped: metrics.rule_batches.with_label_values(&[id.as_str(), "skipped"]),
            seconds: metrics.rule_seconds.with_label_values(&[id.as_str()]),
        });
        Self { rules: rules.collect(), batches_left: 0, last: None }
    }

    /// To be called before each batch.
    pub(crate) fn begin(&mut self) {
        self.last = (self.batches_left == 0).then(Instant::now);
        self.batches_left = self.batches_left.checked_sub(1).unwrap_or(BATCHES_PER_TIMED - 1);
    }

    /// How long it is since the last call, in a batch that is timed.
    fn lap(&mut self) -> Option<Duration> {
        let last = self.last.as_mut()?;
        let now = Instant::now();
        Some(now - std::mem::replace(last, now))
    }
}

impl Probe for RuleClock {
    fn ended(&mut self, _: Stage) {
        self.lap();
    }

    fn rule(&mut self, index: usize, run: RuleRun) {
        let lap = self.lap();
        let rule = &self.rules[index];
        match run {
            RuleRun::Evaluated => rule.evaluated.inc(),
            RuleRun::Skipped => rule.skipped.inc(),
        }
        if let Some(lap) = lap {
            rule.seconds.inc_by(lap.as_secs_f64() * f64::from(BATCHES_PER_TIMED));
        }
    }
}

#[cfg(test)]
mod tests {
    use scoring::RulesetSource;

    use super::*;

    #[test]
    fn every_batch_is_counted_and_one_of_many_is_timed() {
        let ruleset = Ruleset::load(&RulesetSource::built_in()).unwrap();
        let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
        let mut clock = RuleClock::new(&metrics, &ruleset);
        let ids = ruleset.rule_ids();
        let seconds = |rule: usize| metrics.rule_seconds.with_label_values(&[ids[rule].as_str()]).get();
        let mut timed = Vec::new();
        for batch in 0..2 * BATCHES_PER_TIMED {
            let before = seconds(1);
            clock.begin();
            clock.ended(Stage::Expressions);
            clock.rule(0, RuleRun::Skipped);
            clock.rule(1, RuleRun::Evaluated);
            if seconds(1) > before {
                timed.push(batch);
            }
        }
        assert_eq!(timed, [0, BATCHES_PER_TIMED]);
        let batches = |rule: usize, result: &str| {
            metrics.rule_batches.with_label_values(&[ids[rule].as_str(), result]).get()
        };
        let all = u64::from(2 * BATCHES_PER_TIMED);
        assert_eq!([batches(0, "skipped"), batches(0, "evaluated")], [all, 0]);
        assert_eq!([batches(1, "skipped"), batches(1, "evaluated")], [0, all]);
    }
}
