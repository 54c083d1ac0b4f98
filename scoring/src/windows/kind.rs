//! The kinds of accumulators, of which each has its own loop.

use super::accumulate::{
    Accumulate, Count, ExtremeEver, FirstEver, FloatSum, History as _, IntSquares, IntSum, IntSumEver, Item,
    Last, Previous, Ring, ring_words,
};
use super::distinct::Distinct;
use super::ordered::{Extreme, First};
use super::spec::{AccumulatorSpec, Frame, Keep, ValueType, WindowPlan};

/// Places for values in the row of a key behind the smallest or largest: where its frame is a long one, more than most
/// keys need, so that few events touch more than the row, and few make room there. Of shorter frames there are fewer,
/// since a row is there for each key.
const MANY: usize = 7;
const FEW: usize = 1;

/// Calls a generic function with the accumulator that a kind holds.
macro_rules! with_accumulator {
    ($kind:expr, $accumulator:ident => $do:expr, ring => $ring:expr) => {
        match $kind {
            Kind::Count($accumulator) => $do,
            Kind::IntSum($accumulator) => $do,
            Kind::IntSquares($accumulator) => $do,
            Kind::IntSumEver($accumulator) => $do,
            Kind::IntSquaresEver($accumulator) => $do,
            Kind::FloatSum($accumulator) => $do,
            Kind::FloatSquares($accumulator) => $do,
            Kind::Min($accumulator) => $do,
            Kind::Max($accumulator) => $do,
            Kind::MinOfMany($accumulator) => $do,
            Kind::MaxOfMany($accumulator) => $do,
            Kind::Distinct($accumulator) => $do,
            Kind::MinEver($accumulator) => $do,
            Kind::MaxEver($accumulator) => $do,
            Kind::First($accumulator) => $do,
            Kind::FirstEver($accumulator) => $do,
            Kind::Last($accumulator) => $do,
            Kind::Previous($accumulator) => $do,
            Kind::Ring => $ring,
        }
    };
}

/// An accumulator's kind with what it keeps beside words.
#[derive(Debug)]
pub(super) enum Kind {
    Count(Count),
    IntSum(IntSum),
    IntSquares(IntSquares),
    IntSumEver(IntSumEver<false>),
    IntSquaresEver(IntSumEver<true>),
    FloatSum(FloatSum<false>),
    FloatSquares(FloatSum<true>),
    Min(Extreme<true, FEW>),
    Max(Extreme<false, FEW>),
    MinOfMany(Extreme<true, MANY>),
    MaxOfMany(Extreme<false, MANY>),
    Distinct(Distinct),
    MinEver(ExtremeEver<true>),
    MaxEver(ExtremeEver<false>),
    First(First),
    FirstEver(FirstEver),
    Last(Last),
    Previous(Previous),
    Ring,
}

impl Kind {
    /// What keeps what is asked for of the events in a frame, before any came.
    pub(super) fn new(plan: &WindowPlan, spec: AccumulatorSpec) -> Self {
        let AccumulatorSpec { keep, frame, .. } = spec;
        let history = matches!(frame, Frame::History { .. });
        match keep {
            Keep::Count => Self::Count(Count),
            // Of different values, the events that bring one, where it is told which do.
            Keep::Distinct(_) if plan.told(&spec).is_some() => Self::Count(Count),
            Keep::Distinct(_) => Self::Distinct(Distinct::new()),
            Keep::Sum { value, squares } => match (plan.value_type(value), squares) {
                (ValueType::Int, false) if history => Self::IntSumEver(IntSumEver),
                (ValueType::Int, true) if history => Self::IntSquaresEver(IntSumEver),
                (ValueType::Int, false) => Self::IntSum(IntSum),
                (ValueType::Int, true) => Self::IntSquares(IntSquares),
                (ValueType::Float, false) => Self::FloatSum(FloatSum),
                (ValueType::Float, true) => Self::FloatSquares(FloatSum),
            },
            Keep::Min(_) if history => Self::MinEver(ExtremeEver),
            Keep::Max(_) if history => Self::MaxEver(ExtremeEver),
            Keep::Min(_) if frame.is_long() => Self::MinOfMany(Extreme::new()),
            Keep::Min(_) => Self::Min(Extreme::new()),
            Keep::Max(_) if frame.is_long() => Self::MaxOfMany(Extreme::new()),
            Keep::Max(_) => Self::Max(Extreme::new()),
            Keep::First(_) if history => Self::FirstEver(FirstEver),
            Keep::First(_) => Self::First(First::new()),
            Keep::Last(_) => Self::Last(Last),
            Keep::Previous(_) => Self::Previous(Previous),
            Keep::Ring { .. } => Self::Ring,
        }
    }

    /// Lets an event into a key's whole history; `words` are those of the key.
    #[inline(always)]
    pub(super) fn add(&mut self, words: &mut [u64], item: Item) {
        with_accumulator!(self, accumulator => accumulator.add(words, item), ring => Ring.add(words, item));
    }
}

/// Words per key of an accumulator.
pub(crate) fn words_of(plan: &WindowPlan, spec: AccumulatorSpec) -> usize {
    words_and_left(plan, spec).0
}

/// Words per key of an accumulator, and how many of the first of them most events touch as they leave.
pub(super) fn words_and_left(plan: &WindowPlan, spec: AccumulatorSpec) -> (usize, usize) {
    const fn words<A: Accumulate>(_: &A) -> (usize, usize) {
        (A::WORDS, A::LEFT)
    }
    match spec.keep {
        Keep::Ring { rows, .. } => (ring_words(rows), 0),
        _ => with_accumulator!(&Kind::new(plan, spec), accumulator => words(accumulator),
            ring => unreachable!("it is no ring")),
    }
}

pub(super) use with_accumulator;
