//! The events that some window may still need, in order, with only the columns that windows read.

use std::collections::VecDeque;

use crate::binary::{Reader, Writer};
use crate::error::SnapshotError;

/// Events per chunk: a few tens of kilobytes, so that a tail that walks it stays within the cache.
const CHUNK_EVENTS: usize = 1024;

/// What the engine keeps of one event, as slices of the batch it came in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EventRef<'a> {
    pub(crate) time_us: i64,
    pub(crate) conditions: u64,
    /// One number per dictionary.
    pub(crate) ids: &'a [u32],
    /// One per value of the plan.
    pub(crate) values: &'a [i64],
}

#[derive(Debug)]
struct Chunk {
    times_us: Vec<i64>,
    conditions: Vec<u64>,
    /// Row-major: the ids of one event side by side, since a tail reads them together.
    ids: Vec<u32>,
    values: Vec<i64>,
}

/// An append-only queue of events with random access by sequence number.
#[derive(Debug)]
pub(crate) struct Reservoir {
    ids_per_event: usize,
    values_per_event: usize,
    /// Sequence number of the first event of the first chunk: a multiple of [`CHUNK_EVENTS`].
    first_seq: u64,
    next_seq: u64,
    chunks: VecDeque<Chunk>,
}

impl Reservoir {
    pub(crate) fn new(ids_per_event: usize, values_per_event: usize) -> Self {
        Self { ids_per_event, values_per_event, first_seq: 0, next_seq: 0, chunks: VecDeque::new() }
    }

    /// The sequence number the next event gets.
    pub(crate) const fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// The oldest sequence number that can still be read.
    pub(crate) const fn first_seq(&self) -> u64 {
        self.first_seq
    }

    pub(crate) fn push(&mut self, event: EventRef<'_>) {
        if self.next_seq.is_multiple_of(CHUNK_EVENTS as u64) {
            self.chunks.push_back(Chunk {
                times_us: Vec::with_capacity(CHUNK_EVENTS),
                conditions: Vec::with_capacity(CHUNK_EVENTS),
                ids: Vec::with_capacity(CHUNK_EVENTS * self.ids_per_event),
                values: Vec::with_capacity(CHUNK_EVENTS * self.values_per_event),
            });
        }
        let chunk = self.chunks.back_mut().expect("a chunk was pushed at each multiple of its size");
        chunk.times_us.push(event.time_us);
        chunk.conditions.push(event.conditions);
        chunk.ids.extend_from_slice(event.ids);
        chunk.values.extend_from_slice(event.values);
        self.next_seq += 1;
    }

    /// The event with a sequence number between `first_seq` and `next_seq`.
    #[inline]
    pub(crate) fn get(&self, seq: u64) -> EventRef<'_> {
        let (chunk, row) = self.place(seq);
        EventRef {
            time_us: chunk.times_us[row],
            conditions: chunk.conditions[row],
            ids: &chunk.ids[row * self.ids_per_event..(row + 1) * self.ids_per_event],
            values: &chunk.values[row * self.values_per_event..(row + 1) * self.values_per_event],
        }
    }

    /// The time of the event with a sequence number between `first_seq` and `next_seq`.
    #[inline]
    pub(crate) fn time_us(&self, seq: u64) -> i64 {
        let (chunk, row) = self.place(seq);
        chunk.times_us[row]
    }

    #[inline]
    fn place(&self, seq: u64) -> (&Chunk, usize) {
        let at = usize::try_from(seq - self.first_seq).expect("the reservoir fits in memory");
        (&self.chunks[at / CHUNK_EVENTS], at % CHUNK_EVENTS)
    }

    /// Forgets whole chunks of events before `seq`.
    pub(crate) fn forget_before(&mut self, seq: u64) {
        while self.first_seq + CHUNK_EVENTS as u64 <= seq {
            self.chunks.pop_front();
            self.first_seq += CHUNK_EVENTS as u64;
        }
    }

    pub(crate) fn write(&self, out: &mut Writer) {
        out.u64(self.first_seq);
        out.u64(self.next_seq);
        for chunk in &self.chunks {
            out.i64s(&chunk.times_us);
            out.u64s(&chunk.conditions);
            out.u32s(&chunk.ids);
            out.i64s(&chunk.values);
        }
    }

    pub(crate) fn read(
        ids_per_event: usize,
        values_per_event: usize,
        input: &mut Reader<'_>,
    ) -> Result<Self, SnapshotError> {
        let (first_seq, next_seq) = (input.u64()?, input.u64()?);
        let mut reservoir =
            Self { first_seq, next_seq: first_seq, ..Self::new(ids_per_event, values_per_event) };
        if !first_seq.is_multiple_of(CHUNK_EVENTS as u64) || first_seq > next_seq {
            return Err(SnapshotError::Damaged("the reservoir's bounds do not fit"));
        }
        while reservoir.next_seq < next_seq {
            let chunk = Chunk {
                times_us: input.i64s()?,
                conditions: input.u64s()?,
                ids: input.u32s()?,
                values: input.i64s()?,
            };
            let events = chunk.times_us.len();
            let last = reservoir.next_seq + events as u64 == next_seq;
            if events == 0
                || (events != CHUNK_EVENTS && !last)
                || events > CHUNK_EVENTS
                || chunk.conditions.len() != events
                || chunk.ids.len() != events * ids_per_event
                || chunk.values.len() != events * values_per_event
            {
                return Err(SnapshotError::Damaged("a chunk of the reservoir does not fit"));
            }
            reservoir.next_seq += events as u64;
            reservoir.chunks.push_back(chunk);
        }
        Ok(reservoir)
    }
}
