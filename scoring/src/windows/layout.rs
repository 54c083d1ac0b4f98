//! Where each accumulator lives, and which events come to it: worked out once from the plan.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::drive::Place;
use super::kind::words_of;
use super::lanes::SIDE_BY_SIDE;
use super::repeats::{self, Pairs};
use super::reservoir::{CONDITIONS, FamilySpec, KEYS, TIME};
use super::spec::{AccumulatorSpec, Frame, Keep, ValueType, WindowPlan};

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
    /// Dictionaries that no longer need an event past this tail.
    pub(super) releases: Vec<usize>,
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

/// A frame in time: where events enter, where they leave, and what is needed of them.
#[derive(Debug, Clone)]
pub(super) struct CourseSpec {
    /// The tail at which events enter; `None` for arrival.
    pub(super) enter: Option<usize>,
    /// The tail at which they leave.
    pub(super) leave: usize,
    /// The reservoir's columns that its accumulators read, each with the condition bits that they ask for.
    pub(super) columns: BTreeMap<usize, BTreeSet<u64>>,
    /// Whether its accumulators ask for conditions that the reservoir has.
    pub(super) conditional: bool,
    /// What tells its accumulators which events repeat a value, as indexes into the layout's.
    pub(super) repeats: Vec<usize>,
    /// Whether some accumulator tells events apart by their numbers.
    pub(super) seqs: bool,
    /// Its accumulators.
    pub(super) accumulators: Vec<usize>,
}

impl CourseSpec {
    /// Whether its accumulators ask for conditions at all.
    pub(super) const fn has_conditions(&self) -> bool {
        self.conditional || !self.repeats.is_empty()
    }
}

/// How events cease to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Leave {
    /// At this tail, which ends this course.
    Tail {
        /// The tail.
        tail: usize,
        /// The course.
        course: usize,
    },
    /// All at once, when this silence ends the key's history.
    Silence(usize),
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
    /// Where its words are in the row of a key.
    pub(super) at: usize,
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
        Pairs { first_seq, keys, values: column(KEYS + self.value), conditions, mask: self.mask, at: self.at }
    }

    /// The oldest event that a frame may still have, where tails are at these events.
    pub(super) fn oldest(&self, at: impl Fn(usize) -> u64) -> u64 {
        self.leaves.iter().map(|&tail| at(tail)).min().unwrap_or(0)
    }
}

/// One key and one frame in time, with what is kept of it, as indexes into the plan's accumulators.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Window {
    /// The dictionary of the key.
    pub(super) key: usize,
    pub(super) course: usize,
    /// Where its accumulators are in the row of a key.
    pub(super) words: Range<usize>,
    /// Counts and sums that run side by side.
    pub(super) groups: Vec<Group>,
    /// The others.
    pub(super) singles: Vec<usize>,
}

