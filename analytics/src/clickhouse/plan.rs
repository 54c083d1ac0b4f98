//! Which batch is being sent: written to the log before it is sent, so that whoever comes next sends the very
//! same batch again.
//!
//! A batch is known by the offsets it holds, and its rows follow from the records at these offsets. So it is
//! enough to know the offsets to send it again with the same token, on any machine. The newest plan of a topic
//! also says that all batches before it are in. Plans are appended by a [`eventlog::Writer`]: who is not the
//! newest writer any more cannot plan, and what is not planned is not sent.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use eventlog::{EventLog, NewRecord};
use events::topics;
use serde::{Deserialize, Serialize};

use crate::live::now_ms;
use crate::positions::TOPICS;

const VERSION: u16 = 1;
/// How many offsets are looked at, at first, for the newest plans; then eight times as many, and so on.
const FIRST_LOOK: u64 = 64;
const READ_RECORDS: usize = 1_024;

/// Offsets of one partition: from the first up to, not including, the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Span {
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// The offsets of a topic that a batch holds, by partition; a partition without any is not in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Spans(pub(crate) BTreeMap<u32, Span>);

impl Spans {
    /// As in `0=120-180,3=7-9`.
    pub(crate) fn as_text(&self) -> String {
        let mut text = String::new();
        for (partition, span) in &self.0 {
            let comma = if text.is_empty() { "" } else { "," };
            write!(text, "{comma}{partition}={}-{}", span.from, span.to)
                .expect("writing to a String cannot fail");
        }
        text
    }
}

/// The batch of a topic that was last begun to be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    v: u16,
    /// Drawn when a log's first batch is planned: offsets of another log, or of one made anew, are other
    /// records, and must not get the tokens of these.
    pub(crate) lineage: String,
    pub(crate) spans: Spans,
    /// For each partition, the offset after the batch, also of partitions that have none in it.
    pub(crate) next: BTreeMap<u32, u64>,
}

impl Plan {
    pub(crate) const fn new(lineage: String, spans: Spans, next: BTreeMap<u32, u64>) -> Self {
        Self { v: VERSION, lineage, spans, next }
    }

    pub(crate) fn record(&self, topic: &str) -> NewRecord {
        NewRecord {
            topic: topics::WAREHOUSE_BATCHES,
            key: Bytes::from(topic.to_owned()),
            value: serde_json::to_vec(self).expect("a plan has text keys").into(),
            headers: Vec::new(),
            timestamp_ms: now_ms(),
        }
    }
}

/// What a batch's rows in one table are known by to ClickHouse.
pub(crate) fn token(lineage: &str, topic: &str, table: &str, spans: &Spans) -> String {
    format!("{lineage}:{topic}:{table}:{}", spans.as_text())
}

/// A new lineage.
pub(crate) fn new_lineage() -> String {
    uuid::Uuid::new_v4().simple().to_string()[..16].to_owned()
}

/// The newest plan of each topic that has one.
pub(crate) async fn newest(log: &dyn EventLog) -> anyhow::Result<BTreeMap<&'static str, Plan>> {
    let mut found = BTreeMap::new();
    for partition in 0..log.partitions(topics::WAREHOUSE_BATCHES)? {
        let (start, end) = log.bounds(topics::WAREHOUSE_BATCHES, partition).await?;
        let mut looked_at = end;
        let mut look = FIRST_LOOK;
        // All plans of a topic are in one partition, so what was found in a later part of it is the newest.
        while looked_at > start && found.len() < TOPICS.len() {
            let from = looked_at.saturating_sub(look).max(start);
            let mut newer = read(log, partition, from, looked_at).await?;
            newer.append(&mut found);
            found = newer;
            looked_at = from;
            look = look.saturating_mul(8);
        }
    }
    Ok(found)
}

async fn read(
    log: &dyn EventLog,
    partition: u32,
    from: u64,
    to: u64,
) -> anyhow::Result<BTreeMap<&'static str, Plan>> {
    let mut found = BTreeMap::new();
    let mut next = from;
    while next < to {
        let records =
            log.read(topics::WAREHOUSE_BATCHES, partition, next, READ_RECORDS, Duration::ZERO).await?;
        let Some(last) = records.last() else { break };
        next = last.offset + 1;
        for record in records.iter().filter(|record| record.offset < to) {
            let Some(topic) = TOPICS.into_iter().find(|topic| topic.as_bytes() == &record.key[..]) else {
                continue;
            };
            let plan: Plan = serde_json::from_slice(&record.value).with_context(|| {
                format!(
                    "the record {partition}/{} of {} is no plan of a batch: another version of paystream wrote it; \
                     use that version",
                    record.offset,
                    topics::WAREHOUSE_BATCHES
                )
            })?;
            anyhow::ensure!(
                plan.v == VERSION,
                "{} holds version {} of plans, this paystream reads version {VERSION}: use a later paystream",
                topics::WAREHOUSE_BATCHES,
                plan.v
            );
            found.insert(topic, plan);
        }
    }
    Ok(found)
}
