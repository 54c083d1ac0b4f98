//! What a window that asks for the label means, as a batch query.
//!
//! An event contributes to the rows of its key from when it enters the frame, or becomes what the filter
//! asks for, until it leaves, or becomes something else. So each event is a few contributions, each added
//! at one time and taken away at another, and a row's answer is the sum of all of its key until then.

use std::sync::Arc;

use datafusion::arrow::array::{BooleanArray, Int64Array, RecordBatch, TimestampMicrosecondArray};
use datafusion::arrow::datatypes::IntervalMonthDayNano;
use datafusion::arrow::datatypes::{DataType, Field, IntervalUnit, Schema, TimeUnit};
use datafusion::common::{Column, DFSchema, JoinType, ScalarValue};
use datafusion::dataframe::DataFrame;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::{WindowFunction, WindowFunctionParams};
use datafusion::logical_expr::{
    Expr, ExprFunctionExt as _, ExprSchemable as _, LogicalPlan, LogicalPlanBuilder, Window, WindowFrame,
    WindowFrameBound, WindowFunctionDefinition, cast, ident, lit, when,
};
use datafusion::prelude::SessionContext;

use super::definition::time_of;
use super::label::replaced;
use super::plan::unaliased;
use super::window::micros;
use crate::transactions::{EVENT_TIME, FRAUD};

/// The relation in which [`definition`](fn@super::definition) looks for labels.
pub const LABELS: &str = "labels";

const KNOWN_AFTER: &str = "known_after";
const PLACE: &str = "place";

/// What became known of a transaction, for a batch query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownLabel {
    /// The window time of the transaction, in microseconds.
    pub window_time_us: i64,
    /// Fraud, or legit.
    pub fraud: bool,
    /// The window time of the last row that does not see it, in microseconds.
    pub known_after_us: i64,
}

/// Labels, in the order in which they became known, as the relation [`LABELS`].
///
/// # Panics
/// Never: every column is as long as the list.
#[must_use]
pub fn labels(list: &[KnownLabel]) -> RecordBatch {
    let time = DataType::Timestamp(TimeUnit::Microsecond, None);
    let schema = Schema::new(vec![
        Field::new(EVENT_TIME, time.clone(), false),
        Field::new(FRAUD, DataType::Boolean, false),
        Field::new(KNOWN_AFTER, time, false),
        Field::new(PLACE, DataType::Int64, false),
    ]);
    let times =
        |of: fn(&KnownLabel) -> i64| -> TimestampMicrosecondArray { list.iter().map(of).map(Some).collect() };
    RecordBatch::try_new(
        Arc::new(schema),
        vec![
            Arc::new(times(|label| label.window_time_us)),
            Arc::new(list.iter().map(|label| Some(label.fraud)).collect::<BooleanArray>()),
            Arc::new(times(|label| label.known_after_us)),
            Arc::new((0..).take(list.len()).collect::<Int64Array>()),
        ],
    )
    .expect("each column has a value for each label")
}

fn is_label(column: &Column) -> bool {
    column.name == FRAUD
}

/// Whether a window asks for the label.
pub(super) fn asks(expr: &Expr) -> bool {
    match unaliased(expr) {
        Expr::WindowFunction(f) => {
            f.params.filter.as_ref().is_some_and(|filter| filter.column_refs().into_iter().any(is_label))
        }
        _ => false,
    }
}

