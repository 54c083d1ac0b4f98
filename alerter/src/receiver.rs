//! One way to tell people of a group: the console, Telegram or a webhook.

use std::fmt;
use std::time::Duration;

use crate::render;
use crate::story::Story;
use crate::telegram::Telegram;
use crate::webhook::Webhook;

/// What a receiver is to be told.
#[derive(Debug)]
pub(crate) struct Notice {
    pub(crate) story: Story,
    /// The message to edit; `None` for a new one.
    pub(crate) editable: Option<i64>,
    /// Whether the receiver was told of this story before.
    pub(crate) update: bool,
}

/// Why a receiver was not told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It asks to be left alone for a while.
    Wait(Duration),
    /// Another attempt may succeed.
    Retry(String),
    /// The message to edit is no longer there.
    MessageGone,
    /// No attempt will succeed until something is corrected.
    Refused(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wait(wait) => write!(f, "asked to wait {} ms", wait.as_millis()),
            Self::MessageGone => f.write_str("the message to update is gone"),
            Self::Retry(why) | Self::Refused(why) => f.write_str(why),
        }
    }
}

/// Where messages go.
pub(crate) enum Receiver {
    Console,
    Telegram(Telegram),
    Webhook(Webhook),
}

impl Receiver {
    /// Tells the receiver; gives back the id under which the message can be edited, if it has one.
    pub(crate) async fn deliver(&self, notice: &Notice) -> Result<Option<i64>, Failure> {
        match self {
            Self::Console => {
                print(notice);
                Ok(None)
            }
            Self::Telegram(telegram) => telegram.deliver(notice).await.map(Some),
            Self::Webhook(webhook) => webhook.deliver(notice).await.map(|()| None),
        }
    }
}

/// Writes a story to the log: high and critical as warnings.
fn print(notice: &Notice) {
    macro_rules! event {
        ($severity:expr, $($fields:tt)*) => {
            if $severity >= events::Severity::High {
                tracing::warn!(severity = $severity.as_str(), $($fields)*)
            } else {
                tracing::info!(severity = $severity.as_str(), $($fields)*)
            }
        };
    }
    match &notice.story {
        Story::Fraud(group) => event!(
            group.severity,
            group = %group.id,
            alerts = group.count,
            transaction_id = %group.worst.transaction_id,
            "fraud alert: {}",
            render::console_line(group)
        ),
        Story::Incident(incident) => event!(
            incident.severity,
            group = %incident.id,
            "infrastructure alert: {}",
            render::incident::console_line(incident)
        ),
    }
}
