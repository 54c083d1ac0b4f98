//! Sends and edits messages in one Telegram chat.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use serde::Deserialize;
use teloxide::payloads::{EditMessageTextSetters as _, SendMessageSetters as _};
use teloxide::requests::Requester as _;
use teloxide::types::{LinkPreviewOptions, Message, MessageId, ParseMode, Recipient};
use teloxide::{ApiError, Bot, RequestError};

use crate::config::TelegramConfig;
use crate::receiver::{Failure, Notice};
use crate::render;
use crate::story::Story;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How the Bot API begins the description of an error that repeating the call does not cure.
const REFUSALS: [&str; 5] = ["Bad Request", "Unauthorized", "Forbidden", "Not Found", "Conflict"];

/// One chat. Never print it: the bot's own `Debug` shows the token.
pub(crate) struct Telegram {
    bot: Bot,
    /// Changes when Telegram turns the group into a supergroup.
    chat: Mutex<Recipient>,
    public_url: String,
    timeout: Duration,
    retry_after_max: Duration,
}

impl Telegram {
    pub(crate) fn new(config: &TelegramConfig, public_url: &str) -> anyhow::Result<Self> {
        let timeout = Duration::from_millis(config.request_timeout_ms);
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(timeout)
            .build()
            .context("cannot set up the HTTP client for Telegram")?;
        let api_url = config.api_url.parse().context("alerter.telegram.api_url is not a URL")?;
        let chat = config.recipient().context("alerter.telegram.chat_id is not a chat")?;
        Ok(Self {
            bot: Bot::with_client(config.bot_token.expose(), client).set_api_url(api_url),
            chat: Mutex::new(chat),
            public_url: public_url.to_owned(),
            timeout,
            retry_after_max: Duration::from_millis(config.retry_after_max_ms),
        })
    }

    /// Sends the story as a new message or edits the one given; returns the message's id.
    pub(crate) async fn deliver(&self, notice: &Notice) -> Result<i64, Failure> {
        let html = match &notice.story {
            Story::Fraud(group) => render::telegram_html(group, &self.public_url),
            Story::Incident(incident) => render::incident::telegram_html(incident),
        };
        // teloxide waits ten seconds before it reads the answer of a failing server.
        let answer = tokio::time::timeout(self.timeout, self.call(html, notice.editable)).await;
        match answer {
            Ok(Ok(message)) => Ok(i64::from(message.id.0)),
            Ok(Err(error)) => self.understand(error, notice.editable),
            Err(_) => Err(Failure::Retry(format!("no answer within {} ms", self.timeout.as_millis()))),
        }
    }

    async fn call(&self, html: String, editable: Option<i64>) -> Result<Message, RequestError> {
        let chat = self.chat.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let no_preview = LinkPreviewOptions {
            is_disabled: true,
            url: None,
            prefer_small_media: false,
            prefer_large_media: false,
            show_above_text: false,
        };
        match editable.and_then(|id| i32::try_from(id).ok()) {
            Some(id) => {
                self.bot
                    .edit_message_text(chat, MessageId(id), html)
                    .parse_mode(ParseMode::Html)
                    .link_preview_options(no_preview)
                    .await
            }
            None => {
                self.bot
                    .send_message(chat, html)
                    .parse_mode(ParseMode::Html)
                    .link_preview_options(no_preview)
                    .await
            }
        }
    }

    fn understand(&self, error: RequestError, editable: Option<i64>) -> Result<i64, Failure> {
        match error {
            RequestError::RetryAfter(after) => Err(Failure::Wait(after.duration().min(self.retry_after_max))),
            RequestError::MigrateToChatId(id) => {
                tracing::warn!(
                    "the Telegram group has become a supergroup: set alerter.telegram.chat_id to {id}"
                );
                *self.chat.lock().unwrap_or_else(PoisonError::into_inner) = Recipient::Id(id);
                Err(Failure::Retry(format!("the group has moved to {id}")))
            }
            RequestError::Api(ApiError::MessageNotModified) => {
                editable.ok_or_else(|| Failure::Retry("a new message was called not modified".to_owned()))
            }
            RequestError::Api(
                ApiError::MessageToEditNotFound | ApiError::MessageIdInvalid | ApiError::MessageCantBeEdited,
            ) if editable.is_some() => Err(Failure::MessageGone),
            RequestError::Api(ApiError::Unknown(text)) if !REFUSALS.iter().any(|r| text.starts_with(r)) => {
                Err(Failure::Retry(text))
            }
            RequestError::Api(error) => Err(Failure::Refused(error.to_string())),
            // Accepted, with a message that teloxide cannot read: sending it again would never end.
            RequestError::InvalidJson { raw, .. } => {
                accepted(&raw).ok_or_else(|| Failure::Retry("the answer is not of the Bot API".to_owned()))
            }
            error @ (RequestError::Network(_) | RequestError::Io(_)) => {
                Err(Failure::Retry(error.to_string()))
            }
        }
    }
}

