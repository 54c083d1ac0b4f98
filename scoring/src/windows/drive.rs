//! Takes an accumulator through a batch: one loop for all kinds, made anew for each by the compiler.

use std::ops::Range;

use super::accumulate::{Accumulate, History, Item, key};
use super::chunked::{AHEAD, Chunked, Span};
use super::read::Read;
use super::runs::{Act, Run};

/// Rows in order, with what one accumulator needs of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Feed<'a> {
    pub(super) first_seq: u64,
    pub(super) keys: &'a [i64],
    pub(super) conditions: &'a [i64],
    /// The argument; anything where none is needed.
    pub(super) values: &'a [i64],
}

impl<'a> Feed<'a> {
    /// No rows.
    pub(super) const NONE: Self = Self { first_seq: 0, keys: &[], conditions: &[], values: &[] };

    /// Some of them.
    #[inline]
    pub(super) fn part(&self, rows: Range<usize>) -> Self {
        Self {
            first_seq: self.first_seq + rows.start as u64,
            keys: &self.keys[rows.clone()],
            conditions: &self.conditions[rows.clone()],
            values: &self.values[rows],
        }
    }

    /// Each as an accumulator sees it, and whether it counts for it.
    #[inline(always)]
    fn items(self, place: Place) -> impl Iterator<Item = (Item, bool)> {
        let columns = self.keys.iter().zip(self.conditions).zip(self.values);
        columns.zip(self.first_seq..).map(move |(((&id, &conditions), &value), seq)| {
            let valid = holds(conditions, place.valid_mask);
            (Item { seq, key: key(id), value, valid }, holds(conditions, place.mask))
        })
    }
}

/// Which events count for an accumulator, and where its words are in the row of a key.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) at: usize,
    pub(super) words: usize,
    /// Condition bits that must all be set.
    pub(super) mask: u64,
    /// Condition bits that say that the argument is not null.
    pub(super) valid_mask: u64,
}

impl Place {
    /// An event with these conditions as the accumulator sees it, if it counts.
    #[inline(always)]
    pub(super) fn item(self, conditions: i64, seq: u64, key: u32, value: i64) -> Option<Item> {
        let valid = holds(conditions, self.valid_mask);
        holds(conditions, self.mask).then_some(Item { seq, key, value, valid })
    }

    /// Its words in the row of a key.
    #[inline(always)]
    pub(super) fn of_mut(self, row: &mut [u64]) -> &mut [u64] {
        &mut row[self.at..][..self.words]
    }
}

/// Whether an event with these conditions has all bits of a mask.
#[inline(always)]
pub(super) const fn holds(conditions: i64, mask: u64) -> bool {
    conditions.cast_unsigned() & mask == mask
}

/// The events and rows of a step as an accumulator sees them.
#[derive(Debug, Clone)]
pub(super) struct Course<'a> {
    /// Those that leave, by frame.
    pub(super) leaving: Vec<Feed<'a>>,
    /// Those that enter; `None` where rows do.
    pub(super) entering: Option<Feed<'a>>,
    pub(super) rows: Feed<'a>,
}

impl<'a> Course<'a> {
    /// The events or rows of a run.
    #[inline]
    pub(super) fn of(&self, run: Run) -> Feed<'a> {
        self.all(run.act).part(run.from..run.to)
    }

    /// The keys of a run.
    #[inline]
    pub(super) fn keys(&self, run: Run) -> &'a [i64] {
        &self.all(run.act).keys[run.from..run.to]
    }

    /// The arguments of a run.
    #[inline]
    pub(super) fn values(&self, run: Run) -> &'a [i64] {
        &self.all(run.act).values[run.from..run.to]
    }

    #[inline]
    fn all(&self, act: Act) -> &Feed<'a> {
        match act {
            Act::Enter => self.entering.as_ref().expect("they are some"),
            Act::Leave(frame) => &self.leaving[frame],
            Act::Read => &self.rows,
        }
    }
}

/// What happens in frames that end together, in order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Walk<'a> {
    pub(super) runs: &'a [Run],
    /// How many rows are read.
    pub(super) rows: usize,
    /// What they will touch of a key's row, mostly: where events enter and rows are read, and then where events leave each
    /// frame. None where it is near.
    pub(super) spans: &'a [Span],
}

impl<'a> Walk<'a> {
    /// All of it, run by run, each with those whose memory can be asked for before it.
    #[inline(always)]
    pub(super) fn parts(self) -> impl Iterator<Item = (Run, &'a [Run])> {
        // How many runs were asked for, and events in them that are yet to come.
        let (mut asked, mut to_come) = (0, 0);
        self.runs.iter().map(move |&run| {
            let from = asked;
            while asked < self.runs.len() && to_come < run.len() + AHEAD {
                to_come += self.runs[asked].len();
                asked += 1;
            }
            to_come -= run.len();
            (run, &self.runs[from..asked])
        })
    }

