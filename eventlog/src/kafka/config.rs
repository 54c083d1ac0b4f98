//! How the log on Kafka is reached, and its bounds.

use std::time::Duration;

use serde::Deserialize;

/// Settings of the log on Kafka: section `[kafka]` of the configuration.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KafkaConfig {
    /// Addresses to begin with, `host:port`, separated by commas. Empty: the log is the embedded one.
    pub brokers: String,
    /// What the broker's own logs and quotas call this program.
    pub client_id: String,
    /// Put before the name of every topic, group and writer, so that several systems share one Kafka.
    pub topic_prefix: String,
    /// `plaintext`, `ssl`, `sasl_plaintext` or `sasl_ssl`.
    pub security_protocol: String,
    /// `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512`.
    pub sasl_mechanism: String,
    /// The user, with SASL.
    pub sasl_username: String,
    /// The password, with SASL.
    pub sasl_password: String,
    /// A file of certificates that the broker's is checked against. Empty: the system's.
    pub ssl_ca: String,
    /// How long an append waits for room in the queue before it is refused, and after that for the broker
    /// before its fate counts as unknown.
    pub append_deadline_ms: u64,
    /// How many records may be on their way to the broker. Appends beyond it wait for room.
    pub append_queue_records: usize,
    /// How many bytes of records may be on their way to the broker.
    pub append_queue_bytes: usize,
    /// How long a record waits for others to share a request with.
    pub linger_ms: u64,
    /// `lz4`, `snappy` or `none`.
    pub compression: String,
    /// The largest record, and the largest request.
    pub max_record_bytes: usize,
    /// How long a writer's transaction may stay open before the broker aborts it. Readers stop in front of it
    /// for as long.
    pub transaction_timeout_ms: u64,
    /// Records of a partition that wait in memory for their reader.
    pub fetch_buffer_records: usize,
    /// Bytes of a partition that wait in memory for their reader.
    pub fetch_buffer_bytes: usize,
    /// How long the broker holds back an empty answer to a fetch; what arrives is sent at once.
    pub fetch_wait_ms: u64,
    /// A member that is silent for this long is taken for dead, and its parts go to others.
    pub session_timeout_ms: u64,
    /// A member whose work does not come round for this long is taken for dead. Half of it is what a member
    /// gets to finish with parts before they are taken.
    pub max_poll_interval_ms: u64,
    /// How long to wait for the broker's answer to anything else.
    pub request_deadline_ms: u64,
}

impl Default for KafkaConfig {
    fn default() -> Self {
        Self {
            brokers: String::new(),
            client_id: "paystream".to_owned(),
            topic_prefix: String::new(),
            security_protocol: "plaintext".to_owned(),
            sasl_mechanism: "PLAIN".to_owned(),
            sasl_username: String::new(),
            sasl_password: String::new(),
            ssl_ca: String::new(),
            append_deadline_ms: 10_000,
            append_queue_records: 65_536,
            append_queue_bytes: 64 * 1024 * 1024,
            linger_ms: 2,
            compression: "lz4".to_owned(),
            max_record_bytes: 1_000_000,
            transaction_timeout_ms: 15_000,
            fetch_buffer_records: 32_768,
            fetch_buffer_bytes: 16 * 1024 * 1024,
            fetch_wait_ms: 100,
            session_timeout_ms: 10_000,
            max_poll_interval_ms: 60_000,
            request_deadline_ms: 10_000,
        }
    }
}

