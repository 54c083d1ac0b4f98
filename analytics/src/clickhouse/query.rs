//! SQL of analysts on ClickHouse, within limits.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use super::config::ClickHouseConfig;
use super::server::{Database, JsonAnswer, Server, ServerError};
use crate::engine::QueryError;
use crate::queries::{Param, params};
use crate::result::ResultColumn;

/// An answer of this size is refused, whatever its number of rows.
const MAX_ANSWER_BYTES: u64 = 64 * 1024 * 1024;
/// Longer than the query may take by the time it takes to say so.
const ANSWER_SLACK: Duration = Duration::from_secs(5);
/// `TIMEOUT_EXCEEDED`, `QUERY_WAS_CANCELLED`.
const TOO_LONG: [u32; 2] = [159, 394];
/// `MEMORY_LIMIT_EXCEEDED`, `TOO_MANY_ROWS_OR_BYTES`.
const TOO_LARGE: [u32; 2] = [241, 396];
/// `TOO_MANY_SIMULTANEOUS_QUERIES`.
const BUSY: u32 = 202;

/// What ClickHouse answered, in the form of the embedded warehouse's answers.
#[derive(Debug, Clone, Serialize)]
pub struct Answer {
    /// Names and types of the columns.
    pub columns: Vec<ResultColumn>,
    /// The rows.
    pub rows: Vec<Vec<Value>>,
    /// How many there are.
    pub row_count: usize,
    /// Whether there would have been more.
    pub truncated: bool,
}

impl Server {
    /// Runs one statement that changes nothing, within the configured limits.
    ///
    /// # Errors
    /// [`QueryError`] tells a mistake in the SQL from limits and from failures.
    pub async fn query(&self, sql: &str, config: &ClickHouseConfig) -> Result<Answer, QueryError> {
        self.ask(sql, config, &[]).await
    }

    pub(crate) async fn ask(
        &self,
        sql: &str,
        config: &ClickHouseConfig,
        parameters: &[(&str, Param<'_>)],
    ) -> Result<Answer, QueryError> {
        let deadline = Duration::from_millis(config.query_deadline_ms);
        // One more than is shown, to know whether there are more.
        let most = config.query_max_rows.saturating_add(1);
        let mut settings = vec![
            ("max_execution_time", deadline.as_secs_f64().to_string()),
            ("max_result_rows", most.to_string()),
            ("max_result_bytes", MAX_ANSWER_BYTES.to_string()),
            ("result_overflow_mode", "break".to_owned()),
            ("max_memory_usage", config.query_memory_bytes.to_string()),
            ("date_time_output_format", "iso".to_owned()),
            ("readonly", "1".to_owned()),
        ];
        let named = params(parameters);
        settings.extend(named.iter().map(|(name, value)| (name.as_str(), value.clone())));
        let answer: JsonAnswer = self
            .json(sql, Database::Ours, &settings, deadline + ANSWER_SLACK)
            .await
            .map_err(|error| classify(error, deadline))?;
        Ok(shown(answer, config.query_max_rows))
    }
}

fn classify(error: ServerError, deadline: Duration) -> QueryError {
    match error {
        ServerError::Said { code: Some(code), .. } if TOO_LONG.contains(&code) => {
            QueryError::Deadline(deadline)
        }
        ServerError::Said { code: Some(code), message } if TOO_LARGE.contains(&code) => {
            QueryError::TooLarge(message)
        }
        ServerError::Said { code: Some(BUSY), .. } => QueryError::Busy,
        ServerError::Said { code: Some(_), message } => QueryError::Invalid(message),
        other => QueryError::Failed(other.to_string()),
    }
}

/// The answer with the forms of the embedded warehouse: times as RFC 3339 with milliseconds, whole
/// floating-point numbers as `12.0`.
fn shown(answer: JsonAnswer, max_rows: usize) -> Answer {
    let JsonAnswer { meta, mut data } = answer;
    let truncated = data.len() > max_rows;
    data.truncate(max_rows);
    for (at, column) in meta.iter().enumerate() {
        let data_type = bare(&column.data_type);
        let (is_time, is_float) = (data_type.starts_with("DateTime"), data_type.starts_with("Float"));
        if !is_time && !is_float {
            continue;
        }
        for value in data.iter_mut().filter_map(|row| row.get_mut(at)) {
            match value {
                Value::String(text) if is_time => *text = with_milliseconds(text),
                Value::Number(number) if is_float => *value = number.as_f64().into(),
                _ => {}
            }
        }
    }
    let columns = meta
        .into_iter()
        .map(|column| ResultColumn { data_type: type_name(&column.data_type), name: column.name })
        .collect();
    Answer { columns, row_count: data.len(), rows: data, truncated }
}

/// The type without what says how it is kept, and whether it may be absent.
fn bare(data_type: &str) -> &str {
    let mut bare = data_type;
    for wrapper in ["LowCardinality(", "Nullable("] {
        if let Some(inner) = bare.strip_prefix(wrapper) {
            bare = inner.strip_suffix(')').unwrap_or(inner);
        }
    }
    bare
}

fn type_name(data_type: &str) -> String {
    match bare(data_type) {
        bare if bare.starts_with("DateTime") => "timestamp".to_owned(),
        "String" => "text".to_owned(),
        "Bool" => "boolean".to_owned(),
        bare => bare.to_lowercase(),
    }
}

/// `…:30Z` as `…:30.000Z`; what is finer stays as it is.
fn with_milliseconds(text: &str) -> String {
    match text.strip_suffix('Z') {
        Some(time) if !time.contains('.') => format!("{time}.000Z"),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_named_as_the_embedded_warehouse_names_them() {
        for (theirs, ours) in [
            ("LowCardinality(Nullable(String))", "text"),
            ("DateTime64(3, 'UTC')", "timestamp"),
            ("Nullable(Int64)", "int64"),
            ("Bool", "boolean"),
        ] {
            assert_eq!(type_name(theirs), ours);
        }
    }
}
