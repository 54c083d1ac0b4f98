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
    /// When there are none yet, waits for the first one for at most `wait`. What an append that has returned
    /// wrote, in any process, is there: no record that is missing was acknowledged before the call.
    ///
    /// Offsets increase from record to record, and may leave numbers out.
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

    /// The oldest offset kept and an offset past the last record, which the next record will get at the
    /// earliest.
    ///
    /// # Errors
    /// [`LogError::UnknownTopic`], [`LogError::Storage`].
    async fn bounds(&self, topic: &str, partition: u32) -> Result<(u64, u64), LogError>;

    /// Waits until any of some partitions of `topic` has a record at or past the offset asked for with it, or
    /// until `wait` has passed. Returns the partitions that have one, in the order asked for. Without a wait,
    /// a record that was appended a moment ago may be missed: meant to be called again and again.
    ///
    /// # Errors
    /// [`LogError::UnknownTopic`], [`LogError::UnknownPartition`], [`LogError::Storage`].
    async fn wait_for_any(
        &self,
        topic: &str,
        from: &[Position],
        wait: Duration,
    ) -> Result<Vec<u32>, LogError>;

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

    /// Whether other processes use it too: then they go on with what this one leaves, and what fails may work
    /// again later without a restart.
    fn is_shared(&self) -> bool {
        false
    }

    /// Becomes the one writer called `name`, and shuts out whoever was it before, in any process: what that
    /// one appended by now can be read when this returns, and it appends nothing more.
    ///
    /// # Errors
    /// [`LogError::Closed`], [`LogError::Storage`].
    async fn writer(&self, name: &str) -> Result<Box<dyn Writer>, LogError>;

    /// Joins the processes that share work of `parts` parts, numbered from 0, under the name of `group`. Each
    /// part is in at most one process's hands, as far as all of them are alive; who was taken for dead and
    /// lives is kept from harm by [`EventLog::writer`].
    ///
    /// # Errors
    /// [`LogError::Closed`], [`LogError::UnknownTopic`] when the log was not prepared for the group,
    /// [`LogError::Storage`].
    async fn join(&self, group: &str, parts: u32) -> Result<Box<dyn Membership>, LogError>;
}

/// The only writer of its name, until another takes its place.
#[async_trait]
pub trait Writer: Send + Sync {
    /// Appends records as [`EventLog::append`] does, but all or none of them, also after a crash.
    ///
    /// # Errors
    /// Those of [`EventLog::append`]; [`LogError::NotWritten`], after which the writer goes on;
    /// [`LogError::Storage`], after which it appends nothing more, as another has to be made to find out what
    /// was written; [`LogError::Fenced`] when another has taken this writer's place, and
    /// nothing was written.
    async fn append(&mut self, records: Vec<NewRecord>) -> Result<Vec<Position>, LogError>;
}

/// A process's place among those that share the work.
#[async_trait]
pub trait Membership: Send {
    /// Waits for the next change. A call that is dropped before it returns loses none.
    ///
    /// # Errors
    /// [`LogError::Closed`], [`LogError::Storage`] when the group cannot be reached any more.
    async fn changed(&mut self) -> Result<Change, LogError>;

    /// Gives all parts up, so that others need not wait until this process is taken for dead.
    async fn leave(self: Box<Self>);
}

/// What became of a process's share.
#[derive(Debug)]
pub enum Change {
    /// These parts are this process's from now on.
    Gained(Vec<u32>),
    /// Another process is to get these parts, and waits until the value beside them is dropped: finish what is
    /// under way first, within seconds.
    Losing(Vec<u32>, LetGo),
    /// These parts may be another's by now: this process was taken for dead.
    Lost(Vec<u32>),
}

/// Lets go of parts when it is dropped.
#[derive(Debug)]
pub struct LetGo(#[allow(dead_code)] pub(crate) tokio::sync::oneshot::Sender<()>);

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
    /// Another process has become the writer of this name. Nothing was written.
    #[error("another process writes as `{0}` now: this one has been taken for dead")]
    Fenced(String),
    /// The broker did not take it, or a transaction was taken back. Nothing was written; try again later.
    #[error("nothing was written: {0}")]
    NotWritten(String),
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
