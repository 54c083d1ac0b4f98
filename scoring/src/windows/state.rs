//! The state of windows that share a reservoir, moved on from batch to batch.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch};

use super::accumulate::{Ring, key};
use super::chunked::{APPROACH, Chunked, ahead};
use super::course::{Happening, Passing};
use super::dictionary::Dictionary;
use super::drive::{Feed, drive, drive_history, read_only};
use super::inputs::prepare;
use super::kind::{Kind, with_accumulator};
use super::labels::{Label, relabel};
use super::lanes::{self, Lane};
use super::layout::{Group, Layout, Leave, MAX_FAMILIES, Placed, Silence};
use super::read::Column;
use super::records::{KeyRecord, LabelRecord, RecordsWriter};
use super::reservoir::{CONDITIONS, KEYS, Reservoir, SEGMENT_EVENTS, TIME};
use super::spec::WindowPlan;
use crate::error::ScoreError;
use crate::probe::{Probe, Stage};
use crate::store::SegmentStore;

/// Rows taken through all accumulators at a time: what they touch stays in the cache meanwhile.
const STEP_ROWS: usize = 512;
/// Events that one tail passes at a time, which bounds memory after a long silence.
pub(super) const STEP_EVENTS: usize = 16_384;

/// Everything that windows that share a reservoir remember.
#[derive(Debug)]
pub(crate) struct WindowState {
    pub(super) plan: Arc<WindowPlan>,
    pub(super) layout: Arc<Layout>,
    pub(super) dictionaries: Vec<Dictionary>,
    /// Per dictionary: a row of words per key.
    pub(super) words: Vec<Chunked<u64>>,
    /// What accumulators keep beside words, one each.
    pub(super) kinds: Vec<Kind>,
    /// Per accumulator over a frame in time: whether an event ever counted. Until then all it keeps is
    /// zeroes.
    pub(super) counted: Vec<bool>,
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
    /// Per frame: what happens in it in a step, reused.
    pub(super) courses: Vec<Happening>,
    /// What an accumulator read in a step, reused.
    pub(super) read: Vec<u64>,
    /// The same of those that run side by side.
    pub(super) lanes_read: Vec<Vec<u64>>,
}

impl WindowState {
    pub(crate) fn new(plan: Arc<WindowPlan>, layer: usize, store: Arc<dyn SegmentStore>) -> Self {
        let layout = Arc::new(Layout::new(&plan));
        let reservoir = Reservoir::new(first_reservoir(layer), &layout.families, store);
        Self::over(plan, layout, reservoir)
    }

