//! From the log to batches, on a thread of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eventlog::{EventLog, LogError, Position};
use tokio_util::sync::CancellationToken;

use super::batch::{Batch, Builder};
use super::config::ClickHouseConfig;
use super::metrics::Metrics;
use super::plan::Spans;
use super::queue::Queue;
use crate::positions::{Positions, TOPICS};

/// Records decoded at a time.
const READ_RECORDS: usize = 2_000;
/// Between two looks at the log while a batch is not full: at few records a second, decoding them one by one
/// would cost more than it gains.
const REST: Duration = Duration::from_millis(50);
const IDLE_WAIT: Duration = Duration::from_secs(1);
const FAILED_WAIT: Duration = Duration::from_secs(1);

/// Reads the warehouse's topics and forms batches.
pub(crate) struct Former {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) config: ClickHouseConfig,
    pub(crate) metrics: Metrics,
    /// Where reading goes on.
    pub(crate) next: Positions,
    /// Form what the log holds by now, and end.
    pub(crate) drain: CancellationToken,
    /// End at once.
    pub(crate) stop: CancellationToken,
}

impl Former {
    /// Runs until asked to stop.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        let mut builders = TOPICS.map(Builder::new);
        while !self.stop.is_cancelled() {
            let mut taken = 0;
            let mut is_full = false;
            for builder in &mut builders {
                match self.fill(builder).await {
                    Ok(read) => taken += read,
                    Err(error) => self.failed(&error).await,
                }
                is_full |= self.is_full(builder);
                if self.is_due(builder) && !self.seal(builder).await? {
                    return Ok(());
                }
            }
            if taken == 0 && self.drain.is_cancelled() {
                for builder in &mut builders {
                    if !self.seal(builder).await? {
                        break;
                    }
                }
                return Ok(());
            }
            if !is_full {
                self.rest(&builders, taken).await;
            }
        }
        Ok(())
    }

    fn is_full(&self, builder: &Builder) -> bool {
        builder.records() >= self.config.batch_max_rows || builder.bytes() >= self.config.batch_max_bytes
    }

    fn is_due(&self, builder: &Builder) -> bool {
        let age = builder.since().map(|since| since.elapsed());
        self.is_full(builder) || age.is_some_and(|age| age >= Duration::from_millis(self.config.batch_max_ms))
    }

    /// Adds what the log holds, from each partition in turn, until the batch is full.
    async fn fill(&mut self, builder: &mut Builder) -> Result<usize, LogError> {
        let topic = builder.topic();
        let mut taken = 0;
        loop {
            let from = Position::of_all(self.next.of_topic(topic));
            let ready = self.log.wait_for_any(topic, &from, Duration::ZERO).await?;
            let before = taken;
            for partition in ready {
                if self.is_full(builder) || self.stop.is_cancelled() {
                    return Ok(taken);
                }
                taken += self.fill_from(builder, partition).await?;
            }
            if taken == before {
                return Ok(taken);
            }
        }
    }

    async fn fill_from(&mut self, builder: &mut Builder, partition: u32) -> Result<usize, LogError> {
        let topic = builder.topic();
        let from = self.next.get(topic, partition);
        let most = READ_RECORDS.min(self.config.batch_max_rows - builder.records());
        let records = match self.log.read(topic, partition, from, most, Duration::ZERO).await {
            Err(LogError::OffsetOutOfRange { start, .. }) if start > from => {
                self.skip_lost(topic, partition, from, start);
                return Ok(0);
            }
            records => records?,
        };
        let Some(last) = records.last() else { return Ok(0) };
        builder.push(partition, from, &records);
        self.next.set(topic, partition, last.offset + 1);
        Ok(records.len())
    }

    fn skip_lost(&mut self, topic: &'static str, partition: u32, from: u64, start: u64) {
        let lost = start - from;
        tracing::error!(
            topic,
            partition,
            from,
            start,
            lost,
            "retention removed records before the warehouse read them: raise the log's retention or \
             clickhouse.spool_max_bytes, and fill the gap from a backup"
        );
        self.metrics.lost_records.with_label_values(&[topic]).inc_by(lost);
        self.next.set(topic, partition, start);
    }

    /// Hands the batch over. Returns whether to go on.
    async fn seal(&self, builder: &mut Builder) -> anyhow::Result<bool> {
        let Some((batch, worked)) = builder.finish()? else { return Ok(true) };
        self.metrics.form_seconds.observe(worked.as_secs_f64());
        Ok(self.queue.push(batch, &self.stop).await)
    }

    /// Until there is something to do again.
    async fn rest(&self, builders: &[Builder], taken: usize) {
        let longest = Duration::from_millis(self.config.batch_max_ms);
        let due = builders
            .iter()
            .filter_map(Builder::since)
            .min()
            .map(|since| (since + longest).saturating_duration_since(Instant::now()));
        if taken > 0 || due.is_some() {
            let wait = due.unwrap_or(REST).min(REST);
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stop.cancelled() => {}
            }
            return;
        }
        let [a, b, c] = TOPICS.map(|topic| self.arrives(topic));
        let woken = tokio::select! {
            woken = a => woken,
            woken = b => woken,
            woken = c => woken,
            () = self.drain.cancelled() => Ok(()),
            () = self.stop.cancelled() => Ok(()),
        };
        match woken {
            Err(error) => self.failed(&error).await,
            // What has come is the first of more.
            Ok(()) => tokio::select! {
                () = tokio::time::sleep(REST) => {}
                () = self.drain.cancelled() => {}
                () = self.stop.cancelled() => {}
            },
        }
    }

    async fn arrives(&self, topic: &str) -> Result<(), LogError> {
        let from = Position::of_all(self.next.of_topic(topic));
        self.log.wait_for_any(topic, &from, IDLE_WAIT).await.map(|_| ())
    }

    async fn failed(&self, error: &LogError) {
        tracing::error!(%error, "the warehouse cannot read the log: trying again");
        tokio::select! {
            () = tokio::time::sleep(FAILED_WAIT) => {}
            () = self.stop.cancelled() => {}
        }
    }
}

