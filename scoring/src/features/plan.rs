//! All feature files into one plan.
//!
//! Every column that a SELECT makes, by a window or by an expression, gets a *slot*; slots are numbered
//! in the order they can be computed. A window over columns that other windows made is a *layer* above
//! them. Files and common table expressions are only names for slots: once planned, they are gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::{TreeNode as _, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema};
use datafusion::datasource::empty::EmptyTable;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::prelude::SessionContext;
use sha2::{Digest as _, Sha256};

use super::label::only_in_filter;
use super::locate::{self, Places};
use super::select::{Refusal, Relation, Select, one_select};
use super::window::{Builder, Options, micros};
use crate::error::{LoadError, ScoreError};
use crate::lists::calls::FUNCTION;
use crate::probe::{Probe, Stage};
use crate::source::SourceFile;
use crate::transactions::{self, EVENT_TIME, FRAUD, RELATION};
use crate::windows::inputs::evaluate;
use crate::windows::spec::{Input, WindowPlan};
use crate::windows::{Label, WindowState};

/// What the feature files ask for: the windows to keep, and the columns to compute from them.
#[derive(Debug, Clone)]
pub(crate) struct FeaturePlan {
    /// The windows of each layer, which share a reservoir, from the lowest.
    pub(crate) windows: Vec<(usize, Arc<WindowPlan>)>,
    steps: Vec<Step>,
    /// Per slot: what it is called.
    slots: Vec<String>,
    features: Vec<Feature>,
    /// The relation's columns and then every feature.
    pub(crate) schema: SchemaRef,
    /// Per column of the schema: how far back it looks, in microseconds.
    pub(crate) reaches_us: Vec<i64>,
}

/// A feature and the file it is from.
#[derive(Debug, Clone)]
struct Feature {
    name: String,
    file: String,
    slot: usize,
}

/// Something computed for a whole batch from the slots before it.
#[derive(Debug, Clone)]
struct Step {
    /// The slots it reads, and their columns as a relation.
    reads: Vec<usize>,
    schema: SchemaRef,
    compute: Compute,
}

#[derive(Debug, Clone)]
enum Compute {
    /// The windows of a layer, into these slots.
    Windows { state: usize, into: Vec<usize> },
    /// Expressions, each into its slot.
    Expressions(Vec<(usize, String, Arc<dyn PhysicalExpr>)>),
}

/// A column under planning.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    /// What people call it.
    pub(super) name: String,
    pub(super) data_type: DataType,
    pub(super) nullable: bool,
    /// 0 for what the transaction itself says.
    pub(super) layer: usize,
    /// How many expressions of the same layer are below it.
    pub(super) depth: usize,
    pub(super) source: Source,
}

#[derive(Debug, Clone)]
pub(super) enum Source {
    Relation,
    /// What the transaction turned out to be: not known when its row is computed.
    Label,
    /// An output of the windows of the layer.
    Window(usize),
    /// An expression over other slots.
    Expression(Expr),
}

pub(super) struct Planner {
    pub(super) slots: Vec<Slot>,
    pub(super) layers: Vec<Builder>,
    features: Vec<Feature>,
}

