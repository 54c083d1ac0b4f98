//! Where in a feature file things stand.

use datafusion::error::DataFusionError;
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::sqlparser::ast::{SelectItem, SetExpr, Spanned as _, Statement as SqlStatement};

/// The start of each item of the outermost SELECT list: line and column from 1.
pub(super) fn select_items(sql: &str) -> Vec<(usize, usize)> {
    let Ok(mut statements) = DFParser::parse_sql(sql) else { return Vec::new() };
    let Some(Statement::Statement(statement)) = statements.pop_front() else { return Vec::new() };
    let SqlStatement::Query(query) = *statement else { return Vec::new() };
    let SetExpr::Select(select) = *query.body else { return Vec::new() };
    let start = |item: &SelectItem| {
        let start = item.span().start;
        (usize::try_from(start.line).unwrap_or(0), usize::try_from(start.column).unwrap_or(0))
    };
    select.projection.iter().map(start).collect()
}

/// The place an engine error names: from its diagnostic's span, or from the parser's message.
pub(super) fn of_error(error: &DataFusionError) -> Option<(usize, usize)> {
    let from_span = error.diagnostic().and_then(|d| d.span).map(|span| {
        let start = span.start;
        (usize::try_from(start.line).unwrap_or(0), usize::try_from(start.column).unwrap_or(0))
    });
    from_span.or_else(|| {
        let text = error.to_string();
        let after = |text: &str, word: &str| -> Option<usize> {
            let digits = text.split_once(word)?.1.trim_start();
            digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        };
        Some((after(&text, "Line:")?, after(&text, "Column:")?))
    })
}
