//! What keeps a query from holding a thread for ever: plans are changed so that they can be cancelled.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::{Transformed, TreeNode as _};
use datafusion::error::DataFusionError;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::statistics::{StatisticsArgs, StatisticsContext};

/// Pairs of rows that a join without an equality may look at: within one batch it cannot be cancelled.
const MAX_PAIRS: u128 = 1_000_000_000;

/// Lets every join hand its thread back now and then, and refuses those that compare too many rows.
///
/// # Errors
/// [`DataFusionError::Plan`] names the join that is refused.
pub(crate) fn guard(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let guarded = plan.transform_up(|node| {
        if !node.name().ends_with("JoinExec") {
            return Ok(Transformed::no(node));
        }
        if matches!(node.name(), "CrossJoinExec" | "NestedLoopJoinExec" | "PiecewiseMergeJoinExec") {
            check_pairs(&*node)?;
        }
        Ok(Transformed::yes(Arc::new(CooperativeExec::new(node)) as Arc<dyn ExecutionPlan>))
    })?;
    Ok(guarded.data)
}

fn check_pairs(join: &dyn ExecutionPlan) -> Result<()> {
    let mut pairs: u128 = 1;
    for input in join.children() {
        let statistics = StatisticsContext::new().compute(input.as_ref(), &StatisticsArgs::new())?;
        let rows = match statistics.num_rows {
            Precision::Exact(rows) | Precision::Inexact(rows) => rows,
            // Groups, for example: far fewer than what they are made of, as a rule.
            Precision::Absent => 1,
        };
        pairs = pairs.saturating_mul(rows as u128);
    }
    if pairs > MAX_PAIRS {
        return Err(DataFusionError::Plan(format!(
            "a join without an equality would compare {pairs} pairs of rows, {MAX_PAIRS} are allowed: \
             join on equal columns, or narrow both sides first"
        )));
    }
    Ok(())
}
