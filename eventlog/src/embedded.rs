//! The log in one process, on fjall.
//!
//! Appends from all callers meet in one bounded queue (`queue.rs`); one thread (`writer.rs`) writes all that
//! waits there as one batch and syncs the disk once for all of it. A failed write poisons the log: what is on
//! the disk is then unknown, so everything is refused until a restart has read it again.
//!
//! What a crash does: records whose append returned are there, in order and without a gap; a batch that was
//! being written is there whole or not at all. A journal cut short or overwritten at its end loses the
//! batches from there on; damage that fjall's checksums see makes opening fail, with the reason.

mod alone;
mod config;
mod format;
mod positions;
mod queue;
mod retention;
mod store;
mod topic;
mod writer;

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use tokio::sync::oneshot;
use tokio::time::Instant;

use alone::{Alone, Writers};
pub use config::{EmbeddedLogConfig, Retention};
use positions::Positions;
use queue::{Pending, Queue, Request};
use store::Store;
use topic::Topic;
use writer::{Poison, Writer as DiskWriter};

use crate::metrics::Metrics;
use crate::{EventLog, LogError, LoggedRecord, Membership, NewRecord, Position, Writer, partitioner};

/// An append that is queued waits this long for the disk before its caller is told that its fate is unknown.
const DURABLE_DEADLINE: Duration = Duration::from_secs(30);
/// No reader waits longer than this in one call.
const MAX_WAIT: Duration = Duration::from_secs(3_600);
/// Reads of at most this many records that reach the end come from memory, and are done in place; others
/// may wait for the disk, and are done on a thread for blocking work.
const TAIL_RECORDS: u64 = 1_024;
/// Names of consumer groups are part of a key.
const MAX_GROUP_NAME_BYTES: usize = 255;

/// The embedded log. Made by [`EmbeddedLog::open`]; meant to be shared as `Arc<dyn EventLog>`.
pub struct EmbeddedLog {
    appender: Appender,
    positions: Arc<Positions>,
    closed: AtomicBool,
    threads: Mutex<Option<Threads>>,
    writers: Writers,
}

/// What appending takes.
#[derive(Clone)]
struct Appender {
    topics: Arc<[Topic]>,
    partitions: u32,
    queue: Arc<Queue>,
    metrics: Arc<Metrics>,
    poison: Arc<Poison>,
}

/// What runs while the log is open.
struct Threads {
    writer: JoinHandle<()>,
    remover: JoinHandle<()>,
    /// Dropped to stop the remover.
    stop_remover: SyncSender<()>,
    /// Dropped last.
    lock: File,
}

impl EmbeddedLog {
    /// Opens the log in a directory, which is made if need be. The topics are those of [`events::topics`].
    ///
    /// Reads what a crash left behind, which may take a second or two.
    ///
    /// # Errors
    /// [`LogError::Storage`] when the configuration makes no sense, another process has the log open, it was
    /// made with another number of partitions, or the disk fails or holds damaged data.
    pub fn open(dir: &Path, config: EmbeddedLogConfig) -> Result<Self, LogError> {
        if let Some((key, message)) = config.validate().into_iter().next() {
            return Err(LogError::Storage(format!("`log.{key}` {message}")));
        }
        let lock = store::lock(dir)?;
        let store = Store::open(dir, &config)?;
        store.delete_orphans()?;
        let metrics = Metrics::new().map_err(|e| LogError::Storage(format!("making the metrics: {e}")))?;
        let topics = open_topics(&store, config.partitions, &metrics)?;
        let positions = Arc::new(Positions::load(&store)?);
        let metrics = Arc::new(metrics);
        let poison = Arc::new(Poison::new());
        let (queue, requests) = Queue::new(&config, metrics.queue_records.clone());
        let queue = Arc::new(queue);
        let writer = DiskWriter::new(
            store.clone(),
            topics.clone(),
            positions.clone(),
            config.retention.clone(),
            metrics.clone(),
            poison.clone(),
        );
        let remover = retention::Remover {
            store,
            topics: topics.clone(),
            retention: config.retention,
            queue: queue.clone(),
            poison: poison.clone(),
            rolled: vec![None; topics.len()],
        };
        let (stop_remover, stop) = std::sync::mpsc::sync_channel(1);
        let threads = Threads {
            writer: spawn("log-writer", move || writer.run(requests))?,
            remover: spawn("log-retention", move || remover.run(&stop))?,
            stop_remover,
            lock,
        };
        Ok(Self {
            appender: Appender { topics, partitions: config.partitions, queue, metrics, poison },
            positions,
            closed: AtomicBool::new(false),
            threads: Mutex::new(Some(threads)),
            writers: Writers::default(),
        })
    }

