//! What a window keeps: the plan that feature SQL is turned into.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::physical_expr::PhysicalExpr;

/// The widest range of condition bits an event can carry.
pub(crate) const MAX_CONDITIONS: usize = 64;

/// A time frame before the current event: events from `start_us` to `end_us` before it, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Frame {
    /// How far back the frame begins, in microseconds.
    pub(crate) start_us: i64,
    /// How far back it ends; `None` for the current event itself.
    pub(crate) end_us: Option<i64>,
}

/// An expression over a batch of transactions.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    /// Its text: equal texts are one input.
    pub(crate) text: String,
    /// How it is computed.
    pub(crate) expr: Arc<dyn PhysicalExpr>,
}

/// A numbering of the distinct values of one or more expressions: window keys, or what a
/// `count(DISTINCT …)` counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DictionarySpec {
    /// The inputs that together make the value.
    pub(crate) inputs: Vec<usize>,
    /// For how long after an event its value keeps its number, in microseconds.
    pub(crate) keep_us: i64,
}

/// When an event counts: its filter holds, and the argument is not null.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConditionSpec {
    /// `FILTER (WHERE …)`: a boolean input.
    pub(crate) filter: Option<usize>,
    /// The input that is the aggregate's argument, unless it is `*`.
    pub(crate) not_null: Option<usize>,
}

/// How the 64 bits of a stored value are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ValueType {
    /// A signed integer.
    Int,
    /// A float, stored in the order-preserving form of [`super::values::float_to_ordered`].
    Float,
}

/// A number that an aggregate takes from each event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ValueSpec {
    /// Which input it is.
    pub(crate) input: usize,
    /// How it is stored.
    pub(crate) value_type: ValueType,
}

/// What an accumulator keeps of the events in its frame. The numbers are indexes into the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Keep {
    /// How many.
    Count,
    /// The sum of an integer value.
    Sum(usize),
    /// The smallest value.
    Min(usize),
    /// The largest value.
    Max(usize),
    /// How many different numbers of a dictionary.
    Distinct(usize),
}

/// One accumulator per key of a dictionary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct AccumulatorSpec {
    /// The dictionary of the window's key.
    pub(crate) key: usize,
    /// The frame.
    pub(crate) frame: Frame,
    /// The condition, if any: an index into the plan's.
    pub(crate) condition: Option<usize>,
    /// What is kept.
    pub(crate) keep: Keep,
}

/// How a window's column is read off accumulators (indexes into the plan's).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Read {
    /// A count or a distinct count: never null.
    Count(usize),
    /// A sum: null when `count` is 0.
    Sum { sum: usize, count: usize },
    /// An average: null when `count` is 0.
    Average { sum: usize, count: usize },
    /// A minimum or maximum: null when the frame is empty.
    Extreme { of: usize, value_type: ValueType },
}

/// One column that windows make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutputSpec {
    /// How to read it.
    pub(crate) read: Read,
    /// The type the column has in SQL.
    pub(crate) data_type: DataType,
}

/// All windows of a ruleset, each expression, condition and accumulator once.
#[derive(Debug, Clone, Default)]
pub(crate) struct WindowPlan {
    pub(crate) inputs: Vec<Input>,
    pub(crate) dictionaries: Vec<DictionarySpec>,
    pub(crate) conditions: Vec<ConditionSpec>,
    pub(crate) values: Vec<ValueSpec>,
    pub(crate) accumulators: Vec<AccumulatorSpec>,
    pub(crate) outputs: Vec<OutputSpec>,
}

impl WindowPlan {
    /// A text that is equal for equal plans: what a checkpoint must match to be restored.
    pub(crate) fn describe(&self) -> String {
        use std::fmt::Write as _;
        let mut text = String::new();
        for input in &self.inputs {
            let _ = writeln!(text, "input {}", input.text);
        }
        let _ = write!(
            text,
            "{:?}\n{:?}\n{:?}\n{:?}",
            self.dictionaries, self.conditions, self.values, self.accumulators
        );
        text
    }
}
