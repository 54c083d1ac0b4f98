//! The tail of `transactions.decided`: where each decision stands goes to the ledger, the decision
//! itself to the request that waits for it.

use std::time::{Duration, SystemTime};

use eventlog::{LogError, LoggedRecord, Position};
use events::{Decided, Decision, Message as _, topics};
use runtime::trace::{self, TraceContext};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::ledger::Reader;
use crate::pending::Verdict;
use crate::state::App;

/// The consumer group the log knows the gateway by.
const GROUP: &str = "gateway";
/// The name of the span of a decision that was read.
const RECEIVE: &str = "receive transactions.decided";
const READ_RECORDS: usize = 512;
const WAIT: Duration = Duration::from_millis(500);
const RETRY: Duration = Duration::from_millis(200);
/// How often the log is told how far the gateway has read. For onlookers: the ledger has its own marks.
const COMMIT_INTERVAL: Duration = Duration::from_secs(5);

/// A decided record without its transaction, which the waiting request has already.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    v: u16,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    decided_at_us: i64,
    decision: Decision,
}

/// Follows the topic until `stop`, then reads once more what is there.
pub(crate) async fn tail(app: &App, stop: &CancellationToken) {
    let mut next = Vec::new();
    let mut ready = None;
    let mut committed = tokio::time::Instant::now();
    loop {
        let stopping = stop.is_cancelled();
        match round(app, &mut next, ready.take(), stopping).await {
            Ok(()) if stopping => break,
            Ok(()) => {}
            Err(error) => {
                tracing::warn!(%error, "decisions cannot be read from the log: trying again");
                if stopping || tokio::time::timeout(RETRY, stop.cancelled()).await.is_ok() {
                    break;
                }
            }
        }
        if committed.elapsed() >= COMMIT_INTERVAL {
            committed = tokio::time::Instant::now();
            commit(app, &next).await;
        }
        tokio::select! {
            waited = wait(app, &next) => match waited {
                Ok(partitions) => ready = Some(partitions),
                // The next round shows what is wrong; without a pause it could come round at once.
                Err(_) => {
                    let _ = tokio::time::timeout(RETRY, stop.cancelled()).await;
                }
            },
            () = stop.cancelled() => {}
        }
    }
    commit(app, &next).await;
}

async fn wait(app: &App, next: &[u64]) -> Result<Vec<u32>, LogError> {
    app.log.wait_for_any(topics::DECIDED, &Position::of_all(next), WAIT).await
}

/// Reads from the partitions that have something, or from all when that is not known or this is the last round.
async fn round(
    app: &App,
    next: &mut Vec<u64>,
    ready: Option<Vec<u32>>,
    everything: bool,
) -> anyhow::Result<()> {
    if next.is_empty() {
        for partition in 0..app.log.partitions(topics::DECIDED)? {
            next.push(app.ledger.mark(Reader::Decided, partition)?);
        }
    }
    let ready = ready.filter(|_| !everything);
    for (partition, next) in (0_u32..).zip(next) {
        if ready.as_ref().is_some_and(|ready| !ready.contains(&partition)) {
            continue;
        }
        loop {
            let read = app.log.read(topics::DECIDED, partition, *next, READ_RECORDS, Duration::ZERO).await;
            let records = match read {
                Ok(records) => records,
                Err(LogError::OffsetOutOfRange { start, end, .. }) => {
                    tracing::warn!(
                        partition,
                        from = *next,
                        start,
                        end,
                        "decisions were removed before they were read"
                    );
                    *next = start.min(end);
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            let full = records.len() == READ_RECORDS;
            deliver(app, partition, &records, next)?;
            // While running, no partition keeps the others waiting.
            if !(everything && full) {
                break;
            }
        }
    }
    Ok(())
}

/// The ledger first: a retry that finds no decision there is then sure to be found waiting.
fn deliver(app: &App, partition: u32, records: &[LoggedRecord], next: &mut u64) -> anyhow::Result<()> {
    let Some(last) = records.last() else { return Ok(()) };
    let read_at = SystemTime::now();
    let decided: Vec<(&LoggedRecord, Data)> =
        records.iter().filter_map(|record| Some((record, decode(app, partition, record)?))).collect();
    let positions = decided.iter().map(|(record, Data { decision, .. })| {
        (decision.transaction_id, record.offset, decision.window_time_us)
    });
    app.ledger.insert_decided(partition, positions, last.offset + 1)?;
    *next = last.offset + 1;
    for (record, Data { decision, decided_at_us }) in decided {
        if let Some(waiter) = app.pending.waiter(decision.transaction_id) {
            // A request that has gone in the meantime needs no answer.
            let _ = waiter.send(Verdict { decision, decided_at_us });
            if let Some(parent) = TraceContext::of_headers(&record.headers) {
                note_receipt(parent, read_at);
            }
        }
    }
    Ok(())
}

/// Of a sampled decision: from when it was read until the request that waits for it is told.
fn note_receipt(parent: TraceContext, read_at: SystemTime) {
    drop(
        trace::child("gateway", trace::Kind::Consumer, RECEIVE, parent).map(|span| span.started_at(read_at)),
    );
}

fn decode(app: &App, partition: u32, record: &LoggedRecord) -> Option<Data> {
    match serde_json::from_slice::<Envelope<'_>>(&record.value) {
        Ok(envelope) if envelope.kind == Decided::TYPE && envelope.v == Decided::VERSION => {
            Some(envelope.data)
        }
        _ => {
            tracing::error!(
                partition,
                offset = record.offset,
                "an undecodable decision: its request is degraded"
            );
            app.metrics.undecodable.with_label_values(&[topics::DECIDED]).inc();
            None
        }
    }
}

async fn commit(app: &App, next: &[u64]) {
    for (partition, &offset) in (0_u32..).zip(next) {
        if let Err(error) = app.log.commit(GROUP, topics::DECIDED, partition, offset).await {
            tracing::warn!(%error, partition, "the log did not take the gateway's position");
        }
    }
}
