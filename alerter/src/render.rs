//! A group of alerts as people read it: Telegram HTML and one line for the console.
//!
//! Every value that came from a transaction, a rule or the configuration is cut to its own budget while it
//! is escaped, so the whole stays below Telegram's limit by construction and no cut ever falls inside a
//! tag or an entity.

pub(crate) mod incident;

use std::fmt::Write as _;

use events::{Alert, Outcome, Reason, Severity, TransactionId};

use crate::group::{Group, Subject};

/// Telegram refuses longer messages (in UTF-16 units, and counted here with the markup).
pub(crate) const TELEGRAM_MAX_UNITS: usize = 4_096;
/// How many reasons a message names.
const REASONS: usize = 3;

const MESSAGE_MAX: usize = 500;
const NAMES_MAX: usize = 250;
const LINK_MAX: usize = 600;

/// The message in Telegram's HTML.
pub(crate) fn telegram_html(group: &Group, public_url: &str) -> String {
    let worst = &group.worst;
    let mut lines = vec![format!(
        "{} <b>{} · {} · score {}</b>",
        sign(group.severity),
        title(group.severity),
        told(worst.outcome),
        worst.risk_score
    )];
    if let Subject::Rule { rule } = &group.subject {
        lines.push(format!("Rule <code>{}</code> on many cards", escaped(rule, NAMES_MAX)));
    }
    lines.push(format!("Card <code>{}</code>", escaped(&group.cards.list(), NAMES_MAX)));
    lines.push(format!("Merchant <code>{}</code>", escaped(&group.merchants.list(), NAMES_MAX)));
    lines.push(format!("Amount <b>{}</b>", escaped(&amount(worst), NAMES_MAX)));
    for reason in worst.reasons.iter().take(REASONS) {
        lines.push(format!("• {} ({})", escaped(&reason.message, MESSAGE_MAX), figures(reason)));
    }
    let when = span(group.first_raised_us, group.last_raised_us);
    if group.count > 1 {
        let sum = escaped(&group.amounts(), NAMES_MAX);
        lines.push(format!("<b>{} alerts</b>, {sum} in all, {when}", group.count));
    } else {
        lines.push(when);
    }
    lines.push(link(worst.transaction_id, public_url));
    if !worst.livemode {
        lines.push("<i>Test mode</i>".to_owned());
    }
    let html = lines.join("\n");
    debug_assert!(html.encode_utf16().count() <= TELEGRAM_MAX_UNITS, "the budgets add up to less");
    html
}

/// One line without control characters.
pub(crate) fn console_line(group: &Group) -> String {
    let worst = &group.worst;
    let mut line = match &group.subject {
        Subject::Card => format!("{} at {}", group.cards.list(), group.merchants.list()),
        Subject::Rule { rule } => {
            format!("rule {rule} on cards {} at {}", group.cards.list(), group.merchants.list())
        }
    };
    let mut add = |text: std::fmt::Arguments<'_>| {
        line.write_fmt(text).expect("writing to a String cannot fail");
    };
    add(format_args!(": {} {}, score {}", amount(worst), told(worst.outcome), worst.risk_score));
    for reason in worst.reasons.iter().take(REASONS) {
        add(format_args!("; {} ({})", reason.message, figures(reason)));
    }
    if group.count > 1 {
        add(format_args!("; {} alerts, {} in all", group.count, group.amounts()));
    }
    printable(&line)
}

/// Where the page shows a transaction.
pub(crate) fn transaction_url(id: TransactionId, public_url: &str) -> Option<String> {
    (!public_url.is_empty()).then(|| format!("{}/#{id}", public_url.trim_end_matches('/')))
}

fn link(id: TransactionId, public_url: &str) -> String {
    match transaction_url(id, public_url).map(|url| escaped_whole(&url)) {
        Some(url) if url.encode_utf16().count() <= LINK_MAX => format!("<a href=\"{url}\">{id}</a>"),
        _ => format!("<code>{id}</code>"),
    }
}

const fn sign(severity: Severity) -> &'static str {
    match severity {
        Severity::Low => "⚪",
        Severity::Medium => "🟡",
        Severity::High => "🟠",
        Severity::Critical => "🔴",
    }
}

const fn title(severity: Severity) -> &'static str {
    match severity {
        Severity::Low => "Low",
        Severity::Medium => "Medium",
        Severity::High => "High",
        Severity::Critical => "Critical",
    }
}

const fn told(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Approve => "approved",
        Outcome::Review => "sent to review",
        Outcome::Challenge => "challenged",
        Outcome::Decline => "declined",
    }
}

