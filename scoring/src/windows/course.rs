//! The events of a step and its rows, in the order in which they happen in a frame.

use std::hint::select_unpredictable;

use super::accumulate::key;
use super::drive::{Course, Step};
use super::layout::{CourseSpec, Layout, Placed};
use super::repeats::Repeats;
use super::reservoir::{CONDITIONS, KEYS, TIME};

/// Events on their way past a tail.
#[derive(Debug, Default)]
pub(super) struct Passing {
    pub(super) first_seq: u64,
    pub(super) events: usize,
    /// Per row of the step, and for its end: how many of them come before it.
    pub(super) cuts: Vec<usize>,
    /// The reservoir's columns that the tail reads; the others are empty.
    pub(super) columns: Vec<Vec<i64>>,
}

/// What happens in a frame, in order, and the events at hand: those that leave, then those that enter, then
/// the rows.
#[derive(Debug, Default)]
pub(super) struct Happening {
    steps: Vec<Step>,
    /// In a delayed frame: how many events have left when each of those that enter does.
    left: Vec<usize>,
    /// The numbers of the events at hand.
    seqs: Vec<i64>,
    /// The reservoir's columns of the events at hand, of those that an accumulator reads for which some event
    /// counts.
    columns: Vec<Vec<i64>>,
    /// Condition bits that some event at hand has.
    bits: u64,
}

impl Passing {
    pub(super) fn new(columns: usize) -> Self {
        Self { columns: vec![Vec::new(); columns], ..Self::default() }
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
        let leaving = &passing[spec.leave];
        let entering = spec.enter.map(|tail| &passing[tail]);
        let (left_in_all, rows_in_all) = (leaving.events, rows[TIME].len());
        match entering {
            None => self.arrive(left_in_all, &leaving.cuts, rows_in_all),
            Some(entering) => self.delay(entering, leaving, rows_in_all),
        }
        if spec.seqs {
            let seqs_of = |passing: &Passing| passing.first_seq..passing.first_seq + passing.events as u64;
            self.seqs.clear();
            self.seqs.extend(seqs_of(leaving).map(u64::cast_signed));
            self.seqs.extend(entering.map(seqs_of).into_iter().flatten().map(u64::cast_signed));
            self.seqs.extend((first_seq.cast_signed()..).take(rows_in_all));
        }
        self.bits = 0;
        if spec.conditional {
            self.bring(CONDITIONS, leaving, entering, rows);
        } else if !spec.repeats.is_empty() {
            let events = left_in_all + entering.map_or(0, |entering| entering.events) + rows_in_all;
            self.columns[CONDITIONS].clear();
            self.columns[CONDITIONS].resize(events, 0);
        }
        for &told in &spec.repeats {
            let left = if entering.is_some() { &self.left } else { &leaving.cuts };
            let (bit, mask) = (layout.repeats[told].bit, layout.repeats[told].mask);
            let conditions = self.columns[CONDITIONS].split_at_mut(left_in_all);
            repeats[told].tell((bit, mask), (leaving.first_seq, left), conditions);
        }
        if spec.has_conditions() {
            self.bits = self.columns[CONDITIONS].iter().fold(0, |all, bits| all | bits.cast_unsigned());
        }
        for (&column, masks) in &spec.columns {
            if masks.iter().any(|&mask| !self.passes_by(mask)) {
                self.bring(column, leaving, entering, rows);
            }
        }
    }

    /// Puts a column of the events together.
    fn bring(&mut self, column: usize, leaving: &Passing, entering: Option<&Passing>, rows: &[&[i64]]) {
        let at_hand = &mut self.columns[column];
        at_hand.clear();
        at_hand.extend_from_slice(&leaving.columns[column]);
        if let Some(entering) = entering {
            at_hand.extend_from_slice(&entering.columns[column]);
        }
        at_hand.extend_from_slice(rows[column]);
    }

    /// Events that leave, and rows that enter as they arrive: row `r` comes after `cuts[r]` that leave.
    fn arrive(&mut self, leaving: usize, cuts: &[usize], rows: usize) {
        let leaves = Step::new(0, -1, false);
        self.steps.clear();
        self.steps.resize(leaving + rows, leaves);
        for (row, cut) in cuts.iter().take(rows).enumerate() {
            self.steps[row + cut] = Step::new(leaving + row, 1, true);
        }
        let mut left = 0;
        for step in &mut self.steps {
            // Which of the two it is, is not worth guessing at.
            *step = step.or_leaving(left);
            left += 1 - step.reads();
        }
    }

    /// Events that enter, then those that leave, before each row.
    fn delay(&mut self, entering: &Passing, leaving: &Passing, rows: usize) {
        let (mut entered, mut left, mut row) = (0, 0, 0);
        self.left.clear();
        self.left.resize(entering.events + 1, 0);
        self.steps.clear();
        self.steps.extend((0..leaving.events + entering.events + rows).map(|_| {
            // Which of the three it is, is not worth guessing at.
            let enters = entered < entering.cuts[row];
            let leaves = !enters & (left < leaving.cuts[row]);
            let reads = !(enters | leaves);
            let others = select_unpredictable(enters, entered, entering.events + row);
            let event = select_unpredictable(leaves, left, leaving.events + others);
            self.left[entered] = left;
            entered += usize::from(enters);
            left += usize::from(leaves);
            row += usize::from(reads);
            Step::new(event, i32::from(enters) - i32::from(leaves), reads)
        }));
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

    /// The keys of the events of some steps, in a dictionary whose accumulators some event counts for.
    pub(super) fn keys(&self, dictionary: usize, steps: &[Step]) -> impl Iterator<Item = usize> {
        let keys = &self.columns[KEYS + dictionary];
        steps.iter().map(|step| key(keys[step.event()]) as usize)
    }

    /// Whether no event at hand counts for an accumulator that asks for these condition bits.
    pub(super) const fn passes_by(&self, mask: u64) -> bool {
        self.bits & mask != mask
    }
}
