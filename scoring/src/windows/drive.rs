//! Takes an accumulator through a batch: one loop for all kinds, made anew for each by the compiler.

use super::accumulate::{Accumulate, History, Item, key};
use super::chunked::{AHEAD, Chunked};
use crate::prefetch::prefetch_at;

/// Rows in order, with what one accumulator needs of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Feed<'a> {
    pub(super) first_seq: u64,
    pub(super) keys: &'a [i64],
    pub(super) conditions: &'a [i64],
    /// The argument; anything where none is needed.
    pub(super) values: &'a [i64],
}

/// Steps between which memory is asked for: for more at a time than a processor can wait for makes no sense.
const PART: usize = 32;

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

impl Feed<'_> {
    /// The event at `at` as the accumulator at `place` sees it, if it counts.
    #[inline(always)]
    fn item(&self, at: usize, place: Place) -> Option<Item> {
        let conditions = self.conditions[at];
        holds(conditions, place.mask).then(|| Item {
            seq: self.first_seq + at as u64,
            key: key(self.keys[at]),
            value: self.values[at],
            valid: holds(conditions, place.valid_mask),
        })
    }
}

/// One thing that happens in a frame: an event enters, leaves or passes by, and then a row is read or not.
///
/// In 32 bits, since each accumulator goes through all of them: from the top, the sign in two, the read in
/// one, and which of the events at hand it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step(u32);

impl Step {
    const EVENT_BITS: u32 = 29;

    /// What happens with the event at `event`: it enters (`sign` 1), leaves (-1) or passes by (0).
    #[inline(always)]
    pub(super) fn new(event: usize, sign: i32, read: bool) -> Self {
        let event = u32::try_from(event).expect("a step is short");
        Self(sign.cast_unsigned() << (Self::EVENT_BITS + 1) | u32::from(read) << Self::EVENT_BITS | event)
    }

    /// The same where a row is read; elsewhere the event that leaves is this one. Without a branch.
    #[inline(always)]
    pub(super) fn or_leaving(self, event: usize) -> Self {
        #[allow(clippy::cast_possible_truncation)] // as `new` saw for the last of them
        let event = event as u32;
        Self(self.0 | event & (self.0 >> Self::EVENT_BITS & 1).wrapping_sub(1))
    }

    /// Which of the events at hand.
    #[inline(always)]
    pub(super) const fn event(self) -> usize {
        (self.0 & ((1 << Self::EVENT_BITS) - 1)) as usize
    }

    /// 1 where a row is read after it, 0 where none is.
    #[inline(always)]
    pub(super) const fn reads(self) -> usize {
        (self.0 >> Self::EVENT_BITS & 1) as usize
    }

    /// The sign if the event has all condition bits of `mask`, 0 if it does not count.
    #[inline(always)]
    pub(super) fn counted(self, conditions: i64, mask: u64) -> i64 {
        let sign = i64::from(self.0.cast_signed() >> (Self::EVENT_BITS + 1));
        sign & i64::from(holds(conditions, mask)).wrapping_neg()
    }
}

/// Whether an event with these conditions has all bits of a mask.
#[inline(always)]
pub(super) const fn holds(conditions: i64, mask: u64) -> bool {
    conditions.cast_unsigned() & mask == mask
}

/// The columns of the events at hand in a frame.
#[derive(Debug, Clone, Copy)]
pub(super) struct Course<'a> {
    pub(super) seqs: &'a [i64],
    pub(super) keys: &'a [i64],
    /// Condition bits; anything where none are asked for.
    pub(super) conditions: &'a [i64],
    /// The argument; anything where none is needed.
    pub(super) values: &'a [i64],
}

/// What happens in a frame, in order.
#[derive(Debug, Clone, Copy)]
pub(super) struct Walk<'a> {
    pub(super) steps: &'a [Step],
    /// Addresses of what the steps will touch, in their order and as many for each; none where it is near.
    pub(super) lines: &'a [usize],
}

/// Some steps of a [`Walk`], in a row.
struct Part<'a> {
    steps: &'a [Step],
    /// The steps whose memory can be asked for before these, and the addresses of it.
    to_come: &'a [Step],
    lines: &'a [usize],
}

