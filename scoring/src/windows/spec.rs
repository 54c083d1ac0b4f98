//! What a window keeps: the plan that feature SQL is turned into.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::physical_expr::PhysicalExpr;

use super::layout::Layout;

/// The bits an event can carry: one for each condition, and for each of what tells repeats.
pub(crate) const MAX_BITS: usize = 64;

/// Which of a key's events a window sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Frame {
    /// Events from `start_us` to `end_us` microseconds before the current one, both included.
    Range {
        /// How far back the frame begins.
        start_us: i64,
        /// How far back it ends; `None` for the current event itself.
        end_us: Option<i64>,
    },
    /// All of them, until the key is silent for longer than `expiry_us`: then it begins anew.
    History {
        /// The longest silence, in microseconds.
        expiry_us: i64,
    },
}

impl Frame {
    /// For how long after an event its key must be known, in microseconds.
    pub(crate) const fn keep_us(self) -> i64 {
        match self {
            Self::Range { start_us, .. } => start_us,
            Self::History { expiry_us } => expiry_us,
        }
    }

    /// Whether it is longer than a week: then it holds several of the events of many a key.
    pub(crate) const fn is_long(self) -> bool {
        const WEEK_US: i64 = 7 * 86_400_000_000;
        match self {
            Self::Range { start_us, end_us: None } => start_us > WEEK_US,
            Self::Range { start_us, end_us: Some(end_us) } => start_us.saturating_sub(end_us) > WEEK_US,
            Self::History { .. } => false,
        }
    }
}

/// An expression over a batch of transactions.
#[derive(Debug, Clone)]
pub(crate) struct Input {
    /// Its text over slots.
    pub(crate) text: String,
    /// The same, with digests of what the slots mean: equal for equal values.
    pub(crate) meaning: String,
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
    /// Who numbers the same values in a layer below and keeps the numbers for at least as long: there is no need to do
    /// it twice.
    pub(crate) lender: Option<Lender>,
}

/// A numbering of a layer below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lender {
    /// The layer, as an index among those with windows.
    pub(crate) layer: usize,
    /// The dictionary there.
    pub(crate) dictionary: usize,
}

/// When an event counts: its filter holds, and the argument is a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ConditionSpec {
    /// `FILTER (WHERE …)`: a boolean input.
    pub(crate) filter: Option<usize>,
    /// The input that is the aggregate's argument, unless it is `*`, and what makes it a value.
    pub(crate) argument: Option<(usize, Magnitude)>,
}

/// Which values of an argument count; one that does not is as good as NULL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Magnitude {
    /// All but NULL.
    Any,
    /// Floats that are numbers.
    Finite,
    /// Floats small enough to be summed exactly.
    Summable,
    /// Floats small enough for their squares to be summed exactly.
    Squarable,
}

/// A condition that depends on what an event turned out to be: until it is labelled, `unknown` says
/// whether the event counts; then one of the others does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LabelledCondition {
    /// The condition that accumulators ask for.
    pub(crate) unknown: usize,
    /// The same of an event that is labelled fraud.
    pub(crate) fraud: usize,
    /// The same of an event that is labelled legit.
    pub(crate) legit: usize,
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
    /// The sum of a value, and with `squares` that of its squares.
    Sum {
        /// The value.
        value: usize,
        /// Whether squares are summed too.
        squares: bool,
    },
    /// The smallest value.
    Min(usize),
    /// The largest value.
    Max(usize),
    /// How many different numbers of a dictionary.
    Distinct(usize),
    /// The oldest value, which may be null.
    First(Argument),
    /// The newest value, which may be null.
    Last(Argument),
    /// The value before the newest, which may be null.
    Previous(Argument),
    /// The newest values.
    Ring {
        /// How many of them, the current event's included.
        rows: usize,
        /// The value, unless rows are only counted.
        argument: Argument,
    },
}

