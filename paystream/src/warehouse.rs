//! `paystream warehouse migrate|status`, and the configured ClickHouse server.

use analytics::ClickHouseConfig;
use analytics::clickhouse::{MigrateError, Server, migrate, status};
use anyhow::{Context as _, anyhow};
use comfy_table::Table;
use serde_json::json;

use crate::cli::{Global, WarehouseArgs, WarehouseCommand};
use crate::config;
use crate::exit::{Failure, OrUsage as _, Outcome};
use crate::output;

pub(crate) fn run(global: &Global, command: &WarehouseCommand) -> Outcome {
    match command {
        WarehouseCommand::Migrate(args) => block_on(run_migrate(global, args)),
        WarehouseCommand::Status(args) => block_on(run_status(global, args)),
    }
}

/// The configured server, or the one named on the command line.
pub(crate) fn configured(global: &Global, url: Option<&str>) -> Result<Option<ClickHouseConfig>, Failure> {
    let mut config = config::load(global.config.as_deref())?.value.clickhouse;
    if let Some(url) = url {
        url.clone_into(&mut config.url);
        if let Some((_, message)) = config.validate().into_iter().find(|(key, _)| key == "url") {
            return Err(Failure::Usage(anyhow!("--clickhouse-url {message}")));
        }
    }
    Ok(config.is_set().then_some(config))
}

fn server(global: &Global, args: &WarehouseArgs) -> Result<Server, Failure> {
    let config = configured(global, args.clickhouse_url.as_deref())?;
    let config = config.context(
        "no ClickHouse is configured: set clickhouse.url, for example \
         PAYSTREAM__CLICKHOUSE__URL=http://127.0.0.1:8123, or give --clickhouse-url",
    );
    Ok(Server::new(&config.or_usage()?))
}

async fn run_migrate(global: &Global, args: &WarehouseArgs) -> Outcome {
    let server = server(global, args)?;
    let done = match migrate(&server).await {
        Err(error @ MigrateError::Differs { .. }) => return Err(Failure::Usage(error.into())),
        done => done.context("migrating ClickHouse")?,
    };
    if args.json {
        return Ok(output::print_json(&json!({ "database": server.database(), "applied": done }))?);
    }
    for migration in &done {
        output::print_line(&format!("applied: {:04}_{}", migration.version, migration.name))?;
    }
    output::note(&match done.len() {
        0 => format!("The database `{}` is up to date.", server.database()),
        n => format!("{n} migrations applied to the database `{}`.", server.database()),
    });
    Ok(())
}

async fn run_status(global: &Global, args: &WarehouseArgs) -> Outcome {
    let server = server(global, args)?;
    let statuses = status(&server).await.context("asking ClickHouse for its migrations")?;
    if args.json {
        output::print_json(&json!({ "database": server.database(), "migrations": statuses }))?;
    } else {
        let mut table = Table::new();
        table.load_preset(comfy_table::presets::NOTHING);
        table.set_header(["MIGRATION", "APPLIED", "PROBLEM"]);
        for status in &statuses {
            table.add_row([
                format!("{:04}_{}", status.version, status.name),
                status.applied_at.clone().unwrap_or_else(|| "no".to_owned()),
                status.problem.clone().unwrap_or_default(),
            ]);
        }
        output::print_line(&table.trim_fmt())?;
    }
    let is_current = statuses.iter().all(|status| status.applied_at.is_some() && status.problem.is_none());
    if is_current { Ok(()) } else { Err(Failure::CheckFailed) }
}

fn block_on(work: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("starting the runtime")?.block_on(work)
}
