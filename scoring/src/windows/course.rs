//! The events of a step and its rows, in the order in which they happen in a frame.

use std::ops::Range;

use super::drive::Course;
use super::layout::{CourseSpec, Placed};
use super::reservoir::{CONDITIONS, KEYS, TIME};

/// Events on their way past a tail.
#[derive(Debug, Default)]
pub(super) struct Passing {
    pub(super) first_seq: u64,
    pub(super) events: usize,
    /// Per row of the step: how many of them come before it.
    pub(super) cuts: Vec<usize>,
    /// The reservoir's columns that the tail reads; the others are empty.
    pub(super) columns: Vec<Vec<i64>>,
}

/// What happens in a frame, in order.
#[derive(Debug, Default)]
pub(super) struct Happening {
    signs: Vec<i64>,
    reads: Vec<usize>,
    /// Which of the events at hand it is: those that leave, then those that enter, then the rows.
    order: Vec<u32>,
    seqs: Vec<i64>,
    /// The reservoir's columns that the frame's accumulators read; the others are empty.
    columns: Vec<Vec<i64>>,
    scratch: Vec<i64>,
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
    pub(super) fn follow(&mut self, spec: &CourseSpec, passing: &[Passing], rows: &[&[i64]], first_seq: u64) {
        let leaving = &passing[spec.leave];
        let entering = spec.enter.map(|tail| &passing[tail]);
        let (left_in_all, rows_in_all) = (leaving.events, rows[TIME].len());
        let entered_in_all = entering.map_or(rows_in_all, |passing| passing.events);
        match entering {
            None => self.arrive(left_in_all, &leaving.cuts, rows_in_all),
            Some(entering) => self.delay(entering, leaving, rows_in_all),
        }
        if spec.seqs {
            self.gather(
                |out| {
                    out.extend((leaving.first_seq.cast_signed()..).take(left_in_all));
                    let enters_from = entering.map_or(first_seq, |passing| passing.first_seq);
                    out.extend((enters_from.cast_signed()..).take(entered_in_all));
                    out.extend((first_seq.cast_signed()..).take(rows_in_all));
                },
                None,
            );
        }
        for &column in &spec.columns {
            self.gather(
                |out| {
                    out.extend_from_slice(&leaving.columns[column]);
                    out.extend_from_slice(entering.map_or(rows[column], |passing| &passing.columns[column]));
                    out.extend_from_slice(rows[column]);
                },
                Some(column),
            );
        }
    }

    /// Events that leave, and rows that enter as they arrive: row `r` comes after `cuts[r]` that leave.
    fn arrive(&mut self, leaving: usize, cuts: &[usize], rows: usize) {
        let steps = leaving + rows;
        self.reads.clear();
        self.reads.resize(steps, 0);
        for (row, cut) in cuts.iter().take(rows).enumerate() {
            self.reads[row + cut] = 1;
        }
        self.signs.clear();
        self.signs.extend(self.reads.iter().map(|&arrives| if arrives == 1 { 1 } else { -1 }));
        self.order.clear();
        let (mut left, mut arrived) = (0, leaving);
        self.order.extend(self.reads.iter().map(|&arrives| {
            let at = if arrives == 1 { arrived } else { left };
            arrived += arrives;
            left += 1 - arrives;
            u32::try_from(at).expect("a step is short")
        }));
    }

    /// Events that enter and leave before each row.
    fn delay(&mut self, entering: &Passing, leaving: &Passing, rows: usize) {
        self.signs.clear();
        self.reads.clear();
        self.order.clear();
        let (mut left, mut entered) = (0, 0);
        for row in 0..=rows {
            let cut = |passing: &Passing| passing.cuts.get(row).copied().unwrap_or(passing.events);
            let (enter_until, leave_until) = (cut(entering), cut(leaving));
            self.push(leaving.events + entered..leaving.events + enter_until, 1, 0);
            self.push(left..leave_until, -1, 0);
            (entered, left) = (enter_until, leave_until);
            if row < rows {
                let at = leaving.events + entering.events + row;
                self.push(at..at + 1, 0, 1);
            }
        }
    }

    fn push(&mut self, which: Range<usize>, sign: i64, read: usize) {
        for at in which {
            self.signs.push(sign);
            self.reads.push(read);
            self.order.push(u32::try_from(at).expect("a step is short"));
        }
    }

    /// Brings what `fill` writes, of the events at hand, into order: as a column, or as sequence numbers.
    fn gather(&mut self, fill: impl FnOnce(&mut Vec<i64>), column: Option<usize>) {
        self.scratch.clear();
        fill(&mut self.scratch);
        let into = match column {
            Some(column) => &mut self.columns[column],
            None => &mut self.seqs,
        };
        into.clear();
        into.extend(self.order.iter().map(|&at| self.scratch[at as usize]));
    }

    /// What an accumulator sees of it.
    pub(super) fn of(&self, spec: &CourseSpec, placed: &Placed) -> Course<'_> {
        let keys = self.columns[KEYS + placed.key].as_slice();
        // Where nothing is asked of a column, any will do.
        let unconditional = placed.place.mask | placed.place.valid_mask == 0;
        Course {
            signs: &self.signs,
            reads: &self.reads,
            seqs: if spec.seqs { &self.seqs } else { keys },
            keys,
            conditions: if unconditional { keys } else { &self.columns[CONDITIONS] },
            values: placed.column.map_or(keys, |column| &self.columns[column]),
        }
    }
}
