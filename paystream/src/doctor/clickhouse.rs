//! ClickHouse: reachable, its tables up to date, room on its disks, its clock near ours.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::check::Verdict;
use crate::servers::ClickHouse;

const TIMEOUT: Duration = Duration::from_secs(10);
/// As much of a server's complaint is shown.
const SHOWN_CHARS: usize = 200;
/// Windows and retention go by the writer's clock: further apart, charts show it.
const CLOCK_MAX_MS: i64 = 5_000;
/// The oldest version the tables have been tried with.
const VERSION_MIN: u32 = 24;
/// Share of a disk that should stay free, in percent.
const FREE_MIN_PERCENT: u64 = 10;

/// The rows of an answer, each a list of values.
async fn query(server: &ClickHouse, sql: &str) -> anyhow::Result<Vec<Vec<Value>>> {
    let client = reqwest::Client::builder().timeout(TIMEOUT).no_proxy().build().context("starting HTTP")?;
    let mut request = client
        .post(&server.url)
        .query(&[("default_format", "JSONCompact")])
        .header("X-ClickHouse-User", &server.user)
        .body(sql.to_owned());
    if !server.password.is_empty() {
        request = request.header("X-ClickHouse-Key", &server.password);
    }
    let answer = request.send().await.map_err(reqwest::Error::without_url);
    let answer = answer.with_context(|| format!("asking {}", server.url))?;
    let status = answer.status();
    let body = answer.text().await.with_context(|| format!("reading the answer of {}", server.url))?;
    if !status.is_success() {
        bail!("{} answers {status}: {}", server.url, body.chars().take(SHOWN_CHARS).collect::<String>());
    }
    let mut body: Value = serde_json::from_str(&body).context("reading the answer as JSON")?;
    serde_json::from_value(body["data"].take()).context("the answer has no rows")
}

/// 64-bit numbers come as text.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

pub(super) async fn reach(server: ClickHouse) -> Verdict {
    let rows = match query(&server, "SELECT version(), toUnixTimestamp64Milli(now64(3))").await {
        Ok(rows) => rows,
        Err(error) => {
            let hint = "start it, or correct clickhouse.url, clickhouse.user and clickhouse.password; rows wait on disk meanwhile";
            return Verdict::fail(format!("{error:#}"), hint);
        }
    };
    let row = rows.first().cloned().unwrap_or_default();
    let version = row.first().and_then(Value::as_str).unwrap_or_default().to_owned();
    let theirs = row.get(1).and_then(number).and_then(|ms| i64::try_from(ms).ok()).unwrap_or_default();
    let ours = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    let apart = i64::try_from(ours).unwrap_or(i64::MAX).saturating_sub(theirs);
    if apart.abs() > CLOCK_MAX_MS {
        return Verdict::warn(
            format!("version {version}; its clock is {apart} ms from this machine's"),
            "have NTP keep both",
        );
    }
    judge_version(&version)
}

fn judge_version(version: &str) -> Verdict {
    let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    match major {
        Some(major) if major >= VERSION_MIN => Verdict::ok(format!("version {version}")),
        _ => Verdict::warn(
            format!("version {version} is older than what the tables were tried with"),
            format!("use {VERSION_MIN}.1 or later"),
        ),
    }
}

pub(super) async fn tables(server: ClickHouse) -> Verdict {
    let sql = format!("SELECT uniqExact(version) FROM `{}`.schema_migrations", server.database);
    let migrate = "`paystream warehouse migrate`";
    match query(&server, &sql).await {
        Ok(rows) => {
            let applied = rows.first().and_then(|row| number(row.first()?)).unwrap_or_default();
            judge_migrations(applied, server.migrations as u64)
        }
        // UNKNOWN_DATABASE and UNKNOWN_TABLE.
        Err(error) if ["Code: 81", "Code: 60"].iter().any(|code| error.to_string().contains(code)) => {
            Verdict::fail(format!("the database {} has no tables", server.database), migrate)
        }
        Err(error) => Verdict::fail(format!("{error:#}"), "see the check of the server itself"),
    }
}