/// The password is not shown.
impl std::fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let password = if self.sasl_password.is_empty() { "" } else { "(redacted)" };
        f.debug_struct("KafkaConfig")
            .field("brokers", &self.brokers)
            .field("client_id", &self.client_id)
            .field("topic_prefix", &self.topic_prefix)
            .field("security_protocol", &self.security_protocol)
            .field("sasl_mechanism", &self.sasl_mechanism)
            .field("sasl_username", &self.sasl_username)
            .field("sasl_password", &password)
            .field("ssl_ca", &self.ssl_ca)
            .field("append_deadline_ms", &self.append_deadline_ms)
            .field("append_queue_records", &self.append_queue_records)
            .field("append_queue_bytes", &self.append_queue_bytes)
            .field("linger_ms", &self.linger_ms)
            .field("compression", &self.compression)
            .field("max_record_bytes", &self.max_record_bytes)
            .field("transaction_timeout_ms", &self.transaction_timeout_ms)
            .field("fetch_buffer_records", &self.fetch_buffer_records)
            .field("fetch_buffer_bytes", &self.fetch_buffer_bytes)
            .field("fetch_wait_ms", &self.fetch_wait_ms)
            .field("session_timeout_ms", &self.session_timeout_ms)
            .field("max_poll_interval_ms", &self.max_poll_interval_ms)
            .field("request_deadline_ms", &self.request_deadline_ms)
            .finish()
    }
}

/// Whether this build has TLS.
const HAS_TLS: bool = cfg!(feature = "kafka-tls");
const NEEDS_TLS: &str = "needs a build with TLS: `cargo build --release --features kafka-tls`";
const PROTOCOLS: [&str; 4] = ["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"];
const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];
const COMPRESSIONS: [&str; 3] = ["lz4", "snappy", "none"];
/// Most characters of a Kafka topic's name are taken by ours.
const MAX_PREFIX_BYTES: usize = 128;
const MAX_QUEUE: u64 = 1 << 30;
/// The largest transaction with its decision, or a dead letter.
const MIN_RECORD: u64 = 512 * 1024;

impl KafkaConfig {
    /// Whether a Kafka is named at all.
    #[must_use]
    pub fn is_set(&self) -> bool {
        !self.brokers.is_empty()
    }

    /// Every setting that makes no sense, with its key relative to this section.
    #[must_use]
    pub fn validate(&self) -> Vec<(String, String)> {
        let mut errors = self.wrong_texts();
        errors.extend(self.wrong_numbers());
        errors
    }

    fn wrong_texts(&self) -> Vec<(String, String)> {
        let mut errors = Vec::new();
        let mut check = |ok: bool, key: &str, message: &str| {
            if !ok {
                errors.push((key.to_owned(), message.to_owned()));
            }
        };
        let address = |text: &str| {
            text.trim()
                .rsplit_once(':')
                .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        };
        check(
            self.brokers.is_empty() || self.brokers.split(',').all(address),
            "brokers",
            "must be empty, or host:port, several separated by commas",
        );
        check(!self.client_id.is_empty(), "client_id", "must not be empty");
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        check(
            self.topic_prefix.len() <= MAX_PREFIX_BYTES && self.topic_prefix.chars().all(legal),
            "topic_prefix",
            "must be at most 128 of a-z, A-Z, 0-9, dot, underscore and hyphen",
        );
        let protocol = self.security_protocol.as_str();
        check(
            PROTOCOLS.contains(&protocol),
            "security_protocol",
            "must be plaintext, ssl, sasl_plaintext or sasl_ssl",
        );
        check(HAS_TLS || !protocol.ends_with("ssl"), "security_protocol", NEEDS_TLS);
        let mechanism = self.sasl_mechanism.as_str();
        check(
            MECHANISMS.contains(&mechanism),
            "sasl_mechanism",
            "must be PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512",
        );
        let sasl = protocol.starts_with("sasl");
        check(HAS_TLS || !sasl || mechanism == "PLAIN", "sasl_mechanism", NEEDS_TLS);
        check(!sasl || !self.sasl_username.is_empty(), "sasl_username", "must be given with SASL");
        check(HAS_TLS || self.ssl_ca.is_empty(), "ssl_ca", NEEDS_TLS);
        check(
            COMPRESSIONS.contains(&self.compression.as_str()),
            "compression",
            "must be lz4, snappy or none",
        );
        errors
    }

