//! The column `fraud`: what a transaction turned out to be, as far as is known.

use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TreeNode as _};
use datafusion::logical_expr::Expr;

use super::plan::label_slot;
use crate::transactions::FRAUD;

/// Whether an expression over slots depends on the label.
pub(super) fn mentions_label(expr: &Expr) -> bool {
    let label = label_slot();
    expr.column_refs().iter().any(|column| **column == label)
}

/// The expression over slots for a known label, or for none.
pub(super) fn with_label(expr: &Expr, label: Option<bool>) -> Result<Expr, String> {
    let slot = label_slot();
    replaced(expr, |column| *column == slot, label)
}

/// The expression with a constant where `is_label` finds the label.
pub(super) fn replaced(
    expr: &Expr,
    is_label: impl Fn(&datafusion::common::Column) -> bool,
    label: Option<bool>,
) -> Result<Expr, String> {
    let constant = Expr::Literal(ScalarValue::Boolean(label), None);
    let rewritten = expr.clone().transform(|e| match &e {
        Expr::Column(column) if is_label(column) => Ok(Transformed::yes(constant.clone())),
        _ => Ok(Transformed::no(e)),
    });
    rewritten.map(|t| t.data).map_err(|e| e.strip_backtrace())
}

/// Why the label is refused outside of filters.
pub(super) fn only_in_filter() -> String {
    format!("{FRAUD} becomes known only later: use it in FILTER (WHERE …) of count, sum or avg")
}
