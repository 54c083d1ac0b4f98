//! What reconciliation asks of ClickHouse.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::buffer::Buffer;
use datafusion::arrow::ipc::reader::StreamDecoder;
use eventlog::{EventLog, Position};
use tokio::time::Instant;

use super::GROUP;
use super::server::{Database, Server};
use crate::positions::Positions;
use crate::reconcile::{Stored, ViewTotals, Visit};

const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// How long the server may say nothing while it sends an answer.
const STALL: Duration = Duration::from_secs(60);

/// Each view's table, with what it adds up: rows and an amount, and the same over the table it is made from.
const VIEWS: [(&str, &str, &str, &str, &str); 4] = [
    ("decisions_per_minute", "transactions", "amount_minor", "decisions", "amount_minor"),
    ("decisions_per_day", "transactions", "amount_minor", "decisions", "amount_minor"),
    ("alerts_per_minute", "alerts", "amount_minor", "alerts", "amount_minor"),
    ("rule_hits_per_minute", "hits", "points", "rule_hits", "points"),
];

/// The warehouse on ClickHouse, with the log it is filled from.
#[derive(Clone)]
pub struct ClickHouseStored {
    server: Server,
    log: Arc<dyn EventLog>,
    is_running: bool,
}

impl std::fmt::Debug for ClickHouseStored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClickHouseStored").field("server", &self.server).finish_non_exhaustive()
    }
}

impl ClickHouseStored {
    /// The tables of a server. `is_running` says whether a service may still be filling them: then
    /// differences are looked at again before they are reported.
    pub fn new(server: Server, log: Arc<dyn EventLog>, is_running: bool) -> Self {
        Self { server, log, is_running }
    }

    async fn is_behind(&self, goal: &Positions) -> anyhow::Result<bool> {
        for (topic, partitions) in goal.iter() {
            for (partition, &end) in (0..).zip(partitions) {
                if unconfirmed(&*self.log, topic, partition, end).await? > 0 {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

/// How many offsets before `end` are not known to be in ClickHouse; 0 when no record is left there.
pub(crate) async fn unconfirmed(
    log: &dyn EventLog,
    topic: &str,
    partition: u32,
    end: u64,
) -> anyhow::Result<u64> {
    let (start, _) = log.bounds(topic, partition).await?;
    let offset = log.committed(GROUP, topic, partition).await?.unwrap_or(start).max(start);
    if offset >= end {
        return Ok(0);
    }
    // The last offsets of a partition may be none of records.
    let left = log.wait_for_any(topic, &[Position { partition, offset }], Duration::ZERO).await?;
    Ok(if left.is_empty() { 0 } else { end - offset })
}

#[async_trait]
impl Stored for ClickHouseStored {
    fn is_running(&self) -> bool {
        self.is_running
    }

    async fn wait_for(&self, goal: &Positions, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        loop {
            match self.is_behind(goal).await {
                Ok(false) => return true,
                Ok(true) => {}
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(error, "cannot see how far ClickHouse is");
                }
            }
            if Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(LOOK_AGAIN.min(wait)).await;
        }
    }

    async fn visit(&self, sql: &'static str, mut visit: Visit) -> anyhow::Result<()> {
        let settings = [
            ("output_format_arrow_string_as_string", "1".to_owned()),
            ("output_format_arrow_low_cardinality_as_dictionary", "0".to_owned()),
            ("output_format_arrow_compression_method", "none".to_owned()),
            ("max_execution_time", "0".to_owned()),
        ];
        let explain = |error| self.server.explain(error);
        let mut answer =
            self.server.cursor(sql, Database::Ours, "ArrowStream", &settings).map_err(explain)?;
        let mut decoder = StreamDecoder::new();
        loop {
            let chunk = tokio::time::timeout(STALL, answer.next())
                .await
                .with_context(|| format!("ClickHouse has said nothing for {STALL:?}"))?
                .map_err(explain)?;
            let Some(chunk) = chunk else { break };
            let mut buffer = Buffer::from(chunk);
            while !buffer.is_empty() {
                if let Some(batch) =
                    decoder.decode(&mut buffer).context("reading ClickHouse's Arrow stream")?
                {
                    visit(&batch as &RecordBatch);
                }
            }
        }
        decoder.finish().context("ClickHouse's answer was cut off")
    }

    async fn views(&self) -> anyhow::Result<Vec<ViewTotals>> {
        let mut totals = Vec::new();
        for (view, count, amount, table, of) in VIEWS {
            let sql = format!(
                "SELECT (SELECT tuple(toUInt64(count()), toInt64(sum({of}))) FROM {table}) AS t,
                    (SELECT tuple(toUInt64(sum({count})), toInt64(sum({amount}))) FROM {view}) AS v,
                    t.1, t.2, v.1, v.2"
            );
            let rows = self.server.rows(&sql, Database::Ours).await?;
            let row = rows.first().filter(|row| row.len() == 6).context("no totals were answered")?;
            let count = |at: usize| row[at].as_u64().unwrap_or_default();
            let amount = |at: usize| row[at].as_i64().unwrap_or_default();
            totals.push(ViewTotals {
                view,
                table,
                rows: count(2),
                amount: amount(3),
                rows_in_view: count(4),
                amount_in_view: amount(5),
            });
        }
        Ok(totals)
    }
}
