//! What can be set: the `[redis]` section.

use std::fmt;
use std::time::Duration;

use redis::IntoConnectionInfo as _;
use serde::Deserialize;

/// Redis, by which the replicas of the gateway share what they know. Defaults and their reasons are in
/// `config.default.toml`.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RedisConfig {
    /// `redis://[user][:password@]host[:port][/database]`; empty: there is one gateway, or each is on its own.
    pub url: String,
    /// What all keys begin with, so that systems can share one Redis.
    pub key_prefix: String,
    /// How long connecting may take.
    pub connect_timeout_ms: u64,
    /// How long a request waits for Redis before it goes on without.
    pub response_timeout_ms: u64,
    /// How long a batch of writes, which no request waits for, may take.
    pub write_timeout_ms: u64,
    /// After so many failures in a row Redis is left alone …
    pub failures_max: u32,
    /// … and tried again at this interval.
    pub retry_interval_ms: u64,
    /// Writes that may wait for Redis.
    pub write_queue_entries: usize,
    /// How much longer than the write to the log may take an idempotency key stays claimed by a replica that
    /// gives no sign of life.
    pub claim_margin_ms: u64,
    /// After Redis came up, how long other replicas may still go on without it: until then the log is asked, too.
    pub settling_ms: u64,
    /// How long Redis keeps what was accepted under an idempotency key.
    pub entry_retention_hours: u64,
    /// How long Redis keeps decisions, and what was accepted without a key.
    pub view_retention_minutes: u64,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            key_prefix: "paystream:".to_owned(),
            connect_timeout_ms: 100,
            response_timeout_ms: 30,
            write_timeout_ms: 1_000,
            failures_max: 5,
            retry_interval_ms: 500,
            write_queue_entries: 16_384,
            claim_margin_ms: 5_000,
            settling_ms: 5_000,
            entry_retention_hours: 24,
            view_retention_minutes: 60,
        }
    }
}

/// The address may hold a password.
impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("url", &if self.is_on() { "(set)" } else { "" })
            .field("key_prefix", &self.key_prefix)
            .field("connect_timeout_ms", &self.connect_timeout_ms)
            .field("response_timeout_ms", &self.response_timeout_ms)
            .field("write_timeout_ms", &self.write_timeout_ms)
            .field("failures_max", &self.failures_max)
            .field("retry_interval_ms", &self.retry_interval_ms)
            .field("write_queue_entries", &self.write_queue_entries)
            .field("claim_margin_ms", &self.claim_margin_ms)
            .field("settling_ms", &self.settling_ms)
            .field("entry_retention_hours", &self.entry_retention_hours)
            .field("view_retention_minutes", &self.view_retention_minutes)
            .finish()
    }
}

impl RedisConfig {
    /// Whether there is a Redis.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.url.is_empty()
    }

    /// Everything that is wrong with the settings: key within the section, and message.
    #[must_use]
    pub fn validate(&self) -> Vec<(String, String)> {
        let mut errors = Vec::new();
        if let Err(message) = check_url(&self.url) {
            errors.push(("url".to_owned(), message));
        }
        let printable = self.key_prefix.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'{' | b'}'));
        if self.key_prefix.len() > 64 || !printable {
            let message = "must be at most 64 printable ASCII characters, without blanks and braces";
            errors.push(("key_prefix".to_owned(), message.to_owned()));
        }
        for (key, value, min, max) in [
            ("connect_timeout_ms", self.connect_timeout_ms, 1, 10_000),
            ("response_timeout_ms", self.response_timeout_ms, 1, 1_000),
            ("write_timeout_ms", self.write_timeout_ms, 10, 60_000),
            ("failures_max", u64::from(self.failures_max), 1, 1_000),
            ("retry_interval_ms", self.retry_interval_ms, 10, 60_000),
            ("write_queue_entries", self.write_queue_entries as u64, 1, 1_000_000),
            ("claim_margin_ms", self.claim_margin_ms, 100, 120_000),
            ("settling_ms", self.settling_ms, 0, 120_000),
            ("entry_retention_hours", self.entry_retention_hours, 1, 24 * 31),
            ("view_retention_minutes", self.view_retention_minutes, 1, 60 * 24 * 31),
        ] {
            if !(min..=max).contains(&value) {
                errors.push((key.to_owned(), format!("{value} is not between {min} and {max}")));
            }
        }
        errors
    }

    pub(crate) fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    pub(crate) fn response_timeout(&self) -> Duration {
        Duration::from_millis(self.response_timeout_ms)
    }

    pub(crate) fn write_timeout(&self) -> Duration {
        Duration::from_millis(self.write_timeout_ms)
    }

    pub(crate) fn retry_interval(&self) -> Duration {
        Duration::from_millis(self.retry_interval_ms)
    }

    pub(crate) fn entry_ttl_ms(&self) -> u64 {
        self.entry_retention_hours * 3_600_000
    }

    pub(crate) fn view_ttl_ms(&self) -> u64 {
        self.view_retention_minutes * 60_000
    }
}

/// The message never quotes the address, which may hold a password.
fn check_url(url: &str) -> Result<(), String> {
    if url.is_empty() {
        return Ok(());
    }
    if ["rediss:", "valkeys:"].iter().any(|scheme| url.starts_with(scheme)) {
        return Err(
            "this build speaks no TLS to Redis: use redis://, over a private network or a TLS tunnel \
                    such as stunnel"
                .to_owned(),
        );
    }
    url.into_connection_info().map(drop).map_err(|_| {
        "must be empty, or an address such as redis://:password@redis.internal:6379/0".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_url(url: &str) -> RedisConfig {
        RedisConfig { url: url.to_owned(), ..RedisConfig::default() }
    }

    #[test]
    fn no_redis_is_the_default_and_valid() {
        assert!(!RedisConfig::default().is_on());
        assert_eq!(RedisConfig::default().validate(), []);
        assert_eq!(with_url("redis://:secret@127.0.0.1:6379/2").validate(), []);
    }

    #[test]
    fn errors_name_the_key_and_never_the_password() {
        for bad in ["rediss://:secret@redis:6379", "127.0.0.1:6379?secret", "http://secret@redis"] {
            let errors = with_url(bad).validate();
            assert_eq!(errors.len(), 1, "{bad}");
            assert_eq!(errors[0].0, "url");
            assert!(!errors[0].1.contains("secret"), "{errors:?}");
        }
        assert!(with_url("rediss://redis").validate()[0].1.contains("TLS"));
        let config =
            RedisConfig { key_prefix: "a b".to_owned(), response_timeout_ms: 0, ..RedisConfig::default() };
        let keys: Vec<String> = config.validate().into_iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["key_prefix", "response_timeout_ms"]);
    }

    #[test]
    fn the_address_is_not_printed() {
        assert!(!format!("{:?}", with_url("redis://:secret@redis")).contains("secret"));
    }
}