    pub(super) fn over(plan: Arc<WindowPlan>, layout: Arc<Layout>, reservoir: Reservoir) -> Self {
        let kinds = plan.accumulators.iter().zip(&layout.placed);
        Self {
            dictionaries: plan.dictionaries.iter().map(|_| Dictionary::new()).collect(),
            words: layout.words.iter().map(|&width| Chunked::new(width)).collect(),
            kinds: kinds
                .map(|(spec, placed)| Kind::new(&plan, spec.keep, matches!(placed.leave, Leave::Silence(_))))
                .collect(),
            counted: vec![false; layout.placed.len()],
            reservoir,
            records: Vec::new(),
            homeless: Vec::new(),
            to_write: layout.families.iter().map(|_| RecordsWriter::default()).collect(),
            labels: BTreeMap::new(),
            new_labels: Vec::new(),
            last_labelled: 0,
            tails: vec![0; layout.tails.len()],
            passing: layout.tails.iter().map(|_| Passing::new(layout.columns)).collect(),
            courses: layout.courses.iter().map(|_| Happening::new(layout.columns)).collect(),
            read: Vec::new(),
            lanes_read: Vec::new(),
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
    /// known between its rows; returns the window columns of each of its rows in the plan's order.
    pub(crate) fn process(
        &mut self,
        batch: &RecordBatch,
        times_us: &[i64],
        labels: &[Label],
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
        let labels = self.settle(labels)?;
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
        probe.ended(Stage::Tails);
        outputs.into_iter().zip(&self.plan.outputs).map(|(column, output)| column.finish(output)).collect()
    }

    /// Lets go of what was unpacked of segments that nothing is in.
    fn keep_unpacked(&mut self) {
        let places = self.tails.iter().copied().chain([self.last_labelled]);
        self.reservoir.keep_unpacked(&places.collect::<Vec<_>>());
    }

    pub(super) fn make_room(&mut self) {
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
                self.catch_up(rows[TIME][done], probe)?;
                self.keep_unpacked();
                continue;
            }
            for tail in 0..self.tails.len() {
                self.passing[tail].cuts.truncate(ready);
                let events = *self.passing[tail].cuts.last().unwrap_or(&0);
                self.fetch(tail, events)?;
            }
            let part: Vec<&[i64]> = rows.iter().map(|column| &column[done..done + ready]).collect();
            probe.ended(Stage::Tails);
            self.run(&part, first_seq + done as u64, outputs, probe);
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
    fn catch_up(&mut self, now_us: i64, probe: &mut dyn Probe) -> Result<(), ScoreError> {
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
        probe.ended(Stage::Tails);
        self.run(&no_rows, self.reservoir.next_seq(), &mut [], probe);
        probe.ended(Stage::Windows);
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
        if self.layout.tails[tail].columns.contains(&CONDITIONS) {
            relabel(&self.plan, &self.labels, range.clone(), &mut passing.columns[CONDITIONS]);
        }
        self.tails[tail] = range.end;
        Ok(())
    }

    /// Takes the events that were fetched, and rows of which each is read, through all accumulators.
    fn run(&mut self, rows: &[&[i64]], first_seq: u64, outputs: &mut [Column], probe: &mut dyn Probe) {
        let layout = Arc::clone(&self.layout);
        let count = rows[TIME].len();
        for (spec, course) in layout.courses.iter().zip(&mut self.courses) {
            course.follow(spec, &self.passing, rows, first_seq);
            probe.states(&spec.accumulators);
        }
        let each: Vec<usize> = (1..=count).collect();
        let mut expired = Vec::with_capacity(layout.silences.len());
        for silence in &layout.silences {
            expired.push(self.silence(silence, rows, first_seq));
            probe.states(&silence.accumulators);
        }
        self.note_counted(count, outputs);
        for group in &layout.groups {
            self.run_group(group, rows[KEYS + group.key], outputs);
            probe.states(&group.all);
        }
        let mut read = std::mem::take(&mut self.read);
        for &index in &layout.singles {
            let placed = &layout.placed[index];
            let state = &mut self.words[placed.key];
            match placed.leave {
                Leave::Tail { .. } if !self.counted[index] => continue,
                Leave::Tail { course, .. } => {
                    let (happening, spec) = (&mut self.courses[course], &layout.courses[course]);
                    with_accumulator!(&mut self.kinds[index], accumulator => {
                        if happening.passes_by(placed.place.mask) {
                            read_only(accumulator, state, placed.place, rows[KEYS + placed.key], &mut read);
                        } else {
                            let ahead = happening.take_far(placed.key);
                            let course = happening.of(spec, placed, ahead);
                            drive(accumulator, state, placed.place, course, count, &mut read);
                        }
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
            show(&self.plan, placed, &read, count, outputs);
            probe.states(&[index]);
        }
        self.read = read;
        for (tail, spec) in layout.tails.iter().enumerate() {
            for &dictionary in &spec.releases {
                let passing = &self.passing[tail];
                let numbering = &mut self.dictionaries[dictionary];
                let ids = &passing.columns[KEYS + dictionary];
                for (done, (&id, seq)) in ids.iter().zip(passing.first_seq..).enumerate() {
                    if done % APPROACH == 0 {
                        let to_come = &ids[ahead(done, ids.len())];
                        to_come.iter().for_each(|&id| numbering.approach_number(key(id)));
                        let now = ids[done..].iter().map(|&id| key(id)).zip(seq..);
                        numbering.approach_release(now.take(APPROACH));
                    }
                    numbering.release(key(id), seq);
                }
            }
        }
    }

    /// Notes which accumulators events count for. The others, for which none ever did, read nothing.
    fn note_counted(&mut self, rows: usize, outputs: &mut [Column]) {
        for (counted, placed) in self.counted.iter_mut().zip(&self.layout.placed) {
            let Leave::Tail { course, .. } = placed.leave else { continue };
            *counted |= !self.courses[course].passes_by(placed.place.mask);
            if !*counted {
                each_output(placed, outputs, |column, _| column.extend_by_nothing(rows));
            }
        }
    }

    /// Takes counts and sums of one key and frame through it together; those for which no event counts are
    /// only read.
    fn run_group(&mut self, group: &Group, keys: &[i64], outputs: &mut [Column]) {
        let rows = keys.len();
        let layout = Arc::clone(&self.layout);
        let (happening, spec) = (&mut self.courses[group.course], &layout.courses[group.course]);
        let counts =
            |of: &[usize]| of.iter().any(|&index| !happening.passes_by(layout.placed[index].place.mask));
        let ahead = if counts(&group.all) { happening.take_far(group.key) } else { (0, 0) };
        let happening = &*happening;
        let state = &mut self.words[group.key];
        let mut lanes = |of: &[usize]| {
            let counting = of.iter().filter(|&&index| !happening.passes_by(layout.placed[index].place.mask));
            let lane = |&index: &usize| {
                let placed = &layout.placed[index];
                let values = happening.of(spec, placed, ahead).values;
                let out = self.lanes_read.pop().unwrap_or_default();
                (index, Lane { at: placed.place.at, mask: placed.place.mask, values, out })
            };
            counting.map(lane).unzip::<usize, Lane<'_>, Vec<_>, Vec<_>>()
        };
        let ((counts, mut count_lanes), (sums, mut sum_lanes)) = (lanes(&group.counts), lanes(&group.sums));
        if let Some(&any) = counts.iter().chain(&sums).next() {
            let course = happening.of(spec, &layout.placed[any], ahead);
            lanes::run(&mut count_lanes, &mut sum_lanes, state, course, rows);
        }
        for (index, lane) in counts.iter().chain(&sums).zip(count_lanes.into_iter().chain(sum_lanes)) {
            show(&self.plan, &layout.placed[*index], &lane.out, rows, outputs);
            self.lanes_read.push(lane.out);
        }
        for &index in &group.all {
            let placed = &layout.placed[index];
            if self.counted[index] && happening.passes_by(placed.place.mask) {
                with_accumulator!(&self.kinds[index], accumulator => {
                    read_only(accumulator, state, placed.place, keys, &mut self.read);
                }, ring => unreachable!("rows are kept by history"));
                show(&self.plan, placed, &self.read, rows, outputs);
            }
        }
    }

    /// The keys that a silence ends, each with the row before which it does.
    fn silence(&mut self, silence: &Silence, rows: &[&[i64]], first_seq: u64) -> Vec<(usize, u32)> {
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
        let sealed = self.reservoir.sealed(0);
        (sealed.end - sealed.start) * SEGMENT_EVENTS
    }
}

/// The first of the reservoirs that a layer's segments are stored under.
pub(super) fn first_reservoir(layer: usize) -> u32 {
    u32::try_from(layer * MAX_FAMILIES).expect("there are few layers")
}

/// Appends what was read of an accumulator to the outputs that are made of it.
fn show(plan: &WindowPlan, placed: &Placed, read: &[u64], rows: usize, outputs: &mut [Column]) {
    each_output(placed, outputs, |column, output| column.extend(&plan.outputs[output], read, rows));
}

/// Calls `extend` with each output that is made of an accumulator, and its number.
fn each_output(placed: &Placed, outputs: &mut [Column], mut extend: impl FnMut(&mut Column, usize)) {
    for &output in &placed.outputs {
        if let Some(column) = outputs.get_mut(output) {
            extend(column, output);
        }
    }
}
