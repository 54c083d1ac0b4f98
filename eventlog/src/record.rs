//! Records of the log.

use bytes::Bytes;

/// A record to append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRecord {
    /// The topic it goes to.
    pub topic: &'static str,
    /// Decides the partition: records of one key keep their order.
    pub key: Bytes,
    /// The encoded message.
    pub value: Bytes,
    /// Names and values beside the message, for example why a dead letter is dead.
    pub headers: Vec<(String, Bytes)>,
    /// Milliseconds since the Unix epoch; what retention by time goes by.
    pub timestamp_ms: i64,
}

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// From 0 to the topic's number of partitions.
    pub partition: u32,
    /// From 0, increasing from record to record of a partition: by one, except where a log leaves numbers out.
    pub offset: u64,
}

impl Position {
    /// The positions of a topic's partitions, given as one offset for each, from partition 0 on.
    #[must_use]
    pub fn of_all(offsets: &[u64]) -> Vec<Self> {
        (0..).zip(offsets).map(|(partition, &offset)| Self { partition, offset }).collect()
    }
}

/// A record read from one partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedRecord {
    /// Its offset in the partition it was read from.
    pub offset: u64,
    /// As appended.
    pub key: Bytes,
    /// As appended.
    pub value: Bytes,
    /// As appended.
    pub headers: Vec<(String, Bytes)>,
    /// As appended, in milliseconds since the Unix epoch.
    pub timestamp_ms: i64,
}

impl LoggedRecord {
    /// How many bytes its key, value and headers have together.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.key.len() + self.value.len() + headers
    }
}