/// Makes a batch again from the log. What retention has removed of it is not in it.
pub(crate) async fn form_again(
    log: &dyn EventLog,
    topic: &'static str,
    spans: &Spans,
    metrics: &Metrics,
) -> anyhow::Result<Option<Batch>> {
    let mut builder = Builder::new(topic);
    for (&partition, span) in &spans.0 {
        let mut next = span.from;
        while next < span.to {
            let most = READ_RECORDS.min(usize::try_from(span.to - next)?);
            let mut records = match log.read(topic, partition, next, most, Duration::ZERO).await {
                Err(LogError::OffsetOutOfRange { start, .. }) if start > next => {
                    let lost = start.min(span.to) - next;
                    tracing::error!(
                        topic,
                        partition,
                        next,
                        start,
                        lost,
                        "retention removed records of a batch that ClickHouse may not have: compare with \
                         `paystream reconcile`"
                    );
                    metrics.lost_records.with_label_values(&[topic]).inc_by(lost);
                    next = start;
                    continue;
                }
                records => records?,
            };
            records.retain(|record| record.offset < span.to);
            let Some(last) = records.last() else { break };
            builder.push(partition, next, &records);
            next = last.offset + 1;
        }
    }
    // Known by the offsets it was planned with, whatever is left of them.
    let batch = builder.finish()?.map(|(batch, _)| Batch { spans: spans.clone(), ..batch });
    Ok(batch)
}

/// Where a topic's partitions go on: after the plan, else where the group committed, else at the log's start.
pub(crate) async fn starts(
    log: &dyn EventLog,
    group: &str,
    topic: &'static str,
    planned: Option<&BTreeMap<u32, u64>>,
) -> anyhow::Result<Vec<u64>> {
    let mut next = Vec::new();
    for partition in 0..log.partitions(topic)? {
        let (start, end) = log.bounds(topic, partition).await?;
        let known = match planned.and_then(|planned| planned.get(&partition)) {
            Some(&known) => Some(known),
            None => log.committed(group, topic, partition).await?,
        };
        let known = known.unwrap_or(start);
        anyhow::ensure!(
            known <= end,
            "the warehouse has read {topic}/{partition} up to offset {known}, the log ends at {end}: the log was \
             replaced or lost records. Restore it, or, to go on with this log, remove all records of {} and set \
             the group `{group}` back",
            events::topics::WAREHOUSE_BATCHES
        );
        next.push(known);
    }
    Ok(next)
}
