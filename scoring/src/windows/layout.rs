//! Where each accumulator lives, and which events come to it: worked out once from the plan.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::drive::Place;
use super::grouping::{Group, Grouped, grouped};
use super::kind::{words_and_left, words_of};
use super::repeats::Pairs;
use super::reservoir::{CONDITIONS, FamilySpec, KEYS, TIME};
use super::spec::{AccumulatorSpec, Frame, Keep, WindowPlan};

/// Families of columns in a layer.
pub(crate) const MAX_FAMILIES: usize = 4;
/// How many times shorter a column must be needed to be kept apart.
const MUCH_SHORTER: i64 = 8;

/// A walk over the reservoir at a fixed distance behind the present.
#[derive(Debug, Clone)]
pub(super) struct Tail {
    /// The distance, in microseconds.
    pub(super) bound_us: i64,
    /// Whether events come into frames here (a delayed frame begins) or go out.
    pub(super) enters: bool,
    /// The reservoir's columns that it reads.
    pub(super) columns: BTreeSet<usize>,
    /// Whether somebody asks how many events pass before each row, and not only before some rows at a time.
    pub(super) by_row: bool,
    /// Dictionaries that number keys here and no longer need an event past this tail.
    pub(super) releases: Vec<usize>,
}

impl Tail {
    /// The first time, in microseconds, of which events do not pass before a row.
    #[inline(always)]
    pub(super) const fn edge(&self, row_us: i64) -> i64 {
        // Both ends of a frame are part of it.
        row_us.saturating_sub(self.bound_us).saturating_add(self.enters as i64)
    }
}

/// One accumulator of the plan.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    /// The dictionary of its key.
    pub(super) key: usize,
    pub(super) place: Place,
    /// The tail at which events enter; `None` for arrival.
    pub(super) enter: Option<usize>,
    pub(super) leave: Leave,
    /// The reservoir's column of the argument that it takes from events.
    pub(super) column: Option<usize>,
    /// What tells it which events repeat a value, if it asks: an index into the layout's.
    pub(super) repeats: Option<usize>,
    /// The plan's outputs that are read of it.
    pub(super) outputs: Vec<usize>,
}

/// Frames in time that end together: where events enter, where they leave, and what is needed of them.
#[derive(Debug, Clone, Default)]
pub(super) struct CourseSpec {
    /// The tail at which events enter; `None` for arrival.
    pub(super) enter: Option<usize>,
    /// Per frame: the tail at which they leave.
    pub(super) leaves: Vec<usize>,
    /// Whether its accumulators ask for conditions that the reservoir has.
    pub(super) conditional: bool,
    /// What tells its accumulators which events repeat a value, as indexes into the layout's: then there is one frame.
    pub(super) repeats: Vec<usize>,
    /// Its accumulators.
    pub(super) accumulators: Vec<usize>,
}

impl CourseSpec {
    /// Takes an accumulator in.
    fn takes(&mut self, plan: &WindowPlan, index: usize, placed: &Placed) {
        self.accumulators.push(index);
        self.conditional |= is_conditional(&plan.accumulators[index]);
        self.repeats.extend(placed.repeats);
    }
}

/// How events cease to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    /// At this tail.
    Tail(usize),
    /// All at once, when a silence ends the key's history.
    Silence,
}

/// The longest silence after which a key's history is forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Silence {
    /// The dictionary of the key.
    pub(super) key: usize,
    pub(super) expiry_us: i64,
    pub(super) tail: usize,
    /// The word that holds one more than the key's newest event.
    pub(super) at: usize,
    /// Whose histories it ends.
    pub(super) accumulators: Vec<usize>,
}

impl Silence {
    /// Forgets what is kept of a key's history; `row` has its words.
    pub(super) fn forget(&self, layout: &Layout, row: &mut [u64]) {
        row[self.at] = 0;
        for &index in &self.accumulators {
            layout.placed[index].place.of_mut(row).fill(0);
        }
    }
}

/// What tells which events of a key repeat a value.
#[derive(Debug, Clone)]
pub(super) struct RepeatsOf {
    /// The dictionary of the key.
    pub(super) key: usize,
    /// The dictionary of the values.
    pub(super) value: usize,
    /// The tail at which events enter; `None` for arrival.
    pub(super) enter: Option<usize>,
    /// Condition bits that events must have to count.
    pub(super) mask: u64,
    /// The condition bit that says, of an event that enters or leaves a frame, that the number of different values in
    /// it changes with it.
    pub(super) bit: usize,
    /// The tails at which events leave.
    pub(super) leaves: Vec<usize>,
    /// Who asks.
    pub(super) accumulators: Vec<usize>,
}

