//! Who is told of which alert: routes from YAML, tried in order.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::PathBuf;

use events::{Alert, Currency, Severity};
use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::config::{AlerterConfig, Secret};

/// The routes that hold while `alerter.routes_file` is empty.
pub const DEFAULT_ROUTES: &str = include_str!("../routes.default.yaml");

/// The receiver that writes to the log.
pub(crate) const CONSOLE: &str = "console";
/// The receiver that sends to the configured chat.
pub(crate) const TELEGRAM: &str = "telegram";

/// Longest name of a receiver: it is a metric label and part of a storage key.
const NAME_MAX: usize = 32;
/// Most webhooks: each has a worker and a metric label.
const WEBHOOKS_MAX: usize = 32;

/// Why routes could not be read.
#[derive(Debug, thiserror::Error)]
pub enum RoutesError {
    /// The file is not there or not readable.
    #[error("cannot read the routes file {path}: {source}. Correct `alerter.routes_file`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What it says is not a set of routes. Every entry names a line.
    #[error("{file} is not a valid routes file:\n{}", errors.join("\n"))]
    Invalid {
        /// The file, or `built-in routes`.
        file: String,
        /// What is wrong, each with its line.
        errors: Vec<String>,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RoutesFile {
    #[serde(default)]
    receivers: BTreeMap<String, Spanned<ReceiverSpec>>,
    routes: Vec<RouteSpec>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReceiverSpec {
    webhook: WebhookSpec,
}

/// A webhook as the routes file defines it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct WebhookSpec {
    /// Where alerts are posted.
    pub(crate) url: String,
    /// Signs requests, when set: `whsec_` and base64.
    #[serde(default)]
    pub(crate) secret: Secret,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RouteSpec {
    name: Spanned<String>,
    #[serde(default, rename = "match")]
    condition: Condition,
    receivers: Vec<Spanned<String>>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    severity_at_least: Option<Severity>,
    merchants: Option<BTreeSet<String>>,
    rules: Option<BTreeSet<String>>,
    amount_at_least: Option<AmountAtLeast>,
    livemode: Option<bool>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
struct AmountAtLeast {
    minor: i64,
    currency: Currency,
}

#[derive(Debug, Clone)]
struct Route {
    name: String,
    condition: Condition,
    receivers: Vec<String>,
}

/// The routes in force.
#[derive(Debug, Clone)]
pub struct Routes {
    routes: Vec<Route>,
    webhooks: BTreeMap<String, WebhookSpec>,
    telegram_is_on: bool,
}

impl Routes {
    /// Reads the file that the configuration names, or the built-in routes when it names none.
    ///
    /// # Errors
    /// [`RoutesError`], with the line of everything that is wrong.
    pub fn load(config: &AlerterConfig) -> Result<Self, RoutesError> {
        if config.routes_file.is_empty() {
            return Self::parse(DEFAULT_ROUTES, "built-in routes", config.telegram.is_on());
        }
        let path = PathBuf::from(&config.routes_file);
        let text = std::fs::read_to_string(&path).map_err(|source| RoutesError::Read { path, source })?;
        Self::parse(&text, &config.routes_file, config.telegram.is_on())
    }

    /// Reads routes from YAML; `file` is named in errors.
    ///
    /// # Errors
    /// [`RoutesError::Invalid`].
    pub fn parse(yaml: &str, file: &str, telegram_is_on: bool) -> Result<Self, RoutesError> {
        let invalid = |errors| RoutesError::Invalid { file: file.to_owned(), errors };
        let parsed: RoutesFile = serde_saphyr::from_str(yaml).map_err(|e| invalid(vec![describe(&e)]))?;
        let errors = check(&parsed);
        if !errors.is_empty() {
            return Err(invalid(errors));
        }
        let routes = parsed.routes.into_iter().map(|route| Route {
            name: route.name.value,
            condition: route.condition,
            receivers: route.receivers.into_iter().map(|name| name.value).collect(),
        });
        Ok(Self {
            routes: routes.collect(),
            webhooks: parsed.receivers.into_iter().map(|(name, spec)| (name, spec.value.webhook)).collect(),
            telegram_is_on,
        })
    }

    /// The receivers of an alert, sorted, each once: none when no route takes it.
    pub(crate) fn receivers_of(&self, alert: &Alert) -> BTreeSet<&str> {
        let taken = self.routes.iter().find(|route| route.condition.refusal(alert).is_none());
        self.enabled(taken)
    }

    fn enabled<'r>(&self, taken: Option<&'r Route>) -> BTreeSet<&'r str> {
        taken
            .into_iter()
            .flat_map(|route| route.receivers.iter().map(String::as_str))
            .filter(|&name| name != TELEGRAM || self.telegram_is_on)
            .collect()
    }

    /// The receivers of an incident of the system, sorted, each once. Routes about merchants or amounts do not
    /// take it; its name counts as a rule's, and it is never test traffic.
    pub(crate) fn receivers_of_incident(&self, severity: Severity, name: &str) -> BTreeSet<&str> {
        let taken = self.routes.iter().find(|route| route.condition.takes_incident(severity, name));
        self.enabled(taken)
    }

    /// The webhooks that some route uses.
    pub(crate) fn webhooks(&self) -> impl Iterator<Item = (&str, &WebhookSpec)> {
        self.webhooks
            .iter()
            .map(|(name, spec)| (name.as_str(), spec))
            .filter(|(name, _)| self.routes.iter().any(|route| route.receivers.iter().any(|r| r == name)))
    }

    /// Which route an alert takes, and why it does not take the ones before: a line for each.
    #[must_use]
    pub fn explain(&self, alert: &Alert) -> String {
        let mut text = String::new();
        let mut line = |name: &str, what: &str| {
            writeln!(text, "route `{name}`: {what}").expect("writing to a String cannot fail");
        };
        for route in &self.routes {
            let Some(why) = route.condition.refusal(alert) else {
                line(&route.name, &format!("taken, {}", self.describe_receivers(route)));
                return text;
            };
            line(&route.name, &format!("passed over, {why}"));
        }
        text.push_str("no route takes it: recorded and shown on the page, sent nowhere\n");
        text
    }

    fn describe_receivers(&self, route: &Route) -> String {
        if route.receivers.is_empty() {
            return "recorded and shown on the page, sent nowhere".to_owned();
        }
        let described = route.receivers.iter().map(|name| match name.as_str() {
            TELEGRAM if !self.telegram_is_on => {
                "telegram (skipped: `alerter.telegram.bot_token` is empty)".to_owned()
            }
            name => name.to_owned(),
        });
        format!("sent to {}", described.collect::<Vec<_>>().join(", "))
    }
}

impl Condition {
    fn takes_incident(&self, severity: Severity, name: &str) -> bool {
        self.severity_at_least.is_none_or(|least| severity >= least)
            && self.rules.as_ref().is_none_or(|rules| rules.contains(name))
            && self.merchants.is_none()
            && self.amount_at_least.is_none()
            && self.livemode != Some(false)
    }

    /// Why the alert does not match; `None` when it does.
    fn refusal(&self, alert: &Alert) -> Option<String> {
        if let Some(least) = self.severity_at_least.filter(|&least| alert.severity < least) {
            return Some(format!("severity {} is below {least}", alert.severity));
        }
        if self.merchants.as_ref().is_some_and(|m| !m.contains(alert.merchant_id.as_str())) {
            return Some(format!("merchant {} is not listed", alert.merchant_id));
        }
        if self.rules.as_ref().is_some_and(|rules| !alert.reasons.iter().any(|r| rules.contains(&*r.rule))) {
            return Some("none of its rules is listed".to_owned());
        }
        if let Some(least) = self.amount_at_least {
            if alert.currency != least.currency {
                return Some(format!("its currency is {}, not {}", alert.currency, least.currency));
            }
            if alert.amount_minor.get() < least.minor {
                return Some(format!("{} minor units are below {}", alert.amount_minor.get(), least.minor));
            }
        }
        match self.livemode.filter(|&live| live != alert.livemode) {
            Some(true) => Some("it was made under a test key".to_owned()),
            Some(false) => Some("it was made under a live key".to_owned()),
            None => None,
        }
    }
}

/// What serde_saphyr says, on one line that starts with the line number.
fn describe(error: &serde_saphyr::Error) -> String {
    let place = error.location().map_or_else(String::new, |at| format!("line {}: ", at.line()));
    let message = error.without_snippet().to_string();
    format!("{place}{}", message.lines().next().unwrap_or_default())
}

/// What the YAML's shape does not rule out.
fn check(file: &RoutesFile) -> Vec<String> {
    let mut errors = Vec::new();
    if file.receivers.len() > WEBHOOKS_MAX {
        errors.push(format!("more than {WEBHOOKS_MAX} receivers"));
    }
    for (name, spec) in &file.receivers {
        let line = spec.referenced.line();
        if name == CONSOLE || name == TELEGRAM {
            errors.push(format!("line {line}: receiver `{name}` is built in, choose another name"));
        }
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
        if name.is_empty() || name.len() > NAME_MAX || !name.bytes().all(plain) {
            errors.push(format!(
                "line {line}: receiver name `{name}` must be 1 to {NAME_MAX} of a-z, 0-9, `_` and `-`"
            ));
        }
        if let Err(why) = check_webhook(&spec.value.webhook) {
            errors.push(format!("line {line}: receiver `{name}`: {why}"));
        }
    }
    let mut names = BTreeSet::new();
    for route in &file.routes {
        let line = route.name.referenced.line();
        if !names.insert(route.name.value.as_str()) {
            errors.push(format!("line {line}: a second route is named `{}`", route.name.value));
        }
        if route.condition.amount_at_least.is_some_and(|amount| amount.minor < 0) {
            errors.push(format!("line {line}: `amount_at_least.minor` is negative"));
        }
        for receiver in &route.receivers {
            let name = receiver.value.as_str();
            if name != CONSOLE && name != TELEGRAM && !file.receivers.contains_key(name) {
                let line = receiver.referenced.line();
                errors.push(format!(
                    "line {line}: receiver `{name}` is not defined: it is neither `console` nor `telegram` \
                     nor under `receivers`"
                ));
            }
        }
    }
    errors
}

fn check_webhook(webhook: &WebhookSpec) -> Result<(), &'static str> {
    match reqwest::Url::parse(&webhook.url) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => {}
        _ => return Err("`url` must be an http:// or https:// URL"),
    }
    if webhook.secret.is_empty() {
        return Ok(());
    }
    crate::webhook::signing_key(&webhook.secret)
        .map(|_| ())
        .ok_or("`secret` must be `whsec_` and the base64 of 24 to 64 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::alert;

    const FILE: &str = "
receivers:
  desk:
    webhook:
      url: https://desk.example.com/hook
routes:
  - name: test-traffic
    match: {livemode: false}
    receivers: []
  - name: large
    match:
      amount_at_least: {minor: 100000, currency: USD}
    receivers: [desk, telegram]
  - name: attacks
    match:
      rules: [bin_attack, card_testing]
      merchants: [shop_2]
    receivers: [desk]
  - name: rest
    match: {severity_at_least: high}
    receivers: [console, telegram, console]
";

    fn routes(telegram_is_on: bool) -> Routes {
        Routes::parse(FILE, "routes.yaml", telegram_is_on).unwrap()
    }

    fn receivers(alert: &Alert) -> Vec<String> {
        routes(true).receivers_of(alert).into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn the_first_route_that_matches_is_taken() {
        let mut a = alert(1);
        assert_eq!(receivers(&a), ["console", "telegram"], "severity is high, nothing else fits");
        a.amount_minor = 100_000.try_into().unwrap();
        assert_eq!(receivers(&a), ["desk", "telegram"], "the limit itself is included");
        a.currency = "EUR".parse().unwrap();
        assert_eq!(receivers(&a), ["console", "telegram"], "another currency is never compared");
        a.merchant_id = "shop_2".parse().unwrap();
        assert_eq!(receivers(&a), ["console", "telegram"], "both the merchant and a rule must fit");
        a.reasons[0].rule = "bin_attack".into();
        assert_eq!(receivers(&a), ["desk"]);
        a.livemode = false;
        assert_eq!(receivers(&a), [""; 0], "an empty list silences");
    }

    #[test]
    fn an_alert_that_no_route_takes_is_sent_nowhere() {
        let mut a = alert(1);
        a.severity = Severity::Medium;
        assert_eq!(receivers(&a), [""; 0]);
        assert!(routes(true).explain(&a).ends_with("sent nowhere\n"));
    }

    #[test]
    fn the_default_sends_medium_and_above_to_the_console_and_to_telegram_once_it_is_configured() {
        let off = Routes::parse(DEFAULT_ROUTES, "built-in", false).unwrap();
        let on = Routes::parse(DEFAULT_ROUTES, "built-in", true).unwrap();
        let mut a = alert(1);
        a.severity = Severity::Medium;
        assert_eq!(off.receivers_of(&a), BTreeSet::from(["console"]));
        assert_eq!(on.receivers_of(&a), BTreeSet::from(["console", "telegram"]));
        a.severity = Severity::Low;
        assert_eq!(on.receivers_of(&a), BTreeSet::new());
    }

    #[test]
    fn explain_names_every_route_up_to_the_one_taken() {
        insta::assert_snapshot!(routes(false).explain(&alert(1)), @r"
        route `test-traffic`: passed over, it was made under a live key
        route `large`: passed over, 10050 minor units are below 100000
        route `attacks`: passed over, merchant shop_1 is not listed
        route `rest`: taken, sent to console, telegram (skipped: `alerter.telegram.bot_token` is empty), console
        ");
    }

    #[test]
    fn an_incident_goes_by_severity_and_name_past_routes_about_payments() {
        let routes = routes(true);
        let all = BTreeSet::from(["console", "telegram"]);
        assert_eq!(routes.receivers_of_incident(Severity::Critical, "DiskFull"), all);
        assert_eq!(routes.receivers_of_incident(Severity::Medium, "DiskFull"), BTreeSet::new());
        let named = "routes:\n  - name: a\n    match: {rules: [DiskFull], livemode: true}\n    receivers: [console]\n";
        let named = Routes::parse(named, "routes.yaml", true).unwrap();
        assert_eq!(named.receivers_of_incident(Severity::Low, "DiskFull"), BTreeSet::from(["console"]));
        assert_eq!(named.receivers_of_incident(Severity::Low, "Other"), BTreeSet::new());
    }

    fn errors_of(yaml: &str) -> Vec<String> {
        match Routes::parse(yaml, "routes.yaml", true) {
            Err(RoutesError::Invalid { errors, .. }) => errors,
            other => panic!("expected errors, got {other:?}"),
        }
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_its_line() {
        let errors =
            errors_of("routes:\n  - name: a\n    match:\n      severity: high\n    receivers: [console]\n");
        assert_eq!(errors.len(), 1);
        assert!(errors[0].starts_with("line 4: "), "{errors:?}");
        assert!(errors[0].contains("severity") && errors[0].contains("severity_at_least"), "{errors:?}");
    }

    #[test]
    fn all_semantic_errors_are_listed_each_with_its_line() {
        let errors = errors_of(
            "receivers:\n  telegram:\n    webhook: {url: 'https://x.example'}\n  hook:\n    webhook: {url: nope}\n\
             routes:\n  - name: a\n    receivers:\n      - console\n      - pager\n  - name: a\n    receivers: []\n",
        );
        let starts = [
            "line 5: receiver `hook`",
            "line 3: receiver `telegram`",
            "line 10: receiver `pager`",
            "line 11: a second",
        ];
        for start in starts {
            assert!(errors.iter().any(|e| e.starts_with(start)), "{start} in {errors:#?}");
        }
        assert_eq!(errors.len(), starts.len(), "{errors:#?}");
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_an_error_that_names_its_line() {
        for (yaml, line) in [
            ("routes:\n  - name: a\n    match: {severity_at_least: urgent}\n    receivers: []\n", "line 3: "),
            (
                "routes:\n  - name: a\n    match:\n      amount_at_least: {minor: 1, currency: XXX}\n    receivers: []\n",
                "line 4: ",
            ),
            ("routes: 7\n", "line 1: "),
        ] {
            let errors = errors_of(yaml);
            assert!(errors[0].starts_with(line), "{errors:?}");
        }
    }
}
