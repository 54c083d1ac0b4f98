//! The one thread that writes: it takes all that is queued, writes it as one batch, syncs the disk once, and
//! only then shows the records to readers and answers everyone (group commit).
//!
//! Memtables are rotated here rather than by fjall: its own rotation requests share a bounded channel with
//! the worker that serves them, and a slow disk can fill it until both wait for each other.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use fjall::OwnedWriteBatch;
use tokio::sync::mpsc;

use super::config::Retention;
use super::positions::Positions;
use super::queue::{Pending, Request};
use super::store::Store;
use super::topic::{Segment, Topic};
use super::{format, now_ms};
use crate::metrics::Metrics;
use crate::{LogError, Position};

/// One group takes no further request once it holds this many records …
const MAX_GROUP_RECORDS: usize = 16_384;
/// … or bytes: what waits behind it would wait too long.
const MAX_GROUP_BYTES: usize = 8 * 1024 * 1024;
/// Records of a topic are moved from memory to a table after this many bytes.
const MEMTABLE_BYTES: u64 = 16 * 1024 * 1024;
/// Positions are written over and over: moved after this many commits.
const MEMTABLE_POSITIONS: u64 = 32_768;

/// Why nothing is written any more, once a write has failed.
pub(super) type Poison = OnceLock<String>;

pub(super) struct Writer {
    pub(super) store: Store,
    pub(super) topics: Arc<[Topic]>,
    pub(super) positions: Arc<Positions>,
    pub(super) retention: Retention,
    pub(super) metrics: Arc<Metrics>,
    pub(super) poison: Arc<Poison>,
    /// Per topic, the next offset of each partition.
    next: Vec<Vec<u64>>,
    /// Per topic, bytes in the memtable of its active segment.
    in_memory_bytes: Vec<u64>,
    in_memory_positions: u64,
}

/// What one group does to one topic.
struct Change {
    topic: usize,
    segment: Arc<Segment>,
    /// The segment that `segment` takes over from.
    sealed: Option<Arc<Segment>>,
    records: u64,
    bytes: u64,
    newest_ms: i64,
}

impl Writer {
    pub(super) fn new(
        store: Store,
        topics: Arc<[Topic]>,
        positions: Arc<Positions>,
        retention: Retention,
        metrics: Arc<Metrics>,
        poison: Arc<Poison>,
    ) -> Self {
        let next = topics.iter().map(Topic::ends).collect();
        let in_memory_bytes =
            topics.iter().map(|topic| topic.active().map_or(0, |segment| segment.bytes())).collect();
        let in_memory_positions = 0;
        Self {
            store,
            topics,
            positions,
            retention,
            metrics,
            poison,
            next,
            in_memory_bytes,
            in_memory_positions,
        }
    }

