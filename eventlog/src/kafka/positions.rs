//! Offsets of groups: kept by the broker for a group that nobody joins.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::client::{self, Logs};
use super::config::KafkaConfig;
use crate::LogError;

/// Between two tries while the group's coordinator is not there.
const RETRY: Duration = Duration::from_millis(50);
/// Kafka's own bound is above it.
const MAX_GROUP_NAME_BYTES: usize = 255;

/// The offsets groups have committed.
pub(super) struct Positions {
    config: Arc<KafkaConfig>,
    groups: Mutex<HashMap<String, Arc<BaseConsumer<Logs>>>>,
}

impl Positions {
    pub(super) fn new(config: Arc<KafkaConfig>) -> Self {
        Self { config, groups: Mutex::default() }
    }

    pub(super) async fn commit(
        &self,
        group: &str,
        topic: &str,
        partition: u32,
        offset: u64,
    ) -> Result<(), LogError> {
        let what = format!("committing offset {offset} of {topic}/{partition} for `{group}`");
        let offset = i64::try_from(offset)
            .map_err(|_| LogError::Storage(format!("{what}: there is no such offset")))?;
        let list = list(topic, partition, Offset::Offset(offset));
        self.ask(group, what, move |consumer, _| consumer.commit(&list, CommitMode::Sync)).await
    }

    pub(super) async fn committed(
        &self,
        group: &str,
        topic: &str,
        partition: u32,
    ) -> Result<Option<u64>, LogError> {
        let what = format!("asking what `{group}` has committed of {topic}/{partition}");
        let list = list(topic, partition, Offset::Invalid);
        let answer = self
            .ask(group, what, move |consumer, left| {
                let answer = consumer.committed_offsets(list.clone(), left)?;
                let element = answer.elements().into_iter().next().ok_or(KafkaError::Canceled)?;
                element.error()?;
                Ok(element.offset())
            })
            .await?;
        match answer {
            Offset::Offset(offset) => Ok(u64::try_from(offset).ok()),
            _ => Ok(None),
        }
    }

    async fn ask<T: Send + 'static>(
        &self,
        group: &str,
        what: String,
        ask: impl Fn(&BaseConsumer<Logs>, Duration) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, LogError> {
        let consumer = self.group(group)?;
        let limit = self.config.request_deadline();
        client::blocking(&what.clone(), limit, move || {
            let deadline = Instant::now() + limit;
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                let answer = ask(&consumer, left);
                // Nobody else takes the client's errors off its queue.
                while consumer.poll(Duration::ZERO).is_some() {}
                match answer {
                    Err(error) if is_temporary(&error) && left > RETRY => client::pause(RETRY),
                    answer => return answer.map_err(client::storage(&what)),
                }
            }
        })
        .await
    }

    fn group(&self, group: &str) -> Result<Arc<BaseConsumer<Logs>>, LogError> {
        if group.is_empty() || group.len() > MAX_GROUP_NAME_BYTES {
            return Err(LogError::Storage(format!(
                "a group's name has 1 to {MAX_GROUP_NAME_BYTES} bytes, not {}",
                group.len()
            )));
        }
        let mut groups = self.groups.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(consumer) = groups.get(group) {
            return Ok(Arc::clone(consumer));
        }
        let consumer: BaseConsumer<Logs> = client::consumer(&self.config, &self.config.full(group))
            .create_with_context(Logs)
            .map_err(client::storage("making a Kafka consumer"))?;
        let consumer = Arc::new(consumer);
        groups.insert(group.to_owned(), Arc::clone(&consumer));
        Ok(consumer)
    }

    pub(super) fn close(&self) {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

fn list(topic: &str, partition: u32, offset: Offset) -> TopicPartitionList {
    let mut list = TopicPartitionList::with_capacity(1);
    let mut element = list.add_partition(topic, i32::try_from(partition).unwrap_or(i32::MAX));
    // Fails for offsets that mean something else only.
    let _ = element.set_offset(offset);
    list
}

fn is_temporary(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    error.rdkafka_error_code().is_some_and(|code| {
        matches!(
            code,
            Code::WaitingForCoordinator
                | Code::CoordinatorNotAvailable
                | Code::CoordinatorLoadInProgress
                | Code::NotCoordinator
                | Code::BrokerTransportFailure
                | Code::AllBrokersDown
                | Code::OperationTimedOut
                | Code::RequestTimedOut
                | Code::UnstableOffsetCommit
                | Code::RebalanceInProgress
        )
    })
}
