//! `paystream topics apply|diff|print`.

use std::path::Path;

use anyhow::Context as _;
use comfy_table::Table;
use eventlog::kafka::topics::{DEFAULT_TOPICS, Difference, TopicAdmin, TopicsFile};
use serde_json::json;

use crate::cli::{Global, TopicsArgs, TopicsCommand};
use crate::config;
use crate::exit::{Failure, OrUsage as _, Outcome};
use crate::output;

pub(crate) fn run(global: &Global, command: &TopicsCommand) -> Outcome {
    match command {
        TopicsCommand::Print(args) => print(args),
        TopicsCommand::Diff(args) => block_on(diff(global, args)),
        TopicsCommand::Apply(args) => block_on(apply(global, args)),
    }
}

fn print(args: &TopicsArgs) -> Outcome {
    let (text, file) = read(args.file.as_deref())?;
    if !args.json {
        return Ok(output::print(&text)?);
    }
    let topics: Vec<_> = file
        .topics
        .iter()
        .map(|topic| {
            json!({
                "name": topic.name, "partitions": topic.partitions,
                "replication_factor": topic.replication_factor, "settings": topic.settings,
            })
        })
        .collect();
    Ok(output::print_json(&topics)?)
}

async fn diff(global: &Global, args: &TopicsArgs) -> Outcome {
    let (_, file) = read(args.file.as_deref())?;
    let differences = admin(global)?.differences(&file.topics).await.context("comparing topics")?;
    if args.json {
        output::print_json(&json!({ "differences": as_json(&differences) }))?;
    } else if differences.is_empty() {
        output::note(&format!("All {} topics are as declared.", file.topics.len()));
    } else {
        output::print_line(&table(&differences))?;
    }
    if differences.is_empty() { Ok(()) } else { Err(Failure::CheckFailed) }
}

async fn apply(global: &Global, args: &TopicsArgs) -> Outcome {
    let (_, file) = read(args.file.as_deref())?;
    let admin = admin(global)?;
    let done = admin.apply(&file.topics).await.context("applying topics")?;
    let left = admin.differences(&file.topics).await.context("comparing topics")?;
    if args.json {
        output::print_json(&json!({ "done": as_json(&done), "left": as_json(&left) }))?;
    } else {
        for difference in &done {
            output::print_line(&format!("done: {difference}"))?;
        }
        if !left.is_empty() {
            output::print_line(&table(&left))?;
        }
        output::note(&format!("{} changes made, {} left.", done.len(), left.len()));
    }
    if left.is_empty() { Ok(()) } else { Err(Failure::CheckFailed) }
}

/// The file of topics, as text and read.
fn read(file: Option<&Path>) -> Result<(String, TopicsFile), Failure> {
    let (text, name) = match file {
        None => (DEFAULT_TOPICS.to_owned(), "topics.default.yaml".to_owned()),
        Some(path) => {
            let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()));
            (text.or_usage()?, path.display().to_string())
        }
    };
    let topics = TopicsFile::parse(&text, &name).or_usage()?;
    Ok((text, topics))
}

fn admin(global: &Global) -> Result<TopicAdmin, Failure> {
    let kafka = config::load(global.config.as_deref())?.value.kafka;
    if !kafka.is_set() {
        return Err(Failure::Usage(anyhow::anyhow!(
            "no Kafka is configured: set kafka.brokers, for example PAYSTREAM__KAFKA__BROKERS=127.0.0.1:9092"
        )));
    }
    TopicAdmin::new(kafka).or_usage()
}

fn as_json(differences: &[Difference]) -> Vec<serde_json::Value> {
    let with_refusal = |difference: &Difference| {
        let mut value = json!(difference);
        if let (Some(object), Some(refusal)) = (value.as_object_mut(), difference.refusal()) {
            object.insert("not_applied".to_owned(), refusal.into());
        }
        value
    };
    differences.iter().map(with_refusal).collect()
}

fn table(differences: &[Difference]) -> String {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(["DIFFERENCE", "APPLY"]);
    for difference in differences {
        let apply =
            difference.refusal().map_or_else(|| "would change it".to_owned(), |why| format!("no: {why}"));
        table.add_row([difference.to_string(), apply]);
    }
    table.trim_fmt()
}

fn block_on(work: impl Future<Output = Outcome>) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("starting the runtime")?.block_on(work)
}
