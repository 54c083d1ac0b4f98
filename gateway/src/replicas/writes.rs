//! What is written to Redis without anybody waiting, and made up for from the log where it could not be.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex as StdMutex, PoisonError};
use std::time::Duration;

use eventlog::{LogError, LoggedRecord, Position};
use events::{Decided, Message, Transaction, topics};
use redis::Pipeline;
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;

use super::client::Client;
use super::scripts::Scripts;
use crate::answer::{self, Progress};
use crate::ledger::{Entry, Reader};
use crate::metrics::RedisMetrics;
use crate::state::App;

const BATCH_WRITES: usize = 256;
const READ_RECORDS: usize = 256;
/// How often it is noted how far Redis has everything, and looked whether it lacks something.
const INTERVAL: Duration = Duration::from_secs(2);
/// What stopping waits for the last writes.
const FLUSH: Duration = Duration::from_millis(500);

/// One thing to write.
pub(super) enum Write {
    Accepted {
        key: String,
        entry: String,
        ttl_ms: u64,
    },
    Decided {
        key: String,
        document: Vec<u8>,
        ttl_ms: u64,
    },
    /// See the script.
    Amend {
        key: String,
        owner: String,
        lease_ms: i64,
    },
}

impl Write {
    fn add_to(self, pipeline: &mut Pipeline, scripts: &Scripts) {
        let command = match self {
            Self::Accepted { key, entry, ttl_ms } => {
                let mut command = scripts.accept.command(&[&key]);
                command.arg(entry).arg(ttl_ms);
                command
            }
            Self::Decided { key, document, ttl_ms } => {
                let mut command = redis::cmd("SET");
                command.arg(key).arg(document).arg("PX").arg(ttl_ms);
                command
            }
            Self::Amend { key, owner, lease_ms } => {
                let mut command = scripts.amend.command(&[&key]);
                command.arg(owner).arg(lease_ms);
                command
            }
        };
        pipeline.add_command(command).ignore();
    }
}

/// The writes that wait, and what is known to lack.
pub(super) struct Writes {
    queue: mpsc::Sender<Write>,
    /// Held by whoever writes.
    inbox: Mutex<mpsc::Receiver<Write>>,
    /// Writes that were not made so far …
    missed: AtomicU64,
    /// … and how many of them have been made up for.
    made_up: AtomicU64,
    flushed: StdMutex<Flushed>,
    metrics: RedisMetrics,
}

/// How far Redis has everything: a while ago, and lately. What a request writes about a record may come a
/// moment after the record was read, so making up begins at the older one.
#[derive(Default)]
struct Flushed {
    older: Positions,
    newer: Positions,
    noted_at: Option<Instant>,
}

/// Offsets by partition.
#[derive(Debug, Clone, Default)]
struct Positions {
    created: Vec<u64>,
    decided: Vec<u64>,
}

impl Positions {
    /// The ends of both topics.
    async fn ends(app: &App) -> Result<Self, LogError> {
        let mut ends = Self::default();
        for (topic, ends) in [(topics::CREATED, &mut ends.created), (topics::DECIDED, &mut ends.decided)] {
            for partition in 0..app.log.partitions(topic)? {
                ends.push(app.log.bounds(topic, partition).await?.1);
            }
        }
        Ok(ends)
    }

    /// Up to where the ledger has all of both topics.
    fn of(app: &App) -> anyhow::Result<Self> {
        let partitions = 0..app.log.partitions(topics::DECIDED)?;
        let decided = partitions.map(|partition| app.ledger.mark(Reader::Decided, partition));
        Ok(Self { created: app.marks.snapshot(), decided: decided.collect::<Result<_, _>>()? })
    }
}

impl Writes {
    pub(super) fn new(capacity: usize, metrics: RedisMetrics) -> Self {
        let (queue, inbox) = mpsc::channel(capacity);
        Self {
            queue,
            inbox: Mutex::new(inbox),
            missed: AtomicU64::new(0),
            made_up: AtomicU64::new(0),
            flushed: StdMutex::default(),
            metrics,
        }
    }

    /// Puts a write where it waits for its turn. One that finds no room is made up for later.
    pub(super) fn put(&self, client: &Client, write: Write) {
        // A claim that is not given up runs out.
        let matters = !matches!(write, Write::Amend { .. });
        if (!client.is_up() || self.queue.try_send(write).is_err()) && matters {
            self.miss(1);
        }
    }

    fn miss(&self, writes: u64) {
        self.missed.fetch_add(writes, Ordering::SeqCst);
        self.metrics.dropped.inc_by(writes);
    }

    /// Whether Redis has all that this replica knows.
    pub(super) fn complete(&self) -> bool {
        self.made_up.load(Ordering::SeqCst) == self.missed.load(Ordering::SeqCst)
    }

    /// Writes for as long as Redis takes it.
    pub(super) async fn work(&self, app: &App, client: &Client) {
        tokio::join!(self.drain(app, client), self.make_up(app, client));
    }

    async fn drain(&self, app: &App, client: &Client) {
        let mut inbox = self.inbox.lock().await;
        let mut batch = Vec::with_capacity(BATCH_WRITES);
        loop {
            if inbox.recv_many(&mut batch, BATCH_WRITES).await == 0 {
                return;
            }
            let positions = self.due().then(|| Positions::of(app));
            let everything = inbox.is_empty();
            let matter = batch.iter().filter(|write| !matches!(write, Write::Amend { .. })).count();
            if send(client, batch.drain(..)).await.is_none() {
                self.miss(matter as u64);
            } else if let (true, Some(Ok(positions))) = (everything, positions) {
                self.note(positions);
            }
        }
    }

