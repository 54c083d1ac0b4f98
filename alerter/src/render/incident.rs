//! An incident of the system as people read it.

use std::fmt::Write as _;

use super::{LINK_MAX, MESSAGE_MAX, NAMES_MAX, escaped, escaped_whole, printable, sign, span, title};
use crate::incident::Incident;

/// How many labels a message names.
const LABELS: usize = 10;
const LABEL_MAX: usize = 100;

/// The message in Telegram's HTML.
pub(crate) fn telegram_html(incident: &Incident) -> String {
    let name = escaped(&incident.name, NAMES_MAX);
    let mut lines = vec![match incident.ended_us {
        None => format!("{} <b>{} · {name}</b>", sign(incident.severity), title(incident.severity)),
        Some(_) => format!("🟢 <b>Resolved · {name}</b>"),
    }];
    if !incident.summary.is_empty() {
        lines.push(escaped(&incident.summary, MESSAGE_MAX));
    }
    for (label, value) in incident.labels.iter().take(LABELS) {
        lines.push(format!("{} <code>{}</code>", escaped(label, LABEL_MAX), escaped(value, LABEL_MAX)));
    }
    lines.push(when(incident));
    let link = incident.link.as_deref().map(escaped_whole);
    if let Some(link) = link.filter(|link| link.encode_utf16().count() <= LINK_MAX) {
        lines.push(format!("<a href=\"{link}\">Details</a>"));
    }
    lines.join("\n")
}

/// One line without control characters.
pub(crate) fn console_line(incident: &Incident) -> String {
    let state = if incident.ended_us.is_some() { "resolved" } else { "firing" };
    let mut line = format!("{} {state}", incident.name);
    if !incident.summary.is_empty() {
        write!(line, ": {}", incident.summary).expect("writing to a String cannot fail");
    }
    for (label, value) in incident.labels.iter().take(LABELS) {
        write!(line, "; {label} {value}").expect("writing to a String cannot fail");
    }
    printable(&line)
}

fn when(incident: &Incident) -> String {
    let started = span(incident.started_us, incident.ended_us.unwrap_or(incident.started_us));
    if incident.ended_us.is_some() { started } else { format!("since {started}") }
}

#[cfg(test)]
mod tests {
    use events::Severity;

    use super::*;
    use crate::group::GroupId;
    use crate::render::TELEGRAM_MAX_UNITS;

    fn incident() -> Incident {
        Incident {
            id: GroupId(7),
            fingerprint: "f".into(),
            name: "DiskFull".into(),
            severity: Severity::Critical,
            summary: "Less than 5 % free on <broker-1>".into(),
            labels: [("instance", "broker-1"), ("job", "kafka")]
                .map(|(k, v)| (k.to_owned(), v.to_owned()))
                .into(),
            link: Some("https://prom.example.com/graph?a=1&b=2".into()),
            started_us: 1_800_000_000_000_000,
            ended_us: None,
            receivers: vec![],
            recorded_ms: 5,
        }
    }

    #[test]
    fn an_incident_shows_what_where_and_since_when_and_that_it_is_over() {
        let mut incident = incident();
        insta::assert_snapshot!(telegram_html(&incident), @r#"
        🔴 <b>Critical · DiskFull</b>
        Less than 5 % free on &lt;broker-1&gt;
        instance <code>broker-1</code>
        job <code>kafka</code>
        since 2027-01-15 08:00:00 UTC
        <a href="https://prom.example.com/graph?a=1&amp;b=2">Details</a>
        "#);
        incident.ended_us = Some(1_800_000_060_000_000);
        let html = telegram_html(&incident);
        assert!(html.starts_with("🟢 <b>Resolved · DiskFull</b>\n"), "{html}");
        assert!(html.contains("\n2027-01-15 08:00:00 to 08:01:00 UTC\n"), "{html}");
        insta::assert_snapshot!(
            console_line(&incident),
            @"DiskFull resolved: Less than 5 % free on <broker-1>; instance broker-1; job kafka"
        );
    }

    #[test]
    fn the_longest_values_stay_below_telegrams_limit() {
        let mut incident = incident();
        let long = "<&".repeat(6_000);
        incident.name.clone_from(&long);
        incident.summary.clone_from(&long);
        incident.labels = (0..60).map(|n| (format!("{n}{long}"), long.clone())).collect();
        incident.link = Some(format!("https://x.example/{long}"));
        assert!(telegram_html(&incident).encode_utf16().count() <= TELEGRAM_MAX_UNITS);
        incident.summary = "a\u{1b}[31m\r\nb".into();
        assert!(!console_line(&incident).chars().any(char::is_control));
    }
}
