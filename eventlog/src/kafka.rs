//! The log on Kafka.
//!
//! Appends go through one idempotent producer (`appender`), writers through transactions (`writer`).
//! Readers are served from memory (`window`) that consumers on threads of their own fill (`cursor`,
//! `reader`); where that leaves a question, the broker is asked (`ends`), and `single` records from
//! long ago are fetched for themselves. A group's offsets are the
//! broker's too (`positions`), and so is who has which part of the work (`members`).

mod appender;
mod client;
mod config;
mod cursor;
mod delivery;
mod ends;
mod members;
mod metrics;
mod positions;
mod reader;
mod single;
pub mod topics;
mod window;
mod writer;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::RDKafkaErrorCode;

use appender::{Appender, Topic, Topics};
pub use config::KafkaConfig;
use ends::Ends;
pub use metrics::ConsumerLag;
use metrics::Metrics;
use positions::Positions;
use reader::Reader;
use single::Single;
use writer::Writers;

use crate::{EventLog, LogError, LoggedRecord, Membership, NewRecord, Position, Writer};

/// What to do about topics that are missing or wrong.
const APPLY: &str = "`paystream topics apply` makes what is missing";

/// The log on Kafka. Made by [`KafkaLog::open`]; meant to be shared as `Arc<dyn EventLog>`.
pub struct KafkaLog {
    config: Arc<KafkaConfig>,
    appender: Appender,
    readers: HashMap<&'static str, Reader>,
    writers: Writers,
    positions: Positions,
    ends: Ends,
    single: Arc<Single>,
    metrics: Arc<Metrics>,
    closed: AtomicBool,
}

impl KafkaLog {
    /// Reaches the broker and checks that the topics of [`events::topics`] are there.
    ///
    /// # Errors
    /// [`LogError::Storage`] when the configuration makes no sense, the broker cannot be reached, or topics
    /// are missing or do not go together.
    pub async fn open(config: KafkaConfig) -> Result<Self, LogError> {
        if let Some((key, message)) = config.validate().into_iter().next() {
            return Err(LogError::Storage(format!("`kafka.{key}` {message}")));
        }
        if !config.is_set() {
            return Err(LogError::Storage("`kafka.brokers` names no Kafka".to_owned()));
        }
        let config = Arc::new(config);
        let metrics =
            Arc::new(Metrics::new().map_err(|e| LogError::Storage(format!("making the metrics: {e}")))?);
        let ends = Ends::new(&config)?;
        let topics = {
            let (ends, config) = (ends.clone(), Arc::clone(&config));
            let limit = 2 * config.request_deadline();
            client::blocking("looking for the topics", limit, move || find_topics(&ends, &config)).await?
        };
        let topics = Arc::new(topics);
        let single = Arc::new(Single::new(Arc::clone(&config)));
        let reader = |(&name, topic): (&&'static str, &Topic)| {
            let with = (config.clone(), metrics.clone(), ends.clone(), single.clone());
            (name, Reader::new(name, topic.clone(), with))
        };
        let readers = topics.iter().map(reader).collect();
        Ok(Self {
            appender: Appender::new(&config, Arc::clone(&topics), Arc::clone(&metrics))?,
            readers,
            writers: Writers {
                config: Arc::clone(&config),
                topics: Arc::clone(&topics),
                metrics: Arc::clone(&metrics),
            },
            positions: Positions::new(Arc::clone(&config)),
            ends,
            single,
            metrics,
            closed: AtomicBool::new(false),
            config,
        })
    }

    /// Adds the log's metrics to a registry.
    ///
    /// # Errors
    /// When the registry already holds a log's metrics.
    pub fn register(&self, registry: &prometheus::Registry) -> prometheus::Result<()> {
        self.metrics.register(registry)
    }

    /// Refuses new appends, waits for those under way, and wakes every waiting reader with
    /// [`LogError::Closed`]. Memberships are left one by one before.
    pub async fn close(&self) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        self.appender.close().await;
        for reader in self.readers.values() {
            reader.close();
        }
        self.single.close();
        self.positions.close();
    }

    fn reader(&self, topic: &str) -> Result<&Reader, LogError> {
        self.readers.get(topic).ok_or_else(|| LogError::UnknownTopic(topic.to_owned()))
    }

    fn check_open(&self) -> Result<(), LogError> {
        if self.closed.load(Ordering::Acquire) { Err(LogError::Closed) } else { Ok(()) }
    }

    /// The name on the broker of a partition's topic, if both exist.
    fn full_topic(&self, topic: &str, partition: u32) -> Result<String, LogError> {
        self.check_open()?;
        self.reader(topic)?.check(partition)?;
        Ok(self.config.full(topic))
    }
}

