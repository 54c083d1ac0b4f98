//! `paystream doctor`: whether everything is there that the system needs, and what to do where it is not.

mod check;
mod clickhouse;
mod kafka;
mod machine;
mod network;
mod redis;
mod settings;
mod system;

use std::sync::Arc;

use anyhow::Context as _;
use futures::future::join_all;

use self::check::{Check, Finding, Status, Verdict};
use crate::cli::{DoctorArgs, Global};
use crate::client::Client;
use crate::config::{self, Config};
use crate::data_dir::{DataDir, Holder};
use crate::exit::{Failure, Outcome};
use crate::output;
use crate::servers::Servers;

/// What is looked at.
struct Patient {
    config: Config,
    dir: DataDir,
    /// Who uses the directory now.
    holder: Option<Holder>,
    servers: Servers,
}

pub(crate) fn run(global: &Global, args: &DoctorArgs) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the asynchronous runtime")?;
    let outcome = runtime.block_on(async {
        let stop = runtime::signals::listen().context("listening for signals")?;
        tokio::select! {
            done = examine(global, args) => done,
            () = stop.cancelled() => Err(Failure::Interrupted),
        }
    });
    // A check past its deadline must not hold up the end.
    runtime.shutdown_background();
    outcome
}

async fn examine(global: &Global, args: &DoctorArgs) -> Outcome {
    let config = match config::load(global.config.as_deref()) {
        Ok(loaded) => loaded.value,
        Err(Failure::Usage(error) | Failure::Failed(error)) => {
            let verdict =
                Verdict::fail(format!("{error:#}"), "correct it: `paystream config check` says when it is");
            return report(&[Finding::new("configuration", verdict)], args.json);
        }
        Err(failure) => return Err(failure),
    };
    let dir = DataDir::new(args.data_dir.clone().unwrap_or_else(|| config.server.data_dir.clone()));
    let holder = dir.in_use_by();
    let servers = Servers::of(&config);
    let checks = checks(&Arc::new(Patient { config, dir, holder, servers }));
    let findings = join_all(checks.into_iter().map(Check::run)).await;
    report(&findings, args.json)
}

/// What this configuration needs, in the order it is reported.
fn checks(patient: &Arc<Patient>) -> Vec<Check> {
    let mut checks = vec![
        Check::now("configuration", Verdict::ok("valid")),
        Check::blocking("ruleset", patient, settings::ruleset),
        Check::blocking("alert routes", patient, settings::routes),
        Check::blocking("data directory", patient, machine::data_dir),
        Check::blocking("disk space", patient, machine::disk_space),
        Check::blocking("clock", patient, machine::clock),
        Check::blocking("file descriptors", patient, machine::file_descriptors),
        Check::blocking("api keys", patient, settings::api_keys),
        Check::blocking("secret files", patient, settings::secret_files),
        Check::new("listen", network::listen(patient.clone())),
    ];
    if !patient.config.server.admin_listen.is_empty() {
        checks.push(Check::new("admin listen", network::admin_listen(patient.clone())));
    }
    checks.push(Check::new("system", system::running(patient.clone())));
    if let Some(client) = patient.operators() {
        checks.push(Check::new("ruleset in force", system::ruleset(patient.clone(), client.clone())));
        checks.push(Check::new("dead letters", system::dead_letters(client)));
    }
    let Servers { kafka_brokers, clickhouse, redis_url, otlp_endpoint } = patient.servers.clone();
    if !kafka_brokers.is_empty() {
        checks.push(Check::new("kafka", kafka::reach(kafka_brokers)));
        checks.push(Check::new("kafka topics", kafka::topics(patient.clone())));
        checks.push(Check::new("kafka consumers", kafka::consumers(patient.clone())));
    }
    if !clickhouse.url.is_empty() {
        checks.push(Check::new("clickhouse", clickhouse::reach(clickhouse.clone())));
        checks.push(Check::new("clickhouse tables", clickhouse::tables(clickhouse.clone())));
        checks.push(Check::new("clickhouse disk", clickhouse::disk(clickhouse)));
    }
    if !redis_url.is_empty() {
        checks.push(Check::new("redis", redis::reach(redis_url)));
    }
    if !patient.config.alerter.telegram.bot_token.is_empty() {
        checks.push(Check::new("telegram", network::telegram(patient.clone())));
    }
    if !otlp_endpoint.is_empty() {
        checks.push(Check::new("traces", network::otlp(otlp_endpoint)));
    }
    checks
}

impl Patient {
    /// The operators' routes of the running system.
    fn operators(&self) -> Option<Client> {
        let url = self.holder.as_ref()?.metrics_url.as_deref()?;
        Client::new(url.trim_end_matches("/metrics"), None).ok()
    }
}

fn report(findings: &[Finding], as_json: bool) -> Outcome {
    if as_json {
        output::print_json(&findings)?;
    } else {
        for finding in findings {
            output::print_line(&finding.line())?;
        }
        let count = |status| findings.iter().filter(|finding| finding.status == status).count();
        let (warn, fail) = (count(Status::Warn), count(Status::Fail));
        output::print_line(&format!("{} checks: {warn} warnings, {fail} failures.", findings.len()))?;
    }
    if findings.iter().any(|finding| finding.status == Status::Fail) {
        return Err(Failure::CheckFailed);
    }
    Ok(())
}
