//! Decisions → records of `transactions.decided` and `fraud.alerts`.

use bytes::Bytes;
use eventlog::NewRecord;
use events::{Alert, AlertId, Decided, Decision, Message as _, Severity, topics};
use runtime::trace::TraceContext;
use serde_json::value::RawValue;

use crate::intake::Arrived;

const MICROS_PER_MILLI: i64 = 1_000;

/// The record of a decision. Keyed by card like the transaction, so it goes to the same partition.
pub(crate) fn decided_record(arrived: &Arrived, decided: &Decided<&RawValue, &Decision>) -> NewRecord {
    record(topics::DECIDED, arrived, decided.decided_at_us, decided.encode())
}

/// The record of the alert that a decision raises.
pub(crate) fn alert_record(
    arrived: &Arrived,
    decision: &Decision,
    severity: Severity,
    decided_at_us: i64,
) -> NewRecord {
    let transaction = &arrived.transaction;
    let alert = Alert {
        id: AlertId::derive(transaction.id),
        transaction_id: transaction.id,
        merchant_id: transaction.merchant_id.clone(),
        raised_at_us: decision.window_time_us,
        severity,
        outcome: decision.outcome,
        risk_score: decision.risk_score,
        card_token: transaction.card.token.clone(),
        card_masked: transaction.card.masked(),
        amount_minor: transaction.amount_minor,
        currency: transaction.currency,
        livemode: transaction.livemode,
        reasons: decision.reasons.clone(),
    };
    record(topics::ALERTS, arrived, decided_at_us, alert.encode())
}

fn record(topic: &'static str, arrived: &Arrived, decided_at_us: i64, value: Vec<u8>) -> NewRecord {
    NewRecord {
        topic,
        key: Bytes::copy_from_slice(arrived.transaction.card.token.as_str().as_bytes()),
        value: Bytes::from(value),
        headers: TraceContext::headers(arrived.trace),
        timestamp_ms: decided_at_us / MICROS_PER_MILLI,
    }
}
