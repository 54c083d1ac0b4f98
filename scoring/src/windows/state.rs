//! The state of windows that share a reservoir, moved on from batch to batch.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch};

use super::accumulate::{
    Count, Course, Distinct, Extreme, ExtremeEver, Feed, First, FirstEver, FloatSum, IntSquares, IntSum,
    Last, Ring, drive, drive_history, key,
};
use super::chunked::Chunked;
use super::dictionary::Dictionary;
use super::inputs::prepare;
use super::layout::{CourseSpec, Layout, Leave, Placed};
use super::read::Column;
use super::reservoir::{
    CONDITIONS, KEYS, KeyOf, KeyRecord, Reservoir, SEGMENT_EVENTS, Segment, TIME, write_keys,
};
use super::spec::{Keep, ValueType, WindowPlan};
use crate::binary::{Reader, Writer};
use crate::error::{ScoreError, SnapshotError};
use crate::probe::{Probe, Stage};
use crate::store::SegmentStore;

/// Rows taken through all accumulators at a time: what they touch stays in the cache meanwhile.
const STEP_ROWS: usize = 1_024;
/// Events that one tail passes at a time, which bounds memory after a long silence.
const STEP_EVENTS: usize = 16_384;

/// Segments forgotten after a step: more than a step can fill.
const RETIRED_PER_STEP: usize = 2;

/// Everything that windows that share a reservoir remember.
#[derive(Debug)]
pub(crate) struct WindowState {
    plan: Arc<WindowPlan>,
    layout: Arc<Layout>,
    dictionaries: Vec<Dictionary>,
    /// Per dictionary: a row of words per key.
    words: Vec<Chunked<u64>>,
    /// What accumulators keep beside words, one each.
    kinds: Vec<Kind>,
    reservoir: Reservoir,
    /// Records of keys whose home is the newest segment, or one that the batch at hand will begin.
    records: VecDeque<KeyRecord>,
    /// Per tail: the sequence number of the next event it will meet.
    tails: Vec<u64>,
    /// Per tail: the events it passes in a step, reused.
    passing: Vec<Passing>,
    /// Per frame: what happens in it in a step, reused.
    courses: Vec<Happening>,
    /// What an accumulator read in a step, reused.
    read: Vec<u64>,
}

/// An accumulator's kind with what it keeps beside words.
#[derive(Debug)]
enum Kind {
    Count(Count),
    IntSum(IntSum),
    IntSquares(IntSquares),
    FloatSum(FloatSum<false>),
    FloatSquares(FloatSum<true>),
    Min(Extreme<true>),
    Max(Extreme<false>),
    MinEver(ExtremeEver<true>),
    MaxEver(ExtremeEver<false>),
    Distinct(Distinct),
    First(First),
    FirstEver(FirstEver),
    Last(Last),
    Ring,
}

/// Events on their way past a tail.
#[derive(Debug, Default)]
struct Passing {
    first_seq: u64,
    events: usize,
    /// Per row of the step: how many of them come before it.
    cuts: Vec<usize>,
    /// The reservoir's columns that the tail reads; the others are empty.
    columns: Vec<Vec<i64>>,
}

/// What happens in a frame, in order.
#[derive(Debug, Default)]
struct Happening {
    signs: Vec<i64>,
    reads: Vec<usize>,
    /// Which of the events at hand it is: those that leave, then those that enter, then the rows.
    order: Vec<u32>,
    seqs: Vec<i64>,
    /// The reservoir's columns that the frame's accumulators read; the others are empty.
    columns: Vec<Vec<i64>>,
    scratch: Vec<i64>,
}

