//! The state of windows that share a reservoir, moved on from batch to batch.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch};

use super::accumulate::FRAME_EVENTS;
use super::chunked::Chunked;
use super::course::Happening;
use super::dictionary::Dictionary;
use super::inputs::prepare;
use super::kind::Kind;
use super::labels::Label;
use super::layout::{Layout, MAX_FAMILIES};
use super::read::Column;
use super::records::{KeyRecord, LabelRecord, RecordsWriter};
use super::repeats::Repeats;
use super::reservoir::{KEYS, Reservoir, SEGMENT_EVENTS, TIME};
use super::runs::{Occurrences, Order, STEP_ROWS};
use super::spec::{Lender, WindowPlan};
use super::tails::Passing;
use crate::error::ScoreError;
use crate::probe::{Probe, Stage};
use crate::store::SegmentStore;

/// Everything that windows that share a reservoir remember.
#[derive(Debug)]
pub(crate) struct WindowState {
    pub(super) plan: Arc<WindowPlan>,
    pub(super) layout: Arc<Layout>,
    /// Those of keys that are numbered here; the others are empty.
    pub(super) dictionaries: Vec<Dictionary>,
    /// Per dictionary: the numbers of the rows of the last batch, for layers above. Such a layer has let go of all events
    /// of a number before it is given to another value: that happens when the next batch comes, and by then the tails
    /// of all layers have passed what the longest of their windows had of it.
    numbers: Vec<Vec<i64>>,
    /// Per dictionary: a row of words per key.
    pub(super) words: Vec<Chunked<u64>>,
    /// What accumulators keep beside words, one each.
    pub(super) kinds: Vec<Kind>,
    /// Per accumulator over a frame in time: whether an event ever counted. Until then all it keeps is
    /// zeroes.
    pub(super) counted: Vec<bool>,
    /// What tells which events repeat a value.
    pub(super) repeats: Vec<Repeats>,
    pub(super) reservoir: Reservoir,
    /// Records of keys whose home is the newest segment, or one that the batch at hand will begin.
    pub(super) records: Vec<KeyRecord>,
    /// Records of keys whose home is about to be forgotten, reused.
    pub(super) homeless: Vec<KeyRecord>,
    /// Per family of columns: the records and labels that are being written, reused.
    pub(super) to_write: Vec<RecordsWriter>,
    /// What events that are still held turned out to be.
    pub(super) labels: BTreeMap<u64, bool>,
    /// Labels that came since the newest segment began.
    pub(super) new_labels: Vec<LabelRecord>,
    /// The event of the newest label: the next is likely to be of an event near it.
    pub(super) last_labelled: u64,
    /// Per tail: the sequence number of the next event it will meet.
    pub(super) tails: Vec<u64>,
    /// Per tail: the events it passes in a step, reused.
    pub(super) passing: Vec<Passing>,
    /// Per course: what happens in it in a step, reused.
    pub(super) courses: Vec<Happening>,
    /// Which keys occur in the rows of a step, reused.
    pub(super) occurrences: Occurrences,
    /// What happens in a window in a step, in order; reused.
    pub(super) order: Order,
    /// What a loop read in a step, reused.
    pub(super) read: Vec<u64>,
}

impl WindowState {
    pub(crate) fn new(plan: Arc<WindowPlan>, layer: usize, store: Arc<dyn SegmentStore>) -> Self {
        let layout = Arc::new(Layout::new(&plan));
        let reservoir = Reservoir::new(first_reservoir(layer), &layout.families, store);
        Self::over(plan, layout, reservoir)
    }

    pub(super) fn over(plan: Arc<WindowPlan>, layout: Arc<Layout>, reservoir: Reservoir) -> Self {
        Self {
            dictionaries: plan.dictionaries.iter().map(|_| Dictionary::new()).collect(),
            numbers: Vec::new(),
            words: layout.words.iter().map(|&width| Chunked::new(width)).collect(),
            kinds: plan.accumulators.iter().map(|&spec| Kind::new(&plan, spec)).collect(),
            counted: vec![false; layout.placed.len()],
            repeats: layout.repeats.iter().map(|_| Repeats::new()).collect(),
            reservoir,
            records: Vec::new(),
            homeless: Vec::new(),
            to_write: layout.families.iter().map(|_| RecordsWriter::default()).collect(),
            labels: BTreeMap::new(),
            new_labels: Vec::new(),
            last_labelled: 0,
            tails: vec![0; layout.tails.len()],
            passing: layout.tails.iter().map(|_| Passing::new(layout.columns)).collect(),
            courses: layout.courses.iter().map(|_| Happening::default()).collect(),
            occurrences: Occurrences::new(),
            order: Order::default(),
            read: Vec::new(),
            layout,
            plan,
        }
    }

    /// Goes on under a plan that keeps the same but may read it otherwise: one with an equal
    /// [`WindowPlan::describe`].
    pub(crate) fn adopt(&mut self, plan: Arc<WindowPlan>) {
        self.layout = Arc::new(Layout::new(&plan));
        self.plan = plan;
    }

