//! Plain appends: an idempotent producer, and one completion for each call.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::client;
use super::config::KafkaConfig;
use super::delivery::{Completion, Delivered, Deliveries, Ticket};
use super::metrics::Metrics;
use crate::{LogError, NewRecord, Position, partitioner};

/// Calls with more records than this are handed over on a thread for blocking work: it takes a microsecond or
/// two a record.
const INLINE_RECORDS: usize = 256;
/// What a record takes beside its key, value and headers, at the most.
const FRAME_BYTES: usize = 64;
const HEADER_FRAME_BYTES: usize = 10;

/// A topic, as the broker knows it.
#[derive(Debug, Clone)]
pub(super) struct Topic {
    /// Its name on the broker.
    pub(super) full: String,
    pub(super) partitions: u32,
}

/// The log's topics by their own names.
pub(super) type Topics = HashMap<&'static str, Topic>;

/// The topic of a name.
pub(super) fn topic_of<'a>(topics: &'a Topics, name: &str) -> Result<&'a Topic, LogError> {
    topics.get(name).ok_or_else(|| LogError::UnknownTopic(name.to_owned()))
}

/// What appending takes.
#[derive(Clone)]
pub(super) struct Appender {
    config: Arc<KafkaConfig>,
    /// Made anew after an error that ends it.
    producer: Arc<Mutex<ThreadedProducer<Deliveries>>>,
    topics: Arc<Topics>,
    room: Arc<Room>,
    metrics: Arc<Metrics>,
    deadline: Duration,
    max_record_bytes: usize,
}

impl Appender {
    pub(super) fn new(
        config: &Arc<KafkaConfig>,
        topics: Arc<Topics>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, LogError> {
        Ok(Self {
            config: Arc::clone(config),
            producer: Arc::new(Mutex::new(make_producer(config)?)),
            topics,
            room: Arc::new(Room::new(config)),
            metrics,
            deadline: config.append_deadline(),
            max_record_bytes: config.max_record_bytes,
        })
    }

    pub(super) async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Position>, LogError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let started = Instant::now();
        let bytes = check(&self.topics, &records, self.max_record_bytes)?;
        let room =
            self.room.take(records.len(), bytes, started + self.deadline).await.inspect_err(|error| {
                if matches!(error, LogError::Full) {
                    self.metrics.refused.inc();
                }
            })?;
        let count = records.len();
        self.metrics.queue_records.add(gauge(count));
        let (completion, answer) = Completion::new(count, Some(room));
        let producer = self.producer();
        if count <= INLINE_RECORDS {
            self.hand_over(&producer, &records, &completion);
        } else {
            let (this, producer) = (self.clone(), producer.clone());
            // Runs to its end, whether or not the caller is still there.
            tokio::task::spawn_blocking(move || this.hand_over(&producer, &records, &completion));
        }
        let metrics = Arc::clone(&self.metrics);
        let _leaves_queue = Leaving(metrics, count);
        // The producer gives up before.
        let answer = tokio::time::timeout(self.deadline, answer).await;
        let positions = delivered(answer.ok().and_then(Result::ok), self.deadline)
            .inspect_err(|_| self.replace_if_ended(&producer))?;
        self.metrics.append_seconds.observe(started.elapsed().as_secs_f64());
        Ok(positions)
    }

    fn producer(&self) -> ThreadedProducer<Deliveries> {
        self.producer.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An error that librdkafka calls fatal ends a producer, but not what another may do.
    fn replace_if_ended(&self, used: &ThreadedProducer<Deliveries>) {
        let mut producer = self.producer.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((code, reason)) = producer.client().fatal_error() else { return };
        // Several appends may have failed with it; one of them replaces it.
        if producer.client().native_ptr() != used.client().native_ptr() {
            return;
        }
        tracing::error!(%code, reason, "the producer has ended: another takes its place");
        match make_producer(&self.config) {
            Ok(new) => *producer = new,
            Err(error) => tracing::error!(%error, "making another producer"),
        }
    }

    fn hand_over(
        &self,
        producer: &ThreadedProducer<Deliveries>,
        records: &[NewRecord],
        completion: &Arc<Completion>,
    ) {
        send(producer, &self.topics, records, completion);
        count_records(&self.metrics, records);
    }

    /// Refuses new appends, and waits for those under way.
    pub(super) async fn close(&self) {
        self.room.close(2 * self.deadline).await;
    }
}

fn make_producer(config: &KafkaConfig) -> Result<ThreadedProducer<Deliveries>, LogError> {
    let mut settings = client::producer(config);
    settings
        .set("linger.ms", config.linger_ms.to_string())
        // Below the deadline, so that every record's report comes before it.
        .set("delivery.timeout.ms", (config.append_deadline_ms * 9 / 10).to_string());
    settings.create_with_context(Deliveries).map_err(client::storage("making the Kafka producer"))
}

/// Takes records off the gauge, also when the caller goes away.
struct Leaving(Arc<Metrics>, usize);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.queue_records.sub(gauge(self.1));
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// What a call's answer means.
fn delivered(answer: Option<Delivered>, deadline: Duration) -> Result<Vec<Position>, LogError> {
    match answer {
        Some(Ok(positions)) => Ok(positions),
        Some(Err(KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge))) => Err(LogError::Storage(
            "the broker refuses a record as too large: lower kafka.max_record_bytes, or raise the topic's max.message.bytes".to_owned(),
        )),
        Some(Err(error)) => Err(LogError::Storage(format!("appending: {}", client::explain(&error)))),
        None => Err(LogError::Storage(format!(
            "the broker has not acknowledged an append for {} ms: it may still be written",
            deadline.as_millis()
        ))),
    }
}

