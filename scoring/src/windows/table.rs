//! A hash table that says beforehand where it will look, so that its memory can be asked for ahead.
//!
//! Linear probing, and what follows a removed entry moves back, so that nothing is left of it (Knuth, The Art of
//! Computer Programming, vol. 3, 6.4, algorithm R). An entry carries 32 bits of its hash: the first of them say
//! where it belongs, so growth goes through memory in order, and they are all compared before a key is looked at.

use crate::prefetch::prefetch;
use crate::shards::Shards;

/// Places in a shard at first, as a power of two.
const FIRST_BITS: u32 = 4;

/// What a [`Table`] holds. The default is no entry.
pub(super) trait Entry: Copy + Default {
    /// The [`tag`] of its hash.
    fn tag(&self) -> u32;
    /// Whether it is no entry.
    fn is_none(&self) -> bool;
}

/// The bits of a hash that an entry carries.
#[inline(always)]
#[allow(clippy::cast_possible_truncation)] // the lower half
pub(super) const fn tag(hash: u64) -> u32 {
    hash as u32
}

/// Entries by hash.
#[derive(Debug)]
pub(super) struct Table<E>(Shards<Shard<E>>);

/// The entries of some hashes.
#[derive(Debug)]
pub(super) struct Shard<E> {
    /// A power of two of places, of which some are always free.
    places: Vec<E>,
    /// How far to shift a tag to get the place where an entry belongs.
    shift: u32,
    used: usize,
}

impl<E: Entry> Table<E> {
    pub(super) fn new() -> Self {
        Self(Shards::new())
    }

    /// The shard for entries of this hash.
    #[inline(always)]
    pub(super) fn of(&self, hash: u64) -> &Shard<E> {
        self.0.of(hash)
    }

    /// The shard for entries of this hash.
    #[inline(always)]
    pub(super) fn of_mut(&mut self, hash: u64) -> &mut Shard<E> {
        self.0.of_mut(hash)
    }

    /// Asks for the memory that a search for this hash begins in. A hint: changes nothing, waits for nothing.
    #[inline(always)]
    pub(super) fn approach(&self, hash: u64) {
        let shard = self.of(hash);
        prefetch(&shard.places[shard.home(tag(hash))]);
    }
}

impl<E: Entry> Default for Shard<E> {
    fn default() -> Self {
        Self { places: vec![E::default(); 1 << FIRST_BITS], shift: u32::BITS - FIRST_BITS, used: 0 }
    }
}

impl<E: Entry> Shard<E> {
    #[inline(always)]
    const fn home(&self, tag: u32) -> usize {
        (tag >> self.shift) as usize
    }

    #[inline(always)]
    const fn after(&self, at: usize) -> usize {
        (at + 1) & (self.places.len() - 1)
    }

    /// The place of the entry with this tag that `is_it`; or, if there is none, where it can be put.
    #[inline(always)]
    pub(super) fn seek(&self, tag: u32, mut is_it: impl FnMut(&E) -> bool) -> Result<usize, usize> {
        let mut at = self.home(tag);
        loop {
            let entry = &self.places[at];
            if entry.is_none() {
                return Err(at);
            }
            if entry.tag() == tag && is_it(entry) {
                return Ok(at);
            }
            at = self.after(at);
        }
    }

    /// The entry at a place.
    #[inline(always)]
    pub(super) fn at_mut(&mut self, place: usize) -> &mut E {
        &mut self.places[place]
    }

    /// Puts an entry at the free place that [`Self::seek`] found for it. All places may change.
    #[inline(always)]
    pub(super) fn put(&mut self, place: usize, entry: E) {
        debug_assert!(self.places[place].is_none(), "what `seek` finds is free until something changes");
        self.places[place] = entry;
        self.used += 1;
        if self.used > self.places.len() / 8 * 5 {
            self.grow();
        }
    }

    #[cold]
    fn grow(&mut self) {
        let places = self.places.len() * 2;
        let old = std::mem::replace(&mut self.places, vec![E::default(); places]);
        self.shift = self.shift.checked_sub(1).expect("fewer than 2^32 entries of a shard fit in memory");
        for entry in old {
            if !entry.is_none() {
                let (Ok(place) | Err(place)) = self.seek(entry.tag(), |_| false);
                self.places[place] = entry;
            }
        }
    }

    /// Takes an entry out. All places may change.
    pub(super) fn remove(&mut self, place: usize) {
        let mask = self.places.len() - 1;
        let (mut hole, mut at) = (place, place);
        loop {
            at = self.after(at);
            let entry = self.places[at];
            if entry.is_none() {
                break;
            }
            // It may move back to the hole, but not to before where it belongs.
            let way = at.wrapping_sub(self.home(entry.tag())) & mask;
            if way >= at.wrapping_sub(hole) & mask {
                self.places[hole] = entry;
                hole = at;
            }
        }
        self.places[hole] = E::default();
        self.used -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, Copy, Default, PartialEq)]
    struct Of {
        tag: u32,
        key: u16,
        value: u16,
    }

    impl Entry for Of {
        fn tag(&self) -> u32 {
            self.tag
        }

        fn is_none(&self) -> bool {
            self.value == 0
        }
    }

    /// Few homes, the last places of a shard among them, so that searches are long and go around its end.
    fn hash(key: u16) -> u64 {
        [0, 1, 0xf000_0000, 0xffff_ffff, 0xffff_fffe, 0x7000_0000][usize::from(key) % 6]
    }

    proptest! {
        #[test]
        fn it_holds_what_was_put_and_not_removed(
            steps in prop::collection::vec((0..60_u16, 0..3_u16), 0..400),
        ) {
            let mut table: Table<Of> = Table::new();
            let mut expected: BTreeMap<u16, u16> = BTreeMap::new();
            for (step, (key, what)) in (1..).zip(steps) {
                let hash = hash(key);
                let tag = tag(hash);
                table.approach(hash);
                let shard = table.of_mut(hash);
                let found = shard.seek(tag, |entry| entry.key == key);
                prop_assert_eq!(found.ok().map(|at| shard.at_mut(at).value), expected.get(&key).copied());
                match (found, what) {
                    (Ok(at), 0) => {
                        shard.remove(at);
                        expected.remove(&key);
                    }
                    (Ok(at), _) => {
                        shard.at_mut(at).value = step;
                        expected.insert(key, step);
                    }
                    (Err(at), 1..) => {
                        shard.put(at, Of { tag, key, value: step });
                        expected.insert(key, step);
                    }
                    (Err(_), _) => {}
                }
            }
            for key in 0..60 {
                let shard = table.of(hash(key));
                let found = shard.seek(tag(hash(key)), |entry| entry.key == key);
                prop_assert_eq!(found.ok().map(|at| shard.places[at].value), expected.get(&key).copied());
            }
            prop_assert_eq!(table.0.iter().map(|shard| shard.used).sum::<usize>(), expected.len());
        }
    }
}
