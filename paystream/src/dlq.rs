//! `paystream dlq list|show|retry|purge`: what becomes of records that could not be read.

mod access;
mod desk;
mod hexed;
mod known;
mod letter;
mod pipe;
mod route;
mod show;
mod survey;

use std::collections::HashSet;
use std::io::{IsTerminal as _, Write as _};

use anyhow::{Context as _, anyhow};
use comfy_table::Table;
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use serde_json::json;

use self::access::Access;
use self::desk::{Desk, GROUP_MAX, Mended, Step, Taken};
pub(crate) use self::route::router;
use self::show::Which;
use self::survey::Survey;
use crate::cli::{DlqCommand, DlqPurgeArgs, DlqRetryArgs, DlqShowArgs, Global};
use crate::exit::{Failure, Outcome};
use crate::logs;
use crate::mask::Mask;
use crate::output;
use crate::tail::{printable, time};

/// Reasons listed of each topic.
const REASONS_SHOWN: usize = 10;

/// Letters to mend, as they travel.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Peeked {
    letters: Vec<Mended>,
    /// Where each record stood, for those letters that say so.
    origins: Vec<Option<(u32, u64)>>,
    passed: u64,
    next: Vec<u64>,
}

impl From<Taken> for Peeked {
    fn from(taken: Taken) -> Self {
        let origin =
            |letter: &letter::Letter| letter.origin().map(|origin| (origin.partition, origin.offset));
        let value = |letter: &letter::Letter| Mended {
            partition: letter.partition,
            offset: letter.record.offset,
            value: letter.record.value.to_vec(),
        };
        Self {
            origins: taken.letters.iter().map(origin).collect(),
            passed: taken.repeated + taken.appended_before,
            next: taken.next(),
            letters: taken.letters.iter().map(value).collect(),
        }
    }
}

/// What a retry came to.
#[derive(Debug, Default, Serialize)]
struct Report {
    topic: &'static str,
    retried: u64,
    /// Letters about records that have been dealt with.
    repeated: u64,
    dry_run: bool,
}

/// One step of a retry, and a line about it for the audit.
async fn retry(
    desk: &mut Desk,
    topic: &'static str,
    until: &[u64],
    max: usize,
    mended: Option<Vec<Mended>>,
    who: &str,
) -> anyhow::Result<Step> {
    let is_mended = mended.is_some();
    let step = desk.retry(topic, until, max, mended).await?;
    if !step.done {
        let Step { retried, repeated, .. } = step;
        tracing::info!(topic, retried, repeated, mended = is_mended, who, "dead letters were retried");
    }
    Ok(step)
}

/// Gives letters up, with a line for the audit.
async fn purge(
    desk: &mut Desk,
    topic: &'static str,
    until: &[u64],
    max: u64,
    who: &str,
) -> anyhow::Result<u64> {
    let purged = desk.purge(topic, until, max).await?;
    tracing::warn!(topic, purged, who, "dead letters were given up");
    Ok(purged)
}

pub(crate) fn run(global: &Global, command: DlqCommand) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the asynchronous runtime")?;
    runtime.block_on(async {
        let stop = runtime::signals::listen().context("listening for signals")?;
        let work = async {
            match command {
                DlqCommand::List { source, json } => {
                    let mut access = Access::open(global, &source).await?;
                    let surveys = access.survey().await;
                    access.close().await;
                    print_list(&surveys?, json)
                }
                DlqCommand::Show(args) => show(global, args).await,
                DlqCommand::Retry(args) => retry_all(global, args).await,
                DlqCommand::Purge(args) => purge_all(global, args).await,
            }
        };
        tokio::select! {
            done = work => done,
            () = stop.cancelled() => Err(Failure::Interrupted),
        }
    })
}