    /// Asks for the rows of what is to come. A hint: changes nothing.
    ///
    /// Not inlined: the loops around it need the processor's registers for themselves.
    #[inline(never)]
    pub(super) fn approach(self, state: &Chunked<u64>, course: &Course<'_>, to_come: &[Run]) {
        if self.spans.is_empty() {
            return;
        }
        for &run in to_come {
            let span = match run.act {
                Act::Enter | Act::Read => 0,
                Act::Leave(frame) => frame + 1,
            };
            state.ask(self.spans[span], course.keys(run).iter().map(|&id| key(id) as usize));
        }
    }
}

/// Room for what is read of `rows` rows, of `words` words each. What is in it is to be written over.
pub(super) fn room_for(rows: usize, words: usize, out: &mut Vec<u64>) -> &mut [u64] {
    let room = rows * words;
    if out.len() < room {
        out.resize(room, 0);
    }
    &mut out[..room]
}

/// Runs an accumulator over what happens in its frame, and returns what it reads of each row: it is in `out`.
pub(super) fn drive<'a, A: Accumulate>(
    accumulator: &mut A,
    state: &mut Chunked<u64>,
    place: Place,
    course: &Course<'_>,
    walk: Walk<'_>,
    out: &'a mut Vec<u64>,
) -> Read<'a> {
    let out = room_for(walk.rows, A::READ, out);
    let rows_enter = course.entering.is_none();
    for (run, to_come) in walk.parts() {
        walk.approach(state, course, to_come);
        accumulator.approach(course, to_come);
        let feed = course.of(run);
        match run.act {
            Act::Enter => pass::<A, 1>(accumulator, state, place, feed),
            Act::Leave(_) => pass::<A, -1>(accumulator, state, place, feed),
            Act::Read => {
                let out = &mut out[run.from * A::READ..run.to * A::READ];
                if rows_enter {
                    read::<A, true>(accumulator, state, place, feed, out);
                } else {
                    read::<A, false>(accumulator, state, place, feed, out);
                }
            }
        }
    }
    Read::of(out, walk.rows, A::READ)
}

/// Lets events enter (`SIGN` 1) or leave (-1).
#[inline(never)]
fn pass<A: Accumulate, const SIGN: i64>(
    accumulator: &mut A,
    state: &mut Chunked<u64>,
    place: Place,
    feed: Feed<'_>,
) {
    for (item, counts) in feed.items(place) {
        let words = state.part_mut(item.key as usize, place.at, A::WORDS);
        accumulator.apply(words, if counts { SIGN } else { 0 }, item);
    }
}

/// Reads rows, each after it has entered if they do.
#[inline(never)]
fn read<A: Accumulate, const ENTER: bool>(
    accumulator: &mut A,
    state: &mut Chunked<u64>,
    place: Place,
    rows: Feed<'_>,
    out: &mut [u64],
) {
    for ((item, counts), out) in rows.items(place).zip(out.chunks_exact_mut(A::READ)) {
        let words = state.part_mut(item.key as usize, place.at, A::WORDS);
        if ENTER {
            accumulator.apply(words, i64::from(counts), item);
        }
        accumulator.read(words, out);
    }
}

/// As [`drive`], where no event counts: only reads.
pub(super) fn read_only<'a, A: Accumulate>(
    accumulator: &mut A,
    state: &mut Chunked<u64>,
    place: Place,
    rows: Feed<'_>,
    out: &'a mut Vec<u64>,
) -> Read<'a> {
    let count = rows.keys.len();
    let out = room_for(count, A::READ, out);
    read::<A, false>(accumulator, state, place, rows, out);
    Read::of(out, count, A::READ)
}

/// As [`drive`], for an accumulator of a key's whole history: each row's event is added, and nothing leaves.
pub(super) fn drive_history<'a, H: History>(
    history: &mut H,
    state: &mut Chunked<u64>,
    place: Place,
    rows: Feed<'_>,
    out: &'a mut Vec<u64>,
) -> Read<'a> {
    let count = rows.keys.len();
    let (words, shown) = (history.words(place.words), history.words_shown(place.words));
    let out = room_for(count, shown, out);
    for (row, out) in out.chunks_exact_mut(shown).take(count).enumerate() {
        let id = key(rows.keys[row]);
        let own = state.part_mut(id as usize, place.at, words);
        let item = place.item(rows.conditions[row], rows.first_seq + row as u64, id, rows.values[row]);
        history.live(own, item, out);
    }
    Read::of(out, count, shown)
}
