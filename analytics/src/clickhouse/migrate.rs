//! The tables on the server: versioned migrations from `sql/clickhouse/`, each applied once.
//!
//! A file `NNNN_name.sql` is a migration; each statement in it ends with `;` at the end of a line and can be
//! run again without harm, so that a migration that was cut off, or is run by two processes at once, is simply
//! run again. What was applied is in the table `schema_migrations`, with a checksum of the file.

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::server::{Database, Server, ServerError};

macro_rules! file {
    ($name:literal) => {
        ($name, include_str!(concat!("../../../sql/clickhouse/", $name, ".sql")))
    };
}

/// Name without `.sql`, and text, in order: all files of the folder, as a test makes sure.
static FILES: &[(&str, &str)] =
    &[file!("0001_tables"), file!("0002_aggregates"), file!("0003_current_labels")];

const TABLE: &str = "CREATE TABLE IF NOT EXISTS schema_migrations (
    version    UInt32,
    name       String,
    checksum   String,
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3)
) ENGINE = MergeTree ORDER BY version";
/// Code of `UNKNOWN_DATABASE` and of `UNKNOWN_TABLE`.
const NOT_THERE: [u32; 2] = [81, 60];

/// One migration.
#[derive(Debug, Clone, Serialize, PartialEq, Eq)]
pub struct Migration {
    /// Its number.
    pub version: u32,
    /// What it is for.
    pub name: String,
    /// SHA-256 of the file.
    pub checksum: String,
    #[serde(skip)]
    sql: &'static str,
}

/// A migration and whether it is applied.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Its number.
    pub version: u32,
    /// What it is for.
    pub name: String,
    /// When it was applied, if it was.
    pub applied_at: Option<String>,
    /// What is wrong with it, if anything.
    pub problem: Option<String>,
}

/// Why the tables could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The server did not answer, or refused a statement.
    #[error("{0}: {1}")]
    Server(String, #[source] ServerError),
    /// What was applied is not what this version would apply.
    #[error("the database `{database}` was not migrated:\n{}", problems.join("\n"))]
    Differs {
        /// The database.
        database: String,
        /// One line for each migration that differs.
        problems: Vec<String>,
    },
}

/// All migrations of this version, in order.
#[must_use]
pub fn migrations() -> Vec<Migration> {
    let migration = |(file, sql): &(&str, &'static str)| {
        let (version, name) = file.split_once('_').unwrap_or((file, ""));
        Migration {
            version: version.parse().unwrap_or_default(),
            name: name.to_owned(),
            checksum: hex::encode(Sha256::digest(sql)),
            sql,
        }
    };
    FILES.iter().map(migration).collect()
}

/// What is applied and what is not.
///
/// # Errors
/// When the server cannot be asked.
pub async fn status(server: &Server) -> Result<Vec<Status>, ServerError> {
    let applied = applied(server).await?;
    let mut statuses = Vec::new();
    for migration in migrations() {
        let found = applied.iter().find(|found| found.version == migration.version);
        let problem = found.filter(|found| found.checksum != migration.checksum).map(|found| {
            format!(
                "was applied with another content (checksum {}, this version has {}): it was edited after it \
                 was applied; undo the edit and put the change into a new migration",
                short(&found.checksum),
                short(&migration.checksum),
            )
        });
        let applied_at = found.map(|found| found.applied_at.clone());
        statuses.push(Status { version: migration.version, name: migration.name, applied_at, problem });
    }
    let known: Vec<u32> = statuses.iter().map(|status| status.version).collect();
    for later in applied.into_iter().filter(|found| !known.contains(&found.version)) {
        statuses.push(Status {
            version: later.version,
            name: later.name,
            applied_at: Some(later.applied_at),
            problem: Some(
                "is not known to this version of paystream: a later one applied it; use that one".to_owned(),
            ),
        });
    }
    Ok(statuses)
}

fn short(checksum: &str) -> &str {
    checksum.get(..12).unwrap_or(checksum)
}

