//! Configuration of the warehouse on ClickHouse.

use std::time::Duration;

use serde::Deserialize;

/// How rows travel to ClickHouse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wire {
    /// About a third of the bytes: for a server across a network.
    Lz4,
    /// Cheapest for both sides: for a server on the same machine.
    None,
}

/// The section `[clickhouse]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClickHouseConfig {
    /// The server's HTTP interface; empty = the embedded warehouse is used.
    pub url: String,
    /// The database; made by `paystream warehouse migrate` when it is missing.
    pub database: String,
    /// The user.
    pub user: String,
    /// The user's password.
    pub password: String,
    /// How rows travel.
    pub compression: Wire,
    /// A batch holds at most about this many log records …
    pub batch_max_rows: usize,
    /// … of at most about this many bytes together …
    pub batch_max_bytes: usize,
    /// … and leaves at the latest this long after its first record was read.
    pub batch_max_ms: u64,
    /// How long the server may take to answer an insert before it is sent again.
    pub insert_deadline_ms: u64,
    /// The longest pause between two attempts to send a batch.
    pub retry_max_ms: u64,
    /// While the server is away, batches wait on disk up to this size; then reading from the log pauses.
    pub spool_max_bytes: u64,
    /// How long a stop may take to store what the log already holds.
    pub drain_deadline_ms: u64,
    /// A query is cancelled after this time.
    pub query_deadline_ms: u64,
    /// A query's answer is cut after this many rows, and says so.
    pub query_max_rows: usize,
    /// One query may hold this much memory on the server.
    pub query_memory_bytes: u64,
    /// How often what was stored is compared with the log; 0 = never.
    pub reconcile_interval_ms: u64,
    /// What is younger than this is left to the next comparison.
    pub reconcile_grace_ms: u64,
}

impl Default for ClickHouseConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            database: "paystream".to_owned(),
            user: "default".to_owned(),
            password: String::new(),
            compression: Wire::Lz4,
            batch_max_rows: 50_000,
            batch_max_bytes: 64 * 1024 * 1024,
            batch_max_ms: 1_000,
            insert_deadline_ms: 60_000,
            retry_max_ms: 10_000,
            spool_max_bytes: 2 * 1024 * 1024 * 1024,
            drain_deadline_ms: 5_000,
            query_deadline_ms: 10_000,
            query_max_rows: 10_000,
            query_memory_bytes: 1024 * 1024 * 1024,
            reconcile_interval_ms: 60_000,
            reconcile_grace_ms: 10_000,
        }
    }
}

impl ClickHouseConfig {
    /// Whether the warehouse is a ClickHouse server.
    #[must_use]
    pub const fn is_set(&self) -> bool {
        !self.url.is_empty()
    }

    pub(crate) const fn insert_deadline(&self) -> Duration {
        Duration::from_millis(self.insert_deadline_ms)
    }

    /// Everything that is wrong with the values, as (key in this section, message).
    #[must_use]
    pub fn validate(&self) -> Vec<(String, String)> {
        let mut errors = Vec::new();
        let mut check = |ok: bool, key: &str, message: &str| {
            if !ok {
                errors.push((key.to_owned(), message.to_owned()));
            }
        };
        let url_ok = self.url.strip_prefix("http://").or_else(|| self.url.strip_prefix("https://"));
        check(
            self.url.is_empty() || url_ok.is_some_and(|rest| !rest.is_empty() && !rest.contains(['?', '#'])),
            "url",
            "must be empty, or the HTTP interface of a server, for example http://127.0.0.1:8123",
        );
        check(
            !self.database.is_empty() && self.database.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'),
            "database",
            "must be a name of letters, digits and underscores",
        );
        check(!self.user.is_empty(), "user", "must not be empty; the server's own is `default`");
        check((1..=1_000_000).contains(&self.batch_max_rows), "batch_max_rows", "must be 1 to 1000000");
        check(
            (1024 * 1024..=512 * 1024 * 1024).contains(&self.batch_max_bytes),
            "batch_max_bytes",
            "must be 1048576 (1 MiB) to 536870912 (512 MiB)",
        );
        check((1..=60_000).contains(&self.batch_max_ms), "batch_max_ms", "must be 1 to 60000");
        for (key, value) in [
            ("insert_deadline_ms", self.insert_deadline_ms),
            ("retry_max_ms", self.retry_max_ms),
            ("query_deadline_ms", self.query_deadline_ms),
        ] {
            check((100..=3_600_000).contains(&value), key, "must be 100 to 3600000 (one hour)");
        }
        check(
            self.spool_max_bytes >= self.batch_max_bytes as u64 * 2,
            "spool_max_bytes",
            "must be at least twice batch_max_bytes, or no batch could wait",
        );
        check(self.drain_deadline_ms > 0, "drain_deadline_ms", "must be above 0");
        check((1..=1_000_000).contains(&self.query_max_rows), "query_max_rows", "must be 1 to 1000000");
        check(
            self.query_memory_bytes >= 16 * 1024 * 1024,
            "query_memory_bytes",
            "must be at least 16777216 (16 MiB)",
        );
        check(
            self.reconcile_interval_ms == 0 || self.reconcile_interval_ms >= 1_000,
            "reconcile_interval_ms",
            "must be 0 (never) or at least 1000",
        );
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(ClickHouseConfig::default().validate(), []);
    }

    #[test]
    fn all_wrong_values_are_listed_at_once() {
        let config = ClickHouseConfig {
            url: "127.0.0.1:8123".to_owned(),
            database: "a b".to_owned(),
            batch_max_rows: 0,
            spool_max_bytes: 1,
            ..ClickHouseConfig::default()
        };
        let keys: Vec<_> = config.validate().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["url", "database", "batch_max_rows", "spool_max_bytes"]);
    }
}
