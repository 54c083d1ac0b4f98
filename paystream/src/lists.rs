//! `paystream lists show|add|remove`: through a running system, by its API.

mod input;

use std::collections::VecDeque;

use anyhow::{Context as _, anyhow};
use comfy_table::Table;
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use self::input::{Entries, Entry};
use crate::cli::{EntriesArgs, Global, ListsCommand, SourceArgs};
use crate::client::Client;
use crate::exit::{Failure, OrUsage as _, Outcome};
use crate::output;
use crate::source::{self, Source};

/// Entries of one request: as many as the API takes.
const REQUEST_ENTRIES: usize = 1_000;
/// Refused entries that are listed; the rest are counted.
const REFUSED_SHOWN: usize = 20;

#[derive(Deserialize)]
struct Declared {
    lists: Vec<List>,
}

#[derive(Deserialize, Serialize)]
struct List {
    id: String,
    kind: String,
    description: String,
}

/// What became of one entry.
#[derive(Deserialize)]
struct Answer {
    line: usize,
    status: u16,
    body: Value,
}

#[derive(Default, Serialize)]
struct Report {
    list: String,
    taken: u64,
    refused: u64,
    /// The first of them.
    examples: Vec<Refused>,
}

#[derive(Serialize)]
struct Refused {
    /// Of the file, or the argument's number.
    line: u64,
    reason: String,
}

pub(crate) fn run(global: &Global, command: ListsCommand) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("starting the asynchronous runtime")?;
    runtime.block_on(async {
        let stop = runtime::signals::listen().context("listening for signals")?;
        let work = async {
            match command {
                ListsCommand::Show { source, json } => show(&client(global, &source)?, json).await,
                ListsCommand::Add { entries, expires_at } => change(global, entries, Some(expires_at)).await,
                ListsCommand::Remove { entries } => change(global, entries, None).await,
            }
        };
        tokio::select! {
            done = work => done,
            () = stop.cancelled() => Err(Failure::Interrupted),
        }
    })
}

fn client(global: &Global, args: &SourceArgs) -> Result<Client, Failure> {
    match source::resolve(global, args)? {
        Source::Running(client) => Ok(client),
        Source::Stopped(_) => Err(Failure::Usage(anyhow!(
            "the system does not run, and lists are changed through a running one: start `paystream up`, or name \
             another --url"
        ))),
    }
}

async fn show(client: &Client, as_json: bool) -> Outcome {
    let Declared { lists } = client.get("/v1/lists").await?;
    if as_json {
        return Ok(output::print_json(&lists)?);
    }
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::NOTHING);
    table.set_header(["ID", "KIND", "DESCRIPTION"]);
    for list in lists {
        table.add_row([list.id, list.kind, list.description]);
    }
    Ok(output::print_line(&table.trim_fmt())?)
}

/// Adds entries, with the expiry of those that have none of their own; or, without `adding`, removes them.
async fn change(global: &Global, args: EntriesArgs, adding: Option<Option<String>>) -> Outcome {
    let client = client(global, &args.source)?;
    let Declared { lists } = client.get("/v1/lists").await?;
    let list = lists.iter().find(|list| list.id == args.list).ok_or_else(|| {
        Failure::Usage(anyhow!(
            "there is no list `{}`: `paystream lists show` names those there are",
            args.list
        ))
    })?;
    let cards = list.kind == "card";
    let entries = Entries::open(args.file.as_deref(), args.values, cards).or_usage()?;
    let common = Common {
        cards,
        expires_at: adding.clone().flatten(),
        note: args.note,
        for_everyone: args.all_merchants,
    };
    let end = if adding.is_some() { "" } else { "/remove" };
    let path = format!("/v1/lists/{}/entries{end}", args.list);
    let report = send(&client, &path, entries, &common, args.list).await?;
    if args.json {
        output::print_json(&report)?;
    } else {
        let done = if adding.is_some() { "put on" } else { "taken off" };
        output::print_line(&format!("{} {done} {}, {} refused", report.taken, report.list, report.refused))?;
        for Refused { line, reason } in &report.examples {
            output::note(&format!("line {line}: {reason}"));
        }
    }
    if report.refused == 0 { Ok(()) } else { Err(Failure::CheckFailed) }
}

