//! Tells on-call staff of fraud alerts: grouped, routed, recorded before they are sent.
//!
//! In the order data flows:
//! - [`config`]: what can be set.
//! - [`routes`]: who is told of which alert.
//! - `consume`: reads `fraud.alerts`, and records what it finds with its position.
//! - `alertmanager`: takes what Alertmanager says of the system itself.
//! - `group`: what shares one message.
//! - `incident`: an alert of the system itself.
//! - `story`: either of the two.
//! - `store`: what must survive a crash, among it a queue per receiver.
//! - `deliver`: one worker per receiver: attempts, retries, notes the result.
//! - `pace`: how fast a receiver may be called.
//! - `render`: a group as people read it.
//! - `receiver`, `telegram`, `webhook`: the ways to tell people.
//! - `metrics`: what is counted.
//! - `trace`: what traces say of alerts.
//! - [`samples`]: made-up alerts, to try routes with.

mod alertmanager;
pub mod config;
mod consume;
mod deliver;
mod group;
mod incident;
mod metrics;
mod pace;
mod receiver;
mod render;
pub mod routes;
pub mod samples;
mod store;
mod story;
mod telegram;
mod trace;
mod webhook;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use eventlog::EventLog;
use prometheus::Registry;
use runtime::Service;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::alertmanager::Intake;
pub use crate::config::{
    AlerterConfig, AlertmanagerConfig, RetryConfig, Secret, TelegramConfig, WebhookConfig,
};
use crate::consume::Consumer;
use crate::deliver::{Stop, Worker, now_ms};
use crate::metrics::Metrics;
use crate::pace::Pace;
use crate::receiver::Receiver;
pub use crate::routes::{DEFAULT_ROUTES, Routes, RoutesError};
use crate::store::{Grouping, Store};
use crate::telegram::Telegram;
use crate::webhook::Webhook;

const NAME: &str = "alerter";

/// The running alerter.
pub struct Alerter {
    /// Its task, and what asks it to stop.
    pub service: Service,
    intake: Arc<Intake>,
}

impl std::fmt::Debug for Alerter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Alerter").field("service", &self.service).finish_non_exhaustive()
    }
}

impl Alerter {
    /// Starts reading alerts from `log` and delivering them. `dir` is the alerter's own directory.
    ///
    /// # Errors
    /// When the routes cannot be read, the store cannot be opened or the metrics are registered already.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(
        config: AlerterConfig,
        log: Arc<dyn EventLog>,
        dir: &Path,
        registry: &Registry,
    ) -> anyhow::Result<Self> {
        let routes = Arc::new(Routes::load(&config)?);
        let metrics = Metrics::new(registry).context("cannot register the alerter's metrics")?;
        let grouping = Grouping {
            window_ms: config.group_window_ms,
            burst_groups: config.burst_groups,
            update_interval_ms: config.update_interval_ms,
        };
        let store = Store::open(dir, grouping)
            .with_context(|| format!("cannot open the alerter's store in {}", dir.display()))?;
        let store = Arc::new(store);
        let stop = CancellationToken::new();
        let worker_stop = Stop::default();
        let mut workers = Vec::new();
        for (name, receiver, pace) in receivers(&config, &routes)? {
            workers.push(Worker {
                name,
                receiver,
                pace,
                store: Arc::clone(&store),
                retry: config.retry.clone(),
                wake: Arc::new(Notify::new()),
                metrics: metrics.clone(),
                stop: worker_stop.clone(),
                failures_in_a_row: 0,
                not_before: Instant::now(),
            });
        }
        requeue(&store, &workers.iter().map(|worker| worker.name.clone()).collect())?;
        let half_of_drain = Duration::from_millis(config.drain_deadline_ms) / 2;
        let wakes: BTreeMap<_, _> =
            workers.iter().map(|worker| (worker.name.clone(), Arc::clone(&worker.wake))).collect();
        let intake = Arc::new(Intake {
            token: config.alertmanager.token,
            store: Arc::clone(&store),
            routes: Arc::clone(&routes),
            workers: wakes.clone(),
            metrics: metrics.clone(),
        });
        let consumer = Consumer {
            log,
            store,
            routes,
            workers: wakes,
            metrics,
            retry: config.retry,
            retention: Duration::from_millis(config.retention_ms),
            drain: half_of_drain,
            stop: stop.clone(),
            positions: Vec::new(),
            committed: Vec::new(),
        };
        let task = tokio::spawn(supervise(consumer, workers, stop.clone(), worker_stop, half_of_drain));
        Ok(Self { service: Service { name: NAME, stop, task }, intake })
    }

    /// `POST /alertmanager`, for Prometheus' Alertmanager. `loopback`: whether only programs on this machine can
    /// connect to where it is served; elsewhere `alerter.alertmanager.token` has to be set.
    pub fn router(&self, loopback: bool) -> Router {
        alertmanager::router(Arc::clone(&self.intake), loopback)
    }
}

