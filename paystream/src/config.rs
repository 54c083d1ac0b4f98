//! The whole configuration: one section per stage.

use std::path::{Path, PathBuf};

use alerter::AlerterConfig;
use analytics::{ClickHouseConfig, WarehouseConfig};
use eventlog::{EmbeddedLogConfig, KafkaConfig};
use fraud_analyzer::AnalyzerConfig;
use gateway::{GatewayConfig, RedisConfig};
use runtime::config::{ConfigError, ConfigErrors, Loaded, Schema};
use runtime::http::HttpLimits;
use runtime::telemetry::TelemetryConfig;
use serde::Deserialize;

use crate::exit::{Failure, OrUsage as _};
use crate::ruleset::ScoringConfig;

/// The commented defaults: what there is to set.
pub(crate) const DEFAULTS: &str = include_str!("../config.default.toml");
/// Read when there is one and none is named.
const DEFAULT_FILE: &str = "paystream.toml";
const SCHEMA: Schema<'static> =
    Schema { defaults: DEFAULTS, free_form: &["gateway.reporting_rates", "gateway.merchant_fail_modes"] };
/// Never printed.
pub(crate) const SECRETS: [&str; 5] = [
    "kafka.sasl_password",
    "alerter.telegram.bot_token",
    "alerter.alertmanager.token",
    "redis.url",
    "clickhouse.password",
];

/// The configuration of the whole process.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) server: ServerConfig,
    pub(crate) log: EmbeddedLogConfig,
    pub(crate) kafka: KafkaConfig,
    pub(crate) gateway: GatewayConfig,
    pub(crate) redis: RedisConfig,
    pub(crate) scoring: ScoringConfig,
    pub(crate) analyzer: AnalyzerConfig,
    pub(crate) warehouse: WarehouseConfig,
    pub(crate) clickhouse: ClickHouseConfig,
    pub(crate) alerter: AlerterConfig,
    pub(crate) demo: DemoConfig,
    pub(crate) telemetry: TelemetryConfig,
}

/// Where and how requests are served.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServerConfig {
    pub(crate) listen: String,
    pub(crate) data_dir: PathBuf,
    pub(crate) admin_listen: String,
    pub(crate) max_connections: usize,
    pub(crate) header_read_timeout_ms: u64,
    pub(crate) body_read_timeout_ms: u64,
    pub(crate) write_stall_timeout_ms: u64,
    pub(crate) drain_timeout_ms: u64,
    pub(crate) shutdown_deadline_ms: u64,
    pub(crate) worker_threads: usize,
}

/// Made-up traffic.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DemoConfig {
    pub(crate) enabled: bool,
    pub(crate) rate_per_s: f64,
}

impl ServerConfig {
    /// What the listener allows its clients.
    pub(crate) fn limits(&self) -> HttpLimits {
        let ms = std::time::Duration::from_millis;
        HttpLimits {
            header_read_timeout: ms(self.header_read_timeout_ms),
            body_read_timeout: ms(self.body_read_timeout_ms),
            write_stall_timeout: ms(self.write_stall_timeout_ms),
            max_connections: self.max_connections,
            drain_timeout: ms(self.drain_timeout_ms),
        }
    }

    fn validate(&self) -> Vec<(String, String)> {
        let mut errors = Vec::new();
        let mut check = |ok: bool, key: &str, message: &str| {
            if !ok {
                errors.push((key.to_owned(), message.to_owned()));
            }
        };
        let address = "must be an address and a port, for example 127.0.0.1:8080";
        check(looks_like_address(&self.listen), "listen", address);
        check(
            self.admin_listen.is_empty() || looks_like_address(&self.admin_listen),
            "admin_listen",
            "must be empty, or an address and a port, for example 127.0.0.1:9090",
        );
        check(!self.data_dir.as_os_str().is_empty(), "data_dir", "must name a directory");
        check((1..=1_000_000).contains(&self.max_connections), "max_connections", "must be 1 to 1000000");
        for (key, value) in [
            ("header_read_timeout_ms", self.header_read_timeout_ms),
            ("body_read_timeout_ms", self.body_read_timeout_ms),
            ("write_stall_timeout_ms", self.write_stall_timeout_ms),
            ("drain_timeout_ms", self.drain_timeout_ms),
            ("shutdown_deadline_ms", self.shutdown_deadline_ms),
        ] {
            check((1..=3_600_000).contains(&value), key, "must be 1 to 3600000 (one hour)");
        }
        check(
            self.drain_timeout_ms < self.shutdown_deadline_ms,
            "drain_timeout_ms",
            "must be below server.shutdown_deadline_ms, which the stages after it share",
        );
        check(self.worker_threads <= 1_024, "worker_threads", "must be 0 (one per processor) to 1024");
        errors
    }
}

impl DemoConfig {
    fn validate(&self) -> Vec<(String, String)> {
        if (0.001..=10_000.0).contains(&self.rate_per_s) {
            return Vec::new();
        }
        vec![("rate_per_s".to_owned(), "must be 0.001 to 10000".to_owned())]
    }
}

/// Only the form: a name is resolved when it is bound to.
fn looks_like_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let bare_ipv6 = host.contains(':') && !host.starts_with('[');
        !host.is_empty() && !bare_ipv6 && port.parse::<u16>().is_ok()
    })
}

