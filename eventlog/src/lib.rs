//! The ordered, partitioned log that every stage reads from and writes to.
//!
//! - [`record`]: what is appended and what is read back.
//! - [`log`]: the [`EventLog`] trait, the port that stages are written against.
//! - [`partitioner`]: which partition a key belongs to.
//! - [`embedded`]: the log in one process, on fjall.
//! - [`kafka`]: the log on Kafka, for processes that share it.
//! - [`contract`]: the tests that every implementation passes.

pub mod contract;
pub mod embedded;
pub mod kafka;
pub mod log;
mod metrics;
pub mod partitioner;
pub mod record;

pub use embedded::{EmbeddedLog, EmbeddedLogConfig, Retention};
pub use kafka::{ConsumerLag, KafkaConfig, KafkaLog};
pub use log::{Change, EventLog, LetGo, LogError, Membership, Writer};
pub use record::{LoggedRecord, NewRecord, Position};
