//! The events of a step and its rows, in the order in which they happen in a frame.

use super::drive::{Course, Step};
use super::layout::{CourseSpec, Layout, Placed};
use super::repeats::Repeats;
use super::reservoir::{CONDITIONS, KEYS, TIME};
use super::segment::Cursor;

/// Events on their way past a tail.
#[derive(Debug, Default)]
pub(super) struct Passing {
    pub(super) first_seq: u64,
    pub(super) events: usize,
    /// Per row of the step, and for its end: how many of them come before it.
    pub(super) cuts: Vec<usize>,
    /// The reservoir's columns that the tail reads; the others are empty.
    pub(super) columns: Vec<Vec<i64>>,
    /// How far the tail has come in each of them, and in times.
    pub(super) cursors: Vec<Cursor>,
    pub(super) times: Cursor,
}

/// What happens in frames that end together, in order, and the events at hand: those that leave, one frame after
/// the other, then those that enter, then the rows.
#[derive(Debug, Default)]
pub(super) struct Happening {
    steps: Vec<Step>,
    /// In a delayed frame in which something asks for it: how many events have left when each of those that enter does.
    left: Vec<usize>,
    /// The numbers of the events at hand, where something asks for them.
    seqs: Vec<i64>,
    /// The reservoir's columns of the events at hand, of those that an accumulator reads for which some event
    /// counts.
    columns: Vec<Vec<i64>>,
    /// Condition bits that some event at hand has.
    bits: u64,
}

/// Steps written at once, and so room behind the last: mostly more than there are before a row, so that how many there
/// are is no branch.
const ROOM: usize = 4;

/// Events on their way into frames or out of one, before rows.
#[derive(Debug)]
struct Source<'a> {
    cuts: &'a [usize],
    passed: usize,
    next: Step,
}

impl Source<'_> {
    /// Puts those that come before a row at a place in `steps`, which has room behind; returns the place after them.
    #[inline(always)]
    fn put(&mut self, row: usize, steps: &mut [Step], mut at: usize) -> usize {
        let mut left = self.cuts[row] - self.passed;
        self.passed = self.cuts[row];
        loop {
            steps[at..at + ROOM].copy_from_slice(&[0, 1, 2, 3].map(|further| self.next.after(further)));
            let put = left.min(ROOM);
            #[allow(clippy::cast_possible_truncation)] // at most four
            {
                self.next = self.next.after(put as u32);
            }
            at += put;
            left -= put;
            if left == 0 {
                return at;
            }
        }
    }
}

impl Passing {
    pub(super) fn new(columns: usize) -> Self {
        let cursors = (0..columns).map(|_| Cursor::default()).collect();
        Self { columns: vec![Vec::new(); columns], cursors, ..Self::default() }
    }

    /// How many events have entered before each row, with how many others have left when they do: between two rows,
    /// they enter first.
    fn after_leaving(&self, leaving: &Self) -> impl Iterator<Item = (usize, usize)> {
        self.cuts.iter().copied().zip(std::iter::once(0).chain(leaving.cuts.iter().copied()))
    }

    /// The events, of which the first does this.
    fn source(&self, next: Step) -> Source<'_> {
        Source { cuts: &self.cuts, passed: 0, next }
    }
}

impl Happening {
    pub(super) fn new(columns: usize) -> Self {
        Self { columns: vec![Vec::new(); columns], ..Self::default() }
    }

