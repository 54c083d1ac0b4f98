//! The JSON of Alertmanager's webhook, version 4.

use std::collections::BTreeMap;

use events::Severity;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::incident::Notification;

const VERSION: &str = "4";
/// Alerts of one notification.
const ALERTS_MAX: usize = 1_000;
/// Flaws that are listed.
const FLAWS_MAX: usize = 20;
const FINGERPRINT_MAX: usize = 64;
/// Longer texts are cut: no receiver shows more.
const TEXT_CHARS: usize = 1_000;
const LABELS_MAX: usize = 64;
/// What `severity` and the name are told by.
const SHOWN_ELSEWHERE: [&str; 2] = ["alertname", "severity"];

/// One thing wrong with a notification. It does not repeat what was sent.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Flaw {
    pointer: String,
    message: &'static str,
}

/// Reads a notification, or lists what is wrong with it.
pub(super) fn parse(body: &[u8]) -> Result<Vec<Notification>, Vec<Flaw>> {
    let mut flaws = Flaws::default();
    let Ok(Value::Object(root)) = serde_json::from_slice(body) else {
        return Err(vec![Flaw { pointer: String::new(), message: "must be a JSON object" }]);
    };
    if root.get("version").and_then(Value::as_str) != Some(VERSION) {
        flaws.add("/version".to_owned(), "must be \"4\"");
    }
    let alerts = root.get("alerts").and_then(Value::as_array).map(Vec::as_slice);
    match alerts {
        None => flaws.add("/alerts".to_owned(), "must be an array"),
        Some(alerts) if alerts.len() > ALERTS_MAX => {
            flaws.add("/alerts".to_owned(), "must have at most 1000 entries: set max_alerts");
        }
        Some(_) => {}
    }
    let alerts = alerts.unwrap_or_default().iter().take(ALERTS_MAX).enumerate();
    let said: Vec<_> = alerts
        .filter_map(|(i, alert)| Fields::new(alert, format!("/alerts/{i}"), &mut flaws)?.read())
        .collect();
    if flaws.0.is_empty() { Ok(said) } else { Err(flaws.0) }
}

#[derive(Default)]
struct Flaws(Vec<Flaw>);

impl Flaws {
    fn add(&mut self, pointer: String, message: &'static str) {
        if self.0.len() < FLAWS_MAX {
            self.0.push(Flaw { pointer, message });
        }
    }
}

/// One alert of a notification.
struct Fields<'a> {
    object: &'a Map<String, Value>,
    at: String,
    flaws: &'a mut Flaws,
}

impl<'a> Fields<'a> {
    fn new(alert: &'a Value, at: String, flaws: &'a mut Flaws) -> Option<Self> {
        let Value::Object(object) = alert else {
            flaws.add(at, "must be an object");
            return None;
        };
        Some(Self { object, at, flaws })
    }

    /// All of its fields are looked at before it is given up.
    fn read(mut self) -> Option<Notification> {
        let resolved = self.resolved();
        let fingerprint = self.fingerprint();
        let labels = self.texts("labels", true);
        let annotations = self.texts("annotations", false);
        let started_us = self.time("startsAt");
        let ended_us = if resolved == Some(true) { Some(self.time("endsAt")) } else { None };
        let (mut labels, annotations) = (labels?, annotations?);
        let name = labels.get("alertname").map_or("unnamed alert", String::as_str).to_owned();
        let severity = severity(labels.get("severity").map(String::as_str));
        labels.retain(|label, _| !SHOWN_ELSEWHERE.contains(&label.as_str()));
        let said = |key: &str| annotations.get(key).filter(|text| !text.is_empty()).cloned();
        resolved?;
        Some(Notification {
            fingerprint: fingerprint?,
            name,
            severity,
            summary: said("summary").or_else(|| said("description")).unwrap_or_default(),
            labels,
            link: said("runbook_url").or_else(|| self.generator()).filter(|link| is_web_link(link)),
            started_us: started_us?,
            ended_us: ended_us.map_or(Some(None), |at| at.map(Some))?,
        })
    }

    fn flaw(&mut self, key: &str, message: &'static str) {
        self.flaws.add(format!("{}/{key}", self.at), message);
    }