    /// Adds the log's metrics to a registry.
    ///
    /// # Errors
    /// When the registry already holds a log's metrics.
    pub fn register(&self, registry: &prometheus::Registry) -> prometheus::Result<()> {
        self.appender.metrics.register(registry)
    }

    /// Refuses new appends, writes those that are queued, wakes every waiting reader with
    /// [`LogError::Closed`], and gives the directory back. Dropping the log does the same, but blocks.
    pub async fn close(&self) {
        let Some(threads) = self.take_threads() else { return };
        self.appender.queue.close();
        if tokio::task::spawn_blocking(move || threads.finish()).await.is_err() {
            tracing::error!("the log did not close cleanly; what was acknowledged is durable");
        }
        self.let_go();
    }

    fn take_threads(&self) -> Option<Threads> {
        self.threads.lock().expect("no code panics under this lock").take()
    }

    fn let_go(&self) {
        self.closed.store(true, Ordering::Release);
        for topic in self.appender.topics.iter() {
            topic.close();
        }
    }

    fn topic(&self, name: &str) -> Result<(usize, &Topic), LogError> {
        topic_of(&self.appender.topics, name)
    }

    /// Waits until `check` finds something, the topic's next append and every one after it being a reason to
    /// look again.
    async fn wait_until<T>(
        &self,
        topic: &Topic,
        wait: Duration,
        mut check: impl FnMut() -> Result<Option<T>, LogError>,
    ) -> Result<Option<T>, LogError> {
        let deadline = Instant::now() + wait.min(MAX_WAIT);
        loop {
            let appended = topic.appended();
            tokio::pin!(appended);
            appended.as_mut().enable();
            if self.closed.load(Ordering::Acquire) {
                return Err(LogError::Closed);
            }
            if let Some(found) = check()? {
                return Ok(Some(found));
            }
            if tokio::time::timeout_at(deadline, appended).await.is_err() {
                return Ok(None);
            }
        }
    }

    /// Reads on a thread for blocking work.
    async fn read_from_disk(
        &self,
        topic: usize,
        partition: u32,
        from_offset: u64,
        max_records: usize,
    ) -> Result<Vec<LoggedRecord>, LogError> {
        let topics = self.appender.topics.clone();
        tokio::task::spawn_blocking(move || topics[topic].read(partition, from_offset, max_records))
            .await
            .map_err(|e| LogError::Storage(format!("the reading thread failed: {e}")))?
    }
}

impl Appender {
    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Position>, LogError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        self.check_usable()?;
        let started = Instant::now();
        let pending = self.encode(&records)?;
        drop(records);
        let bytes = pending.iter().map(|record| record.encoded.len()).sum();
        let refused = |error: &LogError| {
            if matches!(error, LogError::Full) {
                self.metrics.refused.inc();
            }
        };
        let room = self.queue.room(pending.len(), bytes).await.inspect_err(refused)?;
        let (reply, answer) = oneshot::channel();
        self.queue.send(Request::Append { records: pending, reply, room }).inspect_err(refused)?;
        let positions = durable(answer).await?;
        self.metrics.append_seconds.observe(started.elapsed().as_secs_f64());
        Ok(positions)
    }

    fn check_usable(&self) -> Result<(), LogError> {
        match self.poison.get() {
            Some(reason) => Err(LogError::Storage(reason.clone())),
            None => Ok(()),
        }
    }

    fn encode(&self, records: &[NewRecord]) -> Result<Vec<Pending>, LogError> {
        let pending = |record: &NewRecord| {
            let (topic, _) = topic_of(&self.topics, record.topic)?;
            Ok(Pending {
                topic,
                partition: partitioner::partition_for(&record.key, self.partitions),
                timestamp_ms: record.timestamp_ms,
                encoded: format::encode(record)?,
            })
        };
        records.iter().map(pending).collect()
    }
}

fn topic_of<'a>(topics: &'a [Topic], name: &str) -> Result<(usize, &'a Topic), LogError> {
    topics
        .iter()
        .enumerate()
        .find(|(_, topic)| topic.name == name)
        .ok_or_else(|| LogError::UnknownTopic(name.to_owned()))
}

