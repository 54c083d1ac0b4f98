//! Whether all stages hold the same transactions: accepted by the gateway, in the log, decided, stored.
//!
//! Everything is compared by id. On a running system a cut is made: the ids accepted so far, and where
//! `transactions.created` ends after that; what comes later is not looked at, and the later stages are
//! given time to get past the cut.

mod stored;
mod tally;

use std::time::Duration;

use anyhow::Context as _;
use datafusion::arrow::array::{AsArray as _, RecordBatch};
use datafusion::arrow::datatypes::{UInt32Type, UInt64Type};
use eventlog::{EventLog, LogError, Position};
use events::{Message, Transaction, TransactionId, topics};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

pub use self::stored::{Stored, ViewTotals, Visit};
pub use self::tally::compare;
use self::tally::{Stage, Tally};
use crate::positions::{Positions, TOPICS};
use crate::queries;

/// How long decisions and rows may take to get past the cut.
const CATCH_UP: Duration = Duration::from_secs(30);
/// On a running system a disagreement is looked at again, with a later cut, before it is reported.
const ATTEMPTS: usize = 3;
const READ_RECORDS: usize = 512;

/// What reconciliation found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Transactions the gateway accepted and all stages still cover.
    pub accepted: u64,
    /// Their records on `transactions.created`.
    pub logged: u64,
    /// Their records on `transactions.decided`.
    pub decided: u64,
    /// Their rows in the warehouse's table `decisions`.
    pub stored: u64,
    /// Transactions that some stage lacks.
    pub missing: u64,
    /// Transactions that some stage has more than once.
    pub duplicated: u64,
    /// Decided or stored, although the log's record says nothing of them.
    pub unexpected: u64,
    /// Logged without an entry of the gateway, which died before it could answer: decided and stored like
    /// the others, and compared, but not counted above.
    pub unacknowledged: u64,
    /// No longer covered by all stages: retention removed their records. Not compared.
    pub not_covered: u64,
    /// Records of `transactions.created` that cannot be decoded, and so are dead letters.
    pub undecodable: u64,
    /// Materialized views that do not add up to their tables.
    pub views_differing: u64,
    /// What does not agree, with examples.
    pub disagreements: Vec<Disagreement>,
    /// The materialized views, where the warehouse has any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub views: Vec<ViewTotals>,
}

/// A kind of disagreement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Disagreement {
    /// Such as `not_decided` or `stored_twice`.
    pub kind: &'static str,
    /// How many transactions.
    pub count: u64,
    /// Some of them: at most 100.
    pub examples: Vec<TransactionId>,
}

impl Report {
    /// Whether every stage holds each transaction exactly once.
    #[must_use]
    pub const fn agrees(&self) -> bool {
        self.missing == 0 && self.duplicated == 0 && self.unexpected == 0 && self.views_differing == 0
    }
}

/// What was accepted.
#[derive(Debug, Clone)]
pub enum Accepted {
    /// What the gateway says, as (id, accept time in microseconds). What the log holds of the time before the
    /// first of them is not compared.
    Listed(Vec<(TransactionId, i64)>),
    /// Nobody kept a list: what `transactions.created` holds.
    AsLogged,
}

impl From<Vec<(TransactionId, i64)>> for Accepted {
    fn from(listed: Vec<(TransactionId, i64)>) -> Self {
        Self::Listed(listed)
    }
}

/// Compares what was accepted with the log and the warehouse.
///
/// # Errors
/// When the log or the warehouse cannot be read, or there are more ids than fit the memory bound.
pub async fn reconcile(
    accepted: impl Into<Accepted> + Send,
    log: &dyn EventLog,
    stored: &dyn Stored,
) -> anyhow::Result<Report> {
    let accepted = accepted.into();
    let attempts = if stored.is_running() { ATTEMPTS } else { 1 };
    let mut report = Report::default();
    for _ in 0..attempts {
        report = attempt(&accepted, log, stored).await?;
        if report.agrees() {
            break;
        }
    }
    Ok(report)
}

async fn attempt(accepted: &Accepted, log: &dyn EventLog, stored: &dyn Stored) -> anyhow::Result<Report> {
    let until = Instant::now() + if stored.is_running() { CATCH_UP } else { Duration::ZERO };
    let mut tally = Tally::default();
    if let Accepted::Listed(listed) = accepted {
        for (id, accepted_at_us) in listed {
            tally.accepted(*id, *accepted_at_us)?;
        }
    }
    let created = Range::of(log, topics::CREATED).await?;
    read_created(log, &created, &mut tally).await.context("reading transactions.created")?;
    if matches!(accepted, Accepted::AsLogged) {
        tally.accept_logged();
    }
    let decided =
        read_decided(log, &created, until, &mut tally).await.context("reading transactions.decided")?;
    tally.log_lost_records(created.has_lost(), decided.has_lost());

    let goal = decided.ends_as_positions();
    let wait = until.saturating_duration_since(Instant::now());
    if !stored.wait_for(&goal, wait).await {
        tracing::warn!("the warehouse has not caught up with the log within {CATCH_UP:?}");
    }
    for (stage, sql) in [
        (Stage::StoredTransaction, queries::STORED_TRANSACTIONS),
        (Stage::StoredDecision, queries::STORED_DECISIONS),
    ] {
        tally = read_stored(stored, sql, stage, created.clone(), tally).await?;
    }
    let views = stored.views().await.context("adding up the materialized views")?;
    let views_differing = views.iter().filter(|view| !view.agrees()).count() as u64;
    Ok(Report { views_differing, views, ..tally.report() })
}

