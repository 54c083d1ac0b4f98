//! What can be set, and what is wrong with what was set.

use std::fmt;

use serde::{Deserialize, Serialize};
use teloxide::types::{ChatId, Recipient};

/// Longest window in which alerts share a message: a day. Beyond it an edit reaches nobody.
const GROUP_WINDOW_MAX_MS: u64 = 86_400_000;
/// Shortest retention of records: an hour. Deduplication and grouping need the recent past.
const RETENTION_MIN_MS: u64 = 3_600_000;

/// The shortest token that is worth being asked for.
const TOKEN_MIN: usize = 16;

/// A value that no log may show: `Debug` prints stars.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// The value itself, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether nothing was set.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Secret {
    fn from(value: String) -> Self {
        Self(value)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "\"\"" } else { "***" })
    }
}

/// The alerter's section of the configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlerterConfig {
    /// Where people reach the page, for links in messages, without a trailing slash. Empty: no links.
    pub public_url: String,
    /// The YAML file that says who is told what. Empty: the built-in `routes.default.yaml`.
    pub routes_file: String,
    /// How long, from its first alert on, a message takes in further alerts of its card or rule.
    pub group_window_ms: u64,
    /// How many messages about single cards one rule may cause within a window before the cards that
    /// follow share one message about the rule.
    pub burst_groups: u32,
    /// The shortest time between two updates of one message.
    pub update_interval_ms: u64,
    /// How long alerts and their delivery state are kept. What is still to be delivered is kept longer.
    pub retention_ms: u64,
    /// How long stopping may take: recording what is readable and one last attempt per message.
    pub drain_deadline_ms: u64,
    /// Telegram.
    pub telegram: TelegramConfig,
    /// What all webhook receivers have in common.
    pub webhook: WebhookConfig,
    /// Waiting between attempts.
    pub retry: RetryConfig,
    /// What Alertmanager says.
    pub alertmanager: AlertmanagerConfig,
}

/// Telegram: off while the token is empty.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TelegramConfig {
    /// The token that @BotFather gave. Empty: Telegram is off.
    pub bot_token: Secret,
    /// A chat's number (groups are negative) or a channel's `@name`.
    pub chat_id: String,
    /// The Bot API server.
    pub api_url: String,
    /// How long one call may take. Below 10,000 a server error is seen as a missing answer.
    pub request_timeout_ms: u64,
    /// The shortest time between two calls: Telegram allows one per second and chat.
    pub min_interval_ms: u64,
    /// How many calls a minute: Telegram allows 20 per group.
    pub messages_per_minute: u32,
    /// The longest wait obeyed when Telegram answers 429 with a `retry_after`.
    pub retry_after_max_ms: u64,
}

/// What all webhook receivers have in common.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// How long one request may take.
    pub request_timeout_ms: u64,
    /// The longest wait obeyed when a receiver answers 429 or 503 with a `Retry-After`.
    pub retry_after_max_ms: u64,
}

/// Alerts of the system itself, which Prometheus' Alertmanager sends.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertmanagerConfig {
    /// What it has to send as a bearer token. Empty: it is heard on loopback only.
    pub token: Secret,
}

/// Waiting between attempts: doubled from the shortest to the longest, with jitter.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetryConfig {
    /// Before the second attempt.
    pub min_delay_ms: u64,
    /// At most, before any attempt.
    pub max_delay_ms: u64,
}

impl Default for AlerterConfig {
    fn default() -> Self {
        Self {
            public_url: String::new(),
            routes_file: String::new(),
            group_window_ms: 300_000,
            burst_groups: 3,
            update_interval_ms: 5_000,
            retention_ms: 2_592_000_000,
            drain_deadline_ms: 5_000,
            telegram: TelegramConfig {
                bot_token: Secret::default(),
                chat_id: String::new(),
                api_url: "https://api.telegram.org".to_owned(),
                request_timeout_ms: 15_000,
                min_interval_ms: 1_000,
                messages_per_minute: 20,
                retry_after_max_ms: 300_000,
            },
            webhook: WebhookConfig { request_timeout_ms: 10_000, retry_after_max_ms: 300_000 },
            retry: RetryConfig { min_delay_ms: 1_000, max_delay_ms: 60_000 },
            alertmanager: AlertmanagerConfig::default(),
        }
    }
}

impl AlerterConfig {
    /// Every semantic error: the key within this section, and what is wrong with it.
    #[must_use]
    pub fn validate(&self) -> Vec<(String, String)> {
        let mut errors = Errors::default();
        errors.url_or_empty("public_url", &self.public_url);
        errors.between("group_window_ms", self.group_window_ms, 1_000, GROUP_WINDOW_MAX_MS);
        errors.between("burst_groups", self.burst_groups.into(), 1, 1_000);
        errors.between("update_interval_ms", self.update_interval_ms, 1, self.group_window_ms.max(1));
        errors.between("retention_ms", self.retention_ms, RETENTION_MIN_MS, u64::MAX);
        if self.retention_ms <= self.group_window_ms {
            errors.add("retention_ms", "must be above `group_window_ms`");
        }
        errors.between("drain_deadline_ms", self.drain_deadline_ms, 1, 60_000);
        errors.between("webhook.request_timeout_ms", self.webhook.request_timeout_ms, 1, 120_000);
        errors.between("webhook.retry_after_max_ms", self.webhook.retry_after_max_ms, 1, 86_400_000);
        errors.between("retry.min_delay_ms", self.retry.min_delay_ms, 1, 60_000);
        errors.between("retry.max_delay_ms", self.retry.max_delay_ms, 1, 3_600_000);
        if self.retry.max_delay_ms < self.retry.min_delay_ms {
            errors.add("retry.max_delay_ms", "must not be below `retry.min_delay_ms`");
        }
        let token = self.alertmanager.token.expose();
        let sendable = token.bytes().all(|b| b.is_ascii_graphic());
        if !token.is_empty() && (token.len() < TOKEN_MIN || !sendable) {
            errors.add("alertmanager.token", "must be at least 16 letters, digits and signs, without blanks");
        }
        self.telegram.validate(&mut errors);
        errors.0
    }
}

