//! Takes an accumulator through a batch: one loop for all kinds, made anew for each by the compiler.

use super::accumulate::{Accumulate, History, Item, key};
use super::chunked::{AHEAD, Chunked, Span};
use super::read::Read;

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

/// One thing that happens in a frame: an event enters, leaves or passes by, and then a row is read or not.
///
/// In 32 bits, since each accumulator goes through all of them: from the top, the sign in two, the read in one, the
/// frame in four, and which of the events at hand it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step(u32);

impl Step {
    const EVENT_BITS: u32 = 25;
    const FRAME_BITS: u32 = 4;
    const READ_AT: u32 = Self::EVENT_BITS + Self::FRAME_BITS;
    const SIGN_AT: u32 = Self::READ_AT + 1;

    /// What happens with the event at `event` in all frames at hand: it enters (`sign` 1), leaves (-1) or passes by
    /// (0).
    #[inline(always)]
    pub(super) fn new(event: usize, sign: i32, read: bool) -> Self {
        let event = u32::try_from(event).expect("a step is short");
        debug_assert!(event < 1 << Self::EVENT_BITS, "a step is short");
        Self(sign.cast_unsigned() << Self::SIGN_AT | u32::from(read) << Self::READ_AT | event)
    }

    /// The event at `event` leaves a frame, which may be one of several.
    pub(super) fn leaving(event: usize, frame: usize) -> Self {
        let frame = u32::try_from(frame + 1).expect("there are few frames");
        debug_assert!(frame < 1 << Self::FRAME_BITS, "there are few frames");
        Self(Self::new(event, -1, false).0 | frame << Self::EVENT_BITS)
    }

    /// The same with an event so many further on.
    #[inline(always)]
    pub(super) const fn after(self, events: u32) -> Self {
        Self(self.0 + events)
    }

    /// Which of the events at hand.
    #[inline(always)]
    pub(super) const fn event(self) -> usize {
        (self.0 & ((1 << Self::EVENT_BITS) - 1)) as usize
    }

    /// 0 for an event in all frames at hand, or one more than the frame that it leaves.
    #[inline(always)]
    pub(super) const fn frames(self) -> usize {
        (self.0 >> Self::EVENT_BITS & ((1 << Self::FRAME_BITS) - 1)) as usize
    }

    /// The frame that the event leaves.
    #[inline(always)]
    pub(super) const fn frame(self) -> Option<usize> {
        self.frames().checked_sub(1)
    }

    /// 1 where a row is read after it, 0 where none is.
    #[inline(always)]
    pub(super) const fn reads(self) -> usize {
        (self.0 >> Self::READ_AT & 1) as usize
    }

    /// The sign if the event has all condition bits of `mask`, 0 if it does not count.
    #[inline(always)]
    pub(super) fn counted(self, conditions: i64, mask: u64) -> i64 {
        let sign = i64::from(self.0.cast_signed() >> Self::SIGN_AT);
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
    /// Their numbers; anything where none are asked for.
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
    /// How many rows are read.
    pub(super) rows: usize,
    /// What they will touch of a key's row, mostly, by [`Step::frames`]; none where it is near.
    pub(super) spans: &'a [Span],
}

/// Some steps of a [`Walk`], in a row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) steps: &'a [Step],
    /// The steps whose memory can be asked for before these.
    to_come: &'a [Step],
}

impl<'a> Walk<'a> {
    /// All of it, so that memory can be asked for in between.
    #[inline(always)]
    pub(super) fn parts(self) -> impl Iterator<Item = Part<'a>> {
        let all = self.steps.len();
        (0..all).step_by(PART).map(move |done| {
            let from = if done == 0 { 0 } else { all.min(done + AHEAD) };
            let steps = &self.steps[done..all.min(done + PART)];
            Part { steps, to_come: &self.steps[from..all.min(done + AHEAD + PART)] }
        })
    }

    /// Asks for the rows of what is to come. A hint: changes nothing.
    ///
    /// Not inlined: the loops around it need the processor's registers for themselves.
    #[inline(never)]
    pub(super) fn approach(self, state: &Chunked<u64>, keys: &[i64], part: &Part<'_>) {
        if !self.spans.is_empty() {
            let row = |step: &Step| (key(keys[step.event()]) as usize, step.frames());
            state.ask(self.spans, part.to_come.iter().map(row));
        }
    }
}

/// Room for what is read of `rows` rows, of `words` words each, and of one row more: what happens after the last is
/// written there. What is in it is to be written over.
pub(super) fn room_for(rows: usize, words: usize, out: &mut Vec<u64>) -> &mut [u64] {
    let room = (rows + 1) * words;
    if out.len() < room {
        out.resize(room, 0);
    }
    &mut out[..room]
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

/// Runs an accumulator over what happens in its frame, and returns what it reads of each row: it is in `out`.
pub(super) fn drive<'a, A: Accumulate>(
    accumulator: &mut A,
    state: &mut Chunked<u64>,
    place: Place,
    course: Course<'_>,
    walk: Walk<'_>,
    out: &'a mut Vec<u64>,
) -> Read<'a> {
    let out = room_for(walk.rows, A::READ, out);
    let course = course.even();
    let mut row = 0;
    for part in walk.parts() {
        walk.approach(state, course.keys, &part);
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
            let words = state.part_mut(item.key as usize, place.at, A::WORDS);
            accumulator.apply(words, step.counted(conditions, place.mask), item);
            accumulator.read(words, &mut out[row * A::READ..(row + 1) * A::READ]);
            row += step.reads();
        }
    }
    Read::of(out, walk.rows, A::READ)
}

/// As [`drive`] over steps of which none reads a row.
pub(super) fn drive_through<A: Accumulate>(
    accumulator: &mut A,
    state: &mut Chunked<u64>,
    place: Place,
    course: Course<'_>,
    walk: Walk<'_>,
) {
    drive(accumulator, state, place, course, walk, &mut Vec::new());
}

/// As [`drive`], where no event counts: only reads.
pub(super) fn read_only<'a, A: Accumulate>(
    accumulator: &A,
    state: &Chunked<u64>,
    place: Place,
    keys: &[i64],
    out: &'a mut Vec<u64>,
) -> Read<'a> {
    let out = room_for(keys.len(), A::READ, out);
    for (&id, out) in keys.iter().zip(out.chunks_exact_mut(A::READ)) {
        accumulator.read(&state.row(key(id) as usize)[place.at..place.at + A::WORDS], out);
    }
    Read::of(out, keys.len(), A::READ)
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
