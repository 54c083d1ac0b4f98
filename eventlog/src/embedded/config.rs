//! The settings of the embedded log.

use std::time::Duration;

use serde::Deserialize;

/// How the embedded log is kept.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbeddedLogConfig {
    /// Partitions of every topic. Fixed when the log is created: a card's records stay in one partition.
    pub partitions: u32,
    /// How many records may wait for the disk. Appends beyond it wait for room.
    pub append_queue_records: usize,
    /// How many bytes of records may wait for the disk.
    pub append_queue_bytes: usize,
    /// How long an append waits for room in the queue before it is refused.
    pub append_deadline_ms: u64,
    /// Memory for blocks read from disk, which readers far behind the end need.
    pub read_cache_bytes: u64,
    /// What is removed, and when.
    pub retention: Retention,
}

/// When records are removed: whichever of the two limits is reached first.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Records older than this, by their timestamp, are removed.
    pub max_age_ms: u64,
    /// How many bytes a topic keeps, before compression. It may exceed them by one segment (an eighth).
    pub max_bytes: u64,
    /// How often to look for what is to be removed.
    pub check_interval_ms: u64,
}

impl Default for EmbeddedLogConfig {
    fn default() -> Self {
        Self {
            partitions: 4,
            append_queue_records: 65_536,
            append_queue_bytes: 64 * 1024 * 1024,
            append_deadline_ms: 1_000,
            read_cache_bytes: 32 * 1024 * 1024,
            retention: Retention::default(),
        }
    }
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            max_age_ms: 7 * 24 * 60 * 60 * 1_000,
            max_bytes: 8 * 1024 * 1024 * 1024,
            check_interval_ms: 10_000,
        }
    }
}

/// Partitions are cheap, but each costs every consumer a position and every scrape two gauges.
const MAX_PARTITIONS: u32 = 256;
/// A segment holds at most this much of a topic before the next is begun.
const MAX_SEGMENT_BYTES: u64 = 128 * 1024 * 1024;
const MIN_SEGMENT_BYTES: u64 = 64 * 1024;
/// Retention removes whole segments: this many make up what a topic keeps.
const SEGMENTS_KEPT: u64 = 8;
/// Waiting longer than this for room or for the disk helps no caller.
const MAX_DEADLINE_MS: u64 = 60_000;
/// Largest queue, so that every count fits a semaphore and memory stays bounded.
const MAX_QUEUE: usize = 1 << 30;

impl EmbeddedLogConfig {
    /// Every setting that makes no sense, with its key relative to this section.
    #[must_use]
    pub fn validate(&self) -> Vec<(String, String)> {
        let between = |key: &str, value: u64, min: u64, max: u64| {
            (!(min..=max).contains(&value))
                .then(|| (key.to_owned(), format!("is {value}, must be between {min} and {max}")))
        };
        let max_queue = MAX_QUEUE as u64;
        [
            between("partitions", self.partitions.into(), 1, MAX_PARTITIONS.into()),
            between("append_queue_records", self.append_queue_records as u64, 1, max_queue),
            between("append_queue_bytes", self.append_queue_bytes as u64, 1_024, max_queue),
            between("append_deadline_ms", self.append_deadline_ms, 1, MAX_DEADLINE_MS),
            between("read_cache_bytes", self.read_cache_bytes, 1_024 * 1_024, u64::MAX),
            between("retention.max_age_ms", self.retention.max_age_ms, 1_000, i64::MAX as u64),
            between("retention.max_bytes", self.retention.max_bytes, 1_024 * 1_024, u64::MAX),
            between("retention.check_interval_ms", self.retention.check_interval_ms, 10, 3_600_000),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    pub(super) fn append_deadline(&self) -> Duration {
        Duration::from_millis(self.append_deadline_ms)
    }
}

impl Retention {
    /// When a segment is full.
    pub(super) fn segment_bytes(&self) -> u64 {
        (self.max_bytes / SEGMENTS_KEPT).clamp(MIN_SEGMENT_BYTES, MAX_SEGMENT_BYTES)
    }

    /// When a segment is old enough to begin another.
    pub(super) fn segment_span_ms(&self) -> i64 {
        i64::try_from(self.max_age_ms / SEGMENTS_KEPT).unwrap_or(i64::MAX).max(1)
    }

    /// Whether a record with this timestamp is to be removed at `now_ms`.
    pub(super) fn is_expired(&self, timestamp_ms: i64, now_ms: i64) -> bool {
        let max_age_ms = i64::try_from(self.max_age_ms).unwrap_or(i64::MAX);
        now_ms.saturating_sub(timestamp_ms) > max_age_ms
    }

    pub(super) fn check_interval(&self) -> Duration {
        Duration::from_millis(self.check_interval_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(EmbeddedLogConfig::default().validate(), vec![]);
    }

    #[test]
    fn every_wrong_setting_is_named_with_its_key() {
        let config = EmbeddedLogConfig {
            partitions: 0,
            append_queue_records: 0,
            append_queue_bytes: 0,
            append_deadline_ms: 0,
            read_cache_bytes: 0,
            retention: Retention { max_age_ms: 0, max_bytes: 0, check_interval_ms: 0 },
        };
        let keys: Vec<String> = config.validate().into_iter().map(|(key, _)| key).collect();
        assert_eq!(
            keys,
            [
                "partitions",
                "append_queue_records",
                "append_queue_bytes",
                "append_deadline_ms",
                "read_cache_bytes",
                "retention.max_age_ms",
                "retention.max_bytes",
                "retention.check_interval_ms",
            ]
        );
    }
}
