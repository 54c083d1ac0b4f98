//! What can be set: the `[gateway]` section.

use std::collections::BTreeMap;
use std::path::PathBuf;

use events::{Currency, MerchantId, Outcome};
use serde::Deserialize;

use crate::client_ip::Network;
use crate::replicas::config::RedisConfig;
use crate::reporting::Rate;

/// The longest time a merchant may ask the gateway to wait, in milliseconds: a larger `deadline_ms` is
/// an error, one between this and the configured maximum is cut to the maximum.
pub(crate) const REQUEST_DEADLINE_MAX_MS: u64 = 60_000;

/// What a merchant is told while the real decision is not there yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailMode {
    /// Let it through.
    Approve,
    /// Let it through, and have a person look at it.
    Review,
    /// Refuse it.
    Decline,
}

impl From<FailMode> for Outcome {
    fn from(mode: FailMode) -> Self {
        match mode {
            FailMode::Approve => Self::Approve,
            FailMode::Review => Self::Review,
            FailMode::Decline => Self::Decline,
        }
    }
}

/// The gateway's settings. Defaults and their reasons are in `config.default.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayConfig {
    /// How long a request without `deadline_ms` waits for its decision.
    pub decision_deadline_default_ms: u64,
    /// The longest any request waits for its decision.
    pub decision_deadline_max_ms: u64,
    /// How long a request waits for the log to acknowledge its write before it is answered 503.
    pub append_deadline_ms: u64,
    /// How long a request's body may take to arrive.
    pub body_deadline_ms: u64,
    /// After a stop, how long requests under way may take to be decided.
    pub drain_deadline_ms: u64,
    /// Requests served at once; more are answered 503 with `Retry-After`.
    pub in_flight_max_requests: usize,
    /// How long an accepted transaction can be asked for, and its idempotency key is remembered.
    pub ledger_retention_hours: u64,
    /// What is answered when the decision is late.
    pub fail_mode: FailMode,
    /// The same for single merchants.
    pub merchant_fail_modes: BTreeMap<String, FailMode>,
    /// Requests an API key may make per second, on average.
    pub key_rate_per_second: u32,
    /// Requests an API key may make at once.
    pub key_burst_requests: u32,
    /// Requests an address (IPv6: a /64) may make per second, on average.
    pub ip_rate_per_second: u32,
    /// Requests an address may make at once.
    pub ip_burst_requests: u32,
    /// Networks of proxies whose `X-Forwarded-For` is believed, for example `10.0.0.0/8`.
    pub trusted_proxies: Vec<String>,
    /// The currency that amounts are converted to for reports.
    pub reporting_currency: String,
    /// Units of the reporting currency per unit of a currency, as decimal text.
    pub reporting_rates: BTreeMap<String, String>,
    /// The file of API keys; empty: the data directory's.
    pub api_keys_file: PathBuf,
    /// The file of the secrets that card tokens are made with; empty: the data directory's.
    pub token_keys_file: PathBuf,
    /// The section `[redis]`, which the wiring puts here.
    #[serde(skip)]
    pub redis: RedisConfig,
    /// Other gateways may write to the same log. Not a setting: the wiring knows what the log is.
    #[serde(skip)]
    pub other_gateways: bool,
    /// A request without a key belongs to the test merchant. Not a setting: the wiring sets it, and
    /// only when the server is bound to a loopback address.
    #[serde(skip)]
    pub allow_anonymous_test_merchant: bool,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            decision_deadline_default_ms: 2_000,
            decision_deadline_max_ms: 10_000,
            append_deadline_ms: 10_000,
            body_deadline_ms: 10_000,
            drain_deadline_ms: 5_000,
            in_flight_max_requests: 4_096,
            ledger_retention_hours: 168,
            fail_mode: FailMode::Review,
            merchant_fail_modes: BTreeMap::new(),
            key_rate_per_second: 10_000,
            key_burst_requests: 20_000,
            ip_rate_per_second: 10_000,
            ip_burst_requests: 20_000,
            trusted_proxies: Vec::new(),
            reporting_currency: "USD".to_owned(),
            reporting_rates: BTreeMap::new(),
            api_keys_file: PathBuf::new(),
            token_keys_file: PathBuf::new(),
            redis: RedisConfig::default(),
            other_gateways: false,
            allow_anonymous_test_merchant: false,
        }
    }
}

