//! The dead letters of the system that was asked for, wherever its log is.

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::{Value, json};

use super::desk::{Desk, Mended, Step};
use super::route::Asked;
use super::show::{self, Which};
use super::survey::{self, Survey};
use super::{Peeked, purge, retry};
use crate::cli::{Global, SourceArgs};
use crate::client::Client;
use crate::config;
use crate::exit::{Failure, OrUsage as _};
use crate::logs::{self, Logs, OpenLog};
use crate::mask::Mask;
use crate::tail::Entry;

/// A way to the letters.
pub(super) enum Access {
    /// By the routes of a running system.
    Running(Client),
    /// In a log that is open here.
    Open(OpenLog, Box<Desk>),
}

#[derive(Deserialize)]
struct Purged {
    purged: u64,
}

impl Access {
    pub(super) async fn open(global: &Global, source: &SourceArgs) -> Result<Self, Failure> {
        match logs::resolve(global, source).await? {
            Logs::Running(client) => Ok(Self::Running(client)),
            Logs::Open(open) => {
                // What is done is logged here, as there is no system to log it.
                let telemetry = config::load(global.config.as_deref())?.value.telemetry;
                runtime::telemetry::init(&telemetry, global.color.into()).or_usage()?;
                let desk = Box::new(Desk::new(open.log.clone()));
                Ok(Self::Open(open, desk))
            }
        }
    }

    pub(super) async fn close(self) {
        if let Self::Open(open, desk) = self {
            drop(desk);
            open.close().await;
        }
    }

    pub(super) async fn survey(&mut self) -> anyhow::Result<Vec<Survey>> {
        match self {
            Self::Running(client) => client.get("/-/dlq").await,
            Self::Open(_, desk) => survey::survey(desk).await,
        }
    }

    pub(super) async fn of_topic(&mut self, topic: &'static str) -> anyhow::Result<Survey> {
        match self {
            Self::Running(client) => client.get(&format!("/-/dlq/{topic}")).await,
            Self::Open(_, desk) => survey::of_topic(desk, topic).await,
        }
    }

    pub(super) async fn letters(
        &mut self,
        topic: &'static str,
        which: Which,
        mask: Mask,
    ) -> anyhow::Result<Vec<Entry>> {
        match self {
            Self::Running(client) => {
                let end = if mask == Mask::CardsOnly { "/full" } else { "" };
                client.get(&format!("/-/dlq/{topic}/letters{end}?{}", which.query())).await
            }
            Self::Open(_, desk) => show::letters(desk, topic, which, mask).await,
        }
    }

    /// Where the topic ends now.
    pub(super) async fn ends(&mut self, topic: &'static str) -> anyhow::Result<Vec<u64>> {
        match self {
            Self::Running(client) => client.get(&format!("/-/dlq/{topic}/ends")).await,
            Self::Open(_, desk) => desk.ends(topic).await,
        }
    }

    pub(super) async fn peek(
        &mut self,
        topic: &'static str,
        from: Option<Vec<u64>>,
        until: &[u64],
        max: usize,
    ) -> anyhow::Result<Peeked> {
        match self {
            Self::Running(client) => {
                let asked = json!(Asked {
                    until: until.to_vec(),
                    max: max as u64,
                    from,
                    mended: None,
                    who: String::new()
                });
                client.post(&format!("/-/dlq/{topic}/peek"), &asked).await
            }
            Self::Open(_, desk) => Ok(desk.peek(topic, from, until, max).await?.into()),
        }
    }

    pub(super) async fn retry(
        &mut self,
        topic: &'static str,
        until: &[u64],
        max: usize,
        mended: Option<Vec<Mended>>,
    ) -> anyhow::Result<Step> {
        match self {
            Self::Running(client) => {
                let end = if mended.is_some() { "/mended" } else { "" };
                let asked = asked(until, max as u64, mended);
                client.post(&format!("/-/dlq/{topic}/retry{end}"), &asked).await
            }
            Self::Open(_, desk) => retry(desk, topic, until, max, mended, &user()).await,
        }
    }

    pub(super) async fn purge(
        &mut self,
        topic: &'static str,
        until: &[u64],
        max: u64,
    ) -> anyhow::Result<u64> {
        match self {
            Self::Running(client) => {
                let path = format!("/-/dlq/{topic}/purge");
                let done: Purged =
                    client.post(&path, &asked(until, max, None)).await.context("giving up letters")?;
                Ok(done.purged)
            }
            Self::Open(_, desk) => purge(desk, topic, until, max, &user()).await,
        }
    }
}

fn asked(until: &[u64], max: u64, mended: Option<Vec<Mended>>) -> Value {
    json!(Asked { until: until.to_vec(), max, from: None, mended, who: user() })
}

/// Who runs this program: by the system's own account of it, where there is one.
fn user() -> String {
    #[cfg(unix)]
    if let Ok(own) = std::fs::metadata("/proc/self") {
        let id = std::os::unix::fs::MetadataExt::uid(&own).to_string();
        let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let mut fields = accounts.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let known = fields.find(|fields| fields.get(2) == Some(&id.as_str()));
        return known.map_or(format!("uid {id}"), |fields| fields[0].to_owned());
    }
    std::env::var("USER").or_else(|_| std::env::var("USERNAME")).unwrap_or_else(|_| "unknown".to_owned())
}
