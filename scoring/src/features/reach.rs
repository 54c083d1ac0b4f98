//! How far back each column looks.

use datafusion::logical_expr::Expr;

use super::plan::{Planner, Source, slots_of};
use super::window::Builder;
use crate::windows::spec::{AccumulatorSpec, Argument, Keep, WindowPlan};

impl Planner {
    /// Per slot: how long before a row an event may lie that the row's value depends on, in microseconds. 0
    /// for what the transaction itself says. A window reaches as far back as its frame does, and from there
    /// as far as what it is made of. For a key's history that is its expiry: of a key that is never silent
    /// for so long, more is known the longer the system runs.
    pub(super) fn reaches_us(&self) -> Vec<i64> {
        let mut reaches_us: Vec<i64> = Vec::with_capacity(self.slots.len());
        for slot in &self.slots {
            // Slots are numbered in the order they can be computed: those below are known.
            let longest = |expr: &Expr| slots_of(expr).into_iter().map(|slot| reaches_us[slot]).max();
            let reach_us = match &slot.source {
                Source::Relation | Source::Label => 0,
                Source::Expression(expr) => longest(expr).unwrap_or(0),
                Source::Window(output) => {
                    let Builder { plan, inputs } = &self.layers[slot.layer - 1];
                    let accumulator = &plan.accumulators[plan.outputs[*output].read.of];
                    let below = inputs_of(plan, accumulator).into_iter().filter_map(|i| longest(&inputs[i]));
                    accumulator.frame.keep_us().saturating_add(below.max().unwrap_or(0))
                }
            };
            reaches_us.push(reach_us);
        }
        reaches_us
    }
}

/// The inputs that an accumulator is made of: its key, what it keeps, and what decides which events count.
fn inputs_of(plan: &WindowPlan, accumulator: &AccumulatorSpec) -> Vec<usize> {
    let (mut values, mut dictionaries) = (None, vec![accumulator.key]);
    let mut conditions: Vec<usize> = accumulator.condition.into_iter().collect();
    match accumulator.keep {
        Keep::Sum { value, .. } | Keep::Min(value) | Keep::Max(value) => values = Some(value),
        Keep::Distinct(dictionary) => dictionaries.push(dictionary),
        _ => {}
    }
    if let Some(Argument { value, valid }) = accumulator.keep.argument() {
        values = value;
        conditions.extend(valid);
    }
    let labelled = plan.labelled.iter().filter(|labelled| conditions.contains(&labelled.unknown));
    let labelled: Vec<usize> = labelled.flat_map(|labelled| [labelled.fraud, labelled.legit]).collect();
    let of_condition = |condition: usize| {
        let condition = &plan.conditions[condition];
        condition.filter.into_iter().chain(condition.argument.map(|(input, _)| input))
    };
    let of_conditions = conditions.into_iter().chain(labelled).flat_map(of_condition);
    let of_keys =
        dictionaries.into_iter().flat_map(|dictionary| plan.dictionaries[dictionary].inputs.clone());
    of_keys.chain(values.map(|value| plan.values[value].input)).chain(of_conditions).collect()
}
