//! A change to a list: who or what is blocked or allowed from now on.
//!
//! A list is declared with the ruleset; what is on it comes from its declaration and from these changes.

mod value;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use value::{InvalidListValue, ListKind, ListValue};

use crate::{ListId, MerchantId, Message};

/// A list as a ruleset declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListDeclaration {
    /// What rules and requests call it.
    pub id: ListId,
    /// What its values are.
    pub kind: ListKind,
    /// One sentence for people.
    pub description: String,
}

/// Whose transactions an entry is compared with.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "of", rename_all = "snake_case")]
pub enum ListScope {
    /// Everyone's.
    All,
    /// One merchant's own, of one mode.
    Merchant {
        /// The merchant.
        merchant_id: MerchantId,
        /// `false` for transactions under a test key.
        livemode: bool,
    },
}

impl fmt::Display for ListScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Merchant { merchant_id, livemode } => {
                write!(f, "{merchant_id}/{}", if *livemode { "live" } else { "test" })
            }
        }
    }
}

/// What a change does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListAction {
    /// The value is on the list from now on, until the change's expiry if it has one.
    Add,
    /// The value is not on the list any more.
    Remove,
}

impl ListAction {
    /// The action as it is written on the wire and in metric labels.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Remove => "remove",
        }
    }
}

/// Who made a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListSource {
    /// A merchant, for its own transactions.
    Merchant,
    /// Whoever runs the system, for everyone's.
    Operator,
    /// An analyst.
    Analyst,
    /// On-call staff, from a Telegram button.
    Telegram,
}

impl ListSource {
    /// The source as it is written on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Merchant => "merchant",
            Self::Operator => "operator",
            Self::Analyst => "analyst",
            Self::Telegram => "telegram",
        }
    }
}

/// A change to one entry of a list, as it travels on `lists.changed`. Keyed by [`ListChange::key`]. Of the
/// changes to one list, scope and value the last one in the topic's order holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListChange {
    /// The list.
    pub list: ListId,
    /// Whose transactions the entry is compared with.
    pub scope: ListScope,
    /// The value, in the form [`ListValue`] writes it.
    pub value: String,
    /// What becomes of it.
    pub action: ListAction,
    /// From when on the entry is as if it were not there: microseconds since the Unix epoch, in window time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at_us: Option<i64>,
    /// Who says so.
    pub source: ListSource,
    /// When it was said: microseconds since the Unix epoch. For people: the topic's order is what counts.
    pub changed_at_us: i64,
    /// A remark, at most 500 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl ListChange {
    /// The record's key: list, scope and value, so that all changes to one entry keep their order.
    #[must_use]
    pub fn key(&self) -> String {
        // Neither a list's id nor a scope holds a space.
        format!("{} {} {}", self.list, self.scope, self.value)
    }
}

impl Message for ListChange {
    const TYPE: &'static str = "list_change";
    const VERSION: u16 = 1;
}
