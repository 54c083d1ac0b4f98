//! The topics, declared in one file: what differs on the broker, and making it so.

mod admin;
mod declared;
mod difference;

pub use admin::TopicAdmin;
pub use declared::{DEFAULT_TOPICS, DeclaredTopic, TopicsError, TopicsFile};
pub use difference::{ActualTopic, Difference, diff};

/// Topics whose partitions are parts of the work, and hold no records.
const MEMBERS: &str = "members.";
