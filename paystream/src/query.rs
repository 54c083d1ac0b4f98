//! `paystream query`: SQL against the warehouse.

mod print;

use std::io::{IsTerminal as _, Read as _};

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli::{Format, Global, QueryArgs};
use crate::exit::{Failure, OrUsage as _, Outcome};
use crate::offline::Offline;
use crate::output;
use crate::source::{self, Source};

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
    let source = source::resolve(global, &args.source)?;
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
        output::note(&format!(
            "Only the first {} rows: warehouse.query_max_rows allows no more.",
            answer.rows.len()
        ));
    }
    Ok(())
}

async fn ask(source: Source, sql: &str) -> anyhow::Result<Answer> {
    match source {
        Source::Running(client) => client.post("/v1/query", &json!({ "sql": sql })).await,
        Source::Stopped(stopped) => {
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