    /// The last batches of a gateway that stops.
    pub(super) async fn flush(&self, client: &Client) {
        let flushing = async {
            let mut inbox = self.inbox.lock().await;
            let mut batch = Vec::with_capacity(BATCH_WRITES);
            while !inbox.is_empty() && inbox.recv_many(&mut batch, BATCH_WRITES).await > 0 {
                if send(client, batch.drain(..)).await.is_none() {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(FLUSH, flushing).await;
    }

    /// Before the first write: what this gateway finds in the log is not for it to write.
    pub(super) async fn begin(&self, app: &App) {
        match Positions::ends(app).await {
            Ok(ends) => {
                let mut flushed = self.flushed.lock().unwrap_or_else(PoisonError::into_inner);
                *flushed = Flushed { older: ends.clone(), newer: ends, noted_at: None };
            }
            Err(error) => {
                tracing::warn!(%error, "the ends of the log cannot be read: Redis gets more than it needs");
            }
        }
    }

    fn due(&self) -> bool {
        let flushed = self.flushed.lock().unwrap_or_else(PoisonError::into_inner);
        flushed.noted_at.is_none_or(|at| at.elapsed() >= INTERVAL)
    }

    fn note(&self, positions: Positions) {
        if !self.complete() {
            return;
        }
        let mut flushed = self.flushed.lock().unwrap_or_else(PoisonError::into_inner);
        flushed.older = std::mem::replace(&mut flushed.newer, positions);
        flushed.noted_at = Some(Instant::now());
    }

    /// Writes what was missed, from the log.
    async fn make_up(&self, app: &App, client: &Client) {
        loop {
            let missed = self.missed.load(Ordering::SeqCst);
            if missed != self.made_up.load(Ordering::SeqCst) {
                match self.restore(app, client).await {
                    Ok(Some(restored)) => {
                        self.made_up.store(missed, Ordering::SeqCst);
                        tracing::info!(restored, "Redis has again what was accepted and decided without it");
                    }
                    // It went away again.
                    Ok(None) => {}
                    Err(error) => {
                        tracing::warn!(%error, "what Redis lacks could not be read from the log: trying again");
                    }
                }
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    async fn restore(&self, app: &App, client: &Client) -> anyhow::Result<Option<u64>> {
        let from = {
            let flushed = self.flushed.lock().unwrap_or_else(PoisonError::into_inner);
            flushed.older.clone()
        };
        let Some(redis) = &app.redis else { return Ok(None) };
        let since_us = |ttl_ms: u64| app.clock.now_us() - i64::try_from(ttl_ms * 1_000).unwrap_or(i64::MAX);
        let keyed_since_us = since_us(client.config.entry_ttl_ms());
        let view_since_us = since_us(client.config.view_ttl_ms());
        let created = |position, record: &LoggedRecord| {
            let transaction = decoded::<Transaction>(record)?;
            let keyed = transaction.idempotency_key.is_some();
            let wanted_since_us = if keyed { keyed_since_us } else { view_since_us };
            if transaction.accepted_at_us < wanted_since_us {
                return None;
            }
            Some(redis.acceptance(transaction.id, &Entry::of(&transaction, position, true), keyed))
        };
        let decided = |_, record: &LoggedRecord| {
            let Decided { transaction, decision, decided_at_us, .. } = decoded(record)?;
            if transaction.accepted_at_us < view_since_us {
                return None;
            }
            let progress = Progress::Decided { decision: &decision, decided_at_us };
            Some(redis.decision(transaction.id, answer::body(&transaction, &progress)))
        };
        let Some(created) = self.copy(app, client, topics::CREATED, &from.created, created).await? else {
            return Ok(None);
        };
        let decided = self.copy(app, client, topics::DECIDED, &from.decided, decided).await?;
        Ok(decided.map(|decided| created + decided))
    }

    /// Writes what a topic holds from `from` to its present end. Nothing when Redis does not take it.
    async fn copy(
        &self,
        app: &App,
        client: &Client,
        topic: &'static str,
        from: &[u64],
        write: impl Fn(Position, &LoggedRecord) -> Option<Write>,
    ) -> anyhow::Result<Option<u64>> {
        let mut copied = 0;
        for partition in 0..app.log.partitions(topic)? {
            let (start, end) = app.log.bounds(topic, partition).await?;
            let mut next = from.get(partition as usize).copied().unwrap_or(0).max(start);
            while next < end {
                let read = app.log.read(topic, partition, next, READ_RECORDS, Duration::ZERO).await;
                let records = match read {
                    Err(LogError::OffsetOutOfRange { start, .. }) if start > next => {
                        next = start;
                        continue;
                    }
                    read => read?,
                };
                let Some(last) = records.last() else { break };
                next = last.offset + 1;
                let writes = records
                    .iter()
                    .filter_map(|record| write(Position { partition, offset: record.offset }, record));
                if send(client, writes).await.is_none() {
                    return Ok(None);
                }
                copied += records.len() as u64;
                self.metrics.restored.inc_by(records.len() as u64);
            }
        }
        Ok(Some(copied))
    }
}

async fn send(client: &Client, writes: impl Iterator<Item = Write>) -> Option<()> {
    let mut pipeline = redis::pipe();
    for write in writes {
        write.add_to(&mut pipeline, &client.scripts);
    }
    if pipeline.is_empty() {
        return Some(());
    }
    client.write(&pipeline).await
}

/// What cannot be decoded is a dead letter, and nobody asks for it here.
fn decoded<M: Message>(record: &LoggedRecord) -> Option<M> {
    M::decode(&record.value).ok()
}