impl FeaturePlan {
    /// Plans every file; on errors, all of them.
    pub(crate) fn load(context: &SessionContext, files: &[SourceFile]) -> Result<Self, Vec<LoadError>> {
        let mut planner = Planner::new();
        let mut errors = Vec::new();
        for file in files {
            if let Err(error) = planner.file(context, file) {
                errors.push(error);
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let schema = planner.features_schema();
        planner.finish(context, schema).map_err(|e| vec![LoadError::new(RELATION, None, e.strip_backtrace())])
    }

    /// Moves the windows on through a batch, and returns it with its features appended.
    pub(crate) fn run(
        &self,
        batch: &RecordBatch,
        times_us: &[i64],
        labels: &[Label],
        states: &mut [WindowState],
        probe: &mut dyn Probe,
    ) -> Result<RecordBatch, ScoreError> {
        let failed = |e: datafusion::arrow::error::ArrowError| ScoreError::Batch(e.to_string());
        let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let mut slots: Vec<Option<ArrayRef>> = batch.columns().iter().cloned().map(Some).collect();
        slots.resize(self.slots.len(), None);
        for step in &self.steps {
            let reads = step.reads.iter().map(|&slot| slots[slot].clone().expect("steps are in order"));
            let input = RecordBatch::try_new_with_options(Arc::clone(&step.schema), reads.collect(), &rows)
                .map_err(failed)?;
            match &step.compute {
                Compute::Windows { state, into } => {
                    let before = self.windows[..*state].iter().map(|(_, plan)| plan.accumulators.len());
                    probe.states_from(before.sum());
                    let (lower, own) = states.split_at_mut(*state);
                    let columns = own[0].process(&input, times_us, labels, lower, probe)?;
                    for (&slot, column) in into.iter().zip(columns) {
                        slots[slot] = Some(column);
                    }
                }
                Compute::Expressions(list) => {
                    for (slot, text, expr) in list {
                        slots[*slot] = Some(evaluate(text, &**expr, &input)?);
                    }
                    probe.ended(Stage::Expressions);
                }
            }
        }
        let features = self.features.iter().map(|f| slots[f.slot].clone().expect("every slot is computed"));
        let columns = batch.columns().iter().cloned().chain(features).collect();
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &rows).map_err(failed)
    }

    /// The slots of a layer's window outputs, in its plan's order.
    pub(super) fn window_slots(&self, of: usize) -> &[usize] {
        let found = self.steps.iter().find_map(|step| match &step.compute {
            Compute::Windows { state, into } if *state == of => Some(into.as_slice()),
            _ => None,
        });
        found.unwrap_or_default()
    }

    /// The features that are made of any of `slots`, within their layer.
    pub(super) fn readers(&self, mut slots: BTreeSet<usize>) -> Vec<String> {
        for step in &self.steps {
            if let Compute::Expressions(list) = &step.compute {
                for (slot, _, expr) in list {
                    let reads =
                        collect_columns(expr).into_iter().any(|c| slots.contains(&step.reads[c.index()]));
                    if reads {
                        slots.insert(*slot);
                    }
                }
            }
        }
        self.features.iter().filter(|f| slots.contains(&f.slot)).map(|f| f.name.clone()).collect()
    }

    /// What a slot is called.
    pub(super) fn slot_name(&self, slot: usize) -> Option<&str> {
        let feature = self.features.iter().find(|f| f.slot == slot).map(|f| f.name.as_str());
        feature.or_else(|| self.slots.get(slot).map(String::as_str))
    }

    /// The names of the features, in column order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.features.iter().map(|f| f.name.as_str())
    }
}

impl Planner {
    fn new() -> Self {
        let slot = |field: &Arc<Field>| Slot {
            name: field.name().clone(),
            data_type: field.data_type().clone(),
            nullable: field.is_nullable(),
            layer: 0,
            depth: 0,
            source: Source::Relation,
        };
        let mut slots: Vec<Slot> = transactions::schema().fields().iter().map(slot).collect();
        slots.push(Slot { source: Source::Label, ..slot(&label_field()) });
        Self { slots, layers: Vec::new(), features: Vec::new() }
    }

    /// The relation with the features so far, as rules see it.
    fn features_schema(&self) -> SchemaRef {
        let feature = |f: &Feature| Arc::new(Field::new(&f.name, self.slots[f.slot].data_type.clone(), true));
        let relation = transactions::schema();
        let fields = relation.fields().iter().cloned().chain(self.features.iter().map(feature));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// The relation as the next file sees it: with the features of the files before, and the label.
    fn relation_schema(&self) -> SchemaRef {
        let fields =
            self.features_schema().fields().iter().cloned().chain([label_field()]).collect::<Vec<_>>();
        Arc::new(Schema::new(fields))
    }

    fn file(&mut self, context: &SessionContext, file: &SourceFile) -> Result<(), LoadError> {
        let engine_error =
            |e: DataFusionError| LoadError::new(&file.name, locate::of_error(&e), e.strip_backtrace());
        context.deregister_table(RELATION).map_err(engine_error)?;
        context
            .register_table(RELATION, Arc::new(EmptyTable::new(self.relation_schema())))
            .map_err(engine_error)?;
        let state = context.state();
        let options = options(context, &file.text)
            .map_err(|(line, reason)| LoadError::new(&file.name, Some((line, 1)), reason))?;
        let plan = futures::executor::block_on(state.create_logical_plan(&file.text))
            .and_then(|plan| state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {}))
            .map_err(engine_error)?;
        let places = Places::of(&file.text);
        let refused = |(at, reason): Refusal| LoadError::new(&file.name, at, reason);
        let LogicalPlan::Projection(top) = plan else { return Err(refused((None, one_select()))) };
        let mut select = Select { planner: self, places: &places, options, nested: 0 };
        let Relation(columns) = select.projection(&top).map_err(refused)?;
        for (index, (_, name, slot)) in columns.into_iter().enumerate() {
            let at = places.of_item(&name, index);
            if !is_name(&name) {
                return Err(refused((at, format!("`{name}` needs a name: write … AS name"))));
            }
            self.add_feature(name, file, slot).map_err(|reason| refused((at, reason)))?;
        }
        Ok(())
    }

