//! One topic as readers see it: the bounds of its partitions and its segments.
//!
//! A segment is a fjall keyspace of its own with the records of all partitions from one moment to another,
//! so that retention drops a whole one without touching the rest: no tombstones and no rewriting. Its files go
//! as soon as no reader and no journal of fjall's holds on to them.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use bytes::Bytes;
use fjall::Keyspace;
use prometheus::{IntCounter, IntGauge};
use tokio::sync::Notify;

use super::format;
use crate::metrics::Metrics;
use crate::{LogError, LoggedRecord};

/// One read returns no further record once it holds this many bytes.
const MAX_READ_BYTES: usize = 16 * 1024 * 1024;

/// A stretch of a topic.
pub(super) struct Segment {
    /// Counts the topic's segments from 0.
    pub(super) number: u64,
    /// The first offset it holds, or would hold, of each partition.
    pub(super) bases: Vec<u64>,
    /// When it was begun.
    pub(super) created_ms: i64,
    /// Its records.
    pub(super) keyspace: Keyspace,
    /// Their bytes, before compression.
    pub(super) bytes: AtomicU64,
    /// The newest timestamp among them; the minimum while it is empty.
    pub(super) newest_ms: AtomicI64,
}

impl Segment {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Acquire)
    }

    pub(super) fn newest_ms(&self) -> i64 {
        self.newest_ms.load(Ordering::Acquire)
    }
}

struct Partition {
    start: AtomicU64,
    end: AtomicU64,
    start_gauge: IntGauge,
    end_gauge: IntGauge,
}

/// A topic. Its last segment is the one that is appended to.
pub(super) struct Topic {
    pub(super) name: &'static str,
    partitions: Vec<Partition>,
    segments: RwLock<Vec<Arc<Segment>>>,
    appended: Notify,
    pub(super) records_total: IntCounter,
    pub(super) record_bytes_total: IntCounter,
    removed_records_total: IntCounter,
    kept_bytes: IntGauge,
}

impl Topic {
    /// A topic with these segments, whose partitions end at `ends`.
    pub(super) fn new(
        name: &'static str,
        segments: Vec<Arc<Segment>>,
        ends: &[u64],
        metrics: &Metrics,
    ) -> Self {
        let oldest = segments.first().expect("recovery begins a segment where there is none");
        let partitions = (oldest.bases.iter().zip(ends).enumerate())
            .map(|(number, (&start, &end))| {
                let number = number.to_string();
                let labels = [name, number.as_str()];
                Partition {
                    start: AtomicU64::new(start),
                    end: AtomicU64::new(end),
                    start_gauge: metrics.start_offset.with_label_values(&labels),
                    end_gauge: metrics.end_offset.with_label_values(&labels),
                }
            })
            .collect();
        let topic = Self {
            name,
            partitions,
            segments: RwLock::new(segments),
            appended: Notify::new(),
            records_total: metrics.records.with_label_values(&[name]),
            record_bytes_total: metrics.record_bytes.with_label_values(&[name]),
            removed_records_total: metrics.removed_records.with_label_values(&[name]),
            kept_bytes: metrics.kept_bytes.with_label_values(&[name]),
        };
        topic.update_gauges();
        topic
    }

    /// How many partitions it has.
    pub(super) fn partition_count(&self) -> u32 {
        u32::try_from(self.partitions.len()).expect("configured as a u32")
    }

    /// The oldest offset kept and the next one.
    pub(super) fn bounds(&self, partition: u32) -> Result<(u64, u64), LogError> {
        let found = self
            .partitions
            .get(partition as usize)
            .ok_or_else(|| LogError::UnknownPartition { topic: self.name.to_owned(), partition })?;
        // The start first: it never passes an end read after it.
        let start = found.start.load(Ordering::Acquire);
        Ok((start, found.end.load(Ordering::Acquire)))
    }

    /// The next offset of every partition.
    pub(super) fn ends(&self) -> Vec<u64> {
        self.partitions.iter().map(|partition| partition.end.load(Ordering::Acquire)).collect()
    }

