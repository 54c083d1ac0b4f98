//! A packed part of the reservoir, its columns unpacked when they are first asked for.

use std::ops::Range;
use std::sync::Arc;

use super::codec;
use super::records::{self, KeyRecord, LabelRecord, Records};
use super::reservoir::{SEGMENT, SEGMENT_EVENTS};
use crate::binary::Reader;
use crate::error::{ScoreError, SnapshotError};
use crate::store::{SegmentId, SegmentStore};

/// A segment of events.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) bytes: Arc<[u8]>,
    first_seq: u64,
    pub(super) events: usize,
    /// Where each column is packed.
    packed: Vec<Range<usize>>,
    unpacked: Vec<Option<Vec<i64>>>,
    records: Range<usize>,
}

/// Spare columns kept: what some tails have unpacked at a time, 16 MiB. Labels may unpack many more at once.
const SPARE_COLUMNS: usize = 256;

/// Columns that nobody needs any more, as long as a segment: memory that is not given back is not asked for again.
#[derive(Debug, Default)]
pub(super) struct Spare(Vec<Vec<i64>>);

impl Spare {
    /// A column without values that a segment's fit in.
    pub(super) fn take(&mut self) -> Vec<i64> {
        self.0.pop().unwrap_or_else(|| Vec::with_capacity(SEGMENT))
    }
}

/// A segment that was sealed, from the store.
pub(super) fn fetch(store: &dyn SegmentStore, id: SegmentId, columns: usize) -> Result<Segment, ScoreError> {
    let bytes = store.get(id).map_err(|source| ScoreError::Store { id, source })?;
    let damaged = |source| ScoreError::Segment { id, source };
    let mut input = Reader::new(&bytes).map_err(damaged)?;
    let segment = Segment::open(&mut input, Arc::clone(&bytes), id.number, columns).map_err(damaged)?;
    if segment.events == SEGMENT {
        Ok(segment)
    } else {
        Err(damaged(SnapshotError::Damaged("events are missing")))
    }
}

/// What a segment ends with: see [`Writer::end`](crate::binary::Writer::end).
pub(super) fn checksum(segment: &[u8]) -> u64 {
    segment.last_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

impl Segment {
    /// Reads where things are in a segment that `Reservoir::pack` wrote into `bytes`.
    pub(super) fn open(
        input: &mut Reader<'_>,
        bytes: Arc<[u8]>,
        number: u64,
        columns: usize,
    ) -> Result<Self, SnapshotError> {
        if input.u64()? != number {
            return Err(SnapshotError::Damaged("it is another segment"));
        }
        let events = usize::try_from(input.u64()?).ok().filter(|&n| n <= SEGMENT);
        let events = events.ok_or(SnapshotError::Damaged("a segment has too many events"))?;
        let mut packed = Vec::with_capacity(columns);
        for _ in 0..columns {
            let length = input.bytes()?.len();
            let end = input.position();
            packed.push(end - length..end);
        }
        let records = input.position()..input.end();
        Ok(Self {
            bytes,
            first_seq: number * SEGMENT_EVENTS,
            events,
            packed,
            unpacked: vec![None; columns],
            records,
        })
    }

    /// A segment whose columns are at hand, as they were packed into `bytes`.
    pub(super) fn at_hand(
        bytes: Arc<[u8]>,
        number: u64,
        packed: Vec<Range<usize>>,
        columns: Vec<Vec<i64>>,
        records: Range<usize>,
    ) -> Self {
        let unpacked = columns.into_iter().map(Some).collect();
        Self { bytes, first_seq: number * SEGMENT_EVENTS, events: SEGMENT, packed, unpacked, records }
    }

    /// A column, unpacked into one of the `spare` ones if it was not yet.
    pub(super) fn column(
        &mut self,
        index: usize,
        is_time: bool,
        spare: &mut Spare,
    ) -> Result<&[i64], SnapshotError> {
        if self.unpacked[index].is_none() {
            let mut input = Reader::part(&self.bytes[self.packed[index].clone()]);
            let mut values = spare.take();
            if is_time {
                let first = input.i64()?;
                if self.events > 0 {
                    values.push(first);
                    codec::read(&mut input, self.events - 1, &mut values)?;
                    // Steps, summed up.
                    let mut time = 0_i64;
                    for value in &mut values {
                        time = time.wrapping_add(*value);
                        *value = time;
                    }
                }
            } else {
                codec::read(&mut input, self.events, &mut values)?;
            }
            input.finish()?;
            self.unpacked[index] = Some(values);
        }
        Ok(self.unpacked[index].as_deref().unwrap_or_default())
    }

    /// Lets go of what was unpacked.
    pub(super) fn give_back(self, spare: &mut Spare) {
        for mut column in self.unpacked.into_iter().flatten() {
            if spare.0.len() < SPARE_COLUMNS {
                column.clear();
                spare.0.push(column);
            }
        }
    }

    /// What the segment says beside its events, in the order it was written.
    pub(super) fn records(&self) -> Result<Records, SnapshotError> {
        let mut keys = Vec::new();
        let labels = self.each_key(|record, value| keys.push((record, value.into())))?;
        Ok(Records { keys, labels })
    }

    /// Calls `key` with each key that lives in it and the key's value. Returns the labels.
    pub(super) fn each_key(
        &self,
        key: impl FnMut(KeyRecord, &[u8]),
    ) -> Result<Vec<LabelRecord>, SnapshotError> {
        records::read(&self.bytes[self.records.clone()], self.first_seq, key)
    }
}