#[async_trait]
impl EventLog for EmbeddedLog {
    fn partitions(&self, topic: &str) -> Result<u32, LogError> {
        self.topic(topic).map(|(_, topic)| topic.partition_count())
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
        let (at, topic) = self.topic(topic)?;
        if max_records == 0 {
            return topic.bounds(partition).map(|_| Vec::new());
        }
        let available = self
            .wait_until(topic, wait, || {
                let (start, end) = topic.bounds(partition)?;
                if from_offset < start || from_offset > end {
                    return Err(topic.out_of_range(partition, from_offset));
                }
                Ok((from_offset < end).then(|| end - from_offset))
            })
            .await?;
        match available {
            None => Ok(Vec::new()),
            Some(available) if available <= TAIL_RECORDS => topic.read(partition, from_offset, max_records),
            Some(_) => self.read_from_disk(at, partition, from_offset, max_records).await,
        }
    }

    async fn bounds(&self, topic: &str, partition: u32) -> Result<(u64, u64), LogError> {
        self.topic(topic)?.1.bounds(partition)
    }

    async fn wait_for_any(
        &self,
        topic: &str,
        from: &[Position],
        wait: Duration,
    ) -> Result<Vec<u32>, LogError> {
        let (_, topic) = self.topic(topic)?;
        let found = self
            .wait_until(topic, wait, || {
                let mut ready = Vec::new();
                for &Position { partition, offset } in from {
                    if topic.bounds(partition)?.1 > offset {
                        ready.push(partition);
                    }
                }
                Ok((!ready.is_empty()).then_some(ready))
            })
            .await?;
        Ok(found.unwrap_or_default())
    }

    async fn commit(&self, group: &str, topic: &str, partition: u32, offset: u64) -> Result<(), LogError> {
        self.topic(topic)?.1.bounds(partition)?;
        if group.is_empty() || group.len() > MAX_GROUP_NAME_BYTES {
            return Err(LogError::Storage(format!(
                "a group's name has 1 to {MAX_GROUP_NAME_BYTES} bytes, not {}",
                group.len()
            )));
        }
        self.appender.check_usable()?;
        let key = format::commit_key(group, topic, partition);
        let room = self.appender.queue.room(1, key.len()).await?;
        let (reply, answer) = oneshot::channel();
        self.appender.queue.send(Request::Commit { key, offset, reply, room })?;
        durable(answer).await
    }

    async fn committed(&self, group: &str, topic: &str, partition: u32) -> Result<Option<u64>, LogError> {
        self.topic(topic)?.1.bounds(partition)?;
        Ok(self.positions.get(group, topic, partition))
    }

    async fn writer(&self, name: &str) -> Result<Box<dyn Writer>, LogError> {
        self.appender.check_usable()?;
        Ok(Box::new(self.writers.replace(name, self.appender.clone()).await?))
    }

    async fn join(&self, _group: &str, parts: u32) -> Result<Box<dyn Membership>, LogError> {
        Ok(Box::new(Alone::new(parts)))
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        if let Some(threads) = self.take_threads() {
            self.appender.queue.close();
            threads.finish();
            self.let_go();
        }
    }
}

impl Threads {
    /// Waits for the threads, and gives the directory back.
    fn finish(self) {
        drop(self.stop_remover);
        for thread in [self.writer, self.remover] {
            if thread.join().is_err() {
                tracing::error!("a thread of the log panicked; what was acknowledged is durable");
            }
        }
        drop(self.lock);
    }
}

/// Waits for the writer's answer.
async fn durable<T>(answer: oneshot::Receiver<Result<T, LogError>>) -> Result<T, LogError> {
    match tokio::time::timeout(DURABLE_DEADLINE, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(LogError::Storage("the log's writer has stopped: restart paystream".to_owned())),
        Err(_) => Err(LogError::Storage(format!(
            "the disk has not answered for {} s: the write may still happen",
            DURABLE_DEADLINE.as_secs()
        ))),
    }
}

/// Reads the topics' segments, and begins one for each topic that has none.
fn open_topics(store: &Store, partitions: u32, metrics: &Metrics) -> Result<Arc<[Topic]>, LogError> {
    let mut batch = store.batch();
    let mut topics = Vec::new();
    let names = events::topics::ALL.into_iter().chain(events::topics::DEAD_LETTERS);
    for name in names.chain(events::topics::INTERNAL) {
        let mut segments = store.load_segments(name, partitions)?;
        if segments.is_empty() {
            let first = store.create_segment(name, 0, vec![0; partitions as usize], now_ms())?;
            store.write_entry(&mut batch, name, &first);
            segments.push(first);
        }
        let active = segments.last().expect("there is one now");
        let ends = store::survey(name, active)?;
        topics.push(Topic::new(name, segments.into_iter().map(Arc::new).collect(), &ends, metrics));
    }
    store.commit(batch)?;
    Ok(topics.into())
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, LogError> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(run)
        .map_err(|e| LogError::Storage(format!("starting the thread {name}: {e}")))
}

/// Milliseconds since the Unix epoch.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
