//! Counts and sums of integers over one key, side by side: most of what features ask for.
//!
//! Each is what [`Count`] and [`IntSum`] say; together they find the row of a key once per event, and not
//! once each. Those of several frames that end together are entered at once.

use super::accumulate::{Accumulate as _, Count, IntSum, key, times};
use super::chunked::Chunked;
use super::drive::{Course, Walk, holds, room_for};
use super::read::Read;

/// A sum.
#[derive(Debug, Clone, Copy)]
pub(super) struct Summed<'a> {
    /// Condition bits that events must have to count.
    pub(super) mask: u64,
    /// What is summed.
    pub(super) values: &'a [i64],
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

impl Lanes<'_> {
    /// Words that are read of one frame.
    fn read(&self) -> usize {
        self.counts.len() * Count::READ + self.sums.len() * IntSum::READ
    }

    /// Where each of them is in what [`Self::run`] reads of a row: of each frame, those of counts and then those of sums.
    pub(super) fn places(&self) -> impl Iterator<Item = usize> {
        let sums = self.counts.len() * Count::READ;
        let of_frame = move |at: usize| {
            let counts = (at..).step_by(Count::READ).take(self.counts.len());
            counts.chain((at + sums..).step_by(IntSum::READ).take(self.sums.len()))
        };
        (0..self.frames).flat_map(move |frame| of_frame(frame * self.read()))
    }

    /// Takes them through what happens in their frames, and returns what is read at each row: it is in `out`.
    pub(super) fn run<'a>(
        &self,
        state: &mut Chunked<u64>,
        course: Course<'_>,
        walk: Walk<'_>,
        out: &'a mut Vec<u64>,
    ) -> Read<'a> {
        let stride = self.read() * self.frames;
        let out = room_for(walk.rows, stride, out);
        macro_rules! widths {
            ($(($counts:literal, $sums:literal)),*) => {
                match (self.counts.len(), self.sums.len()) {
                    $(($counts, $sums) => if self.frames > 1 {
                        self.side_by_side::<$counts, $sums, true>(state, course, walk, out);
                    } else {
                        self.side_by_side::<$counts, $sums, false>(state, course, walk, out);
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

    fn side_by_side<const COUNTS: usize, const SUMS: usize, const SEVERAL: bool>(
        &self,
        state: &mut Chunked<u64>,
        course: Course<'_>,
        walk: Walk<'_>,
        out: &mut [u64],
    ) {
        let course = course.even();
        let events = course.keys.len();
        let width = COUNTS * Count::WORDS + SUMS * IntSum::WORDS;
        let read = COUNTS * Count::READ + SUMS * IntSum::READ;
        let frames = if SEVERAL { self.frames } else { 1 };
        let counts: [u64; COUNTS] = self.counts.as_slice().try_into().expect("just so many");
        let sums: [Summed<'_>; SUMS] = self.sums.as_slice().try_into().expect("just so many");
        let sums = sums.map(|sum| Summed { values: &sum.values[..events], ..sum });
        let mut row = 0;
        for part in walk.parts() {
            walk.approach(state, course.keys, &part);
            for step in part.steps {
                let event = step.event();
                let conditions = course.conditions[event];
                let key = key(course.keys[event]) as usize;
                if SEVERAL && let Some(frame) = step.frame() {
                    let counted = counts.map(|mask| -i64::from(holds(conditions, mask)));
                    let summed = sums.map(|sum| {
                        let sign = -i64::from(holds(conditions, sum.mask));
                        (sign, -i128::from(sum.values[event] & sign))
                    });
                    apply(state.part_mut(key, self.at + frame * width, width), counted, summed);
                    continue;
                }
                let counted = counts.map(|mask| step.counted(conditions, mask));
                let summed = sums.map(|sum| {
                    let sign = step.counted(conditions, sum.mask);
                    (sign, times(sum.values[event], sign))
                });
                let out = &mut out[row * frames * read..][..frames * read];
                let own = state.part_mut(key, self.at, frames * width);
                for (own, out) in own.chunks_exact_mut(width).zip(out.chunks_exact_mut(read)) {
                    let (counts, sums) = apply(own, counted, summed);
                    // Not read back from the row: a processor cannot forward what several stores wrote to one load.
                    out[..COUNTS].copy_from_slice(&counts);
                    out[COUNTS..].copy_from_slice(sums.as_flattened());
                }
                row += step.reads();
            }
        }
    }
}

/// Adds to the counts and sums of a frame, and returns what is read of them.
#[inline(always)]
fn apply<const COUNTS: usize, const SUMS: usize>(
    words: &mut [u64],
    counted: [i64; COUNTS],
    summed: [(i64, i128); SUMS],
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
