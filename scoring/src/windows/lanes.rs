//! Counts and sums of integers over one key and frame, side by side: most of what features ask for.
//!
//! Each is what [`Count`] and [`IntSum`] say; together they find the row of a key once per event, and not
//! once each.

use super::accumulate::{Accumulate as _, Count, IntSum, int_sum, key, plus, times};
use super::chunked::Chunked;
use super::drive::{Course, Walk};

/// Lanes of each kind in a loop: their parts stay in registers.
pub(super) const SIDE_BY_SIDE: usize = 3;

/// One count or sum.
#[derive(Debug)]
pub(super) struct Lane<'a> {
    /// Where its words are in the row of a key.
    pub(super) at: usize,
    /// Condition bits that events must have to count.
    pub(super) mask: u64,
    /// What is summed; anything for a count.
    pub(super) values: &'a [i64],
    /// What is read of each row, with [`room_for`](super::drive::room_for) all of them.
    pub(super) out: Vec<u64>,
}

/// Runs up to [`SIDE_BY_SIDE`] counts and as many sums over what happens in their frame.
pub(super) fn run(
    counts: &mut [Lane<'_>],
    sums: &mut [Lane<'_>],
    state: &mut Chunked<u64>,
    course: Course<'_>,
    walk: Walk<'_>,
) {
    macro_rules! widths {
        ($(($counts:literal, $sums:literal)),*) => {
            match (counts.len(), sums.len()) {
                $(($counts, $sums) => {
                    let counts: &mut [Lane<'_>; $counts] = counts.try_into().expect("just so many");
                    let sums: &mut [Lane<'_>; $sums] = sums.try_into().expect("just so many");
                    side_by_side(counts, sums, state, course, walk);
                })*
                _ => unreachable!("the layout makes groups of at most three of each kind"),
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
}

fn side_by_side<const COUNTS: usize, const SUMS: usize>(
    counts: &mut [Lane<'_>; COUNTS],
    sums: &mut [Lane<'_>; SUMS],
    state: &mut Chunked<u64>,
    course: Course<'_>,
    walk: Walk<'_>,
) {
    let course = course.even();
    let events = course.keys.len();
    // Lanes of this function's own: nothing else can write to them, so they stay in registers.
    let mut counts = counts.each_mut().map(|lane| lane.run::<{ Count::READ }>(events));
    let mut sums = sums.each_mut().map(|lane| lane.run::<{ IntSum::READ }>(events));
    let mut row = 0;
    for steps in walk.approaching() {
        for step in steps {
            let event = step.event();
            let words = state.row_mut(key(course.keys[event]) as usize);
            let conditions = course.conditions[event];
            for lane in &mut counts {
                let own = &mut words[lane.at..lane.at + Count::WORDS];
                own[0] = own[0].wrapping_add_signed(step.counted(conditions, lane.mask));
                lane.out[row] = [own[0]];
            }
            for lane in &mut sums {
                let own = &mut words[lane.at..lane.at + IntSum::WORDS];
                let sign = step.counted(conditions, lane.mask);
                let n = own[0].wrapping_add_signed(sign);
                let (low, high) = plus(int_sum(&own[1..]), times(lane.values[event], sign));
                // Not read back from the row: a processor cannot forward what several stores wrote to one load.
                (own[0], own[1], own[2]) = (n, low, high);
                lane.out[row] = [n, low, high];
            }
            row += step.reads();
        }
    }
}

/// A lane as the loop has it, with rows of `READ` words.
struct Running<'a, const READ: usize> {
    at: usize,
    mask: u64,
    values: &'a [i64],
    out: &'a mut [[u64; READ]],
}

impl Lane<'_> {
    fn run<const READ: usize>(&mut self, events: usize) -> Running<'_, READ> {
        Running {
            at: self.at,
            mask: self.mask,
            values: &self.values[..events],
            out: self.out.as_chunks_mut().0,
        }
    }
}