impl GatewayConfig {
    /// Everything that is wrong with the settings: key within the section, and message.
    #[must_use]
    pub fn validate(&self) -> Vec<(String, String)> {
        let mut errors = Vec::new();
        self.validate_numbers(&mut errors);
        for merchant in self.merchant_fail_modes.keys() {
            if let Err(e) = merchant.parse::<MerchantId>() {
                errors.push((format!("merchant_fail_modes.{merchant}"), e.to_string()));
            }
        }
        for (i, network) in self.trusted_proxies.iter().enumerate() {
            if let Err(e) = network.parse::<Network>() {
                errors.push((format!("trusted_proxies.{i}"), e.to_string()));
            }
        }
        if let Err(e) = self.reporting_currency.parse::<Currency>() {
            errors.push(("reporting_currency".to_owned(), e.to_string()));
        }
        for (code, rate) in &self.reporting_rates {
            let key = format!("reporting_rates.{code}");
            if let Err(e) = code.parse::<Currency>() {
                errors.push((key.clone(), e.to_string()));
            }
            if let Err(e) = rate.parse::<Rate>() {
                errors.push((key, e.to_string()));
            }
        }
        errors
    }

    fn validate_numbers(&self, errors: &mut Vec<(String, String)>) {
        let mut within = |key: &str, value: u64, min: u64, max: u64| {
            if !(min..=max).contains(&value) {
                errors.push((key.to_owned(), format!("{value} is not between {min} and {max}")));
            }
        };
        within("decision_deadline_max_ms", self.decision_deadline_max_ms, 1, REQUEST_DEADLINE_MAX_MS);
        within(
            "decision_deadline_default_ms",
            self.decision_deadline_default_ms,
            1,
            self.decision_deadline_max_ms,
        );
        within("append_deadline_ms", self.append_deadline_ms, 100, 120_000);
        within("body_deadline_ms", self.body_deadline_ms, 100, 120_000);
        within("drain_deadline_ms", self.drain_deadline_ms, 0, 120_000);
        within("in_flight_max_requests", self.in_flight_max_requests as u64, 1, 1_000_000);
        // Merchants are promised that an idempotency key is remembered for a day.
        within("ledger_retention_hours", self.ledger_retention_hours, 24, 24 * 366);
        for (key, value) in [
            ("key_rate_per_second", self.key_rate_per_second),
            ("key_burst_requests", self.key_burst_requests),
            ("ip_rate_per_second", self.ip_rate_per_second),
            ("ip_burst_requests", self.ip_burst_requests),
        ] {
            within(key, u64::from(value), 1, 10_000_000);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(GatewayConfig::default().validate(), []);
    }

    #[test]
    fn every_error_is_listed_with_its_key() {
        let config = GatewayConfig {
            in_flight_max_requests: 0,
            ledger_retention_hours: 1,
            trusted_proxies: vec!["10.0.0.0/8".to_owned(), "10.0.0.0/33".to_owned()],
            reporting_currency: "XXX".to_owned(),
            reporting_rates: BTreeMap::from([("EUR".to_owned(), "1,08".to_owned())]),
            merchant_fail_modes: BTreeMap::from([("No Such".to_owned(), FailMode::Approve)]),
            ..GatewayConfig::default()
        };
        let keys: Vec<String> = config.validate().into_iter().map(|(key, _)| key).collect();
        assert_eq!(
            keys,
            [
                "in_flight_max_requests",
                "ledger_retention_hours",
                "merchant_fail_modes.No Such",
                "trusted_proxies.1",
                "reporting_currency",
                "reporting_rates.EUR"
            ]
        );
    }
}