    fn add_feature(&mut self, name: String, file: &SourceFile, slot: usize) -> Result<(), String> {
        if matches!(self.slots[slot].source, Source::Label) {
            return Err(only_in_filter());
        }
        if name == FRAUD || transactions::schema().column_with_name(&name).is_some() {
            return Err(format!("the name `{name}` is already taken by the relation {RELATION}"));
        }
        if let Some(other) = self.features.iter().find(|f| f.name == name) {
            return Err(format!("the name `{name}` is already taken by {}", other.file));
        }
        self.features.push(Feature { name, file: file.name.clone(), slot });
        Ok(())
    }

    pub(super) fn add(&mut self, slot: Slot) -> usize {
        self.slots.push(slot);
        self.slots.len() - 1
    }

    /// All slots as a schema, each under the name [`slot_name`] gives it.
    pub(super) fn schema(&self) -> Result<DFSchema, DataFusionError> {
        DFSchema::try_from(Schema::new(
            self.slots
                .iter()
                .enumerate()
                .map(|(i, slot)| Field::new(slot_name(i), slot.data_type.clone(), slot.nullable))
                .collect::<Vec<_>>(),
        ))
    }

    /// Layer and depth of an expression over slots.
    pub(super) fn level(&self, expr: &Expr) -> (usize, usize) {
        let slots: Vec<&Slot> = slots_of(expr).into_iter().map(|i| &self.slots[i]).collect();
        let layer = slots.iter().map(|s| s.layer).max().unwrap_or(0);
        let depth = slots.iter().filter(|s| s.layer == layer).map(|s| s.depth).max().unwrap_or(0);
        (layer, depth)
    }

    /// Per slot: a digest of what it means, with everything below it, down to the relation's columns.
    fn meanings(&self) -> Vec<String> {
        let mut meanings: Vec<String> = Vec::new();
        for slot in &self.slots {
            let text = match &slot.source {
                Source::Relation | Source::Label => slot.name.clone(),
                Source::Expression(expr) => meaning(expr, &meanings),
                Source::Window(output) => {
                    let Builder { plan, inputs } = &self.layers[slot.layer - 1];
                    let output = &plan.outputs[*output];
                    let accumulator = plan.accumulators[output.read.of];
                    // Inputs that came later are of no concern: nothing before them refers to them.
                    let inputs: Vec<String> = inputs.iter().map(|expr| meaning(expr, &meanings)).collect();
                    format!(
                        "{output:?} of {accumulator:?} in {:?} {:?} {:?} over {inputs:?}",
                        plan.dictionaries, plan.conditions, plan.values
                    )
                }
            };
            meanings.push(hex::encode(Sha256::digest(text)));
        }
        meanings
    }

