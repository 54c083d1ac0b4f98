//! Where each accumulator lives, and which of them each tail touches: worked out once from the plan.

use std::collections::BTreeMap;

use super::spec::{Keep, WindowPlan};

/// What entering or leaving a frame does to one accumulator of a key.
#[derive(Debug, Clone, Copy)]
pub(super) enum Op {
    /// Add one to, or take one from, a word.
    Count { word: usize },
    /// Add a value to, or take it from, a 128-bit sum in two words.
    Sum { word: usize, value: usize },
    /// Keep a monotone deque of values; `sign` is -1 for a minimum, so that a maximum serves both.
    Extreme { side: usize, value: usize, sign: i64 },
    /// Count how often each number of a dictionary is in the frame.
    Distinct { side: usize, dictionary: usize },
}

/// One accumulator as a tail sees it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    /// The bit of the event's conditions that must be set.
    pub(super) condition_mask: u64,
    pub(super) op: Op,
}

/// The steps on one key of an event, so that its row of words is found once.
#[derive(Debug, Clone)]
pub(super) struct KeySteps {
    pub(super) key: usize,
    pub(super) steps: Vec<Step>,
}

/// A walk over the reservoir at a fixed distance behind the present.
#[derive(Debug, Clone)]
pub(super) struct Tail {
    /// The distance, in microseconds.
    pub(super) bound_us: i64,
    /// Whether events come in here (a delayed frame begins) or go out.
    pub(super) enters: bool,
    pub(super) steps: Vec<KeySteps>,
    /// Dictionaries that no longer need an event past this tail.
    pub(super) releases: Vec<usize>,
}

/// Where an accumulator's state lives among its key's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) key: usize,
    pub(super) op: Op,
}

/// The sizes of what is kept per key of one dictionary.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct KeySizes {
    pub(super) words: usize,
    pub(super) extremes: usize,
    pub(super) distincts: usize,
}

#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// One per accumulator of the plan.
    pub(super) places: Vec<Place>,
    /// One per dictionary of the plan.
    pub(super) sizes: Vec<KeySizes>,
    /// What an event does on arrival.
    pub(super) arrival: Vec<KeySteps>,
    /// Those that let events in, then those that take them out from near to far: an event that does
    /// both between two events must enter before it leaves, and be released last.
    pub(super) tails: Vec<Tail>,
}

impl Layout {
    pub(super) fn new(plan: &WindowPlan) -> Self {
        let mut sizes = vec![KeySizes::default(); plan.dictionaries.len()];
        let places: Vec<Place> = plan
            .accumulators
            .iter()
            .map(|a| Place { key: a.key, op: place(a.keep, &mut sizes[a.key]) })
            .collect();

        let mut arrival = Vec::new();
        let mut tails: BTreeMap<(bool, i64), Tail> = BTreeMap::new();
        for (index, accumulator) in plan.accumulators.iter().enumerate() {
            let step = Step {
                condition_mask: accumulator.condition.map_or(0, |bit| 1 << bit),
                op: places[index].op,
            };
            let start = tail(&mut tails, false, accumulator.frame.start_us);
            add(&mut start.steps, accumulator.key, step);
            match accumulator.frame.end_us {
                None => add(&mut arrival, accumulator.key, step),
                Some(end_us) => add(&mut tail(&mut tails, true, end_us).steps, accumulator.key, step),
            }
        }
        for (index, dictionary) in plan.dictionaries.iter().enumerate() {
            tail(&mut tails, false, dictionary.keep_us).releases.push(index);
        }
        Self { places, sizes, arrival, tails: tails.into_values().collect() }
    }
}

fn place(keep: Keep, sizes: &mut KeySizes) -> Op {
    let next = |counter: &mut usize, by: usize| {
        *counter += by;
        *counter - by
    };
    match keep {
        Keep::Count => Op::Count { word: next(&mut sizes.words, 1) },
        Keep::Sum(value) => Op::Sum { word: next(&mut sizes.words, 2), value },
        Keep::Min(value) => Op::Extreme { side: next(&mut sizes.extremes, 1), value, sign: -1 },
        Keep::Max(value) => Op::Extreme { side: next(&mut sizes.extremes, 1), value, sign: 1 },
        Keep::Distinct(dictionary) => Op::Distinct { side: next(&mut sizes.distincts, 1), dictionary },
    }
}

fn tail(tails: &mut BTreeMap<(bool, i64), Tail>, enters: bool, bound_us: i64) -> &mut Tail {
    // `false` sorts first, and tails that let events in must run first.
    tails.entry((!enters, bound_us)).or_insert_with(|| Tail {
        bound_us,
        enters,
        steps: Vec::new(),
        releases: Vec::new(),
    })
}

fn add(keys: &mut Vec<KeySteps>, key: usize, step: Step) {
    match keys.iter_mut().find(|k| k.key == key) {
        Some(k) => k.steps.push(step),
        None => keys.push(KeySteps { key, steps: vec![step] }),
    }
}
