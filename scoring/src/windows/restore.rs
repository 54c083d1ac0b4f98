//! A checkpoint → the state of windows, as if it had never stopped.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use super::accumulate::key;
use super::dictionary::Dictionary;
use super::drive::{Course, Feed, Walk, drive, holds};
use super::kind::{Kind, with_accumulator};
use super::labels::relabel;
use super::layout::{Layout, Leave, Placed, RepeatsOf};
use super::records::KeyOf;
use super::reservoir::{CONDITIONS, KEYS, Reservoir, TIME};
use super::runs::{Act, Order};
use super::segment::Segment;
use super::spec::{Lender, WindowPlan};
use super::state::{WindowState, first_reservoir};
use super::tails::STEP_EVENTS;
use crate::binary::Reader;
use crate::error::{ScoreError, SnapshotError};
use crate::store::SegmentStore;

impl WindowState {
    /// Restores what [`Self::write`] wrote under an equal plan. Accumulators are not stored: they are
    /// what the events between two tails add up to. `lower` are the layers below, restored.
    pub(crate) fn restore(
        plan: Arc<WindowPlan>,
        layer: usize,
        store: Arc<dyn SegmentStore>,
        input: &mut Reader<'_>,
        lower: &[Self],
    ) -> Result<Self, SnapshotError> {
        let layout = Arc::new(Layout::new(&plan));
        let newest = input.u64()?;
        let tails = input.u64s()?;
        let sealed = layout.families.iter().map(|_| Ok((input.u64()?, input.u64s()?)));
        let sealed: Vec<(u64, Vec<u64>)> = sealed.collect::<Result<_, SnapshotError>>()?;
        let open: Arc<[u8]> = input.bytes()?.into();
        let mut open = Segment::open(&mut Reader::part(&open), Arc::clone(&open), newest, layout.columns)?;
        let mut reservoir = Reservoir::new(first_reservoir(layer), &layout.families, store);
        reservoir.restore_open(newest, &mut open)?;
        let (mut keys, mut labels) = (Vec::new(), Vec::new());
        for (family, (first, checksums)) in sealed.iter().enumerate() {
            for (home, records) in (*first..).zip(reservoir.restore_family(family, *first, checksums)?) {
                keys.extend(records.keys.into_iter().map(|key| (home, key)));
                labels.extend(records.labels);
            }
        }
        let mut state = Self::over(plan, layout, reservoir);
        let bounds = state.reservoir.first_seq()..=state.reservoir.next_seq();
        if tails.len() != state.tails.len() || !tails.iter().all(|tail| bounds.contains(tail)) {
            return Err(SnapshotError::Damaged("the tails do not fit the reservoir"));
        }
        state.tails = tails;
        let records = open.records()?;
        state.records = records.keys.iter().map(|(record, _)| record.clone()).collect();
        state.restore_labels(labels.into_iter().chain(records.labels.iter().copied()));
        state.new_labels = records.labels;
        keys.extend(records.keys.into_iter().map(|key| (newest, key)));
        state.restore_keys(&keys, lower)?;
        state.restore_ranges().map_err(unreadable)?;
        state.restore_histories(&keys).map_err(unreadable)?;
        Ok(state)
    }

    fn restore_keys(&mut self, records: &[(u64, KeyOf)], lower: &[Self]) -> Result<(), SnapshotError> {
        for (home, (record, value)) in records {
            let dictionary = self.dictionaries.get_mut(record.dictionary);
            let dictionary = dictionary.ok_or(SnapshotError::Damaged("a key of an unknown dictionary"))?;
            dictionary.place(record.id, value, *home);
        }
        let (plan, layout) = (Arc::clone(&self.plan), Arc::clone(&self.layout));
        for (index, spec) in plan.dictionaries.iter().enumerate() {
            let reads =
                layout.tails.iter().zip(&self.tails).filter(|(t, _)| t.columns.contains(&(KEYS + index)));
            let oldest = reads.map(|(_, &seq)| seq).min().unwrap_or(self.reservoir.next_seq());
            for part in parts(oldest..self.reservoir.next_seq()) {
                let mut ids = Vec::new();
                self.reservoir.gather(KEYS + index, part.clone(), &mut ids).map_err(unreadable)?;
                let mut known = ids.iter().map(|&id| key(id)).zip(part);
                let known = match spec.lender {
                    None => known.all(|(id, seq)| self.dictionaries[index].hold(id, seq)),
                    Some(Lender { layer, dictionary }) => {
                        known.all(|(id, _)| lower[layer].dictionaries[dictionary].is_live(id))
                    }
                };
                if !known {
                    return Err(SnapshotError::Damaged("an event has a key that no segment knows"));
                }
                self.reservoir.keep_unpacked(&[]);
            }
        }
        self.dictionaries.iter_mut().for_each(Dictionary::index);
        self.make_room(lower);
        Ok(())
    }

    /// Lets the events that are between two tails enter the frames between them, reading each segment
    /// once.
    fn restore_ranges(&mut self) -> Result<(), ScoreError> {
        let layout = Arc::clone(&self.layout);
        for part in parts(self.reservoir.first_seq()..self.reservoir.next_seq()) {
            for index in 0..layout.repeats.len() {
                self.enter_repeats(index, &layout.repeats[index], part.clone())?;
            }
            for (index, placed) in layout.placed.iter().enumerate() {
                let Leave::Tail(leave) = placed.leave else { continue };
                let inside = self.entered(&part, self.tails[leave], placed.enter);
                if !inside.is_empty() {
                    self.enter_all(index, placed, inside)?;
                }
            }
            for (repeats, spec) in self.repeats.iter_mut().zip(&layout.repeats) {
                repeats.settle(spec.oldest(|tail| self.tails[tail]));
            }
            self.reservoir.keep_unpacked(&[]);
        }
        Ok(())
    }