impl RepeatsOf {
    /// What it asks of events from `first_seq` on, of which these are columns.
    pub(super) fn pairs<'a>(&self, first_seq: u64, column: impl Fn(usize) -> &'a [i64]) -> Pairs<'a> {
        let keys = column(KEYS + self.key);
        // Where nothing is asked of a column, any will do.
        let conditions = if self.mask > 0 { column(CONDITIONS) } else { keys };
        Pairs { first_seq, keys, values: column(KEYS + self.value), conditions, mask: self.mask }
    }

    /// The oldest event that a frame may still have, where tails are at these events.
    pub(super) fn oldest(&self, at: impl Fn(usize) -> u64) -> u64 {
        self.leaves.iter().map(|&tail| at(tail)).min().unwrap_or(0)
    }
}

/// One key and one or more frames in time that end together, with what is kept of them, as indexes into the plan's
/// accumulators.
#[derive(Debug, Clone)]
pub(super) struct Window {
    /// The dictionary of the key.
    pub(super) key: usize,
    pub(super) course: usize,
    /// Which words of a key's row its loops touch: all, and those that most events touch as they leave each of its frames.
    pub(super) words: Vec<Range<usize>>,
    /// Counts and sums that run side by side, each with where it begins in the row of a key.
    pub(super) groups: Vec<(usize, Group)>,
    /// The others.
    pub(super) singles: Vec<usize>,
}

#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// One per accumulator of the plan.
    pub(super) placed: Vec<Placed>,
    /// Per dictionary: words per key.
    pub(super) words: Vec<usize>,
    /// Per dictionary: where the words of its keys' histories begin.
    pub(super) history_at: Vec<usize>,
    pub(super) silences: Vec<Silence>,
    /// The distinct frames in time, some of them together.
    pub(super) courses: Vec<CourseSpec>,
    /// What tells which events repeat a value.
    pub(super) repeats: Vec<RepeatsOf>,
    /// What is kept over frames in time, in the order in which it is taken through a batch.
    pub(super) windows: Vec<Window>,
    /// Those that let events in, and then those that take them out.
    pub(super) tails: Vec<Tail>,
    /// Columns of the reservoir.
    pub(super) columns: usize,
    /// Those that are needed for about as long; the first has the times.
    pub(super) families: Vec<FamilySpec>,
}