/// A window node in which windows that ask for the label are computed from contributions.
pub(super) fn explicit(context: &SessionContext, window: Window) -> Result<LogicalPlan> {
    let names: Vec<Expr> =
        window.schema.iter().map(|(q, f)| Expr::Column(Column::new(q.cloned(), f.name()))).collect();
    let first = names.len() - window.window_expr.len();
    let (asking, others): (Vec<_>, Vec<_>) =
        window.window_expr.iter().zip(&names[first..]).partition(|(expr, _)| asks(expr));
    let mut plan = Arc::unwrap_or_clone(window.input);
    if !others.is_empty() {
        plan = LogicalPlanBuilder::window_plan(plan, others.into_iter().map(|(expr, _)| expr.clone()))?;
    }
    for (expr, name) in asking {
        let (Expr::WindowFunction(function), Expr::Column(name)) = (unaliased(expr), name) else { continue };
        plan = with_sum(context, plan, function, &name.name)?;
    }
    LogicalPlanBuilder::from(plan).project(names)?.build()
}

/// `plan` with the answers of a window as a column `name`.
fn with_sum(
    context: &SessionContext,
    plan: LogicalPlan,
    function: &WindowFunction,
    name: &str,
) -> Result<LogicalPlan> {
    let WindowFunctionParams { args, partition_by, window_frame, filter, .. } = &function.params;
    let schema = Arc::clone(plan.schema());
    let time = time_of(&schema)?;
    let one = lit(1_i64);
    // count(*) is count of a constant.
    let argument = args.first().filter(|_| function.fun.name() != "count").unwrap_or(&one);
    let float = argument.get_type(&schema)?.is_floating();
    let amount = if float { DataType::Float64 } else { DataType::Int64 };
    let counted = args.first().unwrap_or(&one).clone().is_not_null();
    let filter = filter.as_deref().ok_or_else(|| DataFusionError::Plan("no filter".to_owned()))?;
    let holds = |label| {
        let holds = replaced(filter, is_label, label).map_err(DataFusionError::Plan)?;
        when(holds.is_true(), lit(true)).otherwise(lit(false))
    };
    let key = |index: usize| format!("key_{index}");
    let keys: Vec<Expr> = partition_by.iter().enumerate().map(|(i, k)| k.clone().alias(key(i))).collect();

    let mut facts = keys.clone();
    facts.push(time.clone().alias("of"));
    facts.push(cast(argument.clone(), amount.clone()).alias("amount"));
    facts.push(counted.alias("counted"));
    facts.push(holds(None)?.alias("if_unknown"));
    facts.push(holds(Some(true))?.alias("if_fraud"));
    facts.push(holds(Some(false))?.alias("if_legit"));
    let facts = DataFrame::new(context.state(), plan.clone()).select(facts)?;
    let states = futures::executor::block_on(context.sql(&format!(
        "SELECT {EVENT_TIME} AS labelled, {FRAUD} AS label, {KNOWN_AFTER} AS after,
                lead({KNOWN_AFTER}) OVER (PARTITION BY {EVENT_TIME} ORDER BY {PLACE}) AS until
         FROM {LABELS}
         UNION ALL
         SELECT {EVENT_TIME}, NULL, NULL, min({KNOWN_AFTER}) FROM {LABELS} GROUP BY {EVENT_TIME}"
    )))?;
    let (start_us, end_us) = frame_us(window_frame)?;
    let (from, to) = (ident("of") + interval(end_us), ident("of") + interval(start_us));
    let after = ident("after") + interval(1);
    let lower = when(after.clone().gt(from.clone()), after).otherwise(from)?;
    let upper = when(ident("until").lt(to.clone()), ident("until")).otherwise(to)?;
    let counts = when(ident("label").is_null(), ident("if_unknown"))
        .when(ident("label"), ident("if_fraud"))
        .otherwise(ident("if_legit"))?;
    let spans = facts
        .join(states, JoinType::Left, &["of"], &["labelled"], None)?
        .filter(ident("counted").and(counts))?
        .with_column("lower", lower)?
        .with_column("upper", upper)?
        .filter(ident("lower").lt_eq(ident("upper")))?;

    let columns: Vec<Expr> =
        schema.iter().map(|(q, f)| Expr::Column(Column::new(q.cloned(), f.name()))).collect();
    let inner = |i: usize| format!("column_{i}");
    // Each side of the union has the plan's columns, the keys, a time, a count and an amount.
    let mut own: Vec<Expr> = columns.iter().enumerate().map(|(i, c)| c.clone().alias(inner(i))).collect();
    own.extend(keys);
    own.extend([
        time.alias("at"),
        lit(0_i64).alias("n"),
        zero(&amount)?.alias("total"),
        lit(true).alias("is_row"),
    ]);
    let rows = DataFrame::new(context.state(), plan).select(own)?;
    let side = |at: Expr, n: i64| {
        let mut side = nulls(&schema)?;
        side.extend((0..partition_by.len()).map(|i| ident(key(i))));
        let total = if n > 0 { ident("amount") } else { -ident("amount") };
        side.extend([at.alias("at"), lit(n).alias("n"), total.alias("total"), lit(false).alias("is_row")]);
        spans.clone().select(side)
    };
    let all = rows.union(side(ident("lower"), 1)?)?.union(side(ident("upper") + interval(1), -1)?)?;
    let sum = context.state().aggregate_functions().get("sum").cloned();
    let sum = sum.ok_or_else(|| DataFusionError::Plan("sum is built in".to_owned()))?;
    let over = |column: &str| {
        Expr::from(WindowFunction::new(
            WindowFunctionDefinition::AggregateUDF(Arc::clone(&sum)),
            vec![ident(column)],
        ))
        .partition_by((0..partition_by.len()).map(|i| ident(key(i))).collect())
        .order_by(vec![ident("at").sort(true, false)])
        .window_frame(WindowFrame::new(Some(false)))
        .build()
    };
    let answers =
        all.window(vec![over("n")?.alias("count"), over("total")?.alias("sum")])?.filter(ident("is_row"))?;
    let some = ident("count").gt(lit(0_i64));
    let answer = match function.fun.name() {
        "count" => ident("count"),
        "sum" => when(some, ident("sum")).end()?,
        _ => when(some, cast(ident("sum"), DataType::Float64) / cast(ident("count"), DataType::Float64))
            .end()?,
    };
    let mut out: Vec<Expr> = columns
        .into_iter()
        .enumerate()
        .map(|(i, column)| {
            let Expr::Column(Column { relation, name, .. }) = column else { unreachable!("made as columns") };
            ident(inner(i)).alias_qualified(relation, name)
        })
        .collect();
    out.push(answer.alias(name));
    LogicalPlanBuilder::from(answers.into_unoptimized_plan()).project(out)?.build()
}

