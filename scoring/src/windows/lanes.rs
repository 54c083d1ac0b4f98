//! Counts and sums of integers over one key, side by side: most of what features ask for.
//!
//! Each is what [`Count`] and [`IntSum`] say; together they find the row of a key once per event, and not
//! once each. Those of several frames that end together are entered at once.

use std::hint::select_unpredictable;

use super::accumulate::{Accumulate as _, Count, IntSum, key, times};
use super::chunked::Chunked;
use super::drive::{Course, Feed, Walk, holds, room_for};
use super::read::Read;
use super::runs::{Act, LEAVES, READS, Step};

/// A sum.
#[derive(Debug)]
pub(super) struct Summed<'a> {
    /// Condition bits that events must have to count.
    pub(super) mask: u64,
    /// The events with what is summed.
    pub(super) course: Course<'a>,
}

/// Counts and sums of some frames. Their words are side by side in the row of a key: of each frame, the shortest first,
/// those of counts and then those of sums.
#[derive(Debug)]
pub(super) struct Lanes<'a> {
    /// Where the words begin.
    pub(super) at: usize,
    pub(super) frames: usize,
    /// Of each count: condition bits that events must have.
    pub(super) counts: Vec<u64>,
    pub(super) sums: Vec<Summed<'a>>,
}

/// Events, or rows, with what is asked of them.
#[derive(Debug, Clone, Copy)]
struct Events<'a, const COUNTS: usize, const SUMS: usize> {
    keys: &'a [i64],
    conditions: &'a [i64],
    counts: [u64; COUNTS],
    sums: [(u64, &'a [i64]); SUMS],
}

/// What an event adds to each count, and to how many each sum is of and to it.
type Added<const COUNTS: usize, const SUMS: usize> = ([i64; COUNTS], [(i64, i128); SUMS]);

impl<const COUNTS: usize, const SUMS: usize> Events<'_, COUNTS, SUMS> {
    /// The number of each key, with what its event adds as it enters (`SIGN` 1) or leaves (-1). Of `ALL` it is known that
    /// they count.
    #[inline(always)]
    fn added<const SIGN: i64, const ALL: bool>(self) -> impl Iterator<Item = (usize, Added<COUNTS, SUMS>)> {
        let events = self.keys.len();
        let sums = self.sums.map(|(mask, values)| (mask, &values[..events]));
        self.keys.iter().zip(self.conditions).enumerate().map(move |(event, (&id, &conditions))| {
            let sign = |mask: u64| if ALL || holds(conditions, mask) { SIGN } else { 0 };
            let summed = sums.map(|(mask, values)| (sign(mask), times(values[event], sign(mask))));
            (key(id) as usize, (self.counts.map(sign), summed))
        })
    }
}