    /// Takes in a batch whose `times_us` rise strictly, also from the batch before, and labels that become
    /// known between its rows; returns the window columns of each of its rows in the plan's order. `lower` are the
    /// layers below, which have taken in the batch.
    pub(crate) fn process(
        &mut self,
        batch: &RecordBatch,
        times_us: &[i64],
        labels: &[Label],
        lower: &[Self],
        probe: &mut dyn Probe,
    ) -> Result<Vec<ArrayRef>, ScoreError> {
        let rows = times_us.len();
        let lent = |lender: Lender| lower[lender.layer].numbers[lender.dictionary].as_slice();
        let first_seq = self.reservoir.next_seq();
        let (dictionaries, new_keys) = (&mut self.dictionaries, &mut self.records);
        let mut columns =
            prepare(&self.plan, batch, times_us, first_seq, (dictionaries, new_keys), lent, probe)?;
        self.make_room(lower);
        let mut outputs: Vec<Column> = self.plan.outputs.iter().map(|o| Column::new(o, rows)).collect();
        let labels = self.settle(labels, times_us)?;
        let mut labels = labels.as_slice();
        let mut from = 0;
        while from < rows {
            labels = self.label_all(labels, from)?;
            let next_label = labels.first().map_or(rows, |label| label.before_row);
            let to = rows.min(from + STEP_ROWS.min(self.reservoir.room())).min(next_label);
            let step: Vec<&[i64]> = columns.iter().map(|column| &column[from..to]).collect();
            let first_seq = self.reservoir.next_seq();
            self.reservoir.append(&step);
            self.step(&step, first_seq, &mut outputs, probe)?;
            self.seal_if_full(first_seq);
            self.retire()?;
            from = to;
        }
        self.label_all(labels, rows)?;
        self.keep_unpacked();
        self.numbers = columns.drain(KEYS..).take(self.dictionaries.len()).collect();
        probe.ended(Stage::Tails);
        outputs.into_iter().zip(&self.plan.outputs).map(|(column, output)| column.finish(output)).collect()
    }

    /// Lets go of what was unpacked of segments that nothing is in.
    pub(super) fn keep_unpacked(&mut self) {
        let ahead = self.passing.iter().map(Passing::ahead);
        let places = self.tails.iter().copied().chain(ahead).chain([self.last_labelled]);
        self.reservoir.keep_unpacked(&places.collect::<Vec<_>>());
    }

    /// Makes sure that each key has a row; `lower` are the layers below.
    pub(super) fn make_room(&mut self, lower: &[Self]) {
        for (index, words) in self.words.iter_mut().enumerate() {
            let lender = self.plan.dictionaries[index].lender;
            let numbered = lender.map(|lender| &lower[lender.layer].dictionaries[lender.dictionary]);
            words.grow(numbered.unwrap_or(&self.dictionaries[index]).capacity());
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
            self.check_frames()?;
            let ready = self.cut(&rows[TIME][done..])?;
            if ready == 0 {
                self.catch_up(rows[TIME][done], probe)?;
                self.keep_unpacked();
                continue;
            }
            self.pass(&rows[TIME][done..done + ready])?;
            let part: Vec<&[i64]> = rows.iter().map(|column| &column[done..done + ready]).collect();
            probe.ended(Stage::Tails);
            self.run(&part, first_seq + done as u64, outputs, probe);
            probe.ended(Stage::Windows);
            done += ready;
        }
        Ok(())
    }

    /// Refuses rows when the longest frame may have more events than can be counted with them.
    fn check_frames(&self) -> Result<(), ScoreError> {
        let oldest =
            self.layout.courses.iter().flat_map(|course| &course.leaves).map(|&tail| self.tails[tail]).min();
        let events = oldest.map_or(0, |oldest| self.reservoir.next_seq() - oldest);
        if events <= FRAME_EVENTS { Ok(()) } else { Err(ScoreError::LongFrame { events }) }
    }

    /// Events held for windows that still need them.
    pub(crate) fn live_events(&self) -> u64 {
        self.reservoir.next_seq() - self.reservoir.first_seq()
    }

    /// Keys and distinct values in use.
    pub(crate) fn live_keys(&self) -> usize {
        self.dictionaries.iter().map(Dictionary::live).sum()
    }

    /// Bytes of memory that is kept per key.
    pub(crate) fn state_bytes(&self) -> usize {
        let words: usize = self.words.iter().map(Chunked::bytes).sum();
        words + self.repeats.iter().map(Repeats::bytes).sum::<usize>()
    }

    /// Bytes of sealed segments in the store.
    pub(crate) fn sealed_bytes(&self) -> u64 {
        self.reservoir.sealed_bytes()
    }

    /// Events in sealed segments.
    pub(crate) fn sealed_events(&self) -> u64 {
        let sealed = self.reservoir.sealed(0);
        (sealed.end - sealed.start) * SEGMENT_EVENTS
    }
}

/// The first of the reservoirs that a layer's segments are stored under.
pub(super) fn first_reservoir(layer: usize) -> u32 {
    u32::try_from(layer * MAX_FAMILIES).expect("there are few layers")
}