fn frame_us(frame: &WindowFrame) -> Result<(i64, i64)> {
    let bound = |bound: &WindowFrameBound| match bound {
        // Before it is analysed, a plan has the interval as it was written.
        WindowFrameBound::Preceding(value) => {
            let interval = value.cast_to(&DataType::Interval(IntervalUnit::MonthDayNano))?;
            micros(&interval).map_err(DataFusionError::Plan)
        }
        WindowFrameBound::CurrentRow | WindowFrameBound::Following(_) => Ok(0),
    };
    Ok((bound(&frame.start_bound)?, bound(&frame.end_bound)?))
}

fn interval(us: i64) -> Expr {
    const DAY_US: i64 = 86_400_000_000;
    let days = i32::try_from(us / DAY_US).unwrap_or(i32::MAX);
    lit(ScalarValue::IntervalMonthDayNano(Some(IntervalMonthDayNano::new(0, days, us % DAY_US * 1_000))))
}

fn zero(amount: &DataType) -> Result<Expr> {
    Ok(lit(ScalarValue::new_zero(amount)?))
}

/// The columns of a schema, all NULL.
fn nulls(schema: &DFSchema) -> Result<Vec<Expr>> {
    schema
        .fields()
        .iter()
        .enumerate()
        .map(|(i, field)| Ok(lit(ScalarValue::try_from(field.data_type())?).alias(format!("column_{i}"))))
        .collect()
}
