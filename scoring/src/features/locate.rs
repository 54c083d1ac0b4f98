//! Where in a feature file things stand.

use datafusion::error::DataFusionError;
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::sqlparser::ast::{
    Query, Select, SelectItem, SetExpr, Spanned as _, Statement as SqlStatement,
};

/// Where the items of a file's SELECT lists begin: line and column from 1.
#[derive(Debug, Default)]
pub(super) struct Places(Vec<(String, (usize, usize))>);

impl Places {
    pub(super) fn of(sql: &str) -> Self {
        let mut places = Self::default();
        let Ok(mut statements) = DFParser::parse_sql(sql) else { return places };
        if let Some(Statement::Statement(statement)) = statements.pop_front()
            && let SqlStatement::Query(query) = *statement
        {
            places.query(&query);
        }
        places
    }

    fn query(&mut self, query: &Query) {
        if let SetExpr::Select(select) = &*query.body {
            self.select(select);
        }
        for table in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.query(&table.query);
        }
    }

    fn select(&mut self, select: &Select) {
        for item in &select.projection {
            let name = match item {
                SelectItem::ExprWithAlias { alias, .. } => alias.value.to_lowercase(),
                other => other.to_string(),
            };
            let start = item.span().start;
            self.0.push((name, (to_usize(start.line), to_usize(start.column))));
        }
    }

    /// The item of the outermost SELECT with this name, or else in this place.
    pub(super) fn of_item(&self, name: &str, index: usize) -> Option<(usize, usize)> {
        self.of_name(name).or_else(|| self.0.get(index).map(|&(_, place)| place))
    }

    /// The item of that name: of the outermost SELECT that has one.
    pub(super) fn of_name(&self, name: &str) -> Option<(usize, usize)> {
        self.0.iter().find(|(item, _)| item == name).map(|&(_, place)| place)
    }
}

fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(0)
}

/// The place an engine error names: from its diagnostic's span, or from the parser's message.
pub(super) fn of_error(error: &DataFusionError) -> Option<(usize, usize)> {
    let from_span = error.diagnostic().and_then(|d| d.span).map(|span| {
        let start = span.start;
        (to_usize(start.line), to_usize(start.column))
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
