//! All feature files into one plan.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::{TreeNode as _, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema};
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility, Window};
use datafusion::physical_expr::PhysicalExpr;

use super::locate;
use super::window::Builder;
use crate::error::{LoadError, ScoreError};
use crate::source::SourceFile;
use crate::transactions::{self, RELATION};
use crate::windows::inputs::evaluate;
use crate::windows::spec::WindowPlan;

/// What the feature files ask for: the windows to keep, and the columns to compute from them.
#[derive(Debug, Clone)]
pub(crate) struct FeaturePlan {
    pub(crate) windows: Arc<WindowPlan>,
    files: Vec<FeatureFile>,
    /// The relation's columns and then every feature.
    pub(crate) schema: SchemaRef,
}

#[derive(Debug, Clone)]
struct FeatureFile {
    /// The relation's columns and then the file's windows.
    schema: SchemaRef,
    /// Which outputs of the window plan the file's windows are.
    windows: Vec<usize>,
    features: Vec<Feature>,
}

#[derive(Debug, Clone)]
struct Feature {
    name: String,
    expr: Arc<dyn PhysicalExpr>,
}

impl FeaturePlan {
    /// Plans every file; on errors, all of them.
    pub(crate) fn load(state: &SessionState, files: &[SourceFile]) -> Result<Self, Vec<LoadError>> {
        let mut builder = Builder { state, plan: WindowPlan::default() };
        let mut errors = Vec::new();
        let mut planned = Vec::new();
        let mut fields: Vec<Arc<Field>> = transactions::schema().fields().iter().cloned().collect();
        let mut origin: BTreeMap<String, String> =
            fields.iter().map(|f| (f.name().clone(), format!("the relation {RELATION}"))).collect();
        for file in files {
            match plan_file(&mut builder, file) {
                Ok((feature_file, file_fields)) => {
                    for (field, at) in file_fields {
                        if let Some(other) = origin.insert(field.name().clone(), file.name.clone()) {
                            let reason = format!("the name `{}` is already taken by {other}", field.name());
                            errors.push(LoadError::new(&file.name, at, reason));
                        }
                        fields.push(field);
                    }
                    planned.push(feature_file);
                }
                Err(error) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        Ok(Self { windows: Arc::new(builder.plan), files: planned, schema: Arc::new(Schema::new(fields)) })
    }

    /// Computes the features of a batch from its window columns, and appends them to it.
    pub(crate) fn append(
        &self,
        batch: &RecordBatch,
        windows: &[ArrayRef],
    ) -> Result<RecordBatch, ScoreError> {
        let mut columns = batch.columns().to_vec();
        for file in &self.files {
            let of_file = batch.columns().iter().chain(file.windows.iter().map(|&w| &windows[w]));
            let of_file = RecordBatch::try_new(Arc::clone(&file.schema), of_file.cloned().collect())
                .map_err(|e| ScoreError::Batch(e.to_string()))?;
            for feature in &file.features {
                columns.push(evaluate(&feature.name, &*feature.expr, &of_file)?);
            }
        }
        RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(|e| ScoreError::Batch(e.to_string()))
    }

    /// The names of the features, in column order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.files.iter().flat_map(|f| &f.features).map(|f| f.name.as_str())
    }
}

type PlacedField = (Arc<Field>, Option<(usize, usize)>);

fn plan_file(
    builder: &mut Builder<'_>,
    file: &SourceFile,
) -> Result<(FeatureFile, Vec<PlacedField>), LoadError> {
    let engine_error =
        |e: DataFusionError| LoadError::new(&file.name, locate::of_error(&e), e.strip_backtrace());
    let plan = futures::executor::block_on(builder.state.create_logical_plan(&file.text))
        .and_then(|plan| {
            builder.state.analyzer().execute_and_check(plan, builder.state.config_options(), |_, _| {})
        })
        .map_err(engine_error)?;
    let places = locate::select_items(&file.text);
    let Shape { projection, windows, base } =
        shape(plan).map_err(|reason| LoadError::new(&file.name, None, reason))?;

    let mut fields: Vec<Arc<Field>> = base.fields().iter().cloned().collect();
    let mut qualified: Vec<_> = base.iter().map(|(q, f)| (q.cloned(), Arc::clone(f))).collect();
    let mut outputs = Vec::new();
    for (expr, name, data_type) in &windows {
        let at = projection.iter().position(|item| mentions(item, name)).and_then(|i| places.get(i).copied());
        let refused = |reason| LoadError::new(&file.name, at, reason);
        let Expr::WindowFunction(function) = expr else {
            return Err(refused(format!("`{name}` is not a window function")));
        };
        pure(expr).map_err(refused)?;
        outputs.push(builder.window(function, &base, data_type).map_err(refused)?);
        let field = Arc::new(Field::new(name, data_type.clone(), true));
        fields.push(Arc::clone(&field));
        qualified.push((None, field));
    }
    let schema =
        DFSchema::new_with_metadata(qualified, std::collections::HashMap::new()).map_err(engine_error)?;

    let mut features = Vec::new();
    let mut placed = Vec::new();
    for (i, item) in projection.into_iter().enumerate() {
        let at = places.get(i).copied();
        let refused = |reason: String| LoadError::new(&file.name, at, reason);
        let Expr::Alias(alias) = item else {
            return Err(refused(format!("`{item}` needs a name: write … AS name")));
        };
        pure(&alias.expr).map_err(refused)?;
        let expr = builder
            .state
            .create_physical_expr(*alias.expr, &schema)
            .map_err(|e| refused(e.strip_backtrace()))?;
        let data_type = expr.data_type(schema.as_arrow()).map_err(|e| refused(e.strip_backtrace()))?;
        placed.push((Arc::new(Field::new(&alias.name, data_type, true)), at));
        features.push(Feature { name: alias.name, expr });
    }
    Ok((FeatureFile { schema: Arc::new(Schema::new(fields)), windows: outputs, features }, placed))
}

/// A feature file's plan taken apart.
struct Shape {
    projection: Vec<Expr>,
    /// Window expressions with the names and types of their columns.
    windows: Vec<(Expr, String, DataType)>,
    base: DFSchema,
}

fn shape(plan: LogicalPlan) -> Result<Shape, String> {
    let LogicalPlan::Projection(projection) = plan else {
        return Err(format!(
            "a feature file is one SELECT of named window expressions FROM {RELATION}, without \
                            WHERE, GROUP BY, ORDER BY, LIMIT or UNION"
        ));
    };
    let mut windows = Vec::new();
    let mut input = projection.input;
    while let LogicalPlan::Window(window) = &*input {
        let Window { input: inner, window_expr, schema } = window;
        let first = inner.schema().fields().len();
        for (i, expr) in window_expr.iter().enumerate() {
            let field = schema.field(first + i);
            windows.push((expr.clone().unalias(), field.name().clone(), field.data_type().clone()));
        }
        input = Arc::clone(inner);
    }
    match &*input {
        LogicalPlan::TableScan(scan) if scan.filters.is_empty() => {}
        LogicalPlan::SubqueryAlias(alias) if matches!(&*alias.input, LogicalPlan::TableScan(_)) => {}
        other => {
            let node = other.display().to_string();
            let node = node.split(['(', ':', '\n']).next().unwrap_or_default().to_owned();
            return Err(format!(
                "windows are over the relation {RELATION} itself, not over {node}: use FILTER (WHERE …) on a \
                 window instead of WHERE, and one SELECT per file"
            ));
        }
    }
    Ok(Shape { projection: projection.expr, windows, base: input.schema().as_ref().clone() })
}

fn mentions(expr: &Expr, column: &str) -> bool {
    expr.column_refs().iter().any(|c: &&Column| c.name == column)
}

/// Refuses what would read a clock or a random number: a replay could not repeat it.
pub(crate) fn pure(expr: &Expr) -> Result<(), String> {
    let mut impure = None;
    expr.apply(|e| {
        if let Expr::ScalarFunction(call) = e
            && call.func.signature().volatility != Volatility::Immutable
        {
            impure = Some(call.func.name().to_owned());
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .map_err(|e| e.to_string())?;
    impure.map_or(Ok(()), |name| {
        Err(format!(
            "{name}() gives another answer each time: a decision could not be replayed; use event_time"
        ))
    })
}
