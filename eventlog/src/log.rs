//! The port: what a stage may ask of a log.

use std::time::Duration;

use async_trait::async_trait;

use crate::{LoggedRecord, NewRecord, Position};

/// An ordered, partitioned, durable log of topics.
#[async_trait]
pub trait EventLog: Send + Sync + 'static {
    /// How many partitions the topic has; never changes while the log is open.
    ///
    /// # Errors
    /// [`LogError::UnknownTopic`].
    fn partitions(&self, topic: &str) -> Result<u32, LogError>;

    /// Appends records, which may go to several topics, and returns their positions in the same order
    /// once all of them are durable. The embedded log writes one call's records all or none.
    ///
    /// Dropping the returned future does not take the records back.
    ///
    /// # Errors
    /// [`LogError::Full`] when the queue has no room within the append deadline (nothing was written;
    /// try again later); [`LogError::UnknownTopic`] and [`LogError::TooLarge`] (nothing was written);
    /// [`LogError::Storage`] when it is not known whether the write is durable.
    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Position>, LogError>;

    /// Reads records of a partition from an offset on, in order: at most `max_records`, possibly none.
    /// When there are none yet, waits for the first one for at most `wait`.
    ///
    /// # Errors
    /// [`LogError::OffsetOutOfRange`] when retention has removed the offset, or when it lies beyond the
    /// offset the next record will get.
    async fn read(
        &self,
        topic: &str,
        partition: u32,
        from_offset: u64,
        max_records: usize,
        wait: Duration,
    ) -> Result<Vec<LoggedRecord>, LogError>;

    /// The oldest offset kept and the offset the next record will get.
    ///
    /// # Errors
    /// [`LogError::UnknownTopic`], [`LogError::Storage`].
    async fn bounds(&self, topic: &str, partition: u32) -> Result<(u64, u64), LogError>;

    /// Waits until any partition of `topic` has a record at or past the offset `from[partition]`, or
    /// until `wait` has passed. Returns whether there is one.
    ///
    /// # Errors
    /// [`LogError::UnknownTopic`], [`LogError::Storage`].
    async fn wait_for_any(&self, topic: &str, from: &[u64], wait: Duration) -> Result<bool, LogError>;

    /// Records durably that `group` has dealt with everything before `offset` of a partition. A later
    /// commit replaces an earlier one, also with a lower offset: that is how a group is set back.
    ///
    /// # Errors
    /// [`LogError::UnknownTopic`], [`LogError::Storage`].
    async fn commit(&self, group: &str, topic: &str, partition: u32, offset: u64) -> Result<(), LogError>;

    /// The offset `group` last committed, if any.
    ///
    /// # Errors
    /// [`LogError::UnknownTopic`], [`LogError::Storage`].
    async fn committed(&self, group: &str, topic: &str, partition: u32) -> Result<Option<u64>, LogError>;
}

/// Why the log could not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    /// The append queue stayed full until the deadline. Nothing was written.
    #[error("the log's append queue is full: try again later")]
    Full,
    /// The log is shutting down. Nothing was written.
    #[error("the log is closed")]
    Closed,
    /// No such topic.
    #[error("topic `{0}` is not one of this log's")]
    UnknownTopic(String),
    /// No such partition.
    #[error("topic `{topic}` has no partition {partition}")]
    UnknownPartition {
        /// The topic.
        topic: String,
        /// The partition asked for.
        partition: u32,
    },
    /// Retention has removed the offset, or it was never written.
    #[error("offset {offset} of {topic}/{partition} is not kept: the log holds {start} up to {end}")]
    OffsetOutOfRange {
        /// The topic.
        topic: String,
        /// The partition.
        partition: u32,
        /// The offset asked for.
        offset: u64,
        /// The oldest offset kept.
        start: u64,
        /// The next offset to be written.
        end: u64,
    },
    /// A record that no log of this kind takes. Nothing was written.
    #[error("a record of {bytes} bytes is larger than the log takes ({max_bytes}): split it or drop it")]
    TooLarge {
        /// Its size, encoded.
        bytes: usize,
        /// The largest size.
        max_bytes: usize,
    },
    /// The disk, or the broker, failed: whether a write under way is durable is not known.
    #[error("log storage: {0}")]
    Storage(String),
}
