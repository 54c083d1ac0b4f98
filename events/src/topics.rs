//! The topics of the log, each named once.

/// Accepted transactions, keyed by card token.
pub const CREATED: &str = "transactions.created";
/// Transactions with their decisions, keyed by card token: as many as accepted, each once.
pub const DECIDED: &str = "transactions.decided";
/// Labels, keyed by transaction id.
pub const LABELLED: &str = "transactions.labelled";
/// Alerts, keyed by card token.
pub const ALERTS: &str = "fraud.alerts";

/// All topics a producer writes to, without their dead-letter topics.
pub const ALL: [&str; 4] = [CREATED, DECIDED, LABELLED, ALERTS];

/// The dead-letter topics, in the order of [`ALL`].
pub const DEAD_LETTERS: [&str; 4] =
    ["transactions.created.dlq", "transactions.decided.dlq", "transactions.labelled.dlq", "fraud.alerts.dlq"];

/// The topic that takes what cannot be decoded from `topic`.
///
/// # Panics
/// When `topic` is not one of [`ALL`]: topic names are constants of this module.
#[must_use]
pub fn dead_letter(topic: &str) -> &'static str {
    let at = ALL.iter().position(|&known| known == topic);
    DEAD_LETTERS[at.unwrap_or_else(|| panic!("`{topic}` has no dead-letter topic"))]
}
