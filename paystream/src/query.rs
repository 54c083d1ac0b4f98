//! `paystream query`: SQL against the warehouse.

mod print;

use std::io::{IsTerminal as _, Read as _};

use analytics::clickhouse::Server;
use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli::{Format, Global, QueryArgs};
use crate::exit::{Failure, OrUsage as _, Outcome};
use crate::offline::Offline;
use crate::output;
use crate::source::{self, Anywhere, Source};

/// An answer of the query API.
#[derive(Debug, Deserialize)]
pub(crate) struct Answer {
    pub(crate) columns: Vec<Column>,
    pub(crate) rows: Vec<Vec<Value>>,
    pub(crate) truncated: bool,
}

/// A column of an answer.
#[derive(Debug, Deserialize)]
pub(crate) struct Column {
    pub(crate) name: String,
}

pub(crate) fn run(global: &Global, args: &QueryArgs) -> Outcome {
    let sql = sql(args.sql.as_deref()).or_usage()?;
    let source = source::resolve_anywhere(global, &args.source, args.clickhouse_url.as_deref())?;
    let limit = match &source {
        Anywhere::Distributed(_) => "clickhouse.query_max_rows",
        Anywhere::Whole(_) => "warehouse.query_max_rows",
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the asynchronous runtime")?;
    let answer = runtime.block_on(async {
        let stop = runtime::signals::listen().context("listening for signals")?;
        tokio::select! {
            answer = ask(source, &sql) => Ok(answer?),
            () = stop.cancelled() => Err(Failure::Interrupted),
        }
    })?;
    let format = if args.json { Format::Json } else { args.format };
    output::print(&print::text(&answer, format))?;
    if answer.truncated {
        output::note(&format!("Only the first {} rows: {limit} allows no more.", answer.rows.len()));
    }
    Ok(())
}

async fn ask(source: Anywhere, sql: &str) -> anyhow::Result<Answer> {
    match source {
        Anywhere::Distributed(config) => {
            let answer = Server::new(&config.clickhouse).query(sql, &config.clickhouse).await?;
            let columns = answer.columns.into_iter().map(|column| Column { name: column.name }).collect();
            Ok(Answer { columns, rows: answer.rows, truncated: answer.truncated })
        }
        Anywhere::Whole(Source::Running(client)) => client.post("/v1/query", &json!({ "sql": sql })).await,
        Anywhere::Whole(Source::Stopped(stopped)) => {
            let offline = Offline::open(&stopped).await?;
            let answer = offline.query(sql).await;
            offline.close().await;
            answer
        }
    }
}

/// The question: the argument, or standard input.
fn sql(argument: Option<&str>) -> anyhow::Result<String> {
    let mut text = String::new();
    match argument {
        Some(sql) if sql != "-" => text.push_str(sql),
        None if std::io::stdin().is_terminal() => {
            bail!("no SQL: give it as an argument or on standard input")
        }
        _ => {
            std::io::stdin().lock().read_to_string(&mut text).context("reading SQL from standard input")?;
        }
    }
    if text.trim().is_empty() {
        bail!("the SQL is empty: give it as an argument or on standard input");
    }
    Ok(text)
}