impl Keep {
    /// The argument of those that keep nulls.
    pub(crate) const fn argument(self) -> Option<Argument> {
        match self {
            Self::First(of) | Self::Last(of) | Self::Previous(of) | Self::Ring { argument: of, .. } => {
                Some(of)
            }
            Self::Count | Self::Sum { .. } | Self::Min(_) | Self::Max(_) | Self::Distinct(_) => None,
        }
    }
}

/// An argument of which nulls are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Argument {
    /// The value, if any.
    pub(crate) value: Option<usize>,
    /// The condition under which it is not null; `None` for always.
    pub(crate) valid: Option<usize>,
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

/// What tells which events of a key repeat a value, for those who count the different ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RepeatsSpec {
    /// The dictionary of the window's key.
    pub(crate) key: usize,
    /// The dictionary of the values.
    pub(crate) value: usize,
    /// Which events count: an index into the plan's conditions.
    pub(crate) condition: Option<usize>,
    /// How far back frames end, in microseconds; `None` for the current event itself. Where they begin makes no
    /// difference.
    pub(crate) end_us: Option<i64>,
}

impl AccumulatorSpec {
    /// What could tell it which events repeat a value, if it has to know.
    const fn repeats(&self) -> Option<RepeatsSpec> {
        match *self {
            Self { key, condition, keep: Keep::Distinct(value), frame: Frame::Range { end_us, .. } } => {
                Some(RepeatsSpec { key, value, condition, end_us })
            }
            _ => None,
        }
    }
}

/// A window's column: an accumulator, and how it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Read {
    /// The accumulator: an index into the plan's.
    pub(crate) of: usize,
    /// What is made of it.
    pub(crate) how: How,
}

/// What is made of an accumulator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum How {
    /// A count: never null.
    Count,
    /// A sum, null when there is nothing to sum.
    Sum,
    /// A sum over the count, null when there is nothing.
    Average,
    /// A variance, null for fewer than two values of a sample.
    Variance {
        /// Over `n - 1`, not over `n`.
        sample: bool,
        /// Its square root: the standard deviation.
        root: bool,
    },
    /// The value that is kept.
    Value,
    /// Something of the rows `newest..=oldest` before the current one, in a ring.
    Rows {
        /// How far back the newest row is.
        newest: usize,
        /// How far back the oldest row is.
        oldest: usize,
        /// What of them.
        fold: Fold,
    },
}

/// What is made of some rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Fold {
    /// How many count.
    Count,
    /// Their sum.
    Sum,
    /// Their average.
    Average,
    /// As [`How::Variance`].
    Variance {
        /// Over `n - 1`, not over `n`.
        sample: bool,
        /// Its square root.
        root: bool,
    },
    /// The smallest.
    Min,
    /// The largest.
    Max,
    /// The oldest row's, null if it is.
    Oldest,
    /// The newest row's, null if it is.
    Newest,
    /// That of the row exactly `oldest` before, or else this.
    At {
        /// What is said when there is no such row; `None` for NULL.
        or: Option<i64>,
    },
}

/// One column that windows make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutputSpec {
    /// How to read it.
    pub(crate) read: Read,
    /// How what was read is stored.
    pub(crate) value_type: ValueType,
    /// The type the column has in SQL.
    pub(crate) data_type: DataType,
}

/// Windows that share a reservoir, each expression, condition and accumulator once.
#[derive(Debug, Clone, Default)]
pub(crate) struct WindowPlan {
    pub(crate) inputs: Vec<Input>,
    pub(crate) dictionaries: Vec<DictionarySpec>,
    pub(crate) conditions: Vec<ConditionSpec>,
    pub(crate) labelled: Vec<LabelledCondition>,
    pub(crate) values: Vec<ValueSpec>,
    pub(crate) accumulators: Vec<AccumulatorSpec>,
    pub(crate) outputs: Vec<OutputSpec>,
}

