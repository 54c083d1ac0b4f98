//! `paystream features` and `paystream bench`: the scoring engine by itself.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use fraud_analyzer::engine::{BenchConfig, BenchReport, CheckConfig, CheckReport, EngineInput, bench, check};
use scoring::{KeptState, Ruleset, RulesetSource};

use crate::cli::{BenchCommand, BenchEngineArgs, FeaturesCommand, FileArgs, Global};
use crate::config;
use crate::exit::{Failure, OrUsage as _, Outcome};
use crate::output;
use crate::replay::read_mapping;
use crate::ruleset::{ScoringConfig, feature_files};

pub(crate) fn features(global: &Global, command: FeaturesCommand) -> Outcome {
    match command {
        FeaturesCommand::Check { file, features, json } => {
            let source = scoring(global, features.as_deref(), None)?.source().or_usage()?;
            let config = CheckConfig {
                input: input(&file)?,
                ruleset: RulesetSource::without_rules(source.features),
                batch_rows: file.batch_rows,
            };
            let report = block_on(check::run(&config))?;
            if json {
                output::print_json(&report)?;
            } else {
                output::print_line(&check_text(&report))?;
            }
            if report.differences == 0 { Ok(()) } else { Err(Failure::CheckFailed) }
        }
        FeaturesCommand::Explain { path, json } => explain(&path, json),
    }
}

pub(crate) fn bench(global: &Global, command: BenchCommand) -> Outcome {
    let BenchCommand::Engine(args) = command;
    let BenchEngineArgs { file, features, rules, threads: _, against, segments, json } = args;
    let config = BenchConfig {
        input: input(&file)?,
        ruleset: scoring(global, features.as_deref(), rules.as_deref())?.source().or_usage()?,
        batch_rows: file.batch_rows,
        against_datafusion: against.is_some(),
        segments,
    };
    let report = block_on(bench::run(&config))?;
    if json {
        output::print_json(&report)?;
    } else {
        output::print_line(&bench_text(&report))?;
    }
    Ok(())
}

fn explain(path: &Path, json: bool) -> Outcome {
    let source = RulesetSource::without_rules(feature_files(path).or_usage()?);
    let kept = Ruleset::load(&source).or_usage()?.explain();
    if json {
        output::print_json(&kept)?;
    } else {
        output::print_line(&explain_text(&kept))?;
    }
    Ok(())
}

fn input(file: &FileArgs) -> Result<EngineInput, Failure> {
    if let Some(synthetic) = file.synthetic {
        return Ok(EngineInput::Synthetic(synthetic));
    }
    let path =
        file.input.clone().context("give --input FILE with --mapping FILE, or --synthetic").or_usage()?;
    let mapping = file.mapping.as_ref().context("--input needs --mapping FILE").or_usage()?;
    let mapping = read_mapping(mapping)?;
    Ok(EngineInput::File { path, mapping })
}

fn scoring(global: &Global, features: Option<&Path>, rules: Option<&Path>) -> Result<ScoringConfig, Failure> {
    Ok(config::load(global.config.as_deref())?.value.scoring.with_dirs(features, rules))
}

fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("starting the asynchronous runtime")?.block_on(work)
}

fn check_text(report: &CheckReport) -> String {
    let mut text = format!(
        "rows        {:>12}\nfeatures    {:>12}\ndifferences {:>12}",
        report.rows, report.features, report.differences
    );
    for (feature, rows) in &report.by_feature {
        let _ = write!(text, "\n{feature} differs on {rows} rows");
    }
    for difference in &report.first {
        let _ = write!(
            text,
            "\n{} row {}: batch {}, incremental {}",
            difference.feature, difference.row, difference.batch, difference.incremental
        );
    }
    text
}

fn bench_text(report: &BenchReport) -> String {
    const MIB: f64 = 1_048_576.0;
    let mut text = format!(
        "events             {:>14}\nfeatures           {:>14}\nrules              {:>14}\nevents per second  {:>14.0}\n\
         ns per event       {:>14.1}",
        report.events, report.features, report.rules, report.events_per_s, report.ns_per_event
    );
    for (stage, ns) in &report.ns_by_stage {
        let _ = write!(text, "\n  {stage:<16} {ns:>14.1}");
    }
    costliest(&mut text, "features", &report.ns_by_feature);
    costliest(&mut text, "rules", &report.ns_by_rule);
    #[allow(clippy::cast_precision_loss)] // a figure for people
    let peak = report.peak_rss_bytes as f64 / MIB;
    let _ = write!(
        text,
        "\none event, p50 µs  {:>14.1}\none event, p99 µs  {:>14.1}\npeak memory, MiB   {peak:>14.0}\n\
         checkpoint, µs     {:>14.0}\ncheckpoint, bytes  {:>14}\nrestore, s         {:>14.2}\n\
         live events        {:>14}\nlive keys          {:>14}\nstate bytes a key  {:>14.0}\n\
         segment B an event {:>14.1}\ndecision hash       {}",
        report.single_p50_us,
        report.single_p99_us,
        report.checkpoint_us,
        report.checkpoint_bytes,
        report.restore_s,
        report.live_events,
        report.live_keys,
        report.state_bytes_per_key,
        report.segment_bytes_per_event,
        report.decision_hash
    );
    if let (Some(theirs), Some(ratio)) = (report.datafusion_events_per_s, report.ratio) {
        let _ = write!(text, "\nDataFusion per s   {theirs:>14.0}\nratio              {ratio:>14.1}");
    }
    text
}

/// Adds those that take the most nanoseconds an event.
fn costliest(text: &mut String, what: &str, ns_by_name: &BTreeMap<String, f64>) {
    const SHOWN: usize = 5;
    let mut all: Vec<_> = ns_by_name.iter().collect();
    all.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let _ = write!(text, "\ncostliest {what}");
    for (name, ns) in all.into_iter().take(SHOWN) {
        let _ = write!(text, "\n  {name:<24} {ns:>6.1}");
    }
}

fn explain_text(kept: &[KeptState]) -> String {
    let mut text = String::new();
    for state in kept {
        let key = if state.partition_by.is_empty() {
            "everything".to_owned()
        } else {
            state.partition_by.join(", ")
        };
        let filter = state.filter.as_ref().map_or_else(String::new, |f| format!("\n  only where    {f}"));
        let _ = writeln!(
            text,
            "{}\n  layer         {}\n  per           {key}\n  frame         {}\n  keeps         {}{filter}\n  \
             bytes         {} a live key, {} an event in the frame",
            state.features.join(", "),
            state.layer,
            state.frame,
            state.keeps,
            state.bytes_per_key,
            state.bytes_per_event
        );
    }
    let total: usize = kept.iter().map(|state| state.bytes_per_key).sum();
    let _ = write!(text, "{} states, {total} bytes for a key that has them all", kept.len());
    text
}
