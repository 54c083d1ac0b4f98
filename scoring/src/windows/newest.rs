//! The newest event of each key and value.
//!
//! The values of a key, each with the newest event that has it, are in [lines](super::lines) of its own, mostly in one;
//! and where they are very many, in a table of all such keys. None is taken out when no frame has its events any more:
//! another takes its place.

use hashbrown::DefaultHashBuilder;

use super::accumulate::key;
use super::chunked::{AHEAD, Chunked};
use super::lines::{Held, LINE_BYTES, Lines, REACH, Since, Stretch};
use super::table::{Entry, Table, hash_of_pair, tag};
use crate::prefetch::prefetch;

/// Where the values of a key are.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// Nowhere: it has none yet.
    Nowhere,
    /// In lines of its own.
    Lines(Stretch),
    /// In the table of all keys, until no frame has an event of the key. The base is one more than its newest event then.
    Table,
}

impl Place {
    #[inline(always)]
    const fn of(word: u64) -> Self {
        match word {
            0 => Self::Nowhere,
            u64::MAX => Self::Table,
            stretch => Self::Lines(Stretch::of(stretch)),
        }
    }

    const fn word(self) -> u64 {
        match self {
            Self::Nowhere => 0,
            Self::Table => u64::MAX,
            Self::Lines(stretch) => stretch.word(),
        }
    }
}

/// Of a key: what distances of events are counted from, and where its values are. All zeroes before its first event.
#[derive(Debug, Clone, Copy, Default)]
struct Head {
    base: u64,
    place: u64,
}

/// Bytes that are kept of a key with few values.
pub(crate) const BYTES_PER_KEY: usize = size_of::<Head>() + LINE_BYTES;

/// The newest event of each key and value.
#[derive(Debug)]
pub(super) struct Newest {
    /// By key. Not in its row, so that several are in one cache line.
    heads: Chunked<Head>,
    lines: Lines,
    table: Table<Known>,
    hasher: DefaultHashBuilder,
    /// The values of a key that are about to be elsewhere, reused.
    moving: Vec<Held>,
}

/// The newest event of a key with a value.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    id: u32,
    value: u32,
    /// One more than the event; 0 for no entry.
    after: u64,
}

impl Entry for Known {
    #[inline(always)]
    fn is_none(&self) -> bool {
        self.after == 0
    }
}

impl Newest {
    pub(super) fn new() -> Self {
        Self {
            heads: Chunked::new(1),
            lines: Lines::new(),
            table: Table::new(),
            hasher: DefaultHashBuilder::default(),
            moving: Vec::new(),
        }
    }

    /// Makes sure that there is room for all keys below `keys`.
    pub(super) fn make_room(&mut self, keys: usize) {
        self.heads.grow(keys);
    }

    /// For how many keys there is room.
    pub(super) const fn room(&self) -> usize {
        self.heads.room()
    }

    /// Asks for the memory of what says where the values of some keys are. A hint: changes nothing.
    #[inline(always)]
    pub(super) fn approach_heads(&self, ids: impl Iterator<Item = u32>) {
        if self.heads.is_far() {
            ids.for_each(|id| prefetch(self.heads.only(id as usize)));
        }
    }

    /// Asks for the memory of what [`Self::enter`] will look up. A hint: changes nothing.
    #[inline(always)]
    pub(super) fn approach(&self, id: u32, value: u32) {
        match Place::of(self.head(id).place) {
            Place::Nowhere => {}
            Place::Lines(stretch) => self.lines.approach(stretch, value),
            Place::Table => self.table.approach(hash_of_pair(&self.hasher, id, value)),
        }
    }

    #[inline(always)]
    fn head(&self, id: u32) -> Head {
        *self.heads.only(id as usize)
    }

    #[inline(always)]
    fn head_mut(&mut self, id: u32) -> &mut Head {
        self.heads.only_mut(id as usize)
    }

    /// Makes the event before `after` the newest of its key with a value, and returns one more than the newest before
    /// it, or 0.
    #[inline(always)]
    pub(super) fn enter(&mut self, id: u32, (value, after): Held, oldest: u64) -> u64 {
        let Head { base, place } = self.head(id);
        let entered = match Place::of(place) {
            Place::Lines(stretch) if after - base <= REACH => {
                self.lines.enter(stretch, Since { base, oldest }, (value, after))
            }
            _ => None,
        };
        entered.unwrap_or_else(|| self.enter_other(id, (value, after), oldest))
    }

