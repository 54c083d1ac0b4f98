//! Which log an operator's tool works on: that of a running system, through it; or one opened here, of a
//! stopped system or on Kafka.

use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use eventlog::{EmbeddedLog, EventLog, KafkaLog};
use events::topics;

use crate::cli::{Global, SourceArgs};
use crate::client::Client;
use crate::config::{self, Config};
use crate::exit::{Failure, OrUsage as _};
use crate::servers::Servers;
use crate::source::{self, Source, Stopped};

/// A log to work on.
pub(crate) enum Logs {
    /// Behind the operators' routes of a running system.
    Running(Client),
    /// Open in this process.
    Open(OpenLog),
}

/// A log open in this process.
pub(crate) struct OpenLog {
    pub(crate) log: Arc<dyn EventLog>,
    /// Closed at the end, and with it the directory given back.
    embedded: Option<(Arc<EmbeddedLog>, Box<Stopped>)>,
}

impl OpenLog {
    /// Whether others append to it meanwhile.
    pub(crate) fn is_live(&self) -> bool {
        self.embedded.is_none()
    }

    pub(crate) async fn close(self) {
        if let Some((log, _stopped)) = self.embedded {
            log.close().await;
        }
    }
}

/// The log that was asked for: of `--url` or `--data-dir` when one is named, else Kafka's where one is
/// configured, else that of the configured data directory.
pub(crate) async fn resolve(global: &Global, args: &SourceArgs) -> Result<Logs, Failure> {
    if args.url.is_none() && args.data_dir.is_none() {
        let config = config::load(global.config.as_deref())?.value;
        if !Servers::of(&config).kafka_brokers.is_empty() {
            let log = open_log(&config).await?;
            return Ok(Logs::Open(OpenLog { log, embedded: None }));
        }
    }
    match source::resolve_operators(global, args)? {
        Source::Running(client) => Ok(Logs::Running(client)),
        Source::Stopped(stopped) => {
            let (dir, settings) = (stopped.dir.log(), stopped.config.log.clone());
            let log = tokio::task::spawn_blocking(move || EmbeddedLog::open(&dir, settings))
                .await
                .context("opening the event log")?
                .with_context(|| format!("opening the event log in {}", stopped.dir.log().display()))?;
            let log = Arc::new(log);
            Ok(Logs::Open(OpenLog { log: log.clone(), embedded: Some((log, Box::new(stopped))) }))
        }
    }
}

/// The log on Kafka.
pub(crate) async fn open_log(config: &Config) -> anyhow::Result<Arc<dyn EventLog>> {
    let log = KafkaLog::open(config.kafka.clone()).await.context("connecting to Kafka")?;
    Ok(Arc::new(log))
}

/// The topic of a full or a short name, with or without `.dlq`.
pub(crate) fn topic(name: &str) -> Result<&'static str, Failure> {
    find(name).ok_or_else(|| unknown(name)).or_usage()
}

/// The dead-letter topic of a name with or without `.dlq`.
pub(crate) fn dead_letter_topic(name: &str) -> Result<&'static str, Failure> {
    dead_letters_of(name).ok_or_else(|| unknown(name)).or_usage()
}

/// As [`topic`].
pub(crate) fn find(name: &str) -> Option<&'static str> {
    match name.strip_suffix(".dlq") {
        Some(short) => original(short).map(topics::dead_letter),
        None => original(name),
    }
}

/// As [`dead_letter_topic`].
pub(crate) fn dead_letters_of(name: &str) -> Option<&'static str> {
    original(name.strip_suffix(".dlq").unwrap_or(name)).map(topics::dead_letter)
}

/// The topic whose dead letters a dead-letter topic takes.
pub(crate) fn original_of(dead_letters: &str) -> Option<&'static str> {
    let at = topics::DEAD_LETTERS.iter().position(|&topic| topic == dead_letters)?;
    topics::ALL.get(at).copied()
}

fn original(name: &str) -> Option<&'static str> {
    let full = match name {
        "created" => topics::CREATED,
        "decided" => topics::DECIDED,
        "labelled" => topics::LABELLED,
        "lists" => topics::LISTS_CHANGED,
        "alerts" => topics::ALERTS,
        full => full,
    };
    topics::ALL.into_iter().find(|&topic| topic == full)
}

fn unknown(name: &str) -> anyhow::Error {
    anyhow!(
        "there is no topic `{name}`: write created, decided, labelled, lists or alerts, with .dlq behind it for \
         dead letters, or one of {}",
        topics::ALL.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_have_short_names_and_full_ones() {
        for (name, full) in [
            ("created", topics::CREATED),
            ("transactions.created", topics::CREATED),
            ("lists", topics::LISTS_CHANGED),
            ("alerts", topics::ALERTS),
            ("created.dlq", "transactions.created.dlq"),
            ("fraud.alerts.dlq", "fraud.alerts.dlq"),
        ] {
            assert_eq!(find(name), Some(full));
        }
        for wrong in ["", "dlq", ".dlq", "create", "created.dlq.dlq"] {
            assert_eq!(find(wrong), None, "{wrong}");
        }
        assert_eq!(dead_letters_of("labelled"), Some("transactions.labelled.dlq"));
        assert_eq!(dead_letters_of("labelled.dlq"), Some("transactions.labelled.dlq"));
        for (original, dead) in topics::ALL.into_iter().zip(topics::DEAD_LETTERS) {
            assert_eq!(original_of(dead), Some(original));
        }
    }
}
