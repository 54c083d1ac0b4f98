//! The log compared with ClickHouse while both go on: what came since the last comparison, by its offsets.
//!
//! Each decodable record of `transactions.created` must have one row in `transactions` and one in `decisions`,
//! each of `fraud.alerts` and `transactions.labelled` one in its table. What is younger than the grace time is
//! left to the next comparison. While something is missing, the comparison does not go on past it: what only
//! came late is found the next time.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use eventlog::{EventLog, LogError};
use events::{Alert, Label, Message, Transaction, topics};

use super::config::ClickHouseConfig;
use super::metrics::Metrics;
use super::server::{Database, Server};

/// Whose commits say how far the comparison is.
const GROUP: &str = "analytics-reconciled";
/// Records compared by one statement.
const CHUNK: usize = 50_000;
const READ_RECORDS: usize = 2_000;

/// Records of a topic and the rows they must have.
struct Check {
    topic: &'static str,
    /// Tables, with the columns that hold the record's place, and the column of the time.
    tables: &'static [(&'static str, &'static str, &'static str)],
}

const CHECKS: [Check; 3] = [
    Check {
        topic: topics::CREATED,
        tables: &[("transactions", "source", "accepted_at"), ("decisions", "source", "accepted_at")],
    },
    Check { topic: topics::ALERTS, tables: &[("alerts", "log", "raised_at")] },
    Check { topic: topics::LABELLED, tables: &[("labels", "log", "labelled_at")] },
];

/// What one comparison found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) compared: u64,
    pub(crate) missing: u64,
    pub(crate) duplicated: u64,
}

/// Records of one partition that must be in ClickHouse.
#[derive(Default)]
struct Expected {
    offsets: Vec<u64>,
    first_ms: i64,
    last_ms: i64,
    /// The offset after the last record looked at.
    next: u64,
}

/// Compares at intervals.
pub(crate) struct Comparer {
    log: Arc<dyn EventLog>,
    server: Server,
    metrics: Metrics,
    interval: Duration,
    grace: Duration,
}

impl Comparer {
    pub(crate) fn new(
        config: &ClickHouseConfig,
        log: Arc<dyn EventLog>,
        server: Server,
        metrics: Metrics,
    ) -> Self {
        let ms = Duration::from_millis;
        let (interval, grace) = (ms(config.reconcile_interval_ms), ms(config.reconcile_grace_ms));
        Self { log, server, metrics, interval, grace }
    }

