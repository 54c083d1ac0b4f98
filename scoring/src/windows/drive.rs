//! Takes an accumulator through a batch: one loop for all kinds, made anew for each by the compiler.

use super::accumulate::{Accumulate, History, Item, key};
use super::chunked::{APPROACH, Chunked};

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
        let conditions = self.conditions[at].cast_unsigned();
        (conditions & place.mask == place.mask).then(|| Item {
            seq: self.first_seq + at as u64,
            key: key(self.keys[at]),
            value: self.values[at],
            valid: conditions & place.valid_mask == place.valid_mask,
        })
    }
}

/// What happens in a frame to an accumulator, in order: events enter and leave, and rows are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Course<'a> {
    /// 1 for an event that enters, -1 for one that leaves, 0 for one that does not count.
    pub(super) moves: &'a [i64],
    /// 1 where a row is read after the event, 0 where none is.
    pub(super) reads: &'a [usize],
    pub(super) seqs: &'a [i64],
    pub(super) keys: &'a [i64],
    /// Condition bits; anything where none are asked for beside the mask.
    pub(super) conditions: &'a [i64],
    /// The argument; anything where none is needed.
    pub(super) values: &'a [i64],
}

/// The signs of the events that have all condition bits of a mask, 0 for the others.
pub(super) fn counting(signs: &[i64], conditions: &[i64], mask: u64) -> impl Iterator<Item = i64> {
    let counts = move |bits: i64| i64::from(bits.cast_unsigned() & mask == mask).wrapping_neg();
    signs.iter().zip(conditions).map(move |(sign, &bits)| sign & counts(bits))
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
    // One row more: what happens after the last is written there.
    out.clear();
    out.resize((rows + 1) * A::READ, 0);
    let Course { moves, reads, seqs, keys, conditions, values } = course;
    // Lets the compiler see that all are equally long.
    let steps = keys.len();
    let (moves, reads, seqs) = (&moves[..steps], &reads[..steps], &seqs[..steps]);
    let (conditions, values) = (&conditions[..steps], &values[..steps]);
    let mut row = 0;
    for at in 0..steps {
        if at % APPROACH == 0 {
            let to_come = at..steps.min(at + APPROACH);
            state.approach(place.at, keys[to_come.clone()].iter().map(|&id| key(id) as usize));
            accumulator.approach(&keys[to_come.clone()], &values[to_come]);
        }
        let item = Item {
            seq: seqs[at].cast_unsigned(),
            key: key(keys[at]),
            value: values[at],
            valid: conditions[at].cast_unsigned() & place.valid_mask == place.valid_mask,
        };
        let words = &mut state.row_mut(item.key as usize)[place.at..place.at + A::WORDS];
        accumulator.apply(words, moves[at], item);
        accumulator.read(words, &mut out[row * A::READ..(row + 1) * A::READ]);
        row += reads[at];
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
    out.clear();
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
