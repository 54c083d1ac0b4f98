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

const _: () = assert!(SEGMENT.is_multiple_of(BLOCK), "a segment is whole blocks");

/// Somebody who goes through a column in order, with what comes next of it.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    /// The event it is at.
    seq: u64,
    /// What is unpacked: to the end of a block, or of what was asked for where all is.
    values: Vec<i64>,
    /// Those that it has passed.
    passed: usize,
    /// What comes after it.
    rest: Rest,
}

/// What of a segment's column is not yet unpacked.
#[derive(Debug, Clone, Copy, Default)]
struct Rest {
    segment: u64,
    /// Where it begins in what is packed.
    at: usize,
    /// Events before it.
    events: usize,
    /// The last of them in a column of times.
    time_us: i64,
}

impl Cursor {
    /// Goes to an event, mostly one that it knows or the next.
    pub(super) fn go_to(&mut self, seq: u64) {
        let passed = seq.checked_sub(self.seq).and_then(|passed| usize::try_from(passed).ok());
        match passed.filter(|&passed| passed <= self.values().len()) {
            Some(passed) => self.passed += passed,
            None => self.passed = self.values.len(),
        }
        self.seq = seq;
        // Not each time, for the sake of those that go on by one.
        if self.passed > self.values.len() / 2 {
            self.values.drain(..self.passed);
            self.passed = 0;
        }
    }

    /// What it knows, from the event on that it is at.
    pub(super) fn values(&self) -> &[i64] {
        &self.values[self.passed..]
    }

    /// As [`Self::values`].
    pub(super) fn values_mut(&mut self) -> &mut [i64] {
        &mut self.values[self.passed..]
    }

    /// The first event of which it does not know the value.
    pub(super) const fn ahead(&self) -> u64 {
        self.seq + (self.values.len() - self.passed) as u64
    }

    /// Takes up what comes next.
    pub(super) fn extend(&mut self, values: &[i64]) {
        self.values.extend_from_slice(values);
    }
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

    /// Takes a cursor on through a column, to the event `to` or to the end: where it is not unpacked, some more than that,
    /// and all that comes before it where the cursor comes from elsewhere.
    pub(super) fn read_on(
        &self,
        (index, is_time): (usize, bool),
        to: u64,
        cursor: &mut Cursor,
    ) -> Result<(), SnapshotError> {
        let place = |seq: u64| self.events.min(usize::try_from(seq - self.first_seq).unwrap_or(usize::MAX));
        let (from, to) = (place(cursor.ahead()), place(to));
        if let Some(values) = &self.unpacked[index] {
            cursor.extend(&values[from..to]);
            return Ok(());
        }
        let segment = self.first_seq / SEGMENT_EVENTS;
        let Cursor { values, rest, .. } = cursor;
        if (rest.segment, rest.events) != (segment, from) {
            *rest = Rest { segment, ..Rest::default() };
        }
        let (known, skipped) = (values.len(), from - rest.events);
        let most = (to - rest.events).next_multiple_of(BLOCK);
        *rest = self.unpack(index, is_time, *rest, most, values).inspect_err(|_| values.truncate(known))?;
        values.drain(known..known + skipped);
        Ok(())
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
        Ok(Rest { at, events, time_us, ..rest })
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