/// The receivers that are in use and configured.
fn receivers(config: &AlerterConfig, routes: &Routes) -> anyhow::Result<Vec<(String, Receiver, Pace)>> {
    let mut receivers = vec![(routes::CONSOLE.to_owned(), Receiver::Console, Pace::unlimited())];
    if config.telegram.is_on() {
        let telegram = Telegram::new(&config.telegram, &config.public_url)?;
        let min_interval = Duration::from_millis(config.telegram.min_interval_ms);
        let pace = Pace::new(min_interval, config.telegram.messages_per_minute);
        receivers.push((routes::TELEGRAM.to_owned(), Receiver::Telegram(telegram), pace));
    }
    for (name, spec) in routes.webhooks() {
        let webhook = Webhook::new(spec, &config.webhook, &config.public_url)?;
        receivers.push((name.to_owned(), Receiver::Webhook(webhook), Pace::unlimited()));
    }
    Ok(receivers)
}

/// Gives what was refused another chance, and says what has nobody to go to any more.
fn requeue(store: &Store, active: &BTreeSet<String>) -> anyhow::Result<()> {
    let (requeued, orphans) = store.requeue_refused(active, now_ms())?;
    if requeued > 0 {
        tracing::info!(messages = requeued, "trying again what receivers refused before the restart");
    }
    for receiver in orphans {
        tracing::warn!(
            receiver,
            "messages wait for a receiver that is no longer configured: kept until they expire"
        );
    }
    Ok(())
}

/// Runs all tasks; when one ends too early the others are stopped and its error is given back.
async fn supervise(
    consumer: Consumer,
    workers: Vec<Worker>,
    stop: CancellationToken,
    worker_stop: Stop,
    last_attempts: Duration,
) -> anyhow::Result<()> {
    let mut tasks: JoinSet<anyhow::Result<()>> = workers.into_iter().map(Worker::run).collect();
    let mut consumer = tokio::spawn(consumer.run());
    let mut result = tokio::select! {
        ended = &mut consumer => ended.context("reading alerts panicked").and_then(|ended| ended),
        Some(ended) = tasks.join_next() => {
            stop.cancel();
            let ended = ended.context("delivering alerts panicked").and_then(|ended| ended);
            let read = (&mut consumer).await.context("reading alerts panicked").and_then(|read| read);
            ended.and(read)
        }
    };
    worker_stop.last_attempts.cancel();
    let time_is_up = tokio::time::sleep(last_attempts);
    tokio::pin!(time_is_up);
    loop {
        tokio::select! {
            ended = tasks.join_next() => match ended {
                None => return result,
                Some(ended) => {
                    let ended = ended.context("delivering alerts panicked").and_then(|ended| ended);
                    result = result.and(ended);
                }
            },
            () = &mut time_is_up, if !worker_stop.now.is_cancelled() => worker_stop.now.cancel(),
        }
    }
}