    /// Puts the events of a step and its rows into the order in which they happen. In a delayed frame
    /// an event may enter and leave between two rows; in any other, one that leaves before another
    /// enters lets the frame be empty for a moment.
    pub(super) fn follow(
        &mut self,
        (layout, spec): (&Layout, &CourseSpec),
        passing: &[Passing],
        (rows, first_seq): (&[&[i64]], u64),
        repeats: &[Repeats],
    ) {
        let leaving: Vec<&Passing> = spec.leaves.iter().map(|&tail| &passing[tail]).collect();
        let entering = spec.enter.map(|tail| &passing[tail]);
        let (left_in_all, rows_in_all) = (events_of(&leaving), rows[TIME].len());
        self.order(&leaving, entering, rows_in_all);
        if spec.seqs {
            let seqs_of = |passing: &Passing| passing.first_seq..passing.first_seq + passing.events as u64;
            let passing = leaving.iter().copied().chain(entering);
            self.seqs.clear();
            self.seqs.extend(passing.flat_map(seqs_of).map(u64::cast_signed));
            self.seqs.extend((first_seq.cast_signed()..).take(rows_in_all));
        }
        self.bits = 0;
        if spec.conditional {
            self.bring(CONDITIONS, &leaving, entering, rows);
        } else if !spec.repeats.is_empty() {
            let events = left_in_all + entering.map_or(0, |entering| entering.events) + rows_in_all;
            self.columns[CONDITIONS].clear();
            self.columns[CONDITIONS].resize(events, 0);
        }
        for &told in &spec.repeats {
            let leaving = leaving[0];
            let left = match entering {
                None => &leaving.cuts,
                Some(entering) => {
                    self.left.clear();
                    for (entered, left) in entering.after_leaving(leaving) {
                        self.left.resize(entered, left);
                    }
                    &self.left
                }
            };
            let (bit, mask) = (layout.repeats[told].bit, layout.repeats[told].mask);
            let conditions = self.columns[CONDITIONS].split_at_mut(left_in_all);
            repeats[told].tell((bit, mask), (leaving.first_seq, left), conditions);
        }
        if spec.has_conditions() {
            self.bits = self.columns[CONDITIONS].iter().fold(0, |all, bits| all | bits.cast_unsigned());
        }
        for (&column, masks) in &spec.columns {
            if masks.iter().any(|&mask| !self.passes_by(mask)) {
                self.bring(column, &leaving, entering, rows);
            }
        }
    }

    /// Puts a column of the events together.
    fn bring(&mut self, column: usize, leaving: &[&Passing], entering: Option<&Passing>, rows: &[&[i64]]) {
        let at_hand = &mut self.columns[column];
        at_hand.clear();
        for passing in leaving.iter().copied().chain(entering) {
            at_hand.extend_from_slice(&passing.columns[column]);
        }
        at_hand.extend_from_slice(rows[column]);
    }

    /// Before each row, events that enter and then those that leave each frame; a row enters as it arrives, unless
    /// others do.
    fn order(&mut self, leaving: &[&Passing], entering: Option<&Passing>, rows: usize) {
        let left_in_all = events_of(leaving);
        let mut sources: Vec<Source<'_>> = Vec::with_capacity(leaving.len() + 1);
        sources.extend(entering.map(|entering| entering.source(Step::new(left_in_all, 1, false))));
        let mut events = 0;
        for (frame, passing) in leaving.iter().enumerate() {
            sources.push(passing.source(Step::leaving(events, frame)));
            events += passing.events;
        }
        events += entering.map_or(0, |entering| entering.events);
        let row_at = Step::new(events, i32::from(entering.is_none()), true);
        self.steps.resize(events + rows + ROOM, row_at);
        let steps = &mut self.steps;
        match sources.len() {
            1 => merge(known::<1>(sources), row_at, rows, steps),
            2 => merge(known::<2>(sources), row_at, rows, steps),
            3 => merge(known::<3>(sources), row_at, rows, steps),
            4 => merge(known::<4>(sources), row_at, rows, steps),
            _ => merge(sources, row_at, rows, steps),
        }
        // After the last row there is none.
        self.steps.truncate(events + rows);
    }

    /// What happens, in order.
    pub(super) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// What an accumulator sees of the events at hand.
    pub(super) fn of(&self, spec: &CourseSpec, placed: &Placed) -> Course<'_> {
        let keys = self.columns[KEYS + placed.key].as_slice();
        // Where nothing is asked of a column, any will do.
        Course {
            seqs: if spec.seqs { &self.seqs } else { keys },
            keys,
            conditions: if spec.has_conditions() { &self.columns[CONDITIONS] } else { keys },
            values: placed.column.map_or(keys, |column| &self.columns[column]),
        }
    }

    /// Whether no event at hand counts for an accumulator that asks for these condition bits.
    pub(super) const fn passes_by(&self, mask: u64) -> bool {
        self.bits & mask != mask
    }
}

/// As many as they are, so that the compiler knows.
fn known<const SOURCES: usize>(sources: Vec<Source<'_>>) -> [Source<'_>; SOURCES] {
    sources.try_into().expect("just so many")
}

/// Puts events before each of `rows` rows, and then the row, of which the first is `row_at`; `steps` has room behind.
#[inline(always)]
fn merge<'a>(mut sources: impl AsMut<[Source<'a>]>, mut row_at: Step, rows: usize, steps: &mut [Step]) {
    let mut at = 0;
    for row in 0..=rows {
        for source in sources.as_mut() {
            at = source.put(row, steps, at);
        }
        steps[at] = row_at;
        row_at = row_at.after(1);
        at += 1;
    }
}

/// How many events they are.
fn events_of(passing: &[&Passing]) -> usize {
    passing.iter().map(|passing| passing.events).sum()
}