    /// Runs for ever; in each process, but only the one that fills ClickHouse compares.
    pub(crate) async fn run(self) {
        if self.interval.is_zero() {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(self.interval).await;
            if self.metrics.active.get() == 0 {
                continue;
            }
            match self.round().await {
                Ok(found) => self.tell(found),
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(error, "the log and ClickHouse could not be compared: trying again later");
                }
            }
        }
    }

    fn tell(&self, found: Found) {
        let of = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        self.metrics.reconcile_missing.set(of(found.missing));
        self.metrics.reconcile_duplicated.set(of(found.duplicated));
        if found.missing == 0 && found.duplicated == 0 {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            self.metrics.reconcile_last_success.set(now.as_secs_f64());
            tracing::debug!(compared = found.compared, "the log and ClickHouse agree");
        } else {
            tracing::error!(
                compared = found.compared,
                missing = found.missing,
                duplicated = found.duplicated,
                "the log and ClickHouse differ: while ClickHouse is behind this passes; else run \
                 `paystream reconcile`"
            );
        }
    }

    /// Compares what came since the last round.
    pub(crate) async fn round(&self) -> anyhow::Result<Found> {
        let mut ends = Vec::new();
        for check in &CHECKS {
            for partition in 0..self.log.partitions(check.topic)? {
                ends.push((check, partition, self.log.bounds(check.topic, partition).await?));
            }
        }
        tokio::time::sleep(self.grace).await;
        let mut found = Found::default();
        for (check, partition, (start, end)) in ends {
            let known = self.log.committed(GROUP, check.topic, partition).await?;
            let mut from = known.unwrap_or(start).max(start);
            while from < end {
                let Some(expected) = self.expected(check.topic, partition, from, end).await? else { break };
                let compared = self.compare(check, partition, from, &expected).await?;
                found.compared += compared.compared;
                found.missing += compared.missing;
                found.duplicated += compared.duplicated;
                if compared.missing > 0 {
                    break;
                }
                from = expected.next;
                self.log.commit(GROUP, check.topic, partition, from).await?;
            }
        }
        Ok(found)
    }

    /// The records from an offset on, at most [`CHUNK`].
    async fn expected(
        &self,
        topic: &'static str,
        partition: u32,
        from: u64,
        end: u64,
    ) -> anyhow::Result<Option<Expected>> {
        let mut expected =
            Expected { next: from, first_ms: i64::MAX, last_ms: i64::MIN, ..Expected::default() };
        while expected.next < end && expected.offsets.len() < CHUNK {
            let records =
                match self.log.read(topic, partition, expected.next, READ_RECORDS, Duration::ZERO).await {
                    Err(LogError::OffsetOutOfRange { start, .. }) if start > expected.next => {
                        expected.next = start;
                        continue;
                    }
                    records => records?,
                };
            let Some(last) = records.last() else { break };
            expected.next = (last.offset + 1).min(end);
            // Decoding is work: not on the threads that answer.
            let times = tokio::task::spawn_blocking(move || -> Vec<(u64, i64)> {
                let before = records.iter().filter(|record| record.offset < end);
                before.filter_map(|r| Some((r.offset, time_ms(topic, &r.value)?))).collect()
            })
            .await?;
            for (offset, ms) in times {
                expected.first_ms = expected.first_ms.min(ms);
                expected.last_ms = expected.last_ms.max(ms);
                expected.offsets.push(offset);
            }
        }
        Ok((expected.next > from).then_some(expected))
    }

    async fn compare(
        &self,
        check: &Check,
        partition: u32,
        from: u64,
        expected: &Expected,
    ) -> anyhow::Result<Found> {
        let mut found = Found { compared: expected.offsets.len() as u64, ..Found::default() };
        if expected.offsets.is_empty() {
            return Ok(found);
        }
        for (table, place, time) in check.tables {
            let rows = format!(
                "FROM {table} WHERE {place}_partition = {partition} AND {place}_offset >= {from}
                 AND {place}_offset < {} AND {time} >= fromUnixTimestamp64Milli({}, 'UTC')
                 AND {time} <= fromUnixTimestamp64Milli({}, 'UTC')",
                expected.next, expected.first_ms, expected.last_ms
            );
            let sum = expected.offsets.iter().fold(0_u64, |sum, offset| sum.wrapping_add(*offset));
            let totals = self.numbers(&format!("SELECT count(), sum({place}_offset) {rows}")).await?;
            if totals == [[expected.offsets.len() as u64, sum]] {
                continue;
            }
            let sql = format!("SELECT {place}_offset AS o, count() {rows} GROUP BY o ORDER BY o");
            let stored = self.numbers(&sql).await?;
            found.duplicated += stored.iter().map(|[_, count]| count - 1).sum::<u64>();
            let is_stored = |offset: &u64| stored.binary_search_by_key(offset, |[o, _]| *o).is_ok();
            let missing: Vec<&u64> = expected.offsets.iter().filter(|offset| !is_stored(offset)).collect();
            found.missing += missing.len() as u64;
            if let Some(first) = missing.first() {
                tracing::warn!(
                    table,
                    topic = check.topic,
                    partition,
                    first_offset = first,
                    records = missing.len(),
                    "records of the log are not in ClickHouse"
                );
            }
        }
        Ok(found)
    }

    async fn numbers(&self, sql: &str) -> anyhow::Result<Vec<[u64; 2]>> {
        let rows = self.server.rows(sql, Database::Ours).await?;
        let number = |row: &[serde_json::Value], at: usize| row.get(at).and_then(serde_json::Value::as_u64);
        Ok(rows.iter().filter_map(|row| Some([number(row, 0)?, number(row, 1)?])).collect())
    }
}

/// The time of a record's row, in milliseconds; nothing when it cannot be decoded.
fn time_ms(topic: &str, value: &[u8]) -> Option<i64> {
    let us = match topic {
        topics::CREATED => Transaction::decode(value).ok()?.accepted_at_us,
        topics::ALERTS => Alert::decode(value).ok()?.raised_at_us,
        _ => Label::decode(value).ok()?.labelled_at_us,
    };
    Some(crate::rows::millis(us))
}