/// Makes the database if it is missing and applies what is not applied yet. Returns what was applied.
///
/// # Errors
/// [`MigrateError::Differs`] names what was applied with another content; then nothing is done.
pub async fn migrate(server: &Server) -> Result<Vec<Migration>, MigrateError> {
    let database = server.database().to_owned();
    let failed = |what: String| move |error| MigrateError::Server(what, error);
    server
        .run(&format!("CREATE DATABASE IF NOT EXISTS `{database}`"), Database::None)
        .await
        .map_err(failed(format!("making the database `{database}`")))?;
    server
        .run(TABLE, Database::Ours)
        .await
        .map_err(failed("making the table schema_migrations".to_owned()))?;
    let statuses = status(server).await.map_err(failed("reading schema_migrations".to_owned()))?;
    let problems: Vec<String> = statuses
        .iter()
        .filter_map(|s| Some(format!("{:04}_{} {}", s.version, s.name, s.problem.as_ref()?)))
        .collect();
    if !problems.is_empty() {
        return Err(MigrateError::Differs { database, problems });
    }
    let mut done = Vec::new();
    for migration in migrations() {
        if statuses.iter().any(|s| s.version == migration.version && s.applied_at.is_some()) {
            continue;
        }
        apply(server, &migration).await?;
        tracing::info!(version = migration.version, name = migration.name, "applied a migration");
        done.push(migration);
    }
    Ok(done)
}

async fn apply(server: &Server, migration: &Migration) -> Result<(), MigrateError> {
    let file = format!("{:04}_{}.sql", migration.version, migration.name);
    for (number, statement) in (1..).zip(statements(migration.sql)) {
        server.run(&statement, Database::Ours).await.map_err(|error| {
            MigrateError::Server(format!("statement {number} of {file} (run it again when mended)"), error)
        })?;
    }
    let record = format!(
        "INSERT INTO schema_migrations (version, name, checksum) VALUES ({}, '{}', '{}')",
        migration.version, migration.name, migration.checksum
    );
    server
        .run(&record, Database::Ours)
        .await
        .map_err(|error| MigrateError::Server(format!("recording {file} in schema_migrations"), error))
}

struct Applied {
    version: u32,
    name: String,
    checksum: String,
    applied_at: String,
}

/// What the database says was applied; nothing when there is no database yet.
async fn applied(server: &Server) -> Result<Vec<Applied>, ServerError> {
    // Two processes may have applied one migration at the same time.
    let sql = "SELECT version, argMin(name, applied_at), argMin(checksum, schema_migrations.applied_at),
        formatDateTime(min(schema_migrations.applied_at), '%Y-%m-%dT%H:%i:%SZ', 'UTC')
        FROM schema_migrations GROUP BY version ORDER BY version";
    let rows = match server.rows(sql, Database::Ours).await {
        Err(error) if error.code().is_some_and(|code| NOT_THERE.contains(&code)) => return Ok(Vec::new()),
        rows => rows?,
    };
    let text = |row: &[serde_json::Value], at: usize| row[at].as_str().unwrap_or_default().to_owned();
    let applied = |row: Vec<serde_json::Value>| {
        let version = row.first()?.as_u64().and_then(|version| u32::try_from(version).ok())?;
        (row.len() == 4).then(|| Applied {
            version,
            name: text(&row, 1),
            checksum: text(&row, 2),
            applied_at: text(&row, 3),
        })
    };
    Ok(rows.into_iter().filter_map(applied).collect())
}

/// The statements of a file: each ends with `;` at the end of a line.
fn statements(sql: &str) -> Vec<String> {
    let mut statements = Vec::new();
    let mut statement = String::new();
    for line in sql.lines() {
        let is_comment = line.trim_start().starts_with("--");
        match line.trim_end().strip_suffix(';') {
            Some(last) if !is_comment => {
                statement.push_str(last);
                statements.push(std::mem::take(&mut statement));
            }
            _ => {
                statement.push_str(line);
                statement.push('\n');
            }
        }
    }
    let has_more =
        |rest: &str| rest.lines().any(|l| !l.trim().is_empty() && !l.trim_start().starts_with("--"));
    if has_more(&statement) {
        statements.push(statement);
    }
    statements
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_is_a_migration_with_a_number_of_its_own_in_order() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../sql/clickhouse");
        let files = std::fs::read_dir(folder).map_or(0, |files| {
            files.filter(|f| f.as_ref().unwrap().path().extension().is_some_and(|e| e == "sql")).count()
        });
        let migrations = migrations();
        assert!(files > 0 && migrations.len() == files, "{files} files, {} migrations", migrations.len());
        for (number, migration) in (1..).zip(&migrations) {
            assert_eq!(migration.version, number, "{}", migration.name);
            let plain = migration.name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            assert!(plain && !migration.name.is_empty(), "{}", migration.name);
            assert!(!statements(migration.sql).is_empty(), "{}", migration.name);
        }
    }

    #[test]
    fn statements_end_with_a_semicolon_at_the_end_of_a_line() {
        let sql = "-- a; comment;\nCREATE a (\n  x String DEFAULT 'a;b'\n);\n\nCREATE b;\n-- the end\n";
        assert_eq!(
            statements(sql),
            ["-- a; comment;\nCREATE a (\n  x String DEFAULT 'a;b'\n)", "\nCREATE b"]
        );
    }
}
