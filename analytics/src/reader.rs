//! Reading the log: records become rows, and what cannot be decoded becomes a dead letter.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use eventlog::{EventLog, LogError, LoggedRecord, NewRecord, Position};
use events::{Alert, Decided, DecodeError, Label, Message, topics};

use crate::live::Live;
use crate::metrics::Metrics;
use crate::positions::{Positions, TOPICS};
use crate::rows::Rows;

/// Records taken from one partition at a time: what is decoded between two looks at the page's aggregates.
const READ_RECORDS: usize = 500;
/// Records taken in one poll; the rest follows at once in the next.
pub(crate) const POLL_RECORDS: usize = 8_192;

/// Reads the warehouse's topics from where it left off.
pub(crate) struct Reader {
    log: Arc<dyn EventLog>,
    positions: Positions,
    metrics: Option<Metrics>,
}

/// What one read found, decoded.
enum Found {
    Decided(Vec<Decided>),
    Alerts(Vec<Alert>),
    Labels(Vec<Label>),
}

impl Reader {
    /// Checks that the log is the one the warehouse was filled from. A warehouse that has read nothing
    /// yet starts with what the log still keeps.
    pub(crate) async fn open(
        log: Arc<dyn EventLog>,
        mut positions: Positions,
        metrics: Option<Metrics>,
    ) -> anyhow::Result<Self> {
        for topic in TOPICS {
            let partitions = log.partitions(topic)?;
            let known = positions.of_topic(topic).len();
            if known > partitions as usize {
                bail!(
                    "the warehouse has read {known} partitions of {topic}, the log has {partitions}: \
                     this is not the log it was filled from; start it with the data directory they share"
                );
            }
            for partition in 0..partitions {
                let (start, end) = log
                    .bounds(topic, partition)
                    .await
                    .with_context(|| format!("reading {topic}/{partition}"))?;
                let next = if partition as usize >= known { start } else { positions.get(topic, partition) };
                if next > end {
                    bail!(
                        "the warehouse has read {topic}/{partition} up to offset {next}, the log ends at {end}: \
                         the log was replaced or lost records; restore both from the same backup, or move the \
                         warehouse's folder away to fill a new one"
                    );
                }
                positions.set(topic, partition, next);
            }
        }
        Ok(Self { log, positions, metrics })
    }

    /// Where reading goes on.
    pub(crate) const fn positions(&self) -> &Positions {
        &self.positions
    }

    /// Waits until a topic has something new, or `wait` has passed.
    pub(crate) async fn wait(&self, wait: Duration) -> Result<(), LogError> {
        let [a, b, c] = TOPICS.map(|topic| self.ready(topic, wait));
        let woken = tokio::select! { woken = a => woken, woken = b => woken, woken = c => woken };
        woken.map(|_| ())
    }

    async fn ready(&self, topic: &str, wait: Duration) -> Result<Vec<u32>, LogError> {
        self.log.wait_for_any(topic, &Position::of_all(self.positions.of_topic(topic)), wait).await
    }

    /// Adds what the log holds to `rows`, at most [`POLL_RECORDS`] records. Rows and positions move
    /// together: after an error, what was added is complete and the rest is read by the next call.
    pub(crate) async fn poll(&mut self, rows: &mut Rows, live: Option<&Live>) -> Result<usize, LogError> {
        let mut taken = 0;
        for topic in TOPICS {
            for partition in self.ready(topic, Duration::ZERO).await? {
                while taken < POLL_RECORDS {
                    let read = self.poll_partition(topic, partition, rows, live).await?;
                    taken += read;
                    if read < READ_RECORDS {
                        break;
                    }
                }
            }
        }
        Ok(taken)
    }

