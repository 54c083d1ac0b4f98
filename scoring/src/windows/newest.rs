//! The newest event of each key and value.
//!
//! The values of a key are in its row, each with the newest event that has it; where these are too many for that, in
//! [lines](super::lines) of its own; and where they are very many, in a table of all such keys. None is taken out when
//! no frame has its events any more: another takes its place. Which of these it is is not in the row but in a [`Head`]:
//! four of them are one cache line, and of a key whose values are elsewhere nobody needs that of its row.

use hashbrown::DefaultHashBuilder;

use super::accumulate::key;
use super::chunked::{AHEAD, Chunked};
use super::lines::{Held, Lines, REACH, Run, Since};
use super::table::{Entry, Table, hash_of_pair, tag};
use crate::prefetch::prefetch;

/// Words in the row of a key, a cache line of them: of each value, `value | one more than the newest event with it, as a
/// distance from the base << 32`. A distance of 0 is no value.
pub(crate) const WORDS: usize = 8;
/// With no more values than this, they go back to the row.
const BACK_TO_ROW: usize = 5;

/// Of a key: what distances of events are counted from, and where its values are. All zeroes before its first event.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Head {
    base: u64,
    place: u64,
}

/// Where the values of a key are.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    Row,
    /// In lines of its own.
    Lines(Run),
    /// In the table of all keys, until no frame has an event of the key. The base is one more than its newest event then.
    Table,
}

impl Place {
    #[inline(always)]
    pub(super) const fn of(word: u64) -> Self {
        match word {
            0 => Self::Row,
            u64::MAX => Self::Table,
            run => Self::Lines(Run::of(run)),
        }
    }

    const fn word(self) -> u64 {
        match self {
            Self::Row => 0,
            Self::Table => u64::MAX,
            Self::Lines(run) => run.word(),
        }
    }
}

/// The newest event of each key and value, as far as it is not in rows of keys.
#[derive(Debug)]
pub(super) struct Newest {
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

    /// Makes sure that keys below `keys` have a head.
    pub(super) fn make_room(&mut self, keys: usize) {
        self.heads.grow(keys);
    }

    /// Asks for the memory of what says where the values of a key are, if that is far. A hint: changes nothing.
    #[inline(always)]
    pub(super) fn approach_heads(&self, ids: impl Iterator<Item = u32>) {
        if self.heads.is_far() {
            ids.for_each(|id| self.heads.approach(id as usize, 0));
        }
    }

    /// Asks for the memory of what [`Self::enter`] will look up: in the row of the key, `near`, or elsewhere. A hint:
    /// changes nothing.
    #[inline(always)]
    pub(super) fn approach(&self, near: &u64, id: u32, value: u32) {
        match self.place(id) {
            Place::Row => prefetch(near),
            Place::Lines(run) => self.lines.approach(run, value),
            Place::Table => self.table.approach(hash_of_pair(&self.hasher, id, value)),
        }
    }

    /// Where the values of a key are.
    #[inline(always)]
    pub(super) fn place(&self, id: u32) -> Place {
        Place::of(self.head(id).place)
    }

    #[inline(always)]
    fn head(&self, id: u32) -> Head {
        self.heads.part(id as usize, 0, 1)[0]
    }

    #[inline(always)]
    fn head_mut(&mut self, id: u32) -> &mut Head {
        &mut self.heads.part_mut(id as usize, 0, 1)[0]
    }

    /// Makes the event before `after` the newest of its key with a value, and returns one more than the newest before
    /// it, or 0. `near` is in the row of the key.
    #[inline(always)]
    pub(super) fn enter(
        &mut self,
        near: &mut [u64; WORDS],
        id: u32,
        (value, after): Held,
        oldest: u64,
    ) -> u64 {
        let Head { base, place } = self.head(id);
        let since = Since { base, oldest };
        let entered = match Place::of(place) {
            _ if after - base > REACH => None,
            Place::Row => since.enter(near, false, (value, after)),
            Place::Lines(run) => self.lines.enter(run, since, (value, after)),
            Place::Table => None,
        };
        entered.unwrap_or_else(|| self.enter_other(near, id, (value, after), oldest))
    }

    /// As [`Self::enter`], for a value that is not where one looks first.
    #[inline(never)]
    fn enter_other(&mut self, near: &mut [u64; WORDS], id: u32, (value, after): Held, oldest: u64) -> u64 {
        let Head { base, place } = self.head(id);
        let since = Since { base, oldest };
        match Place::of(place) {
            Place::Lines(run) if after - base <= REACH => {
                let entered = self.lines.enter_further(run, since, (value, after));
                entered.unwrap_or_else(|| self.enter_elsewhere(near, id, (value, after), oldest))
            }
            Place::Table if base > oldest => {
                self.head_mut(id).base = after;
                self.enter_table((id, value), after, oldest)
            }
            _ => self.enter_elsewhere(near, id, (value, after), oldest),
        }
    }

    /// As [`Self::enter`], for a value that there is no place for where those of its key are.
    #[cold]
    #[inline(never)]
    fn enter_elsewhere(
        &mut self,
        near: &mut [u64; WORDS],
        id: u32,
        (value, after): Held,
        oldest: u64,
    ) -> u64 {
        self.lay_out(near, id, after, oldest);
        self.enter(near, id, (value, after), oldest)
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
    fn lay_out(&mut self, near: &mut [u64; WORDS], id: u32, after: u64, oldest: u64) {
        let Head { base, place } = self.head(id);
        let since = Since { base, oldest };
        let mut held = std::mem::take(&mut self.moving);
        held.clear();
        match Place::of(place) {
            Place::Row => held.extend(since.held(near)),
            Place::Lines(run) => self.lines.give_back(run, since, &mut held),
            // It comes here when none of them is needed.
            Place::Table => {}
        }
        let since = Since { base: oldest.max(after.saturating_sub(REACH)), oldest };
        let within_reach = held.iter().all(|&(_, after)| after > since.base);
        *near = [0; WORDS];
        let (base, place) = if within_reach && held.len() <= BACK_TO_ROW {
            held.iter().for_each(|&held| _ = since.put(near, held));
            (since.base, Place::Row)
        } else if within_reach && let Some(run) = self.lines.take(since, &held) {
            (since.base, Place::Lines(run))
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
    pub(super) fn look_after(
        &mut self,
        near: &mut [u64; WORDS],
        id: u32,
        turn: u64,
        (after, oldest): (u64, u64),
    ) {
        let Head { base, place } = self.head(id);
        if let Place::Lines(run) = Place::of(place)
            && self.lines.are_many(run, Since { base, oldest }, key(turn.cast_signed()))
        {
            self.lay_out(near, id, after, oldest);
        }
    }

    /// How many lines are or were somebody's, and places in the table.
    #[cfg(test)]
    pub(super) fn room(&self) -> (usize, usize) {
        (self.lines.used(), self.table.places())
    }
}