    fn finish(self, context: &SessionContext, schema: SchemaRef) -> Result<FeaturePlan, DataFusionError> {
        let all = self.schema()?;
        let meanings = self.meanings();
        let state = context.state();
        let mut steps = Vec::new();
        let mut windows: Vec<(usize, Arc<WindowPlan>)> = Vec::new();
        let compile = |expr: &Expr, reads: &[usize]| {
            let fields = reads.iter().map(|&slot| (None, Arc::clone(&all.fields()[slot])));
            let schema = DFSchema::new_with_metadata(fields.collect(), std::collections::HashMap::new())?;
            state.create_physical_expr(expr.clone(), &schema)
        };
        let schema_of = |reads: &[usize]| {
            Arc::new(Schema::new(reads.iter().map(|&s| Arc::clone(&all.fields()[s])).collect::<Vec<_>>()))
        };
        let expressions = |layer: usize, depth: usize| {
            self.slots.iter().enumerate().filter_map(move |(i, slot)| match &slot.source {
                Source::Expression(expr) if (slot.layer, slot.depth) == (layer, depth) => {
                    Some((i, &slot.name, expr))
                }
                _ => None,
            })
        };
        let deepest = self.slots.iter().map(|s| s.depth).max().unwrap_or(0);
        for layer in 0..=self.layers.len() {
            if let Some(builder) = layer.checked_sub(1).map(|l| &self.layers[l]) {
                let reads = builder.inputs.iter().flat_map(slots_of).collect::<BTreeSet<_>>();
                let reads: Vec<usize> = reads.into_iter().collect();
                let mut plan = builder.plan.clone();
                for expr in &builder.inputs {
                    let meaning = meaning(expr, &meanings);
                    plan.inputs.push(Input { text: expr.to_string(), meaning, expr: compile(expr, &reads)? });
                }
                plan.merge();
                plan.borrow(&windows.iter().map(|(_, lower)| &**lower).collect::<Vec<_>>());
                let into = self.slots.iter().enumerate().filter_map(|(i, slot)| match slot.source {
                    Source::Window(output) if slot.layer == layer => Some((output, i)),
                    _ => None,
                });
                let into: BTreeMap<usize, usize> = into.collect();
                steps.push(Step {
                    schema: schema_of(&reads),
                    reads,
                    compute: Compute::Windows { state: windows.len(), into: into.into_values().collect() },
                });
                windows.push((layer, Arc::new(plan)));
            }
            for depth in 1..=deepest {
                let list: Vec<_> = expressions(layer, depth).collect();
                if list.is_empty() {
                    continue;
                }
                let reads = list.iter().flat_map(|(_, _, expr)| slots_of(expr)).collect::<BTreeSet<_>>();
                let reads: Vec<usize> = reads.into_iter().collect();
                let compiled = list
                    .into_iter()
                    .map(|(slot, text, expr)| Ok((slot, text.clone(), compile(expr, &reads)?)))
                    .collect::<Result<_, DataFusionError>>()?;
                steps.push(Step {
                    schema: schema_of(&reads),
                    reads,
                    compute: Compute::Expressions(compiled),
                });
            }
        }
        let reaches_us = self.reaches_us();
        let of_features = self.features.iter().map(|feature| reaches_us[feature.slot]);
        let reaches_us = transactions::schema().fields().iter().map(|_| 0).chain(of_features).collect();
        let slots = self.slots.into_iter().map(|slot| slot.name).collect();
        Ok(FeaturePlan { windows, steps, slots, features: self.features, schema, reaches_us })
    }
}

impl Planner {
    pub(super) fn relation_slot(&self, name: &str) -> usize {
        let feature = self.features.iter().find(|f| f.name == name).map(|f| f.slot);
        feature
            .or_else(|| transactions::schema().index_of(name).ok())
            .unwrap_or_else(|| transactions::schema().fields().len())
    }
}

fn label_field() -> Arc<Field> {
    Arc::new(Field::new(FRAUD, DataType::Boolean, true))
}

/// The label, as an expression over slots has it: its slot comes after those of the relation.
pub(super) fn label_slot() -> Column {
    Column::new_unqualified(slot_name(transactions::schema().fields().len()))
}

/// Whether a column has been named, rather than called after its expression.
fn is_name(name: &str) -> bool {
    name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric())
}

/// `-- EXPIRE KEYS AFTER INTERVAL '90 days'`, a line of its own.
pub(super) fn options(context: &SessionContext, text: &str) -> Result<Options, (usize, String)> {
    let mut options = Options::default();
    for (number, line) in text.lines().enumerate() {
        let Some(comment) = line.trim().strip_prefix("--") else { continue };
        let words = comment.split_whitespace().collect::<Vec<_>>().join(" ");
        const SAID: &str = "EXPIRE KEYS AFTER ";
        let Some(interval) =
            words.get(..SAID.len()).filter(|w| w.eq_ignore_ascii_case(SAID)).and(words.get(SAID.len()..))
        else {
            continue;
        };
        let refused = |reason: String| (number + 1, format!("EXPIRE KEYS AFTER INTERVAL '…': {reason}"));
        let expr = context
            .parse_sql_expr(interval.trim_end_matches(';'), &DFSchema::empty())
            .map_err(|e| refused(e.strip_backtrace()))?;
        let Expr::Literal(interval, _) = expr else {
            return Err(refused("it must be a constant".to_owned()));
        };
        options.expiry_us = Some(micros(&interval).map_err(refused)?);
    }
    Ok(options)
}

/// The expression under its names.
pub(super) fn unaliased(expr: &Expr) -> &Expr {
    if let Expr::Alias(alias) = expr { unaliased(&alias.expr) } else { expr }
}

/// Names of slots within expressions.
pub(super) fn slot_name(slot: usize) -> String {
    format!("#{slot}")
}

