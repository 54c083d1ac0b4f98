//! What each window of a feature file became.

use std::fmt::Write as _;

use serde::Serialize;

use super::plan::FeaturePlan;
use crate::transactions::FRAUD;
use crate::windows::kind::words_of;
use crate::windows::newest;
use crate::windows::spec::{AccumulatorSpec, Argument, ConditionSpec, Frame, Keep, Magnitude, WindowPlan};

const WORD_BYTES: usize = 8;
/// A node of a list: sequence number, value, neighbours.
const NODE_BYTES: usize = 32;
/// A key and a value with their count or newest event, at a table's usual load.
const PAIR_BYTES: usize = 32;

/// State that is kept for windows: one accumulator per live key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeptState {
    /// The layer, from 1: a layer's windows may look at what the layers below made.
    pub layer: usize,
    /// The columns or expressions of the key; none for one window over everything.
    pub partition_by: Vec<String>,
    /// Which events are in the frame.
    pub frame: String,
    /// What is kept of them.
    pub keeps: String,
    /// Which of them count, if not all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filter: Option<String>,
    /// Bytes per live key.
    pub bytes_per_key: usize,
    /// Bytes per event in the frame, at the most, beside those per key.
    pub bytes_per_event: usize,
    /// The features that read it.
    pub features: Vec<String>,
}

impl FeaturePlan {
    /// All state, by layer.
    pub(crate) fn explain(&self) -> Vec<KeptState> {
        let mut kept = Vec::new();
        for (state, (layer, plan)) in self.windows.iter().enumerate() {
            for (index, accumulator) in plan.accumulators.iter().enumerate() {
                let reads = |output: usize| plan.outputs[output].read.of == index;
                let slots = self.window_slots(state).iter().enumerate().filter(|&(output, _)| reads(output));
                let features = self.readers(slots.map(|(_, &slot)| slot).collect());
                kept.push(self.state(*layer, plan, accumulator, features));
            }
        }
        kept
    }

    fn state(
        &self,
        layer: usize,
        plan: &WindowPlan,
        accumulator: &AccumulatorSpec,
        features: Vec<String>,
    ) -> KeptState {
        let input = |index: usize| self.readable(&plan.inputs[index].text);
        let value = |value: usize| input(plan.values[value].input);
        let told = plan.told(accumulator);
        // What several share is shown with the first of them.
        let shares =
            told.is_some() && plan.accumulators.iter().find(|a| plan.told(a) == told) == Some(accumulator);
        let bytes =
            words_of(plan, *accumulator) * WORD_BYTES + if shares { newest::BYTES_PER_KEY } else { 0 };
        let (frame, history) = match accumulator.frame {
            Frame::Range { start_us, end_us: None } => (format!("the last {}", duration(start_us)), false),
            Frame::Range { start_us, end_us: Some(end_us) } => {
                (format!("from {} to {} ago", duration(start_us), duration(end_us)), false)
            }
            Frame::History { expiry_us } => {
                (format!("all, until the key is silent for more than {}", duration(expiry_us)), true)
            }
        };
        let argument = |of: Argument| of.value.map_or_else(String::new, value);
        let (keeps, bytes_per_event) = match accumulator.keep {
            Keep::Count => ("how many".to_owned(), 0),
            Keep::Sum { value: of, squares: false } => (format!("count and sum of {}", value(of)), 0),
            Keep::Sum { value: of, squares: true } => {
                (format!("count, sum and sum of squares of {}", value(of)), 0)
            }
            Keep::Min(of) if history => (format!("the smallest {}", value(of)), 0),
            Keep::Max(of) if history => (format!("the largest {}", value(of)), 0),
            Keep::Min(of) => {
                (format!("the values of {} that may yet be the smallest", value(of)), NODE_BYTES)
            }
            Keep::Max(of) => (format!("the values of {} that may yet be the largest", value(of)), NODE_BYTES),
            Keep::Distinct(dictionary) => {
                let of: Vec<_> = plan.dictionaries[dictionary].inputs.iter().map(|&i| input(i)).collect();
                let of = of.join(", ");
                let keeps = if told.is_some() {
                    format!("how many different {of}, and for all such frames the newest event of each")
                } else {
                    format!("how often each {of} occurs")
                };
                (keeps, PAIR_BYTES)
            }
            Keep::First(of) if history => (format!("the first {}", argument(of)), 0),
            Keep::First(of) => (format!("all values of {}, in order", argument(of)), NODE_BYTES),
            Keep::Last(of) => (format!("the last {}", argument(of)), 0),
            Keep::Previous(of) => (format!("the last {}, for the event after", argument(of)), 0),
            Keep::Ring { rows, argument: of } => {
                (format!("the last {rows} {}", of.value.map_or_else(|| "rows".to_owned(), value)), 0)
            }
        };
        KeptState {
            layer,
            partition_by: plan.dictionaries[accumulator.key].inputs.iter().map(|&i| input(i)).collect(),
            frame,
            keeps,
            filter: accumulator.condition.and_then(|c| self.filter(plan, c)),
            bytes_per_key: bytes,
            bytes_per_event,
            features,
        }
    }

