//! Talking to Redis, and leaving it alone while it is away: no request waits longer than one response
//! timeout, and after a few failures in a row none waits at all.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, FromRedisValue, Pipeline, RedisError};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::config::RedisConfig;
use super::scripts::Scripts;
use crate::metrics::RedisMetrics;

/// Requests that may wait for their turn on the connection.
const PIPELINE_REQUESTS: usize = 4_096;

/// What is asked of Redis, for the metrics.
#[derive(Debug, Clone, Copy)]
pub(super) enum Operation {
    Claim,
    Amend,
    Limits,
    Read,
    Write,
    Probe,
}

impl Operation {
    const fn name(self) -> &'static str {
        match self {
            Self::Claim => "claim",
            Self::Amend => "amend",
            Self::Limits => "limits",
            Self::Read => "read",
            Self::Write => "write",
            Self::Probe => "probe",
        }
    }
}

/// Redis, up or away.
pub(super) struct Client {
    pub(super) config: RedisConfig,
    pub(super) scripts: Scripts,
    client: redis::Client,
    link: RwLock<Option<Link>>,
    /// The connection's number while there is one, else 0.
    state: watch::Sender<u64>,
    numbers: AtomicU64,
    failures: AtomicU32,
    metrics: RedisMetrics,
}

/// The connections of one time that Redis was up.
#[derive(Clone)]
struct Link {
    number: u64,
    since: Instant,
    /// For what requests wait for.
    swift: MultiplexedConnection,
    /// For batches, which would keep requests waiting behind them.
    bulk: MultiplexedConnection,
}

/// Why Redis did not do what it was asked.
#[derive(Debug)]
pub(super) enum Failure {
    Connect(RedisError),
    Timeout,
    Reply(RedisError),
}

impl Failure {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::Timeout => "timeout",
            Self::Reply(_) => "reply",
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "connecting: {error}"),
            Self::Timeout => f.write_str("no answer in time"),
            Self::Reply(error) => error.fmt(f),
        }
    }
}

impl Client {
    pub(super) fn new(config: RedisConfig, metrics: RedisMetrics) -> Result<Self, RedisError> {
        Ok(Self {
            client: redis::Client::open(config.url.as_str())?,
            config,
            scripts: Scripts::new(),
            link: RwLock::default(),
            state: watch::Sender::new(0),
            numbers: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            metrics,
        })
    }

    /// Since when Redis has been up without a break.
    pub(super) fn up_since(&self) -> Option<Instant> {
        self.link().map(|link| link.since)
    }

    pub(super) fn is_up(&self) -> bool {
        *self.state.borrow() != 0
    }

    /// Asks what a request waits for. Nothing while Redis is away.
    pub(super) async fn ask<T: FromRedisValue>(&self, operation: Operation, command: &Cmd) -> Option<T> {
        let mut link = self.link()?;
        let started = Instant::now();
        let asked = timeout(self.config.response_timeout(), command.query_async(&mut link.swift)).await;
        let answer = asked.map_err(|_| Failure::Timeout).and_then(|answer| answer.map_err(Failure::Reply));
        self.note(operation, link.number, started, answer)
    }

    /// Writes what nobody waits for.
    pub(super) async fn write(&self, commands: &Pipeline) -> Option<()> {
        let mut link = self.link()?;
        let started = Instant::now();
        let asked = timeout(self.config.write_timeout(), commands.exec_async(&mut link.bulk)).await;
        let answer = asked.map_err(|_| Failure::Timeout).and_then(|answer| answer.map_err(Failure::Reply));
        if answer.is_err() {
            // What it was about has to be written again, after all that this connection may still do.
            self.failures.store(self.config.failures_max, Ordering::Relaxed);
        }
        self.note(Operation::Write, link.number, started, answer)
    }

