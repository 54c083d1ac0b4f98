//! The state of all windows, moved on from event to event.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch};
use datafusion::arrow::compute::cast;

use super::dictionary::Dictionary;
use super::inputs::{BatchInputs, KeyEncoders, prepare};
use super::keyed::KeyedState;
use super::layout::{KeySteps, Layout, Tail};
use super::reservoir::{EventRef, Reservoir};
use super::spec::{Read, ValueType, WindowPlan};
use super::values::ordered_to_float;
use crate::binary::{Reader, Writer};
use crate::error::{ScoreError, SnapshotError};

/// Everything the windows remember.
#[derive(Debug)]
pub(crate) struct WindowState {
    plan: Arc<WindowPlan>,
    layout: Arc<Layout>,
    encoders: KeyEncoders,
    dictionaries: Vec<Dictionary>,
    keyed: Vec<KeyedState>,
    reservoir: Reservoir,
    /// Per tail: the sequence number of the next event it will meet.
    tails: Vec<u64>,
}

/// One output column under construction.
enum Column {
    Int(Vec<Option<i64>>),
    Float(Vec<Option<f64>>),
}

impl WindowState {
    pub(crate) fn new(plan: Arc<WindowPlan>) -> Self {
        let layout = Arc::new(Layout::new(&plan));
        Self {
            encoders: KeyEncoders::new(&plan),
            dictionaries: plan.dictionaries.iter().map(|_| Dictionary::default()).collect(),
            keyed: layout.sizes.iter().map(|&sizes| KeyedState::new(sizes)).collect(),
            reservoir: Reservoir::new(plan.dictionaries.len(), plan.values.len()),
            tails: vec![0; layout.tails.len()],
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
    ) -> Result<Vec<ArrayRef>, ScoreError> {
        let inputs = prepare(&self.plan, batch, &mut self.encoders, &mut self.dictionaries)?;
        for (dictionary, keyed) in self.dictionaries.iter().zip(&mut self.keyed) {
            keyed.grow(dictionary.capacity());
        }
        let rows = times_us.len();
        let mut columns: Vec<Column> = self.plan.outputs.iter().map(|o| Column::new(o.read, rows)).collect();
        for (row, &time_us) in times_us.iter().enumerate() {
            let event = inputs.event(row, time_us, self.plan.dictionaries.len(), self.plan.values.len());
            self.advance(time_us);
            let seq = self.reservoir.next_seq();
            self.reservoir.push(event);
            enter_all(&mut self.keyed, &self.layout.arrival, seq, event);
            for (output, column) in self.plan.outputs.iter().zip(&mut columns) {
                self.read(output.read, event.ids, column);
            }
        }
        let oldest = self.tails.iter().copied().min().unwrap_or(self.reservoir.next_seq());
        self.reservoir.forget_before(oldest);
        columns.into_iter().zip(&self.plan.outputs).map(|(c, o)| c.finish(&o.data_type)).collect()
    }

    /// Moves every tail up to `now_us`: events that are old enough enter delayed frames, events that
    /// are too old leave.
    fn advance(&mut self, now_us: i64) {
        let layout = Arc::clone(&self.layout);
        for (tail, next) in layout.tails.iter().zip(0..) {
            let edge_us = now_us.saturating_sub(tail.bound_us);
            while self.tails[next] < self.reservoir.next_seq() {
                let seq = self.tails[next];
                let time_us = self.reservoir.time_us(seq);
                // Both ends of a frame are part of it.
                if time_us > edge_us || (time_us == edge_us && !tail.enters) {
                    break;
                }
                self.pass(tail, seq);
                self.tails[next] = seq + 1;
            }
        }
    }

    fn pass(&mut self, tail: &Tail, seq: u64) {
        let event = self.reservoir.get(seq);
        if tail.enters {
            enter_all(&mut self.keyed, &tail.steps, seq, event);
            return;
        }
        for key in &tail.steps {
            self.keyed[key.key].leave(event.ids[key.key], &key.steps, seq, event);
        }
        for &dictionary in &tail.releases {
            self.dictionaries[dictionary].release(event.ids[dictionary]);
        }
    }

    fn read(&self, read: Read, ids: &[u32], column: &mut Column) {
        let place = |accumulator: usize| {
            let place = self.layout.places[accumulator];
            (&self.keyed[place.key], ids[place.key], place.op)
        };
        let count = |accumulator| {
            let (keyed, key, op) = place(accumulator);
            keyed.count(key, op)
        };
        let sum = |accumulator| {
            let (keyed, key, op) = place(accumulator);
            keyed.sum(key, op)
        };
        match (read, column) {
            (Read::Count(of), Column::Int(list)) => list.push(Some(saturate(i128::from(count(of))))),
            (Read::Sum { sum: of, count: n }, Column::Int(list)) => {
                list.push((count(n) > 0).then(|| saturate(sum(of))));
            }
            (Read::Average { sum: of, count: n }, Column::Float(list)) => {
                let n = count(n);
                #[allow(clippy::cast_precision_loss)] // an average is a float, as in SQL
                list.push((n > 0).then(|| sum(of) as f64 / n as f64));
            }
            (Read::Extreme { of, .. }, column) => {
                let (keyed, key, op) = place(of);
                let value = keyed.extreme(key, op);
                match column {
                    Column::Int(list) => list.push(value),
                    Column::Float(list) => list.push(value.map(ordered_to_float)),
                }
            }
            (Read::Count(_) | Read::Sum { .. } | Read::Average { .. }, _) => {
                unreachable!("Column::new makes the column that fits the read")
            }
        }
    }

    pub(crate) fn write(&self, out: &mut Writer) {
        for dictionary in &self.dictionaries {
            dictionary.write(out);
        }
        self.reservoir.write(out);
        out.u64s(&self.tails);
    }

    /// Restores what [`Self::write`] wrote under an equal plan. Accumulators are not stored: they
    /// are what the events between two tails add up to.
    pub(crate) fn restore(plan: Arc<WindowPlan>, input: &mut Reader<'_>) -> Result<Self, SnapshotError> {
        let mut state = Self::new(plan);
        for dictionary in &mut state.dictionaries {
            *dictionary = Dictionary::read(input)?;
        }
        let (ids, values) = (state.plan.dictionaries.len(), state.plan.values.len());
        state.reservoir = Reservoir::read(ids, values, input)?;
        state.tails = input.u64s()?;
        let bounds = state.reservoir.first_seq()..=state.reservoir.next_seq();
        if state.tails.len() != state.layout.tails.len() || !state.tails.iter().all(|t| bounds.contains(t)) {
            return Err(SnapshotError::Damaged("the tails do not fit the reservoir"));
        }
        for (dictionary, keyed) in state.dictionaries.iter().zip(&mut state.keyed) {
            keyed.grow(dictionary.capacity());
        }
        state.rebuild()?;
        Ok(state)
    }

    fn rebuild(&mut self) -> Result<(), SnapshotError> {
        let layout = Arc::clone(&self.layout);
        for seq in self.reservoir.first_seq()..self.reservoir.next_seq() {
            let event = self.reservoir.get(seq);
            let live = |(id, d): (&u32, &Dictionary)| (*id as usize) < d.capacity();
            if !event.ids.iter().zip(&self.dictionaries).all(live) {
                return Err(SnapshotError::Damaged("an event has a key that no dictionary holds"));
            }
            // An event is in a frame when the tail that lets it in has met it and the one that takes
            // it out has not. What has left again leaves nothing behind.
            enter_all(&mut self.keyed, &layout.arrival, seq, event);
            let mut met = layout.tails.iter().zip(&self.tails).filter(|&(_, &next)| seq < next);
            for (tail, _) in met.by_ref() {
                if tail.enters {
                    enter_all(&mut self.keyed, &tail.steps, seq, event);
                } else {
                    for key in &tail.steps {
                        self.keyed[key.key].leave(event.ids[key.key], &key.steps, seq, event);
                    }
                }
            }
        }
        Ok(())
    }

    /// Events held for windows that still need them.
    pub(crate) fn live_events(&self) -> u64 {
        self.reservoir.next_seq() - self.reservoir.first_seq()
    }
}

fn enter_all(keyed: &mut [KeyedState], steps: &[KeySteps], seq: u64, event: EventRef<'_>) {
    for key in steps {
        keyed[key.key].enter(event.ids[key.key], &key.steps, seq, event);
    }
}

/// A sum beyond an `i64` stays at its end: amounts are bounded so that nine million of the largest
/// fit, and a rule that asks for "more than" still holds.
fn saturate(sum: i128) -> i64 {
    i64::try_from(sum).unwrap_or(if sum < 0 { i64::MIN } else { i64::MAX })
}

impl BatchInputs {
    fn event(&self, row: usize, time_us: i64, ids: usize, values: usize) -> EventRef<'_> {
        EventRef {
            time_us,
            conditions: self.conditions[row],
            ids: &self.ids[row * ids..(row + 1) * ids],
            values: &self.values[row * values..(row + 1) * values],
        }
    }
}

impl Column {
    fn new(read: Read, rows: usize) -> Self {
        match read {
            Read::Average { .. } | Read::Extreme { value_type: ValueType::Float, .. } => {
                Self::Float(Vec::with_capacity(rows))
            }
            Read::Count(_) | Read::Sum { .. } | Read::Extreme { value_type: ValueType::Int, .. } => {
                Self::Int(Vec::with_capacity(rows))
            }
        }
    }

    fn finish(self, data_type: &datafusion::arrow::datatypes::DataType) -> Result<ArrayRef, ScoreError> {
        let array: ArrayRef = match self {
            Self::Int(list) => Arc::new(Int64Array::from(list)),
            Self::Float(list) => Arc::new(Float64Array::from(list)),
        };
        if array.data_type() == data_type {
            return Ok(array);
        }
        cast(&array, data_type).map_err(|source| ScoreError::Evaluate {
            expression: "a window".to_owned(),
            source: source.into(),
        })
    }
}