impl Layout {
    pub(super) fn new(plan: &WindowPlan) -> Self {
        let mut tails: BTreeMap<(bool, i64), Tail> = BTreeMap::new();
        let first_value = KEYS + plan.dictionaries.len();
        for accumulator in &plan.accumulators {
            let mut reads = |enters, bound_us, argument: Option<usize>, conditional: bool| {
                let columns = &mut tail(&mut tails, enters, bound_us).columns;
                columns.insert(KEYS + accumulator.key);
                columns.extend(argument);
                columns.extend(conditional.then_some(CONDITIONS));
            };
            match accumulator.frame {
                Frame::Range { start_us, end_us } => {
                    let conditional = is_conditional(accumulator);
                    reads(false, start_us, taken(plan, accumulator, first_value), conditional);
                    if let Some(end_us) = end_us {
                        reads(true, end_us, column(accumulator.keep, first_value), conditional);
                    }
                }
                // It only asks which keys have fallen silent.
                Frame::History { expiry_us } => reads(false, expiry_us, None, false),
            }
        }
        for (index, dictionary) in plan.dictionaries.iter().enumerate() {
            let tail = tail(&mut tails, false, dictionary.keep_us);
            tail.releases.extend(dictionary.lender.is_none().then_some(index));
            tail.columns.insert(KEYS + index);
        }
        let place_of = |enters: bool, bound_us: i64| {
            tails.keys().position(|&key| key == (!enters, bound_us)).expect("it was made above")
        };

        let mut words = vec![0; plan.dictionaries.len()];
        let mut repeats: Vec<RepeatsOf> = (plan.conditions.len()..)
            .zip(plan.repeats())
            .map(|(bit, spec)| RepeatsOf {
                key: spec.key,
                value: spec.value,
                enter: spec.end_us.map(|us| place_of(true, us)),
                mask: mask_of(spec.condition),
                bit,
                leaves: Vec::new(),
                accumulators: Vec::new(),
            })
            .collect();
        let mut placed: Vec<Option<Placed>> = vec![None; plan.accumulators.len()];
        let mut put = |index: usize, (enter, leave): (Option<usize>, Leave), words: &mut Vec<usize>| {
            let spec = plan.accumulators[index];
            let told = plan.told(&spec);
            let place = Place {
                at: words[spec.key],
                words: words_of(plan, spec),
                mask: told.map_or(mask_of(spec.condition), |told| 1 << repeats[told].bit),
                valid_mask: mask_of(spec.keep.argument().and_then(|argument| argument.valid)),
            };
            words[spec.key] += place.words;
            if let (Some(told), Leave::Tail(tail)) = (told, leave) {
                repeats[told].leaves.push(tail);
                repeats[told].accumulators.push(index);
            }
            let reads = plan.outputs.iter().enumerate().filter(|(_, output)| output.read.of == index);
            let column = taken(plan, &spec, first_value);
            let outputs = reads.map(|(output, _)| output).collect();
            let of_index = &mut placed[index];
            of_index
                .insert(Placed { key: spec.key, place, enter, leave, column, repeats: told, outputs })
                .clone()
        };
        let mut courses: Vec<CourseSpec> = Vec::new();
        let mut of_frames = grouped(plan);
        // What a loop touches as an event enters or leaves is side by side in the row of its key, and the loops of a key
        // come one after the other, so that its rows stay near.
        of_frames.sort_by_key(|window| (window.key, window.starts_us.clone(), window.end_us));
        let mut windows = Vec::with_capacity(of_frames.len());
        for Grouped { key, end_us, starts_us, groups: of_window, mut singles } in of_frames {
            // Last those of which events that leave touch a part.
            singles.sort_by_key(|&index| {
                let (words, left) = words_and_left(plan, plan.accumulators[index]);
                left < words
            });
            let enter = end_us.map(|us| place_of(true, us));
            let leaves: Vec<usize> = starts_us.iter().map(|&us| place_of(false, us)).collect();
            let known = courses.iter().position(|c| (c.enter, &c.leaves) == (enter, &leaves));
            let course = known.unwrap_or_else(|| {
                courses.push(CourseSpec { enter, leaves: leaves.clone(), ..CourseSpec::default() });
                courses.len() - 1
            });
            let from = words[key];
            let mut spans = Vec::new();
            let mut groups = Vec::with_capacity(of_window.len());
            for group in of_window {
                let at = words[key];
                let mut together = Vec::with_capacity(group.all.len());
                for (frame, &leave) in group.frames.iter().zip(&leaves) {
                    let begin = words[key];
                    for &index in frame {
                        together.push((index, put(index, (enter, Leave::Tail(leave)), &mut words)));
                    }
                    spans.push(begin..words[key]);
                }
                for (index, placed) in together {
                    courses[course].takes(plan, index, &placed);
                }
                groups.push((at, group));
            }
            let mut left_to = words[key];
            for &index in &singles {
                let placed = put(index, (enter, Leave::Tail(leaves[0])), &mut words);
                courses[course].takes(plan, index, &placed);
                left_to = placed.place.at + words_and_left(plan, plan.accumulators[index]).1;
            }
            if let [_] = leaves[..] {
                spans.clear();
                spans.push(from..left_to);
            }
            spans.insert(0, from..words[key]);
            windows.push(Window { key, course, words: spans, groups, singles });
        }
        let history_at = words.clone();
        let mut silences: Vec<Silence> = Vec::new();
        for (index, spec) in plan.accumulators.iter().enumerate() {
            let Frame::History { expiry_us } = spec.frame else { continue };
            let known = silences.iter().position(|s| (s.key, s.expiry_us) == (spec.key, expiry_us));
            let silence = known.unwrap_or_else(|| {
                let (tail, at) = (place_of(false, expiry_us), words[spec.key]);
                words[spec.key] += 1;
                silences.push(Silence { key: spec.key, expiry_us, tail, at, accumulators: Vec::new() });
                silences.len() - 1
            });
            silences[silence].accumulators.push(index);
            put(index, (None, Leave::Silence), &mut words);
        }
        let placed: Vec<Placed> =
            placed.into_iter().map(|p| p.expect("each accumulator was placed")).collect();
        let mut tails: Vec<Tail> = tails.into_values().collect();
        let telling = courses.iter().filter(|course| !course.repeats.is_empty());
        let of_courses = telling.flat_map(|course| course.leaves.iter().chain(&course.enter));
        for &tail in of_courses.chain(silences.iter().map(|silence| &silence.tail)) {
            tails[tail].by_row = true;
        }
        Self {
            placed,
            words,
            history_at,
            silences,
            courses,
            repeats,
            windows,
            families: families(plan, first_value, &tails),
            tails,
            columns: first_value + plan.values.len(),
        }
    }
}

