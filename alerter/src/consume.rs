//! Reads `fraud.alerts` and records what it finds, before anything is sent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use eventlog::{EventLog, LogError, LoggedRecord, NewRecord, Position};
use events::{Alert, Message as _, topics};
use runtime::trace::TraceContext;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::RetryConfig;
use crate::deliver::{backoff, now_ms, on_store};
use crate::metrics::Metrics;
use crate::routes::Routes;
use crate::store::{Routed, Store};
use crate::trace;

/// The name under which the position is committed to the log.
pub(crate) const CONSUMER_GROUP: &str = "alerter";

/// Records of one transaction on the store.
const READ_BATCH: usize = 256;
/// How long the log is asked to wait for a record.
const READ_WAIT: Duration = Duration::from_secs(1);
/// How often the position is committed to the log and the gauges are set. The store's own position,
/// written with the alerts, is the one that counts.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(2);
const PRUNE_EVERY: Duration = Duration::from_secs(600);

/// Moves alerts from the log to the store.
pub(crate) struct Consumer {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) store: Arc<Store>,
    pub(crate) routes: Arc<Routes>,
    /// The receivers that have a worker, each with what wakes it.
    pub(crate) workers: BTreeMap<String, Arc<Notify>>,
    pub(crate) metrics: Metrics,
    pub(crate) retry: RetryConfig,
    pub(crate) retention: Duration,
    pub(crate) drain: Duration,
    pub(crate) stop: CancellationToken,
    /// The next offset of each partition; empty until it was looked up.
    pub(crate) positions: Vec<u64>,
    /// What was last committed to the log.
    pub(crate) committed: Vec<u64>,
}

