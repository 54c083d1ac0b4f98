//! Numbers the distinct values of keys, densely, and gives a number back when no event needs it.

use std::hash::BuildHasher as _;

use hashbrown::DefaultHashBuilder;

use super::accumulate::key;
use super::chunked::{AHEAD, Chunked};
use super::table::{Entry, Table, tag};
use crate::prefetch::prefetch;

/// From the bytes of a value to a small number, and back to nothing when its last event is released.
///
/// The hasher is seeded per process against keys chosen to collide; neither the seed nor the numbers
/// show in any result.
#[derive(Debug)]
pub(super) struct Dictionary {
    slots: Chunked<Slot>,
    capacity: u32,
    free: Vec<u32>,
    numbers: Table<Numbered>,
    hasher: DefaultHashBuilder,
}

/// From how many values on they no longer fit the processor's nearer caches.
const FAR_VALUES: usize = 1 << 12;
/// Values up to this many bytes are kept in the slot itself: one cache line less to wait for.
const SHORT_BYTES: usize = 38;

#[derive(Debug, Clone)]
enum Value {
    Short { len: u8, bytes: [u8; SHORT_BYTES] },
    Long(Box<[u8]>),
}

impl Default for Value {
    fn default() -> Self {
        Self::Short { len: 0, bytes: [0; SHORT_BYTES] }
    }
}

impl Value {
    fn new(value: &[u8]) -> Self {
        let mut new = Self::default();
        new.set(value);
        new
    }

    /// Becomes a value, in place where it is short and so was the one before.
    #[inline]
    fn set(&mut self, value: &[u8]) {
        match (self, u8::try_from(value.len())) {
            (Self::Short { len, bytes }, Ok(length)) if value.len() <= SHORT_BYTES => {
                *len = length;
                bytes[..value.len()].copy_from_slice(value);
            }
            (other, _) => *other = Self::Long(value.into()),
        }
    }

    #[inline]
    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short { len, bytes } => &bytes[..usize::from(*len)],
            Self::Long(bytes) => bytes,
        }
    }
}

#[derive(Debug, Clone, Default)]
#[repr(align(64))] // one cache line each
struct Slot {
    value: Value,
    hash: u64,
    /// The newest event with this value.
    last_seq: u64,
    /// The segment in which the value is written beside its number.
    home: u32,
    live: bool,
}

/// Where a number is found: one more than it, or 0.
#[derive(Debug, Clone, Copy, Default)]
struct Numbered {
    tag: u32,
    after: u32,
}

impl Numbered {
    const fn new(id: u32, hash: u64) -> Self {
        Self { tag: tag(hash), after: id + 1 }
    }

    const fn id(self) -> u32 {
        self.after - 1
    }

    #[inline(always)]
    const fn tag(&self) -> u32 {
        self.tag
    }
}

impl Entry for Numbered {
    #[inline(always)]
    fn is_none(&self) -> bool {
        self.after == 0
    }
}

impl Dictionary {
    pub(super) fn new() -> Self {
        Self {
            slots: Chunked::new(1),
            capacity: 0,
            free: Vec::new(),
            numbers: Table::new(),
            hasher: DefaultHashBuilder::default(),
        }
    }

    /// The hash that [`Self::acquire`] takes.
    #[inline]
    pub(super) fn hash(&self, value: &[u8]) -> u64 {
        self.hasher.hash_one(value)
    }

    /// The number of the value that event `seq` has, `likely` the one that [`Self::approach`] saw, and whether it is a new
    /// one; its home is then segment `home`.
    #[inline]
    pub(super) fn acquire(
        &mut self,
        value: &[u8],
        hash: u64,
        likely: Option<u32>,
        seq: u64,
        home: u64,
    ) -> (u32, bool) {
        let (numbers, slots, tag) = (self.numbers.of_mut(hash), &mut self.slots, tag(hash));
        if let Some(id) = likely {
            let slot = &mut slots.row_mut(id as usize)[0];
            if slot.live && slot.hash == hash && slot.value.as_bytes() == value {
                slot.last_seq = seq;
                return (id, false);
            }
        }
        let is_it = |entry: &Numbered| {
            entry.tag == tag && slots.row(entry.id() as usize)[0].value.as_bytes() == value
        };
        let place = match numbers.seek(tag, is_it, |_| true) {
            Ok(place) => {
                let id = numbers.at_mut(place).id();
                slots.row_mut(id as usize)[0].last_seq = seq;
                return (id, false);
            }
            Err(place) => place,
        };
        let id = self.free.pop().unwrap_or_else(|| {
            self.capacity = self.capacity.checked_add(1).expect("fewer than 2^32 live keys fit in memory");
            slots.grow(self.capacity as usize);
            self.capacity - 1
        });
        let slot = &mut slots.row_mut(id as usize)[0];
        slot.value.set(value);
        (slot.hash, slot.last_seq, slot.home, slot.live) = (hash, seq, short(home), true);
        numbers.put(place, Numbered::new(id, hash), Numbered::tag, |_| true);
        (id, true)
    }