/// The columns by how long they are needed: a window's for as long as it reaches back, so that a restored
/// state can take in its events again, and those of keys for as long as keys keep their numbers.
fn families(plan: &WindowPlan, first_value: usize, tails: &[Tail]) -> Vec<FamilySpec> {
    let mut spans_us = vec![0; first_value + plan.values.len()];
    let mut needs = |column: usize, us: i64| spans_us[column] = us.max(spans_us[column]);
    for accumulator in &plan.accumulators {
        let us = accumulator.frame.keep_us();
        needs(KEYS + accumulator.key, us);
        column(accumulator.keep, first_value).into_iter().for_each(|column| needs(column, us));
        if is_conditional(accumulator) {
            needs(CONDITIONS, us);
        }
    }
    for (index, dictionary) in plan.dictionaries.iter().enumerate() {
        needs(KEYS + index, dictionary.keep_us);
    }
    needs(TIME, i64::MAX);
    let mut columns: Vec<usize> = (0..spans_us.len()).collect();
    columns.sort_by_key(|&column| Reverse(spans_us[column]));
    let mut families: Vec<FamilySpec> = Vec::new();
    let mut longest_us = i64::MAX;
    for column in columns {
        let joins = families.last().is_some_and(|family| {
            family.columns == [TIME]
                || spans_us[column] == 0
                || spans_us[column] > longest_us / MUCH_SHORTER
                || families.len() == MAX_FAMILIES
        });
        if !joins {
            families.push(FamilySpec::default());
        }
        let family = families.last_mut().expect("there is one now");
        if family.columns.is_empty() || family.columns == [TIME] {
            longest_us = spans_us[column];
        }
        family.columns.push(column);
    }
    for (index, family) in families.iter_mut().enumerate() {
        let reads = |tail: &Tail| family.columns.iter().any(|column| tail.columns.contains(column));
        // All tails look at times.
        family.tails = (0..tails.len()).filter(|&tail| index == 0 || reads(&tails[tail])).collect();
    }
    families
}

/// The condition bits of a condition that must hold, if any.
fn mask_of(condition: Option<usize>) -> u64 {
    condition.map_or(0, |bit| 1 << bit)
}

/// Whether an accumulator asks for the conditions of events.
fn is_conditional(accumulator: &AccumulatorSpec) -> bool {
    let valid = accumulator.keep.argument().and_then(|argument| argument.valid);
    accumulator.condition.or(valid).is_some()
}

/// The reservoir's column of the argument that an accumulator takes from events: none where it is told which of them
/// repeat a value.
fn taken(plan: &WindowPlan, accumulator: &AccumulatorSpec, first_value: usize) -> Option<usize> {
    if plan.told(accumulator).is_some() { None } else { column(accumulator.keep, first_value) }
}

/// The reservoir's column of the argument.
fn column(keep: Keep, first_value: usize) -> Option<usize> {
    match keep {
        Keep::Sum { value, .. } | Keep::Min(value) | Keep::Max(value) => Some(first_value + value),
        Keep::Distinct(dictionary) => Some(KEYS + dictionary),
        _ => keep.argument().and_then(|argument| argument.value).map(|value| first_value + value),
    }
}

fn tail(tails: &mut BTreeMap<(bool, i64), Tail>, enters: bool, bound_us: i64) -> &mut Tail {
    // `false` sorts first, and tails that let events in must come first.
    tails.entry((!enters, bound_us)).or_insert_with(|| Tail {
        bound_us,
        enters,
        columns: BTreeSet::new(),
        by_row: false,
        releases: Vec::new(),
    })
}
