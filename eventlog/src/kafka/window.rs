//! What of a partition is in memory: records on their way to a reader, and the last ones it had.

use std::collections::VecDeque;

use tokio::time::Instant;

use crate::LoggedRecord;

/// Records that were read stay for readers that are a little behind …
const KEPT_RECORDS: usize = 4_096;
/// … up to this many bytes of them.
const KEPT_BYTES: usize = 4 * 1024 * 1024;
/// What a record takes in memory beside its bytes.
const OVERHEAD_BYTES: usize = 160;

/// How much may wait for its reader.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) records: usize,
    pub(super) bytes: usize,
}

/// A stretch of a partition, without a gap: every visible record from `start` up to `next`.
#[derive(Debug)]
pub(super) struct Window {
    start: u64,
    /// What comes next from the broker begins here.
    next: u64,
    records: VecDeque<LoggedRecord>,
    /// How many at the front were given to a reader.
    read: usize,
    read_bytes: usize,
    unread_bytes: usize,
    /// Asked for, but its consumer is not there yet.
    pub(super) moving: bool,
    /// When a reader last asked for something in it.
    pub(super) last_used: Instant,
}

impl Window {
    /// An empty window that is to begin at an offset.
    pub(super) fn at(offset: u64) -> Self {
        Self {
            start: offset,
            next: offset,
            records: VecDeque::new(),
            read: 0,
            read_bytes: 0,
            unread_bytes: 0,
            moving: true,
            last_used: Instant::now(),
        }
    }

    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Whether a reader at this offset is served from here.
    pub(super) fn covers(&self, offset: u64) -> bool {
        (self.start..=self.next).contains(&offset)
    }

    /// Whether there is a record at or past the offset.
    pub(super) fn has(&self, offset: u64) -> bool {
        self.records.back().is_some_and(|last| last.offset >= offset)
    }

    /// A record that came. One that is there already came before a move.
    pub(super) fn push(&mut self, record: LoggedRecord) {
        if record.offset < self.next {
            return;
        }
        self.next = record.offset + 1;
        self.unread_bytes += bytes_of(&record);
        self.records.push_back(record);
    }

    /// No record lies between the last one and this offset.
    pub(super) fn reach(&mut self, offset: u64) {
        self.next = self.next.max(offset);
    }

    pub(super) fn is_full(&self, limits: Limits) -> bool {
        self.records.len() - self.read >= limits.records || self.unread_bytes >= limits.bytes
    }

    pub(super) fn is_half_empty(&self, limits: Limits) -> bool {
        let unread = self.records.len() - self.read;
        unread <= limits.records / 2 && self.unread_bytes <= limits.bytes / 2
    }

    /// Gives records out, from an offset on.
    pub(super) fn read(&mut self, from_offset: u64, max_records: usize) -> Vec<LoggedRecord> {
        let begin = self.records.partition_point(|record| record.offset < from_offset);
        let end = begin.saturating_add(max_records).min(self.records.len());
        let given: Vec<LoggedRecord> = self.records.range(begin..end).cloned().collect();
        if end > self.read {
            let bytes: usize = self.records.range(self.read..end).map(bytes_of).sum();
            self.unread_bytes -= bytes;
            self.read_bytes += bytes;
            self.read = end;
            self.forget_old();
        }
        given
    }

    fn forget_old(&mut self) {
        while self.read > KEPT_RECORDS || (self.read > 0 && self.read_bytes > KEPT_BYTES) {
            let Some(oldest) = self.records.pop_front() else { return };
            self.start = oldest.offset + 1;
            self.read -= 1;
            self.read_bytes -= bytes_of(&oldest);
        }
    }
}

fn bytes_of(record: &LoggedRecord) -> usize {
    record.bytes() + OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn record(offset: u64) -> LoggedRecord {
        LoggedRecord {
            offset,
            key: Bytes::new(),
            value: Bytes::from_static(b"0123456789"),
            headers: Vec::new(),
            timestamp_ms: 0,
        }
    }

    fn offsets(records: &[LoggedRecord]) -> Vec<u64> {
        records.iter().map(|record| record.offset).collect()
    }

    #[test]
    fn gaps_are_read_over_and_lie_within_the_window() {
        let mut window = Window::at(10);
        for offset in [10, 11, 14] {
            window.push(record(offset));
        }
        window.reach(16);
        assert_eq!(offsets(&window.read(11, 10)), [11, 14]);
        assert_eq!(offsets(&window.read(12, 1)), [14]);
        assert_eq!(offsets(&window.read(15, 1)), [0_u64; 0]);
        assert!(window.covers(10) && window.covers(16) && !window.covers(9) && !window.covers(17));
        assert!(window.has(14) && !window.has(15));
    }

    #[test]
    fn what_came_twice_is_there_once() {
        let mut window = Window::at(0);
        for offset in [0, 1, 1, 0, 2] {
            window.push(record(offset));
        }
        assert_eq!(offsets(&window.read(0, 10)), [0, 1, 2]);
    }

    #[test]
    fn it_is_full_of_unread_records_only_and_keeps_some_of_the_read_ones() {
        let limits = Limits { records: 100, bytes: usize::MAX };
        let mut window = Window::at(0);
        for offset in 0..20_000 {
            window.push(record(offset));
            if window.is_full(limits) {
                let next = offset + 1 - 100;
                assert_eq!(window.read(next, 100).len(), 100);
            }
            assert!(window.records.len() <= KEPT_RECORDS + 100);
        }
        assert!(window.is_half_empty(limits));
        assert!(window.covers(20_000 - KEPT_RECORDS as u64) && !window.covers(0));
    }

    #[test]
    fn bytes_bound_it_too() {
        let mut window = Window::at(0);
        let limits = Limits { records: usize::MAX, bytes: 10 * (10 + OVERHEAD_BYTES) };
        for offset in 0..10 {
            assert!(!window.is_full(limits));
            window.push(record(offset));
        }
        assert!(window.is_full(limits) && !window.is_half_empty(limits));
        window.read(0, 5);
        assert!(window.is_half_empty(limits));
    }
}
