//! The condition of one rule, evaluated on the columns that it reads, and on fewer rows where that saves more than it
//! costs.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::arrow::array::{Array as _, AsArray as _, BooleanArray, RecordBatch, RecordBatchOptions};
use datafusion::arrow::buffer::{BooleanBuffer, NullBuffer};
use datafusion::arrow::compute::filter_record_batch;
use datafusion::arrow::datatypes::{DataType, Float64Type, Schema, SchemaRef};
use datafusion::arrow::error::ArrowError;
use datafusion::common::tree_node::{Transformed, TransformedResult as _, TreeNode as _};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{ColumnarValue, Operator};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{
    BinaryExpr, CastExpr, Column, IsNotNullExpr, IsNullExpr, Literal, NotExpr,
};
use datafusion::physical_expr::utils::{collect_columns, reassign_expr_columns, split_conjunction};

use super::bounds::{Bound, Ranges};
use crate::error::ScoreError;
use crate::windows::inputs::evaluate;

/// A condition, and the figures that are shown where it holds.
#[derive(Debug, Clone)]
pub(super) struct Condition {
    bound: Bound,
    /// The columns it reads, by their places in a batch, and as a relation of their own: rows of that
    /// are cheap to pick.
    reads: Vec<usize>,
    schema: SchemaRef,
    /// All have to be true of a row.
    conjuncts: Vec<Conjunct>,
    observed: Arc<dyn PhysicalExpr>,
    limit: Arc<dyn PhysicalExpr>,
}

/// A part of a condition.
#[derive(Debug, Clone)]
struct Conjunct {
    expr: Arc<dyn PhysicalExpr>,
    /// Whether it fails on no row: then it may be asked of those as well on which others do not hold.
    never_fails: bool,
}

/// Rows are picked before the next conjunct where at most one in so many is left: above, that costs more than it saves.
const PICK_ONE_IN: usize = 8;

/// A row on which a condition holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Hit {
    pub(super) row: usize,
    pub(super) observed: f64,
    pub(super) limit: f64,
}

impl Condition {
    /// Takes a boolean expression over batches of `schema` apart, and two that are doubles.
    pub(super) fn new(
        when: Arc<dyn PhysicalExpr>,
        observed: Arc<dyn PhysicalExpr>,
        limit: Arc<dyn PhysicalExpr>,
        schema: &Schema,
    ) -> Result<Self, DataFusionError> {
        let (when, observed, limit) = (folded(when)?, folded(observed)?, folded(limit)?);
        let reads = [&when, &observed, &limit].into_iter().flat_map(collect_columns).map(|c| c.index());
        let reads: Vec<usize> = reads.collect::<BTreeSet<_>>().into_iter().collect();
        let own = schema.project(&reads)?;
        let mut conjuncts = split_conjunction(&when);
        // What has a bound is a comparison with a constant: cheap, and it leaves few rows to the others.
        conjuncts.sort_by_key(|conjunct| Bound::of(conjunct, schema) == Bound::Unknown);
        let conjuncts = conjuncts.into_iter().map(|conjunct| {
            let expr = reassign_expr_columns(Arc::clone(conjunct), &own)?;
            Ok::<_, DataFusionError>(Conjunct { never_fails: never_fails(&expr, &own), expr })
        });
        Ok(Self {
            bound: Bound::of(&when, schema),
            conjuncts: conjuncts.collect::<Result<_, _>>()?,
            observed: reassign_expr_columns(observed, &own)?,
            limit: reassign_expr_columns(limit, &own)?,
            schema: Arc::new(own),
            reads,
        })
    }

    /// The longest of `reaches_us`, which are by column, among the columns that are read.
    pub(super) fn reach_us(&self, reaches_us: &[i64]) -> i64 {
        self.reads.iter().filter_map(|&column| reaches_us.get(column).copied()).max().unwrap_or(0)
    }

    /// False only when the condition holds on no row of the batch.
    pub(super) fn may_hold(&self, ranges: &Ranges<'_>) -> bool {
        self.bound.may_hold(ranges)
    }

