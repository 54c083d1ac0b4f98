//! What is counted while a load runs, and the report made of it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use events::Outcome;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::answer::Digest;
use crate::client::Failure;

/// Latencies beyond it are recorded as this: longer than any timeout and retry deadline together.
const MAX_LATENCY_NS: u64 = 3_600_000_000_000;
const SIGNIFICANT_DIGITS: u8 = 3;

/// Why a request did not end in a 2xx answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ErrorKind {
    Failure(&'static str),
    /// An answer with this status.
    Http(u16),
    /// A 2xx answer without the transaction id that was to be written down.
    NoTransactionId,
    /// Due, and never sent: the server was too slow for the rate and connections.
    NotSent,
}

impl From<Failure> for ErrorKind {
    fn from(failure: Failure) -> Self {
        Self::Failure(match failure {
            Failure::Connect => "connect",
            Failure::Lost => "connection_lost",
            Failure::BadAnswer => "bad_answer",
            Failure::Timeout => "timeout",
        })
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failure(name) => f.write_str(name),
            Self::Http(status) => write!(f, "http_{status}"),
            Self::NoTransactionId => f.write_str("no_transaction_id"),
            Self::NotSent => f.write_str("not_sent"),
        }
    }
}

/// Latencies in nanoseconds, to three significant digits.
#[derive(Debug)]
pub(crate) struct Latencies(Histogram<u64>);

impl Latencies {
    pub(crate) fn new() -> Self {
        Self(
            Histogram::new_with_bounds(1, MAX_LATENCY_NS, SIGNIFICANT_DIGITS)
                .expect("constant bounds in the range the histogram takes"),
        )
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(crate) fn clear(&mut self) {
        self.0.reset();
    }

    pub(crate) fn quantile_ms(&self, quantile: f64) -> f64 {
        to_ms(self.0.value_at_quantile(quantile))
    }
}

fn to_ms(ns: u64) -> f64 {
    // To the nanosecond, so that the JSON has no tail of binary fractions.
    (ns as f64).round() / 1e6
}

/// What has been counted so far.
#[derive(Debug)]
pub(crate) struct Stats {
    pub(crate) sent: u64,
    pub(crate) ok: u64,
    pub(crate) retried: u64,
    degraded: u64,
    pending: u64,
    outcomes: [u64; Outcome::ALL.len()],
    http_status: BTreeMap<u16, u64>,
    errors: BTreeMap<ErrorKind, u64>,
    pub(crate) latencies: Latencies,
    /// Since the last progress.
    pub(crate) recent: Latencies,
    /// How late requests left.
    pub(crate) lag: Latencies,
}

impl Stats {
    pub(crate) fn new() -> Self {
        Self {
            sent: 0,
            ok: 0,
            retried: 0,
            degraded: 0,
            pending: 0,
            outcomes: [0; Outcome::ALL.len()],
            http_status: BTreeMap::new(),
            errors: BTreeMap::new(),
            latencies: Latencies::new(),
            recent: Latencies::new(),
            lag: Latencies::new(),
        }
    }

    pub(crate) fn answered(&mut self, status: u16) {
        *self.http_status.entry(status).or_default() += 1;
    }

    pub(crate) fn accepted(&mut self, status: u16, digest: &Digest<'_>, latency: Duration) {
        self.ok += 1;
        self.degraded += u64::from(digest.degraded);
        self.pending += u64::from(digest.pending || (status == 202 && digest.outcome.is_none()));
        if let Some(outcome) = digest.outcome {
            self.outcomes[outcome as usize] += 1;
        }
        self.waited(latency);
    }

    /// Refusals stay out of the latencies: a server that refuses fast would look fast. Timeouts are in:
    /// a server that never answers would look fast without them.
    pub(crate) fn failed(&mut self, kind: ErrorKind, latency: Duration) {
        *self.errors.entry(kind).or_default() += 1;
        if kind == ErrorKind::from(Failure::Timeout) {
            self.waited(latency);
        }
    }

    pub(crate) fn not_sent(&mut self, count: u64) {
        if count > 0 {
            *self.errors.entry(ErrorKind::NotSent).or_default() += count;
        }
    }

    pub(crate) fn errors(&self) -> u64 {
        self.errors.values().sum()
    }