fn amount(alert: &Alert) -> String {
    alert.currency.format(alert.amount_minor)
}

fn figures(reason: &Reason) -> String {
    format!("observed {}, limit {}", number(reason.observed), number(reason.limit))
}

/// Whole numbers without decimals, others with two; very large ones with an exponent.
fn number(value: f64) -> String {
    if value.abs() >= 1e15 {
        format!("{value:e}")
    } else if value.fract() == 0.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

/// `2027-01-15 08:00:00 to 08:00:11 UTC`; the second date only where it differs.
fn span(first_us: i64, last_us: i64) -> String {
    let parts = |at_us| {
        let at = jiff::Timestamp::from_microsecond(at_us).ok()?;
        Some((at.strftime("%Y-%m-%d").to_string(), at.strftime("%H:%M:%S").to_string()))
    };
    let (Some((day, time)), Some((last_day, last_time))) = (parts(first_us), parts(last_us)) else {
        return "at an unknown time".to_owned();
    };
    if day != last_day {
        format!("{day} {time} to {last_day} {last_time} UTC")
    } else if time != last_time {
        format!("{day} {time} to {last_time} UTC")
    } else {
        format!("{day} {time} UTC")
    }
}

/// Replaces what could forge a line, drive a terminal or reverse the reading direction.
fn printable(text: &str) -> String {
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
    };
    text.chars().map(|c| if hidden(c) { ' ' } else { c }).collect()
}

/// A value as HTML text or attribute, at most `max_units` UTF-16 units long; what was cut ends in `…`.
fn escaped(value: &str, max_units: usize) -> String {
    let whole = escaped_whole(value);
    if whole.encode_utf16().count() <= max_units {
        return whole;
    }
    let mut cut = String::new();
    let mut units = 1; // the ellipsis
    for c in printable(value).chars() {
        let start = cut.len();
        push_escaped(&mut cut, c);
        units += cut[start..].encode_utf16().count();
        if units > max_units {
            cut.truncate(start);
            break;
        }
    }
    cut.push('…');
    cut
}

fn escaped_whole(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in printable(value).chars() {
        push_escaped(&mut out, c);
    }
    out
}

