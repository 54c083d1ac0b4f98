//! All metrics of the log on Kafka.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Instant;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

const SECONDS: [f64; 14] =
    [0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// What the log counts. It counts from the moment it is opened; a registry may be told of it later.
#[derive(Debug)]
pub(super) struct Metrics {
    /// `paystream_log_append_seconds`: from the call of append to acknowledged by all in-sync replicas.
    pub(super) append_seconds: Histogram,
    /// `paystream_log_transaction_seconds`: a writer's append, from its begin to its commit.
    pub(super) transaction_seconds: Histogram,
    /// `paystream_log_records_total`: records appended.
    pub(super) records: IntCounterVec,
    /// `paystream_log_record_bytes_total`: their bytes, before compression.
    pub(super) record_bytes: IntCounterVec,
    /// `paystream_log_queue_records`: records on their way to the broker.
    pub(super) queue_records: IntGauge,
    /// `paystream_log_refused_total`: appends refused because the queue stayed full.
    pub(super) refused: IntCounter,
    /// `paystream_log_fetched_records_total`: records that came from the broker.
    pub(super) fetched_records: IntCounterVec,
    /// `paystream_log_moves_total`: readers taken to another place in the log.
    pub(super) moves: IntCounterVec,
    /// `paystream_log_poll_age_seconds`: what polls, for the watchdog.
    pub(super) polls: PollAge,
}

impl Metrics {
    pub(super) fn new() -> prometheus::Result<Self> {
        let histogram = |name: &str, help: &str| {
            Histogram::with_opts(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()))
        };
        let counters = |name: &str, help: &str| IntCounterVec::new(Opts::new(name, help), &["topic"]);
        Ok(Self {
            append_seconds: histogram(
                "paystream_log_append_seconds",
                "Time from the call of append until the records were durable.",
            )?,
            transaction_seconds: histogram(
                "paystream_log_transaction_seconds",
                "Time of one transaction of a writer, from its begin to its commit.",
            )?,
            records: counters("paystream_log_records_total", "Records appended.")?,
            record_bytes: counters(
                "paystream_log_record_bytes_total",
                "Bytes of records appended, before compression.",
            )?,
            queue_records: IntGauge::new(
                "paystream_log_queue_records",
                "Records on their way to the broker.",
            )?,
            refused: IntCounter::new(
                "paystream_log_refused_total",
                "Appends refused because the queue stayed full.",
            )?,
            fetched_records: counters(
                "paystream_log_fetched_records_total",
                "Records that came from the broker.",
            )?,
            moves: counters(
                "paystream_log_moves_total",
                "How often a reader was taken to another place in the log.",
            )?,
            polls: PollAge::new()?,
        })
    }

    pub(super) fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.append_seconds.clone()))?;
        registry.register(Box::new(self.transaction_seconds.clone()))?;
        registry.register(Box::new(self.records.clone()))?;
        registry.register(Box::new(self.record_bytes.clone()))?;
        registry.register(Box::new(self.queue_records.clone()))?;
        registry.register(Box::new(self.refused.clone()))?;
        registry.register(Box::new(self.fetched_records.clone()))?;
        registry.register(Box::new(self.moves.clone()))?;
        registry.register(Box::new(self.polls.clone()))
    }
}

/// When a thread last came round to poll.
#[derive(Debug)]
pub(super) struct Pulse {
    born: Instant,
    last_ms: AtomicU64,
}

impl Pulse {
    pub(super) fn beat(&self) {
        let since = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_ms.store(since, Ordering::Relaxed);
    }

    fn age_seconds(&self) -> f64 {
        let last = std::time::Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
        self.born.elapsed().saturating_sub(last).as_secs_f64()
    }
}

/// The longest time since any polling thread last polled, worked out when it is asked for.
#[derive(Debug, Clone)]
pub(super) struct PollAge {
    gauge: Gauge,
    pulses: Arc<Mutex<Vec<Weak<Pulse>>>>,
}

impl PollAge {
    fn new() -> prometheus::Result<Self> {
        let gauge = Gauge::new(
            "paystream_log_poll_age_seconds",
            "Time since the slowest of the threads that read from Kafka last polled.",
        )?;
        Ok(Self { gauge, pulses: Arc::default() })
    }

    /// A new thread to watch, for as long as it holds the result.
    pub(super) fn watch(&self) -> Arc<Pulse> {
        let pulse = Arc::new(Pulse { born: Instant::now(), last_ms: AtomicU64::new(0) });
        self.pulses.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&pulse));
        pulse
    }
}

impl Collector for PollAge {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut pulses = self.pulses.lock().unwrap_or_else(PoisonError::into_inner);
        pulses.retain(|pulse| pulse.strong_count() > 0);
        let ages = pulses.iter().filter_map(Weak::upgrade).map(|pulse| pulse.age_seconds());
        self.gauge.set(ages.fold(0.0, f64::max));
        self.gauge.collect()
    }
}

/// How far groups are behind the end of what they read: `paystream_consumer_lag_records`. Set by those who
/// know their group, as the log does not.
#[derive(Debug, Clone)]
pub struct ConsumerLag(IntGaugeVec);

impl ConsumerLag {
    /// The metric, in a registry.
    ///
    /// # Errors
    /// When the registry already holds it.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let options = Opts::new(
            "paystream_consumer_lag_records",
            "Offsets between what a group has dealt with and the end of the partition.",
        );
        let gauge = IntGaugeVec::new(options, &["group", "topic", "partition"])?;
        registry.register(Box::new(gauge.clone()))?;
        Ok(Self(gauge))
    }

    /// Records how far `group` is behind: from the offset it reads next to the end.
    pub fn set(&self, group: &str, topic: &str, partition: u32, next: u64, end: u64) {
        let lag = i64::try_from(end.saturating_sub(next)).unwrap_or(i64::MAX);
        self.0.with_label_values(&[group, topic, &partition.to_string()]).set(lag);
    }

    /// Forgets a partition that is another process's now, so that it does not count twice.
    pub fn forget(&self, group: &str, topic: &str, partition: u32) {
        // It may never have been set.
        let _ = self.0.remove_label_values(&[group, topic, &partition.to_string()]);
    }
}
