//! What a feature file means: the batch query it stands for.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode as _};
use datafusion::common::{Column, ScalarValue};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::SessionState;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{
    Expr, ExprFunctionExt as _, LogicalPlan, LogicalPlanBuilder, Window, WindowFrame, WindowFrameBound,
    WindowFrameUnits, WindowFunctionDefinition, lit, when,
};
use datafusion::prelude::SessionContext;

use super::labelled::{self, asks};
use super::locate;
use super::plan::{options, unaliased};
use crate::error::LoadError;
use crate::source::SourceFile;
use crate::transactions::EVENT_TIME;

/// The query over the relation `transactions`, registered in `context` with the features of earlier
/// files as columns, whose answer a feature file's features are: `event_time`, and then every feature.
///
/// It is the file's own SQL, but where `EXPIRE KEYS AFTER` is said: a key that was silent for longer
/// begins anew, so what looks at a key's history is partitioned by its silences too; and where a filter
/// asks what a transaction turned out to be: then it is what the relation [`LABELS`](super::LABELS), to be registered in
/// `context` as well, says was known before each row.
///
/// The relation `transactions` needs a column `fraud` for that, of which the values do not matter.
///
/// # Errors
/// [`LoadError`] when the file's SQL does not fit the relation.
pub fn definition(
    context: &SessionContext,
    file: &SourceFile,
) -> std::result::Result<LogicalPlan, LoadError> {
    let failed = |e: DataFusionError| LoadError::new(&file.name, locate::of_error(&e), e.strip_backtrace());
    let expiry_us = options(context, &file.text)
        .map_err(|(line, reason)| LoadError::new(&file.name, Some((line, 1)), reason))?
        .expiry_us;
    let state = context.state();
    let plan = futures::executor::block_on(state.create_logical_plan(&file.text)).map_err(failed)?;
    let plan = with_time(plan).map_err(failed)?;
    let plan = match expiry_us {
        None => plan,
        Some(us) => {
            plan.transform_up(|node| match node {
                LogicalPlan::Window(window) => expiring(&state, window, us),
                other => Ok(Transformed::no(other)),
            })
            .map_err(failed)?
            .data
        }
    };
    let labelled = plan.transform_up(|node| match node {
        LogicalPlan::Window(window) if window.window_expr.iter().any(asks) => {
            labelled::explicit(context, window).map(Transformed::yes)
        }
        other => Ok(Transformed::no(other)),
    });
    labelled.map(|t| t.data).map_err(failed)
}

/// Puts the window time before the columns of the outermost SELECT.
fn with_time(plan: LogicalPlan) -> Result<LogicalPlan> {
    let LogicalPlan::Projection(projection) = plan else { return Ok(plan) };
    let time = time_of(projection.input.schema())?;
    let columns = std::iter::once(time).chain(projection.expr);
    LogicalPlanBuilder::from(Arc::unwrap_or_clone(projection.input)).project(columns)?.build()
}

pub(super) fn time_of(schema: &datafusion::common::DFSchema) -> Result<Expr> {
    let (qualifier, field) = schema
        .iter()
        .find(|(_, field)| field.name() == EVENT_TIME)
        .ok_or_else(|| DataFusionError::Plan(format!("the SELECT's input has no {EVENT_TIME}")))?;
    Ok(Expr::Column(Column::new(qualifier.cloned(), field.name())))
}

