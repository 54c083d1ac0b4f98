//! One file's SELECTs, the common table expressions in it included, into slots.

use std::sync::Arc;

use datafusion::arrow::datatypes::Field;
use datafusion::common::tree_node::{Transformed, TreeNode as _};
use datafusion::common::{Column, TableReference};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlan, Projection};

use super::label::{mentions_label, only_in_filter};
use super::locate::Places;
use super::plan::{Planner, Slot, Source, pure, slot_name, slot_of, unaliased};
use super::window::{Builder, Options};
use crate::transactions::RELATION;

/// What a SELECT, or a table, makes: columns by name.
#[derive(Debug, Clone)]
pub(super) struct Relation(pub(super) Vec<(Option<TableReference>, String, usize)>);

/// Where and why a file is refused.
pub(super) type Refusal = (Option<(usize, usize)>, String);

/// One file on its way into slots.
pub(super) struct Select<'a> {
    pub(super) planner: &'a mut Planner,
    pub(super) places: &'a Places,
    pub(super) options: Options,
    /// How many SELECTs the one at hand is within.
    pub(super) nested: usize,
}

impl Select<'_> {
    /// Where an item of the SELECT at hand stands.
    fn place(&self, name: &str, index: usize) -> Option<(usize, usize)> {
        if self.nested == 0 { self.places.of_item(name, index) } else { self.places.of_name(name) }
    }

    fn relation(&mut self, plan: &LogicalPlan) -> Result<Relation, Refusal> {
        match plan {
            LogicalPlan::TableScan(scan) if scan.filters.is_empty() && scan.fetch.is_none() => {
                let named = |(qualifier, field): (Option<&TableReference>, &Arc<Field>)| {
                    let slot = self.planner.relation_slot(field.name());
                    (qualifier.cloned(), field.name().clone(), slot)
                };
                Ok(Relation(scan.projected_schema.iter().map(named).collect()))
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let Relation(columns) = self.relation(&alias.input)?;
                let renamed = |((_, _, slot), field): ((_, _, usize), &Arc<Field>)| {
                    (Some(alias.alias.clone()), field.name().clone(), slot)
                };
                Ok(Relation(columns.into_iter().zip(alias.schema.fields()).map(renamed).collect()))
            }
            LogicalPlan::Projection(projection) => self.projection(projection),
            LogicalPlan::Window(_) => Err((None, "a window needs a name: write … AS name".to_owned())),
            other => Err((None, refused_node(other))),
        }
    }

    /// A SELECT list, with the windows below it.
    pub(super) fn projection(&mut self, projection: &Projection) -> Result<Relation, Refusal> {
        let mut windows = Vec::new();
        let mut input = &projection.input;
        while let LogicalPlan::Window(window) = &**input {
            windows.push(window);
            input = &window.input;
        }
        self.nested += 1;
        let relation = self.relation(input);
        self.nested -= 1;
        let mut relation = relation?;
        for window in windows.into_iter().rev() {
            let first = window.input.schema().fields().len();
            let width = relation.0.len();
            for (i, expr) in window.window_expr.iter().enumerate() {
                let field = window.schema.field(first + i);
                let item = projection.expr.iter().position(|item| mentions(item, field.name()));
                let at = item.and_then(|item| self.place(projection.schema.field(item).name(), item));
                // Windows of one node do not see each other.
                let visible = Relation(relation.0[..width].to_vec());
                let slot = self.window(expr, field, &visible).map_err(|reason| (at, reason))?;
                relation.0.push((None, field.name().clone(), slot));
            }
        }
        let mut columns = Vec::new();
        for (index, (item, (_, field))) in projection.expr.iter().zip(projection.schema.iter()).enumerate() {
            let at = self.place(field.name(), index);
            let slot = self.expression(item, field, &relation).map_err(|reason| (at, reason))?;
            columns.push((None, field.name().clone(), slot));
        }
        Ok(Relation(columns))
    }

    fn window(&mut self, expr: &Expr, field: &Field, relation: &Relation) -> Result<usize, String> {
        pure(expr)?;
        let over_slots = to_slots(expr.clone(), relation)?;
        let Expr::WindowFunction(function) = unaliased(&over_slots) else {
            return Err(format!("`{expr}` is not a window function"));
        };
        let params = &function.params;
        if params.args.iter().chain(&params.partition_by).any(mentions_label) {
            return Err(only_in_filter());
        }
        let (below, _) = self.planner.level(&over_slots);
        while self.planner.layers.len() <= below {
            self.planner.layers.push(Builder::default());
        }
        let schema = self.planner.schema().map_err(|e| e.strip_backtrace())?;
        let output = self.planner.layers[below].window(function, &schema, field.data_type(), self.options)?;
        let layer = below + 1;
        let same =
            |slot: &Slot| slot.layer == layer && matches!(slot.source, Source::Window(o) if o == output);
        if let Some(slot) = self.planner.slots.iter().position(same) {
            return Ok(slot);
        }
        let slot = Slot {
            name: field.name().clone(),
            data_type: field.data_type().clone(),
            nullable: true,
            layer,
            depth: 0,
            source: Source::Window(output),
        };
        Ok(self.planner.add(slot))
    }

    fn expression(&mut self, item: &Expr, field: &Field, relation: &Relation) -> Result<usize, String> {
        pure(item)?;
        let over_slots = to_slots(item.clone(), relation)?;
        let expr = unaliased(&over_slots);
        if let Expr::Column(column) = expr {
            return slot_of(column).ok_or_else(|| format!("no column {column}"));
        }
        if mentions_label(expr) {
            return Err(only_in_filter());
        }
        let (layer, depth) = self.planner.level(expr);
        let slot = Slot {
            name: field.name().clone(),
            data_type: field.data_type().clone(),
            nullable: true,
            layer,
            depth: depth + 1,
            source: Source::Expression(expr.clone()),
        };
        Ok(self.planner.add(slot))
    }
}

/// What a feature file has to be.
pub(super) fn one_select() -> String {
    format!(
        "a feature file is one SELECT of named window expressions FROM {RELATION} or a common table expression over \
         it, without WHERE, GROUP BY, ORDER BY, LIMIT, JOIN or UNION"
    )
}

fn refused_node(plan: &LogicalPlan) -> String {
    let node = plan.display().to_string();
    let node = node.split(['(', ':', '\n']).next().unwrap_or_default().to_owned();
    format!(
        "{node} is not supported here: {}; use FILTER (WHERE …) on a window instead of WHERE",
        one_select()
    )
}

/// The same expression over slots instead of the columns of a relation.
fn to_slots(expr: Expr, Relation(columns): &Relation) -> Result<Expr, String> {
    let rewritten = expr.transform(|e| {
        let Expr::Column(column) = &e else { return Ok(Transformed::no(e)) };
        let found = columns.iter().find(|(qualifier, name, _)| {
            *name == column.name
                && (column.relation.is_none() || column.relation == *qualifier || qualifier.is_none())
        });
        match found {
            Some((_, _, slot)) => {
                Ok(Transformed::yes(Expr::Column(Column::new_unqualified(slot_name(*slot)))))
            }
            None => Err(DataFusionError::Plan(format!("no column {column}"))),
        }
    });
    rewritten.map(|t| t.data).map_err(|e| e.strip_backtrace())
}

fn mentions(expr: &Expr, column: &str) -> bool {
    expr.column_refs().iter().any(|c: &&Column| c.name == column)
}