    fn waited(&mut self, latency: Duration) {
        self.latencies.record(latency);
        self.recent.record(latency);
    }

    pub(crate) fn report(&self, elapsed: Duration) -> Report {
        let duration_s = elapsed.as_secs_f64();
        let outcome = |outcome: Outcome| self.outcomes[outcome as usize];
        let rate = if duration_s > 0.0 { self.ok as f64 / duration_s } else { 0.0 };
        let not_sent = self.errors.get(&ErrorKind::NotSent).copied().unwrap_or_default();
        Report {
            scheduled: self.sent + not_sent,
            sent: self.sent,
            ok: self.ok,
            errors: self.errors(),
            not_sent,
            retried: self.retried,
            rate: (rate * 100.0).round() / 100.0,
            duration_s: (duration_s * 1e3).round() / 1e3,
            mean_ms: (self.latencies.0.mean()).round() / 1e6,
            p50_ms: self.latencies.quantile_ms(0.5),
            p95_ms: self.latencies.quantile_ms(0.95),
            p99_ms: self.latencies.quantile_ms(0.99),
            p999_ms: self.latencies.quantile_ms(0.999),
            max_ms: to_ms(self.latencies.0.max()),
            send_lag_p99_ms: self.lag.quantile_ms(0.99),
            outcomes: Outcomes {
                approve: outcome(Outcome::Approve),
                review: outcome(Outcome::Review),
                challenge: outcome(Outcome::Challenge),
                decline: outcome(Outcome::Decline),
            },
            degraded: self.degraded,
            pending: self.pending,
            errors_by_kind: self.errors.iter().map(|(kind, &n)| (kind.to_string(), n)).collect(),
            http_status: self.http_status.iter().map(|(status, &n)| (status.to_string(), n)).collect(),
        }
    }
}

/// How often each decision was answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Outcomes {
    /// Let through.
    pub approve: u64,
    /// Let through and looked at.
    pub review: u64,
    /// Customer asked to authenticate.
    pub challenge: u64,
    /// Refused.
    pub decline: u64,
}

/// The result of a run. `scheduled` = `sent` + `not_sent` = `ok` + `errors`.
///
/// Latencies are of accepted requests and of those that timed out, from the moment a request was
/// *meant* to be sent to its last byte, waiting for a free connection and retries included.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Requests that were due within the run.
    pub scheduled: u64,
    /// Requests that left at least once.
    pub sent: u64,
    /// Requests answered 2xx.
    pub ok: u64,
    /// All others, those not sent included.
    pub errors: u64,
    /// Requests that were due and could not be sent by the end.
    pub not_sent: u64,
    /// Attempts beyond the first of each request.
    pub retried: u64,
    /// Requests answered 2xx per second.
    pub rate: f64,
    /// From the start to the last answer.
    pub duration_s: f64,
    /// Mean latency.
    pub mean_ms: f64,
    /// Median latency.
    pub p50_ms: f64,
    /// 95th percentile of the latency.
    pub p95_ms: f64,
    /// 99th percentile of the latency.
    pub p99_ms: f64,
    /// 99.9th percentile of the latency.
    pub p999_ms: f64,
    /// Longest latency.
    pub max_ms: f64,
    /// 99th percentile of how much later than meant requests left. More than a few milliseconds: the
    /// server, or the generator, could not keep up.
    pub send_lag_p99_ms: f64,
    /// Decisions in the answers.
    pub outcomes: Outcomes,
    /// Answers made by the fail mode, because the decision did not come in time.
    pub degraded: u64,
    /// Answers without a decision yet.
    pub pending: u64,
    /// Errors by `connect`, `connection_lost`, `bad_answer`, `timeout`, `http_<status>`, `not_sent`,
    /// `no_transaction_id`.
    pub errors_by_kind: BTreeMap<String, u64>,
    /// Answers by status, those to retried attempts included.
    pub http_status: BTreeMap<String, u64>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcomes { approve, review, challenge, decline } = self.outcomes;
        writeln!(
            f,
            "requests    {:>12}  in {:.1} s, {:.1}/s accepted",
            self.sent, self.duration_s, self.rate
        )?;
        writeln!(f, "  accepted  {:>12}  {}", self.ok, percent(self.ok, self.scheduled))?;
        writeln!(f, "  errors    {:>12}  {}", self.errors, list(&self.errors_by_kind))?;
        if self.retried > 0 {
            writeln!(f, "  retries   {:>12}", self.retried)?;
        }
        writeln!(f, "decisions")?;
        for (name, count) in
            [("approve", approve), ("review", review), ("challenge", challenge), ("decline", decline)]
        {
            writeln!(f, "  {name:<9} {count:>12}  {}", percent(count, self.ok))?;
        }
        if self.pending + self.degraded > 0 {
            writeln!(f, "  pending   {:>12}", self.pending)?;
            writeln!(f, "  degraded  {:>12}", self.degraded)?;
        }
        writeln!(f, "latency from the intended send time")?;
        for (name, ms) in [
            ("mean", self.mean_ms),
            ("p50", self.p50_ms),
            ("p95", self.p95_ms),
            ("p99", self.p99_ms),
            ("p99.9", self.p999_ms),
            ("max", self.max_ms),
        ] {
            writeln!(f, "  {name:<9} {ms:>12.3}  ms")?;
        }
        write!(f, "status      {:>12}  {}", "", list(&self.http_status))
    }
}

