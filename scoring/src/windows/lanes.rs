//! Counts and sums of integers over one key and frame, side by side: most of what features ask for.
//!
//! Each is what [`Count`] and [`IntSum`] say; together they find the row of a key once per event, and not
//! once each.

use super::accumulate::{Accumulate as _, Count, IntSum, Item, key};
use super::chunked::{APPROACH, Chunked};
use super::drive::{Course, Place};

/// Lanes of each kind in a loop: their parts stay in registers.
pub(super) const SIDE_BY_SIDE: usize = 3;

/// One count or sum.
#[derive(Debug)]
pub(super) struct Lane<'a> {
    pub(super) place: Place,
    /// Condition bits of the events, or anything where none is asked for.
    pub(super) conditions: &'a [i64],
    /// What is summed; anything for a count.
    pub(super) values: &'a [i64],
    /// What is read of each row.
    pub(super) out: Vec<u64>,
}

/// Runs up to [`SIDE_BY_SIDE`] counts and as many sums over what happens in their frame.
pub(super) fn run(
    counts: &mut [Lane<'_>],
    sums: &mut [Lane<'_>],
    state: &mut Chunked<u64>,
    course: Course<'_>,
    rows: usize,
) {
    macro_rules! widths {
        ($(($counts:literal, $sums:literal)),*) => {
            match (counts.len(), sums.len()) {
                $(($counts, $sums) => {
                    let counts: &mut [Lane<'_>; $counts] = counts.try_into().expect("just so many");
                    let sums: &mut [Lane<'_>; $sums] = sums.try_into().expect("just so many");
                    side_by_side(counts, sums, state, course, rows);
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
    rows: usize,
) {
    let Course { signs, reads, order, keys, .. } = course;
    let (steps, events) = (order.len(), keys.len());
    let (signs, reads) = (&signs[..steps], &reads[..steps]);
    // One row more: what happens after the last is written there.
    for lane in counts.iter_mut() {
        lane.out.resize((rows + 1) * Count::READ, 0);
        lane.conditions = &lane.conditions[..events];
    }
    for lane in sums.iter_mut() {
        lane.out.resize((rows + 1) * IntSum::READ, 0);
        lane.conditions = &lane.conditions[..events];
        lane.values = &lane.values[..events];
    }
    let nearest = counts.first().or(sums.first()).map_or(0, |lane| lane.place.at);
    let mut row = 0;
    for at in 0..steps {
        if at % APPROACH == 0 {
            let to_come = order[at..steps.min(at + APPROACH)].iter();
            state.approach(nearest, to_come.map(|&event| key(keys[event as usize]) as usize));
        }
        let event = order[at] as usize;
        let sign = signs[at];
        let id = key(keys[event]);
        let words = state.row_mut(id as usize);
        let item = |value| Item { seq: 0, key: id, value, valid: true };
        for lane in counts.iter_mut() {
            let own = &mut words[lane.place.at..lane.place.at + Count::WORDS];
            Count.apply(own, lane.sign(event, sign), item(0));
            Count.read(own, &mut lane.out[row * Count::READ..(row + 1) * Count::READ]);
        }
        for lane in sums.iter_mut() {
            let own = &mut words[lane.place.at..lane.place.at + IntSum::WORDS];
            IntSum.apply(own, lane.sign(event, sign), item(lane.values[event]));
            IntSum.read(own, &mut lane.out[row * IntSum::READ..(row + 1) * IntSum::READ]);
        }
        row += reads[at];
    }
    for lane in counts {
        lane.out.truncate(rows * Count::READ);
    }
    for lane in sums {
        lane.out.truncate(rows * IntSum::READ);
    }
}

impl Lane<'_> {
    /// What an event does here, if it does something to the frame.
    #[inline(always)]
    fn sign(&self, event: usize, sign: i64) -> i64 {
        let bits = self.conditions[event].cast_unsigned();
        sign & i64::from(bits & self.place.mask == self.place.mask).wrapping_neg()
    }
}
