//! The events of a step and its rows, in the order in which they happen in a frame.

use std::collections::BTreeMap;
use std::ops::Range;

use super::drive::{Course, Place, counting};
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
    /// 1 for an event that enters, -1 for one that leaves, 0 for neither.
    signs: Vec<i64>,
    /// Per set of condition bits that accumulators ask for: the signs of the events that have them, 0 for
    /// the others.
    moves: BTreeMap<u64, Vec<i64>>,
    reads: Vec<usize>,
    /// Which of the events at hand it is: those that leave, then those that enter, then the rows.
    order: Vec<u32>,
    /// The numbers of the events.
    seqs: Vec<i64>,
    /// The reservoir's columns of the events, of those that an accumulator reads for which some event
    /// counts.
    columns: Vec<Vec<i64>>,
    /// A column of the events at hand before it is in order, reused.
    at_hand: Vec<i64>,
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
    pub(super) fn follow(&mut self, spec: &CourseSpec, passing: &[Passing], rows: &[&[i64]], first_seq: u64) {
        let leaving = &passing[spec.leave];
        let entering = spec.enter.map(|tail| &passing[tail]);
        let (left_in_all, rows_in_all) = (leaving.events, rows[TIME].len());
        match entering {
            None => self.arrive(left_in_all, &leaving.cuts, rows_in_all),
            Some(entering) => self.delay(entering, leaving, rows_in_all),
        }
        if spec.seqs {
            let seqs_of = |passing: &Passing| passing.first_seq..passing.first_seq + passing.events as u64;
            self.at_hand.clear();
            self.at_hand.extend(seqs_of(leaving).map(u64::cast_signed));
            self.at_hand.extend(entering.map(seqs_of).into_iter().flatten().map(u64::cast_signed));
            self.at_hand.extend((first_seq.cast_signed()..).take(rows_in_all));
            put_in_order(&self.order, &self.at_hand, &mut self.seqs);
        }
        self.bits = 0;
        if spec.conditional {
            self.bring(CONDITIONS, leaving, entering, rows);
            self.bits = self.columns[CONDITIONS].iter().fold(0, |all, bits| all | bits.cast_unsigned());
        }
        for &mask in spec.masks.iter().filter(|&&mask| mask != 0 && self.bits & mask == mask) {
            let moves = self.moves.entry(mask).or_default();
            moves.clear();
            moves.extend(counting(&self.signs, &self.columns[CONDITIONS], mask));
        }
        for (&column, masks) in &spec.columns {
            if masks.iter().any(|&mask| !self.passes_by(mask)) {
                self.bring(column, leaving, entering, rows);
            }
        }
    }

    /// Puts a column of the events together, in order.
    fn bring(&mut self, column: usize, leaving: &Passing, entering: Option<&Passing>, rows: &[&[i64]]) {
        self.at_hand.clear();
        self.at_hand.extend_from_slice(&leaving.columns[column]);
        if let Some(entering) = entering {
            self.at_hand.extend_from_slice(&entering.columns[column]);
        }
        self.at_hand.extend_from_slice(rows[column]);
        put_in_order(&self.order, &self.at_hand, &mut self.columns[column]);
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

    /// What an accumulator sees of it.
    pub(super) fn of(&self, spec: &CourseSpec, placed: &Placed) -> Course<'_> {
        let keys = self.columns[KEYS + placed.key].as_slice();
        let Place { mask, valid_mask, .. } = placed.place;
        // Where nothing is asked of a column, any will do.
        Course {
            moves: if mask == 0 { &self.signs } else { &self.moves[&mask] },
            reads: &self.reads,
            seqs: if spec.seqs { &self.seqs } else { keys },
            keys,
            conditions: if valid_mask == 0 { keys } else { &self.columns[CONDITIONS] },
            values: placed.column.map_or(keys, |column| &self.columns[column]),
        }
    }

    /// Whether no event at hand counts for an accumulator that asks for these condition bits.
    pub(super) const fn passes_by(&self, mask: u64) -> bool {
        self.bits & mask != mask
    }
}

fn put_in_order(order: &[u32], at_hand: &[i64], into: &mut Vec<i64>) {
    into.clear();
    into.extend(order.iter().map(|&event| at_hand[event as usize]));
}