fn print_list(surveys: &[Survey], as_json: bool) -> Outcome {
    if as_json {
        return Ok(output::print_json(&surveys)?);
    }
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(["TOPIC", "OPEN", "REPEATED", "OLDEST", "NEWEST"]);
    let shown = |ms: Option<i64>| ms.map_or_else(|| "-".to_owned(), time);
    for survey in surveys {
        let (open, repeated) = (survey.open.to_string(), survey.repeated.to_string());
        table.add_row([
            survey.topic.clone(),
            open,
            repeated,
            shown(survey.oldest_ms),
            shown(survey.newest_ms),
        ]);
    }
    output::print_line(&table.trim_fmt())?;
    for survey in surveys.iter().filter(|survey| !survey.reasons.is_empty()) {
        output::print_line(&format!("\n{}", survey.topic))?;
        for reason in survey.reasons.iter().take(REASONS_SHOWN) {
            output::print_line(&format!("{:>8}  {}", reason.count, printable(&reason.reason)))?;
        }
        if survey.reasons.len() > REASONS_SHOWN {
            output::print_line(&format!(
                "          … and {} further reasons",
                survey.reasons.len() - REASONS_SHOWN
            ))?;
        }
    }
    Ok(())
}

async fn show(global: &Global, args: DlqShowArgs) -> Outcome {
    let topic = logs::dead_letter_topic(&args.topic)?;
    let mask = if args.unmasked { Mask::CardsOnly } else { Mask::Personal };
    let which = Which { limit: Some(args.limit), partition: args.partition, offset: args.offset };
    let mut access = Access::open(global, &args.source).await?;
    let letters = access.letters(topic, which, mask).await;
    access.close().await;
    let letters = letters?;
    for letter in &letters {
        if args.json {
            output::print_json(letter)?;
        } else {
            output::print_line(&show::text(letter))?;
        }
    }
    if letters.is_empty() {
        output::note(&format!("{topic} has no open letters."));
    }
    Ok(())
}

async fn retry_all(global: &Global, args: DlqRetryArgs) -> Outcome {
    let topic = logs::dead_letter_topic(&args.topic)?;
    let mut access = Access::open(global, &args.source).await?;
    let outcome = retry_open(&mut access, topic, &args).await;
    access.close().await;
    outcome
}

async fn retry_open(access: &mut Access, topic: &'static str, args: &DlqRetryArgs) -> Outcome {
    // What is buried from now on is for another time.
    let until = access.ends(topic).await?;
    if args.dry_run {
        let report = rehearse(access, topic, &until, args).await?;
        return print_report(&report, args.json);
    }
    if !args.yes && std::io::stdin().is_terminal() {
        let open = access.of_topic(topic).await?.open.min(args.limit.unwrap_or(u64::MAX));
        if open > 0 && !confirmed(&format!("Append {open} letters of {topic} to their topic again?")).await? {
            return Err(Failure::Failed(anyhow!("nothing was retried")));
        }
    }
    let progress = ProgressBar::new_spinner();
    let mut report = Report { topic, ..Report::default() };
    let mut failure = None;
    loop {
        let left = args.limit.map_or(u64::MAX, |limit| limit - report.retried);
        let mut max = usize::try_from(left).unwrap_or(usize::MAX).min(GROUP_MAX);
        if max == 0 || failure.is_some() {
            break;
        }
        let mut mended = None;
        if let Some(command) = &args.pipe {
            let group = access.peek(topic, None, &until, max).await?;
            let (values, failed) = mend(command, topic, group.letters).await;
            if failed.is_some() {
                max = values.len();
            }
            failure = failed;
            if max == 0 {
                break;
            }
            mended = Some(values);
        }
        let step = access.retry(topic, &until, max, mended).await?;
        report.retried += step.retried;
        report.repeated += step.repeated;
        if step.done {
            break;
        }
        progress.set_message(format!("{} retried", report.retried));
        progress.tick();
    }
    progress.finish_and_clear();
    print_report(&report, args.json)?;
    failure.map_or(Ok(()), |error| Err(Failure::Failed(error)))
}