    /// Writes until asked to close, and then what is still queued.
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let mut group = Vec::new();
        while let Some(first) = requests.blocking_recv() {
            let (mut records, mut bytes) = (0, 0);
            let mut next = Some(first);
            while let Some(request) = next {
                match &request {
                    Request::Append { records: pending, .. } => {
                        records += pending.len();
                        bytes += pending.iter().map(|record| record.encoded.len()).sum::<usize>();
                    }
                    Request::Close => requests.close(),
                    Request::Commit { .. } | Request::Roll { .. } => {}
                }
                group.push(request);
                let room = records < MAX_GROUP_RECORDS && bytes < MAX_GROUP_BYTES;
                next = if room { requests.try_recv().ok() } else { None };
            }
            self.handle(&mut group);
        }
    }

    fn handle(&mut self, group: &mut Vec<Request>) {
        let outcome = match self.poison.get() {
            Some(reason) => Err(LogError::Storage(reason.clone())),
            None => self.write(group).inspect_err(|error| self.fail(error)),
        };
        match outcome {
            Ok((changes, positions)) => {
                self.publish(&changes);
                for (request, positions) in group.drain(..).zip(positions) {
                    self.answer(request, positions);
                }
                self.spill(&changes);
            }
            Err(error) => group.drain(..).for_each(|request| refuse(request, &error)),
        }
    }

    /// Writes a group as one batch. Returns what changed, and for each request the positions of its records.
    fn write(&mut self, group: &[Request]) -> Result<(Vec<Change>, Vec<Vec<Position>>), LogError> {
        let started = Instant::now();
        let now_ms = now_ms();
        let mut batch = self.store.batch();
        let mut changes = Vec::new();
        let mut positions = Vec::with_capacity(group.len());
        for request in group {
            let mut placed = Vec::new();
            match request {
                Request::Append { records, .. } => {
                    placed.reserve_exact(records.len());
                    for record in records {
                        placed.push(self.place(&mut batch, &mut changes, record, now_ms)?);
                    }
                }
                Request::Commit { key, offset, .. } => {
                    batch.insert(self.store.positions(), key.as_slice(), offset.to_be_bytes());
                    self.in_memory_positions += 1;
                }
                Request::Roll { topic } => {
                    self.change(&mut batch, &mut changes, *topic, now_ms, true)?;
                }
                Request::Close => {}
            }
            positions.push(placed);
        }
        if !batch.is_empty() {
            self.store.commit(batch)?;
            self.metrics.fsync_seconds.observe(started.elapsed().as_secs_f64());
        }
        Ok((changes, positions))
    }

    /// Gives a record its offset and puts it in the batch.
    fn place(
        &mut self,
        batch: &mut OwnedWriteBatch,
        changes: &mut Vec<Change>,
        record: &Pending,
        now_ms: i64,
    ) -> Result<Position, LogError> {
        let change = self.change(batch, changes, record.topic, now_ms, false)?;
        let next = &mut self.next[record.topic][record.partition as usize];
        let position = Position { partition: record.partition, offset: *next };
        *next += 1;
        let key = format::record_key(position.partition, position.offset);
        let change = &mut changes[change];
        batch.insert(&change.segment.keyspace, key, record.encoded.clone());
        change.records += 1;
        change.bytes += record.encoded.len() as u64;
        // A clock that runs ahead must not keep a segment for ever.
        change.newest_ms = change.newest_ms.max(record.timestamp_ms.min(now_ms));
        Ok(position)
    }

    /// What this group does to a topic so far: its place in `changes`. Begins another segment when the
    /// present one is full, old, or (`roll`) to be removed.
    fn change(
        &mut self,
        batch: &mut OwnedWriteBatch,
        changes: &mut Vec<Change>,
        topic: usize,
        now_ms: i64,
        roll: bool,
    ) -> Result<usize, LogError> {
        if let Some(known) = changes.iter().position(|change| change.topic == topic) {
            return Ok(known);
        }
        let name = self.topics[topic].name;
        let active = self.topics[topic].active().ok_or(LogError::Closed)?;
        // What is never removed need not be cut by age.
        let old = !events::topics::is_kept_whole(name)
            && now_ms.saturating_sub(active.created_ms) >= self.retention.segment_span_ms();
        let full = active.bytes() >= self.retention.segment_bytes() || old;
        let (segment, sealed) = if active.bytes() > 0 && (full || roll) {
            let bases = self.next[topic].clone();
            let fresh = Arc::new(self.store.create_segment(name, active.number + 1, bases, now_ms)?);
            self.store.write_entry(batch, name, &active);
            self.store.write_entry(batch, name, &fresh);
            (fresh, Some(active))
        } else {
            (active, None)
        };
        let newest_ms = segment.newest_ms();
        changes.push(Change { topic, segment, sealed, records: 0, bytes: 0, newest_ms });
        Ok(changes.len() - 1)
    }

    /// Shows readers what is now durable.
    fn publish(&self, changes: &[Change]) {
        for change in changes {
            let topic = &self.topics[change.topic];
            change.segment.bytes.fetch_add(change.bytes, Ordering::AcqRel);
            change.segment.newest_ms.store(change.newest_ms, Ordering::Release);
            if change.sealed.is_some() {
                topic.push_segment(change.segment.clone());
            }
            topic.records_total.inc_by(change.records);
            topic.record_bytes_total.inc_by(change.bytes);
            topic.publish(&self.next[change.topic]);
        }
    }

    fn answer(&self, request: Request, positions: Vec<Position>) {
        // A caller that has gone away does not take its records back.
        match request {
            Request::Append { reply, room, .. } => {
                drop(room);
                let _ = reply.send(Ok(positions));
            }
            Request::Commit { key, offset, reply, room } => {
                self.positions.set(key, offset);
                drop(room);
                let _ = reply.send(Ok(()));
            }
            Request::Roll { .. } | Request::Close => {}
        }
    }

    /// Moves records from memory to tables, in fjall's worker, once there are enough of them.
    fn spill(&mut self, changes: &[Change]) {
        for change in changes {
            let in_memory = &mut self.in_memory_bytes[change.topic];
            *in_memory += change.bytes;
            let keyspace = match &change.sealed {
                Some(sealed) => &sealed.keyspace,
                None if *in_memory >= MEMTABLE_BYTES => &change.segment.keyspace,
                None => continue,
            };
            *in_memory = if change.sealed.is_some() { change.bytes } else { 0 };
            rotate(keyspace);
        }
        if self.in_memory_positions >= MEMTABLE_POSITIONS {
            self.in_memory_positions = 0;
            rotate(self.store.positions());
        }
    }

    fn fail(&self, error: &LogError) {
        tracing::error!(%error, "the log failed to write and refuses appends from now on");
        let reason = format!(
            "an earlier write failed ({error}), so nothing more is accepted: see to the disk, then restart \
             paystream"
        );
        self.metrics.poisoned.set(1);
        let _ = self.poison.set(reason);
    }
}

fn rotate(keyspace: &fjall::Keyspace) {
    if let Err(error) = keyspace.rotate_memtable() {
        // The records are durable in the journal; if fjall is broken, the next write says so.
        tracing::error!(%error, "the log could not move records from memory to a table");
    }
}

fn refuse(request: Request, error: &LogError) {
    match request {
        Request::Append { reply, .. } => drop(reply.send(Err(error.clone()))),
        Request::Commit { reply, .. } => drop(reply.send(Err(error.clone()))),
        Request::Roll { .. } | Request::Close => {}
    }
}