impl Lanes<'_> {
    /// Words of one frame.
    const fn width(counts: usize, sums: usize) -> usize {
        counts * Count::WORDS + sums * IntSum::WORDS
    }

    /// Words that are read of one frame.
    const fn read(counts: usize, sums: usize) -> usize {
        counts * Count::READ + sums * IntSum::READ
    }

    /// Where each of them is in what [`Self::run`] reads of a row: of each frame, those of counts and then those of sums.
    pub(super) fn places(&self) -> impl Iterator<Item = usize> {
        let (counts, sums) = (self.counts.len(), self.sums.len());
        let of_frame = move |at: usize| {
            let of_counts = (at..).step_by(Count::READ).take(counts);
            of_counts.chain((at + counts * Count::READ..).step_by(IntSum::READ).take(sums))
        };
        (0..self.frames).flat_map(move |frame| of_frame(frame * Self::read(counts, sums)))
    }

    /// Takes them through what happens in their frames, and returns what is read at each row: it is in `out`.
    pub(super) fn run<'a>(
        &self,
        state: &mut Chunked<u64>,
        course: &Course<'_>,
        walk: Walk<'_>,
        out: &'a mut Vec<u64>,
    ) -> Read<'a> {
        let stride = Self::read(self.counts.len(), self.sums.len()) * self.frames;
        let out = room_for(walk.rows, stride, out);
        let all = self.counts.iter().chain(self.sums.iter().map(|sum| &sum.mask)).all(|&mask| mask == 0);
        macro_rules! widths {
            ($(($counts:literal, $sums:literal)),*) => {
                match (self.counts.len(), self.sums.len()) {
                    $(($counts, $sums) => if all {
                        self.side_by_side::<true, $counts, $sums>(state, course, walk, out);
                    } else {
                        self.side_by_side::<false, $counts, $sums>(state, course, walk, out);
                    })*
                    _ => unreachable!("groups are of at most three of each kind"),
                }
            };
        }
        widths!(
            (0, 1),
            (0, 2),
            (0, 3),
            (1, 0),
            (1, 1),
            (1, 2),
            (1, 3),
            (2, 0),
            (2, 1),
            (2, 2),
            (2, 3),
            (3, 0),
            (3, 1),
            (3, 2),
            (3, 3)
        );
        Read::of(out, walk.rows, stride)
    }

    fn side_by_side<const ALL: bool, const COUNTS: usize, const SUMS: usize>(
        &self,
        state: &mut Chunked<u64>,
        course: &Course<'_>,
        walk: Walk<'_>,
        out: &mut [u64],
    ) {
        let (width, stride) = (Self::width(COUNTS, SUMS), Self::read(COUNTS, SUMS) * self.frames);
        let counts: [u64; COUNTS] = self.counts.as_slice().try_into().expect("just so many");
        let sums: &[Summed<'_>; SUMS] = self.sums.as_slice().try_into().expect("just so many");
        let whole = (self.at, self.frames * width);
        for (run, to_come) in walk.parts() {
            walk.approach(state, course, to_come);
            let range = run.from..run.to;
            let Some(act) = run.act else {
                self.one_by_one::<ALL, COUNTS, SUMS>(state, course, &walk.order.steps[range], out);
                continue;
            };
            let feed = course.all(act).part(range.clone());
            let sums = sums.each_ref().map(|sum| (sum.mask, &sum.course.all(act).values[range.clone()]));
            let events = Events { keys: feed.keys, conditions: feed.conditions, counts, sums };
            match act {
                Act::Enter => pass::<1, ALL, COUNTS, SUMS>(state, whole, events),
                Act::Leave(frame) => {
                    pass::<-1, ALL, COUNTS, SUMS>(state, (self.at + frame * width, width), events);
                }
                Act::Read => {
                    let out = &mut out[run.from * stride..run.to * stride];
                    match (course.rows_enter, self.frames) {
                        (true, 1) => read::<true, false, ALL, COUNTS, SUMS>(state, whole, events, out),
                        (true, _) => read::<true, true, ALL, COUNTS, SUMS>(state, whole, events, out),
                        (false, _) => read::<false, true, ALL, COUNTS, SUMS>(state, whole, events, out),
                    }
                }
            }
        }
    }

    /// Takes events and rows one by one. Of one frame there is no branch on what they do, which nobody could guess.
    #[inline(never)]
    fn one_by_one<const ALL: bool, const COUNTS: usize, const SUMS: usize>(
        &self,
        state: &mut Chunked<u64>,
        course: &Course<'_>,
        steps: &[Step],
        out: &mut [u64],
    ) {
        let (width, stride) = (Self::width(COUNTS, SUMS), Self::read(COUNTS, SUMS) * self.frames);
        let counts: [u64; COUNTS] = self.counts.as_slice().try_into().expect("just so many");
        let sums: &[Summed<'_>; SUMS] = self.sums.as_slice().try_into().expect("just so many");
        let of_none = out.len() / stride - 1;
        for &step in steps {
            let (Feed { keys, conditions, .. }, event) = (course.of(step), step.event());
            let conditions = conditions[event];
            let sign =
                |mask: u64| course.sign(step) & i64::from(ALL || holds(conditions, mask)).wrapping_neg();
            let summed = sums.each_ref().map(|sum| {
                let sign = sign(sum.mask);
                (sign, times(sum.course.of(step).values[event], sign))
            });
            let (key, added) = (key(keys[event]) as usize, (counts.map(sign), summed));
            if self.frames > 1 && step.act() >= LEAVES {
                apply(state.part_mut(key, self.at + (step.act() - LEAVES) * width, width), &added);
            } else {
                let row = select_unpredictable(step.act() == READS, event, of_none);
                let own = state.part_mut(key, self.at, self.frames * width);
                apply_and_read(own, &added, &mut out[row * stride..][..stride]);
            }
        }
    }
}

/// Lets events enter (`SIGN` 1) or leave (-1) frames whose words these are in the row of a key: where, and how many.
#[inline(never)]
fn pass<const SIGN: i64, const ALL: bool, const COUNTS: usize, const SUMS: usize>(
    state: &mut Chunked<u64>,
    (at, words): (usize, usize),
    events: Events<'_, COUNTS, SUMS>,
) {
    let width = Lanes::width(COUNTS, SUMS);
    for (key, added) in events.added::<SIGN, ALL>() {
        if SIGN < 0 {
            apply(state.part_mut(key, at, width), &added);
        } else {
            state.part_mut(key, at, words).chunks_exact_mut(width).for_each(|own| _ = apply(own, &added));
        }
    }
}

/// Reads frames whose words these are, of one or of `SEVERAL`, at rows, each after it has entered if they do.
#[inline(never)]
fn read<const ENTER: bool, const SEVERAL: bool, const ALL: bool, const COUNTS: usize, const SUMS: usize>(
    state: &mut Chunked<u64>,
    (at, words): (usize, usize),
    rows: Events<'_, COUNTS, SUMS>,
    out: &mut [u64],
) {
    let (width, read) = (Lanes::width(COUNTS, SUMS), Lanes::read(COUNTS, SUMS));
    let words = if SEVERAL { words } else { width };
    let stride = words / width * read;
    for ((key, added), out) in rows.added::<1, ALL>().zip(out.chunks_exact_mut(stride)) {
        let added = if ENTER { added } else { ([0; COUNTS], [(0, 0); SUMS]) };
        apply_and_read(state.part_mut(key, at, words), &added, out);
    }
}

/// Adds to the counts and sums of frames, whose words these are, and writes what is read of them.
#[inline(always)]
fn apply_and_read<const COUNTS: usize, const SUMS: usize>(
    words: &mut [u64],
    added: &Added<COUNTS, SUMS>,
    out: &mut [u64],
) {
    let (width, read) = (Lanes::width(COUNTS, SUMS), Lanes::read(COUNTS, SUMS));
    for (own, out) in words.chunks_exact_mut(width).zip(out.chunks_exact_mut(read)) {
        // Not read back from the row: a processor cannot forward what several stores wrote to one load.
        let (counts, sums) = apply(own, added);
        out[..COUNTS].copy_from_slice(&counts);
        out[COUNTS..].copy_from_slice(sums.as_flattened());
    }
}

/// Adds to the counts and sums of a frame, and returns what is read of them.
#[inline(always)]
fn apply<const COUNTS: usize, const SUMS: usize>(
    words: &mut [u64],
    (counted, summed): &Added<COUNTS, SUMS>,
) -> ([u64; COUNTS], [[u64; IntSum::READ]; SUMS]) {
    let (counts, sums) = words.split_at_mut(COUNTS);
    let counts = std::array::from_fn(|lane| {
        counts[lane] = counts[lane].wrapping_add_signed(counted[lane]);
        counts[lane]
    });
    let sums = std::array::from_fn(|lane| {
        let (sign, amount) = summed[lane];
        IntSum::add(&mut sums[lane * IntSum::WORDS..][..IntSum::WORDS], sign, amount)
    });
    (counts, sums)
}
