//! A hash table in parts, so that the growth of one stalls nobody for long.

use hashbrown::HashTable;

const SHARD_BITS: u32 = 6;

/// Tables that entries are spread over by hash.
#[derive(Debug)]
pub(crate) struct Shards<T>(Vec<HashTable<T>>);

impl<T> Shards<T> {
    pub(crate) fn new() -> Self {
        Self((0..1 << SHARD_BITS).map(|_| HashTable::new()).collect())
    }

    /// The table for entries of this hash.
    #[inline(always)]
    pub(crate) fn of(&self, hash: u64) -> &HashTable<T> {
        &self.0[shard(hash)]
    }

    /// The table for entries of this hash.
    #[inline(always)]
    pub(crate) fn of_mut(&mut self, hash: u64) -> &mut HashTable<T> {
        &mut self.0[shard(hash)]
    }

    /// Bytes held: a place and a byte of its own for each.
    pub(crate) fn bytes(&self) -> usize {
        self.0.iter().map(HashTable::allocation_size).sum()
    }
}

const fn shard(hash: u64) -> usize {
    // The table itself uses the lowest and the seven highest bits.
    (hash >> 40) as usize & ((1 << SHARD_BITS) - 1)
}