    fn link(&self) -> Option<Link> {
        self.link.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A failure only counts against the connection it was seen on.
    fn note<T>(
        &self,
        operation: Operation,
        number: u64,
        started: Instant,
        answer: Result<T, Failure>,
    ) -> Option<T> {
        self.metrics.seconds.with_label_values(&[operation.name()]).observe(started.elapsed().as_secs_f64());
        match answer {
            Ok(value) => {
                self.failures.store(0, Ordering::Relaxed);
                Some(value)
            }
            Err(failure) => {
                self.metrics.errors.with_label_values(&[failure.kind()]).inc();
                let gone = matches!(&failure, Failure::Reply(error) if error.is_unrecoverable_error());
                let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
                if gone || failures >= self.config.failures_max {
                    self.give_up(number, &failure);
                }
                None
            }
        }
    }

    fn give_up(&self, number: u64, failure: &Failure) {
        let ended = self.state.send_if_modified(|state| {
            let ends = *state == number;
            if ends {
                *state = 0;
            }
            ends
        });
        if ended {
            *self.link.write().unwrap_or_else(PoisonError::into_inner) = None;
            self.metrics.up.set(0);
            tracing::warn!(
                %failure,
                "Redis is away: going on without it, with limits of this replica alone, until it is back"
            );
        }
    }

    /// Keeps Redis connected until `stop`; `while_up` runs for as long as it is up each time.
    pub(super) async fn keep_up<F: Future<Output = ()>>(
        &self,
        stop: &CancellationToken,
        while_up: impl Fn() -> F,
    ) {
        let mut told = false;
        while !stop.is_cancelled() {
            match self.connect().await {
                Ok(number) => {
                    told = true;
                    self.stay(number, stop, while_up()).await;
                }
                Err(failure) => {
                    self.metrics.errors.with_label_values(&[failure.kind()]).inc();
                    // The change from up to away was told when it happened.
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(%failure, "Redis cannot be reached: going on without it until it can");
                    }
                }
            }
            // Replicas that lost Redis together do not come back together.
            let jitter = Duration::from_millis(u64::from(Uuid::new_v4().as_bytes()[0]) % 50);
            let _ = timeout(self.config.retry_interval() + jitter, stop.cancelled()).await;
        }
    }

    async fn stay(&self, number: u64, stop: &CancellationToken, work: impl Future<Output = ()>) {
        let mut state = self.state.subscribe();
        let ended = async {
            let _ = state.wait_for(|state| *state != number).await;
        };
        tokio::select! {
            () = work => {}
            () = self.beat() => {}
            () = ended => {}
            () = stop.cancelled() => {}
        }
    }

    /// A gateway that nobody asks anything sees it, too, when Redis goes away.
    async fn beat(&self) {
        let command = self.probe();
        loop {
            tokio::time::sleep(self.config.retry_interval()).await;
            let _: Option<i64> = self.ask(Operation::Probe, &command).await;
        }
    }

    fn probe(&self) -> Cmd {
        self.scripts.probe.command(&[&format!("{}probe", self.config.key_prefix)])
    }

    /// Up is a Redis that knows the scripts and takes writes.
    async fn connect(&self) -> Result<u64, Failure> {
        let (swift, bulk) = tokio::try_join!(self.open(), self.open())?;
        let mut probe = swift.clone();
        let timeout_at = self.config.response_timeout().max(Duration::from_millis(50));
        let setup = async {
            self.scripts.load().exec_async(&mut probe).await?;
            self.probe().exec_async(&mut probe).await
        };
        timeout(timeout_at, setup).await.map_err(|_| Failure::Timeout)?.map_err(Failure::Reply)?;
        self.warn_of_eviction(probe).await;

        let number = self.numbers.fetch_add(1, Ordering::Relaxed) + 1;
        let link = Link { number, since: Instant::now(), swift, bulk };
        *self.link.write().unwrap_or_else(PoisonError::into_inner) = Some(link);
        self.failures.store(0, Ordering::Relaxed);
        self.state.send_replace(number);
        self.metrics.up.set(1);
        tracing::info!("Redis is up: idempotency keys, limits and status are shared with other replicas");
        Ok(number)
    }

    async fn open(&self) -> Result<MultiplexedConnection, Failure> {
        let settings = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.config.connect_timeout()))
            .set_response_timeout(None)
            .set_pipeline_buffer_size(PIPELINE_REQUESTS);
        let opening = self.client.get_multiplexed_async_connection_with_config(&settings);
        // The crate's own timeout leaves out what comes after the connection: the login.
        match timeout(self.config.connect_timeout() * 2, opening).await {
            Ok(opened) => opened.map_err(Failure::Connect),
            Err(_elapsed) => Err(Failure::Timeout),
        }
    }

    /// A Redis that evicts claims forgets them before their time. Managed ones may not tell.
    async fn warn_of_eviction(&self, mut connection: MultiplexedConnection) {
        let mut command = redis::cmd("CONFIG");
        command.arg("GET").arg("maxmemory-policy");
        let asked = timeout(self.config.response_timeout(), command.query_async(&mut connection)).await;
        let Ok(Ok((_, policy))) = asked.map(|answer: Result<(String, String), _>| answer) else { return };
        if !matches!(policy.as_str(), "noeviction" | "volatile-ttl") {
            tracing::warn!(
                policy,
                "Redis may evict idempotency keys: set its maxmemory-policy to noeviction or volatile-ttl"
            );
        }
    }
}