impl WindowPlan {
    /// Lets an accumulator that keeps more stand in for one that keeps less of the same events: a sum
    /// counts too, and a sum with squares sums too.
    pub(crate) fn merge(&mut self) {
        let list = &self.accumulators;
        let stands_in = |much: &AccumulatorSpec, little: &AccumulatorSpec| {
            let same_events =
                (much.key, much.frame, much.condition) == (little.key, little.frame, little.condition);
            same_events
                && match (much.keep, little.keep) {
                    (Keep::Sum { .. }, Keep::Count) => true,
                    (Keep::Sum { value: a, squares: true }, Keep::Sum { value: b, squares: false }) => a == b,
                    _ => false,
                }
        };
        let best = |mut index: usize| {
            while let Some(better) = list.iter().position(|other| stands_in(other, &list[index])) {
                index = better;
            }
            index
        };
        let best: Vec<usize> = (0..list.len()).map(best).collect();
        let kept: Vec<usize> = (0..list.len()).filter(|&i| best[i] == i).collect();
        for output in &mut self.outputs {
            let stand_in = best[output.read.of];
            output.read.of = kept.iter().position(|&k| k == stand_in).expect("the best is kept");
        }
        self.accumulators = kept.iter().map(|&i| self.accumulators[i]).collect();
    }

    /// Takes numbers from layers below, which are `lower`, where one numbers the same values and keeps the numbers for
    /// at least as long. What a key's whole history says is saved with its value, so that such a key needs its own. And
    /// there is a row for each number: where that would be wide, and most of them for keys that are needed no more, they
    /// are not worth it.
    pub(crate) fn borrow(&mut self, lower: &[&Self]) {
        /// Words of a row that takes no more than its own number would: a cache line.
        const NARROW: usize = 8;
        /// How many times longer a wide row may be kept than it is needed.
        const LONGER: i64 = 8;
        let widths = Layout::new(self).words;
        for (index, width) in widths.into_iter().enumerate() {
            let has_history =
                |a: &AccumulatorSpec| a.key == index && matches!(a.frame, Frame::History { .. });
            if self.accumulators.iter().any(has_history) {
                continue;
            }
            let own = &self.dictionaries[index];
            let lends = |plan: &Self, other: &DictionarySpec| {
                other.lender.is_none()
                    && other.keep_us >= own.keep_us
                    && (width <= NARROW || other.keep_us / LONGER <= own.keep_us)
                    && plan.meanings(other).eq(self.meanings(own))
            };
            let lender = (0..).zip(lower).find_map(|(layer, plan)| {
                let dictionary = plan.dictionaries.iter().position(|other| lends(plan, other))?;
                Some(Lender { layer, dictionary })
            });
            self.dictionaries[index].lender = lender;
        }
    }

    /// What the values of a dictionary are made of.
    fn meanings<'a>(&'a self, dictionary: &'a DictionarySpec) -> impl Iterator<Item = &'a str> {
        dictionary.inputs.iter().map(|&input| self.inputs[input].meaning.as_str())
    }

    /// What tells accumulators which events repeat a value, each once: for long frames, and for others of the same.
    pub(crate) fn repeats(&self) -> Vec<RepeatsSpec> {
        let mut repeats = Vec::new();
        for spec in
            self.accumulators.iter().filter(|a| a.frame.is_long()).filter_map(AccumulatorSpec::repeats)
        {
            if !repeats.contains(&spec) {
                repeats.push(spec);
            }
        }
        repeats
    }

    /// Which of [`Self::repeats`] tells an accumulator which events repeat a value, if one does.
    pub(crate) fn told(&self, accumulator: &AccumulatorSpec) -> Option<usize> {
        let repeats = accumulator.repeats()?;
        self.repeats().iter().position(|spec| *spec == repeats)
    }

    /// How a value is stored.
    pub(crate) fn value_type(&self, value: usize) -> ValueType {
        self.values[value].value_type
    }

    /// A text that is equal for equal plans: what a checkpoint must match to be restored.
    pub(crate) fn describe(&self) -> String {
        use std::fmt::Write as _;
        let mut text = String::new();
        for input in &self.inputs {
            let _ = writeln!(text, "input {}", input.meaning);
        }
        let _ = write!(
            text,
            "{:?}\n{:?}\n{:?}\n{:?}\n{:?}",
            self.dictionaries, self.conditions, self.labelled, self.values, self.accumulators
        );
        text
    }
}
