//! `paystream replay`: a file of transactions through the live scoring code.

use std::io::IsTerminal as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use fraud_analyzer::replay::{ReplayConfig, ReplayProgress, ReplayReport};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::{Global, ReplayArgs};
use crate::config;
use crate::exit::{Failure, OrUsage as _, Outcome};
use crate::output;

/// Between two lines of progress where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

pub(crate) fn run(global: &Global, args: &ReplayArgs) -> Outcome {
    let config = config::load(global.config.as_deref())?.value;
    let scoring = config.scoring.with_dirs(args.features_dir.as_deref(), args.rules_dir.as_deref());
    let mapping = read_mapping(&args.mapping)?;
    let replay = ReplayConfig {
        input: args.input.clone(),
        mapping,
        output: args.output.clone(),
        ruleset: scoring.source().or_usage()?,
        batch_rows: args.batch_rows,
        checkpoint_rows: args.checkpoint_rows,
        fresh: args.fresh,
    };
    let report = score(&replay)?;
    if args.json {
        output::print_json(&report)?;
    } else {
        output::print_line(&table(&report))?;
    }
    Ok(())
}

/// The text of a mapping file.
pub(crate) fn read_mapping(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path)
        .with_context(|| format!("reading the mapping {}", path.display()))
        .or_usage()
}

/// Scores on the runtime's own thread; a signal ends it where it is: the checkpoint carries it on.
fn score(replay: &ReplayConfig) -> Result<ReplayReport, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the asynchronous runtime")?;
    runtime.block_on(async {
        let stop = runtime::signals::listen().context("listening for signals")?;
        let mut shown = Progress::new();
        let mut show = |now: ReplayProgress| shown.show(now);
        let report = tokio::select! {
            report = fraud_analyzer::replay::run(replay, &mut show) => Some(report),
            () = stop.cancelled() => None,
        };
        shown.clear();
        match report {
            Some(report) => Ok(report?),
            None => {
                output::note("Interrupted: the same command carries on from the last checkpoint.");
                Err(Failure::Interrupted)
            }
        }
    })
}

/// A bar on a terminal, a line now and then elsewhere.
struct Progress {
    bar: Option<ProgressBar>,
    began: Instant,
    last_line: Instant,
}

impl Progress {
    fn new() -> Self {
        let now = Instant::now();
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(0), ProgressDrawTarget::stderr());
            let template = "{wide_bar} {human_pos}/{human_len} rows  {per_sec}  {eta} left";
            bar.set_style(ProgressStyle::with_template(template).expect("the template is well-formed"));
            bar
        });
        Self { bar, began: now, last_line: now }
    }

    fn show(&mut self, now: ReplayProgress) {
        if let Some(bar) = &self.bar {
            if bar.length() != Some(now.total_rows) {
                bar.set_length(now.total_rows);
                // What an earlier run did is no measure of this one's speed.
                bar.reset_eta();
            }
            bar.set_position(now.rows);
        } else if self.last_line.elapsed() >= LINE_EVERY {
            self.last_line = Instant::now();
            let seconds = self.began.elapsed().as_secs();
            output::note(&format!("{} of {} rows after {seconds} s", now.rows, now.total_rows));
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn table(report: &ReplayReport) -> String {
    let mut lines = vec![
        format!("rows           {:>12}", report.rows),
        format!("decisions      {:>12}", report.decisions),
        format!("rejected       {:>12}", report.rejected),
        format!("rows per second{:>12.0}", report.rows_per_s),
        format!("ruleset         {}", report.ruleset),
        format!("decision hash   {}", report.decision_hash),
    ];
    if let Some(row) = report.resumed_at_row {
        lines.push(format!("carried on an earlier run at row {row}"));
    }
    if let Some(reason) = &report.first_rejection {
        lines.push(format!("first rejection: {reason}"));
    }
    lines.join("\n")
}
