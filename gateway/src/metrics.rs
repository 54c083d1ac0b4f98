//! Every metric of the gateway. A label is a route template, a method, a status class, a problem kind or a
//! declared list: bounded sets, never anything a caller chose.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

/// Around the goal: a decision within 50 ms.
const SECONDS_BUCKETS: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0];

/// Around one round trip, and around the timeout.
const REDIS_SECONDS_BUCKETS: [f64; 10] = [0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 1.0];

#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    pub(crate) requests: IntCounterVec,
    pub(crate) request_seconds: HistogramVec,
    pub(crate) accepted: IntCounter,
    pub(crate) decision_seconds: Histogram,
    pub(crate) degraded: IntCounter,
    pub(crate) replayed: IntCounter,
    pub(crate) rejected: IntCounterVec,
    pub(crate) labelled: IntCounter,
    pub(crate) list_changes: IntCounterVec,
    pub(crate) in_flight: IntGauge,
    pub(crate) ledger_write_seconds: Histogram,
    pub(crate) ledger_recovered: IntCounter,
    pub(crate) ledger_followed: IntCounter,
    pub(crate) ledger_purged: IntCounter,
    pub(crate) undecodable: IntCounterVec,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let name = |suffix: &str| format!("paystream_gateway_{suffix}");
        let counter = |suffix: &str, help: &str| {
            let counter = IntCounter::new(name(suffix), help)?;
            registry.register(Box::new(counter.clone()))?;
            prometheus::Result::Ok(counter)
        };
        let counters = |suffix: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name(suffix), help), labels)?;
            registry.register(Box::new(counters.clone()))?;
            prometheus::Result::Ok(counters)
        };
        let histogram = |suffix: &str, help: &str| {
            let options = HistogramOpts::new(name(suffix), help).buckets(SECONDS_BUCKETS.to_vec());
            let histogram = Histogram::with_opts(options)?;
            registry.register(Box::new(histogram.clone()))?;
            prometheus::Result::Ok(histogram)
        };
        let request_seconds = HistogramVec::new(
            HistogramOpts::new(name("request_seconds"), "Time from a request's head to its answer.")
                .buckets(SECONDS_BUCKETS.to_vec()),
            &["route"],
        )?;
        registry.register(Box::new(request_seconds.clone()))?;
        let in_flight = IntGauge::new(name("in_flight_requests"), "Requests being served now.")?;
        registry.register(Box::new(in_flight.clone()))?;
        Ok(Self {
            requests: counters(
                "requests_total",
                "Requests answered, by matched route, method and class of status.",
                &["route", "method", "status_class"],
            )?,
            request_seconds,
            accepted: counter("accepted_total", "Transactions that are durable in the log.")?,
            decision_seconds: histogram(
                "decision_seconds",
                "Time from a request's head to its decision, for requests that waited for one.",
            )?,
            degraded: counter(
                "degraded_total",
                "Answers with the merchant's fail mode, because the decision was late.",
            )?,
            replayed: counter("replayed_total", "Retries answered from the ledger.")?,
            rejected: counters(
                "rejected_total",
                "Requests and batch lines that were refused, by the kind of problem.",
                &["reason"],
            )?,
            labelled: counter("labelled_total", "Labels that merchants gave.")?,
            list_changes: counters(
                "list_changes_total",
                "Entries put on lists or taken off them, durably, by list and action.",
                &["list", "action"],
            )?,
            in_flight,
            ledger_write_seconds: histogram("ledger_write_seconds", "Time of one write to the ledger.")?,
            ledger_recovered: counter(
                "ledger_recovered_total",
                "Logged transactions the ledger lacked after a crash and took from the log.",
            )?,
            ledger_followed: counter(
                "ledger_followed_total",
                "Transactions of other replicas that the ledger took from the log.",
            )?,
            ledger_purged: counter("ledger_purged_total", "Transactions older than the retention.")?,
            undecodable: counters(
                "undecodable_total",
                "Records the gateway read from the log and could not decode, by topic.",
                &["topic"],
            )?,
        })
    }
}

/// Every metric of the gateway's Redis.
#[derive(Debug, Clone)]
pub(crate) struct RedisMetrics {
    pub(crate) up: IntGauge,
    pub(crate) errors: IntCounterVec,
    pub(crate) seconds: HistogramVec,
    pub(crate) dropped: IntCounter,
    pub(crate) restored: IntCounter,
}

impl RedisMetrics {
    pub(crate) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let up = IntGauge::new("paystream_redis_up", "1 while Redis is used, 0 while it is away.")?;
        registry.register(Box::new(up.clone()))?;
        let errors = IntCounterVec::new(
            Opts::new("paystream_redis_errors_total", "What Redis failed at: connect, timeout or reply."),
            &["kind"],
        )?;
        registry.register(Box::new(errors.clone()))?;
        let seconds = HistogramVec::new(
            HistogramOpts::new("paystream_redis_seconds", "Time of one exchange with Redis, by operation.")
                .buckets(REDIS_SECONDS_BUCKETS.to_vec()),
            &["operation"],
        )?;
        registry.register(Box::new(seconds.clone()))?;
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            prometheus::Result::Ok(counter)
        };
        let dropped = counter(
            "paystream_redis_dropped_total",
            "Writes to Redis that found no room or no Redis; what they were about is read from the log later.",
        )?;
        let restored = counter(
            "paystream_redis_restored_total",
            "Records of the log that were written to Redis after it had been away.",
        )?;
        Ok(Self { up, errors, seconds, dropped, restored })
    }
}
