//! One bounded run against a server.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, ensure};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::client::{Line, Target};
use crate::engine::{AcceptedFile, Plan, Progress, Refusal, drive};
use crate::report::Report;
use crate::schedule::{Arrivals, Schedule};
use crate::traffic::{Traffic, TrafficConfig, fresh_run_id};

/// Progress that is not fetched in time is left out.
const PROGRESS_QUEUE: usize = 4;
const MAX_CONNECTIONS: usize = 10_000;

/// What load to put on which server.
#[derive(Clone)]
pub struct LoadConfig {
    /// Base URL of the server, for example `http://127.0.0.1:8080`.
    pub url: String,
    /// Requests per second.
    pub rate_per_s: f64,
    /// How long requests are sent.
    pub duration: Duration,
    /// Sent as `Authorization: Bearer`.
    pub api_key: Option<String>,
    /// Of the traffic and of the send times.
    pub seed: u64,
    /// Idempotency keys derive from it: by default different at every run.
    pub run_id: Option<String>,
    /// Share of fraudulent payments, 0 to 1.
    pub fraud_share: f64,
    /// How many customers there are; by default as many as make each pay every half hour.
    pub customers: Option<u64>,
    /// How send times are spread.
    pub arrivals: Arrivals,
    /// Connections, and so requests under way at once.
    pub connections: usize,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Send again, with the same idempotency key and body, what got no answer, or 409, 425, 429, 502, 503
    /// or 504: for tests that crash the server.
    pub retry_until_accepted: bool,
    /// How long a request is retried.
    pub retry_deadline: Duration,
    /// File to write the ids of all accepted transactions to, one a line.
    pub accepted_out: Option<PathBuf>,
    /// Cancel it to end the run early: the report covers what was done by then.
    pub stop: CancellationToken,
}

impl LoadConfig {
    /// A load with the defaults of `paystream loadtest`.
    #[must_use]
    pub fn new(url: impl Into<String>, rate_per_s: f64, duration: Duration) -> Self {
        Self {
            url: url.into(),
            rate_per_s,
            duration,
            api_key: None,
            seed: 1,
            run_id: None,
            fraud_share: 0.02,
            customers: None,
            arrivals: Arrivals::default(),
            connections: 128,
            timeout: Duration::from_secs(10),
            retry_until_accepted: false,
            retry_deadline: Duration::from_secs(60),
            accepted_out: None,
            stop: CancellationToken::new(),
        }
    }

    fn validate(&self) -> anyhow::Result<()> {
        ensure!(
            self.rate_per_s.is_finite() && (0.001..=1_000_000.0).contains(&self.rate_per_s),
            "the rate is {}: give 0.001 to 1000000 requests per second",
            self.rate_per_s
        );
        ensure!(
            (0.0..=1.0).contains(&self.fraud_share),
            "the share of fraud is {}: give 0 to 1",
            self.fraud_share
        );
        ensure!(
            (1..=MAX_CONNECTIONS).contains(&self.connections),
            "{} connections: give 1 to {MAX_CONNECTIONS}",
            self.connections
        );
        ensure!(!self.duration.is_zero(), "the duration is zero: give for example 30s");
        ensure!(!self.timeout.is_zero(), "the timeout is zero: give for example 10s");
        ensure!(self.customers != Some(0), "no customers: give at least 1");
        Ok(())
    }
}

impl fmt::Debug for LoadConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadConfig")
            .field("url", &self.url)
            .field("rate_per_s", &self.rate_per_s)
            .field("duration", &self.duration)
            .field("api_key", &self.api_key.as_ref().map(|_| "****"))
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

/// Sends open-loop load and reports on it. `progress` is called about once a second.
///
/// Send times are fixed beforehand, and latency runs from them: a server that stalls is seen to stall by
/// all requests that were due meanwhile. They are kept to about a millisecond, which counts as latency.
///
/// Dropping the future ends the run.
///
/// # Errors
/// When the configuration makes no sense, nothing listens at the URL, or the ids of accepted
/// transactions cannot be written. Failing requests are no error: they are in the report.
pub async fn run(config: LoadConfig, mut progress: impl FnMut(&Progress) + Send) -> anyhow::Result<Report> {
    config.validate()?;
    let target = Arc::new(Target::resolve(&config.url, config.api_key.as_deref()).await?);
    if !config.retry_until_accepted {
        let found = Line::new(Arc::clone(&target)).connect(config.timeout).await;
        found.map_err(|_| {
            anyhow!("connecting to {}: nothing answers there; start `paystream up` first", config.url)
        })?;
    }
    let stop = config.stop.child_token();
    let _stop_when_dropped = stop.clone().drop_guard();
    let plan = plan(config, target, stop)?;
    let (seen, mut progress_rx) = mpsc::channel(PROGRESS_QUEUE);
    let (done, report) = oneshot::channel();
    // A thread of its own, with all connections on it: no hand-over between threads for each request,
    // and the server under test keeps the other processors.
    std::thread::Builder::new()
        .name("loadtest".to_owned())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let result = runtime.context("starting the load generator's runtime").and_then(|runtime| {
                runtime.block_on(drive(plan, |now| {
                    let _ = seen.try_send(now); // nobody watches, or not fast enough
                }))
            });
            let _ = done.send(result); // fails when the run was given up
        })
        .context("starting the load generator's thread")?;
    while let Some(now) = progress_rx.recv().await {
        progress(&now);
    }
    report.await.context("the load generator's thread ended without a report")?
}

fn plan(config: LoadConfig, target: Arc<Target>, stop: CancellationToken) -> anyhow::Result<Plan> {
    let run_id = config.run_id.unwrap_or_else(fresh_run_id);
    let traffic = Traffic::new(TrafficConfig {
        fraud_share: config.fraud_share,
        customers: config.customers,
        ..TrafficConfig::new(config.seed, run_id, jiff::Timestamp::now(), config.rate_per_s)
    });
    Ok(Plan {
        target,
        traffic,
        schedule: Schedule::new(config.arrivals, config.rate_per_s, Some(config.duration), config.seed),
        duration: Some(config.duration),
        connections: config.connections,
        timeout: config.timeout,
        refusal: match config.retry_until_accepted {
            true => Refusal::Retry(config.retry_deadline),
            false => Refusal::Count,
        },
        skip_later_than: None,
        accepted: config.accepted_out.as_deref().map(AcceptedFile::create).transpose()?,
        stop,
    })
}
