//! Everything the analyzer counts.

use eventlog::ConsumerLag;
use prometheus::{
    CounterVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// The analyzer's metrics.
#[derive(Debug, Clone)]
pub struct Metrics {
    /// Transactions decided, by outcome.
    pub decisions: IntCounterVec,
    /// Alerts raised, by severity.
    pub alerts: IntCounterVec,
    /// Live and shadow rules that matched, by rule id (bounded by the ruleset).
    pub rule_hits: IntCounterVec,
    /// Batches a rule was evaluated on, and those it was skipped on as no row could match, by rule id.
    pub rule_batches: IntCounterVec,
    /// Time spent on a rule, by rule id: an estimate from a part of the batches.
    pub rule_seconds: CounterVec,
    /// Records that could not be decoded and went to the dead-letter topic.
    pub dead_letters: IntCounter,
    /// Labels taken in.
    pub labels: IntCounter,
    /// Changes to lists taken in, those of a start from the log's beginning included.
    pub list_changes: IntCounter,
    /// Changes to lists that the ruleset does not declare, or not of their values' kind.
    pub list_changes_without_effect: IntCounter,
    /// Entries held, by list (bounded by the ruleset); expired ones until their memory is needed.
    pub list_entries: IntGaugeVec,
    /// Time to score one batch, without I/O.
    pub score_seconds: Histogram,
    /// Transactions per batch.
    pub batch_transactions: Histogram,
    /// Transactions without a durable decision, by lane.
    pub lag_transactions: IntGaugeVec,
    /// Events in the segments that some window still needs, by lane.
    pub window_events: IntGaugeVec,
    /// How far the group is behind the end of each partition.
    pub consumer_lag: ConsumerLag,
    /// How many lanes this process has.
    pub lanes_owned: IntGauge,
    /// Lanes that failed and were recovered again.
    pub lane_failures: IntCounter,
    /// How many features are not exact, as their windows' events are spread over lanes.
    pub inexact_windows: IntGauge,
    /// Since when the newest checkpoint is durable, by lane.
    pub checkpoint_age_seconds: IntGaugeVec,
    /// Time to write one checkpoint, beside the hot path.
    pub checkpoint_seconds: Histogram,
    /// Bytes written for the newest checkpoint: what changed since the one before.
    pub checkpoint_bytes: IntGauge,
    /// Checkpoints that could not be written; the older one stays in force.
    pub checkpoint_failures: IntCounter,
    /// Decisions that recovery made again and found to differ from the logged ones: must stay 0.
    pub replay_mismatches: IntCounter,
    /// Rulesets that could not be loaded or warmed up; the one in force stayed.
    pub reload_failures: IntCounter,
    /// Whether the last reload of the ruleset succeeded.
    pub last_reload_successful: IntGauge,
    /// When a reload last succeeded: seconds since the Unix epoch; 0 before the first.
    pub last_reload_success_seconds: IntGauge,
    /// Whether a ruleset with other windows is being warmed up.
    pub warm_up: IntGauge,
    /// Decided transactions that a ruleset being warmed up has yet to take in.
    pub warm_up_lag_transactions: IntGauge,
    /// Whether a rule does not fire yet, as its windows are not complete, by rule id.
    pub rule_warming: IntGaugeVec,
}

impl Metrics {
    /// Creates and registers the metrics.
    ///
    /// # Errors
    /// When one of the names is taken.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str| {
            let metric = IntCounter::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            prometheus::Result::Ok(metric)
        };
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(metric.clone()))?;
            prometheus::Result::Ok(metric)
        };
        let times = |name: &str, help: &str, label: &str| {
            let metric = CounterVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(metric.clone()))?;
            prometheus::Result::Ok(metric)
        };
        let gauge = |name: &str, help: &str| {
            let metric = IntGauge::new(name, help)?;
            registry.register(Box::new(metric.clone()))?;
            prometheus::Result::Ok(metric)
        };
        let gauges = |name: &str, help: &str, label: &str| {
            let metric = IntGaugeVec::new(Opts::new(name, help), &[label])?;
            registry.register(Box::new(metric.clone()))?;
            prometheus::Result::Ok(metric)
        };
        let histogram = |name: &str, help: &str, buckets: Vec<f64>| {
            let metric = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
            registry.register(Box::new(metric.clone()))?;
            prometheus::Result::Ok(metric)
        };
        let fast = vec![0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1];
        let slow = vec![0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];
        let sizes = vec![1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0];
        Ok(Self {
            decisions: counters("paystream_analyzer_decisions_total", "Transactions decided.", &["outcome"])?,
            alerts: counters("paystream_analyzer_alerts_total", "Alerts raised.", &["severity"])?,
            rule_hits: counters("paystream_analyzer_rule_hits_total", "Rules that matched.", &["rule"])?,
            rule_batches: counters(
                "paystream_analyzer_rule_batches_total",
                "Batches a rule was evaluated on, and those it was skipped on as no row could match.",
                &["rule", "result"],
            )?,
            rule_seconds: times(
                "paystream_analyzer_rule_seconds_total",
                "Time spent on a rule, estimated from one batch in 32.",
                "rule",
            )?,
            dead_letters: counter(
                "paystream_analyzer_dead_letters_total",
                "Records that could not be decoded and went to the dead-letter topic.",
            )?,
            labels: counter("paystream_analyzer_labels_total", "Labels taken in.")?,
            list_changes: counter("paystream_analyzer_list_changes_total", "Changes to lists taken in.")?,
            list_changes_without_effect: counter(
                "paystream_analyzer_list_changes_without_effect_total",
                "Changes to lists that the ruleset does not declare, or not of their values' kind.",
            )?,
            list_entries: gauges("paystream_analyzer_list_entries", "Entries held, by list.", "list")?,
            score_seconds: histogram(
                "paystream_analyzer_score_seconds",
                "Time to score one batch, without I/O.",
                fast,
            )?,
            batch_transactions: histogram(
                "paystream_analyzer_batch_transactions",
                "Transactions per batch.",
                sizes,
            )?,
            lag_transactions: gauges(
                "paystream_analyzer_lag_transactions",
                "Accepted transactions without a durable decision.",
                "lane",
            )?,
            window_events: gauges(
                "paystream_analyzer_window_events",
                "Events in the segments that some window still needs.",
                "lane",
            )?,
            consumer_lag: ConsumerLag::register(registry)?,
            lanes_owned: gauge("paystream_lanes_owned", "Lanes this process decides in.")?,
            lane_failures: counter(
                "paystream_analyzer_lane_failures_total",
                "Lanes that failed and were recovered again.",
            )?,
            inexact_windows: gauge(
                "paystream_analyzer_inexact_windows",
                "Features that are not exact, as their windows' events are spread over lanes.",
            )?,
            checkpoint_age_seconds: gauges(
                "paystream_checkpoint_age_seconds",
                "Time since the newest checkpoint became durable.",
                "lane",
            )?,
            checkpoint_seconds: histogram(
                "paystream_analyzer_checkpoint_seconds",
                "Time to write one checkpoint.",
                slow,
            )?,
            checkpoint_bytes: gauge(
                "paystream_analyzer_checkpoint_bytes",
                "Bytes written for the newest checkpoint.",
            )?,
            checkpoint_failures: counter(
                "paystream_analyzer_checkpoint_failures_total",
                "Checkpoints that could not be written.",
            )?,
            replay_mismatches: counter(
                "paystream_analyzer_replay_mismatches_total",
                "Decisions made again on recovery that differ from the logged ones.",
            )?,
            reload_failures: counter(
                "paystream_analyzer_ruleset_reload_failures_total",
                "Rulesets that could not be loaded or warmed up.",
            )?,
            last_reload_successful: gauge(
                "paystream_analyzer_ruleset_last_reload_successful",
                "Whether the last reload of the ruleset succeeded.",
            )?,
            last_reload_success_seconds: gauge(
                "paystream_analyzer_ruleset_last_reload_success_timestamp_seconds",
                "When a reload of the ruleset last succeeded.",
            )?,
            warm_up: gauge(
                "paystream_analyzer_warm_up",
                "Whether a ruleset with other windows is being warmed up.",
            )?,
            warm_up_lag_transactions: gauge(
                "paystream_analyzer_warm_up_lag_transactions",
                "Decided transactions that a ruleset being warmed up has yet to take in.",
            )?,
            rule_warming: gauges(
                "paystream_analyzer_rule_warming",
                "Whether a rule does not fire yet, as its windows are not complete.",
                "rule",
            )?,
        })
    }
}
