//! `paystream loadtest`: made-up traffic at a fixed rate.

use std::io::{IsTerminal as _, Write as _};

use anyhow::Context as _;
use loadtest::{Arrivals, LoadConfig, Progress, Report};

use crate::cli::{Global, LoadtestArgs};
use crate::exit::{Failure, Outcome};
use crate::output;

pub(crate) fn run(_global: &Global, args: &LoadtestArgs) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("starting the asynchronous runtime")?;
    runtime.block_on(async {
        match args.malformed {
            Some(count) => malformed(args, count).await,
            None => load(args).await,
        }
    })
}

async fn load(args: &LoadtestArgs) -> Outcome {
    let stop = runtime::signals::listen().context("listening for signals")?;
    let config = LoadConfig {
        api_key: args.api_key.clone(),
        seed: args.seed,
        run_id: args.run_id.clone(),
        fraud_share: args.fraud_share,
        connections: args.connections,
        timeout: args.timeout,
        arrivals: if args.uniform { Arrivals::Uniform } else { Arrivals::Poisson },
        retry_until_accepted: args.retry,
        accepted_out: args.accepted_out.clone(),
        stop: stop.clone(),
        ..LoadConfig::new(&args.url, args.rate, args.duration)
    };
    let terminal = std::io::stderr().is_terminal();
    let report = loadtest::run(config, |now| {
        if terminal {
            status_line(&progress_text(now));
        }
    })
    .await;
    if terminal {
        status_line("");
    }
    print(&report?, args.json, stop.is_cancelled())
}

fn print(report: &Report, json: bool, interrupted: bool) -> Outcome {
    if json {
        output::print_json(report)?;
    } else {
        output::print_line(&report.to_string())?;
    }
    match report.errors {
        _ if interrupted => Err(Failure::Interrupted),
        0 => Ok(()),
        _ => Err(Failure::CheckFailed),
    }
}

async fn malformed(args: &LoadtestArgs, count: u64) -> Outcome {
    let stop = runtime::signals::listen().context("listening for signals")?;
    let report = tokio::select! {
        report = loadtest::run_malformed(&args.url, count, args.api_key.as_deref()) => report?,
        () = stop.cancelled() => return Err(Failure::Interrupted),
    };
    if args.json {
        output::print_json(&report)?;
    } else {
        output::print_line(&report.to_string())?;
    }
    if report.wrong_total == 0 { Ok(()) } else { Err(Failure::CheckFailed) }
}

fn progress_text(now: &Progress) -> String {
    let of = now.duration_s.map(|seconds| format!(" of {seconds:.0}")).unwrap_or_default();
    format!(
        "{:.0}{of} s  sent {}  ok {}  errors {}  retried {}  {:.0}/s  p99 {:.1} ms",
        now.elapsed_s, now.sent, now.ok, now.errors, now.retried, now.rate, now.p99_ms
    )
}

/// Replaces the terminal's current line.
fn status_line(text: &str) {
    // When standard error is gone there is nobody to tell.
    let mut err = std::io::stderr().lock();
    let _ = write!(err, "\r\x1b[K{text}").and_then(|()| err.flush());
}