/// Counts and sums of one window; at most [`SIDE_BY_SIDE`] of each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) counts: Vec<usize>,
    pub(super) sums: Vec<usize>,
    /// Both.
    pub(super) all: Vec<usize>,
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
    /// The distinct frames in time.
    pub(super) courses: Vec<CourseSpec>,
    /// What tells which events repeat a value.
    pub(super) repeats: Vec<RepeatsOf>,
    /// What is kept over frames in time, in the order in which it is taken through a batch.
    pub(super) windows: Vec<Window>,
    /// The other accumulators, over all of a key's history.
    pub(super) histories: Vec<usize>,
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
            tail.releases.push(index);
            tail.columns.insert(KEYS + index);
        }
        let place_of = |enters: bool, bound_us: i64| {
            tails.keys().position(|&key| key == (!enters, bound_us)).expect("it was made above")
        };

        let mut silences: Vec<Silence> = Vec::new();
        let mut courses: Vec<CourseSpec> = Vec::new();
        let mut placed: Vec<Option<Placed>> = vec![None; plan.accumulators.len()];
        let mut words = vec![0; plan.dictionaries.len()];
        // First, so that each of them is one cache line.
        let mut room = |key: usize| {
            words[key] += repeats::WORDS;
            words[key] - repeats::WORDS
        };
        let mut repeats: Vec<RepeatsOf> = (plan.conditions.len()..)
            .zip(plan.repeats())
            .map(|(bit, spec)| RepeatsOf {
                key: spec.key,
                value: spec.value,
                enter: spec.end_us.map(|us| place_of(true, us)),
                mask: mask_of(spec.condition),
                at: room(spec.key),
                bit,
                leaves: Vec::new(),
                accumulators: Vec::new(),
            })
            .collect();
        let history = |index: usize| matches!(plan.accumulators[index].frame, Frame::History { .. });
        let (of_history, mut of_range): (Vec<_>, Vec<_>) = (0..placed.len()).partition(|&i| history(i));
        // What an event touches as it enters or leaves a frame is side by side in the row of its key.
        of_range.sort_by_key(|&index| plan.accumulators[index].frame);
        let mut put = |index: usize, words: &mut Vec<usize>, silences: &mut Vec<Silence>| {
            let spec = plan.accumulators[index];
            let told = plan.told(&spec);
            let place = Place {
                at: words[spec.key],
                words: words_of(plan, spec),
                mask: told.map_or(mask_of(spec.condition), |told| 1 << repeats[told].bit),
                valid_mask: match spec.keep {
                    Keep::First(argument) | Keep::Last(argument) | Keep::Ring { argument, .. } => {
                        mask_of(argument.valid)
                    }
                    _ => 0,
                },
            };
            words[spec.key] += place.words;
            let (enter, leave) = match spec.frame {
                Frame::Range { start_us, end_us } => {
                    let (enter, tail) = (end_us.map(|us| place_of(true, us)), place_of(false, start_us));
                    let known = courses.iter().position(|c| (c.enter, c.leave) == (enter, tail));
                    let course = known.unwrap_or_else(|| {
                        courses.push(CourseSpec {
                            enter,
                            leave: tail,
                            columns: BTreeMap::new(),
                            conditional: false,
                            repeats: Vec::new(),
                            seqs: false,
                            accumulators: Vec::new(),
                        });
                        courses.len() - 1
                    });
                    let of_course = &mut courses[course];
                    of_course.accumulators.push(index);
                    of_course.conditional |= is_conditional(&spec);
                    of_course.seqs |= matches!(spec.keep, Keep::Min(_) | Keep::Max(_));
                    if let Some(told) = told {
                        of_course.repeats.push(told);
                        repeats[told].leaves.push(tail);
                        repeats[told].accumulators.push(index);
                    }
                    for column in taken(plan, &spec, first_value).into_iter().chain([KEYS + spec.key]) {
                        of_course.columns.entry(column).or_default().insert(place.mask);
                    }
                    (enter, Leave::Tail { tail, course })
                }
                Frame::History { expiry_us } => {
                    let known = silences.iter().position(|s| (s.key, s.expiry_us) == (spec.key, expiry_us));
                    let silence = known.unwrap_or_else(|| {
                        let tail = place_of(false, expiry_us);
                        let at = words[spec.key];
                        silences.push(Silence {
                            key: spec.key,
                            expiry_us,
                            tail,
                            at,
                            accumulators: Vec::new(),
                        });
                        words[spec.key] += 1;
                        silences.len() - 1
                    });
                    silences[silence].accumulators.push(index);
                    (None, Leave::Silence(silence))
                }
            };
            let reads = plan.outputs.iter().enumerate().filter(|(_, output)| output.read.of == index);
            placed[index] = Some(Placed {
                key: spec.key,
                place,
                enter,
                leave,
                column: taken(plan, &spec, first_value),
                repeats: told,
                outputs: reads.map(|(output, _)| output).collect(),
            });
        };
        for index in of_range {
            put(index, &mut words, &mut silences);
        }
        let history_at = words.clone();
        for &index in &of_history {
            put(index, &mut words, &mut silences);
        }
        let placed: Vec<Placed> =
            placed.into_iter().map(|p| p.expect("each accumulator was placed")).collect();
        let tails: Vec<Tail> = tails.into_values().collect();
        Self {
            windows: windows(plan, &placed),
            histories: of_history,
            placed,
            words,
            history_at,
            silences,
            courses,
            repeats,
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

/// Accumulators over frames in time, by key and frame.
fn windows(plan: &WindowPlan, placed: &[Placed]) -> Vec<Window> {
    let mut windows: Vec<Window> = Vec::new();
    for (index, (spec, &Placed { key, place, leave, .. })) in plan.accumulators.iter().zip(placed).enumerate()
    {
        let Leave::Tail { course, .. } = leave else { continue };
        let at = windows.iter().position(|window| (window.key, window.course) == (key, course));
        let at = at.unwrap_or_else(|| {
            let words = place.at..place.at;
            windows.push(Window { key, course, words, ..Window::default() });
            windows.len() - 1
        });
        let window = &mut windows[at];
        let Range { start, end } = window.words;
        window.words = start.min(place.at)..end.max(place.at + place.words);
        let sums = match spec.keep {
            Keep::Count => false,
            Keep::Distinct(_) if plan.told(spec).is_some() => false,
            Keep::Sum { value, squares: false } if plan.value_type(value) == ValueType::Int => true,
            _ => {
                window.singles.push(index);
                continue;
            }
        };
        let beside = |group: &Group| if sums { group.sums.len() } else { group.counts.len() };
        let found = window.groups.iter().position(|group| beside(group) < SIDE_BY_SIDE);
        let found = found.unwrap_or_else(|| {
            window.groups.push(Group::default());
            window.groups.len() - 1
        });
        let group = &mut window.groups[found];
        group.all.push(index);
        if sums { &mut group.sums } else { &mut group.counts }.push(index);
    }
    windows
}

/// The condition bits of a condition that must hold, if any.
fn mask_of(condition: Option<usize>) -> u64 {
    condition.map_or(0, |bit| 1 << bit)
}

/// Whether an accumulator asks for the conditions of events.
fn is_conditional(accumulator: &AccumulatorSpec) -> bool {
    let argument = match accumulator.keep {
        Keep::First(argument) | Keep::Last(argument) | Keep::Ring { argument, .. } => argument.valid,
        Keep::Count | Keep::Sum { .. } | Keep::Min(_) | Keep::Max(_) | Keep::Distinct(_) => None,
    };
    accumulator.condition.or(argument).is_some()
}

/// The reservoir's column of the argument that an accumulator takes from events: none where it is told which of them
/// repeat a value.
fn taken(plan: &WindowPlan, accumulator: &AccumulatorSpec, first_value: usize) -> Option<usize> {
    if plan.told(accumulator).is_some() { None } else { column(accumulator.keep, first_value) }
}

/// The reservoir's column of the argument.
fn column(keep: Keep, first_value: usize) -> Option<usize> {
    match keep {
        Keep::Count => None,
        Keep::Sum { value, .. } | Keep::Min(value) | Keep::Max(value) => Some(first_value + value),
        Keep::Distinct(dictionary) => Some(KEYS + dictionary),
        Keep::First(argument) | Keep::Last(argument) | Keep::Ring { argument, .. } => {
            argument.value.map(|value| first_value + value)
        }
    }
}

fn tail(tails: &mut BTreeMap<(bool, i64), Tail>, enters: bool, bound_us: i64) -> &mut Tail {
    // `false` sorts first, and tails that let events in must come first.
    tails.entry((!enters, bound_us)).or_insert_with(|| Tail {
        bound_us,
        enters,
        columns: BTreeSet::new(),
        releases: Vec::new(),
    })
}
