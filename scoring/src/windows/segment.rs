//! A packed part of the reservoir, its columns unpacked when they are first asked for: whole, or as far as somebody who
//! goes through them has come.

use std::ops::Range;
use std::sync::Arc;

use super::codec::{self, BLOCK};
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

/// Values that are unpacked at a time for a [`Cursor`]: few enough that those of all tails stay in the processor's second
/// cache.
const PART: usize = 8 * BLOCK;
const _: () = assert!(SEGMENT.is_multiple_of(BLOCK), "a segment is whole blocks");

/// How far somebody has come who goes through a column in order.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    /// The event of the first of `values`.
    first_seq: u64,
    /// What is unpacked.
    values: Vec<i64>,
    /// What comes after it in the segment.
    rest: Rest,
}

/// What of a segment's column is not yet unpacked.
#[derive(Debug, Clone, Copy, Default)]
struct Rest {
    /// Where it begins in what is packed.
    at: usize,
    /// Events before it.
    events: usize,
    /// The last of them in a column of times.
    time_us: i64,
}

/// Spare columns kept: some segments' that were sealed lately, 16 MiB. Labels may unpack many more at once.
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
            let mut values = spare.take();
            self.unpack(index, is_time, Rest::default(), SEGMENT, &mut values)?;
            self.unpacked[index] = Some(values);
        }
        Ok(self.unpacked[index].as_deref().unwrap_or_default())
    }

    /// Some of a column, that of event `seq` among them, and the event of the first: all of it where it is unpacked, and
    /// else what the cursor has, which comes here if it was elsewhere.
    pub(super) fn around<'a>(
        &'a self,
        seq: u64,
        (index, is_time): (usize, bool),
        cursor: &'a mut Cursor,
    ) -> Result<(u64, &'a [i64]), SnapshotError> {
        if let Some(values) = &self.unpacked[index] {
            return Ok((self.first_seq, values));
        }
        let Cursor { first_seq, values, rest } = cursor;
        let end = self.first_seq + self.events as u64;
        if !(self.first_seq..end).contains(first_seq) || seq < *first_seq {
            (*first_seq, *rest) = (self.first_seq, Rest::default());
            values.clear();
        }
        while seq >= *first_seq + values.len() as u64 {
            *first_seq += values.len() as u64;
            values.clear();
            *rest = self.unpack(index, is_time, *rest, PART, values).inspect_err(|_| values.clear())?;
        }
        Ok((*first_seq, values))
    }

    /// Appends what comes next in a column, where `rest` begins: about `most` values, which are whole blocks, or all there
    /// are. Returns what is left then.
    fn unpack(
        &self,
        index: usize,
        is_time: bool,
        rest: Rest,
        most: usize,
        out: &mut Vec<i64>,
    ) -> Result<Rest, SnapshotError> {
        let packed = &self.bytes[self.packed[index].clone()];
        let packed = packed.get(rest.at..).ok_or(SnapshotError::Damaged("a column has become shorter"))?;
        let mut input = Reader::part(packed);
        let Rest { mut events, mut time_us, .. } = rest;
        if is_time && rest.at == 0 {
            time_us = input.i64()?;
            if self.events > 0 {
                out.push(time_us);
                events += 1;
            }
        }
        let from = out.len();
        codec::read(&mut input, most.min(self.events - events), out)?;
        events += out.len() - from;
        if is_time {
            // Steps, summed up.
            for value in &mut out[from..] {
                time_us = time_us.wrapping_add(*value);
                *value = time_us;
            }
        }
        let at = rest.at + input.position();
        if events == self.events {
            input.finish()?;
        }
        Ok(Rest { at, events, time_us })
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
