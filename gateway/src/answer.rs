//! What a merchant is told of a transaction.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use events::{Decision, Outcome, Reason, RiskLevel, Transaction, TransactionId};
use serde::Serialize;

const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// How far a transaction has come.
#[derive(Debug)]
pub(crate) enum Progress<'a> {
    /// No decision yet.
    Pending,
    /// No decision within the deadline: the merchant's fail mode stands in.
    Degraded { outcome: Outcome, waited_ms: u64 },
    /// Decided.
    Decided { decision: &'a Decision, decided_at_us: i64 },
}

#[derive(Serialize)]
struct View<'a> {
    id: TransactionId,
    status: &'static str,
    merchant_id: &'a str,
    livemode: bool,
    amount: i64,
    currency: &'a str,
    card: CardView<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<DecisionView<'a>>,
    created_at: String,
}

#[derive(Serialize)]
struct CardView<'a> {
    token: &'a str,
    bin: &'a str,
    last4: &'a str,
    brand: &'a str,
}

#[derive(Serialize)]
struct DecisionView<'a> {
    outcome: Outcome,
    risk_score: Option<u8>,
    risk_level: Option<RiskLevel>,
    reasons: &'a [Reason],
    ruleset: Option<&'a str>,
    model: Option<&'a str>,
    timing_ms: f64,
    degraded: bool,
}

/// The JSON of a transaction.
pub(crate) fn body(transaction: &Transaction, progress: &Progress<'_>) -> Vec<u8> {
    let (status, decision) = match *progress {
        Progress::Pending => ("pending", None),
        Progress::Degraded { outcome, waited_ms } => ("pending", Some(degraded(outcome, waited_ms))),
        Progress::Decided { decision, decided_at_us } => {
            ("decided", Some(decided(transaction, decision, decided_at_us)))
        }
    };
    let view = View {
        id: transaction.id,
        status,
        merchant_id: transaction.merchant_id.as_str(),
        livemode: transaction.livemode,
        amount: transaction.amount_minor.get(),
        currency: transaction.currency.code(),
        card: CardView {
            token: transaction.card.token.as_str(),
            bin: &transaction.card.bin,
            last4: &transaction.card.last4,
            brand: &transaction.card.brand,
        },
        decision,
        created_at: time_text(transaction.accepted_at_us),
    };
    let mut bytes = Vec::with_capacity(640);
    serde_json::to_writer(&mut bytes, &view).expect("writing to a Vec, string keys, finite numbers");
    bytes
}

fn decided<'a>(transaction: &Transaction, decision: &'a Decision, decided_at_us: i64) -> DecisionView<'a> {
    #[allow(clippy::cast_precision_loss)] // a duration far below 2^53 microseconds
    let timing_ms = (decided_at_us - transaction.accepted_at_us).max(0) as f64 / 1_000.0;
    DecisionView {
        outcome: decision.outcome,
        risk_score: Some(decision.risk_score),
        risk_level: Some(decision.risk_level),
        reasons: &decision.reasons,
        ruleset: Some(&decision.ruleset),
        model: decision.model.as_deref(),
        timing_ms,
        degraded: false,
    }
}

fn degraded(outcome: Outcome, waited_ms: u64) -> DecisionView<'static> {
    #[allow(clippy::cast_precision_loss)] // a deadline in milliseconds
    let timing_ms = waited_ms as f64;
    DecisionView {
        outcome,
        risk_score: None,
        risk_level: None,
        reasons: &[],
        ruleset: None,
        model: None,
        timing_ms,
        degraded: true,
    }
}

/// RFC 3339 with milliseconds.
pub(crate) fn time_text(us: i64) -> String {
    format!("{:.3}", jiff::Timestamp::from_microsecond(us).unwrap_or_default())
}

/// The answer to a submitted transaction.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) id: TransactionId,
    /// 201 with the decision, 202 without it.
    pub(crate) status: StatusCode,
    pub(crate) body: Vec<u8>,
    /// Whether the transaction was accepted before, under the same key.
    pub(crate) replayed: bool,
    /// Whether the merchant asked not to wait.
    pub(crate) asynchronous: bool,
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let mut response = json(self.status, self.body);
        // For the request's log line and span.
        response.extensions_mut().insert(self.id);
        let headers = response.headers_mut();
        let location = format!("/v1/transactions/{}", self.id);
        headers.insert(
            header::LOCATION,
            HeaderValue::try_from(location).expect("an id is letters, digits and `_`"),
        );
        if self.replayed {
            headers.insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
        }
        if self.asynchronous {
            headers.insert(PREFERENCE_APPLIED, HeaderValue::from_static("respond-async"));
        }
        response
    }
}

/// An answer that nobody may keep.
pub(crate) fn json(status: StatusCode, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
