//! Takes an accumulator through a batch: one loop for all kinds, made anew for each by the compiler.

use super::accumulate::{Accumulate, History, Item, key};
use super::chunked::{APPROACH, Chunked, ahead};

/// Events in order, with what one accumulator needs of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Feed<'a> {
    pub(super) first_seq: u64,
    pub(super) keys: &'a [i64],
    pub(super) conditions: &'a [i64],
    /// The argument; anything where none is needed.
    pub(super) values: &'a [i64],
    /// Per row: how many events come before it is read.
    pub(super) cuts: &'a [usize],
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

/// What happens in a frame, in order, and the columns of the events at hand, which need not be in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Course<'a> {
    pub(super) steps: &'a [Step],
    pub(super) seqs: &'a [i64],
    pub(super) keys: &'a [i64],
    /// Condition bits; anything where none are asked for.
    pub(super) conditions: &'a [i64],
    /// The argument; anything where none is needed.
    pub(super) values: &'a [i64],
    /// From which word of a key's row on, and up to which, to ask for its memory ahead.
    pub(super) ahead: (usize, usize),
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

    /// Key and argument of the events that are [`ahead`].
    #[inline(always)]
    pub(super) fn coming(&self, done: usize) -> impl Iterator<Item = (u32, i64)> {
        self.steps[ahead(done, self.steps.len())]
            .iter()
            .map(|step| (key(self.keys[step.event()]), self.values[step.event()]))
    }

    /// Asks for the rows of keys of the events that are [`ahead`].
    ///
    /// Not inlined: the loops around it need the processor's registers for themselves.
    #[inline(never)]
    pub(super) fn approach(&self, state: &Chunked<u64>, done: usize) {
        let (from, to) = self.ahead;
        if from < to {
            state.approach(from..to, self.coming(done).map(|(id, _)| id as usize));
        }
    }
}

/// Runs an accumulator over what happens in its frame; `out` is what it reads of each of `rows` rows.
pub(super) fn drive<A: Accumulate>(
    accumulator: &mut A,
    state: &mut Chunked<u64>,
    place: Place,
    course: Course<'_>,
    rows: usize,
    out: &mut Vec<u64>,
) {
    // One row more: what happens after the last is written there. The others are written over.
    out.resize((rows + 1) * A::READ, 0);
    let course = course.even();
    let mut row = 0;
    for (part, steps) in course.steps.chunks(APPROACH).enumerate() {
        course.approach(state, part * APPROACH);
        accumulator.approach(&course, part * APPROACH);
        for step in steps {
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
    out.truncate(rows * A::READ);
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
    (enter, expired): (&Feed<'_>, &[(usize, u32)]),
    rows: &[i64],
    out: &mut Vec<u64>,
) {
    let words = place.at..place.at + place.words;
    let mut expired = expired.iter().peekable();
    let mut entered = 0;
    for (row, &id) in rows.iter().enumerate() {
        while let Some(&(_, gone)) = expired.next_if(|&&(before, _)| before <= row) {
            state.row_mut(gone as usize)[words.clone()].fill(0);
        }
        while entered < enter.cuts[row] {
            if let Some(item) = enter.item(entered, place) {
                history.add(&mut state.row_mut(item.key as usize)[words.clone()], item);
            }
            entered += 1;
        }
        history.show(&state.row(key(id) as usize)[words.clone()], out);
    }
    for &(_, gone) in expired {
        state.row_mut(gone as usize)[words.clone()].fill(0);
    }
}
