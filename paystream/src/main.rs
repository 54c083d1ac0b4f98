//! `paystream`: card transactions in; decisions, alerts and a live page out.
//!
//! This binary only wires: what a command does is in the module of its name, and what the stages do is
//! in their crates.

mod alert_routes;
mod cli;
mod client;
mod config;
mod data_dir;
mod dlq;
mod doctor;
mod engine;
mod exit;
mod healthcheck;
mod host;
mod keys;
mod lists;
mod loadtest;
mod logs;
mod mask;
mod memory;
mod offline;
mod output;
mod query;
mod reconcile;
mod replay;
mod ruleset;
mod servers;
mod services;
mod settings;
mod source;
mod tail;
mod topics;
mod up;
mod warehouse;

use std::process::ExitCode;

use clap::Parser as _;
use cli::{AlerterArgs, Cli, Command};
use services::Stage;

fn main() -> ExitCode {
    memory::keep_pages_small();
    let cli = Cli::parse();
    let global = cli.global;
    let result = match cli.command {
        Command::Up(args) => up::run(&global, args),
        Command::Gateway(args) => services::run(&global, Stage::Gateway, args),
        Command::FraudAnalyzer(args) => services::run(&global, Stage::FraudAnalyzer, args),
        Command::Analytics(args) => services::run(&global, Stage::Analytics, args),
        Command::Query(args) => query::run(&global, &args),
        Command::Reconcile(args) => reconcile::run(&global, &args),
        Command::Replay(args) => replay::run(&global, &args),
        Command::Loadtest(args) => loadtest::run(&global, &args),
        Command::Features(command) => engine::features(&global, command),
        Command::Bench(command) => engine::bench(&global, command),
        Command::Keys(command) => keys::run(&global, command),
        Command::Lists(command) => lists::run(&global, command),
        Command::Topics(command) => topics::run(&global, &command),
        Command::Doctor(args) => doctor::run(&global, &args),
        Command::Tail(args) => tail::run(&global, &args),
        Command::Dlq(command) => dlq::run(&global, command),
        Command::Warehouse(command) => warehouse::run(&global, &command),
        Command::Config(command) => settings::run(&global, &command),
        Command::Alerter(AlerterArgs { command: Some(command), .. }) => alert_routes::run(&global, &command),
        Command::Alerter(args) => services::run(&global, Stage::Alerter, args.service),
        Command::Healthcheck(args) => healthcheck::run(&global, &args),
        Command::Completions { shell } => cli::completions(shell),
    };
    exit::code(result)
}
