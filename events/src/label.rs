//! A label: what a transaction turned out to be, and when that became known.

use serde::{Deserialize, Serialize};

use crate::{MerchantId, Message, TransactionId};

/// What a transaction turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The cardholder did not make it.
    Fraud,
    /// The cardholder made it.
    Legit,
}

impl Verdict {
    /// The verdict as it is written on the wire and in tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fraud => "fraud",
            Self::Legit => "legit",
        }
    }
}

/// Who says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LabelSource {
    /// The issuer, by a chargeback.
    Chargeback,
    /// An analyst.
    Analyst,
    /// The merchant, through the API.
    Merchant,
    /// On-call staff, from a Telegram button.
    Telegram,
}

impl LabelSource {
    /// The source as it is written on the wire and in tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Chargeback => "chargeback",
            Self::Analyst => "analyst",
            Self::Merchant => "merchant",
            Self::Telegram => "telegram",
        }
    }
}

/// A verdict on a transaction, as it travels on `transactions.labelled`. Keyed by transaction id.
/// A later label on the same transaction replaces an earlier one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// The transaction.
    pub transaction_id: TransactionId,
    /// The transaction's place in window time, as its decision has it: microseconds since the Unix epoch.
    pub window_time_us: i64,
    /// The partition of `transactions.created` that it was read from.
    pub source_partition: u32,
    /// Whose transaction it is.
    pub merchant_id: MerchantId,
    /// What it turned out to be.
    pub verdict: Verdict,
    /// Who says so.
    pub source: LabelSource,
    /// When it became known: microseconds since the Unix epoch. Windows see the label from then on.
    pub labelled_at_us: i64,
    /// A remark, at most 500 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl Message for Label {
    const TYPE: &'static str = "label";
    const VERSION: u16 = 1;
}
