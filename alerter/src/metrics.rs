//! The alerter's metrics.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// From a console line to a slow network.
const BUCKETS_SECONDS: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0];

/// All of them. Labels: the four severities, and the receivers of the routes file (at most 34).
#[derive(Clone)]
pub(crate) struct Metrics {
    /// Alerts recorded, by severity.
    pub(crate) alerts_recorded: IntCounterVec,
    /// Alerts read again and left out.
    pub(crate) alerts_duplicate: IntCounter,
    /// News of incidents of the system.
    pub(crate) incidents: IntCounter,
    /// Records that could not be decoded.
    pub(crate) dead_letters: IntCounter,
    /// Groups opened.
    pub(crate) groups_opened: IntCounter,
    /// Attempts, by receiver and result.
    pub(crate) deliveries: IntCounterVec,
    /// How long an attempt took, by receiver.
    pub(crate) delivery_seconds: HistogramVec,
    /// Groups waiting, by receiver.
    pub(crate) pending: IntGaugeVec,
    /// Records not read yet.
    pub(crate) lag: IntGauge,
    /// Failures of the log.
    pub(crate) log_errors: IntCounter,
    /// How long recording a batch took.
    pub(crate) record_seconds: Histogram,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let counter = |name, help| IntCounter::new(name, help);
        let this = Self {
            alerts_recorded: IntCounterVec::new(
                Opts::new("paystream_alerter_alerts_recorded_total", "Alerts recorded, by severity."),
                &["severity"],
            )?,
            alerts_duplicate: counter(
                "paystream_alerter_alerts_duplicate_total",
                "Alerts that were read again from the log, or said again by Alertmanager, and left out.",
            )?,
            incidents: counter(
                "paystream_alerter_incidents_total",
                "Alerts of the system itself that Alertmanager said have begun or ended.",
            )?,
            dead_letters: counter(
                "paystream_alerter_dead_letters_total",
                "Records of fraud.alerts that could not be decoded and went to fraud.alerts.dlq.",
            )?,
            groups_opened: counter(
                "paystream_alerter_groups_opened_total",
                "Groups of alerts opened: each is one message per receiver.",
            )?,
            deliveries: IntCounterVec::new(
                Opts::new(
                    "paystream_alerter_deliveries_total",
                    "Delivery attempts by receiver and result: sent, updated, throttled, failed (tried again) \
                     or refused (not tried again before a restart).",
                ),
                &["receiver", "result"],
            )?,
            delivery_seconds: HistogramVec::new(
                HistogramOpts::new(
                    "paystream_alerter_delivery_seconds",
                    "How long a delivery attempt took, by receiver.",
                )
                .buckets(BUCKETS_SECONDS.to_vec()),
                &["receiver"],
            )?,
            pending: IntGaugeVec::new(
                Opts::new(
                    "paystream_alerter_pending_deliveries",
                    "Groups that wait for a receiver to be told of them.",
                ),
                &["receiver"],
            )?,
            lag: IntGauge::new("paystream_alerter_lag_records", "Records of fraud.alerts not yet recorded.")?,
            log_errors: counter(
                "paystream_alerter_log_errors_total",
                "Failed reads of or writes to the event log.",
            )?,
            record_seconds: Histogram::with_opts(
                HistogramOpts::new(
                    "paystream_alerter_record_seconds",
                    "How long recording a batch of alerts durably took.",
                )
                .buckets(BUCKETS_SECONDS.to_vec()),
            )?,
        };
        this.register(registry)?;
        Ok(this)
    }

    fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.alerts_recorded.clone()))?;
        registry.register(Box::new(self.alerts_duplicate.clone()))?;
        registry.register(Box::new(self.incidents.clone()))?;
        registry.register(Box::new(self.dead_letters.clone()))?;
        registry.register(Box::new(self.groups_opened.clone()))?;
        registry.register(Box::new(self.deliveries.clone()))?;
        registry.register(Box::new(self.delivery_seconds.clone()))?;
        registry.register(Box::new(self.pending.clone()))?;
        registry.register(Box::new(self.lag.clone()))?;
        registry.register(Box::new(self.log_errors.clone()))?;
        registry.register(Box::new(self.record_seconds.clone()))
    }
}