/// Partitions what looks at histories by silences too, under the names it had.
fn expiring(state: &SessionState, window: Window, expiry_us: i64) -> Result<Transformed<LogicalPlan>> {
    let looks_at_history = |expr: &Expr| match unaliased(expr) {
        Expr::WindowFunction(f) => {
            let start = &f.params.window_frame.start_bound;
            let unbounded = matches!(start, WindowFrameBound::Preceding(bound) if bound.is_null());
            unbounded || f.params.window_frame.units == WindowFrameUnits::Rows || f.fun.name() == "lag"
        }
        _ => false,
    };
    if !window.window_expr.iter().any(looks_at_history) {
        return Ok(Transformed::no(LogicalPlan::Window(window)));
    }
    let time = time_of(window.input.schema())?;
    let names: Vec<Expr> =
        window.schema.iter().map(|(q, f)| Expr::Column(Column::new(q.cloned(), f.name()))).collect();
    let mut plan = Arc::unwrap_or_clone(window.input);
    let mut epochs: BTreeMap<String, String> = BTreeMap::new();
    let mut exprs = Vec::new();
    for expr in window.window_expr {
        if !looks_at_history(&expr) {
            exprs.push(expr);
            continue;
        }
        let Expr::WindowFunction(mut function) = unaliased(&expr).clone() else { continue };
        let keys = function.params.partition_by.clone();
        let text = format!("{keys:?}");
        let epoch = match epochs.get(&text) {
            Some(epoch) => epoch.clone(),
            None => {
                let epoch = format!("silences_{}", epochs.len());
                plan = with_epoch(state, plan, &keys, &time, expiry_us, &epoch)?;
                epochs.insert(text, epoch.clone());
                epoch
            }
        };
        function.params.partition_by.push(Expr::Column(Column::new_unqualified(epoch)));
        exprs.push(Expr::WindowFunction(function));
    }
    let made: Vec<Column> =
        exprs.iter().map(|e| Column::new_unqualified(e.schema_name().to_string())).collect();
    // Not one node: DataFusion partitions a node as its first window says.
    let plan = LogicalPlanBuilder::from(LogicalPlanBuilder::window_plan(plan, exprs)?);
    let first = names.len() - made.len();
    let kept = names.iter().enumerate().map(|(i, name)| match i.checked_sub(first) {
        None => name.clone(),
        Some(i) => {
            let Expr::Column(old) = name else { unreachable!("names are columns") };
            Expr::Column(made[i].clone()).alias(&old.name)
        }
    });
    Ok(Transformed::yes(plan.project(kept.collect::<Vec<_>>())?.build()?))
}

/// Adds a column that counts how often a key has been silent for too long.
fn with_epoch(
    state: &SessionState,
    plan: LogicalPlan,
    keys: &[Expr],
    time: &Expr,
    expiry_us: i64,
    name: &str,
) -> Result<LogicalPlan> {
    let lag = state.window_functions().get("lag").cloned();
    let sum = state.aggregate_functions().get("sum").cloned();
    let (Some(lag), Some(sum)) = (lag, sum) else {
        return Err(DataFusionError::Plan("lag and sum are built in".to_owned()));
    };
    let over = |definition, argument: Expr| {
        Expr::from(WindowFunction::new(definition, vec![argument]))
            .partition_by(keys.to_vec())
            .order_by(vec![time.clone().sort(true, false)])
            .window_frame(WindowFrame::new(Some(true)))
            .build()
    };
    let (before, begins) = (format!("{name}_before"), format!("{name}_begins"));
    let columns = |plan: &LogicalPlan, without: usize| {
        let all = plan.schema().iter().map(|(q, f)| Expr::Column(Column::new(q.cloned(), f.name())));
        all.take(plan.schema().fields().len() - without).collect::<Vec<_>>()
    };
    let last = |plan: &LogicalPlan| {
        let (qualifier, field) = plan.schema().qualified_field(plan.schema().fields().len() - 1);
        Expr::Column(Column::new(qualifier.cloned(), field.name()))
    };
    let newest = over(WindowFunctionDefinition::WindowUDF(lag), time.clone())?;
    let plan = LogicalPlanBuilder::from(plan).window([newest])?.build()?;
    let mut with = columns(&plan, 1);
    with.push(last(&plan).alias(&before));
    let plan = LogicalPlanBuilder::from(plan).project(with)?.build()?;
    let silence = time.clone() - Expr::Column(Column::new_unqualified(&before));
    let too_long = silence.gt(lit(ScalarValue::DurationMicrosecond(Some(expiry_us))));
    let mut with = columns(&plan, 1);
    with.push(when(too_long, lit(1_i64)).otherwise(lit(0_i64))?.alias(&begins));
    let plan = LogicalPlanBuilder::from(plan).project(with)?.build()?;
    let count =
        over(WindowFunctionDefinition::AggregateUDF(sum), Expr::Column(Column::new_unqualified(&begins)))?;
    let plan = LogicalPlanBuilder::from(plan).window([count])?.build()?;
    let mut with = columns(&plan, 2);
    with.push(last(&plan).alias(name));
    LogicalPlanBuilder::from(plan).project(with)?.build()
}