/// The message's id when the answer says that the call was carried out.
fn accepted(raw: &str) -> Option<i64> {
    #[derive(Deserialize)]
    struct Answer {
        ok: bool,
        result: Sent,
    }
    #[derive(Deserialize)]
    struct Sent {
        message_id: i64,
    }
    let answer: Answer = serde_json::from_str(raw).ok()?;
    answer.ok.then_some(answer.result.message_id)
}

#[cfg(test)]
mod tests {
    use teloxide::types::{ChatId, Seconds};

    use super::*;
    use crate::config::Secret;

    fn telegram() -> Telegram {
        let config = TelegramConfig {
            bot_token: Secret::from("1:x".to_owned()),
            chat_id: "-5".to_owned(),
            retry_after_max_ms: 60_000,
            ..crate::AlerterConfig::default().telegram
        };
        Telegram::new(&config, "").unwrap()
    }

    fn api(text: &str) -> RequestError {
        RequestError::Api(serde_json::from_value(serde_json::json!(text)).unwrap())
    }

    #[test]
    fn a_wait_that_telegram_asks_for_is_obeyed_up_to_a_cap() {
        for (asked_s, obeyed_s) in [(7, 7), (86_400, 60)] {
            let error = RequestError::RetryAfter(Seconds::from_seconds(asked_s));
            let wait = Duration::from_secs(obeyed_s);
            assert_eq!(telegram().understand(error, None), Err(Failure::Wait(wait)));
        }
    }

    #[test]
    fn errors_of_the_request_are_refusals_and_errors_of_the_server_are_retried() {
        for text in [
            "Unauthorized",
            "Not Found",
            "Bad Request: chat not found",
            "Bad Request: can't parse entities: x",
            "Bad Request: something new",
            "Forbidden: bot was blocked by the user",
        ] {
            assert!(matches!(telegram().understand(api(text), None), Err(Failure::Refused(_))), "{text}");
        }
        for text in ["Internal Server Error", "Bad Gateway", "Gateway Timeout"] {
            assert!(matches!(telegram().understand(api(text), None), Err(Failure::Retry(_))), "{text}");
        }
    }

    #[test]
    fn an_edit_that_changes_nothing_has_succeeded_and_an_edit_of_nothing_asks_for_a_new_message() {
        let unchanged = "Bad Request: message is not modified: specified new message content and reply markup \
                         are exactly the same as a current content and reply markup of the message";
        assert_eq!(telegram().understand(api(unchanged), Some(9)), Ok(9));
        let gone = api("Bad Request: message to edit not found");
        assert_eq!(telegram().understand(gone, Some(9)), Err(Failure::MessageGone));
    }

    #[test]
    fn an_accepted_message_that_cannot_be_read_counts_as_sent() {
        assert_eq!(accepted(r#"{"ok":true,"result":{"message_id":12,"chat":"of a new kind"}}"#), Some(12));
        assert_eq!(accepted(r#"{"ok":false,"result":{"message_id":12}}"#), None);
        assert_eq!(accepted("<html>502</html>"), None);
    }

    #[test]
    fn a_group_that_became_a_supergroup_is_followed() {
        let telegram = telegram();
        let moved = RequestError::MigrateToChatId(ChatId(-1_007));
        assert!(matches!(telegram.understand(moved, None), Err(Failure::Retry(_))));
        assert_eq!(*telegram.chat.lock().unwrap(), Recipient::Id(ChatId(-1_007)));
    }
}