/// Refuses what cannot be appended before anything is; says how many bytes there are.
pub(super) fn check(topics: &Topics, records: &[NewRecord], max_bytes: usize) -> Result<usize, LogError> {
    let mut sum = 0;
    for record in records {
        topic_of(topics, record.topic)?;
        let bytes = encoded_bytes(record);
        if bytes > max_bytes {
            return Err(LogError::TooLarge { bytes, max_bytes });
        }
        sum += bytes;
    }
    Ok(sum)
}

fn encoded_bytes(record: &NewRecord) -> usize {
    let header = |(name, value): &(String, bytes::Bytes)| name.len() + value.len() + HEADER_FRAME_BYTES;
    record.key.len() + record.value.len() + record.headers.iter().map(header).sum::<usize>() + FRAME_BYTES
}

pub(super) fn count_records(metrics: &Metrics, records: &[NewRecord]) {
    // Most calls write runs of one topic.
    for run in records.chunk_by(|a, b| a.topic == b.topic) {
        let topic = run[0].topic;
        let bytes: usize = run.iter().map(|record| record.key.len() + record.value.len()).sum();
        metrics.records.with_label_values(&[topic]).inc_by(run.len() as u64);
        metrics.record_bytes.with_label_values(&[topic]).inc_by(bytes as u64);
    }
}

/// Hands records to a producer, in order; their reports go to `completion`.
pub(super) fn send(
    producer: &ThreadedProducer<Deliveries>,
    topics: &Topics,
    records: &[NewRecord],
    completion: &Arc<Completion>,
) {
    for (index, record) in records.iter().enumerate() {
        let Some(topic) = topics.get(record.topic) else {
            let unknown = KafkaError::MessageProduction(RDKafkaErrorCode::UnknownTopic);
            completion.handed_over(records.len() - index, Some(unknown));
            return;
        };
        let partition = partitioner::partition_for(&record.key, topic.partitions);
        let ticket = Box::new(Ticket { completion: Arc::clone(completion), index });
        let mut outgoing = BaseRecord::with_opaque_to(&topic.full, ticket)
            .partition(i32::try_from(partition).unwrap_or(i32::MAX))
            .key(&record.key[..])
            .payload(&record.value[..])
            .timestamp(record.timestamp_ms);
        if !record.headers.is_empty() {
            let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
            for (name, value) in &record.headers {
                headers = headers.insert(Header { key: name, value: Some(&value[..]) });
            }
            outgoing = outgoing.headers(headers);
        }
        if let Err((error, _)) = producer.send(outgoing) {
            completion.handed_over(records.len() - index, Some(error));
            return;
        }
    }
    completion.handed_over(0, None);
}

/// The bounds on what is on its way.
struct Room {
    records: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    max_records: u32,
    max_bytes: u32,
}

impl Room {
    fn new(config: &KafkaConfig) -> Self {
        let max_records = u32::try_from(config.append_queue_records).unwrap_or(u32::MAX);
        let max_bytes = u32::try_from(config.append_queue_bytes).unwrap_or(u32::MAX);
        Self {
            records: Arc::new(Semaphore::new(max_records as usize)),
            bytes: Arc::new(Semaphore::new(max_bytes as usize)),
            max_records,
            max_bytes,
        }
    }

    /// Waits for room. A call larger than the queue is taken when it is alone.
    async fn take(
        &self,
        records: usize,
        bytes: usize,
        deadline: Instant,
    ) -> Result<[OwnedSemaphorePermit; 2], LogError> {
        let within = |value: usize, max: u32| u32::try_from(value).unwrap_or(u32::MAX).min(max);
        let both = async {
            let records = Arc::clone(&self.records).acquire_many_owned(within(records, self.max_records));
            let records = records.await.map_err(|_| LogError::Closed)?;
            let bytes = Arc::clone(&self.bytes).acquire_many_owned(within(bytes, self.max_bytes));
            Ok([records, bytes.await.map_err(|_| LogError::Closed)?])
        };
        tokio::time::timeout_at(deadline, both).await.unwrap_or(Err(LogError::Full))
    }

    async fn close(&self, deadline: Duration) {
        let all = self.records.acquire_many(self.max_records);
        if tokio::time::timeout(deadline, all).await.is_err() {
            tracing::warn!("the log is closed while appends are still on their way to the broker");
        }
        self.records.close();
        self.bytes.close();
    }
}