impl<'a> Walk<'a> {
    /// All of it, so that memory can be asked for in between.
    #[inline(always)]
    fn parts(self) -> impl Iterator<Item = Part<'a>> {
        let Self { steps, lines } = self;
        let all = steps.len();
        let of_step = lines.len() / all.max(1);
        (0..all).step_by(PART).map(move |done| {
            let from = if done == 0 { 0 } else { all.min(done + AHEAD) };
            let to = all.min(done + AHEAD + PART);
            Part {
                steps: &steps[done..all.min(done + PART)],
                to_come: &steps[from..to],
                lines: &lines[from * of_step..to * of_step],
            }
        })
    }

    /// The same, with what is asked for in between.
    #[inline(always)]
    pub(super) fn approaching(self) -> impl Iterator<Item = &'a [Step]> {
        self.parts().map(|part| {
            approach(part.lines);
            part.steps
        })
    }
}

/// Words for what is read of `rows` rows, and one row more: what happens after the last is written there.
pub(super) fn room_for(rows: usize, words: usize, out: &mut Vec<u64>) {
    out.resize((rows + 1) * words, 0);
}

impl Course<'_> {
    /// The same, so that the compiler sees that all columns are equally long.
    #[inline(always)]
    pub(super) fn even(self) -> Self {
        let events = self.keys.len();
        Self {
            seqs: &self.seqs[..events],
            conditions: &self.conditions[..events],
            values: &self.values[..events],
            ..self
        }
    }
}

/// Asks for the memory at some addresses. A hint: changes nothing.
///
/// Not inlined: the loops around it need the processor's registers for themselves.
#[inline(never)]
fn approach(lines: &[usize]) {
    lines.iter().for_each(|&line| prefetch_at(line));
}

/// Runs an accumulator over what happens in its frame; `out`, with [`room_for`] all rows, gets what it reads of each.
pub(super) fn drive<A: Accumulate>(
    accumulator: &mut A,
    state: &mut Chunked<u64>,
    place: Place,
    course: Course<'_>,
    walk: Walk<'_>,
    out: &mut [u64],
) {
    let course = course.even();
    let mut row = 0;
    for part in walk.parts() {
        approach(part.lines);
        accumulator.approach(&course, part.to_come);
        for step in part.steps {
            let event = step.event();
            let conditions = course.conditions[event];
            let item = Item {
                seq: course.seqs[event].cast_unsigned(),
                key: key(course.keys[event]),
                value: course.values[event],
                valid: holds(conditions, place.valid_mask),
            };
            let words = &mut state.row_mut(item.key as usize)[place.at..place.at + A::WORDS];
            accumulator.apply(words, step.counted(conditions, place.mask), item);
            accumulator.read(words, &mut out[row * A::READ..(row + 1) * A::READ]);
            row += step.reads();
        }
    }
}

/// As [`drive`] over steps of which none reads a row.
pub(super) fn drive_through<A: Accumulate>(
    accumulator: &mut A,
    state: &mut Chunked<u64>,
    place: Place,
    course: Course<'_>,
    walk: Walk<'_>,
) {
    drive(accumulator, state, place, course, walk, &mut vec![0; A::READ]);
}

/// As [`drive`], where no event counts: only reads.
pub(super) fn read_only<A: Accumulate>(
    accumulator: &A,
    state: &Chunked<u64>,
    place: Place,
    keys: &[i64],
    out: &mut Vec<u64>,
) {
    out.resize(keys.len() * A::READ, 0);
    for (&id, out) in keys.iter().zip(out.chunks_exact_mut(A::READ)) {
        accumulator.read(&state.row(key(id) as usize)[place.at..place.at + A::WORDS], out);
    }
}

/// As [`drive`], for an accumulator of a key's whole history: nothing leaves, but a key in `expired`,
/// (row, key) pairs in order, is forgotten before that row.
pub(super) fn drive_history<H: History>(
    history: &mut H,
    state: &mut Chunked<u64>,
    place: Place,
    (rows, expired): (&Feed<'_>, &[(usize, u32)]),
    out: &mut Vec<u64>,
) {
    let words = place.at..place.at + place.words;
    let mut expired = expired.iter().peekable();
    let shown = history.words_shown(place.words);
    out.resize(rows.keys.len() * shown, 0);
    for (row, out) in out.chunks_exact_mut(shown).enumerate() {
        while let Some(&(_, gone)) = expired.next_if(|&&(before, _)| before <= row) {
            state.row_mut(gone as usize)[words.clone()].fill(0);
        }
        let own = &mut state.row_mut(key(rows.keys[row]) as usize)[words.clone()];
        if let Some(item) = rows.item(row, place) {
            history.add(own, item);
        }
        history.show(own, out);
    }
    for &(_, gone) in expired {
        state.row_mut(gone as usize)[words.clone()].fill(0);
    }
}
