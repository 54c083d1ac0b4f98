//! An alert: a transaction that on-call staff should look at.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{AlertId, AmountMinor, CardToken, Currency, MerchantId, Message, Outcome, Reason, TransactionId};

/// How urgent a rule's author says a match is. Ordered from mild to severe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// For the record: raises no alert.
    Low,
    /// Look at it today.
    Medium,
    /// Look at it now.
    High,
    /// Wake someone.
    Critical,
}

impl Severity {
    /// All severities, mild to severe.
    pub const ALL: [Self; 4] = [Self::Low, Self::Medium, Self::High, Self::Critical];

    /// The severity as it is written on the wire, in rules and in metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Raised when a matched live rule has a severity of medium or above. Keyed by card token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// Derived from the transaction: scoring it again makes the same alert.
    pub id: AlertId,
    /// The transaction that raised it.
    pub transaction_id: TransactionId,
    /// Whose transaction it is.
    pub merchant_id: MerchantId,
    /// The transaction's window time: microseconds since the Unix epoch.
    pub raised_at_us: i64,
    /// The highest severity among the matched rules.
    pub severity: Severity,
    /// What the merchant was told.
    pub outcome: Outcome,
    /// 0 to 100.
    pub risk_score: u8,
    /// The card.
    pub card_token: CardToken,
    /// How the card is shown: `411111••••••1111`.
    pub card_masked: String,
    /// In the currency's minor unit.
    pub amount_minor: AmountMinor,
    /// ISO 4217.
    pub currency: Currency,
    /// `false` for transactions under a test key.
    pub livemode: bool,
    /// The matched live rules, most points first.
    pub reasons: Vec<Reason>,
}

impl Message for Alert {
    const TYPE: &'static str = "alert";
    const VERSION: u16 = 1;
}