fn judge_migrations(applied: u64, known: u64) -> Verdict {
    match applied.cmp(&known) {
        std::cmp::Ordering::Equal => Verdict::ok(format!("all {known} migrations are applied")),
        std::cmp::Ordering::Less => Verdict::fail(
            format!("{applied} of {known} migrations are applied"),
            "`paystream warehouse migrate`",
        ),
        std::cmp::Ordering::Greater => Verdict::warn(
            format!("{applied} migrations are applied, this version knows {known}"),
            "a later version was here: use that one; see `paystream warehouse status`",
        ),
    }
}

pub(super) async fn disk(server: ClickHouse) -> Verdict {
    match query(&server, "SELECT name, free_space, total_space FROM system.disks").await {
        Ok(rows) => judge_disks(&rows),
        Err(error) => {
            Verdict::warn(format!("{error:#}"), "grant the user SELECT on system.disks to have it checked")
        }
    }
}

fn judge_disks(rows: &[Vec<Value>]) -> Verdict {
    let mut full = Vec::new();
    let mut shown = Vec::new();
    for row in rows {
        let [name, free, total] = &row[..] else { continue };
        let (Some(free), Some(total)) = (number(free), number(total)) else { continue };
        let percent = free.saturating_mul(100).checked_div(total).unwrap_or(100);
        let text = format!("{} {percent} % free", name.as_str().unwrap_or("?"));
        if percent < FREE_MIN_PERCENT {
            full.push(text.clone());
        }
        shown.push(text);
    }
    if full.is_empty() {
        return Verdict::ok(shown.join(", "));
    }
    Verdict::warn(full.join(", "), "make room on the server, or shorten the tables' TTL")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::check::Status;
    use super::*;

    #[test]
    fn tables_disks_and_versions_are_judged() {
        for (applied, known, status) in [(3, 3, Status::Ok), (2, 3, Status::Fail), (4, 3, Status::Warn)] {
            assert_eq!(judge_migrations(applied, known).status, status);
        }
        let disks = |free: &str| judge_disks(&[vec![json!("default"), json!(free), json!("1000")]]);
        assert_eq!((disks("500").status, disks("99").status), (Status::Ok, Status::Warn));
        assert_eq!(
            (judge_version("26.9.2.1").status, judge_version("21.8").status),
            (Status::Ok, Status::Warn)
        );
    }

    #[tokio::test]
    async fn a_real_server_is_well_and_a_database_that_is_not_there_is_told() {
        let Some(url) = std::env::var("PAYSTREAM_TEST_CLICKHOUSE").ok().filter(|url| !url.is_empty()) else {
            use std::io::Write as _;
            let skipped = "\n*** SKIPPED: PAYSTREAM_TEST_CLICKHOUSE is not set; run `make test` ***\n";
            let _ = writeln!(std::io::stderr(), "{skipped}");
            return;
        };
        let server = ClickHouse {
            url,
            user: "default".to_owned(),
            password: String::new(),
            database: "no_such_database_of_doctor".to_owned(),
            migrations: 3,
        };
        let found = reach(server.clone()).await;
        assert_eq!(found.status, Status::Ok, "{found:?}");
        let found = tables(server.clone()).await;
        assert!(found.status == Status::Fail && found.message.contains("has no tables"), "{found:?}");
        assert_ne!(disk(server).await.status, Status::Fail);
    }

    #[tokio::test]
    async fn a_server_that_is_away_is_a_failure() {
        let server = ClickHouse {
            url: "http://127.0.0.1:1".to_owned(),
            user: "default".to_owned(),
            password: "hunter2".to_owned(),
            database: "paystream".to_owned(),
            migrations: 3,
        };
        let found = reach(server).await;
        assert!(found.status == Status::Fail && !format!("{found:?}").contains("hunter2"), "{found:?}");
    }
}
