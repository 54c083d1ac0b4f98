//! One way to tell people of a group: the console, Telegram or a webhook.

use std::time::Duration;

use crate::group::Group;
use crate::render;
use crate::telegram::Telegram;
use crate::webhook::Webhook;

/// What a receiver is to be told.
#[derive(Debug)]
pub(crate) struct Notice {
    pub(crate) group: Group,
    /// The message to edit; `None` for a new one.
    pub(crate) editable: Option<i64>,
    /// Whether the receiver was told of this group before.
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

/// Writes a group to the log: high and critical as warnings.
fn print(notice: &Notice) {
    let group = &notice.group;
    let line = render::console_line(group);
    macro_rules! event {
        ($level:ident) => {
            tracing::$level!(
                severity = group.severity.as_str(),
                group = %group.id,
                alerts = group.count,
                transaction = %group.worst.transaction_id,
                "fraud alert: {line}"
            )
        };
    }
    if group.severity >= events::Severity::High {
        event!(warn);
    } else {
        event!(info);
    }
}
