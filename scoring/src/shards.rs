//! A hash table in parts, so that the growth of one stalls nobody for long.

const SHARD_BITS: u32 = 6;

/// Tables that entries are spread over by hash.
#[derive(Debug)]
pub(crate) struct Shards<T>(Vec<T>);

impl<T: Default> Shards<T> {
    pub(crate) fn new() -> Self {
        Self((0..1 << SHARD_BITS).map(|_| T::default()).collect())
    }

    /// The table for entries of this hash.
    #[inline(always)]
    pub(crate) fn of(&self, hash: u64) -> &T {
        &self.0[shard(hash)]
    }

    /// The table for entries of this hash.
    #[inline(always)]
    pub(crate) fn of_mut(&mut self, hash: u64) -> &mut T {
        &mut self.0[shard(hash)]
    }

    /// All of the tables.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter()
    }
}

const fn shard(hash: u64) -> usize {
    // The tables themselves use the lower half, and hashbrown's the seven highest bits.
    (hash >> 40) as usize & ((1 << SHARD_BITS) - 1)
}
