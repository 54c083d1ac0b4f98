//! The wire contract: every message that crosses a topic, and the field types it is made of.
//!
//! Knows nothing of logs, clocks or networks. Types cannot hold a value that breaks their rule:
//! what parses is valid everywhere downstream.
//!
//! In the order data flows:
//! - [`ids`]: transaction, merchant, alert, list and card-token identifiers.
//! - [`money`]: amounts in minor units and ISO 4217 currencies.
//! - [`transaction`]: what the gateway accepted.
//! - [`decision`]: what scoring said of it, and the record that carries both.
//! - [`alert`]: what on-call staff are told.
//! - [`label`]: what a transaction turned out to be.
//! - [`list`]: a change to a list, and the one form of a list's values.
//! - [`countries`]: the ISO 3166-1 codes.
//! - [`codec`]: the versioned JSON envelope around each of them.
//! - [`topics`]: the names of the topics they travel on.

pub mod alert;
pub mod codec;
pub mod countries;
pub mod decision;
pub mod ids;
pub mod label;
pub mod list;
pub mod money;
mod number;
pub mod topics;
pub mod transaction;

pub use alert::{Alert, Severity};
pub use codec::{DecodeError, Message};
pub use decision::{Decided, Decision, Outcome, Reason, RiskLevel, Taken};
pub use ids::{AlertId, CardToken, ListId, MerchantId, TransactionId};
pub use label::{Label, LabelSource, Verdict};
pub use list::{
    InvalidListValue, ListAction, ListChange, ListDeclaration, ListKind, ListScope, ListSource, ListValue,
};
pub use money::{AmountMinor, Currency};
pub use number::whole;
pub use transaction::{Address, Card, Customer, Device, Location, TestBehaviour, Transaction};