impl Consumer {
    /// Reads until asked to stop, then what is readable at that moment.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        let mut failures = 0;
        let (mut next_housekeeping, mut next_prune) = (Instant::now(), Instant::now());
        while !self.stop.is_cancelled() {
            match self.step().await {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures += 1;
                    self.survive(error)?;
                    tokio::select! {
                        () = self.stop.cancelled() => {}
                        () = tokio::time::sleep(backoff(&self.retry, failures)) => {}
                    }
                }
            }
            if Instant::now() >= next_housekeeping {
                next_housekeeping = Instant::now() + HOUSEKEEPING_EVERY;
                self.housekeeping().await?;
            }
            if Instant::now() >= next_prune {
                next_prune = Instant::now() + PRUNE_EVERY;
                self.prune().await?;
            }
        }
        match tokio::time::timeout(self.drain, self.read_to_end()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.survive(error)?,
            Err(_) => tracing::warn!("time to stop is up: the alerts not read yet wait for the next start"),
        }
        self.housekeeping().await
    }

    async fn step(&mut self) -> anyhow::Result<()> {
        if self.positions.is_empty() {
            self.positions = self.find_positions().await?;
        }
        // Only waiting is cut short by a stop: a batch that was read is recorded.
        let ready = tokio::select! {
            () = self.stop.cancelled() => return Ok(()),
            ready = self.ready() => ready?,
        };
        self.read(&ready).await
    }

    async fn ready(&self) -> Result<Vec<u32>, LogError> {
        self.log.wait_for_any(topics::ALERTS, &Position::of_all(&self.positions), READ_WAIT).await
    }

    /// Where to read on: where the store says; for a new store where the log says this group was; else
    /// at the oldest alert kept.
    async fn find_positions(&self) -> anyhow::Result<Vec<u64>> {
        let mut positions = Vec::new();
        for partition in 0..self.log.partitions(topics::ALERTS)? {
            let (start, end) = self.log.bounds(topics::ALERTS, partition).await?;
            let mut at = on_store(&self.store, move |store| store.position(partition)).await?;
            if at.is_none() {
                at = self.log.committed(CONSUMER_GROUP, topics::ALERTS, partition).await?;
            }
            let at = at.unwrap_or(start);
            if at < start || at > end {
                tracing::error!(
                    partition,
                    position = at,
                    start,
                    end,
                    "the log no longer holds the alerts after the last recorded one: reading from its oldest"
                );
            }
            positions.push(if (start..=end).contains(&at) { at } else { start });
        }
        Ok(positions)
    }

    /// One batch from each of some partitions.
    async fn read(&mut self, partitions: &[u32]) -> anyhow::Result<()> {
        for &partition in partitions {
            let from = self.positions[partition as usize];
            let records = self.log.read(topics::ALERTS, partition, from, READ_BATCH, Duration::ZERO).await?;
            if let Some(last) = records.last() {
                let next = last.offset + 1;
                self.record(partition, next, &records).await?;
                self.positions[partition as usize] = next;
            }
        }
        Ok(())
    }

    async fn read_to_end(&mut self) -> anyhow::Result<()> {
        if self.positions.is_empty() {
            self.positions = self.find_positions().await?;
        }
        let mut ends = Vec::new();
        for partition in 0..self.log.partitions(topics::ALERTS)? {
            ends.push(self.log.bounds(topics::ALERTS, partition).await?.1);
        }
        for (partition, end) in (0..).zip(ends) {
            while self.positions[partition as usize] < end {
                let before = self.positions[partition as usize];
                self.read(&[partition]).await?;
                if self.positions[partition as usize] == before {
                    // What is before the end are not records.
                    break;
                }
            }
        }
        Ok(())
    }

    /// Records a batch and wakes the workers. Dead letters go first: a crash in between repeats them, the
    /// other order could lose them.
    async fn record(&mut self, partition: u32, next: u64, records: &[LoggedRecord]) -> anyhow::Result<()> {
        let (mut alerts, mut dead, mut spans) = (Vec::new(), Vec::new(), Vec::new());
        for record in records {
            match Alert::decode(&record.value) {
                Ok(alert) => {
                    let receivers = self.routes.receivers_of(&alert).into_iter().map(str::to_owned).collect();
                    let (span, trace) = trace::received(&alert, TraceContext::of_headers(&record.headers));
                    spans.extend(span);
                    alerts.push(Routed { alert, receivers, trace });
                }
                Err(error) => {
                    tracing::error!(partition, offset = record.offset, %error, "an alert that cannot be decoded");
                    dead.push(dead_letter(partition, record, &error.to_string()));
                }
            }
        }
        if !dead.is_empty() {
            let count = u64::try_from(dead.len()).unwrap_or(u64::MAX);
            self.log.append(dead).await?;
            self.metrics.dead_letters.inc_by(count);
        }
        let started = Instant::now();
        let recorded =
            on_store(&self.store, move |store| store.record(partition, next, &alerts, now_ms())).await?;
        drop(spans);
        self.metrics.record_seconds.observe(started.elapsed().as_secs_f64());
        for severity in &recorded.new {
            self.metrics.alerts_recorded.with_label_values(&[severity.as_str()]).inc();
        }
        self.metrics.alerts_duplicate.inc_by(recorded.duplicates);
        self.metrics.groups_opened.inc_by(recorded.groups_opened);
        self.workers.values().for_each(|wake| wake.notify_one());
        Ok(())
    }

    /// Passes over what the log may recover from; gives back what ends the service.
    fn survive(&mut self, error: anyhow::Error) -> anyhow::Result<()> {
        match error.downcast_ref::<LogError>() {
            Some(LogError::Closed) if self.stop.is_cancelled() => Ok(()),
            None | Some(LogError::Closed | LogError::UnknownTopic(_) | LogError::UnknownPartition { .. }) => {
                Err(error.context("the alerter cannot go on"))
            }
            Some(_) => {
                self.metrics.log_errors.inc();
                tracing::warn!("{error:#}: reading alerts again shortly");
                self.positions.clear();
                Ok(())
            }
        }
    }

    /// Sets the gauges and commits the position to the log. That commit is for whoever looks at the log,
    /// and for a store that was lost: the position that counts was written with the alerts.
    async fn housekeeping(&mut self) -> anyhow::Result<()> {
        for name in self.workers.keys() {
            let receiver = name.clone();
            let pending = on_store(&self.store, move |store| store.pending_count(&receiver)).await?;
            let pending = i64::try_from(pending).unwrap_or(i64::MAX);
            self.metrics.pending.with_label_values(&[name]).set(pending);
        }
        if self.positions != self.committed
            && let Err(error) = self.commit().await
        {
            self.metrics.log_errors.inc();
            tracing::warn!("cannot commit the alerter's position to the log, will try again: {error}");
        }
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), LogError> {
        let mut lag = 0;
        for (partition, &at) in (0..).zip(&self.positions) {
            self.log.commit(CONSUMER_GROUP, topics::ALERTS, partition, at).await?;
            let (_, end) = self.log.bounds(topics::ALERTS, partition).await?;
            lag += end.saturating_sub(at);
        }
        self.metrics.lag.set(i64::try_from(lag).unwrap_or(i64::MAX));
        self.committed.clone_from(&self.positions);
        Ok(())
    }

    async fn prune(&self) -> anyhow::Result<()> {
        let retention_ms = u64::try_from(self.retention.as_millis()).unwrap_or(u64::MAX);
        let cutoff_ms = now_ms().saturating_sub(retention_ms);
        let active: Arc<BTreeSet<String>> = Arc::new(self.workers.keys().cloned().collect());
        loop {
            let active = Arc::clone(&active);
            if !on_store(&self.store, move |store| store.prune(cutoff_ms, &active)).await? {
                return Ok(());
            }
        }
    }
}

/// The record as it was, with where it stood and what is wrong with it.
fn dead_letter(partition: u32, record: &LoggedRecord, reason: &str) -> NewRecord {
    let header = |name: &str, value: String| (name.to_owned(), Bytes::from(value));
    let mut headers = record.headers.clone();
    headers.extend([
        header("reason", reason.to_owned()),
        header("original-topic", topics::ALERTS.to_owned()),
        header("original-partition", partition.to_string()),
        header("original-offset", record.offset.to_string()),
        header("original-timestamp-ms", record.timestamp_ms.to_string()),
        header("attempt", "1".to_owned()),
    ]);
    NewRecord {
        topic: topics::dead_letter(topics::ALERTS),
        key: record.key.clone(),
        value: record.value.clone(),
        headers,
        timestamp_ms: record.timestamp_ms,
    }
}
