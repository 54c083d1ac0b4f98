//! All metrics of the warehouse on ClickHouse.

use eventlog::ConsumerLag;
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

/// Buckets of what takes milliseconds to a minute.
const SECONDS: [f64; 13] = [0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// The metrics, registered once per process.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    /// Rows that were read from the log and that ClickHouse has not confirmed.
    pub(crate) unsent_rows: IntGauge,
    /// Their bytes, in memory and on disk.
    pub(crate) unsent_bytes: IntGauge,
    /// 1 while reading from the log is paused because the spool is full.
    pub(crate) paused: IntGauge,
    /// 1 while this process fills the warehouse, 0 while it stands by.
    pub(crate) active: IntGauge,
    /// Inserts that failed and are sent again.
    pub(crate) insert_failures: IntCounter,
    /// When ClickHouse last confirmed a batch.
    pub(crate) last_insert: Gauge,
    /// Time of one insert that succeeded, from the first byte to the answer, by table.
    pub(crate) insert_seconds: HistogramVec,
    /// Rows confirmed, by table.
    pub(crate) rows: IntCounterVec,
    /// Batches confirmed, by topic.
    pub(crate) batches: IntCounterVec,
    /// Batches that ClickHouse will never take as they are, and that are kept on disk.
    pub(crate) refused: IntGauge,
    /// Records of a partition that are not confirmed yet.
    pub(crate) lag: ConsumerLag,
    /// Records that could not be decoded and went to the dead-letter topic, by topic.
    pub(crate) dead_letters: IntCounterVec,
    /// Records that retention removed before they were read, by topic. Must stay 0.
    pub(crate) lost_records: IntCounterVec,
    /// Time to decode the records of one batch and build its rows.
    pub(crate) form_seconds: Histogram,
    /// Of the last comparison with the log: what the warehouse lacks.
    pub(crate) reconcile_missing: IntGauge,
    /// Of the last comparison with the log: what the warehouse has more than once.
    pub(crate) reconcile_duplicated: IntGauge,
    /// When the log and the warehouse last agreed.
    pub(crate) reconcile_last_success: Gauge,
}

impl Metrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// When one of the names is taken.
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let m = Self {
            unsent_rows: gauge(
                "paystream_warehouse_unsent_rows",
                "Rows read from the log that ClickHouse has not confirmed.",
            )?,
            unsent_bytes: gauge(
                "paystream_warehouse_unsent_bytes",
                "Bytes of these rows, in memory and on disk.",
            )?,
            paused: gauge(
                "paystream_warehouse_paused",
                "1 while reading from the log waits because clickhouse.spool_max_bytes is reached.",
            )?,
            active: gauge(
                "paystream_warehouse_active",
                "1 while this process fills ClickHouse, 0 while it stands by.",
            )?,
            insert_failures: IntCounter::new(
                "paystream_warehouse_insert_failures_total",
                "Inserts into ClickHouse that failed; they are sent again.",
            )?,
            last_insert: Gauge::new(
                "paystream_warehouse_last_insert_timestamp_seconds",
                "When ClickHouse last confirmed a batch.",
            )?,
            insert_seconds: HistogramVec::new(
                HistogramOpts::new(
                    "paystream_warehouse_insert_seconds",
                    "Time of one insert that succeeded, from the first byte to the answer.",
                )
                .buckets(SECONDS.to_vec()),
                &["table"],
            )?,
            rows: counters("paystream_warehouse_rows_total", "Rows that ClickHouse confirmed.", "table")?,
            batches: counters(
                "paystream_warehouse_batches_total",
                "Batches that ClickHouse confirmed.",
                "topic",
            )?,
            refused: gauge(
                "paystream_warehouse_refused_batches",
                "Batches that ClickHouse refuses for their content; they are kept on disk.",
            )?,
            lag: ConsumerLag::register(registry)?,
            dead_letters: counters(
                "paystream_warehouse_dead_letters_total",
                "Records that could not be decoded and went to the dead-letter topic.",
                "topic",
            )?,
            lost_records: counters(
                "paystream_warehouse_lost_records_total",
                "Records that retention removed before the warehouse read them: must stay 0.",
                "topic",
            )?,
            form_seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "paystream_warehouse_form_seconds",
                    "Time to decode the records of one batch and to build its rows.",
                )
                .buckets(SECONDS.to_vec()),
            )?,
            reconcile_missing: gauge(
                "paystream_reconcile_missing",
                "Records of the log that the warehouse lacked at the last comparison.",
            )?,
            reconcile_duplicated: gauge(
                "paystream_reconcile_duplicated",
                "Rows that the warehouse had more than once at the last comparison.",
            )?,
            reconcile_last_success: Gauge::new(
                "paystream_reconcile_last_success_timestamp_seconds",
                "When the log and the warehouse were last found to agree.",
            )?,
        };
        m.register(registry)?;
        Ok(m)
    }

    fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        let all: [Box<dyn prometheus::core::Collector>; 16] = [
            Box::new(self.unsent_rows.clone()),
            Box::new(self.unsent_bytes.clone()),
            Box::new(self.paused.clone()),
            Box::new(self.active.clone()),
            Box::new(self.insert_failures.clone()),
            Box::new(self.last_insert.clone()),
            Box::new(self.insert_seconds.clone()),
            Box::new(self.rows.clone()),
            Box::new(self.batches.clone()),
            Box::new(self.refused.clone()),
            Box::new(self.dead_letters.clone()),
            Box::new(self.lost_records.clone()),
            Box::new(self.form_seconds.clone()),
            Box::new(self.reconcile_missing.clone()),
            Box::new(self.reconcile_duplicated.clone()),
            Box::new(self.reconcile_last_success.clone()),
        ];
        all.into_iter().try_for_each(|collector| registry.register(collector))
    }
}

fn gauge(of: &str, help: &str) -> prometheus::Result<IntGauge> {
    IntGauge::new(of, help)
}

fn counters(of: &str, help: &str, label: &str) -> prometheus::Result<IntCounterVec> {
    IntCounterVec::new(Opts::new(of, help), &[label])
}