    /// Which events count, by a condition bit: those that a label changes say what is so with each label, and without.
    fn filter(&self, plan: &WindowPlan, bit: usize) -> Option<String> {
        let condition = plan.conditions[bit];
        let Some(labelled) = plan.labelled.iter().find(|labelled| labelled.unknown == bit) else {
            return self.condition(plan, condition);
        };
        let filter = |bit: usize| {
            let filter = plan.conditions[bit].filter;
            filter.map_or_else(String::new, |filter| self.readable(&plan.inputs[filter].text))
        };
        let [fraud, legit, unknown] = [labelled.fraud, labelled.legit, labelled.unknown].map(filter);
        let by_label = match [fraud.as_str(), &legit, &unknown] {
            ["Boolean(true)", "Boolean(false)", "Boolean(NULL)"] => format!("labelled {FRAUD}"),
            _ => {
                format!("({fraud}) if labelled {FRAUD}, ({legit}) if labelled legit, ({unknown}) until then")
            }
        };
        let argument = self.condition(plan, ConditionSpec { filter: None, ..condition });
        Some([Some(by_label), argument].into_iter().flatten().collect::<Vec<_>>().join(" AND "))
    }

    fn condition(&self, plan: &WindowPlan, condition: ConditionSpec) -> Option<String> {
        let input = |index: usize| self.readable(&plan.inputs[index].text);
        let filter = condition.filter.map(input);
        let argument = condition.argument.map(|(argument, magnitude)| match magnitude {
            Magnitude::Any => format!("{} IS NOT NULL", input(argument)),
            Magnitude::Finite => format!("{} is finite", input(argument)),
            Magnitude::Summable => format!("{} is less than 2^74 from 0", input(argument)),
            Magnitude::Squarable => format!("{} is less than 2^37 from 0", input(argument)),
        });
        let parts: Vec<String> = filter.into_iter().chain(argument).collect();
        (!parts.is_empty()).then(|| parts.join(" AND "))
    }

    /// An expression over slots with the names of the columns they are.
    fn readable(&self, text: &str) -> String {
        let mut out = String::new();
        let mut parts = text.split('#');
        out.push_str(parts.next().unwrap_or_default());
        for part in parts {
            let digits = part.bytes().take_while(u8::is_ascii_digit).count();
            let name = part[..digits].parse().ok().and_then(|slot| self.slot_name(slot));
            match name {
                Some(name) => {
                    let _ = write!(out, "{name}{}", &part[digits..]);
                }
                None => {
                    let _ = write!(out, "#{part}");
                }
            }
        }
        out
    }
}

fn duration(us: i64) -> String {
    const UNITS: [(i64, &str); 4] =
        [(86_400_000_000, "day"), (3_600_000_000, "hour"), (60_000_000, "minute"), (1_000_000, "second")];
    let (n, unit) = UNITS
        .iter()
        .find(|(unit, _)| us >= *unit && us % unit == 0)
        .map_or((us, "microsecond"), |&(u, n)| (us / u, n));
    format!("{n} {unit}{}", if n == 1 { "" } else { "s" })
}
