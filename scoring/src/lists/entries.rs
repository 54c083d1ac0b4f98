//! The entries of one list: a hash table of places in an arena, about 30 bytes for a card.
//!
//! The hasher is seeded per process against values chosen to collide; nothing that leaves this module
//! depends on its order.

use std::hash::{BuildHasher as _, Hasher as _};

use hashbrown::{DefaultHashBuilder, HashTable};

use super::arena::Arena;
use crate::shards::Shards;

/// The scope of entries that hold for every merchant.
pub(super) const EVERYONE: u32 = 0;

const HAS_SCOPE: u16 = 1 << 15;
const HAS_EXPIRY: u16 = 1 << 14;
const KEY_BYTES: u16 = HAS_EXPIRY - 1;

/// Entries by scope and key, each with an expiry or none.
#[derive(Debug)]
pub(super) struct Entries {
    shards: Shards<HashTable<u32>>,
    arena: Arena,
    hasher: DefaultHashBuilder,
    len: usize,
}

/// A record taken apart: a head with flags and the key's length, then scope, expiry and key.
struct Entry<'a> {
    scope: u32,
    expires_at_us: Option<i64>,
    key: &'a [u8],
    /// Of the whole record.
    bytes: usize,
}

impl<'a> Entry<'a> {
    fn read(record: &'a [u8]) -> Self {
        let (head, mut rest) = record.split_first_chunk().expect("a record has a head");
        let head = u16::from_le_bytes(*head);
        let mut scope = EVERYONE;
        if head & HAS_SCOPE != 0 {
            let (bytes, after) = rest.split_first_chunk().expect("its head says so");
            (scope, rest) = (u32::from_le_bytes(*bytes), after);
        }
        let mut expires_at_us = None;
        if head & HAS_EXPIRY != 0 {
            let (bytes, after) = rest.split_first_chunk().expect("its head says so");
            (expires_at_us, rest) = (Some(i64::from_le_bytes(*bytes)), after);
        }
        let key = &rest[..usize::from(head & KEY_BYTES)];
        Self { scope, expires_at_us, key, bytes: record.len() - rest.len() + key.len() }
    }

    fn write(&self, out: &mut Vec<u8>) {
        let mut head = u16::try_from(self.key.len()).expect("values are bounded");
        assert!(head <= KEY_BYTES, "values are bounded");
        head |= if self.scope == EVERYONE { 0 } else { HAS_SCOPE };
        head |= if self.expires_at_us.is_some() { HAS_EXPIRY } else { 0 };
        out.extend(head.to_le_bytes());
        if self.scope != EVERYONE {
            out.extend(self.scope.to_le_bytes());
        }
        out.extend(self.expires_at_us.iter().flat_map(|us| us.to_le_bytes()));
        out.extend(self.key);
    }

    fn in_force(&self, now_us: i64) -> bool {
        self.expires_at_us.is_none_or(|us| us > now_us)
    }
}

impl Entries {
    pub(super) fn new() -> Self {
        Self { shards: Shards::new(), arena: Arena::default(), hasher: DefaultHashBuilder::default(), len: 0 }
    }

    /// Entries held: those in force, and expired ones whose memory nothing has needed yet.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// Bytes of memory held.
    pub(super) fn bytes(&self) -> usize {
        self.arena.bytes() + self.shards.iter().map(HashTable::allocation_size).sum::<usize>()
    }

    /// Whether there is an entry of this scope and key that has not expired.
    pub(super) fn contains(&self, scope: u32, key: &[u8], now_us: i64) -> bool {
        let hash = hash(&self.hasher, scope, key);
        let found = self.shards.of(hash).find(hash, |&at| self.is_at(at, scope, key));
        found.is_some_and(|&at| Entry::read(self.arena.at(at)).in_force(now_us))
    }

