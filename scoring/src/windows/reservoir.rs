//! The events that some window may still need, in order, with only the columns that windows read.
//!
//! Columns are numbers: window time, condition bits, the number of each key, each value. The newest
//! events are in memory as they came; every [`SEGMENT_EVENTS`] of them are packed into a segment, which
//! is written once and read again, a column and a part at a time, by the tails that come by. A segment also holds
//! the values of the keys that are first met in it, so that segments, with those of the layers below, are enough to
//! restore from.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use super::codec;
use super::records::{KeyRecord, Records};
use super::segment::{Cursor, Segment, Spare, checksum, fetch};
use crate::binary::Writer;
use crate::error::{ScoreError, SnapshotError};
use crate::store::{SegmentId, SegmentStore};

/// Events per segment: packing one takes about a millisecond at most, unpacking a column of one
/// some microseconds.
pub(super) const SEGMENT_EVENTS: u64 = 8_192;
pub(super) const SEGMENT: usize = SEGMENT_EVENTS as usize;

/// The column of window times.
pub(super) const TIME: usize = 0;
/// The column of condition bits.
pub(super) const CONDITIONS: usize = 1;
/// The first column of key numbers; after them come the values.
pub(super) const KEYS: usize = 2;

/// Columns that are needed for about as long: kept in segments of their own, so that what short windows
/// ask for does not lie about for as long as the longest window is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FamilySpec {
    /// The reservoir's columns.
    pub(super) columns: Vec<usize>,
    /// The tails that read some of them, as indexes into the layout's.
    pub(super) tails: Vec<usize>,
}

/// An append-only queue of events with random access by sequence number.
#[derive(Debug)]
pub(super) struct Reservoir {
    store: Arc<dyn SegmentStore>,
    next_seq: u64,
    /// The newest segment, as columns, and its number.
    open: Vec<Vec<i64>>,
    open_segment: u64,
    families: Vec<Family>,
    /// Columns to be used again.
    spare: Spare,
    /// What a segment is packed into, reused.
    packed: Writer,
    /// Per column: its family, and which of the family's columns it is.
    place: Vec<(usize, usize)>,
}

/// The sealed segments of some columns.
#[derive(Debug)]
struct Family {
    /// The reservoir that the segments are stored under.
    reservoir: u32,
    columns: Vec<usize>,
    /// The oldest segment that is still needed.
    first_segment: u64,
    /// Segments that tails are reading.
    read: BTreeMap<u64, Segment>,
    /// Each sealed segment from `first_segment` on.
    sealed: VecDeque<Sealed>,
}

/// What is known of a sealed segment without reading it.
#[derive(Debug, Clone, Copy)]
struct Sealed {
    bytes: u64,
    checksum: u64,
    /// The time of its first event, where the family has times.
    first_us: i64,
}

impl Reservoir {
    /// The first of `families` has the times; they are stored as the reservoirs from `first_reservoir` on.
    pub(super) fn new(first_reservoir: u32, families: &[FamilySpec], store: Arc<dyn SegmentStore>) -> Self {
        let columns = families.iter().map(|family| family.columns.len()).sum();
        let mut place = vec![(0, 0); columns];
        for (family, spec) in families.iter().enumerate() {
            for (at, &column) in spec.columns.iter().enumerate() {
                place[column] = (family, at);
            }
        }
        let family = |(reservoir, spec): (u32, &FamilySpec)| Family {
            reservoir,
            columns: spec.columns.clone(),
            first_segment: 0,
            read: BTreeMap::new(),
            sealed: VecDeque::new(),
        };
        Self {
            store,
            next_seq: 0,
            open: vec![Vec::with_capacity(SEGMENT); columns],
            open_segment: 0,
            families: (first_reservoir..).zip(families).map(family).collect(),
            spare: Spare::default(),
            packed: Writer::default(),
            place,
        }
    }

    /// The sequence number the next event gets.
    pub(super) const fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// The oldest sequence number of which the times can still be read.
    pub(super) fn first_seq(&self) -> u64 {
        self.first_seq_of(TIME)
    }

    /// The oldest sequence number of which a column can still be read.
    pub(super) fn first_seq_of(&self, column: usize) -> u64 {
        self.families[self.family_of(column)].first_segment * SEGMENT_EVENTS
    }

    /// The number of the newest segment, which is not sealed.
    pub(super) const fn open_segment(&self) -> u64 {
        self.open_segment
    }

