//! A hash table that says beforehand where it will look, so that its memory can be asked for ahead.
//!
//! Linear probing, and what follows a removed entry moves back, so that nothing is left of it (Knuth, The Art of
//! Computer Programming, vol. 3, 6.4, algorithm R). Where an entry belongs follows from a tag, 32 bits of its hash: a
//! greater one belongs further back, so growth goes through memory in order. Entries need not be removed: one that is
//! no longer needed makes place for another that comes by.

use std::hash::BuildHasher as _;

use hashbrown::DefaultHashBuilder;

use crate::prefetch::prefetch;
use crate::shards::Shards;

/// Places in a shard at first.
const FIRST_PLACES: usize = 16;

/// What a [`Table`] holds. The default is no entry.
pub(super) trait Entry: Copy + Default {
    /// Whether it is no entry.
    fn is_none(&self) -> bool;
}

/// The bits of a hash that say where in its shard an entry belongs.
#[inline(always)]
#[allow(clippy::cast_possible_truncation)] // the lower half
pub(super) const fn tag(hash: u64) -> u32 {
    hash as u32
}

/// The hash of a key and a value, by their numbers.
#[inline(always)]
pub(super) fn hash_of_pair(hasher: &DefaultHashBuilder, id: u32, value: u32) -> u64 {
    hasher.hash_one(u64::from(id) << 32 | u64::from(value))
}

/// Entries by hash.
#[derive(Debug)]
pub(super) struct Table<E>(Shards<Shard<E>>);

/// The entries of some hashes.
#[derive(Debug)]
pub(super) struct Shard<E> {
    /// Of which three in eight at least are free.
    places: Vec<E>,
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
        let home = shard.home(tag(hash));
        prefetch(&shard.places[home]);
        // Few searches go further, and these often into the next cache line.
        prefetch(&shard.places[(home + 3).min(shard.places.len() - 1)]);
    }

    /// Places for entries.
    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.0.iter().map(|shard| shard.places.len()).sum()
    }
}

impl<E: Entry> Default for Shard<E> {
    fn default() -> Self {
        Self { places: vec![E::default(); FIRST_PLACES], used: 0 }
    }
}

impl<E: Entry> Shard<E> {
    #[inline(always)]
    const fn home(&self, tag: u32) -> usize {
        ((tag as u64 * self.places.len() as u64) >> u32::BITS) as usize
    }

    #[inline(always)]
    const fn after(&self, at: usize) -> usize {
        let next = at + 1;
        if next == self.places.len() { 0 } else { next }
    }

    /// How many places further on `at` is than `from`.
    const fn way(&self, from: usize, at: usize) -> usize {
        if at >= from { at - from } else { at + self.places.len() - from }
    }

    /// The place of the entry that `is_it`, whose tag this is; or, if there is none, where it can be put: where
    /// nothing is, or an entry that is not `needed`.
    #[inline(always)]
    pub(super) fn seek(
        &self,
        tag: u32,
        mut is_it: impl FnMut(&E) -> bool,
        needed: impl Fn(&E) -> bool,
    ) -> Result<usize, usize> {
        let (mut at, mut instead) = (self.home(tag), None);
        loop {
            let entry = &self.places[at];
            if entry.is_none() {
                return Err(instead.unwrap_or(at));
            }
            if is_it(entry) {
                return Ok(at);
            }
            if !needed(entry) {
                instead = Some(at);
            }
            at = self.after(at);
        }
    }

    /// The entry that `is_it`, whose tag this is.
    #[inline(always)]
    pub(super) fn find(&self, tag: u32, is_it: impl FnMut(&E) -> bool) -> Option<&E> {
        self.seek(tag, is_it, |_| true).ok().map(|place| &self.places[place])
    }

    /// The entry at a place.
    #[inline(always)]
    pub(super) fn at_mut(&mut self, place: usize) -> &mut E {
        &mut self.places[place]
    }

    /// Puts an entry at the place that [`Self::seek`] found for it. All places may change: before there are too few
    /// of them, all entries are let go of but those that are `needed`.
    #[inline(always)]
    pub(super) fn put(
        &mut self,
        place: usize,
        entry: E,
        tag_of: impl Fn(&E) -> u32,
        needed: impl Fn(&E) -> bool,
    ) {
        self.used += usize::from(self.places[place].is_none());
        self.places[place] = entry;
        if self.used > self.places.len() / 8 * 5 {
            self.rebuild(tag_of, needed);
        }
    }

    #[cold]
    #[inline(never)]
    fn rebuild(&mut self, tag_of: impl Fn(&E) -> u32, needed: impl Fn(&E) -> bool) {
        // What is kept goes to the front first: whether it is then is no branch.
        self.used = 0;
        for place in 0..self.places.len() {
            let entry = self.places[place];
            self.places[self.used] = entry;
            self.used += usize::from(!entry.is_none() & needed(&entry));
        }
        // Two thirds more fit before the next time.
        let places = FIRST_PLACES.max(self.used / 3 * 8);
        let old = std::mem::replace(&mut self.places, vec![E::default(); places]);
        for entry in &old[..self.used] {
            let (Ok(place) | Err(place)) = self.seek(tag_of(entry), |_| false, |_| true);
            self.places[place] = *entry;
        }
    }

    /// Takes an entry out. All places may change.
    pub(super) fn remove(&mut self, place: usize, tag_of: impl Fn(&E) -> u32) {
        let (mut hole, mut at) = (place, place);
        loop {
            at = self.after(at);
            let entry = self.places[at];
            if entry.is_none() {
                break;
            }
            // It may move back to the hole, but not to before where it belongs.
            if self.way(self.home(tag_of(&entry)), at) >= self.way(hole, at) {
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
                let found = shard.seek(tag, |entry| entry.key == key, |_| true);
                prop_assert_eq!(found.ok().map(|at| shard.at_mut(at).value), expected.get(&key).copied());
                match (found, what) {
                    (Ok(at), 0) => {
                        shard.remove(at, |entry| entry.tag);
                        expected.remove(&key);
                    }
                    (Ok(at), _) => {
                        shard.at_mut(at).value = step;
                        expected.insert(key, step);
                    }
                    (Err(at), 1..) => {
                        shard.put(at, Of { tag, key, value: step }, |entry| entry.tag, |_| true);
                        expected.insert(key, step);
                    }
                    (Err(_), _) => {}
                }
            }
            for key in 0..60 {
                let shard = table.of(hash(key));
                let found = shard.find(tag(hash(key)), |entry| entry.key == key);
                prop_assert_eq!(found.map(|entry| entry.value), expected.get(&key).copied());
            }
            prop_assert_eq!(table.0.iter().map(|shard| shard.used).sum::<usize>(), expected.len());
        }
    }
}
