//! Starting and stopping the service that fills ClickHouse.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use eventlog::EventLog;
use runtime::Service;
use tokio_util::sync::CancellationToken;

use super::GROUP;
use super::api;
use super::compare::Comparer;
use super::config::ClickHouseConfig;
use super::metrics::Metrics;
use super::server::Server;
use super::sink::Sink;
use super::stored::unconfirmed;
use crate::positions::TOPICS;

/// How often it is said how far ClickHouse is behind the log.
const LAG_INTERVAL: Duration = Duration::from_secs(5);

/// The running service: fills ClickHouse from the log, answers SQL, and compares the two.
#[derive(Debug)]
pub struct DistributedAnalytics {
    /// Its task and how to stop it.
    pub service: Service,
    router: axum::Router,
}

impl DistributedAnalytics {
    /// Starts the service. `spool` is a directory of this process's own, where batches wait while ClickHouse
    /// is away; it may be lost with the machine. ClickHouse need not be there yet. Must be called within a
    /// tokio runtime.
    ///
    /// # Errors
    /// When its metrics are registered already.
    pub fn start(
        config: &ClickHouseConfig,
        log: Arc<dyn EventLog>,
        spool: PathBuf,
        registry: &prometheus::Registry,
    ) -> anyhow::Result<Self> {
        let metrics = Metrics::new(registry).context("registering the warehouse's metrics")?;
        let server = Server::new(config);
        let router = api::router(server.clone(), config.clone());
        let stop = CancellationToken::new();
        let sink = Sink {
            config: config.clone(),
            log: Arc::clone(&log),
            server: server.clone(),
            spool,
            metrics: metrics.clone(),
        };
        let comparer = Comparer::new(config, Arc::clone(&log), server, metrics.clone());
        let lag = watch_lag(log, metrics);
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let aside = async { tokio::join!(comparer.run(), lag) };
            tokio::select! {
                ended = sink.run(stopped) => ended,
                _ = aside => unreachable!("they do not end"),
            }
        });
        Ok(Self { service: Service { name: "warehouse", stop, task }, router })
    }

    /// The query API. Without authorisation: the caller adds it.
    pub fn router(&self) -> axum::Router {
        self.router.clone()
    }
}

/// Says again and again how many records are not in ClickHouse yet.
async fn watch_lag(log: Arc<dyn EventLog>, metrics: Metrics) {
    loop {
        if let Err(error) = measure_lag(&*log, &metrics).await {
            let error = format!("{error:#}");
            tracing::debug!(error, "cannot measure how far ClickHouse is behind the log");
        }
        tokio::time::sleep(LAG_INTERVAL).await;
    }
}

async fn measure_lag(log: &dyn EventLog, metrics: &Metrics) -> anyhow::Result<()> {
    for topic in TOPICS {
        for partition in 0..log.partitions(topic)? {
            let (_, end) = log.bounds(topic, partition).await?;
            let lag = unconfirmed(log, topic, partition, end).await?;
            metrics.lag.set(GROUP, topic, partition, end - lag, end);
        }
    }
    Ok(())
}