    /// Whether there are too many values for the processor's nearer caches.
    pub(super) fn is_far(&self) -> bool {
        self.live() >= FAR_VALUES
    }

    /// Asks for the memory that [`Self::acquire`] will look at, before the value at `row` of those with these hashes
    /// is looked up: first for that which says where a value is, later for that of the value itself, of which it returns
    /// the number if there is one. Changes nothing.
    #[inline(always)]
    pub(super) fn approach(&self, hashes: &[u64], row: usize) -> Option<u32> {
        if let Some(&hash) = hashes.get(row + 2 * AHEAD) {
            self.numbers.approach(hash);
        }
        // New values go where others were.
        if let Some(&id) = self.free.len().checked_sub(AHEAD).and_then(|at| self.free.get(at)) {
            prefetch(&self.slots.row(id as usize)[0]);
        }
        let &hash = hashes.get(row + AHEAD)?;
        let tag = tag(hash);
        let id = self.numbers.of(hash).find(tag, |entry| entry.tag == tag)?.id();
        prefetch(&self.slots.row(id as usize)[0]);
        Some(id)
    }

    /// Asks for the memory of a number to come.
    #[inline(always)]
    pub(super) fn approach_number(&self, id: u32) {
        self.slot(id).into_iter().for_each(prefetch);
    }

    /// Event `seq` has the same value as the one before it.
    #[inline]
    pub(super) fn again(&mut self, id: u32, seq: u64) {
        self.slots.row_mut(id as usize)[0].last_seq = seq;
    }

    /// Events from `first_seq` on with these numbers are needed no more: nor are the values of which one is the
    /// newest event.
    pub(super) fn release(&mut self, first_seq: u64, ids: &[i64]) {
        let far = self.is_far();
        for (at, seq) in (0..ids.len()).zip(first_seq..) {
            if far {
                ids.get(at + 2 * AHEAD).into_iter().for_each(|&id| self.approach_number(key(id)));
                if let Some(&id) = ids.get(at + AHEAD) {
                    let slot = &self.slots.row(key(id) as usize)[0];
                    if slot.last_seq == seq + AHEAD as u64 {
                        self.numbers.approach(slot.hash);
                    }
                }
            }
            self.release_one(key(ids[at]), seq);
        }
    }

    #[inline]
    fn release_one(&mut self, id: u32, seq: u64) {
        let slot = &mut self.slots.row_mut(id as usize)[0];
        if slot.last_seq != seq || !slot.live {
            return;
        }
        let Slot { hash, .. } = std::mem::take(slot);
        let numbers = self.numbers.of_mut(hash);
        if let Ok(place) = numbers.seek(tag(hash), |entry| entry.id() == id, |_| true) {
            numbers.remove(place, Numbered::tag);
        }
        self.free.push(id);
    }

    /// The value of a number whose home is segment `home`; `None` when it lives elsewhere or not at all.
    pub(super) fn value_at(&self, id: u32, home: u64) -> Option<&[u8]> {
        let slot = self.slot(id)?;
        (slot.live && slot.home == short(home)).then(|| slot.value.as_bytes())
    }

    /// Gives a live value another home.
    pub(super) fn rehome(&mut self, id: u32, home: u64) {
        self.slots.row_mut(id as usize)[0].home = short(home);
    }

    /// Whether the number is in use.
    pub(super) fn is_live(&self, id: u32) -> bool {
        self.slot(id).is_some_and(|slot| slot.live)
    }

    fn slot(&self, id: u32) -> Option<&Slot> {
        (id < self.capacity).then(|| &self.slots.row(id as usize)[0])
    }

    /// One more than the largest number ever in use.
    pub(super) const fn capacity(&self) -> usize {
        self.capacity as usize
    }

    /// Numbers in use.
    pub(super) fn live(&self) -> usize {
        self.capacity() - self.free.len()
    }

    /// While restoring: a value and its number as a segment has them; a later segment overrides.
    pub(super) fn place(&mut self, id: u32, value: &[u8], home: u64) {
        if id >= self.capacity {
            self.capacity = id + 1;
            self.slots.grow(self.capacity());
        }
        let hash = self.hasher.hash_one(value);
        self.slots.row_mut(id as usize)[0] =
            Slot { value: Value::new(value), hash, last_seq: 0, home: short(home), live: false };
    }

