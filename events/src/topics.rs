//! The topics of the log, each named once.

/// Accepted transactions, keyed by card token.
pub const CREATED: &str = "transactions.created";
/// Transactions with their decisions, keyed by card token: as many as accepted, each once.
pub const DECIDED: &str = "transactions.decided";
/// Labels, keyed by transaction id.
pub const LABELLED: &str = "transactions.labelled";
/// Changes to lists, keyed by list, scope and value.
pub const LISTS_CHANGED: &str = "lists.changed";
/// Alerts, keyed by card token.
pub const ALERTS: &str = "fraud.alerts";

/// All topics a producer writes to, without their dead-letter topics.
pub const ALL: [&str; 5] = [CREATED, DECIDED, LABELLED, LISTS_CHANGED, ALERTS];

/// The dead-letter topics, in the order of [`ALL`].
pub const DEAD_LETTERS: [&str; 5] = [
    "transactions.created.dlq",
    "transactions.decided.dlq",
    "transactions.labelled.dlq",
    "lists.changed.dlq",
    "fraud.alerts.dlq",
];

/// Which batch of records the process that fills the warehouse is sending, keyed by the records' topic: of each
/// key only the newest counts. It is read by the one that writes it, and has no dead letters.
pub const WAREHOUSE_BATCHES: &str = "warehouse.batches";

/// Topics a service keeps for itself, without dead-letter topics.
pub const INTERNAL: [&str; 1] = [WAREHOUSE_BATCHES];

/// Whether the topic is the only place where what it says is kept, so that retention must remove nothing of
/// it: a list is what all changes to it add up to. Of the newest record of each key that is true of
/// [`INTERNAL`] topics too.
#[must_use]
pub fn is_kept_whole(topic: &str) -> bool {
    topic == LISTS_CHANGED || INTERNAL.contains(&topic)
}

/// The topic that takes what cannot be decoded from `topic`.
///
/// # Panics
/// When `topic` is not one of [`ALL`]: topic names are constants of this module.
#[must_use]
pub fn dead_letter(topic: &str) -> &'static str {
    let at = ALL.iter().position(|&known| known == topic);
    DEAD_LETTERS[at.unwrap_or_else(|| panic!("`{topic}` has no dead-letter topic"))]
}