/// The offsets of a topic's partitions that are looked at: from the first kept to the cut.
#[derive(Debug, Clone)]
struct Range {
    topic: &'static str,
    bounds: Vec<(u64, u64)>,
}

impl Range {
    async fn of(log: &dyn EventLog, topic: &'static str) -> Result<Self, LogError> {
        let mut bounds = Vec::new();
        for partition in 0..log.partitions(topic)? {
            bounds.push(log.bounds(topic, partition).await?);
        }
        Ok(Self { topic, bounds })
    }

    fn contains(&self, partition: u32, offset: u64) -> bool {
        self.bounds.get(partition as usize).is_some_and(|(start, end)| (*start..*end).contains(&offset))
    }

    /// Whether retention has removed records.
    fn has_lost(&self) -> bool {
        self.bounds.iter().any(|(start, _)| *start > 0)
    }

    fn ends_as_positions(&self) -> Positions {
        debug_assert!(TOPICS.contains(&self.topic));
        let mut positions = Positions::default();
        for (partition, (_, end)) in (0..).zip(&self.bounds) {
            positions.set(self.topic, partition, *end);
        }
        positions
    }
}

/// The envelope's fields that reconciliation needs; the rest is not parsed into anything.
#[derive(Deserialize)]
struct Envelope<T> {
    #[serde(rename = "type")]
    kind: String,
    v: u16,
    data: T,
}

#[derive(Deserialize)]
struct CreatedId {
    id: TransactionId,
    accepted_at_us: i64,
}

#[derive(Deserialize)]
struct DecidedId {
    source_partition: u32,
    source_offset: u64,
    transaction: CreatedId,
}

fn read_id<M: Message, T: DeserializeOwned>(value: &[u8]) -> Option<T> {
    let envelope: Envelope<T> = serde_json::from_slice(value).ok()?;
    (envelope.kind == M::TYPE && envelope.v == M::VERSION).then_some(envelope.data)
}

/// Hands every record from `from` to `to` to `each`.
async fn scan(
    log: &dyn EventLog,
    topic: &str,
    partition: u32,
    (from, to): (u64, u64),
    mut each: impl FnMut(&[u8]) -> anyhow::Result<()> + Send,
) -> anyhow::Result<()> {
    let mut next = from;
    while next < to {
        let records = log.read(topic, partition, next, READ_RECORDS, Duration::ZERO).await?;
        let Some(last) = records.last() else { break };
        next = last.offset + 1;
        for record in records.iter().filter(|record| record.offset < to) {
            each(&record.value)?;
        }
        // Decoding is work: others on this thread get their turn.
        tokio::task::yield_now().await;
    }
    Ok(())
}

async fn read_created(log: &dyn EventLog, created: &Range, tally: &mut Tally) -> anyhow::Result<()> {
    for (partition, bounds) in (0..).zip(&created.bounds) {
        scan(log, created.topic, partition, *bounds, |value| {
            match read_id::<Transaction, CreatedId>(value) {
                Some(created) => tally.logged(created.id, created.accepted_at_us)?,
                None => tally.undecodable(),
            }
            Ok(())
        })
        .await?;
    }
    Ok(())
}

/// Reads decisions until each logged transaction has one, or until the deadline. Returns what was read.
async fn read_decided(
    log: &dyn EventLog,
    created: &Range,
    until: Instant,
    tally: &mut Tally,
) -> anyhow::Result<Range> {
    let mut read = Range::of(log, topics::DECIDED).await?;
    let mut from: Vec<u64> = read.bounds.iter().map(|(start, _)| *start).collect();
    loop {
        for (partition, ((_, end), next)) in (0..).zip(read.bounds.iter().zip(&mut from)) {
            scan(log, read.topic, partition, (*next, *end), |value| {
                if let Some(decided) = read_id::<events::Decided, DecidedId>(value) {
                    let inside = created.contains(decided.source_partition, decided.source_offset);
                    tally.add(Stage::Decided, decided.transaction.id, inside)?;
                }
                Ok(())
            })
            .await?;
            *next = *end;
        }
        let left = until.saturating_duration_since(Instant::now());
        if tally.undecided() == 0 || left.is_zero() {
            return Ok(read);
        }
        log.wait_for_any(read.topic, &Position::of_all(&from), left.min(Duration::from_secs(1))).await?;
        for (partition, bounds) in (0..).zip(&mut read.bounds) {
            bounds.1 = log.bounds(read.topic, partition).await?.1;
        }
    }
}

async fn read_stored(
    stored: &dyn Stored,
    sql: &'static str,
    stage: Stage,
    created: Range,
    tally: Tally,
) -> anyhow::Result<Tally> {
    // The tally travels to the query's thread and back.
    let shared = std::sync::Arc::new(std::sync::Mutex::new((tally, Ok(()))));
    let inside = std::sync::Arc::clone(&shared);
    let visit = move |batch: &RecordBatch| {
        let mut guard = inside.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (tally, outcome) = &mut *guard;
        let ids = batch.column(0).as_string::<i32>();
        let partitions = batch.column(1).as_primitive::<UInt32Type>();
        let offsets = batch.column(2).as_primitive::<UInt64Type>();
        for row in 0..batch.num_rows() {
            let Ok(id) = ids.value(row).parse() else { continue };
            let covered = created.contains(partitions.value(row), offsets.value(row));
            if let Err(error) = tally.add(stage, id, covered) {
                *outcome = Err(error);
            }
        }
    };
    stored.visit(sql, Box::new(visit)).await.context("reading the stored ids")?;
    let shared = std::sync::Arc::into_inner(shared).context("a query is still running")?;
    let (tally, outcome) = shared.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    outcome?;
    Ok(tally)
}
