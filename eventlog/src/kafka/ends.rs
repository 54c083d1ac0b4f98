//! Where partitions begin and end, asked of the broker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaResult;

use super::client::{self, Logs};
use super::config::KafkaConfig;
use crate::LogError;

/// A transaction that was acknowledged becomes visible within milliseconds. One that is not decided after
/// this was not acknowledged: its writer has died, and the broker is going to abort it.
const UNDECIDED_MAX: Duration = Duration::from_secs(2);
/// Between two questions whether an open transaction has been decided …
const UNDECIDED_RETRY_MIN: Duration = Duration::from_millis(1);
/// … doubled up to this.
const UNDECIDED_RETRY_MAX: Duration = Duration::from_millis(50);
/// Between two tries when the broker cannot be reached, or a partition has no leader.
const RETRY: Duration = Duration::from_millis(50);

/// What a partition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// The oldest offset kept.
    pub(super) start: u64,
    /// What lies before is decided, and there for readers.
    pub(super) end: u64,
    /// The offset the next record gets.
    pub(super) top: u64,
}

/// Asks for bounds.
#[derive(Clone)]
pub(super) struct Ends(Arc<Askers>);

struct Askers {
    committed: BaseConsumer<Logs>,
    uncommitted: BaseConsumer<Logs>,
    deadline: Duration,
}

impl Ends {
    pub(super) fn new(config: &KafkaConfig) -> Result<Self, LogError> {
        let asker = |isolation: &str| {
            let mut client = client::base(config);
            client.set("isolation.level", isolation);
            client.create_with_context(Logs).map_err(client::storage("making a Kafka client"))
        };
        Ok(Self(Arc::new(Askers {
            committed: asker("read_committed")?,
            uncommitted: asker("read_uncommitted")?,
            deadline: config.request_deadline(),
        })))
    }

    /// The client that asks, for other questions.
    pub(super) fn client(&self) -> &BaseConsumer<Logs> {
        &self.0.uncommitted
    }

    /// The bounds now. Everything that was acknowledged before the call lies before the end.
    pub(super) async fn bounds(&self, topic: &str, partition: u32) -> Result<Bounds, LogError> {
        let (askers, topic) = (Arc::clone(&self.0), topic.to_owned());
        let what = format!("asking for the bounds of {topic}/{partition}");
        let deadline = self.0.deadline + UNDECIDED_MAX;
        client::blocking(&what.clone(), deadline, move || {
            askers
                .bounds(&topic, i32::try_from(partition).unwrap_or(i32::MAX))
                .map_err(client::storage(&what))
        })
        .await
    }
}

impl Askers {
    /// A commit is acknowledged once it is certain, and a moment before readers see it. So an end that
    /// readers may see is compared with the end of all that is written: where they differ, what lies between
    /// them may have been acknowledged, and is waited for.
    fn bounds(&self, topic: &str, partition: i32) -> KafkaResult<Bounds> {
        let started = Instant::now();
        let (_, top) = self.ask(&self.uncommitted, topic, partition)?;
        let mut retry = UNDECIDED_RETRY_MIN;
        loop {
            let (start, end) = self.ask(&self.committed, topic, partition)?;
            if end >= top || started.elapsed() > UNDECIDED_MAX {
                return Ok(Bounds { start, end, top: top.max(end) });
            }
            client::pause(retry);
            retry = (retry * 2).min(UNDECIDED_RETRY_MAX);
        }
    }

    fn ask(&self, asker: &BaseConsumer<Logs>, topic: &str, partition: i32) -> KafkaResult<(u64, u64)> {
        let started = Instant::now();
        let answer = loop {
            let left = self.deadline.saturating_sub(started.elapsed());
            match asker.fetch_watermarks(topic, partition, left) {
                Err(error) if left > RETRY => {
                    tracing::debug!(%error, topic, partition, "asking for the bounds again");
                    client::pause(RETRY);
                }
                answer => break answer,
            }
        };
        // Nobody else takes the client's errors off its queue.
        while asker.poll(Duration::ZERO).is_some() {}
        let (start, end) = answer?;
        Ok((u64::try_from(start).unwrap_or_default(), u64::try_from(end).unwrap_or_default()))
    }
}