pub(super) fn slot_of(column: &Column) -> Option<usize> {
    column.name.strip_prefix('#')?.parse().ok()
}

/// The window clock as an expression over slots.
pub(super) fn event_time() -> Expr {
    let slot = transactions::schema().index_of(EVENT_TIME).expect("the relation has it");
    Expr::Column(Column::new_unqualified(slot_name(slot)))
}

/// The text of an expression and what the slots in it mean.
fn meaning(expr: &Expr, meanings: &[String]) -> String {
    let slots: BTreeSet<usize> = slots_of(expr).into_iter().collect();
    let below =
        slots.into_iter().filter_map(|slot| meanings.get(slot).map(|of| format!("; #{slot} is {of}")));
    std::iter::once(expr.to_string()).chain(below).collect()
}

pub(super) fn slots_of(expr: &Expr) -> Vec<usize> {
    expr.column_refs().into_iter().filter_map(slot_of).collect()
}

/// Refuses what would read a clock or a random number: a replay could not repeat it.
pub(crate) fn pure(expr: &Expr) -> Result<(), String> {
    let (mut impure, mut in_list) = (None, false);
    expr.apply(|e| {
        if let Expr::ScalarFunction(call) = e
            && call.func.name() == FUNCTION
        {
            in_list = true;
            return Ok(TreeNodeRecursion::Stop);
        }
        if let Expr::ScalarFunction(call) = e
            && call.func.signature().volatility != Volatility::Immutable
        {
            impure = Some(call.func.name().to_owned());
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map_err(|e| e.to_string())?;
    if in_list {
        return Err(format!(
            "{FUNCTION}() is for rules: what is on a list changes at any time, and a feature must be what its SQL \
             says of the transactions alone"
        ));
    }
    impure.map_or(Ok(()), |name| {
        Err(format!(
            "{name}() gives another answer each time: a decision could not be replayed; use event_time"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::windows::spec::Lender;

    const USUAL: &str = "SELECT avg(amount_minor) OVER (PARTITION BY card ORDER BY event_time
        RANGE BETWEEN INTERVAL '30 days' PRECEDING AND CURRENT ROW) AS usual FROM transactions";

    fn above(aggregate: &str, key: &str, begins: &str, name: &str) -> String {
        format!(
            "SELECT {aggregate} OVER (PARTITION BY {key} ORDER BY event_time
             RANGE BETWEEN INTERVAL '{begins}' PRECEDING AND CURRENT ROW) AS {name} FROM transactions"
        )
    }

    /// Who numbers the first key of the topmost layer.
    fn lender(files: &[&str]) -> Option<Lender> {
        let file = |(number, text): (usize, &&str)| SourceFile {
            name: format!("{number}.sql"),
            text: (*text).to_owned(),
        };
        let files: Vec<_> = files.iter().enumerate().map(file).collect();
        let plan = FeaturePlan::load(&crate::ruleset::session(), &files).unwrap();
        let (layer, windows) = plan.windows.last().unwrap();
        assert_eq!(*layer, files.len());
        windows.dictionaries[0].lender
    }

    #[test]
    fn a_layer_takes_numbers_of_one_below_that_keeps_them_for_as_long() {
        let lends = Some(Lender { layer: 0, dictionary: 0 });
        let sum = |key: &str, begins: &str| lender(&[USUAL, &above("sum(usual)", key, begins, "a")]);
        assert_eq!([sum("card", "30 days"), sum("card", "1 hour")], [lends; 2]);
        assert_eq!(
            [sum("card", "31 days"), sum("merchant_id", "1 day"), sum("card, bin", "1 day")],
            [None; 3]
        );

        let wide = |begins: &str| lender(&[USUAL, &above("stddev(usual)", "card", begins, "a")]);
        assert_eq!(
            [wide("4 days"), wide("3 days")],
            [lends, None],
            "wide rows for not much longer than needed"
        );

        let history = "-- EXPIRE KEYS AFTER INTERVAL '1 day'
            SELECT lag(usual) OVER (PARTITION BY card ORDER BY event_time) AS a FROM transactions";
        assert_eq!(lender(&[USUAL, history]), None, "a key's history is saved with its value");

        let middle = above("sum(usual)", "card", "20 days", "a");
        let top = above("sum(a)", "card", "10 days", "b");
        assert_eq!(lender(&[USUAL, &middle, &top]), lends, "of whoever numbers it");
    }
}
