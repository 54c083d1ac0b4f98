//! The server: statements, inserts, and which errors mean what.

use std::time::Duration;

use bytes::Bytes;
use clickhouse::error::Error;
use clickhouse::{Client, Compression};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::config::{ClickHouseConfig, Wire};

/// Chunks of an insert's body: compressed one by one, so that sending begins at once.
const CHUNK_BYTES: usize = 1024 * 1024;
/// How long sending one chunk may take.
const SEND_DEADLINE: Duration = Duration::from_secs(30);
/// How long a small statement may take.
const STATEMENT_DEADLINE: Duration = Duration::from_secs(30);

/// Codes with which the server says that it will never take these rows, however often they are sent: what is
/// not in this list is sent again until it is taken. (A missing table or column, a full disk or a wrong
/// password is mended on the server.)
const REFUSALS: [u32; 13] = [6, 26, 27, 36, 43, 53, 70, 117, 131, 321, 349, 407, 469];

/// Settings that make an insert one block, taken as a whole and counted once, in tables and in their views.
/// The defaults of some changed between versions, so none is left to them.
const INSERT_SETTINGS: [(&str, &str); 17] = [
    ("async_insert", "0"),
    ("wait_end_of_query", "1"),
    ("insert_deduplicate", "1"),
    ("deduplicate_insert", "enable"),
    ("deduplicate_blocks_in_dependent_materialized_views", "1"),
    ("update_insert_deduplication_token_in_dependent_materialized_views", "0"),
    ("materialized_views_ignore_errors", "0"),
    ("parallel_view_processing", "0"),
    ("max_insert_threads", "1"),
    ("max_insert_block_size", "4000000"),
    ("max_insert_block_size_bytes", "0"),
    ("use_strict_insert_block_limits", "0"),
    ("min_insert_block_size_rows", "4000000"),
    ("min_insert_block_size_bytes", "4294967296"),
    ("max_partitions_per_insert_block", "0"),
    ("input_format_null_as_default", "0"),
    ("input_format_arrow_allow_missing_columns", "0"),
];
/// Of these, the ones that a server this old must know: without them nothing is counted once.
const NEEDED: [&str; 2] = ["insert_deduplicate", "deduplicate_blocks_in_dependent_materialized_views"];
/// Parameters of the HTTP interface, which are not in `system.settings`.
const HTTP_PARAMETERS: [&str; 1] = ["wait_end_of_query"];

/// Why the server did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// It did not answer, or not within the deadline: whether it did what was asked is not known.
    #[error("ClickHouse at {url} cannot be reached: {reason}")]
    Away {
        /// Where it was looked for.
        url: String,
        /// What happened.
        reason: String,
    },
    /// It answered with an error.
    #[error("ClickHouse says: {message}")]
    Said {
        /// ClickHouse's code, when it gave one.
        code: Option<u32>,
        /// Its words.
        message: String,
    },
    /// It answered what this version does not understand.
    #[error("ClickHouse at {url} answered what is not expected: {reason}")]
    Unexpected {
        /// Which server.
        url: String,
        /// What is wrong with the answer.
        reason: String,
    },
}

impl ServerError {
    /// Whether the server will refuse the same rows for ever.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Said { code: Some(code), .. } if REFUSALS.contains(code))
    }

    /// The code, when the server gave one.
    #[must_use]
    pub const fn code(&self) -> Option<u32> {
        match self {
            Self::Said { code, .. } => *code,
            _ => None,
        }
    }
}

/// An answer in the format `JSONCompact`.
#[derive(Debug, Deserialize)]
pub struct JsonAnswer {
    /// Names and types of the columns.
    pub meta: Vec<JsonColumn>,
    /// The rows.
    pub data: Vec<Vec<Value>>,
}

/// A column of an answer.
#[derive(Debug, Clone, Deserialize)]
pub struct JsonColumn {
    /// Its name.
    pub name: String,
    /// ClickHouse's name of its type.
    #[serde(rename = "type")]
    pub data_type: String,
}

/// A ClickHouse server, and the database in it.
#[derive(Clone)]
pub struct Server {
    client: Client,
    inserting: Client,
    url: String,
    database: String,
    insert_deadline: Duration,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("url", &self.url).field("database", &self.database).finish()
    }
}

impl Server {
    /// The server of a configuration. Nothing is sent yet.
    #[must_use]
    pub fn new(config: &ClickHouseConfig) -> Self {
        let client = Client::default()
            .with_url(&config.url)
            .with_user(&config.user)
            .with_password(&config.password)
            .with_product_info("paystream", env!("CARGO_PKG_VERSION"))
            .with_compression(Compression::None);
        let inserting = client.clone().with_compression(match config.compression {
            Wire::Lz4 => Compression::Lz4,
            Wire::None => Compression::None,
        });
        Self {
            client,
            inserting: inserting.with_database(&config.database),
            url: config.url.clone(),
            database: config.database.clone(),
            insert_deadline: config.insert_deadline(),
        }
    }

