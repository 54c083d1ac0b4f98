//! The servers that a configuration names, as far as the operators' tools reach them.

use crate::config::Config;

/// Where the servers are. Empty: the system does without.
#[derive(Debug, Clone)]
pub(crate) struct Servers {
    /// `host:port`, separated by commas.
    pub(crate) kafka_brokers: String,
    pub(crate) clickhouse: ClickHouse,
    /// `redis://[user][:password@]host[:port][/database]`.
    pub(crate) redis_url: String,
    /// OTLP over HTTP.
    pub(crate) otlp_endpoint: String,
}

/// A ClickHouse server's HTTP interface.
#[derive(Debug, Clone)]
pub(crate) struct ClickHouse {
    pub(crate) url: String,
    pub(crate) user: String,
    pub(crate) password: String,
    pub(crate) database: String,
    /// How many migrations this version of the tables has.
    pub(crate) migrations: usize,
}

impl Servers {
    pub(crate) fn of(config: &Config) -> Self {
        let clickhouse = &config.clickhouse;
        Self {
            kafka_brokers: config.kafka.brokers.clone(),
            clickhouse: ClickHouse {
                url: clickhouse.url.clone(),
                user: clickhouse.user.clone(),
                password: clickhouse.password.clone(),
                database: clickhouse.database.clone(),
                migrations: analytics::clickhouse::migrate::migrations().len(),
            },
            redis_url: config.redis.url.clone(),
            otlp_endpoint: config.telemetry.otlp_endpoint.clone(),
        }
    }
}
