//! One replica at a time per idempotency key, and no second record of one transaction.
//!
//! A replica claims the id in Redis before it writes. What it may do then depends on how much the answer says:
//!
//! | Redis says | and then |
//! |---|---|
//! | first, and it vouches for that | write |
//! | first, but it was away a moment ago | read the log to its end, then write or answer for what is there |
//! | ours, after a claim that ran out | the same: its replica may have written and died |
//! | nothing: it is away | the same |
//! | another replica is at it | 409, or 422 for another request |
//! | accepted | answer for it |

use std::sync::Arc;
use std::time::Duration;

use events::{Transaction, TransactionId};
use tokio::time::Instant;

use super::{Known, Operation, Redis, Write, known};
use crate::accept::{ledger_failed, other_request, refuse_busy};
use crate::pending::Busy;
use crate::problem::Problem;
use crate::state::{App, unavailable};
use crate::tokenise::Fingerprints;

/// Of a lease: how often it is renewed, and how long reading the log may take under it.
const LEASE_PARTS: u32 = 3;

/// What a request may do.
pub(crate) enum Turn {
    /// Write the transaction.
    Write(Option<Ticket>),
    /// Answer for the one that was accepted before.
    Replay(Box<Known>),
}

/// Waits for the turn of a transaction that the ledger does not know.
pub(crate) async fn take_turn(
    app: &App,
    transaction: &Transaction,
    fingerprints: &Fingerprints,
) -> Result<Turn, Problem> {
    let (Some(follower), Some(_)) = (&app.follower, &transaction.idempotency_key) else {
        return Ok(Turn::Write(None));
    };
    let id = transaction.id;
    let (ticket, answer) = match &app.redis {
        None => (None, Answer::Unsure),
        Some(redis) => {
            let (ticket, answer) = Ticket::claim(redis, id, &transaction.request_fingerprint).await;
            (Some(ticket), answer)
        }
    };
    match answer {
        Answer::First => return Ok(Turn::Write(ticket)),
        Answer::Unsure => {}
        Answer::Busy { fingerprint } => {
            let same = fingerprints.matches(&fingerprint);
            return Err(refuse_busy(if same { Busy::Same } else { Busy::Other }));
        }
        Answer::Accepted(known) => return same_request(*known, fingerprints),
    }
    let patience = Duration::from_millis(app.config.append_deadline_ms);
    let patience = app.redis.as_ref().map_or(patience, |redis| patience.min(redis.lease / LEASE_PARTS));
    if !follower.reach_end(Instant::now() + patience).await {
        return Err(unavailable(
            "Whether this idempotency key was used before cannot be read from the log now. Nothing was \
             accepted; try again with the same key.",
        ));
    }
    match app.ledger.get(id).map_err(|e| ledger_failed(&e))? {
        Some(entry) => {
            if let Some(redis) = &app.redis {
                // Whoever wrote it did not come to say so.
                redis.accepted(id, &entry, true);
            }
            same_request(entry.into(), fingerprints)
        }
        None => Ok(Turn::Write(ticket)),
    }
}

fn same_request(known: Known, fingerprints: &Fingerprints) -> Result<Turn, Problem> {
    if fingerprints.matches(&known.entry.fingerprint) {
        return Ok(Turn::Replay(Box::new(known)));
    }
    Err(other_request())
}

enum Answer {
    /// Nobody has written it, and nobody else does.
    First,
    /// Nobody else is known to be at it, and it may be in the log.
    Unsure,
    Busy {
        fingerprint: String,
    },
    Accepted(Box<Known>),
}

/// A claim on an id. Dropped before the write it is given up; dropped by a write that did not come to its
/// end, it says that the log has to be asked.
pub(crate) struct Ticket {
    redis: Arc<Redis>,
    id: TransactionId,
    owner: String,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Claimed,
    Writing,
    Settled,
}

impl Ticket {
    async fn claim(redis: &Arc<Redis>, id: TransactionId, fingerprint: &str) -> (Self, Answer) {
        // There before Redis is asked: one that answers too late has claimed all the same.
        let mut ticket = Self { redis: redis.clone(), id, owner: redis.owner(), stage: Stage::Claimed };
        // Seen before the answer: what became unsure meanwhile counts as such.
        let vouches = redis.vouches();
        let mut command = redis.client.scripts.claim.command(&[&redis.entry_key(id), &redis.view_key(id)]);
        command.arg(&ticket.owner).arg(fingerprint);
        command.arg(millis(redis.lease)).arg(redis.client.config.entry_ttl_ms());
        let asked: Option<Vec<Option<Vec<u8>>>> = redis.client.ask(Operation::Claim, &command).await;
        let Some(parts) = asked else { return (ticket, Answer::Unsure) };
        let mut parts = parts.into_iter().map(Option::unwrap_or_default);
        let (answer, text, view) = (parts.next(), parts.next(), parts.next());
        let text = text.and_then(|text| String::from_utf8(text).ok()).unwrap_or_default();
        let answer = match answer.as_deref() {
            Some(b"first") if vouches => Answer::First,
            Some(b"accepted") => match known::parse(&text) {
                Some(entry) => {
                    let view = view.filter(|view| !view.is_empty());
                    Answer::Accepted(Box::new(Known { entry, view }))
                }
                None => Answer::Unsure,
            },
            Some(b"busy") => {
                let fingerprint = text.splitn(4, '|').nth(3).unwrap_or_default().to_owned();
                Answer::Busy { fingerprint }
            }
            _ => Answer::Unsure,
        };
        if matches!(answer, Answer::Busy { .. } | Answer::Accepted(_)) {
            ticket.stage = Stage::Settled;
        }
        (ticket, answer)
    }

    /// Runs the write, and keeps the claim from running out under it.
    pub(crate) async fn hold<T>(ticket: &mut Option<Self>, write: impl Future<Output = T>) -> T {
        let Some(ticket) = ticket else { return write.await };
        ticket.stage = Stage::Writing;
        let mut write = std::pin::pin!(write);
        loop {
            tokio::select! {
                written = &mut write => return written,
                () = tokio::time::sleep(ticket.redis.lease / LEASE_PARTS) => {}
            }
            let (redis, lease) = (&ticket.redis, ticket.redis.lease);
            let mut command = redis.client.scripts.amend.command(&[&redis.entry_key(ticket.id)]);
            command.arg(&ticket.owner).arg(millis(lease));
            // One that cannot be renewed runs out, and whoever comes next reads the log.
            let _: Option<i64> = redis.client.ask(Operation::Amend, &command).await;
        }
    }

    /// The log took nothing: another may try at once.
    pub(crate) fn nothing_written(mut self) {
        self.stage = Stage::Claimed;
    }

    /// An entry takes the claim's place.
    pub(crate) fn settled(mut self) {
        self.stage = Stage::Settled;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let lease_ms = match self.stage {
            Stage::Settled => return,
            Stage::Claimed => -1,
            Stage::Writing => 0,
        };
        let key = self.redis.entry_key(self.id);
        let amend = Write::Amend { key, owner: std::mem::take(&mut self.owner), lease_ms };
        self.redis.writes.put(&self.redis.client, amend);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