#[async_trait]
impl EventLog for KafkaLog {
    fn partitions(&self, topic: &str) -> Result<u32, LogError> {
        self.reader(topic).map(Reader::partitions)
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Position>, LogError> {
        self.appender.append(records).await
    }

    async fn read(
        &self,
        topic: &str,
        partition: u32,
        from_offset: u64,
        max_records: usize,
        wait: Duration,
    ) -> Result<Vec<LoggedRecord>, LogError> {
        self.reader(topic)?.read(partition, from_offset, max_records, wait).await
    }

    async fn bounds(&self, topic: &str, partition: u32) -> Result<(u64, u64), LogError> {
        let bounds = self.reader(topic)?.bounds(partition).await?;
        Ok((bounds.start, bounds.end))
    }

    async fn wait_for_any(
        &self,
        topic: &str,
        from: &[Position],
        wait: Duration,
    ) -> Result<Vec<u32>, LogError> {
        self.reader(topic)?.wait_for_any(from, wait).await
    }

    async fn commit(&self, group: &str, topic: &str, partition: u32, offset: u64) -> Result<(), LogError> {
        let full = self.full_topic(topic, partition)?;
        self.positions.commit(group, &full, partition, offset).await
    }

    async fn committed(&self, group: &str, topic: &str, partition: u32) -> Result<Option<u64>, LogError> {
        let full = self.full_topic(topic, partition)?;
        self.positions.committed(group, &full, partition).await
    }

    fn is_shared(&self) -> bool {
        true
    }

    async fn writer(&self, name: &str) -> Result<Box<dyn Writer>, LogError> {
        self.check_open()?;
        Ok(Box::new(self.writers.replace(name).await?))
    }

    async fn join(&self, group: &str, parts: u32) -> Result<Box<dyn Membership>, LogError> {
        self.check_open()?;
        let name = members::topic(group);
        let full = self.config.full(&name);
        let (ends, config, topic) = (self.ends.clone(), Arc::clone(&self.config), full.clone());
        let what = format!("looking for the topic {full}");
        let limit = self.config.request_deadline();
        let found = client::blocking(&what, limit, move || partitions_of(&ends, &config, &topic)).await?;
        match found {
            None => Err(LogError::UnknownTopic(full)),
            Some(found) if found != parts => Err(LogError::Storage(format!(
                "the topic {full} has {found} partitions, for {parts} parts of the work: declare as many, and {APPLY}"
            ))),
            Some(_) => Ok(Box::new(members::join(&self.config, &full, self.metrics.polls.watch())?)),
        }
    }
}

impl Drop for KafkaLog {
    fn drop(&mut self) {
        for reader in self.readers.values() {
            reader.close();
        }
    }
}

/// The topics of the contract, each with its partitions.
fn find_topics(ends: &Ends, config: &KafkaConfig) -> Result<Topics, LogError> {
    let (mut topics, mut missing) = (Topics::new(), Vec::new());
    let names = events::topics::ALL.into_iter().chain(events::topics::DEAD_LETTERS);
    for name in names.chain(events::topics::INTERNAL) {
        let full = config.full(name);
        match partitions_of(ends, config, &full)? {
            Some(partitions) => drop(topics.insert(name, Topic { full, partitions })),
            None => missing.push(full),
        }
    }
    if !missing.is_empty() {
        return Err(LogError::Storage(format!(
            "Kafka at {} lacks the topics {}: {APPLY}",
            config.brokers,
            missing.join(", ")
        )));
    }
    let first = topics[events::topics::ALL[0]].partitions;
    for name in events::topics::ALL {
        let partitions = topics[name].partitions;
        if partitions != first {
            return Err(LogError::Storage(format!(
                "the topic {} has {partitions} partitions and {} has {first}: one card is to be in partitions of \
                 one number everywhere; give them equal numbers in the topics' file and make the topics anew with \
                 `paystream topics apply`",
                topics[name].full,
                topics[events::topics::ALL[0]].full
            )));
        }
    }
    Ok(topics)
}

/// How many partitions a topic has, if it exists.
fn partitions_of(ends: &Ends, config: &KafkaConfig, full: &str) -> Result<Option<u32>, LogError> {
    let what = format!("asking Kafka at {} for the topic {full}", config.brokers);
    let metadata = ends
        .client()
        .fetch_metadata(Some(full), config.request_deadline())
        .map_err(client::storage(&what))?;
    let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == full) else { return Ok(None) };
    match topic.error().map(RDKafkaErrorCode::from) {
        None => Ok(u32::try_from(topic.partitions().len()).ok()),
        Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => Ok(None),
        Some(code) => Err(LogError::Storage(format!("{what}: {code}"))),
    }
}