    /// As [`Self::enter`], for a value that is not where one looks first.
    #[inline(never)]
    fn enter_other(&mut self, id: u32, (value, after): Held, oldest: u64) -> u64 {
        let Head { base, place } = self.head(id);
        match Place::of(place) {
            Place::Lines(stretch) if after - base <= REACH => {
                let entered = self.lines.enter_further(stretch, Since { base, oldest }, (value, after));
                entered.unwrap_or_else(|| self.enter_elsewhere(id, (value, after), oldest))
            }
            Place::Table if base > oldest => {
                self.head_mut(id).base = after;
                self.enter_table((id, value), after, oldest)
            }
            _ => self.enter_elsewhere(id, (value, after), oldest),
        }
    }

    /// As [`Self::enter`], for a value that there is no place for where those of its key are.
    #[cold]
    #[inline(never)]
    fn enter_elsewhere(&mut self, id: u32, (value, after): Held, oldest: u64) -> u64 {
        self.lay_out(id, after, oldest);
        self.enter(id, (value, after), oldest)
    }

    /// As [`Self::enter`], for a key whose values are in the table.
    fn enter_table(&mut self, (id, value): (u32, u32), after: u64, oldest: u64) -> u64 {
        let Self { table, hasher, .. } = self;
        let hash = hash_of_pair(hasher, id, value);
        let shard = table.of_mut(hash);
        let needed = |entry: &Known| entry.after > oldest;
        match shard.seek(tag(hash), |entry| (entry.id, entry.value) == (id, value), needed) {
            Ok(place) => std::mem::replace(&mut shard.at_mut(place).after, after),
            Err(place) => {
                let tag_of = |entry: &Known| tag(hash_of_pair(hasher, entry.id, entry.value));
                shard.put(place, Known { id, value, after }, tag_of, needed);
                0
            }
        }
    }

    /// Finds room for the values of a key, where there may soon be more, the event before `after` within reach.
    fn lay_out(&mut self, id: u32, after: u64, oldest: u64) {
        let Head { base, place } = self.head(id);
        let mut held = std::mem::take(&mut self.moving);
        held.clear();
        match Place::of(place) {
            Place::Lines(stretch) => self.lines.give_back(stretch, Since { base, oldest }, &mut held),
            // It comes here from the table when none of them is needed.
            Place::Nowhere | Place::Table => {}
        }
        let since = Since { base: oldest.max(after.saturating_sub(REACH)), oldest };
        let within_reach = held.iter().all(|&(_, after)| after > since.base);
        let (base, place) = if within_reach && let Some(stretch) = self.lines.take(since, &held) {
            (since.base, Place::Lines(stretch))
        } else {
            for (at, &(value, after)) in held.iter().enumerate() {
                if let Some(&(value, _)) = held.get(at + AHEAD) {
                    self.table.approach(hash_of_pair(&self.hasher, id, value));
                }
                self.enter_table((id, value), after, oldest);
            }
            (held.iter().map(|held| held.1).max().expect("they are many"), Place::Table)
        };
        *self.head_mut(id) = Head { base, place: place.word() };
        self.moving = held;
    }

    /// Takes lines from a key that has more than it needs, which may be asked of each key in turn, now and then.
    pub(super) fn look_after(&mut self, id: u32, turn: u64, (after, oldest): (u64, u64)) {
        let Head { base, place } = self.head(id);
        if let Place::Lines(stretch) = Place::of(place)
            && self.lines.are_many(stretch, Since { base, oldest }, key(turn.cast_signed()))
        {
            self.lay_out(id, after, oldest);
        }
    }

    /// Bytes that heads and lines take.
    pub(super) fn bytes(&self) -> usize {
        self.heads.bytes() + self.lines.bytes()
    }

    /// How many lines are or were somebody's, and places in the table.
    #[cfg(test)]
    pub(super) fn used(&self) -> (usize, usize) {
        (self.lines.used(), self.table.places())
    }

    /// How many lines a key has; none where its values are in the table, if it has any.
    #[cfg(test)]
    pub(super) fn lines_of(&self, id: u32) -> usize {
        match Place::of(self.head(id).place) {
            Place::Lines(stretch) => stretch.count(),
            Place::Nowhere | Place::Table => 0,
        }
    }
}