impl Happening {
    /// Puts the events of a step and its rows into the order in which they happen. In a delayed frame
    /// an event may enter and leave between two rows; in any other, one that leaves before another
    /// enters lets the frame be empty for a moment.
    fn follow(&mut self, spec: &CourseSpec, passing: &[Passing], rows: &[&[i64]], first_seq: u64) {
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
    fn of(&self, spec: &CourseSpec, placed: &Placed) -> Course<'_> {
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

impl Kind {
    fn new(plan: &WindowPlan, keep: Keep, history: bool) -> Self {
        match keep {
            Keep::Count => Self::Count(Count),
            Keep::Sum { value, squares } => match (plan.value_type(value), squares) {
                (ValueType::Int, false) => Self::IntSum(IntSum),
                (ValueType::Int, true) => Self::IntSquares(IntSquares),
                (ValueType::Float, false) => Self::FloatSum(FloatSum),
                (ValueType::Float, true) => Self::FloatSquares(FloatSum),
            },
            Keep::Min(_) if history => Self::MinEver(ExtremeEver),
            Keep::Max(_) if history => Self::MaxEver(ExtremeEver),
            Keep::Min(_) => Self::Min(Extreme::new()),
            Keep::Max(_) => Self::Max(Extreme::new()),
            Keep::Distinct(_) => Self::Distinct(Distinct::new()),
            Keep::First(_) if history => Self::FirstEver(FirstEver),
            Keep::First(_) => Self::First(First::new()),
            Keep::Last(_) => Self::Last(Last),
            Keep::Ring { .. } => Self::Ring,
        }
    }
}

/// Calls a generic function with the accumulator that a kind holds.
macro_rules! with_accumulator {
    ($kind:expr, $accumulator:ident => $do:expr, ring => $ring:expr) => {
        match $kind {
            Kind::Count($accumulator) => $do,
            Kind::IntSum($accumulator) => $do,
            Kind::IntSquares($accumulator) => $do,
            Kind::FloatSum($accumulator) => $do,
            Kind::FloatSquares($accumulator) => $do,
            Kind::Min($accumulator) => $do,
            Kind::Max($accumulator) => $do,
            Kind::MinEver($accumulator) => $do,
            Kind::MaxEver($accumulator) => $do,
            Kind::Distinct($accumulator) => $do,
            Kind::First($accumulator) => $do,
            Kind::FirstEver($accumulator) => $do,
            Kind::Last($accumulator) => $do,
            Kind::Ring => $ring,
        }
    };
}

impl WindowState {
    pub(crate) fn new(plan: Arc<WindowPlan>, reservoir: u32, store: Arc<dyn SegmentStore>) -> Self {
        let layout = Arc::new(Layout::new(&plan));
        let reservoir = Reservoir::new(reservoir, layout.columns, store);
        Self::over(plan, layout, reservoir)
    }

    fn over(plan: Arc<WindowPlan>, layout: Arc<Layout>, reservoir: Reservoir) -> Self {
        let passing = || Passing { columns: vec![Vec::new(); layout.columns], ..Passing::default() };
        let happening = || Happening { columns: vec![Vec::new(); layout.columns], ..Happening::default() };
        let kinds = plan.accumulators.iter().zip(&layout.placed);
        Self {
            dictionaries: plan.dictionaries.iter().map(|_| Dictionary::new()).collect(),
            words: layout.words.iter().map(|&width| Chunked::new(width)).collect(),
            kinds: kinds
                .map(|(spec, placed)| Kind::new(&plan, spec.keep, matches!(placed.leave, Leave::Silence(_))))
                .collect(),
            reservoir,
            records: VecDeque::new(),
            tails: vec![0; layout.tails.len()],
            passing: layout.tails.iter().map(|_| passing()).collect(),
            courses: layout.courses.iter().map(|_| happening()).collect(),
            read: Vec::new(),
            layout,
            plan,
        }
    }

    /// Takes in a batch whose `times_us` rise strictly, also from the batch before, and returns the
    /// window columns of each of its rows in the plan's order.
    pub(crate) fn process(
        &mut self,
        batch: &RecordBatch,
        times_us: &[i64],
        probe: &mut dyn Probe,
    ) -> Result<Vec<ArrayRef>, ScoreError> {
        let rows = times_us.len();
        let columns = prepare(
            &self.plan,
            batch,
            times_us,
            self.reservoir.next_seq(),
            &mut self.dictionaries,
            &mut self.records,
            probe,
        )?;
        self.make_room();
        let mut outputs: Vec<Column> = self.plan.outputs.iter().map(|o| Column::new(o, rows)).collect();
        let mut from = 0;
        while from < rows {
            let to = rows.min(from + STEP_ROWS.min(self.reservoir.room()));
            let step: Vec<&[i64]> = columns.iter().map(|column| &column[from..to]).collect();
            let first_seq = self.reservoir.next_seq();
            self.reservoir.append(&step);
            self.step(&step, first_seq, &mut outputs, probe)?;
            self.reservoir
                .seal_if_full(|out| write_records(&mut self.records, &self.dictionaries, first_seq, out));
            self.retire()?;
            from = to;
        }
        self.reservoir.keep_unpacked(&self.tails);
        probe.ended(Stage::Tails);
        outputs.into_iter().zip(&self.plan.outputs).map(|(column, output)| column.finish(output)).collect()
    }

    fn make_room(&mut self) {
        for (dictionary, words) in self.dictionaries.iter().zip(&mut self.words) {
            words.grow(dictionary.capacity());
        }
    }

    /// Moves tails and accumulators on through rows that are in the reservoir, reading each.
    fn step(
        &mut self,
        rows: &[&[i64]],
        first_seq: u64,
        outputs: &mut [Column],
        probe: &mut dyn Probe,
    ) -> Result<(), ScoreError> {
        let count = rows[TIME].len();
        let mut done = 0;
        while done < count {
            let ready = self.cut(&rows[TIME][done..])?;
            if ready == 0 {
                self.catch_up(rows[TIME][done])?;
                self.reservoir.keep_unpacked(&self.tails);
                continue;
            }
            for tail in 0..self.tails.len() {
                self.passing[tail].cuts.truncate(ready);
                let events = *self.passing[tail].cuts.last().unwrap_or(&0);
                self.fetch(tail, events)?;
            }
            let part: Vec<&[i64]> = rows.iter().map(|column| &column[done..done + ready]).collect();
            probe.ended(Stage::Tails);
            self.run(&part, first_seq + done as u64, outputs);
            probe.ended(Stage::Windows);
            done += ready;
        }
        Ok(())
    }

    /// Counts, per tail and row, the events that pass before the row. Returns for how many rows all
    /// tails could say so within [`STEP_EVENTS`].
    fn cut(&mut self, times_us: &[i64]) -> Result<usize, ScoreError> {
        let layout = Arc::clone(&self.layout);
        let mut ready = times_us.len();
        let mut edges = Vec::with_capacity(ready);
        for (tail, (spec, passing)) in layout.tails.iter().zip(&mut self.passing).enumerate() {
            edges.clear();
            edges.extend(times_us[..ready].iter().map(|now_us| now_us.saturating_sub(spec.bound_us)));
            // Both ends of a frame are part of it.
            self.reservoir.count_until(
                self.tails[tail],
                &edges,
                spec.enters,
                STEP_EVENTS,
                &mut passing.cuts,
            )?;
            ready = ready.min(passing.cuts.len());
        }
        Ok(ready)
    }

    /// Takes a part of the events that pass before a row at `now_us`: those that enter first, all of
    /// them, since an event must enter before it leaves.
    fn catch_up(&mut self, now_us: i64) -> Result<(), ScoreError> {
        let layout = Arc::clone(&self.layout);
        let mut entering_is_done = true;
        for (tail, spec) in layout.tails.iter().enumerate() {
            let mut cuts = Vec::new();
            if spec.enters || entering_is_done {
                let edge = [now_us.saturating_sub(spec.bound_us)];
                self.reservoir.count_until(self.tails[tail], &edge, spec.enters, STEP_EVENTS, &mut cuts)?;
                entering_is_done &= !spec.enters || !cuts.is_empty();
            } else {
                cuts.push(0);
            }
            let events = cuts.first().copied().unwrap_or(STEP_EVENTS);
            self.passing[tail].cuts.clear();
            self.fetch(tail, events)?;
        }
        let no_rows = vec![&[][..]; layout.columns];
        self.run(&no_rows, self.reservoir.next_seq(), &mut []);
        Ok(())
    }

    /// Brings the next `events` of a tail together.
    fn fetch(&mut self, tail: usize, events: usize) -> Result<(), ScoreError> {
        let passing = &mut self.passing[tail];
        passing.first_seq = self.tails[tail];
        passing.events = events;
        let range = passing.first_seq..passing.first_seq + events as u64;
        for &column in &self.layout.tails[tail].columns {
            passing.columns[column].clear();
            self.reservoir.gather(column, range.clone(), &mut passing.columns[column])?;
        }
        self.tails[tail] = range.end;
        Ok(())
    }

    /// Takes the events that were fetched, and rows of which each is read, through all accumulators.
    fn run(&mut self, rows: &[&[i64]], first_seq: u64, outputs: &mut [Column]) {
        let layout = Arc::clone(&self.layout);
        let count = rows[TIME].len();
        for (spec, course) in layout.courses.iter().zip(&mut self.courses) {
            course.follow(spec, &self.passing, rows, first_seq);
        }
        let each: Vec<usize> = (1..=count).collect();
        let expired: Vec<_> =
            (0..layout.silences.len()).map(|silence| self.silence(silence, rows, first_seq)).collect();
        let mut read = std::mem::take(&mut self.read);
        for (index, placed) in layout.placed.iter().enumerate() {
            let state = &mut self.words[placed.key];
            match placed.leave {
                Leave::Tail { course, .. } => {
                    let course = self.courses[course].of(&layout.courses[course], placed);
                    with_accumulator!(&mut self.kinds[index], accumulator => {
                        drive(accumulator, state, placed.place, course, count, &mut read);
                    }, ring => unreachable!("rows are kept by history"));
                }
                Leave::Silence(silence) => {
                    let keys = rows[KEYS + placed.key];
                    let arriving = Feed {
                        first_seq,
                        keys,
                        conditions: rows[CONDITIONS],
                        values: rows[placed.column.unwrap_or(CONDITIONS)],
                        cuts: &each,
                    };
                    let feeds = (&arriving, expired[silence].as_slice());
                    read.clear();
                    with_accumulator!(&mut self.kinds[index], accumulator => {
                        drive_history(accumulator, state, placed.place, feeds, keys, &mut read);
                    }, ring => drive_history(&mut Ring, state, placed.place, feeds, keys, &mut read));
                }
            }
            for &output in &placed.outputs {
                if let Some(column) = outputs.get_mut(output) {
                    column.extend(&self.plan.outputs[output], &read, count);
                }
            }
        }
        self.read = read;
        for (tail, spec) in layout.tails.iter().enumerate() {
            for &dictionary in &spec.releases {
                let passing = &self.passing[tail];
                for (&id, seq) in passing.columns[KEYS + dictionary].iter().zip(passing.first_seq..) {
                    self.dictionaries[dictionary].release(key(id), seq);
                }
            }
        }
    }

    /// The keys that a silence ends, each with the row before which it does.
    fn silence(&mut self, index: usize, rows: &[&[i64]], first_seq: u64) -> Vec<(usize, u32)> {
        let silence = self.layout.silences[index];
        let passing = &self.passing[silence.tail];
        let state = &mut self.words[silence.key];
        let mut expired = Vec::new();
        let leaving = &passing.columns[KEYS + silence.key];
        let mut left = 0;
        let mut leave = |state: &mut Chunked<u64>, end: usize, row: usize| {
            while left < end {
                let newest = &mut state.row_mut(key(leaving[left]) as usize)[silence.at];
                if *newest == passing.first_seq + left as u64 + 1 {
                    *newest = 0;
                    expired.push((row, key(leaving[left])));
                }
                left += 1;
            }
        };
        for ((row, &id), seq) in rows[KEYS + silence.key].iter().enumerate().zip(first_seq..) {
            leave(state, passing.cuts[row], row);
            state.row_mut(key(id) as usize)[silence.at] = seq + 1;
        }
        leave(state, leaving.len(), rows[TIME].len());
        expired
    }

    /// Forgets segments that all tails have passed, after saving what only they say: a few at a time,
    /// so that the first event after a long silence does not wait for all of them.
    fn retire(&mut self) -> Result<(), ScoreError> {
        let oldest = self.tails.iter().copied().min().unwrap_or(self.reservoir.next_seq());
        for _ in 0..RETIRED_PER_STEP {
            let Some(number) = self.reservoir.passed_segment(oldest) else { break };
            let (since, home) = (self.reservoir.next_seq(), self.reservoir.open_segment());
            let mut carried = BTreeSet::new();
            let id = self.reservoir.id(number);
            let segment = self.reservoir.segment(number)?;
            let damaged = |source| ScoreError::Segment { id, source };
            for (record, _) in segment.keys().map_err(damaged)? {
                if self.dictionaries[record.dictionary].value_at(record.id, number).is_some() {
                    carried.insert((record.dictionary, record.id));
                }
            }
            for dictionary in 0..self.dictionaries.len() {
                if self.layout.history_at[dictionary] < self.layout.words[dictionary] {
                    for &id in segment.column(KEYS + dictionary).map_err(damaged)? {
                        if self.dictionaries[dictionary].is_live(key(id)) {
                            carried.insert((dictionary, key(id)));
                        }
                    }
                }
            }
            for (dictionary, id) in carried {
                self.dictionaries[dictionary].rehome(id, home);
                let history = self.history(dictionary, id).to_vec();
                let history = if history.iter().all(|&word| word == 0) { Vec::new() } else { history };
                self.records.push_back(KeyRecord { dictionary, id, since, history });
            }
            self.reservoir.forget_first();
        }
        Ok(())
    }

    fn history(&self, dictionary: usize, id: u32) -> &[u64] {
        let from = self.layout.history_at[dictionary];
        if from == self.layout.words[dictionary] {
            return &[];
        }
        &self.words[dictionary].row(id as usize)[from..]
    }

    /// Writes what is not in sealed segments, and which of those it goes on from.
    pub(crate) fn write(&self, out: &mut Writer) {
        let sealed = self.reservoir.sealed();
        out.u64(sealed.start);
        out.u64s(&self.reservoir.checksums());
        out.u64s(&self.tails);
        let mut open = Writer::default();
        self.reservoir.write_open(&mut open, |out| {
            write_keys(out, sealed.end, live_records(&self.records, &self.dictionaries));
        });
        out.bytes(open.as_bytes());
    }

    /// Restores what [`Self::write`] wrote under an equal plan. Accumulators are not stored: they are
    /// what the events between two tails add up to.
    pub(crate) fn restore(
        plan: Arc<WindowPlan>,
        reservoir: u32,
        store: Arc<dyn SegmentStore>,
        input: &mut Reader<'_>,
    ) -> Result<Self, SnapshotError> {
        let layout = Arc::new(Layout::new(&plan));
        let first = input.u64()?;
        let checksums = input.u64s()?;
        let sealed = first..first + checksums.len() as u64;
        let tails = input.u64s()?;
        let open: Arc<[u8]> = input.bytes()?.into();
        let mut open =
            Segment::open(&mut Reader::part(&open), Arc::clone(&open), sealed.end, layout.columns)?;
        let reservoir =
            Reservoir::restore(reservoir, layout.columns, store, sealed.clone(), &checksums, &mut open)?;
        let mut state = Self::over(plan, layout, reservoir);
        let bounds = state.reservoir.first_seq()..=state.reservoir.next_seq();
        if tails.len() != state.tails.len() || !tails.iter().all(|tail| bounds.contains(tail)) {
            return Err(SnapshotError::Damaged("the tails do not fit the reservoir"));
        }
        state.tails = tails;
        let mut records = Vec::new();
        for number in sealed.clone() {
            let of_segment = state.reservoir.segment(number).map_err(unreadable)?.keys()?;
            state.reservoir.keep_unpacked(&[]);
            records.extend(of_segment.into_iter().map(|record| (number, record)));
        }
        let newest = open.keys()?;
        state.records = newest.iter().map(|(record, _)| record.clone()).collect();
        records.extend(newest.into_iter().map(|record| (sealed.end, record)));
        state.restore_keys(&records)?;
        state.restore_ranges().map_err(unreadable)?;
        state.restore_histories(&records).map_err(unreadable)?;
        Ok(state)
    }

    fn restore_keys(&mut self, records: &[(u64, KeyOf)]) -> Result<(), SnapshotError> {
        for (home, (record, value)) in records {
            let dictionary = self.dictionaries.get_mut(record.dictionary);
            let dictionary = dictionary.ok_or(SnapshotError::Damaged("a key of an unknown dictionary"))?;
            dictionary.place(record.id, value, *home);
        }
        let layout = Arc::clone(&self.layout);
        for (tail, spec) in layout.tails.iter().enumerate() {
            for &dictionary in &spec.releases {
                let range = self.tails[tail]..self.reservoir.next_seq();
                let held = &mut self.dictionaries[dictionary];
                for part in parts(range) {
                    let mut ids = Vec::new();
                    self.reservoir.gather(KEYS + dictionary, part.clone(), &mut ids).map_err(unreadable)?;
                    if !ids.iter().zip(part).all(|(&id, seq)| held.hold(key(id), seq)) {
                        return Err(SnapshotError::Damaged("an event has a key that no segment knows"));
                    }
                    self.reservoir.keep_unpacked(&[]);
                }
            }
        }
        self.dictionaries.iter_mut().for_each(Dictionary::index);
        self.make_room();
        Ok(())
    }

    /// Lets the events that are between two tails enter the frames between them.
    fn restore_ranges(&mut self) -> Result<(), ScoreError> {
        let layout = Arc::clone(&self.layout);
        for (index, placed) in layout.placed.iter().enumerate() {
            let Leave::Tail { tail: leave, .. } = placed.leave else { continue };
            let end = placed.enter.map_or(self.reservoir.next_seq(), |enter| self.tails[enter]);
            for part in parts(self.tails[leave]..end) {
                let mut column = |column: usize| {
                    let mut values = Vec::new();
                    self.reservoir.gather(column, part.clone(), &mut values).map(|()| values)
                };
                let keys = column(KEYS + placed.key)?;
                let conditions = column(CONDITIONS)?;
                let values = column(placed.column.unwrap_or(CONDITIONS))?;
                let seqs: Vec<i64> = (part.start.cast_signed()..part.end.cast_signed()).collect();
                let course = Course {
                    signs: &vec![1; seqs.len()],
                    reads: &vec![0; seqs.len()],
                    seqs: &seqs,
                    keys: &keys,
                    conditions: &conditions,
                    values: &values,
                };
                let state = &mut self.words[placed.key];
                with_accumulator!(&mut self.kinds[index], accumulator => {
                    drive(accumulator, state, placed.place, course, 0, &mut Vec::new());
                }, ring => unreachable!("rows are kept by history"));
                self.reservoir.keep_unpacked(&[]);
            }
        }
        Ok(())
    }

    /// Rebuilds each key's history from its newest record and the events since.
    fn restore_histories(&mut self, records: &[(u64, KeyOf)]) -> Result<(), ScoreError> {
        let layout = Arc::clone(&self.layout);
        for dictionary in 0..self.dictionaries.len() {
            let history_at = layout.history_at[dictionary];
            if history_at == layout.words[dictionary] {
                continue;
            }
            let mut since = vec![0_u64; self.dictionaries[dictionary].capacity()];
            for (_, (record, _)) in records.iter().filter(|(_, (r, _))| r.dictionary == dictionary) {
                since[record.id as usize] = record.since;
                let words = &mut self.words[dictionary].row_mut(record.id as usize)[history_at..];
                words.fill(0);
                if record.history.len() == words.len() {
                    words.copy_from_slice(&record.history);
                }
            }
            let mut last_us = vec![i64::MIN; since.len()];
            for part in parts(self.reservoir.first_seq()..self.reservoir.next_seq()) {
                self.relive(dictionary, part, &since, &mut last_us)?;
                self.reservoir.keep_unpacked(&[]);
            }
            self.end_silences(dictionary);
        }
        Ok(())
    }

    /// Takes events of the past into the histories of their keys again.
    fn relive(
        &mut self,
        dictionary: usize,
        part: Range<u64>,
        since: &[u64],
        last_us: &mut [i64],
    ) -> Result<(), ScoreError> {
        let layout = Arc::clone(&self.layout);
        let mut columns: Vec<Vec<i64>> = vec![Vec::new(); layout.columns];
        for (index, column) in columns.iter_mut().enumerate() {
            self.reservoir.gather(index, part.clone(), column)?;
        }
        for (row, seq) in (part.start..part.end).enumerate() {
            let id = key(columns[KEYS + dictionary][row]) as usize;
            let time_us = columns[TIME][row];
            let Some(&from) = since.get(id) else { continue };
            for (index, silence) in layout.silences.iter().enumerate().filter(|(_, s)| s.key == dictionary) {
                let forgotten = time_us.saturating_sub(last_us[id]) > silence.expiry_us;
                if seq >= from && last_us[id] > i64::MIN && forgotten {
                    self.forget_history(index, id);
                }
                self.words[dictionary].row_mut(id)[silence.at] = seq + 1;
            }
            last_us[id] = time_us;
            if seq < from {
                continue;
            }
            for (index, placed) in layout.placed.iter().enumerate() {
                if placed.key != dictionary || !matches!(placed.leave, Leave::Silence(_)) {
                    continue;
                }
                let of_row = |column: usize| std::slice::from_ref(&columns[column][row]);
                let enter = Feed {
                    first_seq: seq,
                    keys: of_row(KEYS + dictionary),
                    conditions: of_row(CONDITIONS),
                    values: of_row(placed.column.unwrap_or(CONDITIONS)),
                    cuts: &[1],
                };
                let (state, rows, mut out) = (&mut self.words[dictionary], enter.keys, Vec::new());
                with_accumulator!(&mut self.kinds[index], accumulator => {
                    drive_history(accumulator, state, placed.place, (&enter, &[]), rows, &mut out);
                }, ring => drive_history(&mut Ring, state, placed.place, (&enter, &[]), rows, &mut out));
            }
        }
        Ok(())
    }

    /// Forgets the histories of keys whose newest event the silence's tail has passed.
    fn end_silences(&mut self, dictionary: usize) {
        let layout = Arc::clone(&self.layout);
        for (index, silence) in layout.silences.iter().enumerate().filter(|(_, s)| s.key == dictionary) {
            for id in 0..self.dictionaries[dictionary].capacity() {
                let newest = self.words[dictionary].row(id)[silence.at];
                if newest > 0 && newest - 1 < self.tails[silence.tail] {
                    self.forget_history(index, id);
                    self.words[dictionary].row_mut(id)[silence.at] = 0;
                }
            }
        }
    }

    fn forget_history(&mut self, silence: usize, id: usize) {
        for placed in self.layout.placed.iter().filter(|p| p.leave == Leave::Silence(silence)) {
            let place = placed.place;
            self.words[placed.key].row_mut(id)[place.at..place.at + place.words].fill(0);
        }
    }

    /// Events held for windows that still need them.
    pub(crate) fn live_events(&self) -> u64 {
        self.reservoir.next_seq() - self.reservoir.first_seq()
    }

    /// Keys and distinct values in use.
    pub(crate) fn live_keys(&self) -> usize {
        self.dictionaries.iter().map(Dictionary::live).sum()
    }

    /// Bytes of memory that words per key take.
    pub(crate) fn state_bytes(&self) -> usize {
        self.words.iter().map(Chunked::bytes).sum()
    }

    /// Bytes of sealed segments in the store.
    pub(crate) fn sealed_bytes(&self) -> u64 {
        self.reservoir.sealed_bytes()
    }

    /// Events in sealed segments.
    pub(crate) fn sealed_events(&self) -> u64 {
        let sealed = self.reservoir.sealed();
        (sealed.end - sealed.start) * SEGMENT_EVENTS
    }

    /// The sealed segments that a checkpoint now would name.
    pub(crate) fn segments(&self) -> Range<u64> {
        self.reservoir.sealed()
    }
}

/// The records with the values they stand for, without those whose key is gone or lives elsewhere.
fn live_records<'a>(
    records: &'a VecDeque<KeyRecord>,
    dictionaries: &'a [Dictionary],
) -> impl Iterator<Item = (&'a KeyRecord, &'a [u8])> + Clone {
    records.iter().filter_map(|record| {
        let home = record.since / SEGMENT_EVENTS;
        dictionaries[record.dictionary].value_at(record.id, home).map(|value| (record, value))
    })
}

/// Writes and removes the records whose home is the segment of `seq`.
fn write_records(records: &mut VecDeque<KeyRecord>, dictionaries: &[Dictionary], seq: u64, out: &mut Writer) {
    let home = seq / SEGMENT_EVENTS;
    let (of_segment, later): (VecDeque<_>, VecDeque<_>) =
        std::mem::take(records).into_iter().partition(|record| record.since / SEGMENT_EVENTS <= home);
    write_keys(out, home, live_records(&of_segment, dictionaries));
    *records = later;
}

/// A range of events in parts that fit in memory.
fn parts(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    let step = STEP_EVENTS as u64;
    (range.start..range.end).step_by(STEP_EVENTS).map(move |start| start..range.end.min(start + step))
}

fn unreadable(error: ScoreError) -> SnapshotError {
    match error {
        ScoreError::Segment { source, .. } => source,
        other => SnapshotError::Unreadable(other.to_string()),
    }
}