fn percent(part: u64, whole: u64) -> String {
    let share = if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 };
    format!("{share:.2} %")
}

fn list(counts: &BTreeMap<String, u64>) -> String {
    counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_exact_to_three_digits() {
        let mut stats = Stats::new();
        for ms in 1..=1_000 {
            stats.sent += 1;
            stats.accepted(201, &Digest::default(), Duration::from_millis(ms));
        }
        let report = stats.report(Duration::from_secs(10));
        for (measured, exact) in [
            (report.p50_ms, 500.0),
            (report.p95_ms, 950.0),
            (report.p99_ms, 990.0),
            (report.p999_ms, 999.0),
            (report.max_ms, 1_000.0),
        ] {
            assert!((measured / exact - 1.0_f64).abs() < 0.001, "{measured} for {exact}");
        }
        assert!((report.rate - 100.0).abs() < 1e-9);
    }

    #[test]
    fn refusals_do_not_flatter_the_latency_and_timeouts_count() {
        let mut stats = Stats::new();
        stats.accepted(201, &Digest::default(), Duration::from_millis(100));
        for _ in 0..100 {
            stats.failed(ErrorKind::Http(503), Duration::from_micros(10));
        }
        assert!(stats.report(Duration::from_secs(1)).p50_ms > 99.0);
        stats.failed(ErrorKind::from(Failure::Timeout), Duration::from_secs(10));
        assert!(stats.report(Duration::from_secs(1)).max_ms > 9_990.0);
    }

    #[test]
    fn the_json_has_the_keys_scripts_rely_on() {
        let mut stats = Stats::new();
        stats.sent = 1;
        stats.answered(201);
        stats.accepted(
            201,
            &Digest { outcome: Some(Outcome::Review), ..Digest::default() },
            Duration::from_millis(3),
        );
        stats.not_sent(2);
        let json = serde_json::to_value(stats.report(Duration::from_secs(1))).unwrap();
        for key in ["rate", "p50_ms", "p95_ms", "p99_ms", "max_ms", "duration_s"] {
            assert!(json[key].is_f64(), "{key}");
        }
        assert_eq!((&json["sent"], &json["ok"], &json["errors"]), (&1.into(), &1.into(), &2.into()));
        assert_eq!(json["outcomes"]["review"], 1);
        assert_eq!(json["errors_by_kind"]["not_sent"], 2);
        assert_eq!(json["http_status"]["201"], 1);
        for key in ["degraded", "pending", "not_sent", "retried", "scheduled"] {
            assert!(json[key].is_u64(), "{key}");
        }
    }

    #[test]
    fn the_closing_table_names_what_went_wrong() {
        let mut stats = Stats::new();
        stats.failed(ErrorKind::Http(429), Duration::ZERO);
        stats.not_sent(7);
        let table = stats.report(Duration::from_secs(1)).to_string();
        assert!(table.contains("http_429 1") && table.contains("not_sent 7"), "{table}");
        assert!(table.lines().all(|line| line.len() <= 80), "{table}");
    }
}
