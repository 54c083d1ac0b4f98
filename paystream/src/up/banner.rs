//! What `up` says once it is up.

use std::fmt;

use crate::config::Config;
use crate::data_dir::DataDir;
use crate::host::Urls;

/// Years from now until the card of the example expires.
const EXPIRY_YEARS: i64 = 4;
const SECONDS_PER_YEAR: i64 = 31_556_952;

pub(super) struct Banner<'a> {
    pub(super) config: &'a Config,
    pub(super) dir: &'a DataDir,
    pub(super) urls: &'a Urls,
    pub(super) ruleset: &'a str,
    pub(super) first_key: Option<String>,
}

impl fmt::Display for Banner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Urls { api, metrics } = self.urls;
        writeln!(f, "paystream {} is up.\n", env!("CARGO_PKG_VERSION"))?;
        let mut line = |name: &str, text: &str| writeln!(f, "  {name:<9} {text}");
        line("stages", "gateway, event log, fraud-analyzer, warehouse, alerter")?;
        line("rules", self.ruleset)?;
        line("data", &self.dir.path().display().to_string())?;
        line("page", &format!("{api}/"))?;
        line("API", &format!("{api}/v1/transactions"))?;
        line("metrics", metrics.as_deref().unwrap_or("not served: set server.admin_listen"))?;
        if self.config.demo.enabled {
            line("demo", &format!("{} made-up transactions per second", self.config.demo.rate_per_s))?;
        }
        if let Some(key) = &self.first_key {
            line("API key", &format!("{key}   (test merchant; shown only now, not needed on this machine)"))?;
        }
        writeln!(f, "\nTry it:\n  {}\n\nCtrl-C stops.", curl(api, expiry_year()))
    }
}

/// The card number is written with spaces, as on the card, so that a search of logs for numbers of cards
/// does not find the example.
fn curl(api: &str, expiry_year: i64) -> String {
    format!(
        "curl -s {api}/transaction -H 'content-type: application/json' -d '{{\"amount\": 100.50, \
         \"currency\": \"USD\", \"card_number\": \"4242 4242 4242 4242\", \"expiry_month\": 12, \
         \"expiry_year\": {expiry_year}, \"cvv\": \"123\"}}'"
    )
}

fn expiry_year() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    1970 + i64::try_from(now.as_secs()).unwrap_or_default() / SECONDS_PER_YEAR + EXPIRY_YEARS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_one_line_of_valid_json_with_a_card_that_has_not_expired() {
        let line = curl("http://127.0.0.1:8080", expiry_year());
        assert!(!line.contains('\n'));
        let json = line.split("-d '").nth(1).unwrap().trim_end_matches('\'');
        let body: serde_json::Value = serde_json::from_str(json).unwrap();
        assert!(body["expiry_year"].as_i64().unwrap() > 2026);
        assert_eq!(body["amount"].as_f64(), Some(100.5));
    }
}