    /// Adds an entry, or gives the one that is there another expiry. Tells `dropped` the keys of expired
    /// entries that had to make room. Returns whether it is a new one.
    pub(super) fn put(
        &mut self,
        scope: u32,
        key: &[u8],
        expires_at_us: Option<i64>,
        now_us: i64,
        dropped: &mut dyn FnMut(&[u8]),
    ) -> bool {
        let known = self.remove(scope, key);
        let hash = hash(&self.hasher, scope, key);
        self.make_room(hash, now_us, dropped);
        let mut record = Vec::with_capacity(16 + key.len());
        Entry { scope, expires_at_us, key, bytes: 0 }.write(&mut record);
        let at = self.arena.put(&record);
        let (arena, hasher) = (&self.arena, &self.hasher);
        self.shards.of_mut(hash).insert_unique(hash, at, |&at| hash_at(arena, hasher, at));
        self.len += 1;
        !known
    }

    /// Removes an entry. Returns whether it was there.
    pub(super) fn remove(&mut self, scope: u32, key: &[u8]) -> bool {
        let hash = hash(&self.hasher, scope, key);
        let arena = &self.arena;
        let is_it = |&at: &u32| {
            let entry = Entry::read(arena.at(at));
            entry.scope == scope && entry.key == key
        };
        let Ok(found) = self.shards.of_mut(hash).find_entry(hash, is_it) else { return false };
        let (at, _) = found.remove();
        let bytes = Entry::read(self.arena.at(at)).bytes;
        self.arena.forget(at, bytes);
        self.len -= 1;
        true
    }

    /// Before a shard grows, what has expired goes: so memory follows what is in force, at a cost that is
    /// spread over the entries added, and no clock or timer is needed.
    fn make_room(&mut self, hash: u64, now_us: i64, dropped: &mut dyn FnMut(&[u8])) {
        let shard = self.shards.of_mut(hash);
        if shard.len() < shard.capacity() {
            return;
        }
        let before = shard.len();
        let arena = &mut self.arena;
        shard.retain(|&mut at| {
            let entry = Entry::read(arena.at(at));
            let stays = entry.in_force(now_us);
            if !stays {
                dropped(entry.key);
                let bytes = entry.bytes;
                arena.forget(at, bytes);
            }
            stays
        });
        self.len -= before - shard.len();
        // Nearly full still: grow now, or the next entry would look at all of them again.
        if shard.len() * 4 > before * 3 {
            let (arena, hasher) = (&self.arena, &self.hasher);
            shard.reserve(before - shard.len() + 1, |&at| hash_at(arena, hasher, at));
        }
    }

    fn is_at(&self, at: u32, scope: u32, key: &[u8]) -> bool {
        let entry = Entry::read(self.arena.at(at));
        entry.scope == scope && entry.key == key
    }
}

fn hash(hasher: &DefaultHashBuilder, scope: u32, key: &[u8]) -> u64 {
    let mut hasher = hasher.build_hasher();
    hasher.write_u32(scope);
    hasher.write(key);
    hasher.finish()
}

fn hash_at(arena: &Arena, hasher: &DefaultHashBuilder, at: u32) -> u64 {
    let entry = Entry::read(arena.at(at));
    hash(hasher, entry.scope, entry.key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_of_expired_and_removed_entries_is_used_again() {
        let mut entries = Entries::new();
        let mut dropped = 0;
        for n in 0..2_000_000_i64 {
            let key = n.to_le_bytes();
            // Each is in force for a thousand.
            entries.put(7, &key, Some(n + 1_000), n, &mut |_| dropped += 1);
            assert!(entries.contains(7, &key, n) && !entries.contains(EVERYONE, &key, n));
            if n % 3 == 0 {
                assert!(entries.remove(7, &key) && !entries.contains(7, &key, n));
            }
        }
        assert!(entries.len() < 20_000, "{} entries for a thousand in force", entries.len());
        assert!(entries.bytes() < 2 << 20, "{} bytes", entries.bytes());
        assert!(dropped > 1_000_000);
    }
}
