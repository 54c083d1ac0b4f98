//! From the bytes of a request to an answer.
//!
//! The order is the promise: validated, then claimed (one request per id at a time), then durable in
//! the log, then in the ledger, and only then 2xx. The write runs in a task of its own: a merchant who
//! hangs up after the request was read changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use bytes::Bytes;
use eventlog::{LogError, NewRecord, Position};
use events::{
    Address, Card, CardToken, Customer, Device, Location, Message as _, Transaction, TransactionId, topics,
};
use runtime::scope;
use runtime::trace::{self, Span, TraceContext};
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::{timeout, timeout_at};

use crate::answer::{self, Answer, Progress};
use crate::auth::Caller;
use crate::ledger::Entry;
use crate::pending::{Busy, Claim, Verdict};
use crate::problem::{self, Kind, Problem};
use crate::replicas::Known;
use crate::replicas::claims::{Ticket, Turn, take_turn};
use crate::request::{self, Form, Submission};
use crate::state::{App, Shared, unavailable};
use crate::stored::Stored;
use crate::tokenise::Fingerprints;

/// The name of the span of a write to the log.
const SEND: &str = "send transactions.created";

/// How a transaction was submitted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) caller: &'a Caller,
    pub(crate) form: Form,
    pub(crate) header_key: Option<&'a [u8]>,
    /// The merchant asked not to wait for the decision.
    pub(crate) asynchronous: bool,
    /// What the request's own deadline counts from.
    pub(crate) started: Instant,
    /// When it is answered at the latest, decided or not.
    pub(crate) latest: Instant,
}

/// The id of a valid request, held, and what its decision will come through.
struct Held {
    id: TransactionId,
    claim: Claim,
    fingerprints: Fingerprints,
    decision: oneshot::Receiver<Verdict>,
    until: Instant,
}

enum Work {
    /// To be written.
    New(Arc<Transaction>),
    /// Accepted before under the same key.
    Replay(Entry),
}

/// Accepts one transaction, or answers for the one accepted before under the same key.
pub(crate) async fn submit(app: &App, body: &[u8], call: &Call<'_>) -> Result<Answer, Problem> {
    app.check_open()?;
    let (work, held) = claim(app, body, call)?;
    scope::within_transaction(held.id, settle(app, work, held, call)).await
}

async fn settle(app: &App, work: Work, held: Held, call: &Call<'_>) -> Result<Answer, Problem> {
    let transaction = match work {
        Work::Replay(entry) => return replay(app, held, entry.into(), call).await,
        Work::New(transaction) => transaction,
    };
    let ticket = match take_turn(app, &transaction, &held.fingerprints).await? {
        Turn::Replay(known) => return replay(app, held, *known, call).await,
        Turn::Write(ticket) => ticket,
    };
    // Held by the write too, so that a retry waits for it even when this request is dropped.
    let store = store(app.clone(), transaction.clone(), held.claim.clone(), ticket);
    let write = tokio::spawn(scope::carried(store));
    match timeout(Duration::from_millis(app.config.append_deadline_ms), write).await {
        Ok(Ok(stored)) => stored?,
        Ok(Err(_panicked)) => return Err(problem::internal()),
        Err(_elapsed) => {
            return Err(unavailable(
                "The log did not acknowledge the write in time. Try again with the same idempotency key.",
            ));
        }
    }
    answer(app, &transaction, held, call, false).await
}

/// Everything up to the first wait. The card number is wiped when this returns.
fn claim(app: &App, body: &[u8], call: &Call<'_>) -> Result<(Work, Held), Problem> {
    let accepted_at_us = app.clock.now_us();
    let submission = request::parse(body, call.form, call.header_key, accepted_at_us)?;
    let token = app.tokeniser.token(&submission.card.pan);
    let fingerprints =
        app.tokeniser.fingerprints(&submission.card.pan, |token| canonical(&submission, call.caller, token));
    let key = submission.idempotency_key.as_deref();
    let id = key.map_or_else(TransactionId::random, |key| TransactionId::derive(&call.caller.merchant, key));
    // Claimed before the ledger is asked: of two requests with one key, one is seen by the other.
    let (claim, decision) = app.pending.claim(id, Some(fingerprints.active().mac())).map_err(refuse_busy)?;
    // A write of this id may have failed since the first look: it shut the door before it let go.
    app.check_open()?;
    let known = match key {
        Some(_) => app.ledger.get(id).map_err(|e| ledger_failed(&e))?,
        None => None,
    };
    let default = Duration::from_millis(app.config.decision_deadline_default_ms);
    let until = (call.started + submission.deadline.unwrap_or(default)).min(call.latest);
    let work = match known {
        None => {
            let fingerprint = fingerprints.active().to_string();
            Work::New(Arc::new(transaction(
                app,
                submission,
                call.caller,
                id,
                token,
                fingerprint,
                accepted_at_us,
            )))
        }
        Some(entry) => {
            if !fingerprints.matches(&entry.fingerprint) {
                return Err(other_request());
            }
            Work::Replay(entry)
        }
    };
    Ok((work, Held { id, claim, fingerprints, decision, until }))
}