    /// While restoring: an event that has not been released has this number. Returns whether it has a
    /// value.
    pub(super) fn hold(&mut self, id: u32, seq: u64) -> bool {
        if id >= self.capacity {
            return false;
        }
        let slot = &mut self.slots.row_mut(id as usize)[0];
        slot.last_seq = seq;
        slot.live = true;
        !slot.value.as_bytes().is_empty()
    }

    /// After restoring: what is held can be found, what is not can be given out.
    pub(super) fn index(&mut self) {
        for id in (0..self.capacity).rev() {
            let slot = &mut self.slots.row_mut(id as usize)[0];
            if slot.live {
                let numbers = self.numbers.of_mut(slot.hash);
                let (Ok(place) | Err(place)) = numbers.seek(tag(slot.hash), |_| false, |_| true);
                numbers.put(place, Numbered::new(id, slot.hash), Numbered::tag, |_| true);
            } else {
                *slot = Slot::default();
                self.free.push(id);
            }
        }
    }
}

fn short(home: u64) -> u32 {
    u32::try_from(home).expect("fewer than 2^32 segments in a lifetime")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_lives_as_long_as_its_newest_event() {
        let mut dictionary = Dictionary::new();
        let acquire = |dictionary: &mut Dictionary, value: &[u8], seq| {
            let hash = dictionary.hash(value);
            dictionary.acquire(value, hash, None, seq, 0)
        };
        let long = [7; 10_000];
        let (a, new) = acquire(&mut dictionary, &long, 1);
        assert!(new);
        assert_eq!(acquire(&mut dictionary, &long, 2), (a, false));
        dictionary.release(1, &[i64::from(a)]);
        assert_eq!(dictionary.value_at(a, 0), Some(&long[..]));
        dictionary.release(2, &[i64::from(a)]);
        assert_eq!((dictionary.is_live(a), dictionary.live()), (false, 0));
        assert_eq!(acquire(&mut dictionary, b"b", 3), (a, true), "the number is given out again");
        assert_eq!(dictionary.value_at(a, 0), Some(&b"b"[..]));
    }

    #[test]
    fn what_seemed_likely_is_not_believed() {
        let mut dictionary = Dictionary::new();
        let mut acquire = |value: &[u8], likely, seq| {
            let hash = dictionary.hash(value);
            dictionary.acquire(value, hash, likely, seq, 0)
        };
        let (a, b) = (acquire(b"a", None, 0).0, acquire(b"b", None, 1).0);
        assert_eq!(acquire(b"b", Some(a), 2), (b, false));
        assert_eq!(acquire(b"b", Some(b), 3), (b, false));
        let (c, new) = acquire(b"c", Some(b), 4);
        assert!(new && c != a && c != b);
        dictionary.release(0, &[i64::from(a)]);
        assert_eq!((dictionary.is_live(a), dictionary.live()), (false, 2));
        let hash = dictionary.hash(b"a");
        assert_eq!(dictionary.acquire(b"a", hash, Some(a), 5, 0), (a, true), "it was let go of meanwhile");
        dictionary.release(2, &[i64::from(b)]);
        assert!(dictionary.is_live(b), "there is a newer event of it");
    }

    #[test]
    fn values_too_many_to_be_near_are_asked_for_and_found() {
        let mut dictionary = Dictionary::new();
        let values: Vec<[u8; 8]> = (0..3 * FAR_VALUES as u64).map(u64::to_le_bytes).collect();
        let hashes: Vec<u64> = values.iter().map(|value| dictionary.hash(value)).collect();
        let acquire = |dictionary: &mut Dictionary, first_seq: u64| -> Vec<i64> {
            let rows = values.iter().zip(&hashes).zip(first_seq..).enumerate();
            let mut likely = vec![None; values.len() + AHEAD];
            let id = |(row, ((value, &hash), seq)): (usize, ((&[u8; 8], &u64), u64))| {
                likely[row + AHEAD] = dictionary.approach(&hashes, row);
                i64::from(dictionary.acquire(value, hash, likely[row], seq, 0).0)
            };
            rows.map(id).collect()
        };
        let ids = acquire(&mut dictionary, 0);
        assert!(dictionary.is_far());
        assert_eq!(acquire(&mut dictionary, 100_000), ids);
        dictionary.release(0, &ids);
        assert_eq!(dictionary.live(), values.len(), "there is a newer event of each");
        dictionary.release(100_000, &ids[..10_000]);
        assert_eq!(dictionary.live(), values.len() - 10_000);
        let again = acquire(&mut dictionary, 200_000);
        assert_eq!(again[10_000..], ids[10_000..]);
        let numbers = |ids: &[i64]| ids.iter().copied().collect::<std::collections::BTreeSet<_>>();
        assert_eq!(numbers(&again), numbers(&ids), "numbers are given out again");
    }
}
