//! A record as one line for a person.

use std::fmt::Write as _;

use events::{AmountMinor, Currency};
use serde_json::Value;

use super::entry::{Content, Entry};

/// As much of what is no message is shown.
const SHOWN_CHARS: usize = 160;

/// Time, place, key, and what the record says; the headers below it when they are asked for.
pub(crate) fn line(entry: &Entry, headers: bool) -> String {
    let said = match &entry.content {
        Content::Value(value) => summary(value),
        Content::Text(text) => cut(text),
        Content::Hex(hex) => cut(&format!("0x{hex}")),
    };
    let (time, at) = (time(entry.timestamp_ms), format!("{}/{}", entry.partition, entry.offset));
    let key = if entry.key.is_empty() { "-" } else { &entry.key };
    let mut line = format!("{time}  {at:<10}  {key}  {said}");
    if headers {
        for (name, value) in &entry.headers {
            write!(line, "\n    {name}: {}", printable(value)).expect("writing to a String cannot fail");
        }
    } else if let Some(reason) = entry.headers.get("reason") {
        write!(line, "  [{}]", cut(reason)).expect("writing to a String cannot fail");
    }
    line
}

/// Milliseconds since the Unix epoch as people read them, in UTC.
pub(crate) fn time(timestamp_ms: i64) -> String {
    match jiff::Timestamp::from_millisecond(timestamp_ms) {
        Ok(time) => format!("{time:.3}"),
        Err(_) => format!("{timestamp_ms} ms"),
    }
}

fn summary(message: &Value) -> String {
    let data = &message["data"];
    let said = match message["type"].as_str() {
        Some("transaction") => transaction(data),
        Some("decided") => decided(data),
        Some("alert") => {
            let parts = [
                text(&data["severity"]),
                text(&data["outcome"]),
                text(&data["risk_score"]),
                text(&data["merchant_id"]),
                amount(data),
                text(&data["card_masked"]),
                reasons(data),
            ];
            joined(&parts)
        }
        Some("label") => {
            let by = format!("by {}", text(&data["source"]));
            joined(&[text(&data["verdict"]), by, text(&data["merchant_id"]), text(&data["transaction_id"])])
        }
        Some("list_change") => {
            let of = match text(&data["scope"]["merchant_id"]) {
                merchant if merchant.is_empty() => "all".to_owned(),
                merchant => merchant,
            };
            joined(&[text(&data["action"]), text(&data["list"]), text(&data["value"]), format!("for {of}")])
        }
        _ => return cut(&message.to_string()),
    };
    cut(&said)
}

fn transaction(data: &Value) -> String {
    joined(&[text(&data["merchant_id"]), amount(data), card(data), text(&data["id"])])
}

fn decided(data: &Value) -> String {
    let (decision, transaction) = (&data["decision"], &data["transaction"]);
    let parts = [
        text(&decision["outcome"]),
        text(&decision["risk_score"]),
        text(&transaction["merchant_id"]),
        amount(transaction),
        card(transaction),
        text(&transaction["id"]),
        reasons(decision),
    ];
    joined(&parts)
}

fn card(data: &Value) -> String {
    let card = &data["card"];
    let bin: String = text(&card["bin"]).chars().take(6).collect();
    let masked = format!("{bin}••••••{}", text(&card["last4"]));
    joined(&[text(&card["brand"]), masked])
}

fn amount(data: &Value) -> String {
    let currency = text(&data["currency"]);
    let minor = data["amount_minor"].as_i64().and_then(|minor| AmountMinor::try_from(minor).ok());
    match (minor, currency.parse::<Currency>()) {
        (Some(minor), Ok(known)) => known.format(minor),
        _ => joined(&[text(&data["amount_minor"]), currency]),
    }
}

fn reasons(data: &Value) -> String {
    let codes = data["reasons"].as_array().into_iter().flatten().map(|reason| text(&reason["code"]));
    codes.collect::<Vec<_>>().join(",")
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn joined(parts: &[String]) -> String {
    let parts: Vec<&str> = parts.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
    parts.join(" ")
}

fn cut(text: &str) -> String {
    let shown: String = text.chars().take(SHOWN_CHARS).collect();
    printable(&if shown.len() < text.len() { format!("{shown}…") } else { shown })
}

/// A record must not be able to move the terminal's cursor.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    fn entry(content: Content) -> Entry {
        Entry {
            topic: "transactions.decided".to_owned(),
            partition: 2,
            offset: 41,
            timestamp_ms: 1_700_000_000_123,
            key: "tok_k1_01234567…".to_owned(),
            headers: BTreeMap::from([("reason".to_owned(), "torn\x1b[2J".to_owned())]),
            content,
        }
    }

    #[test]
    fn a_decision_is_summed_up_on_a_line() {
        let decided = json!({"type": "decided", "v": 1, "data": {
            "transaction": {"id": "txn_1", "merchant_id": "shop", "amount_minor": 10_050, "currency": "USD",
                "card": {"bin": "411111", "last4": "1111", "brand": "visa"}},
            "decision": {"outcome": "decline", "risk_score": 87,
                "reasons": [{"code": "velocity_card_count"}, {"code": "amount_over_limit"}]},
        }});
        assert_eq!(
            line(&Entry { headers: BTreeMap::new(), ..entry(Content::Value(decided)) }, false),
            "2023-11-14T22:13:20.123Z  2/41        tok_k1_01234567…  decline 87 shop 100.50 USD visa \
             411111••••••1111 txn_1 velocity_card_count,amount_over_limit"
        );
    }

    #[test]
    fn what_is_no_message_is_cut_and_cannot_move_the_cursor() {
        let long = format!("\x1b[31m{}", "x".repeat(1_000));
        let shown = line(&entry(Content::Text(long)), true);
        assert!(!shown.contains('\x1b') && shown.contains("x…\n    reason: torn"), "{shown}");
        assert!(line(&entry(Content::Hex("ff00".to_owned())), false).contains("0xff00  [torn"));
    }
}