pub(crate) fn refuse_busy(busy: Busy) -> Problem {
    match busy {
        Busy::Same => Problem::new(
            Kind::InProgress,
            "A request with this idempotency key is being worked on. Ask again in a moment.",
        )
        .retry_after_s(1),
        Busy::Other => other_request(),
        Busy::Full => unavailable("Too many transactions are under way. Nothing was accepted; try again."),
    }
}

pub(crate) fn other_request() -> Problem {
    Problem::new(
        Kind::IdempotencyMismatch,
        "This idempotency key was used for another request. Use a new key for a new transaction.",
    )
}

pub(crate) fn ledger_failed(error: &crate::ledger::LedgerError) -> Problem {
    tracing::error!(error = %error, "the ledger could not be read");
    unavailable("The status of transactions cannot be read now. Try again.")
}

/// What identifies a request: all of it but the security code, the deadline and the key itself.
#[derive(Serialize)]
struct Canonical<'a> {
    merchant: &'a str,
    livemode: bool,
    amount: i64,
    currency: &'a str,
    card: &'a str,
    exp_month: u8,
    exp_year: u16,
    customer: &'a Customer,
    device: &'a Device,
    billing: &'a Address,
    shipping: &'a Address,
    location: Option<&'a Location>,
    mcc: Option<&'a str>,
    terminal_id: Option<&'a str>,
    metadata: &'a BTreeMap<String, String>,
}

fn canonical(submission: &Submission, caller: &Caller, token: &CardToken) -> Vec<u8> {
    let canonical = Canonical {
        merchant: caller.merchant.as_str(),
        livemode: caller.livemode,
        amount: submission.amount.get(),
        currency: submission.currency.code(),
        card: token.as_str(),
        exp_month: submission.card.exp_month,
        exp_year: submission.card.exp_year,
        customer: &submission.customer,
        device: &submission.device,
        billing: &submission.billing,
        shipping: &submission.shipping,
        location: submission.location.as_ref(),
        mcc: submission.mcc.as_deref(),
        terminal_id: submission.terminal_id.as_deref(),
        metadata: &submission.metadata,
    };
    let mut bytes = Vec::with_capacity(640);
    serde_json::to_writer(&mut bytes, &canonical).expect("writing to a Vec, string keys, finite numbers");
    bytes
}

fn transaction(
    app: &Shared,
    submission: Submission,
    caller: &Caller,
    id: TransactionId,
    token: CardToken,
    request_fingerprint: String,
    accepted_at_us: i64,
) -> Transaction {
    let pan = &submission.card.pan;
    Transaction {
        id,
        merchant_id: caller.merchant.clone(),
        accepted_at_us,
        livemode: caller.livemode,
        amount_minor: submission.amount,
        currency: submission.currency,
        reporting_amount_minor: app.reporting.convert(submission.amount, submission.currency),
        card: Card {
            token,
            bin: pan.bin(),
            last4: pan.last4(),
            brand: pan.brand().to_owned(),
            exp_month: submission.card.exp_month,
            exp_year: submission.card.exp_year,
        },
        test_behaviour: (!caller.livemode).then(|| pan.test_behaviour()).flatten(),
        customer: submission.customer,
        device: submission.device,
        billing: submission.billing,
        shipping: submission.shipping,
        location: submission.location,
        mcc: submission.mcc,
        terminal_id: submission.terminal_id,
        metadata: submission.metadata,
        idempotency_key: submission.idempotency_key,
        request_fingerprint,
    }
}

/// Log, then ledger. Runs to its end whatever becomes of the request.
async fn store(
    app: App,
    transaction: Arc<Transaction>,
    claim: Claim,
    mut ticket: Option<Ticket>,
) -> Result<(), Problem> {
    let span = scope::trace().and_then(|parent| trace::child("gateway", trace::Kind::Producer, SEND, parent));
    let record = NewRecord {
        topic: topics::CREATED,
        key: Bytes::copy_from_slice(transaction.card.token.as_str().as_bytes()),
        value: Bytes::from(transaction.encode()),
        headers: TraceContext::headers(span.as_ref().map(Span::context)),
        timestamp_ms: transaction.accepted_at_us / 1_000,
    };
    let unsure = Unsure(&app);
    claim.writes();
    let appended = Ticket::hold(&mut ticket, app.log.append(vec![record])).await;
    if let Some(span) = span {
        end(span, &transaction, &appended);
    }
    let result = match appended {
        Ok(positions) => note_accepted(&app, &transaction, positions.first().copied(), ticket),
        Err(error) => Err(append_failed(&app, &error, ticket)),
    };
    std::mem::forget(unsure);
    // A retry may come in from here on: the ledger knows, or the door is shut.
    drop(claim);
    result
}

