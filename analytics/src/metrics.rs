//! All metrics of the warehouse, its query API and the page.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// Buckets of what takes milliseconds to seconds.
const SECONDS: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// The metrics, registered once per process.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    /// Log records stored, by topic.
    pub(crate) records: IntCounterVec,
    /// Records that could not be decoded and went to the dead-letter topic, by topic.
    pub(crate) dead_letters: IntCounterVec,
    /// Records that retention removed before the warehouse read them, by topic. Must stay 0.
    pub(crate) lost_records: IntCounterVec,
    /// Records that wait in memory for the next flush.
    pub(crate) tail_records: IntGauge,
    /// 1 while reading is paused because the memory's bound is reached.
    pub(crate) ingest_paused: IntGauge,
    /// Time taken by flushes that succeeded.
    pub(crate) flush_seconds: Histogram,
    /// Flushes that failed and will be tried again.
    pub(crate) flush_failures: IntCounter,
    /// Groups of files merged.
    pub(crate) compactions: IntCounter,
    /// Parquet files, by table.
    pub(crate) files: IntGaugeVec,
    /// Bytes in Parquet files, by table.
    pub(crate) file_bytes: IntGaugeVec,
    /// Time taken by queries, by result.
    pub(crate) query_seconds: HistogramVec,
    /// Pages that follow the live stream.
    pub(crate) stream_clients: IntGauge,
    /// Pages dropped because they did not keep up.
    pub(crate) stream_dropped: IntCounter,
}

impl Metrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// When one of the names is taken.
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let m = Self {
            records: counters("records_total", "Log records stored in the warehouse.", "topic")?,
            dead_letters: counters(
                "dead_letters_total",
                "Records that could not be decoded and went to the dead-letter topic.",
                "topic",
            )?,
            lost_records: counters(
                "lost_records_total",
                "Records that retention removed before the warehouse read them: must stay 0.",
                "topic",
            )?,
            tail_records: gauge("tail_records", "Records that wait in memory for the next flush.")?,
            ingest_paused: gauge(
                "ingest_paused",
                "1 while reading waits for a flush to make room in memory.",
            )?,
            flush_seconds: Histogram::with_opts(
                HistogramOpts::new(name("flush_seconds"), "Time to write and commit the newest rows.")
                    .buckets(SECONDS.to_vec()),
            )?,
            flush_failures: counter("flush_failures_total", "Flushes that failed and will be tried again.")?,
            compactions: counter("compactions_total", "Groups of small files merged into one.")?,
            files: gauges("files", "Parquet files of the warehouse.", "table")?,
            file_bytes: gauges("file_bytes", "Bytes in the warehouse's Parquet files.", "table")?,
            query_seconds: HistogramVec::new(
                HistogramOpts::new(
                    name("query_seconds"),
                    "Time taken by queries of analysts and of the page.",
                )
                .buckets(SECONDS.to_vec()),
                &["result"],
            )?,
            stream_clients: gauge("stream_clients", "Pages that follow the live stream.")?,
            stream_dropped: counter("stream_dropped_total", "Pages dropped because they did not keep up.")?,
        };
        m.register(registry)?;
        Ok(m)
    }

    fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        let all: [Box<dyn prometheus::core::Collector>; 13] = [
            Box::new(self.records.clone()),
            Box::new(self.dead_letters.clone()),
            Box::new(self.lost_records.clone()),
            Box::new(self.tail_records.clone()),
            Box::new(self.ingest_paused.clone()),
            Box::new(self.flush_seconds.clone()),
            Box::new(self.flush_failures.clone()),
            Box::new(self.compactions.clone()),
            Box::new(self.files.clone()),
            Box::new(self.file_bytes.clone()),
            Box::new(self.query_seconds.clone()),
            Box::new(self.stream_clients.clone()),
            Box::new(self.stream_dropped.clone()),
        ];
        all.into_iter().try_for_each(|collector| registry.register(collector))
    }
}

fn name(of: &str) -> String {
    format!("paystream_analytics_{of}")
}

fn counter(of: &str, help: &str) -> prometheus::Result<IntCounter> {
    IntCounter::new(name(of), help)
}

fn counters(of: &str, help: &str, label: &str) -> prometheus::Result<IntCounterVec> {
    IntCounterVec::new(Opts::new(name(of), help), &[label])
}

fn gauge(of: &str, help: &str) -> prometheus::Result<IntGauge> {
    IntGauge::new(name(of), help)
}

fn gauges(of: &str, help: &str, label: &str) -> prometheus::Result<IntGaugeVec> {
    IntGaugeVec::new(Opts::new(name(of), help), &[label])
}