    /// How many families there are.
    pub(super) fn families(&self) -> usize {
        self.families.len()
    }

    /// The family of a column.
    pub(super) fn family_of(&self, column: usize) -> usize {
        self.place[column].0
    }

    /// The sealed segments of a family that are still needed.
    pub(super) fn sealed(&self, family: usize) -> Range<u64> {
        self.families[family].first_segment..self.open_segment
    }

    /// The checksums of those segments.
    pub(super) fn checksums(&self, family: usize) -> Vec<u64> {
        self.families[family].sealed.iter().map(|sealed| sealed.checksum).collect()
    }

    /// The full name of a segment.
    pub(super) fn id(&self, family: usize, number: u64) -> SegmentId {
        SegmentId { reservoir: self.families[family].reservoir, number }
    }

    /// Bytes that the sealed segments take.
    pub(super) fn sealed_bytes(&self) -> u64 {
        self.families.iter().flat_map(|family| &family.sealed).map(|sealed| sealed.bytes).sum()
    }

    /// Events that fit before the newest segment is full.
    pub(super) fn room(&self) -> usize {
        SEGMENT - self.open[TIME].len()
    }

    /// Appends events, at most [`Self::room`] of them: one slice per column, equally long.
    pub(super) fn append(&mut self, columns: &[&[i64]]) {
        for (column, values) in self.open.iter_mut().zip(columns) {
            column.extend_from_slice(values);
        }
        self.next_seq += columns[TIME].len() as u64;
    }

    /// Seals the newest segment if it is full. `records` writes what a family's part says beside events.
    pub(super) fn seal_if_full(&mut self, mut records: impl FnMut(usize, &mut Writer)) {
        if self.room() > 0 {
            return;
        }
        let number = self.open_segment;
        let first_us = self.open[TIME][0];
        let mut out = std::mem::take(&mut self.packed);
        for index in 0..self.families.len() {
            let packed = self.pack(&self.families[index].columns, &mut out);
            let records_from = out.as_bytes().len();
            records(index, &mut out);
            let records = records_from..out.as_bytes().len();
            let bytes: Arc<[u8]> = out.end();
            let id = self.id(index, number);
            let Family { columns, read, sealed, .. } = &mut self.families[index];
            sealed.push_back(Sealed { bytes: bytes.len() as u64, checksum: checksum(&bytes), first_us });
            // Tails close behind the present are in it: they need not unpack it.
            let take = |&column: &usize| std::mem::replace(&mut self.open[column], self.spare.take());
            let at_hand = columns.iter().map(take).collect();
            read.insert(number, Segment::at_hand(Arc::clone(&bytes), number, packed, at_hand, records));
            self.store.put(id, bytes);
        }
        self.packed = out;
        self.open_segment += 1;
    }

    /// Writes the newest segment as it is, whole, for a checkpoint.
    pub(super) fn write_open(&self, out: &mut Writer) {
        self.pack(&(0..self.open.len()).collect::<Vec<_>>(), out);
    }

    /// Writes columns of the newest segment. Returns where each is packed.
    fn pack(&self, columns: &[usize], out: &mut Writer) -> Vec<Range<usize>> {
        out.u64(self.open_segment);
        out.u64(columns.first().map_or(0, |&column| self.open[column].len()) as u64);
        let pack = |&index: &usize| {
            let column = &self.open[index];
            out.sized(|out| {
                if index == TIME {
                    // Times rise: their steps are small.
                    let first = column.first().copied().unwrap_or(0);
                    let steps: Vec<i64> =
                        column.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
                    out.i64(first);
                    codec::write(out, &steps);
                } else {
                    codec::write(out, column);
                }
            })
        };
        columns.iter().map(pack).collect()
    }

    /// The values of `column` for `range`, appended to `out`.
    pub(super) fn gather(
        &mut self,
        column: usize,
        range: Range<u64>,
        out: &mut Vec<i64>,
    ) -> Result<(), ScoreError> {
        let mut seq = range.start;
        while seq < range.end {
            let (first, values) = self.values(column, seq)?;
            let from = to_usize(seq - first);
            let to = to_usize(range.end - first).min(values.len());
            out.extend_from_slice(&values[from..to]);
            seq = first + to as u64;
        }
        Ok(())
    }