    async fn poll_partition(
        &mut self,
        topic: &'static str,
        partition: u32,
        rows: &mut Rows,
        live: Option<&Live>,
    ) -> Result<usize, LogError> {
        let from = self.positions.get(topic, partition);
        let records = match self.log.read(topic, partition, from, READ_RECORDS, Duration::ZERO).await {
            Err(LogError::OffsetOutOfRange { start, .. }) if start > from => {
                self.skip_lost(topic, partition, from, start);
                return Ok(0);
            }
            records => records?,
        };
        let Some(last) = records.last() else { return Ok(0) };
        let (next, taken) = (last.offset + 1, records.len());
        let (found, dead) = decode(topic, partition, &records);
        if !dead.is_empty() {
            self.bury(topic, dead).await?;
        }
        store(&found, rows);
        if let Some(live) = live {
            show(&found, live);
        }
        self.positions.set(topic, partition, next);
        if let Some(metrics) = &self.metrics {
            metrics.records.with_label_values(&[topic]).inc_by(taken as u64);
        }
        Ok(taken)
    }

    /// Dead letters are durable before reading goes on. A crash in between writes them again: a dead
    /// letter is recognised by the position in its headers.
    async fn bury(&self, topic: &'static str, dead: Vec<NewRecord>) -> Result<(), LogError> {
        let count = dead.len() as u64;
        self.log.append(dead).await?;
        tracing::warn!(topic, count, "records could not be decoded and are now in the dead-letter topic");
        if let Some(metrics) = &self.metrics {
            metrics.dead_letters.with_label_values(&[topic]).inc_by(count);
        }
        Ok(())
    }

    fn skip_lost(&mut self, topic: &'static str, partition: u32, from: u64, start: u64) {
        let lost = start - from;
        tracing::error!(
            topic,
            partition,
            from,
            start,
            lost,
            "retention removed records before the warehouse read them: raise the log's retention, and fill \
             the gap from a backup"
        );
        if let Some(metrics) = &self.metrics {
            metrics.lost_records.with_label_values(&[topic]).inc_by(lost);
        }
        self.positions.set(topic, partition, start);
    }
}

fn decode(topic: &'static str, partition: u32, records: &[LoggedRecord]) -> (Found, Vec<NewRecord>) {
    let mut dead = Vec::new();
    let found = match topic {
        topics::DECIDED => Found::Decided(decode_each(topic, partition, records, &mut dead)),
        topics::ALERTS => Found::Alerts(decode_each(topic, partition, records, &mut dead)),
        _ => Found::Labels(decode_each(topic, partition, records, &mut dead)),
    };
    (found, dead)
}

fn decode_each<M: Message>(
    topic: &'static str,
    partition: u32,
    records: &[LoggedRecord],
    dead: &mut Vec<NewRecord>,
) -> Vec<M> {
    let mut messages = Vec::with_capacity(records.len());
    for record in records {
        match M::decode(&record.value) {
            Ok(message) => messages.push(message),
            Err(error) => dead.push(dead_letter(topic, partition, record, &error)),
        }
    }
    messages
}

pub(crate) fn dead_letter(
    topic: &'static str,
    partition: u32,
    record: &LoggedRecord,
    error: &DecodeError,
) -> NewRecord {
    let mut headers = record.headers.clone();
    let mut add = |name: &str, value: String| headers.push((name.to_owned(), Bytes::from(value)));
    add("reason", error.to_string());
    add("original-topic", topic.to_owned());
    add("original-partition", partition.to_string());
    add("original-offset", record.offset.to_string());
    NewRecord {
        topic: topics::dead_letter(topic),
        key: record.key.clone(),
        value: record.value.clone(),
        headers,
        timestamp_ms: record.timestamp_ms,
    }
}

fn store(found: &Found, rows: &mut Rows) {
    match found {
        Found::Decided(all) => all.iter().for_each(|d| rows.push_decided(d)),
        Found::Alerts(all) => all.iter().for_each(|a| rows.push_alert(a)),
        Found::Labels(all) => all.iter().for_each(|l| rows.push_label(l)),
    }
}

fn show(found: &Found, live: &Live) {
    match found {
        Found::Decided(all) => live.decided(all),
        Found::Alerts(all) => live.alerts(all),
        Found::Labels(_) => {}
    }
}
