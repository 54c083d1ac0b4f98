//! Which events pass a tail before which row, and what is asked of them.

use std::sync::Arc;

use super::labels::relabel;
use super::layout::Tail;
use super::reservoir::{CONDITIONS, TIME};
use super::runs::BLOCK;
use super::segment::Cursor;
use super::state::WindowState;
use crate::error::ScoreError;
use crate::probe::{Probe, Stage};

/// Events that one tail passes at a time, which bounds memory after a long silence.
pub(super) const STEP_EVENTS: usize = 16_384;
/// Times that a tail looks at together.
const TIMES_AHEAD: u64 = 1_024;

/// Events on their way past a tail in a step.
#[derive(Debug, Default)]
pub(super) struct Passing {
    pub(super) first_seq: u64,
    pub(super) events: usize,
    /// Per block of rows: how many of them pass before its last row.
    pub(super) ends: Vec<usize>,
    /// Per row, and for the end of the step: how many of them pass before it, where somebody asks for that.
    pub(super) cuts: Vec<usize>,
    /// By column of the reservoir, of those that the tail reads and of times: where it is, with what is known of those that
    /// pass and of some after them.
    columns: Vec<Cursor>,
}

impl Passing {
    pub(super) fn new(columns: usize) -> Self {
        Self { columns: (0..columns).map(|_| Cursor::default()).collect(), ..Self::default() }
    }

    /// A column that the tail reads, or times.
    pub(super) fn column(&self, column: usize) -> &[i64] {
        &self.columns[column].values()[..self.events]
    }

    /// The first event that the tail has not looked at.
    pub(super) fn ahead(&self) -> u64 {
        self.columns[TIME].ahead()
    }

    /// How many events have entered before each row, with how many others have left when they do: between two rows,
    /// they enter first.
    pub(super) fn cuts_after(&self, leaving: &Self) -> impl Iterator<Item = (usize, usize)> {
        self.cuts.iter().copied().zip(std::iter::once(0).chain(leaving.cuts.iter().copied()))
    }

    /// Counts those that pass before the last row of each block. Returns for how many rows it could say so within
    /// [`STEP_EVENTS`].
    fn place_blocks(&mut self, tail: &Tail, rows_us: &[i64]) -> usize {
        self.ends.clear();
        let (mut passed, times_us) = (0, self.columns[TIME].values());
        for rows_us in rows_us.chunks(BLOCK) {
            passed = advance::<8>(times_us, passed, tail.edge(rows_us[rows_us.len() - 1]));
            if passed > STEP_EVENTS {
                break;
            }
            self.ends.push(passed);
        }
        rows_us.len().min(self.ends.len() * BLOCK)
    }

    /// Counts those that pass before each row.
    fn place_rows(&mut self, tail: &Tail, rows_us: &[i64]) {
        let Self { events, cuts, columns, .. } = self;
        cuts.clear();
        cuts.resize(rows_us.len(), 0);
        if *events > 0 {
            let edges: Vec<i64> = rows_us.iter().map(|&row_us| tail.edge(row_us)).collect();
            place_all(&columns[TIME].values()[..*events], &edges, cuts);
        }
        cuts.push(*events);
    }
}

impl WindowState {
    /// Counts, per tail, the events that pass before rows, at least the first. Returns for how many rows all tails could
    /// say so within [`STEP_EVENTS`].
    pub(super) fn cut(&mut self, rows_us: &[i64]) -> Result<usize, ScoreError> {
        match self.cut_blocks(rows_us)? {
            // Too many for a block may be few enough for a row.
            0 => self.cut_blocks(&rows_us[..1]),
            ready => Ok(ready),
        }
    }

    /// As [`Self::cut`], for whole blocks: maybe for no row.
    fn cut_blocks(&mut self, rows_us: &[i64]) -> Result<usize, ScoreError> {
        let layout = Arc::clone(&self.layout);
        let mut ready = rows_us.len();
        for (tail, spec) in layout.tails.iter().enumerate() {
            let Some(&last_us) = rows_us[..ready].last() else { break };
            self.look_ahead(tail, spec.edge(last_us))?;
            ready = self.passing[tail].place_blocks(spec, &rows_us[..ready]);
        }
        Ok(ready)
    }

    /// Looks at the times of what passes a tail next, until there is one that is not before `edge_us`, or more than
    /// [`STEP_EVENTS`], or no event.
    fn look_ahead(&mut self, tail: usize, edge_us: i64) -> Result<(), ScoreError> {
        let Self { passing, reservoir, tails, .. } = self;
        let Passing { first_seq, events, columns, .. } = &mut passing[tail];
        (*first_seq, *events) = (tails[tail], 0);
        let times = &mut columns[TIME];
        times.go_to(*first_seq);
        while times.values().len() <= STEP_EVENTS
            && times.values().last().is_none_or(|&time_us| time_us < edge_us)
            && times.ahead() < reservoir.next_seq()
        {
            reservoir.read_on(TIME, reservoir.next_seq().min(times.ahead() + TIMES_AHEAD), times)?;
        }
        Ok(())
    }

    /// Lets the events pass that were counted for these rows.
    pub(super) fn pass(&mut self, rows_us: &[i64]) -> Result<(), ScoreError> {
        let layout = Arc::clone(&self.layout);
        for (tail, spec) in layout.tails.iter().enumerate() {
            let passing = &mut self.passing[tail];
            passing.ends.truncate(rows_us.len().div_ceil(BLOCK));
            let events = *passing.ends.last().unwrap_or(&0);
            self.fetch(tail, spec, events, rows_us)?;
        }
        Ok(())
    }