fn push_escaped(out: &mut String, c: char) {
    match c {
        '&' => out.push_str("&amp;"),
        '<' => out.push_str("&lt;"),
        '>' => out.push_str("&gt;"),
        '"' => out.push_str("&quot;"),
        c => out.push(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::GroupId;
    use crate::samples::alert;

    const URL: &str = "https://pay.example.com/";

    fn group(alerts: &[Alert], subject: Subject) -> Group {
        let mut group = Group::open(GroupId(1), subject, vec![], &alerts[0], 5);
        for alert in &alerts[1..] {
            group.add(alert, 5);
        }
        group
    }

    /// Checks what Telegram checks: known tags, balanced, entities whole.
    fn assert_well_formed(html: &str) {
        let mut open = Vec::new();
        let mut rest = html;
        while let Some(at) = rest.find(['<', '&']) {
            if rest[at..].starts_with('&') {
                let known = ["&amp;", "&lt;", "&gt;", "&quot;"];
                assert!(known.iter().any(|e| rest[at..].starts_with(e)), "stray & in {html}");
                rest = &rest[at + 1..];
                continue;
            }
            let end = at + rest[at..].find('>').unwrap_or_else(|| panic!("unclosed tag in {html}"));
            let tag = &rest[at + 1..end];
            match tag.strip_prefix('/') {
                Some(name) => assert_eq!(open.pop(), Some(name), "unbalanced in {html}"),
                None => {
                    let name = tag.split(' ').next().unwrap();
                    assert!(["b", "i", "code", "a"].contains(&name), "unknown tag <{tag}> in {html}");
                    open.push(name);
                }
            }
            rest = &rest[end + 1..];
        }
        assert!(open.is_empty(), "unclosed {open:?} in {html}");
    }

    #[test]
    fn a_single_alert_shows_card_merchant_amount_reasons_and_a_link() {
        insta::assert_snapshot!(telegram_html(&group(&[alert(1)], Subject::Card), URL), @r#"
        🟠 <b>High · declined · score 88</b>
        Card <code>411111••••••1111</code>
        Merchant <code>shop_1</code>
        Amount <b>100.50 USD</b>
        • 7 transactions on this card in 10 minutes (observed 7, limit 5)
        2027-01-15 08:00:00 UTC
        <a href="https://pay.example.com/#txn_6086960030d25012946ab1d8f0370f4a">txn_6086960030d25012946ab1d8f0370f4a</a>
        "#);
        insta::assert_snapshot!(
            console_line(&group(&[alert(1)], Subject::Card)),
            @"411111••••••1111 at shop_1: 100.50 USD declined, score 88; 7 transactions on this card in 10 minutes (observed 7, limit 5)"
        );
    }

    #[test]
    fn a_rule_burst_shows_count_sum_and_a_few_cards() {
        let alerts: Vec<Alert> = (0..120)
            .map(|n| {
                let mut a = alert(n);
                a.card_masked = format!("411111••••••{n:04}");
                a.raised_at_us = alert(0).raised_at_us + i64::try_from(n).unwrap() * 1_000_000;
                a.livemode = false;
                a
            })
            .collect();
        let burst = group(&alerts, Subject::Rule { rule: "bin_attack".into() });
        insta::assert_snapshot!(telegram_html(&burst, ""), @r"
        🟠 <b>High · declined · score 88</b>
        Rule <code>bin_attack</code> on many cards
        Card <code>411111••••••0000, 411111••••••0001, 411111••••••0002 and others</code>
        Merchant <code>shop_1</code>
        Amount <b>100.50 USD</b>
        • 7 transactions on this card in 10 minutes (observed 7, limit 5)
        <b>120 alerts</b>, 12060.00 USD in all, 2027-01-15 08:00:00 to 08:01:59 UTC
        <code>txn_5bbbbdda8e0e5dc3bae63715b30e3521</code>
        <i>Test mode</i>
        ");
        insta::assert_snapshot!(
            console_line(&burst),
            @"rule bin_attack on cards 411111••••••0000, 411111••••••0001, 411111••••••0002 and others at shop_1: 100.50 USD declined, score 88; 7 transactions on this card in 10 minutes (observed 7, limit 5); 120 alerts, 12060.00 USD in all"
        );
    }

    #[test]
    fn hostile_text_is_shown_as_text() {
        let mut a = alert(1);
        a.card_masked = "<b>4111".into();
        a.reasons[0].message =
            "</b><a href=\"https://evil.example\">click & win</a>\n🔴 <b>forged line".into();
        let burst = Subject::Rule { rule: "x</code><script>\u{202e}".into() };
        let html = telegram_html(&group(&[a], burst), URL);
        assert_well_formed(&html);
        assert!(!html.contains("evil.example\">") && !html.contains("<script>"), "{html}");
        assert!(!html.contains("\n🔴"), "no value begins a line of its own: {html}");
        assert!(!html.contains('\u{202e}'), "{html}");
        assert_eq!(html.matches("<a ").count(), 1, "only our own link: {html}");
    }

    #[test]
    fn the_longest_values_stay_below_telegrams_limit_and_well_formed() {
        for filler in ["&", "\"", "<", "é", "😀", "•", "a&", "x😀<"] {
            let long = filler.repeat(6_000);
            let mut a = alert(1);
            a.card_masked = long.clone();
            a.livemode = false;
            a.reasons[0].message = long.clone();
            (a.reasons[0].observed, a.reasons[0].limit) = (f64::MAX, f64::MIN_POSITIVE);
            a.reasons = vec![a.reasons[0].clone(); 9];
            let mut b = a.clone();
            b.card_masked = format!("{long}2");
            let group = group(&[a, b], Subject::Rule { rule: long.clone() });
            for url in [URL.to_owned(), format!("https://x.example/{long}")] {
                let html = telegram_html(&group, &url);
                assert!(html.encode_utf16().count() <= TELEGRAM_MAX_UNITS, "{}", html.len());
                assert_well_formed(&html);
                assert!(html.contains('…'), "what is cut says so");
            }
        }
    }

    #[test]
    fn a_cut_never_falls_inside_an_entity() {
        for max in 2..40 {
            let cut = escaped(&"&<".repeat(30), max);
            assert!(cut.encode_utf16().count() <= max, "{cut}");
            assert_well_formed(&cut);
        }
    }

    #[test]
    fn the_console_gets_one_line_without_control_characters() {
        let mut a = alert(1);
        a.reasons[0].message = "a\u{1b}[31mred\r\nforged".into();
        let line = console_line(&group(&[a], Subject::Card));
        assert!(!line.chars().any(char::is_control), "{line:?}");
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in [(7.0, "7"), (2.5, "2.50"), (1e300, "1e300"), (-3.0, "-3")] {
            assert_eq!(number(value), text);
        }
    }
}