    /// The rows on which the condition holds, in order. `rule` is what errors name.
    pub(super) fn hits(&self, rule: &str, batch: &RecordBatch) -> Result<Vec<Hit>, ScoreError> {
        let failed = |e: ArrowError| ScoreError::Evaluate { expression: rule.to_owned(), source: e.into() };
        let columns = self.reads.iter().map(|&column| Arc::clone(batch.column(column))).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let mut left =
            RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options).map_err(failed)?;
        // All of them at first.
        let mut rows: Option<Vec<usize>> = None;
        let mut pick = |left: &mut RecordBatch, holds: BooleanBuffer| -> Result<(), ScoreError> {
            if holds.count_set_bits() < left.num_rows() {
                let row = |at: usize| rows.as_ref().map_or(at, |rows| rows[at]);
                rows = Some(holds.set_indices().map(row).collect());
                *left = filter_record_batch(left, &BooleanArray::new(holds, None)).map_err(failed)?;
            }
            Ok(())
        };
        // Of the rows that are left, those on which the conjuncts so far hold.
        let mut holds: Option<BooleanBuffer> = None;
        for Conjunct { expr, never_fails } in &self.conjuncts {
            let few = |holds: &mut BooleanBuffer| holds.count_set_bits() <= left.num_rows() / PICK_ONE_IN;
            if let Some(holds) = holds.take_if(|holds| !never_fails || few(holds)) {
                pick(&mut left, holds)?;
            }
            let own = evaluate(rule, &**expr, &left)?;
            let own = own.as_boolean();
            // Rows where the condition is NULL do not match.
            let own = own.values() & own.nulls().map_or(own.values(), NullBuffer::inner);
            let both = match holds {
                Some(holds) => &holds & &own,
                None => own,
            };
            if both.count_set_bits() == 0 {
                return Ok(Vec::new());
            }
            holds = Some(both);
        }
        if let Some(holds) = holds {
            pick(&mut left, holds)?;
        }
        let figures = |expr: &Arc<dyn PhysicalExpr>| -> Result<Vec<f64>, ScoreError> {
            let figures = evaluate(rule, &**expr, &left)?;
            // JSON has no infinity: a figure that is not a number is shown as 0.
            let shown = |figure: Option<f64>| figure.filter(|f| f.is_finite()).unwrap_or(0.0);
            Ok(figures.as_primitive::<Float64Type>().iter().map(shown).collect())
        };
        let figures = figures(&self.observed)?.into_iter().zip(figures(&self.limit)?);
        Ok(rows
            .unwrap_or_else(|| (0..batch.num_rows()).collect())
            .into_iter()
            .zip(figures)
            .map(|(row, (observed, limit))| Hit { row, observed, limit })
            .collect())
    }
}

/// Whether an expression over rows of `schema` fails on none, whatever is in it: not all of those that never do are
/// known.
fn never_fails(expr: &Arc<dyn PhysicalExpr>, schema: &Schema) -> bool {
    let is = |expr: &Arc<dyn PhysicalExpr>, wanted: fn(&DataType) -> bool| {
        expr.data_type(schema).is_ok_and(|of| wanted(&of))
    };
    let is_double = |of: &DataType| *of == DataType::Float64;
    let by_itself = if let Some(binary) = expr.downcast_ref::<BinaryExpr>() {
        match binary.op() {
            Operator::Eq | Operator::NotEq | Operator::And | Operator::Or => true,
            Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq => true,
            Operator::Plus | Operator::Minus | Operator::Multiply => is(expr, is_double),
            _ => false,
        }
    } else if let Some(cast) = expr.downcast_ref::<CastExpr>() {
        is(expr, is_double) && is(cast.expr(), DataType::is_integer)
    } else {
        expr.is::<Column>()
            || expr.is::<Literal>()
            || expr.is::<NotExpr>()
            || expr.is::<IsNullExpr>()
            || expr.is::<IsNotNullExpr>()
    };
    by_itself && expr.children().into_iter().all(|child| never_fails(child, schema))
}

/// The expression with its constant parts computed, casts of constants above all. What fails is left as it
/// is: it fails on those rows that come to it.
fn folded(expr: Arc<dyn PhysicalExpr>) -> Result<Arc<dyn PhysicalExpr>, DataFusionError> {
    let one_row = RecordBatchOptions::new().with_row_count(Some(1));
    let one_row = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &one_row)?;
    expr.transform_up(|expr| {
        let children = expr.children();
        let is_constant = !children.is_empty() && children.iter().all(|child| child.is::<Literal>());
        Ok(match is_constant.then(|| expr.evaluate(&one_row)) {
            Some(Ok(ColumnarValue::Scalar(value))) => Transformed::yes(Arc::new(Literal::new(value))),
            _ => Transformed::no(expr),
        })
    })
    .data()
}
