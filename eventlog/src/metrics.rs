//! All metrics of the embedded log.

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

const SECONDS: [f64; 14] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

/// What the log counts. It counts from the moment it is opened; a registry may be told of it later.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// `paystream_log_append_seconds`: from the call of append to durable.
    pub(crate) append_seconds: Histogram,
    /// `paystream_log_fsync_seconds`: writing and syncing one group of appends.
    pub(crate) fsync_seconds: Histogram,
    /// `paystream_log_records_total`: records appended.
    pub(crate) records: IntCounterVec,
    /// `paystream_log_record_bytes_total`: their bytes, before compression.
    pub(crate) record_bytes: IntCounterVec,
    /// `paystream_log_queue_records`: records that wait for the disk.
    pub(crate) queue_records: IntGauge,
    /// `paystream_log_refused_total`: appends refused because the queue stayed full.
    pub(crate) refused: IntCounter,
    /// `paystream_log_removed_records_total`: records that retention removed.
    pub(crate) removed_records: IntCounterVec,
    /// `paystream_log_kept_bytes`: bytes a topic keeps, before compression.
    pub(crate) kept_bytes: IntGaugeVec,
    /// `paystream_log_start_offset`: the oldest offset kept.
    pub(crate) start_offset: IntGaugeVec,
    /// `paystream_log_end_offset`: the offset the next record will get.
    pub(crate) end_offset: IntGaugeVec,
    /// `paystream_log_poisoned`: 1 after a failed write, until the restart.
    pub(crate) poisoned: IntGauge,
}

impl Metrics {
    pub(crate) fn new() -> prometheus::Result<Self> {
        let histogram = |name: &str, help: &str| {
            Histogram::with_opts(HistogramOpts::new(name, help).buckets(SECONDS.to_vec()))
        };
        let counters = |name: &str, help: &str| IntCounterVec::new(Opts::new(name, help), &["topic"]);
        let offsets =
            |name: &str, help: &str| IntGaugeVec::new(Opts::new(name, help), &["topic", "partition"]);
        Ok(Self {
            append_seconds: histogram(
                "paystream_log_append_seconds",
                "Time from the call of append until the records were durable.",
            )?,
            fsync_seconds: histogram(
                "paystream_log_fsync_seconds",
                "Time to write and sync one group of appends.",
            )?,
            records: counters("paystream_log_records_total", "Records appended.")?,
            record_bytes: counters(
                "paystream_log_record_bytes_total",
                "Bytes of records appended, before compression.",
            )?,
            queue_records: IntGauge::new("paystream_log_queue_records", "Records that wait for the disk.")?,
            refused: IntCounter::new(
                "paystream_log_refused_total",
                "Appends refused because the queue stayed full.",
            )?,
            removed_records: counters(
                "paystream_log_removed_records_total",
                "Records that retention removed.",
            )?,
            kept_bytes: IntGaugeVec::new(
                Opts::new("paystream_log_kept_bytes", "Bytes the topic keeps, before compression."),
                &["topic"],
            )?,
            start_offset: offsets("paystream_log_start_offset", "The oldest offset kept.")?,
            end_offset: offsets("paystream_log_end_offset", "The offset the next record will get.")?,
            poisoned: IntGauge::new(
                "paystream_log_poisoned",
                "1 after a failed write: appends are refused until the restart.",
            )?,
        })
    }

    pub(crate) fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.append_seconds.clone()))?;
        registry.register(Box::new(self.fsync_seconds.clone()))?;
        registry.register(Box::new(self.records.clone()))?;
        registry.register(Box::new(self.record_bytes.clone()))?;
        registry.register(Box::new(self.queue_records.clone()))?;
        registry.register(Box::new(self.refused.clone()))?;
        registry.register(Box::new(self.removed_records.clone()))?;
        registry.register(Box::new(self.kept_bytes.clone()))?;
        registry.register(Box::new(self.start_offset.clone()))?;
        registry.register(Box::new(self.end_offset.clone()))?;
        registry.register(Box::new(self.poisoned.clone()))
    }
}
