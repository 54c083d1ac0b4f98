//! What all requests share.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use eventlog::EventLog;
use events::{ListDeclaration, MerchantId, Outcome, topics};
use prometheus::Registry;
use tokio::sync::watch;

use crate::auth::{ApiKeys, Authenticator};
use crate::catch_up::Marks;
use crate::client_ip::Network;
use crate::config::GatewayConfig;
use crate::follow::Follower;
use crate::ledger::Ledger;
use crate::limits::Limiter;
use crate::metrics::Metrics;
use crate::pending::Pending;
use crate::problem::{Kind, Problem};
use crate::replicas::Redis;
use crate::reporting::Reporting;
use crate::tokenise::Tokeniser;

pub(crate) type App = Arc<Shared>;

/// How long a merchant is asked to wait when nothing better is known.
const RETRY_AFTER_S: u64 = 1;

pub(crate) struct Shared {
    pub(crate) config: GatewayConfig,
    pub(crate) metrics: Metrics,
    pub(crate) keys: ApiKeys,
    pub(crate) authenticator: Authenticator,
    pub(crate) tokeniser: Tokeniser,
    pub(crate) log: Arc<dyn EventLog>,
    /// The lists that can be changed. Another ruleset may have others.
    pub(crate) lists: watch::Sender<Vec<ListDeclaration>>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) marks: Marks,
    pub(crate) pending: Arc<Pending>,
    /// Where there is more than one gateway: what the others accept.
    pub(crate) follower: Option<Follower>,
    /// What all of them share, when there is one.
    pub(crate) redis: Option<Arc<Redis>>,
    pub(crate) reporting: Reporting,
    pub(crate) clock: Clock,
    pub(crate) key_limiter: Limiter,
    pub(crate) ip_limiter: Limiter,
    pub(crate) trusted_proxies: Vec<Network>,
    pub(crate) in_flight: AtomicUsize,
    pub(crate) door: watch::Sender<Door>,
    /// Writes of unknown fate so far.
    failures: AtomicU64,
    fail_modes: HashMap<MerchantId, Outcome>,
}

/// Whether transactions are accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// Not yet: the ledger may lack what the log holds, and a retry would become a second event.
    Starting,
    /// Yes.
    Open,
    /// Not now: a write failed, and what the log holds is being found out.
    Recovering,
    /// Not any more.
    Closed,
}

impl Shared {
    pub(crate) fn new(
        config: GatewayConfig,
        keys: ApiKeys,
        tokeniser: Tokeniser,
        log: Arc<dyn EventLog>,
        lists: Vec<ListDeclaration>,
        ledger: Ledger,
        registry: &Registry,
    ) -> anyhow::Result<Self> {
        let metrics = Metrics::new(registry).context("registering the gateway's metrics")?;
        let redis =
            config.redis.is_on().then(|| Redis::new(&config.redis, config.append_deadline_ms, registry));
        let partitions = log.partitions(topics::CREATED).context("reading the log's partitions")?;
        let mut fail_modes = HashMap::new();
        for (merchant, &mode) in &config.merchant_fail_modes {
            fail_modes.insert(merchant.parse()?, mode.into());
        }
        let trusted_proxies = config.trusted_proxies.iter().map(|text| text.parse());
        Ok(Self {
            metrics,
            authenticator: Authenticator::new(keys.clone(), config.allow_anonymous_test_merchant),
            keys,
            tokeniser,
            log,
            lists: watch::Sender::new(lists),
            marks: Marks::read(&ledger, partitions)?,
            clock: Clock(AtomicI64::new(ledger.last_accepted_at_us()?.unwrap_or(0))),
            ledger: Arc::new(ledger),
            pending: Arc::new(Pending::new(config.in_flight_max_requests)),
            follower: (config.other_gateways || config.redis.is_on()).then(Follower::new),
            redis: redis.transpose()?,
            reporting: Reporting::new(&config.reporting_currency, &config.reporting_rates)
                .context("gateway.reporting_rates")?,
            key_limiter: Limiter::new("key", config.key_rate_per_second, config.key_burst_requests),
            ip_limiter: Limiter::new("ip", config.ip_rate_per_second, config.ip_burst_requests),
            trusted_proxies: trusted_proxies.collect::<Result<_, _>>().context("gateway.trusted_proxies")?,
            in_flight: AtomicUsize::new(0),
            door: watch::Sender::new(Door::Starting),
            failures: AtomicU64::new(0),
            fail_modes,
            config,
        })
    }

    /// Refuses when no transactions are accepted.
    pub(crate) fn check_open(&self) -> Result<(), Problem> {
        let detail = match *self.door.borrow() {
            Door::Open => return Ok(()),
            Door::Starting => "The gateway is starting. Nothing was accepted; try again.",
            Door::Recovering => "The log is being checked after a failure. Nothing was accepted; try again.",
            Door::Closed => "The gateway is shutting down. Nothing was accepted; try again.",
        };
        Err(unavailable(detail))
    }

    /// After a write whose fate is unknown: accepts nothing until the ledger has caught up with the log.
    pub(crate) fn recover(&self) {
        self.failures.fetch_add(1, Ordering::SeqCst);
        self.set_door(Door::Recovering);
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::SeqCst)
    }

    /// Once closed, the door stays closed.
    pub(crate) fn set_door(&self, to: Door) {
        self.door.send_if_modified(|door| {
            let changes = *door != to && *door != Door::Closed;
            if changes {
                *door = to;
            }
            changes
        });
    }

    /// What a merchant is told when the decision is late.
    pub(crate) fn fail_mode(&self, merchant: &MerchantId) -> Outcome {
        self.fail_modes.get(merchant).copied().unwrap_or(self.config.fail_mode.into())
    }

    /// The longest any request waits for its decision.
    pub(crate) fn decision_deadline_max(&self) -> Duration {
        Duration::from_millis(self.config.decision_deadline_max_ms)
    }

    /// Accept times before this are forgotten.
    pub(crate) fn retention_start_us(&self) -> i64 {
        let retention = Duration::from_secs(self.config.ledger_retention_hours * 3_600);
        self.clock.now_us() - i64::try_from(retention.as_micros()).unwrap_or(i64::MAX)
    }
}

pub(crate) fn unavailable(detail: &'static str) -> Problem {
    Problem::new(Kind::Unavailable, detail).retry_after_s(RETRY_AFTER_S)
}

/// The wall clock in microseconds since the Unix epoch; never steps back.
pub(crate) struct Clock(AtomicI64);

impl Clock {
    pub(crate) fn now_us(&self) -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(now.as_micros()).unwrap_or(i64::MAX);
        self.0.fetch_max(now, Ordering::Relaxed).max(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_times_never_step_back() {
        let ahead = i64::MAX - 1;
        let clock = Clock(AtomicI64::new(ahead));
        assert_eq!(clock.now_us(), ahead);
        let clock = Clock(AtomicI64::new(0));
        let times: Vec<i64> = (0..1_000).map(|_| clock.now_us()).collect();
        assert!(times.is_sorted() && times[0] > 0);
    }
}
