//! librdkafka's clients: how they are configured, where their logs go, what their errors mean.

use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::config::KafkaConfig;
use crate::LogError;

/// A connection that failed is tried again after this at the least …
const RECONNECT_MIN_MS: &str = "50";
/// … and after this at the most: a broker that comes back is found soon.
const RECONNECT_MAX_MS: &str = "1000";

/// Forwards what librdkafka has to say to the log of the program.
#[derive(Debug, Clone, Default)]
pub(super) struct Logs;

impl ClientContext for Logs {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log_error(&error, reason);
    }
}

impl rdkafka::consumer::ConsumerContext for Logs {}

pub(super) fn log_line(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(target: "librdkafka", facility, "{message}");
        }
        // A broker that is away is an "error" of librdkafka's, once for each of its connections.
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => {
            tracing::warn!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
            tracing::debug!(target: "librdkafka", facility, "{message}");
        }
    }
}

pub(super) fn log_error(error: &KafkaError, reason: &str) {
    // An event that was asked for, not an error.
    if matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::PartitionEOF)) {
        return;
    }
    tracing::warn!(target: "librdkafka", %error, "{reason}");
}

/// What all clients have in common.
pub(super) fn base(config: &KafkaConfig) -> ClientConfig {
    let mut client = ClientConfig::new();
    client
        .set("bootstrap.servers", &config.brokers)
        .set("client.id", &config.client_id)
        .set("security.protocol", &config.security_protocol)
        .set("reconnect.backoff.ms", RECONNECT_MIN_MS)
        .set("reconnect.backoff.max.ms", RECONNECT_MAX_MS)
        .set("socket.nagle.disable", "true")
        .set("allow.auto.create.topics", "false")
        .set("log.connection.close", "false")
        .set_log_level(RDKafkaLogLevel::Info);
    if config.security_protocol.starts_with("sasl") {
        client
            .set("sasl.mechanisms", &config.sasl_mechanism)
            .set("sasl.username", &config.sasl_username)
            .set("sasl.password", &config.sasl_password);
    }
    if !config.ssl_ca.is_empty() {
        client.set("ssl.ca.location", &config.ssl_ca);
    }
    client
}

/// What all producers have in common: idempotent, and acknowledged by all in-sync replicas.
pub(super) fn producer(config: &KafkaConfig) -> ClientConfig {
    let mut client = base(config);
    client
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("compression.type", &config.compression)
        .set("message.max.bytes", message_max_bytes(config).to_string())
        // The queue's own bounds are kept before librdkafka is asked, so that all of a call goes in.
        .set("queue.buffering.max.messages", "0")
        .set("queue.buffering.max.kbytes", "2097151")
        .set("sticky.partitioning.linger.ms", "0");
    client
}

/// Room for a record's frame beside the record itself.
fn message_max_bytes(config: &KafkaConfig) -> usize {
    config.max_record_bytes + 1_024
}

/// What all consumers have in common.
pub(super) fn consumer(config: &KafkaConfig, group: &str) -> ClientConfig {
    let mut client = base(config);
    client
        .set("group.id", group)
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false");
    client
}

/// `what` failed: says what was being done, and why it failed.
pub(super) fn storage(what: &str) -> impl Fn(KafkaError) -> LogError + '_ {
    move |error| LogError::Storage(format!("{what}: {}", explain(&error)))
}

/// An error in words, with librdkafka's reason where it has one.
pub(super) fn explain(error: &KafkaError) -> String {
    match error {
        KafkaError::Transaction(error) => error.string(),
        error => error.to_string(),
    }
}

/// Between two tries of a blocking call, on a thread that may block; every caller has a deadline of its own.
#[allow(clippy::disallowed_methods)] // librdkafka says that something may be tried again, and never when
pub(super) fn pause(time: Duration) {
    std::thread::sleep(time);
}

/// Runs what blocks on a thread for blocking work, for at most `deadline`.
pub(super) async fn blocking<T: Send + 'static>(
    what: &str,
    deadline: Duration,
    work: impl FnOnce() -> Result<T, LogError> + Send + 'static,
) -> Result<T, LogError> {
    match tokio::time::timeout(deadline, tokio::task::spawn_blocking(work)).await {
        Ok(Ok(result)) => result,
        Ok(Err(error)) => Err(LogError::Storage(format!("{what}: its thread failed: {error}"))),
        Err(_) => {
            Err(LogError::Storage(format!("{what}: no answer from the broker for {} s", deadline.as_secs())))
        }
    }
}
