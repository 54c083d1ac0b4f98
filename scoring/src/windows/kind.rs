//! The kinds of accumulators, of which each has its own loop.

use super::accumulate::{Count, ExtremeEver, FirstEver, FloatSum, IntSquares, IntSum, Last};
use super::distinct::Distinct;
use super::ordered::{Extreme, First};
use super::spec::{Keep, ValueType, WindowPlan};

/// An accumulator's kind with what it keeps beside words.
#[derive(Debug)]
pub(super) enum Kind {
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

impl Kind {
    /// What keeps what is asked for, of all events of a key or of those in a frame, before any came.
    pub(super) fn new(plan: &WindowPlan, keep: Keep, history: bool) -> Self {
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

pub(super) use with_accumulator;