    fn wrong_numbers(&self) -> Vec<(String, String)> {
        let between = |key: &str, value: u64, min: u64, max: u64| {
            (!(min..=max).contains(&value))
                .then(|| (key.to_owned(), format!("is {value}, must be between {min} and {max}")))
        };
        [
            between("append_deadline_ms", self.append_deadline_ms, 100, 300_000),
            between("append_queue_records", self.append_queue_records as u64, 1, 10_000_000),
            between("append_queue_bytes", self.append_queue_bytes as u64, 1_024, MAX_QUEUE),
            between("linger_ms", self.linger_ms, 0, 1_000),
            between("max_record_bytes", self.max_record_bytes as u64, MIN_RECORD, 100_000_000),
            between("transaction_timeout_ms", self.transaction_timeout_ms, 1_000, 900_000),
            between("fetch_buffer_records", self.fetch_buffer_records as u64, 16, 10_000_000),
            between("fetch_buffer_bytes", self.fetch_buffer_bytes as u64, 65_536, MAX_QUEUE),
            between("fetch_wait_ms", self.fetch_wait_ms, 1, 10_000),
            between("session_timeout_ms", self.session_timeout_ms, 1_000, 300_000),
            between("max_poll_interval_ms", self.max_poll_interval_ms, self.session_timeout_ms, 3_600_000),
            between("request_deadline_ms", self.request_deadline_ms, 1_000, 300_000),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// The name on the broker of a topic, a group or a writer.
    pub(super) fn full(&self, name: &str) -> String {
        format!("{}{name}", self.topic_prefix)
    }

    pub(super) fn append_deadline(&self) -> Duration {
        Duration::from_millis(self.append_deadline_ms)
    }

    pub(super) fn request_deadline(&self) -> Duration {
        Duration::from_millis(self.request_deadline_ms)
    }

    /// What a member gets to finish with parts that are to be another's.
    pub(super) fn let_go_deadline(&self) -> Duration {
        Duration::from_millis(self.max_poll_interval_ms / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(KafkaConfig::default().validate(), vec![]);
        assert!(!KafkaConfig::default().is_set());
    }

    #[test]
    fn every_wrong_setting_is_named_with_its_key() {
        let config = KafkaConfig {
            brokers: "localhost".to_owned(),
            client_id: String::new(),
            topic_prefix: "a b".to_owned(),
            security_protocol: "tls".to_owned(),
            sasl_mechanism: "GSSAPI".to_owned(),
            compression: "best".to_owned(),
            append_deadline_ms: 0,
            fetch_buffer_records: 0,
            session_timeout_ms: 0,
            ..KafkaConfig::default()
        };
        let keys: Vec<String> = config.validate().into_iter().map(|(key, _)| key).collect();
        assert_eq!(
            keys,
            [
                "brokers",
                "client_id",
                "topic_prefix",
                "security_protocol",
                "sasl_mechanism",
                "compression",
                "append_deadline_ms",
                "fetch_buffer_records",
                "session_timeout_ms",
            ]
        );
    }

    #[test]
    #[cfg(not(feature = "kafka-tls"))]
    fn what_needs_tls_says_how_to_get_it() {
        let config = KafkaConfig {
            security_protocol: "sasl_ssl".to_owned(),
            sasl_mechanism: "SCRAM-SHA-512".to_owned(),
            sasl_username: "paystream".to_owned(),
            ssl_ca: "ca.pem".to_owned(),
            ..KafkaConfig::default()
        };
        let errors = config.validate();
        let keys: Vec<&str> = errors.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["security_protocol", "sasl_mechanism", "ssl_ca"]);
        assert!(errors.iter().all(|(_, message)| message.contains("kafka-tls")));
    }

    #[test]
    fn the_password_is_not_shown() {
        let config = KafkaConfig { sasl_password: "hunter2".to_owned(), ..KafkaConfig::default() };
        assert!(!format!("{config:?}").contains("hunter2"));
    }
}