    fn text(&self, key: &str) -> Option<&'a str> {
        self.object.get(key).and_then(Value::as_str)
    }

    fn resolved(&mut self) -> Option<bool> {
        match self.text("status") {
            Some("firing") => Some(false),
            Some("resolved") => Some(true),
            _ => {
                self.flaw("status", "must be \"firing\" or \"resolved\"");
                None
            }
        }
    }

    fn fingerprint(&mut self) -> Option<String> {
        let text = self.text("fingerprint");
        let is_one = |t: &&str| {
            (1..=FINGERPRINT_MAX).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_alphanumeric())
        };
        let Some(text) = text.filter(is_one) else {
            self.flaw("fingerprint", "must be 1 to 64 letters and digits");
            return None;
        };
        Some(text.to_owned())
    }

    fn generator(&self) -> Option<String> {
        self.text("generatorURL").map(str::to_owned)
    }

    fn texts(&mut self, key: &str, required: bool) -> Option<BTreeMap<String, String>> {
        let texts = match self.object.get(key) {
            None | Some(Value::Null) if !required => return Some(BTreeMap::new()),
            Some(Value::Object(texts)) if texts.len() <= LABELS_MAX => texts,
            _ => {
                self.flaw(key, "must be an object of at most 64 texts");
                return None;
            }
        };
        let all = texts.iter().map(|(key, value)| Some((cut(key), cut(value.as_str()?))));
        let all: Option<BTreeMap<_, _>> = all.collect();
        if all.is_none() {
            self.flaw(key, "must hold texts only");
        }
        all
    }

    fn time(&mut self, key: &str) -> Option<i64> {
        let time = self.text(key).and_then(|text| text.parse::<jiff::Timestamp>().ok());
        if time.is_none() {
            self.flaw(key, "must be a time as RFC 3339 writes it");
        }
        time.map(jiff::Timestamp::as_microsecond)
    }
}

/// The words that rules use, in what this system calls it. What nobody classed is better told than not.
fn severity(label: Option<&str>) -> Severity {
    match label.map(str::to_ascii_lowercase).as_deref() {
        Some("critical" | "page" | "emergency" | "disaster") => Severity::Critical,
        Some("warning" | "warn" | "medium" | "average") => Severity::Medium,
        Some("info" | "information" | "notice" | "low" | "none" | "debug") => Severity::Low,
        _ => Severity::High,
    }
}

fn is_web_link(link: &str) -> bool {
    reqwest::Url::parse(link).is_ok_and(|url| matches!(url.scheme(), "http" | "https"))
}

fn cut(text: &str) -> String {
    text.chars().take(TEXT_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn body() -> Value {
        json!({
            "version": "4", "groupKey": "{}:{}", "status": "firing", "receiver": "paystream",
            "groupLabels": {}, "commonLabels": {}, "commonAnnotations": {}, "externalURL": "http://am:9093",
            "alerts": [{
                "status": "firing",
                "labels": {"alertname": "DiskFull", "severity": "critical", "instance": "broker-1"},
                "annotations": {"summary": "Less than 5 % free", "description": "…"},
                "startsAt": "2027-01-15T08:00:00.123Z", "endsAt": "0001-01-01T00:00:00Z",
                "generatorURL": "http://prom:9090/graph?g0.expr=x", "fingerprint": "3b15fd163d36582e",
            }],
        })
    }

    fn flaws(body: &Value) -> Vec<String> {
        let flaws = parse(body.to_string().as_bytes()).unwrap_err();
        flaws.into_iter().map(|flaw| flaw.pointer).collect()
    }

    #[test]
    fn a_notification_of_alertmanager_is_read() {
        let said = parse(body().to_string().as_bytes()).unwrap().remove(0);
        assert_eq!((said.name.as_str(), said.severity), ("DiskFull", Severity::Critical));
        assert_eq!(said.labels, [("instance".to_owned(), "broker-1".to_owned())].into());
        assert_eq!(said.summary, "Less than 5 % free");
        assert_eq!(said.link.as_deref(), Some("http://prom:9090/graph?g0.expr=x"));
        assert_eq!((said.started_us, said.ended_us), (1_800_000_000_123_000, None));
        let mut over = body();
        over["alerts"][0]["status"] = json!("resolved");
        over["alerts"][0]["endsAt"] = json!("2027-01-15T09:00:00+01:00");
        let said = parse(over.to_string().as_bytes()).unwrap().remove(0);
        assert_eq!(said.ended_us, Some(1_800_000_000_000_000));
    }

    #[test]
    fn everything_wrong_is_listed_with_its_place() {
        assert_eq!(flaws(&json!([])), [""]);
        assert_eq!(flaws(&json!({})), ["/version", "/alerts"]);
        let mut bad = body();
        bad["version"] = json!(4);
        bad["alerts"] = json!([
            {"status": "maybe", "labels": {"a": 1}, "startsAt": "today", "fingerprint": ""},
            7,
            {"status": "resolved", "labels": {}, "startsAt": "2027-01-15T08:00:00Z", "fingerprint": "f"},
        ]);
        assert_eq!(
            flaws(&bad),
            [
                "/version",
                "/alerts/0/status",
                "/alerts/0/fingerprint",
                "/alerts/0/labels",
                "/alerts/0/startsAt",
                "/alerts/1",
                "/alerts/2/endsAt"
            ]
        );
    }

    #[test]
    fn a_link_that_is_not_of_the_web_is_left_out() {
        let mut odd = body();
        odd["alerts"][0]["generatorURL"] = json!("javascript:alert(1)");
        assert_eq!(parse(odd.to_string().as_bytes()).unwrap()[0].link, None);
    }

    #[test]
    fn what_nobody_classed_is_told() {
        for (label, expected) in [
            (Some("critical"), Severity::Critical),
            (Some("Warning"), Severity::Medium),
            (Some("none"), Severity::Low),
            (Some("p2"), Severity::High),
            (None, Severity::High),
        ] {
            assert_eq!(severity(label), expected, "{label:?}");
        }
    }
}