impl TelegramConfig {
    /// Whether alerts go to Telegram.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        !self.bot_token.is_empty()
    }

    /// Who gets the messages; `None` when `chat_id` is neither a number nor a channel's name.
    #[must_use]
    pub(crate) fn recipient(&self) -> Option<Recipient> {
        match self.chat_id.trim() {
            name if name.starts_with('@') && name.len() > 1 => {
                Some(Recipient::ChannelUsername(name.to_owned()))
            }
            number => number.parse().ok().filter(|&id| id != 0).map(|id| Recipient::Id(ChatId(id))),
        }
    }

    fn validate(&self, errors: &mut Errors) {
        if self.is_on() {
            if !looks_like_a_token(self.bot_token.expose()) {
                errors.add("telegram.bot_token", "is not a bot token: digits, `:` and at least 30 letters");
            }
            if self.recipient().is_none() {
                errors.add("telegram.chat_id", "must be a chat's number or a channel's `@name`");
            }
        } else if !self.chat_id.is_empty() {
            errors.add("telegram.bot_token", "is empty although `telegram.chat_id` is set");
        }
        match reqwest::Url::parse(&self.api_url) {
            Ok(url) if matches!(url.scheme(), "http" | "https") => {}
            _ => errors.add("telegram.api_url", "must be an http:// or https:// URL"),
        }
        errors.between("telegram.request_timeout_ms", self.request_timeout_ms, 1, 120_000);
        errors.between("telegram.min_interval_ms", self.min_interval_ms, 0, 60_000);
        errors.between("telegram.messages_per_minute", self.messages_per_minute.into(), 1, 1_800);
        errors.between("telegram.retry_after_max_ms", self.retry_after_max_ms, 1, 86_400_000);
    }
}

/// `123456:` and a long secret; anything else would end up as a path nobody meant to call.
fn looks_like_a_token(text: &str) -> bool {
    text.split_once(':').is_some_and(|(id, secret)| {
        !id.is_empty()
            && id.bytes().all(|b| b.is_ascii_digit())
            && secret.len() >= 30
            && secret.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    })
}

#[derive(Default)]
struct Errors(Vec<(String, String)>);

impl Errors {
    fn add(&mut self, key: &str, message: &str) {
        self.0.push((key.to_owned(), message.to_owned()));
    }

    fn between(&mut self, key: &str, value: u64, low: u64, high: u64) {
        if value < low || value > high {
            let bounds = if high == u64::MAX {
                format!("must be at least {low}, not {value}")
            } else {
                format!("must be between {low} and {high}, not {value}")
            };
            self.add(key, &bounds);
        }
    }

    fn url_or_empty(&mut self, key: &str, text: &str) {
        let fits = text.is_empty()
            || reqwest::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https"));
        if !fits {
            self.add(key, "must be empty or an http:// or https:// URL");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "123456789:AAF7-g0gYncWnm5IyfZlpPRqRRv6kNAGlao";

    fn keys(config: &AlerterConfig) -> Vec<String> {
        config.validate().into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(AlerterConfig::default().validate(), vec![]);
    }

    #[test]
    fn all_errors_are_listed_at_once_each_with_its_key() {
        let mut config = AlerterConfig { public_url: "ftp://x".into(), ..AlerterConfig::default() };
        config.burst_groups = 0;
        config.retry.max_delay_ms = 10;
        config.telegram.bot_token = Secret::from("nonsense".to_owned());
        config.telegram.api_url = "not a url".into();
        config.alertmanager.token = Secret::from("short".to_owned());
        assert_eq!(
            keys(&config),
            [
                "public_url",
                "burst_groups",
                "retry.max_delay_ms",
                "alertmanager.token",
                "telegram.bot_token",
                "telegram.chat_id",
                "telegram.api_url"
            ]
        );
    }

    #[test]
    fn a_chat_is_a_number_or_a_channel_name() {
        let mut config = AlerterConfig::default();
        config.telegram.bot_token = Secret::from(TOKEN.to_owned());
        for (chat, valid) in
            [("-1001234567890", true), ("@oncall", true), ("0", false), ("", false), ("x", false)]
        {
            config.telegram.chat_id = chat.to_owned();
            assert_eq!(config.telegram.recipient().is_some(), valid, "{chat}");
            assert_eq!(config.validate().is_empty(), valid, "{chat}");
        }
    }

    #[test]
    fn debug_output_hides_the_token() {
        let mut config = AlerterConfig::default();
        config.telegram.bot_token = Secret::from(TOKEN.to_owned());
        let shown = format!("{config:?}");
        assert!(!shown.contains("AAF7"), "{shown}");
        assert!(shown.contains("***"), "{shown}");
    }
}
