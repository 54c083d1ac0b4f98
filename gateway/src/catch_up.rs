//! The ledger learns what the log holds: after a crash between the two writes, after a write of unknown
//! fate, after the loss of the ledger. Without it, a merchant's retry would become a second event.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use eventlog::{LogError, LoggedRecord, Position};
use events::{Message as _, Transaction, topics};
use prometheus::IntCounter;

use crate::ledger::{Entry, Ledger, LedgerError, Reader};
use crate::state::App;

const READ_RECORDS: usize = 512;
/// More offsets than this past a gap, and somebody has to look into the gap.
const AHEAD_MAX: usize = 4_096;

/// How far the ledger has every record of `transactions.created`, by partition.
#[derive(Debug)]
pub(crate) struct Marks(Vec<Mutex<Mark>>);

#[derive(Debug, Default)]
struct Mark {
    /// Every record before it is in the ledger.
    next: u64,
    /// Records past it that are, too.
    ahead: BTreeSet<u64>,
}

impl Marks {
    pub(crate) fn read(ledger: &Ledger, partitions: u32) -> Result<Self, LedgerError> {
        let marks = (0..partitions).map(|partition| {
            let next = ledger.mark(Reader::Created, partition)?;
            Ok(Mutex::new(Mark { next, ahead: BTreeSet::new() }))
        });
        Ok(Self(marks.collect::<Result<_, LedgerError>>()?))
    }

    /// The record at a position is in the ledger.
    pub(crate) fn done(&self, position: Position) {
        self.with(position.partition, |mark| mark.done(position.offset));
    }

    /// Whether the record at a position is in the ledger.
    pub(crate) fn has(&self, position: Position) -> bool {
        let has = |mark: &mut Mark| position.offset < mark.next || mark.ahead.contains(&position.offset);
        self.with(position.partition, has).unwrap_or(false)
    }

    /// Records before `start` are no longer in the log; a mark beyond `end` belongs to a log that is gone.
    fn bring_within(&self, partition: u32, start: u64, end: u64) {
        self.with(partition, |mark| {
            if mark.next > end {
                *mark = Mark::default();
            }
            mark.skip_to(start);
        });
    }

    fn next(&self, partition: u32) -> u64 {
        self.with(partition, |mark| mark.next).unwrap_or(0)
    }

    /// The marks, to be kept.
    pub(crate) fn snapshot(&self) -> Vec<u64> {
        self.0.iter().map(|mark| mark.lock().unwrap_or_else(PoisonError::into_inner).next).collect()
    }

    /// Whether a gap holds a mark back: a record that this gateway did not write.
    pub(crate) fn held_back(&self) -> bool {
        self.0.iter().any(|mark| mark.lock().unwrap_or_else(PoisonError::into_inner).ahead.len() > AHEAD_MAX)
    }

    fn with<T>(&self, partition: u32, use_mark: impl FnOnce(&mut Mark) -> T) -> Option<T> {
        let mark = self.0.get(usize::try_from(partition).ok()?)?;
        Some(use_mark(&mut mark.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Mark {
    fn done(&mut self, offset: u64) {
        if offset > self.next {
            self.ahead.insert(offset);
        } else if offset == self.next {
            self.skip_to(offset + 1);
        }
    }

    fn skip_to(&mut self, offset: u64) {
        self.next = self.next.max(offset);
        while let Some(&first) = self.ahead.first() {
            if first > self.next {
                break;
            }
            self.ahead.pop_first();
            self.next = self.next.max(first + 1);
        }
    }
}

/// Why the ledger does not know all of the log.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CatchUpError {
    #[error("reading the accepted transactions: {0}")]
    Log(#[from] LogError),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// Brings every transaction that is in the log now into the ledger. Returns whether it could: a request
/// under way keeps its own, and the caller asks again.
pub(crate) async fn catch_up(app: &App) -> Result<bool, CatchUpError> {
    let mut complete = true;
    let oldest_us = app.retention_start_us();
    let partitions = app.log.partitions(topics::CREATED)?;
    for partition in 0..partitions {
        let (start, end) = app.log.bounds(topics::CREATED, partition).await?;
        app.marks.bring_within(partition, start, end);
        let mut from = app.marks.next(partition);
        while from < end {
            let records =
                app.log.read(topics::CREATED, partition, from, READ_RECORDS, Duration::ZERO).await?;
            let Some(last) = records.last() else { break };
            from = last.offset + 1;
            for record in &records {
                complete &= take(app, partition, record, oldest_us, &app.metrics.ledger_recovered)?;
            }
        }
    }
    app.ledger.set_created_marks(&app.marks.snapshot())?;
    Ok(complete)
}

/// One record of the log. Returns whether the ledger has it now: not while a request of this gateway may be
/// the one that writes it.
pub(crate) fn take(
    app: &App,
    partition: u32,
    record: &LoggedRecord,
    oldest_us: i64,
    taken: &IntCounter,
) -> Result<bool, CatchUpError> {
    let position = Position { partition, offset: record.offset };
    let transaction = match Transaction::decode(&record.value) {
        Ok(transaction) => transaction,
        Err(error) => {
            // The analyzer puts it aside as a dead letter; nobody can retry it here.
            tracing::warn!(partition, offset = record.offset, %error, "an undecodable transaction in the log");
            app.metrics.undecodable.with_label_values(&[topics::CREATED]).inc();
            app.marks.done(position);
            return Ok(true);
        }
    };
    let id = transaction.id;
    if transaction.accepted_at_us >= oldest_us && !app.ledger.contains(id)? {
        let claim = app.pending.claim(id, None);
        if claim.is_err() && app.pending.may_write(id) {
            return Ok(false);
        }
        // Its own request may have written it and let go between the lines above.
        if !app.ledger.contains(id)? {
            app.ledger.insert(id, &Entry::of(&transaction, position, true))?;
            taken.inc();
        }
    }
    app.marks.done(position);
    Ok(true)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn marks() -> Marks {
        Marks(vec![Mutex::default()])
    }

    proptest! {
        #[test]
        fn a_mark_stands_at_the_first_record_that_is_not_done(
            order in Just((0_u64..64).collect::<Vec<_>>()).prop_shuffle(),
            done in 0_usize..64,
        ) {
            let marks = marks();
            for &offset in &order[..done] {
                marks.done(Position { partition: 0, offset });
            }
            let first_missing = (0..64).find(|offset| !order[..done].contains(offset)).unwrap();
            prop_assert_eq!(marks.snapshot(), vec![first_missing]);
        }
    }

    #[test]
    fn records_that_retention_took_hold_nothing_back() {
        let marks = marks();
        for offset in [5, 6, 9] {
            marks.done(Position { partition: 0, offset });
        }
        marks.bring_within(0, 5, 10);
        assert_eq!(marks.snapshot(), [7]);
        marks.bring_within(0, 3, 10);
        assert_eq!(marks.snapshot(), [7], "a mark does not move back within its log");
        marks.bring_within(0, 1, 4);
        assert_eq!(marks.snapshot(), [1], "a new log is read from its start");
        marks.done(Position { partition: 9, offset: 0 });
    }
}
