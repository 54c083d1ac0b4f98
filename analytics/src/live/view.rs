//! Rows as the page gets them.

use std::sync::Arc;

use events::{Alert, AmountMinor, Currency, Decided, Reason};
use serde::Serialize;

use crate::rows::{latency_ms, millis};

/// A decision.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct DecisionView {
    pub(crate) transaction_id: String,
    pub(crate) merchant_id: String,
    pub(crate) time_ms: i64,
    pub(crate) amount: String,
    pub(crate) currency: String,
    pub(crate) card: String,
    pub(crate) outcome: String,
    pub(crate) risk_score: u8,
    pub(crate) risk_level: String,
    pub(crate) reasons: Vec<Reason>,
    pub(crate) latency_ms: f64,
}

impl DecisionView {
    pub(crate) fn of(decided: &Decided) -> Self {
        let (t, d) = (&decided.transaction, &decided.decision);
        Self {
            transaction_id: t.id.to_string(),
            merchant_id: t.merchant_id.as_str().to_owned(),
            time_ms: millis(t.accepted_at_us),
            amount: amount(t.amount_minor, t.currency),
            currency: t.currency.code().to_owned(),
            card: t.card.masked(),
            outcome: d.outcome.as_str().to_owned(),
            risk_score: d.risk_score,
            risk_level: d.risk_level.as_str().to_owned(),
            reasons: d.reasons.clone(),
            latency_ms: latency_ms(decided),
        }
    }
}

/// An alert.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct AlertView {
    pub(crate) id: String,
    pub(crate) transaction_id: String,
    pub(crate) merchant_id: String,
    pub(crate) time_ms: i64,
    pub(crate) severity: String,
    pub(crate) outcome: String,
    pub(crate) risk_score: u8,
    pub(crate) card: String,
    pub(crate) amount: String,
    pub(crate) currency: String,
    pub(crate) reasons: Vec<Reason>,
}

impl AlertView {
    pub(crate) fn of(alert: &Alert) -> Self {
        Self {
            id: alert.id.to_string(),
            transaction_id: alert.transaction_id.to_string(),
            merchant_id: alert.merchant_id.as_str().to_owned(),
            time_ms: millis(alert.raised_at_us),
            severity: alert.severity.as_str().to_owned(),
            outcome: alert.outcome.as_str().to_owned(),
            risk_score: alert.risk_score,
            card: alert.card_masked.clone(),
            amount: amount(alert.amount_minor, alert.currency),
            currency: alert.currency.code().to_owned(),
            reasons: alert.reasons.clone(),
        }
    }
}

/// How often a rule matched.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct RuleView {
    rule: String,
    code: String,
    hits: i64,
}

impl From<((Arc<str>, Arc<str>), [i64; 1])> for RuleView {
    fn from(((rule, code), [hits]): ((Arc<str>, Arc<str>), [i64; 1])) -> Self {
        Self { rule: rule.to_string(), code: code.to_string(), hits }
    }
}

/// What a merchant submitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct MerchantView {
    merchant: String,
    transactions: i64,
    declined: i64,
    amount_reporting_minor: i64,
}

impl From<(String, [i64; 3])> for MerchantView {
    fn from((merchant, [transactions, declined, amount_reporting_minor]): (String, [i64; 3])) -> Self {
        Self { merchant, transactions, declined, amount_reporting_minor }
    }
}

/// An amount in the currency's major unit, without its code: `100.50`.
pub(crate) fn amount(minor: AmountMinor, currency: Currency) -> String {
    let with_code = currency.format(minor);
    with_code.strip_suffix(currency.code()).unwrap_or(&with_code).trim_end().to_owned()
}