    /// Resolves at the next append after this call (once the future is enabled or polled).
    pub(super) fn appended(&self) -> tokio::sync::futures::Notified<'_> {
        self.appended.notified()
    }

    /// All segments, oldest first. Empty once the log is closed.
    pub(super) fn segments(&self) -> Vec<Arc<Segment>> {
        self.segments.read().expect("no code panics under this lock").clone()
    }

    /// The segment that is appended to.
    pub(super) fn active(&self) -> Option<Arc<Segment>> {
        self.segments.read().expect("no code panics under this lock").last().cloned()
    }

    /// Makes the segment the one that is appended to.
    pub(super) fn push_segment(&self, segment: Arc<Segment>) {
        self.segments.write().expect("no code panics under this lock").push(segment);
    }

    /// Shows readers that the partitions now end at `ends`.
    pub(super) fn publish(&self, ends: &[u64]) {
        for (partition, &end) in self.partitions.iter().zip(ends) {
            partition.end.store(end, Ordering::Release);
        }
        self.update_gauges();
        self.appended.notify_waiters();
    }

    /// Takes the oldest `count` segments away from readers. At least one segment stays.
    pub(super) fn remove_oldest(&self, count: usize) {
        let mut segments = self.segments.write().expect("no code panics under this lock");
        let count = count.min(segments.len().saturating_sub(1));
        let Some(first_kept) = segments.get(count) else { return };
        for (partition, &base) in self.partitions.iter().zip(&first_kept.bases) {
            let before = partition.start.swap(base, Ordering::AcqRel);
            self.removed_records_total.inc_by(base.saturating_sub(before));
        }
        segments.drain(..count);
        drop(segments);
        self.update_gauges();
    }

    /// Lets go of all storage and wakes every waiting reader.
    pub(super) fn close(&self) {
        self.segments.write().expect("no code panics under this lock").clear();
        self.appended.notify_waiters();
    }

    /// Reads what is visible of a partition from an offset within its bounds on.
    pub(super) fn read(
        &self,
        partition: u32,
        from_offset: u64,
        max_records: usize,
    ) -> Result<Vec<LoggedRecord>, LogError> {
        let (_, end) = self.bounds(partition)?;
        let end = end.min(from_offset.saturating_add(max_records as u64));
        let mut records = Vec::with_capacity(usize::try_from(end - from_offset).unwrap_or(0).min(4_096));
        let mut bytes = 0;
        let mut next = from_offset;
        while next < end && bytes < MAX_READ_BYTES {
            let Some((segment, until)) = self.segment_of(partition, next, end)? else { break };
            let range = format::record_key(partition, next)..format::record_key(partition, until);
            for entry in segment.keyspace.range(range) {
                let (key, value) = entry.into_inner().map_err(|e| self.broken(partition, next, &e))?;
                let value = Bytes::from(value);
                bytes += value.len();
                let record = (format::parse_record_key(&key) == Some((partition, next)))
                    .then(|| format::decode(next, value))
                    .flatten()
                    .ok_or_else(|| self.broken(partition, next, &"not there, or not a record"))?;
                records.push(record);
                next += 1;
                if bytes >= MAX_READ_BYTES {
                    return Ok(records);
                }
            }
            if next < until {
                return Err(self.broken(partition, next, &"not there"));
            }
        }
        Ok(records)
    }

    /// The segment that holds an offset, and where in it the records up to `end` stop.
    fn segment_of(
        &self,
        partition: u32,
        offset: u64,
        end: u64,
    ) -> Result<Option<(Arc<Segment>, u64)>, LogError> {
        let segments = self.segments.read().expect("no code panics under this lock");
        if segments.is_empty() {
            return Err(LogError::Closed);
        }
        let base = |segment: &Arc<Segment>| segment.bases[partition as usize];
        let after = segments.partition_point(|segment| base(segment) <= offset);
        let Some(at) = after.checked_sub(1) else {
            // Retention was faster than this reader.
            return Err(self.out_of_range(partition, offset));
        };
        let until = segments.get(after).map_or(end, |next| base(next).min(end));
        Ok(Some((segments[at].clone(), until)))
    }

    /// The error for an offset that is not kept.
    pub(super) fn out_of_range(&self, partition: u32, offset: u64) -> LogError {
        match self.bounds(partition) {
            Ok((start, end)) => {
                LogError::OffsetOutOfRange { topic: self.name.to_owned(), partition, offset, start, end }
            }
            Err(error) => error,
        }
    }

    fn broken(&self, partition: u32, offset: u64, why: &dyn std::fmt::Display) -> LogError {
        LogError::Storage(format!(
            "reading offset {offset} of {}/{partition}: {why}: restore the data directory from a backup",
            self.name
        ))
    }

    fn update_gauges(&self) {
        let shown = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        for partition in &self.partitions {
            partition.start_gauge.set(shown(partition.start.load(Ordering::Acquire)));
            partition.end_gauge.set(shown(partition.end.load(Ordering::Acquire)));
        }
        let segments = self.segments.read().expect("no code panics under this lock");
        self.kept_bytes.set(shown(segments.iter().map(|segment| segment.bytes()).sum()));
    }
}