    /// Takes a cursor on through a column, so that it knows what comes before the event `to`, of which there is all.
    pub(super) fn read_on(&mut self, column: usize, to: u64, cursor: &mut Cursor) -> Result<(), ScoreError> {
        while cursor.ahead() < to {
            let number = cursor.ahead() / SEGMENT_EVENTS;
            if number == self.open_segment() {
                let place = |seq: u64| to_usize(seq - number * SEGMENT_EVENTS);
                cursor.extend(&self.open[column][place(cursor.ahead())..place(to)]);
            } else {
                let (family, at) = self.place[column];
                let id = self.id(family, number);
                let segment = self.families[family].segment(id, &*self.store)?;
                let read = segment.read_on((at, column == TIME), to, cursor);
                read.map_err(|source| ScoreError::Segment { id, source })?;
            }
        }
        Ok(())
    }

    /// The event of a time, if there is one that can still be read.
    pub(super) fn find(&mut self, time_us: i64) -> Result<Option<u64>, ScoreError> {
        let in_open = self.open[TIME].first().is_some_and(|&first_us| first_us <= time_us);
        let Family { sealed, first_segment, .. } = &self.families[0];
        let before = sealed.partition_point(|sealed| sealed.first_us <= time_us) as u64;
        let number = if in_open { self.open_segment } else { first_segment + before.saturating_sub(1) };
        if !in_open && before == 0 {
            return Ok(None);
        }
        let (first, times_us) = self.values(TIME, number * SEGMENT_EVENTS)?;
        Ok(times_us.binary_search(&time_us).ok().map(|at| first + at as u64))
    }

    /// What there is of a column in the segment of event `seq`, and the first event of it.
    fn values(&mut self, column: usize, seq: u64) -> Result<(u64, &[i64]), ScoreError> {
        let number = seq / SEGMENT_EVENTS;
        let first = number * SEGMENT_EVENTS;
        if number == self.open_segment() {
            return Ok((first, &self.open[column]));
        }
        Ok((first, self.sealed_column(column, number)?))
    }

    /// A column of a sealed segment.
    pub(super) fn sealed_column(&mut self, column: usize, number: u64) -> Result<&[i64], ScoreError> {
        let (family, at) = self.place[column];
        let id = self.id(family, number);
        let Self { families, store, spare, .. } = self;
        let segment = families[family].segment(id, &**store)?;
        segment.column(at, column == TIME, spare).map_err(|source| ScoreError::Segment { id, source })
    }

    /// Calls `key` with the keys that live in a sealed segment and their values.
    pub(super) fn sealed_records(
        &mut self,
        family: usize,
        number: u64,
        key: impl FnMut(KeyRecord, &[u8]),
    ) -> Result<(), ScoreError> {
        let id = self.id(family, number);
        let segment = self.families[family].segment(id, &*self.store)?;
        segment.each_key(key).map(drop).map_err(|source| ScoreError::Segment { id, source })
    }

    /// The oldest segment of a family, if all of it is before `seq`.
    pub(super) fn passed_segment(&self, family: usize, seq: u64) -> Option<u64> {
        let first = self.families[family].first_segment;
        // The segment that `seq` is in may still be open.
        ((first + 1) * SEGMENT_EVENTS <= seq && first < self.open_segment).then_some(first)
    }

    /// Forgets the oldest segment of a family.
    pub(super) fn forget_first(&mut self, family: usize) {
        let family = &mut self.families[family];
        if let Some(segment) = family.read.remove(&family.first_segment) {
            segment.give_back(&mut self.spare);
        }
        family.sealed.pop_front();
        family.first_segment += 1;
        self.store.forget(family.reservoir, family.first_segment);
    }

    /// Lets go of unpacked segments but those of these events.
    pub(super) fn keep_unpacked(&mut self, seqs: &[u64]) {
        for family in &mut self.families {
            let unneeded =
                |number: &u64, _: &mut Segment| !seqs.iter().any(|seq| seq / SEGMENT_EVENTS == *number);
            for (_, segment) in family.read.extract_if(.., unneeded) {
                segment.give_back(&mut self.spare);
            }
        }
    }

    /// Takes up what a checkpoint says: the newest segment from `open`.
    pub(super) fn restore_open(&mut self, number: u64, open: &mut Segment) -> Result<(), SnapshotError> {
        self.open_segment = number;
        self.next_seq = number * SEGMENT_EVENTS + open.events as u64;
        for (index, column) in self.open.iter_mut().enumerate() {
            column.extend_from_slice(open.column(index, index == TIME, &mut self.spare)?);
        }
        if open.events < SEGMENT {
            Ok(())
        } else {
            Err(SnapshotError::Damaged("the newest segment is too long"))
        }
    }

