//! Which accumulators go through a step in one loop.
//!
//! Counts and sums do, of one key and frame, and of all frames that end together and have the same of them: an event
//! then enters the frames at once. The others have loops of their own.

use std::ops::RangeInclusive;

use super::spec::{AccumulatorSpec, Frame, Keep, ValueType, WindowPlan};

/// Counts, and also sums, in a loop: their parts stay in registers.
const SIDE_BY_SIDE: usize = 3;
/// Frames in a loop: at least, since with two it saves less than it costs to come by their keys' rows once more for
/// what has loops of its own, and at most.
const FRAMES: RangeInclusive<usize> = 3..=8;

/// One key and one or more frames in time that end together, with what is kept of them, as indexes into the plan's
/// accumulators.
#[derive(Debug)]
pub(super) struct Grouped {
    /// The dictionary of the key.
    pub(super) key: usize,
    /// How far back the frames end, in microseconds; `None` for the current event itself.
    pub(super) end_us: Option<i64>,
    /// How far back each begins, in microseconds: the shortest first.
    pub(super) starts_us: Vec<i64>,
    /// Of several frames there is one group, and nothing else.
    pub(super) groups: Vec<Group>,
    /// Those with loops of their own.
    pub(super) singles: Vec<usize>,
}

/// Counts and sums of integers that run side by side; at most [`SIDE_BY_SIDE`] of each in a frame.
#[derive(Debug, Clone)]
pub(super) struct Group {
    pub(super) counts: usize,
    pub(super) sums: usize,
    /// Per frame: its counts and then its sums, of the same events and values in each.
    pub(super) frames: Vec<Vec<usize>>,
    /// All of them.
    pub(super) all: Vec<usize>,
}

/// What a count or a sum is of: equal for those of which only the frames differ. Counts sort first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Lane {
    sum_of: Option<usize>,
    condition: Option<usize>,
}

/// What is kept of one frame.
struct OfFrame {
    key: usize,
    start_us: i64,
    end_us: Option<i64>,
    lanes: Vec<(Lane, usize)>,
    /// Counts of events of which something else tells whether they count, in this frame.
    told: Vec<usize>,
    singles: Vec<usize>,
}

impl OfFrame {
    /// Whether an event enters this frame and another at once, into the same counts and sums.
    fn goes_with(&self, other: &Self) -> bool {
        let lanes = |of: &Self| of.lanes.iter().map(|&(lane, _)| lane).collect::<Vec<_>>();
        (self.key, self.end_us) == (other.key, other.end_us) && lanes(self) == lanes(other)
    }
}

/// All accumulators over frames in time.
pub(super) fn grouped(plan: &WindowPlan) -> Vec<Grouped> {
    let frames = frames(plan);
    let mut all = Vec::new();
    for (index, frame) in frames.iter().enumerate() {
        let mut alike: Vec<&OfFrame> =
            frames.iter().filter(|other| !frame.lanes.is_empty() && frame.goes_with(other)).collect();
        let first = !frames[..index].iter().any(|before| frame.goes_with(before));
        let mut own: Vec<usize> = frame.told.clone();
        if alike.len() < *FRAMES.start() {
            own.extend(frame.lanes.iter().map(|&(_, accumulator)| accumulator));
        } else if first {
            alike.sort_by_key(|frame| frame.start_us);
            let loops = alike.len().div_ceil(*FRAMES.end());
            for frames in alike.chunks(alike.len().div_ceil(loops)) {
                let of_frame = |frame: &&OfFrame| frame.lanes.iter().map(|&(_, index)| index).collect();
                let groups = groups(plan, &frames.iter().map(of_frame).collect::<Vec<_>>());
                all.extend(groups.into_iter().map(|group| Grouped {
                    key: frame.key,
                    end_us: frame.end_us,
                    starts_us: frames.iter().map(|frame| frame.start_us).collect(),
                    groups: vec![group],
                    singles: Vec::new(),
                }));
            }
        }
        if !own.is_empty() || !frame.singles.is_empty() {
            all.push(Grouped {
                key: frame.key,
                end_us: frame.end_us,
                starts_us: vec![frame.start_us],
                groups: groups(plan, &[own]),
                singles: frame.singles.clone(),
            });
        }
    }
    all
}

/// What is kept of each frame.
fn frames(plan: &WindowPlan) -> Vec<OfFrame> {
    let mut frames: Vec<OfFrame> = Vec::new();
    for (index, spec) in plan.accumulators.iter().enumerate() {
        let &AccumulatorSpec { key, frame: Frame::Range { start_us, end_us }, condition, keep } = spec else {
            continue;
        };
        let at = frames.iter().position(|f| (f.key, f.start_us, f.end_us) == (key, start_us, end_us));
        let at = at.unwrap_or_else(|| {
            let (lanes, told, singles) = (Vec::new(), Vec::new(), Vec::new());
            frames.push(OfFrame { key, start_us, end_us, lanes, told, singles });
            frames.len() - 1
        });
        let frame = &mut frames[at];
        match keep {
            Keep::Count => frame.lanes.push((Lane { sum_of: None, condition }, index)),
            Keep::Sum { value, squares: false } if plan.value_type(value) == ValueType::Int => {
                frame.lanes.push((Lane { sum_of: Some(value), condition }, index));
            }
            Keep::Distinct(_) if plan.told(spec).is_some() => frame.told.push(index),
            _ => frame.singles.push(index),
        }
    }
    frames.iter_mut().for_each(|frame| frame.lanes.sort_unstable());
    frames
}

/// Counts and sums of frames that have the same of them, in as many groups as it takes.
fn groups(plan: &WindowPlan, frames: &[Vec<usize>]) -> Vec<Group> {
    let is_sum = |&index: &usize| matches!(plan.accumulators[index].keep, Keep::Sum { .. });
    let split = |frame: &Vec<usize>| -> (Vec<usize>, Vec<usize>) { frame.iter().partition(|&i| !is_sum(i)) };
    let frames: Vec<(Vec<usize>, Vec<usize>)> = frames.iter().map(split).collect();
    let part = |of: &[usize], number: usize| -> Vec<usize> {
        of.chunks(SIDE_BY_SIDE).nth(number).unwrap_or_default().to_vec()
    };
    let group = |number: usize| {
        let parts = frames.iter().map(|(counts, sums)| (part(counts, number), part(sums, number)));
        let (counts, sums) = parts.clone().next().map_or((0, 0), |(counts, sums)| (counts.len(), sums.len()));
        let frames: Vec<Vec<usize>> = parts.map(|(counts, sums)| [counts, sums].concat()).collect();
        Group { counts, sums, all: frames.concat(), frames }
    };
    (0..).map(group).take_while(|group| group.counts + group.sums > 0).collect()
}