/// The values that the command made, and the failure it ended at.
async fn mend(command: &str, topic: &str, letters: Vec<Mended>) -> (Vec<Mended>, Option<anyhow::Error>) {
    let mut done = Vec::new();
    for Mended { partition, offset, value } in letters {
        match pipe::mend(command, value).await {
            Ok(value) => done.push(Mended { partition, offset, value }),
            Err(error) => {
                let at = format!("the letter {topic}/{partition}/{offset} stays, and those after it");
                return (done, Some(error.context(at)));
            }
        }
    }
    (done, None)
}

/// What a retry would do, the command included.
async fn rehearse(
    access: &mut Access,
    topic: &'static str,
    until: &[u64],
    args: &DlqRetryArgs,
) -> Result<Report, Failure> {
    let mut report = Report { topic, dry_run: true, ..Report::default() };
    let limit = args.limit.unwrap_or(u64::MAX);
    let Some(command) = &args.pipe else {
        let survey = access.of_topic(topic).await?;
        report.retried = survey.open.min(limit);
        report.repeated = survey.repeated;
        return Ok(report);
    };
    let mut from = None;
    let mut met = HashSet::new();
    while report.retried < limit {
        let max = usize::try_from(limit - report.retried).unwrap_or(usize::MAX).min(GROUP_MAX);
        let group = access.peek(topic, from, until, max).await?;
        if group.letters.is_empty() && group.passed == 0 {
            break;
        }
        let letters = group.letters.into_iter().zip(group.origins);
        let (first, again): (Vec<_>, Vec<_>) =
            letters.partition(|(_, origin)| origin.is_none_or(|origin| met.insert(origin)));
        report.repeated += group.passed + again.len() as u64;
        let (values, failed) =
            mend(command, topic, first.into_iter().map(|(letter, _)| letter).collect()).await;
        report.retried += values.len() as u64;
        if let Some(error) = failed {
            return Err(Failure::Failed(error));
        }
        from = Some(group.next);
    }
    Ok(report)
}

fn print_report(report: &Report, as_json: bool) -> Outcome {
    if as_json {
        return Ok(output::print_json(report)?);
    }
    let Report { topic, retried, repeated, dry_run } = report;
    let would = if *dry_run { "would be" } else { "were" };
    let also = match repeated {
        0 => String::new(),
        _ => format!("; {repeated} further letters are about records that have been dealt with"),
    };
    Ok(output::print_line(&format!("{retried} letters of {topic} {would} appended again{also}."))?)
}

async fn purge_all(global: &Global, args: DlqPurgeArgs) -> Outcome {
    let topic = logs::dead_letter_topic(&args.topic)?;
    if !args.yes && !std::io::stdin().is_terminal() {
        return Err(Failure::Usage(anyhow!("letters are given up for good: say so with --yes")));
    }
    let mut access = Access::open(global, &args.source).await?;
    let outcome = purge_open(&mut access, topic, &args).await;
    access.close().await;
    outcome
}

async fn purge_open(access: &mut Access, topic: &'static str, args: &DlqPurgeArgs) -> Outcome {
    let until = access.ends(topic).await?;
    let limit = args.limit.unwrap_or(u64::MAX);
    if !args.yes {
        let survey = access.of_topic(topic).await?;
        let letters = (survey.open + survey.repeated).min(limit);
        if !confirmed(&format!("Give up {letters} letters of {topic} for good?")).await? {
            return Err(Failure::Failed(anyhow!("nothing was given up")));
        }
    }
    let purged = access.purge(topic, &until, limit).await?;
    if args.json {
        return Ok(output::print_json(&json!({ "topic": topic, "purged": purged }))?);
    }
    Ok(output::print_line(&format!("{purged} letters of {topic} are given up."))?)
}

/// Asks at the terminal.
async fn confirmed(question: &str) -> anyhow::Result<bool> {
    let prompt = format!("{question} [y/N] ");
    let ask = move || {
        let mut answer = String::new();
        let mut terminal = std::io::stderr();
        terminal.write_all(prompt.as_bytes()).and_then(|()| terminal.flush())?;
        std::io::stdin().read_line(&mut answer)?;
        std::io::Result::Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    };
    tokio::task::spawn_blocking(ask).await.context("asking")?.context("asking at the terminal")
}