    /// Those of some events that have entered at a tail, or on arrival, and that are not before `oldest`.
    fn entered(&self, part: &Range<u64>, oldest: u64, enter: Option<usize>) -> Range<u64> {
        let end = enter.map_or(self.reservoir.next_seq(), |enter| self.tails[enter]);
        part.start.max(oldest)..part.end.min(end)
    }

    /// Looks up which of some events repeat others.
    fn enter_repeats(&mut self, index: usize, spec: &RepeatsOf, part: Range<u64>) -> Result<(), ScoreError> {
        let oldest = spec.oldest(|tail| self.tails[tail]);
        let part = self.entered(&part, oldest, spec.enter);
        let mut columns: Vec<Vec<i64>> = vec![Vec::new(); self.layout.columns];
        let conditions = (spec.mask > 0).then_some(CONDITIONS);
        for column in [KEYS + spec.key, KEYS + spec.value].into_iter().chain(conditions) {
            self.reservoir.gather(column, part.clone(), &mut columns[column])?;
        }
        let pairs = spec.pairs(part.start, |column| &columns[column]);
        self.repeats[index].enter(self.words[spec.key].room(), pairs, oldest);
        Ok(())
    }

    /// Lets events enter the frame of one accumulator.
    fn enter_all(&mut self, index: usize, placed: &Placed, part: Range<u64>) -> Result<(), ScoreError> {
        let Leave::Tail(leave) = placed.leave else { unreachable!("histories are restored apart") };
        let frame_from = self.tails[leave];
        let mut column = |column: usize| {
            let mut values = Vec::new();
            self.reservoir.gather(column, part.clone(), &mut values).map(|()| values)
        };
        let keys = column(KEYS + placed.key)?;
        let conditions = match placed.repeats {
            Some(told) => self.repeats[told].tell_new(placed.place.mask, part.clone(), frame_from),
            // Where nothing is asked of a column, any will do.
            None if placed.place.mask | placed.place.valid_mask == 0 => column(TIME)?,
            None => {
                let mut conditions = column(CONDITIONS)?;
                relabel(&self.plan, &self.labels, part.clone(), &mut conditions);
                conditions
            }
        };
        let values = column(placed.column.unwrap_or(TIME))?;
        let order = Order::of_all(Act::Enter, keys.len());
        let words = placed.place.at..placed.place.at + placed.place.words;
        let spans = self.words[placed.key].spans(&[words]);
        let walk = Walk { order: &order, rows: 0, spans: &spans };
        let feed = Feed { first_seq: part.start, keys: &keys, conditions: &conditions, values: &values };
        let course = Course::new(Feed::NONE, Some(feed), std::iter::empty());
        self.counted[index] |= conditions.iter().any(|&bits| holds(bits, placed.place.mask));
        let (state, read) = (&mut self.words[placed.key], &mut self.read);
        with_accumulator!(&mut self.kinds[index], accumulator => {
            drive(accumulator, state, placed.place, &course, walk, read);
        }, ring => unreachable!("rows are kept by history"));
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
            let mut last_us = vec![None; since.len()];
            let first = self.reservoir.first_seq_of(KEYS + dictionary);
            for part in parts(first..self.reservoir.next_seq()) {
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
        last_us: &mut [Option<i64>],
    ) -> Result<(), ScoreError> {
        let layout = Arc::clone(&self.layout);
        let mut columns: Vec<Vec<i64>> = vec![Vec::new(); layout.columns];
        let histories = layout.placed.iter().filter(|p| p.key == dictionary && p.leave == Leave::Silence);
        let mut asked = BTreeSet::from([TIME, KEYS + dictionary]);
        for placed in histories {
            asked.extend(placed.column);
            if placed.place.mask | placed.place.valid_mask != 0 {
                asked.insert(CONDITIONS);
            }
        }
        for column in asked {
            self.reservoir.gather(column, part.clone(), &mut columns[column])?;
        }
        for (row, seq) in (part.start..part.end).enumerate() {
            let id = key(columns[KEYS + dictionary][row]) as usize;
            let time_us = columns[TIME][row];
            let Some(&from) = since.get(id) else { continue };
            let own = self.words[dictionary].row_mut(id);
            let before_us = last_us[id].replace(time_us);
            let silent_us = before_us.map_or(0, |before_us| time_us.saturating_sub(before_us));
            for silence in layout.silences.iter().filter(|silence| silence.key == dictionary) {
                if seq >= from && silent_us > silence.expiry_us {
                    silence.forget(&layout, own);
                }
                own[silence.at] = seq + 1;
                if seq < from {
                    continue;
                }
                for &index in &silence.accumulators {
                    let Placed { place, column, .. } = &layout.placed[index];
                    // Where nothing is asked of a column, any will do.
                    let of_row = |column: usize| columns[column].get(row).copied().unwrap_or_default();
                    let value = of_row(column.unwrap_or(TIME));
                    let id = key(columns[KEYS + dictionary][row]);
                    if let Some(item) = place.item(of_row(CONDITIONS), seq, id, value) {
                        self.kinds[index].add(place.of_mut(own), item);
                    }
                }
            }
        }
        Ok(())
    }

    /// Forgets the histories of keys whose newest event the silence's tail has passed.
    fn end_silences(&mut self, dictionary: usize) {
        let layout = Arc::clone(&self.layout);
        for silence in layout.silences.iter().filter(|silence| silence.key == dictionary) {
            for id in 0..self.dictionaries[dictionary].capacity() {
                let own = self.words[dictionary].row_mut(id);
                if own[silence.at] > 0 && own[silence.at] <= self.tails[silence.tail] {
                    silence.forget(&layout, own);
                }
            }
        }
    }
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
