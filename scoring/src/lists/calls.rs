//! `in_list('list', expression)` in rules.
//!
//! What is on a list changes while expressions do not: so the function is only a name for planning. Each
//! distinct call becomes a boolean column, which the scorer computes for a whole batch before rules are
//! evaluated, and the expression refers to that column.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray as _, BooleanArray, RecordBatch};
use datafusion::arrow::buffer::BooleanBuffer;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode as _};
use datafusion::common::{Column, DFSchema, Result as PlanResult, ScalarValue, not_impl_err};
use datafusion::execution::SessionState;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::physical_expr::PhysicalExpr;
use events::{ListDeclaration, ListKind};

use super::declare::DeclaredList;
use super::state::Lists;
use crate::error::ScoreError;
use crate::windows::inputs::evaluate;

/// The function's name in SQL.
pub(crate) const FUNCTION: &str = "in_list";

/// The function as the planner knows it.
pub(crate) fn function() -> ScalarUDF {
    ScalarUDF::from(InList(Signature::variadic_any(Volatility::Immutable)))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct InList(Signature);

impl ScalarUDFImpl for InList {
    fn name(&self) -> &str {
        FUNCTION
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn return_type(&self, _: &[DataType]) -> PlanResult<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> PlanResult<ColumnarValue> {
        not_impl_err!("{FUNCTION}() is replaced by a column before anything is evaluated")
    }
}

/// The calls that rules make, and the columns they became.
#[derive(Debug, Clone)]
pub(crate) struct Calls {
    lists: Vec<ListDeclaration>,
    calls: Vec<Call>,
    /// What the calls ask about, each once: two lists of cards share one.
    values: Vec<Value>,
    /// Of the batch that rules are evaluated over: the features, then a column per call.
    schema: SchemaRef,
    base: SchemaRef,
}

#[derive(Debug, Clone)]
struct Call {
    column: String,
    list: usize,
    value: usize,
}

#[derive(Debug, Clone)]
struct Value {
    text: String,
    expr: Arc<dyn PhysicalExpr>,
}

impl Calls {
    /// No calls yet, over a relation with features.
    pub(crate) fn new(base: &SchemaRef, lists: &[DeclaredList]) -> Self {
        Self {
            lists: lists.iter().map(|list| list.declaration.clone()).collect(),
            calls: Vec::new(),
            values: Vec::new(),
            schema: Arc::clone(base),
            base: Arc::clone(base),
        }
    }

    /// The columns that a rewritten expression may refer to.
    pub(crate) const fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Replaces each call in an expression by its column.
    pub(crate) fn rewrite(&mut self, state: &SessionState, expr: Expr) -> Result<Expr, String> {
        let mut refused = None;
        let rewritten = expr.transform_up(|e| {
            let Expr::ScalarFunction(call) = &e else { return Ok(Transformed::no(e)) };
            if call.func.name() != FUNCTION || refused.is_some() {
                return Ok(Transformed::no(e));
            }
            match self.column(state, &call.args) {
                Ok(column) => Ok(Transformed::yes(Expr::Column(Column::new_unqualified(column)))),
                Err(reason) => {
                    refused = Some(reason);
                    Ok(Transformed::no(e))
                }
            }
        });
        match refused {
            Some(reason) => Err(reason),
            None => rewritten.map(|t| t.data).map_err(|e| e.strip_backtrace()),
        }
    }

    /// The column of a call with these arguments.
    fn column(&mut self, state: &SessionState, args: &[Expr]) -> Result<String, String> {
        const FORM: &str = "write in_list('list', expression), with the name of a list in quotes";
        let [Expr::Literal(ScalarValue::Utf8(Some(id)), _), value] = args else {
            return Err(FORM.to_owned());
        };
        if value.column_refs().iter().any(|column| self.calls.iter().any(|call| call.column == column.name)) {
            return Err(format!("{FUNCTION}() within {FUNCTION}(): use AND, OR or CASE around both"));
        }
        let Some(list) = self.lists.iter().position(|list| list.id.as_str() == id) else {
            let known: Vec<&str> = self.lists.iter().map(|list| list.id.as_str()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(format!(
                "no list `{id}` is declared; declare it in a file of lists, or write one of: {known}"
            ));
        };
        let text = value.to_string();
        let column = format!("{FUNCTION}('{id}', {text})");
        if self.calls.iter().any(|call| call.column == column) {
            return Ok(column);
        }
        let value = self.value(state, value, &text, &self.lists[list].clone())?;
        let fields = self.schema.fields().iter().cloned();
        let fields = fields.chain([Arc::new(Field::new(&column, DataType::Boolean, false))]);
        self.schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        self.calls.push(Call { column: column.clone(), list, value });
        Ok(column)
    }

    fn value(
        &mut self,
        state: &SessionState,
        expr: &Expr,
        text: &str,
        list: &ListDeclaration,
    ) -> Result<usize, String> {
        if let Expr::Column(column) = expr {
            let fitting = columns_of(list.kind);
            if !fitting.is_empty() && !fitting.contains(&column.name.as_str()) {
                return Err(format!(
                    "`{text}` is never on list `{}`, whose values are of kind {}: write {}",
                    list.id,
                    list.kind,
                    fitting.join(" or ")
                ));
            }
        }
        if let Some(known) = self.values.iter().position(|value| value.text == text) {
            return Ok(known);
        }
        crate::features::plan::pure(expr)?;
        let schema = DFSchema::try_from(Arc::clone(&self.base)).map_err(|e| e.strip_backtrace())?;
        let compiled = state
            .create_physical_expr(expr.clone(), &schema)
            .map_err(|e| format!("`{text}`: {}", e.strip_backtrace()))?;
        let found = compiled.data_type(&self.base).map_err(|e| e.strip_backtrace())?;
        if !matches!(found, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) {
            return Err(format!("`{text}` is {found}, and {FUNCTION}() asks about text: CAST it AS VARCHAR"));
        }
        self.values.push(Value { text: text.to_owned(), expr: compiled });
        Ok(self.values.len() - 1)
    }

    /// A batch with features and the columns of all calls.
    pub(crate) fn run(
        &self,
        batch: RecordBatch,
        times_us: &[i64],
        lists: &Lists,
    ) -> Result<RecordBatch, ScoreError> {
        if self.calls.is_empty() {
            return Ok(batch);
        }
        let mut scopes = None;
        let mut values: Vec<Option<ArrayRef>> = vec![None; self.values.len()];
        let mut columns = batch.columns().to_vec();
        for call in &self.calls {
            if lists.is_empty(call.list) {
                let none = BooleanBuffer::new_unset(batch.num_rows());
                columns.push(Arc::new(BooleanArray::new(none, None)));
                continue;
            }
            if scopes.is_none() {
                scopes = Some(lists.scopes(&batch)?);
            }
            if values[call.value].is_none() {
                values[call.value] = Some(self.values[call.value].evaluate(&batch)?);
            }
            if let (Some(scopes), Some(texts)) = (&scopes, &values[call.value]) {
                let found = lists.contain(call.list, texts.as_string::<i32>(), scopes, times_us);
                columns.push(Arc::new(found));
            }
        }
        RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(|e| ScoreError::Batch(e.to_string()))
    }
}

impl Value {
    fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef, ScoreError> {
        let failed = |source| ScoreError::Evaluate { expression: self.text.clone(), source };
        let values = evaluate(&self.text, &*self.expr, batch)?;
        cast(&values, &DataType::Utf8).map_err(|e| failed(e.into()))
    }
}

/// The relation's columns that hold values of a kind: a rule that asks about another one never matches, and
/// nobody would notice.
const fn columns_of(kind: ListKind) -> &'static [&'static str] {
    match kind {
        ListKind::Card => &["card"],
        ListKind::Bin => &["bin"],
        ListKind::Ip => &["ip"],
        ListKind::Email => &["email"],
        ListKind::Device => &["device_id"],
        ListKind::Country => &["billing_country", "shipping_country", "location_country"],
        ListKind::Text => &[],
    }
}
