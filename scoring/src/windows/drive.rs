//! Takes an accumulator through a batch: one loop for all kinds, made anew for each by the compiler.

use std::hint::select_unpredictable;
use std::ops::Range;

use super::accumulate::{Accumulate, History, Item, key};
use super::chunked::{AHEAD, Chunked, Span};
use super::read::Read;
use super::runs::{Act, LEAVES, Order, READS, Run, Step};

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
    /// By [`Act::number`].
    feeds: Vec<Feed<'a>>,
    /// Whether rows enter.
    pub(super) rows_enter: bool,
}

impl<'a> Course<'a> {
    /// Where no events enter, rows do.
    pub(super) fn new(
        rows: Feed<'a>,
        entering: Option<Feed<'a>>,
        leaving: impl Iterator<Item = Feed<'a>>,
    ) -> Self {
        let feeds = [rows, entering.unwrap_or(Feed::NONE)].into_iter().chain(leaving).collect();
        Self { feeds, rows_enter: entering.is_none() }
    }

    /// All that do this.
    #[inline]
    pub(super) fn all(&self, act: Act) -> &Feed<'a> {
        &self.feeds[act.number()]
    }

    /// The one of which a step is.
    #[inline(always)]
    pub(super) fn of(&self, step: Step) -> &Feed<'a> {
        &self.feeds[step.act()]
    }

    /// Calls a function with the key and the argument of each event and row of a run.
    #[inline]
    pub(super) fn each_pair(&self, order: &Order, run: Run, mut call: impl FnMut(i64, i64)) {
        let range = run.from..run.to;
        match run.act {
            Some(act) => {
                let feed = self.all(act).part(range);
                feed.keys.iter().zip(feed.values).for_each(|(&id, &value)| call(id, value));
            }
            None => order.steps[range].iter().for_each(|&step| {
                let feed = self.of(step);
                call(feed.keys[step.event()], feed.values[step.event()]);
            }),
        }
    }

    /// 1 for an event that enters, -1 for one that leaves, and for a row 1 where rows enter and 0 where they do not.
    #[inline(always)]
    pub(super) fn sign(&self, step: Step) -> i64 {
        let of_others = select_unpredictable(step.act() < LEAVES, 1, -1);
        select_unpredictable(step.act() == READS, i64::from(self.rows_enter), of_others)
    }
}

/// What happens in frames that end together, in order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Walk<'a> {
    pub(super) order: &'a Order,
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
        let runs = self.order.runs.as_slice();
        runs.iter().map(move |&run| {
            let from = asked;
            while asked < runs.len() && to_come < run.len() + AHEAD {
                to_come += runs[asked].len();
                asked += 1;
            }
            to_come -= run.len();
            (run, &runs[from..asked])
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
        let span = |act: usize| self.spans[(act + 1).saturating_sub(LEAVES)];
        let ask = |act: usize, keys: &[i64]| state.ask(span(act), keys.iter().map(|&id| key(id) as usize));
        for run in to_come {
            match run.act {
                Some(act) => ask(act.number(), &course.all(act).keys[run.from..run.to]),
                None => self.order.steps[run.from..run.to].iter().for_each(|&step| {
                    ask(step.act(), &course.of(step).keys[step.event()..=step.event()]);
                }),
            }
        }
    }
}

/// Room for what is read of `rows` rows, of `words` words each, and of one more, for what is no row's. What is in it is to
/// be written over.
pub(super) fn room_for(rows: usize, words: usize, out: &mut Vec<u64>) -> &mut [u64] {
    let room = (rows + 1) * words;
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
    for (run, to_come) in walk.parts() {
        walk.approach(state, course, to_come);
        accumulator.approach(course, walk.order, to_come);
        let range = run.from..run.to;
        let Some(act) = run.act else {
            one_by_one(accumulator, state, place, course, &walk.order.steps[range], out);
            continue;
        };
        let feed = course.all(act).part(range);
        match act {
            Act::Enter => pass::<A, 1>(accumulator, state, place, feed),
            Act::Leave(_) => pass::<A, -1>(accumulator, state, place, feed),
            Act::Read => {
                let out = &mut out[run.from * A::READ..run.to * A::READ];
                if course.rows_enter {
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

/// Takes events and rows one by one, without a branch on what they do, which nobody could guess.
#[inline(never)]
fn one_by_one<A: Accumulate>(
    accumulator: &mut A,
    state: &mut Chunked<u64>,
    place: Place,
    course: &Course<'_>,
    steps: &[Step],
    out: &mut [u64],
) {
    let of_none = out.len() / A::READ - 1;
    for &step in steps {
        let (Feed { first_seq, keys, conditions, values }, event) = (course.of(step), step.event());
        let item = Item {
            seq: first_seq + event as u64,
            key: key(keys[event]),
            value: values[event],
            valid: holds(conditions[event], place.valid_mask),
        };
        let counts = i64::from(holds(conditions[event], place.mask));
        let words = state.part_mut(item.key as usize, place.at, A::WORDS);
        accumulator.apply(words, course.sign(step) & counts.wrapping_neg(), item);
        let row = select_unpredictable(step.act() == READS, event, of_none);
        accumulator.read(words, &mut out[row * A::READ..][..A::READ]);
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
    read::<A, false>(accumulator, state, place, rows, &mut out[..count * A::READ]);
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
