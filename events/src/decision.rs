//! What scoring decided, and the record that carries it with its transaction.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{Message, Transaction, TransactionId, codec};

/// What the merchant is told to do. Ordered from mild to severe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Let it through.
    Approve,
    /// Let it through, and have a person look at it.
    Review,
    /// Ask the customer to authenticate (3-D Secure).
    Challenge,
    /// Refuse it.
    Decline,
}

impl Outcome {
    /// All outcomes, mild to severe.
    pub const ALL: [Self; 4] = [Self::Approve, Self::Review, Self::Challenge, Self::Decline];

    /// The outcome as it is written on the wire, in tables and in metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Review => "review",
            Self::Challenge => "challenge",
            Self::Decline => "decline",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The band a risk score falls in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RiskLevel {
    /// Below 65.
    Normal,
    /// 65 to 74.
    Elevated,
    /// 75 and above.
    Highest,
}

impl RiskLevel {
    /// The band of a score between 0 and 100.
    #[must_use]
    pub const fn of_score(score: u8) -> Self {
        match score {
            0..65 => Self::Normal,
            65..75 => Self::Elevated,
            _ => Self::Highest,
        }
    }

    /// The level as it is written on the wire and in tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Elevated => "elevated",
            Self::Highest => "highest",
        }
    }
}

/// One rule that matched, with the figures that made it match.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reason {
    /// The stable reason code, for example `velocity_card_count`.
    #[serde(with = "shared")]
    pub code: Arc<str>,
    /// The id of the rule.
    #[serde(with = "shared")]
    pub rule: Arc<str>,
    /// One sentence for a person, with the figures filled in.
    pub message: String,
    /// What was seen.
    #[serde(with = "crate::number::figure")]
    pub observed: f64,
    /// What the rule allows.
    #[serde(with = "crate::number::figure")]
    pub limit: f64,
    /// What the rule adds to the score.
    pub points: u32,
}

/// The decision on one transaction: a pure function of the transaction, the events before it in the
/// analyzer's order, and the ruleset. Holds nothing that a clock or a machine could change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// The transaction decided on.
    pub transaction_id: TransactionId,
    /// The transaction's place in window time: microseconds since the Unix epoch, strictly increasing.
    pub window_time_us: i64,
    /// What to do.
    pub outcome: Outcome,
    /// 0 (no suspicion) to 100.
    pub risk_score: u8,
    /// The score's band.
    pub risk_level: RiskLevel,
    /// The live rules that matched, most points first.
    pub reasons: Vec<Reason>,
    /// The shadow rules that matched: recorded, without effect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shadow_reasons: Vec<Reason>,
    /// Hash of the features and rules that were in force.
    #[serde(with = "shared")]
    pub ruleset: Arc<str>,
    /// `name@version` of the model, when one was in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
}

/// A text that many records share.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<str>, D::Error> {
        String::deserialize(deserializer).map(Into::into)
    }
}

/// A transaction with its decision, as it travels on `transactions.decided`.
///
/// `seq` numbers the events of one analyzer in the order it processed them. A decided record is
/// written once, so the topic is also the journal from which a replay takes that order.
///
/// To write one, its parts need not be owned, and the transaction may be the text that it came as.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Decided<T = Transaction, D = Decision> {
    /// The place in the processing order of the analyzer's lane, from 0, without gaps.
    pub seq: u64,
    /// Into how many lanes the partitions were divided; absent when all were in one.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub lanes: u32,
    /// The partition of `transactions.created` the transaction was read from.
    pub source_partition: u32,
    /// Its offset there.
    pub source_offset: u64,
    /// When the decision was made: microseconds since the Unix epoch, read outside scoring.
    pub decided_at_us: i64,
    /// What was taken in from other topics just before this transaction; absent when nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken: Option<Taken>,
    /// What was decided on.
    pub transaction: T,
    /// What was decided.
    pub decision: D,
}

impl Decided<&RawValue, &Decision> {
    /// As [`Message::encode`] of what owns its parts. The transaction's text is written as it is, with
    /// fields that this build does not know.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode::<Decided>(self)
    }
}

const fn one() -> u32 {
    1
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
const fn is_one(lanes: &u32) -> bool {
    *lanes == 1
}

/// How far topics beside `transactions.created` had been taken in when a transaction was decided on: per
/// partition, the offset of the next record. Taking in the same records at the same place leads to the
/// same decision again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// Of `transactions.labelled`.
    pub labelled: Vec<u64>,
    /// Of `lists.changed`; absent while nothing has ever been taken in from there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lists: Vec<u64>,
}

impl Message for Decided {
    const TYPE: &'static str = "decided";
    const VERSION: u16 = 1;
}