    /// Takes a part of the events that pass before a row at `row_us`: those that enter first, all of
    /// them, since an event must enter before it leaves.
    pub(super) fn catch_up(&mut self, row_us: i64, probe: &mut dyn Probe) -> Result<(), ScoreError> {
        let layout = Arc::clone(&self.layout);
        let mut entering_is_done = true;
        for (tail, spec) in layout.tails.iter().enumerate() {
            self.look_ahead(tail, spec.edge(row_us))?;
            let passing = &mut self.passing[tail];
            passing.ends.clear();
            let mut events = 0;
            if spec.enters || entering_is_done {
                events = advance::<8>(passing.columns[TIME].values(), 0, spec.edge(row_us));
                entering_is_done &= !spec.enters || events <= STEP_EVENTS;
            }
            self.fetch(tail, spec, events.min(STEP_EVENTS), &[])?;
        }
        let no_rows = vec![&[][..]; layout.columns];
        probe.ended(Stage::Tails);
        self.run(&no_rows, self.reservoir.next_seq(), &mut [], probe);
        probe.ended(Stage::Windows);
        Ok(())
    }

    /// Brings the next `events` of a tail together.
    fn fetch(&mut self, tail: usize, spec: &Tail, events: usize, rows_us: &[i64]) -> Result<(), ScoreError> {
        let passing = &mut self.passing[tail];
        passing.events = events;
        if spec.by_row {
            passing.place_rows(spec, rows_us);
        }
        let range = passing.first_seq..passing.first_seq + events as u64;
        for &column in &spec.columns {
            let cursor = &mut passing.columns[column];
            cursor.go_to(range.start);
            self.reservoir.read_on(column, range.end, cursor)?;
        }
        if spec.columns.contains(&CONDITIONS) {
            let conditions = &mut passing.columns[CONDITIONS].values_mut()[..events];
            relabel(&self.plan, &self.labels, range.clone(), conditions);
        }
        self.tails[tail] = range.end;
        Ok(())
    }
}

/// How many of `times`, which rise, are before an edge, where the first `passed` are: looked at some together, mostly
/// more than pass between two edges, so that how many do is no branch.
#[inline(always)]
pub(super) fn advance<const TOGETHER: usize>(times: &[i64], mut passed: usize, edge: i64) -> usize {
    while let Some(next) = times.get(passed..passed + TOGETHER) {
        let more = next.iter().map(|&time| usize::from(time < edge)).sum::<usize>();
        passed += more;
        if more < TOGETHER {
            return passed;
        }
    }
    passed + times[passed..].partition_point(|&time| time < edge)
}

/// For each of `edges`, which rise: how many of `times` are before it.
///
/// Several parts of the edges are placed at a time, since each edge of one waits for the one before it.
fn place_all(times: &[i64], edges: &[i64], out: &mut [usize]) {
    const PARTS: usize = 4;
    let place = |passed: &mut usize, edge: i64, out: &mut usize| {
        *passed = advance::<4>(times, *passed, edge);
        *out = *passed;
    };
    let in_part = edges.len() / PARTS;
    let mut passed: [usize; PARTS] = std::array::from_fn(|part| {
        let first = edges.get(part * in_part);
        first.map_or(0, |&edge| times.partition_point(|&time| time < edge))
    });
    let (parts, rest) = out.split_at_mut(in_part * PARTS);
    if in_part > 0 {
        let mut parts = parts.chunks_exact_mut(in_part);
        let parts: [&mut [usize]; PARTS] = std::array::from_fn(|_| parts.next().expect("there are so many"));
        let edges: [&[i64]; PARTS] = std::array::from_fn(|part| &edges[part * in_part..][..in_part]);
        for at in 0..in_part {
            for part in 0..PARTS {
                place(&mut passed[part], edges[part][at], &mut parts[part][at]);
            }
        }
    }
    for (edge, out) in edges[in_part * PARTS..].iter().zip(rest) {
        place(&mut passed[PARTS - 1], *edge, out);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn rows_are_placed_after_what_passes_before_them(
            (mut times, mut rows) in (1..50_i64).prop_flat_map(|most| {
                (prop::collection::vec(0..most, 0..200), prop::collection::vec(0..most, 1..200))
            }),
            enters: bool,
            bound_us in 0..9_i64,
        ) {
            times.sort_unstable();
            rows.sort_unstable();
            let tail = Tail { bound_us, enters, columns: BTreeSet::new(), by_row: true, releases: Vec::new() };
            let passes = |time: i64, row: i64| time + bound_us < row || enters && time + bound_us == row;
            let expected: Vec<usize> =
                rows.iter().map(|&row| times.iter().filter(|&&time| passes(time, row)).count()).collect();
            let mut passing = Passing::new(1);
            passing.columns[TIME].extend(&times);
            prop_assert_eq!(passing.place_blocks(&tail, &rows), rows.len());
            let last_of_blocks = rows.chunks(BLOCK).enumerate().map(|(block, rows)| block * BLOCK + rows.len() - 1);
            prop_assert_eq!(&passing.ends, &last_of_blocks.map(|row| expected[row]).collect::<Vec<_>>());
            passing.events = expected[rows.len() - 1];
            passing.place_rows(&tail, &rows);
            prop_assert_eq!(passing.cuts.pop(), Some(passing.events));
            prop_assert_eq!(&passing.cuts, &expected);
        }
    }
}