    /// The database that tables are in.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.database
    }

    /// Asks which of the settings of inserts this server knows, and keeps those.
    pub(crate) async fn know_settings(&mut self) -> Result<(), ServerError> {
        let names = INSERT_SETTINGS.map(|(name, _)| format!("'{name}'")).join(", ");
        let known = self
            .rows(&format!("SELECT name FROM system.settings WHERE name IN ({names})"), Database::None)
            .await?;
        let known: Vec<&str> = known.iter().filter_map(|row| row.first()?.as_str()).collect();
        if let Some(missing) = NEEDED.into_iter().find(|name| !known.contains(name)) {
            return Err(ServerError::Unexpected {
                url: self.url.clone(),
                reason: format!(
                    "it does not know the setting `{missing}`: ClickHouse 24.8 or later is needed"
                ),
            });
        }
        for (name, value) in INSERT_SETTINGS {
            if known.contains(&name) || HTTP_PARAMETERS.contains(&name) {
                self.inserting = self.inserting.clone().with_setting(name, value);
            }
        }
        Ok(())
    }

    /// Inserts one Arrow stream into a table. The same token counts once.
    pub(crate) async fn insert(&self, table: &str, token: &str, data: Bytes) -> Result<(), ServerError> {
        let mut insert = self
            .inserting
            .insert_formatted_with(format!("INSERT INTO {table} FORMAT ArrowStream"))
            .with_setting("insert_deduplication_token", token)
            .with_timeouts(Some(SEND_DEADLINE), Some(self.insert_deadline));
        let sent = async {
            let mut rest = data;
            while !rest.is_empty() {
                insert.send(rest.split_to(rest.len().min(CHUNK_BYTES))).await?;
            }
            insert.end().await
        };
        sent.await.map_err(|error| self.explain(error))
    }

    /// Runs a statement that answers nothing.
    pub(crate) async fn run(&self, sql: &str, database: Database) -> Result<(), ServerError> {
        self.bytes(sql, database, "TabSeparated", &[], STATEMENT_DEADLINE).await.map(|_| ())
    }

    /// The rows a statement answers, as JSON values.
    pub(crate) async fn rows(&self, sql: &str, database: Database) -> Result<Vec<Vec<Value>>, ServerError> {
        let answer: JsonAnswer = self.json(sql, database, &[], STATEMENT_DEADLINE).await?;
        Ok(answer.data)
    }

    /// The answer to a statement with some settings, as JSON.
    pub(crate) async fn json<T: DeserializeOwned>(
        &self,
        sql: &str,
        database: Database,
        settings: &[(&str, String)],
        deadline: Duration,
    ) -> Result<T, ServerError> {
        let whole_numbers = [
            ("output_format_json_quote_64bit_integers", "0".to_owned()),
            ("output_format_json_quote_denormals", "0".to_owned()),
        ];
        let settings = [&whole_numbers[..], settings].concat();
        let body = self.bytes(sql, database, "JSONCompact", &settings, deadline).await?;
        serde_json::from_slice(&body).map_err(|error| ServerError::Unexpected {
            url: self.url.clone(),
            reason: format!("no JSON ({error}); a statement must not name a FORMAT"),
        })
    }

    async fn bytes(
        &self,
        sql: &str,
        database: Database,
        format: &str,
        settings: &[(&str, String)],
        deadline: Duration,
    ) -> Result<Bytes, ServerError> {
        let asked = async { self.cursor(sql, database, format, settings)?.collect().await };
        match tokio::time::timeout(deadline, asked).await {
            Ok(answer) => answer.map_err(|error| self.explain(error)),
            Err(_) => Err(self.explain(Error::TimedOut)),
        }
    }

    /// The answer to a statement, as it arrives.
    pub(crate) fn cursor(
        &self,
        sql: &str,
        database: Database,
        format: &str,
        settings: &[(&str, String)],
    ) -> Result<clickhouse::query::BytesCursor, Error> {
        let client = match database {
            Database::Ours => self.client.clone().with_database(&self.database),
            Database::None => self.client.clone(),
        };
        let mut query = client.query_raw(sql);
        for (name, value) in settings {
            query = query.with_setting(*name, value);
        }
        query.fetch_bytes(format)
    }

    pub(crate) fn explain(&self, error: Error) -> ServerError {
        match error {
            Error::BadResponse(message) => ServerError::Said { code: code_of(&message), message },
            Error::TimedOut => ServerError::Away {
                url: self.url.clone(),
                reason: "no answer within the deadline".to_owned(),
            },
            Error::Network(cause) => {
                ServerError::Away { url: self.url.clone(), reason: with_causes(&*cause) }
            }
            other => ServerError::Unexpected { url: self.url.clone(), reason: other.to_string() },
        }
    }
}

/// Which database a statement is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Database {
    /// The configured one, which has to exist.
    Ours,
    /// None: it may not exist yet.
    None,
}

/// `Code: 81. DB::Exception: …`, as ClickHouse begins every error.
fn code_of(message: &str) -> Option<u32> {
    let digits = message.split_once("Code: ")?.1;
    digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_wrong_with_the_rows_is_a_refusal() {
        let said = |message: &str| ServerError::Said { code: code_of(message), message: message.to_owned() };
        assert!(said("Code: 349. DB::Exception: Cannot convert NULL").is_refusal());
        for transient in [
            "Code: 252. DB::Exception: Too many parts",
            "Code: 60. DB::Exception: no table",
            "502 Bad Gateway",
        ] {
            assert!(!said(transient).is_refusal(), "{transient}");
        }
        assert!(!ServerError::Away { url: String::new(), reason: String::new() }.is_refusal());
    }
}
