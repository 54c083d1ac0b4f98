//! Configuration of the warehouse, its query API and the page.

use serde::Deserialize;

/// How Parquet files are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Smallest files.
    Zstd,
    /// Cheapest to write.
    Lz4,
    /// No compression beside dictionaries.
    None,
}

/// The section `[warehouse]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WarehouseConfig {
    /// The newest rows are written to Parquet once there are this many of them.
    pub flush_min_rows: usize,
    /// They are written at the latest this long after the oldest of them arrived.
    pub flush_interval_ms: u64,
    /// Reading from the log pauses while this many rows wait in memory: a disk that does not take
    /// writes must not fill the memory. The rest waits in the log.
    pub tail_max_rows: usize,
    /// How often new records are read from the log, and so become visible to queries.
    pub poll_interval_ms: u64,
    /// How Parquet files are compressed.
    pub compression: Compression,
    /// The small files of an hour that is over are merged when there are more than this many.
    pub compact_min_files: usize,
    /// Merged files get at most about this many rows; a file of half as many is not small.
    pub compact_max_rows: u64,
    /// A query is cancelled after this time.
    pub query_deadline_ms: u64,
    /// A query's answer is cut after this many rows, and says so.
    pub query_max_rows: usize,
    /// All queries together may hold this much memory in sorts, joins and groups.
    pub query_memory_bytes: usize,
    /// Queries beyond this number wait for a place until their deadline.
    pub query_max_concurrent: usize,
    /// Into how many streams one query is split. Queries have threads of their own, as many as query_max_concurrent.
    pub query_partitions: usize,
    /// Pages that may follow the live stream at the same time.
    pub stream_max_clients: usize,
    /// How long a stop may take to read what the log already holds.
    pub drain_deadline_ms: u64,
}

impl Default for WarehouseConfig {
    fn default() -> Self {
        Self {
            flush_min_rows: 50_000,
            flush_interval_ms: 60_000,
            tail_max_rows: 200_000,
            poll_interval_ms: 100,
            compression: Compression::Zstd,
            compact_min_files: 8,
            compact_max_rows: 1_000_000,
            query_deadline_ms: 10_000,
            query_max_rows: 10_000,
            query_memory_bytes: 256 * 1024 * 1024,
            query_max_concurrent: 4,
            query_partitions: 1,
            stream_max_clients: 64,
            drain_deadline_ms: 5_000,
        }
    }
}

impl WarehouseConfig {
    /// Everything that is wrong with the values, as (key in this section, message).
    #[must_use]
    pub fn validate(&self) -> Vec<(String, String)> {
        let mut errors = Vec::new();
        let mut check = |ok: bool, key: &str, message: &str| {
            if !ok {
                errors.push((key.to_owned(), message.to_owned()));
            }
        };
        check(self.flush_min_rows > 0, "flush_min_rows", "must be above 0");
        check(
            (100..=3_600_000).contains(&self.flush_interval_ms),
            "flush_interval_ms",
            "must be between 100 and 3600000",
        );
        check(
            self.tail_max_rows >= self.flush_min_rows,
            "tail_max_rows",
            "must be at least flush_min_rows, or nothing would ever be flushed by size",
        );
        check(
            (1..=10_000).contains(&self.poll_interval_ms),
            "poll_interval_ms",
            "must be between 1 and 10000",
        );
        check(self.compact_min_files >= 2, "compact_min_files", "must be at least 2");
        check(self.compact_max_rows >= 1_000, "compact_max_rows", "must be at least 1000");
        check(self.query_deadline_ms > 0, "query_deadline_ms", "must be above 0");
        check(
            (1..=1_000_000).contains(&self.query_max_rows),
            "query_max_rows",
            "must be between 1 and 1000000",
        );
        check(
            self.query_memory_bytes >= 16 * 1024 * 1024,
            "query_memory_bytes",
            "must be at least 16777216 (16 MiB)",
        );
        check(
            (1..=64).contains(&self.query_max_concurrent),
            "query_max_concurrent",
            "must be between 1 and 64",
        );
        check((1..=64).contains(&self.query_partitions), "query_partitions", "must be between 1 and 64");
        check(
            (1..=10_000).contains(&self.stream_max_clients),
            "stream_max_clients",
            "must be between 1 and 10000",
        );
        check(self.drain_deadline_ms > 0, "drain_deadline_ms", "must be above 0");
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(WarehouseConfig::default().validate(), []);
    }

    #[test]
    fn all_wrong_values_are_listed_at_once() {
        let config = WarehouseConfig {
            flush_min_rows: 0,
            poll_interval_ms: 0,
            query_max_rows: 0,
            ..WarehouseConfig::default()
        };
        let keys: Vec<_> = config.validate().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["flush_min_rows", "poll_interval_ms", "query_max_rows"]);
    }
}