impl Config {
    /// Everything wrong with the values, with dotted keys.
    fn validate(&self) -> Vec<(String, String)> {
        [
            ("server", self.server.validate()),
            ("log", self.log.validate()),
            ("kafka", self.kafka.validate()),
            ("gateway", self.gateway.validate()),
            ("redis", self.redis.validate()),
            ("scoring", self.scoring.validate()),
            ("analyzer", self.analyzer.validate()),
            ("warehouse", self.warehouse.validate()),
            ("clickhouse", self.clickhouse.validate()),
            ("alerter", self.alerter.validate()),
            ("demo", self.demo.validate()),
            ("telemetry", self.telemetry.validate()),
        ]
        .into_iter()
        .flat_map(|(section, errors)| {
            errors.into_iter().map(move |(key, message)| (format!("{section}.{key}"), message))
        })
        .collect()
    }
}

/// The configuration from its file, if any, and the environment; checked.
pub(crate) fn load(file: Option<&Path>) -> Result<Loaded<Config>, Failure> {
    let implied = Path::new(DEFAULT_FILE);
    let file = file.or_else(|| implied.is_file().then_some(implied));
    load_from(file, runtime::config::environment()).or_usage()
}

fn load_from(
    file: Option<&Path>,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded<Config>, ConfigErrors> {
    let loaded: Loaded<Config> = runtime::config::load(&SCHEMA, file, env)?;
    let errors: Vec<ConfigError> = loaded
        .value
        .validate()
        .into_iter()
        .map(|(key, message)| ConfigError { source: loaded.source_of(&key), key, message })
        .collect();
    if errors.is_empty() { Ok(loaded) } else { Err(ConfigErrors(errors)) }
}

/// What holds where nothing is set.
#[cfg(test)]
pub(crate) fn defaults() -> Config {
    load_from(None, []).expect("the defaults are valid").value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: &str) -> Result<Loaded<Config>, ConfigErrors> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("paystream.toml");
        std::fs::write(&path, file).unwrap();
        load_from(Some(&path), [])
    }

    #[test]
    fn the_file_of_defaults_says_what_each_crate_defaults_to() {
        let config = load("").unwrap().value;
        let same = |section: &str, ours: String, theirs: String| assert_eq!(ours, theirs, "[{section}]");
        same("log", format!("{:?}", config.log), format!("{:?}", EmbeddedLogConfig::default()));
        same("kafka", format!("{:?}", config.kafka), format!("{:?}", KafkaConfig::default()));
        same("gateway", format!("{:?}", config.gateway), format!("{:?}", GatewayConfig::default()));
        same("redis", format!("{:?}", config.redis), format!("{:?}", RedisConfig::default()));
        same("analyzer", format!("{:?}", config.analyzer), format!("{:?}", AnalyzerConfig::default()));
        same("warehouse", format!("{:?}", config.warehouse), format!("{:?}", WarehouseConfig::default()));
        same("clickhouse", format!("{:?}", config.clickhouse), format!("{:?}", ClickHouseConfig::default()));
        same("alerter", format!("{:?}", config.alerter), format!("{:?}", AlerterConfig::default()));
        same("telemetry", format!("{:?}", config.telemetry), format!("{:?}", TelemetryConfig::default()));
    }

    #[test]
    fn wrong_values_of_all_sections_are_listed_at_once() {
        let ConfigErrors(errors) = load(
            "[server]\nlisten = \"8080\"\nmax_connections = 0\n[log]\npartitions = 0\n[gateway]\n\
             in_flight_max_requests = 0\n[demo]\nrate_per_s = -1.0\n[telemetry]\nlevel = \"loud=very\"\n",
        )
        .unwrap_err();
        let keys: Vec<&str> = errors.iter().map(|error| error.key.as_str()).collect();
        assert_eq!(
            keys,
            [
                "server.listen",
                "server.max_connections",
                "log.partitions",
                "gateway.in_flight_max_requests",
                "demo.rate_per_s",
                "telemetry.level"
            ]
        );
        assert!(errors.iter().all(|error| error.source != runtime::config::Source::Default));
    }

    #[test]
    fn secrets_are_not_printed() {
        let token = "123456789:AAF7-g0gYncWnm5IyfZlpPRqRRv6kNAGlao";
        let file = format!(
            "[alerter.telegram]\nbot_token = \"{token}\"\nchat_id = \"-100\"\n\
             [redis]\nurl = \"redis://:hunter2@redis:6379\"\n"
        );
        let printed = toml::to_string(&load(&file).unwrap().redacted(&SECRETS)).unwrap();
        assert!(!printed.contains("AAF7") && printed.contains("(redacted)"), "{printed}");
        assert!(!printed.contains("hunter2"), "{printed}");
    }

    #[test]
    fn the_password_for_kafka_is_not_printed() {
        let file = "[kafka]\nsasl_password = \"hunter2\"\n";
        let printed = toml::to_string(&load(file).unwrap().redacted(&SECRETS)).unwrap();
        assert!(!printed.contains("hunter2") && printed.contains("(redacted)"), "{printed}");
    }

    #[test]
    fn addresses_need_a_host_and_a_port() {
        for good in ["127.0.0.1:8080", "[::1]:0", "localhost:80", "0.0.0.0:65535"] {
            assert!(looks_like_address(good), "{good}");
        }
        for bad in ["8080", ":8080", "127.0.0.1", "127.0.0.1:99999", "::1:80", ""] {
            assert!(!looks_like_address(bad), "{bad}");
        }
    }
}