fn end(mut span: Span, transaction: &Transaction, appended: &Result<Vec<Position>, LogError>) {
    span.set("messaging.destination.name", topics::CREATED);
    span.set("transaction.id", transaction.id.to_string());
    match appended {
        Ok(positions) => {
            if let Some(at) = positions.first() {
                span.set("messaging.destination.partition.id", at.partition.to_string());
                span.set("messaging.message.offset", i64::try_from(at.offset).unwrap_or(i64::MAX));
            }
        }
        Err(error) => span.fail(error.to_string()),
    }
}

/// Dropped by a panic only: before or after the log took the record is not known then.
struct Unsure<'a>(&'a Shared);

impl Drop for Unsure<'_> {
    fn drop(&mut self) {
        self.0.recover();
    }
}

fn note_accepted(
    app: &Shared,
    transaction: &Transaction,
    position: Option<Position>,
    ticket: Option<Ticket>,
) -> Result<(), Problem> {
    let position = position.expect("the log returns a position for each record");
    let entry = Entry::of(transaction, position, false);
    if let Some(redis) = &app.redis {
        redis.accepted(transaction.id, &entry, transaction.idempotency_key.is_some());
    }
    if let Some(ticket) = ticket {
        ticket.settled();
    }
    let timer = app.metrics.ledger_write_seconds.start_timer();
    let inserted = app.ledger.insert(transaction.id, &entry);
    timer.observe_duration();
    if let Err(error) = inserted {
        tracing::error!(error = %error, "the ledger could not be written: accepting nothing until it can be");
        app.recover();
        return Err(unavailable(
            "The transaction could not be confirmed. Try again with the same idempotency key.",
        ));
    }
    app.marks.done(position);
    app.metrics.accepted.inc();
    Ok(())
}

fn append_failed(app: &Shared, error: &LogError, ticket: Option<Ticket>) -> Problem {
    if let (LogError::Full | LogError::Closed | LogError::NotWritten(_), Some(ticket)) = (error, ticket) {
        ticket.nothing_written();
    }
    match error {
        LogError::Full | LogError::NotWritten(_) => {
            unavailable("The log is busy. Nothing was accepted; try again.")
        }
        LogError::Closed => unavailable("The gateway is shutting down. Nothing was accepted; try again."),
        error => {
            // The record may be in the log or not: until that is known, a retry could make a second one.
            tracing::error!(error = %error, "a write to the log failed: accepting nothing until it is known");
            app.recover();
            unavailable("The log failed. Try again with the same idempotency key.")
        }
    }
}

/// Waits for the decision and answers with it, or with what stands in for it.
async fn answer(
    app: &App,
    transaction: &Transaction,
    held: Held,
    call: &Call<'_>,
    replayed: bool,
) -> Result<Answer, Problem> {
    let (status, body) = if call.asynchronous {
        (StatusCode::ACCEPTED, answer::body(transaction, &Progress::Pending))
    } else {
        match timeout_at(held.until.into(), held.decision).await {
            Ok(Ok(Verdict { decision, decided_at_us })) => {
                app.metrics.decision_seconds.observe(call.started.elapsed().as_secs_f64());
                let progress = Progress::Decided { decision: &decision, decided_at_us };
                let body = answer::body(transaction, &progress);
                if let Some(redis) = &app.redis {
                    redis.decided(held.id, &body);
                }
                (StatusCode::CREATED, body)
            }
            _ => {
                app.metrics.degraded.inc();
                let outcome = app.fail_mode(&transaction.merchant_id);
                let waited_ms = u64::try_from(call.started.elapsed().as_millis()).unwrap_or(u64::MAX);
                let progress = Progress::Degraded { outcome, waited_ms };
                (StatusCode::ACCEPTED, answer::body(transaction, &progress))
            }
        }
    };
    Ok(Answer { id: held.id, status, body, replayed, asynchronous: call.asynchronous })
}

/// The answer for a transaction that was accepted before: its decision if there is one by now.
async fn replay(app: &App, held: Held, known: Known, call: &Call<'_>) -> Result<Answer, Problem> {
    app.metrics.replayed.inc();
    match Stored::read(app, held.id, known).await? {
        Stored::Decided(body) => Ok(Answer {
            id: held.id,
            status: StatusCode::CREATED,
            body,
            replayed: true,
            asynchronous: call.asynchronous,
        }),
        Stored::Pending(transaction) => answer(app, &transaction, held, call, true).await,
    }
}