    /// Takes up a family's sealed segments from the store, which are those from `first` on with these
    /// checksums. Returns what each says beside its events.
    pub(super) fn restore_family(
        &mut self,
        index: usize,
        first: u64,
        checksums: &[u64],
    ) -> Result<Vec<Records>, SnapshotError> {
        let mut all = Vec::new();
        for (number, &expected) in (first..).zip(checksums) {
            let id = self.id(index, number);
            let columns = &self.families[index].columns;
            let mut segment = fetch(&*self.store, id, columns.len())
                .map_err(|error| SnapshotError::Segment { id, reason: error.to_string() })?;
            if checksum(&segment.bytes) != expected {
                return Err(SnapshotError::Segment { id, reason: "it is of another run".to_owned() });
            }
            let times = columns.iter().position(|&column| column == TIME);
            let first_us = match times {
                Some(at) => segment.column(at, true, &mut self.spare)?.first().copied().unwrap_or(i64::MAX),
                None => i64::MAX,
            };
            all.push(segment.records()?);
            let sealed = Sealed { bytes: segment.bytes.len() as u64, checksum: expected, first_us };
            self.families[index].sealed.push_back(sealed);
            segment.give_back(&mut self.spare);
        }
        self.families[index].first_segment = first;
        let whole = first + checksums.len() as u64 == self.open_segment;
        if whole { Ok(all) } else { Err(SnapshotError::Damaged("the segments do not meet the newest one")) }
    }
}

impl Family {
    fn segment(&mut self, id: SegmentId, store: &dyn SegmentStore) -> Result<&mut Segment, ScoreError> {
        match self.read.entry(id.number) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => Ok(entry.insert(fetch(store, id, self.columns.len())?)),
        }
    }
}

fn to_usize(n: u64) -> usize {
    usize::try_from(n).expect("a segment fits in memory")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::MemoryStore;

    /// The value of an event in a column, whose times rise.
    fn value(column: usize, seq: u64) -> i64 {
        let seq = seq.cast_signed();
        if column == TIME { 1_000 * seq + seq % 7 } else { seq * seq % 1_009 }
    }

    /// Two segments that are sealed and a half, none of it unpacked.
    fn sealed() -> (Reservoir, u64) {
        let families =
            [TIME, CONDITIONS].map(|column| FamilySpec { columns: vec![column], tails: Vec::new() });
        let mut reservoir = Reservoir::new(0, &families, Arc::new(MemoryStore::default()));
        let events = 5 * SEGMENT_EVENTS / 2;
        for half in (0..events).step_by(SEGMENT / 2) {
            let columns = [TIME, CONDITIONS]
                .map(|column| (half..half + SEGMENT_EVENTS / 2).map(|seq| value(column, seq)).collect());
            reservoir.append(&columns.each_ref().map(Vec::<i64>::as_slice));
            reservoir.seal_if_full(|_, _| {});
        }
        reservoir.keep_unpacked(&[]);
        (reservoir, events)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn who_goes_through_columns_reads_what_was_appended(
            // From where to where, mostly on from where the one before ended, but also back, and whether all that is
            // unpacked is let go of before.
            ranges in prop::collection::vec((prop_oneof![4 => Just(0_u64), 1 => any::<u64>()], 1..5_000_u64, any::<bool>()), 1..30),
        ) {
            let (mut reservoir, events) = sealed();
            let mut cursors = [Cursor::default(), Cursor::default()];
            let mut from = 0;
            for (jump, length, forget) in ranges {
                from = (from + jump % events) % events;
                let to = events.min(from + length);
                if forget {
                    reservoir.keep_unpacked(&[]);
                }
                for column in [TIME, CONDITIONS] {
                    let cursor = &mut cursors[column];
                    cursor.go_to(from);
                    reservoir.read_on(column, to, cursor).unwrap();
                    prop_assert!(cursor.ahead() >= to);
                    let expected: Vec<i64> = (from..cursor.ahead()).map(|seq| value(column, seq)).collect();
                    prop_assert_eq!(cursor.values(), expected);
                }
                from = to;
            }
        }
    }
}
