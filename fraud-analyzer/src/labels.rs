//! Records of `transactions.labelled` → labels for the scorer.
//!
//! A lane takes those of its own transactions. They are taken in between two batches of transactions, and only with transactions to follow: the
//! decision after them says how far they were taken in, so that recovery takes them in at the same place.

use std::time::Duration;

use anyhow::Context as _;
use eventlog::{EventLog, LogError, LoggedRecord, NewRecord, Position};
use events::{Label, Message as _, Verdict, topics};

use crate::intake::dead_letter;
use crate::lane::Lane;

/// Labels taken in at a time, which bounds memory and the pause before the next transaction.
const READ_RECORDS: usize = 1_000;

/// What was read of the topic.
#[derive(Debug, Default)]
pub(crate) struct Labels {
    pub(crate) labels: Vec<scoring::Label>,
    /// Records that are not labels.
    pub(crate) dead: Vec<NewRecord>,
}

/// Reads what is there from `next` on, at most [`READ_RECORDS`] of each partition, and moves `next` on. The
/// labels come before row 0 of the next batch.
pub(crate) async fn read_new(log: &dyn EventLog, lane: Lane, next: &mut [u64]) -> anyhow::Result<Labels> {
    let mut read = Labels::default();
    for partition in log.wait_for_any(topics::LABELLED, &Position::of_all(next), Duration::ZERO).await? {
        let next = &mut next[partition as usize];
        for record in records(log, partition, next, READ_RECORDS).await? {
            *next = record.offset + 1;
            read.take(lane, partition, record);
        }
    }
    Ok(read)
}

/// Reads everything from `next` up to `until`, and moves `next` on: what an earlier run took in there.
pub(crate) async fn read_until(
    log: &dyn EventLog,
    lane: Lane,
    next: &mut [u64],
    until: &[u64],
) -> anyhow::Result<Labels> {
    let mut read = Labels::default();
    for ((partition, next), &until) in (0_u32..).zip(next).zip(until) {
        while *next < until {
            let records = records(log, partition, next, READ_RECORDS).await?;
            // Nothing: a log that was restored from a backup may lack its newest records.
            *next = records.last().map_or(until, |last| until.min(last.offset + 1));
            for record in records.into_iter().filter(|record| record.offset < until) {
                read.take(lane, partition, record);
            }
        }
    }
    Ok(read)
}

/// The records of a partition from `next` on. What retention has removed was of transactions that windows
/// have long forgotten, unless it keeps labels for less time than windows reach back.
async fn records(
    log: &dyn EventLog,
    partition: u32,
    next: &mut u64,
    max: usize,
) -> anyhow::Result<Vec<LoggedRecord>> {
    loop {
        match log.read(topics::LABELLED, partition, *next, max, Duration::ZERO).await {
            Err(LogError::OffsetOutOfRange { start, .. }) if start > *next => {
                tracing::warn!(
                    partition,
                    from = *next,
                    to = start,
                    "retention removed labels before they were taken in"
                );
                *next = start;
            }
            other => return other.with_context(|| format!("reading {}/{partition}", topics::LABELLED)),
        }
    }
}

impl Labels {
    fn take(&mut self, lane: Lane, partition: u32, record: LoggedRecord) {
        match Label::decode(&record.value) {
            Ok(label) if !lane.holds(label.source_partition) => {}
            Ok(label) => self.labels.push(scoring::Label {
                before_row: 0,
                window_time_us: label.window_time_us,
                fraud: label.verdict == Verdict::Fraud,
            }),
            // One letter of each.
            Err(_) if !lane.is_first() => {}
            Err(error) => {
                let at = Position { partition, offset: record.offset };
                self.dead.push(dead_letter(topics::LABELLED, at, record, &error.to_string()));
            }
        }
    }
}