/// What all entries of a command have in common.
struct Common {
    cards: bool,
    expires_at: Option<String>,
    note: Option<String>,
    for_everyone: bool,
}

impl Common {
    fn body(&self, entry: &Entry) -> Value {
        // The API makes a token of a card number; this program keeps neither.
        let is_number = self.cards && !entry.value.starts_with("tok_");
        let mut body = json!({ if is_number { "card_number" } else { "value" }: entry.value });
        let expires_at = entry.expires_at.as_ref().or(self.expires_at.as_ref());
        for (name, value) in [("expires_at", expires_at), ("note", self.note.as_ref())] {
            if let Some(value) = value {
                body[name] = json!(value);
            }
        }
        if self.for_everyone {
            body["scope"] = json!("all");
        }
        body
    }
}

async fn send(
    client: &Client,
    path: &str,
    entries: Entries,
    common: &Common,
    list: String,
) -> anyhow::Result<Report> {
    let mut report = Report { list, ..Report::default() };
    let progress = ProgressBar::new_spinner();
    let mut waiting = VecDeque::with_capacity(REQUEST_ENTRIES);
    let mut entries = entries.peekable();
    while let Some(entry) = entries.next() {
        waiting.push_back(entry?);
        if waiting.len() == REQUEST_ENTRIES || entries.peek().is_none() {
            let lines: String = waiting.iter().map(|entry| format!("{}\n", common.body(entry))).collect();
            let answers: Vec<Answer> = client.post_lines(path, lines).await?;
            anyhow::ensure!(
                answers.len() == waiting.len(),
                "the answer lacks some of the entries: send them again"
            );
            for answer in answers {
                let entry =
                    waiting.get(answer.line.wrapping_sub(1)).context("the answer names no entry sent")?;
                report.add(entry.line, &answer);
            }
            waiting.clear();
            progress.set_message(format!("{} taken, {} refused", report.taken, report.refused));
            progress.tick();
        }
    }
    progress.finish_and_clear();
    Ok(report)
}

impl Report {
    fn add(&mut self, line: u64, answer: &Answer) {
        if answer.status < 300 {
            self.taken += 1;
            return;
        }
        self.refused += 1;
        if self.examples.len() < REFUSED_SHOWN {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let errors = answer.body["errors"].as_array().into_iter().flatten();
            let errors: Vec<String> =
                errors.map(|e| format!("{} {}", text(&e["pointer"]), text(&e["message"]))).collect();
            let reason = if errors.is_empty() { text(&answer.body["detail"]) } else { errors.join("; ") };
            self.examples.push(Refused { line, reason });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_sent_with_what_it_and_the_command_say() {
        let common = Common {
            cards: true,
            expires_at: Some("2027-01-01T00:00:00Z".into()),
            note: Some("stolen".into()),
            for_everyone: true,
        };
        let entry = |value: &str, expires_at: Option<&str>| Entry {
            line: 1,
            value: value.into(),
            expires_at: expires_at.map(str::to_owned),
        };
        let sent = common.body(&entry("4242 4242 4242 4242", None));
        let expected = json!({"card_number": "4242 4242 4242 4242", "expires_at": "2027-01-01T00:00:00Z",
            "note": "stolen", "scope": "all"});
        assert_eq!(sent, expected);
        let plain = Common { expires_at: None, note: None, for_everyone: false, ..common };
        let sent = plain.body(&entry("tok_k1_00", Some("2028-01-01T00:00:00Z")));
        assert_eq!(sent, json!({"value": "tok_k1_00", "expires_at": "2028-01-01T00:00:00Z"}));
    }
}
