//! An accepted transaction, read back from the log by the position the ledger has.

use std::time::Duration;

use eventlog::{LogError, LoggedRecord, Position};
use events::{Decided, Transaction, TransactionId, topics};

use crate::accept::ledger_failed;
use crate::auth::Caller;
use crate::ledger::{DecidedAt, Entry};
use crate::problem::{self, Kind, Problem};
use crate::state::{Shared, unavailable};

/// A transaction with its decision, or still without.
pub(crate) enum Stored {
    Decided(Box<Decided>),
    Pending(Box<Transaction>),
}

impl Stored {
    pub(crate) async fn read(app: &Shared, id: TransactionId, entry: &Entry) -> Result<Self, Problem> {
        match app.ledger.decided(id).map_err(|e| ledger_failed(&e))? {
            Some(DecidedAt { position, .. }) => {
                let record = read(app, topics::DECIDED, position).await?;
                Ok(Self::Decided(Box::new(decode(&record)?)))
            }
            None => {
                let record = read(app, topics::CREATED, entry.created).await?;
                Ok(Self::Pending(Box::new(decode(&record)?)))
            }
        }
    }
}

/// The ledger's entry of a caller's own transaction; that of another merchant, or of the other mode, is
/// not there for them.
pub(crate) fn own_entry(app: &Shared, caller: &Caller, id: &str) -> Result<(TransactionId, Entry), Problem> {
    let not_found = || Problem::new(Kind::NotFound, "You have no transaction of this id.");
    let id: TransactionId = id.parse().map_err(|_| not_found())?;
    let entry = app.ledger.get(id).map_err(|e| ledger_failed(&e))?;
    entry
        .filter(|entry| entry.merchant == caller.merchant && entry.livemode == caller.livemode)
        .map(|entry| (id, entry))
        .ok_or_else(not_found)
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
