//! An accepted transaction, read back from the log by the position the ledger has.

use std::time::Duration;

use eventlog::{LogError, LoggedRecord, Position};
use events::{Decided, Transaction, TransactionId, topics};

use tokio::time::Instant;

use crate::accept::ledger_failed;
use crate::answer::{self, Progress};
use crate::auth::Caller;
use crate::ledger::{DecidedAt, Entry};
use crate::problem::{self, Kind, Problem};
use crate::replicas::Known;
use crate::state::{Shared, unavailable};

/// A transaction with its decision, as its merchant is told of it, or still without.
pub(crate) enum Stored {
    Decided(Vec<u8>),
    Pending(Box<Transaction>),
}

impl Stored {
    /// Redis first: it may know of a decision sooner, and a record of a log elsewhere takes longer to get.
    pub(crate) async fn read(app: &Shared, id: TransactionId, known: Known) -> Result<Self, Problem> {
        let Known { entry, mut view } = known;
        if let (None, Some(redis)) = (&view, &app.redis) {
            view = redis.view(id).await;
        }
        if let Some(view) = view {
            return Ok(Self::Decided(view));
        }
        match app.ledger.decided(id).map_err(|e| ledger_failed(&e))? {
            Some(DecidedAt { position, .. }) => {
                let record = read(app, topics::DECIDED, position).await?;
                let Decided { transaction, decision, decided_at_us, .. } = decode(&record)?;
                let progress = Progress::Decided { decision: &decision, decided_at_us };
                Ok(Self::Decided(answer::body(&transaction, &progress)))
            }
            None => Ok(Self::Pending(Box::new(transaction(app, &entry).await?))),
        }
    }
}

/// The transaction as it was accepted.
pub(crate) async fn transaction(app: &Shared, entry: &Entry) -> Result<Transaction, Problem> {
    decode(&read(app, topics::CREATED, entry.created).await?)
}

/// What is known of a caller's own transaction; that of another merchant, or of the other mode, is not there
/// for them.
pub(crate) async fn own(app: &Shared, caller: &Caller, id: &str) -> Result<(TransactionId, Known), Problem> {
    let not_found = || Problem::new(Kind::NotFound, "You have no transaction of this id.");
    let id: TransactionId = id.parse().map_err(|_| not_found())?;
    let known = find(app, id).await?;
    known
        .filter(|known| known.entry.merchant == caller.merchant && known.entry.livemode == caller.livemode)
        .map(|known| (id, known))
        .ok_or_else(not_found)
}

/// The ledger, then Redis, then the ledger once it has what another replica accepted a moment ago.
async fn find(app: &Shared, id: TransactionId) -> Result<Option<Known>, Problem> {
    let in_ledger = || app.ledger.get(id).map(|entry| entry.map(Known::from)).map_err(|e| ledger_failed(&e));
    let known = in_ledger()?;
    let (None, Some(follower)) = (&known, &app.follower) else { return Ok(known) };
    if let Some(redis) = &app.redis
        && let Some(known) = redis.known(id).await
    {
        return Ok(Some(known));
    }
    let patience = Duration::from_millis(app.config.append_deadline_ms);
    if follower.reach_end(Instant::now() + patience).await {
        return in_ledger();
    }
    Err(unavailable("The status of transactions cannot be read from the log now. Try again."))
}

async fn read(app: &Shared, topic: &'static str, at: Position) -> Result<LoggedRecord, Problem> {
    match app.log.read(topic, at.partition, at.offset, 1, Duration::ZERO).await {
        Ok(records) => records.into_iter().next().ok_or_else(gone),
        Err(LogError::OffsetOutOfRange { .. }) => Err(gone()),
        Err(error) => {
            tracing::error!(%error, topic, "a transaction could not be read from the log");
            Err(unavailable("The transaction cannot be read now. Try again."))
        }
    }
}

fn gone() -> Problem {
    Problem::new(Kind::Gone, "The transaction was accepted; its record is no longer kept here.")
}

fn decode<M: events::Message>(record: &LoggedRecord) -> Result<M, Problem> {
    M::decode(&record.value).map_err(|error| {
        tracing::error!(%error, offset = record.offset, "a transaction in the log cannot be decoded");
        problem::internal()
    })
}
