//! What is shown of a record's personal data: enough to tell one card or customer from another, not enough
//! to find them.

use std::net::IpAddr;

use serde_json::Value;

/// In place of what is left out.
const GAP: &str = "•••";
/// Fields that would hold a card's secrets, were an undecodable record from elsewhere to have them.
const SECRET_FIELDS: [&str; 9] =
    ["card_number", "number", "pan", "cvv", "cvc", "cvv2", "cvc2", "security_code", "pin"];
/// Hexadecimal digits of a card token that are shown: enough to follow a card by eye.
const TOKEN_DIGITS: usize = 8;
/// Digits of a telephone number after its `+`, at most.
const PHONE_DIGITS_MAX: usize = 15;
/// A card number's length.
const PAN_DIGITS: std::ops::RangeInclusive<usize> = 13..=19;

/// What is left to be seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mask {
    /// Tokens shortened; e-mail addresses, telephone numbers and addresses on the internet masked.
    Personal,
    /// Only what may be a card's number or code, which is never shown.
    CardsOnly,
}

impl Mask {
    /// Masks a message in place.
    pub(crate) fn value(self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.text(text),
            Value::Array(items) => items.iter_mut().for_each(|item| self.value(item)),
            Value::Object(fields) => {
                for (name, field) in fields.iter_mut() {
                    self.field(name, field);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn field(self, name: &str, value: &mut Value) {
        let is_plain = value.is_string() || value.is_number();
        match value {
            _ if is_plain && SECRET_FIELDS.contains(&name) => *value = Value::String(GAP.to_owned()),
            Value::String(text) if self == Self::Personal && name == "phone" => *text = phone(text),
            other => self.value(other),
        }
    }

    /// Masks a text, such as a key, word by word.
    pub(crate) fn text(self, text: &str) -> String {
        let text = card_numbers(text);
        if self == Self::CardsOnly {
            return text;
        }
        let mut masked = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while !rest.is_empty() {
            let in_word = |c: char| c.is_alphanumeric() || "@.:_+-/%".contains(c);
            let end = rest.find(|c| !in_word(c)).unwrap_or(rest.len());
            let (before, after) = rest.split_at(end);
            masked.push_str(&word(before));
            let gap = after.find(in_word).unwrap_or(after.len());
            masked.push_str(&after[..gap]);
            rest = &after[gap..];
        }
        masked
    }
}

fn word(word: &str) -> String {
    let trimmed = word.trim_end_matches(['.', ':', '/', '-']);
    let (word, end) = word.split_at(trimmed.len());
    format!("{}{end}", personal(word).unwrap_or_else(|| word.to_owned()))
}

fn personal(word: &str) -> Option<String> {
    if let Some((key, digits)) = word.strip_prefix("tok_").and_then(|rest| rest.split_once('_')) {
        let shown: String = digits.chars().take(TOKEN_DIGITS).collect();
        return (shown.len() < digits.len()).then(|| format!("tok_{key}_{shown}…"));
    }
    if let Some((name, domain)) = word.split_once('@') {
        let first: String = name.chars().take(1).collect();
        return Some(format!("{first}{GAP}@{domain}"));
    }
    if let Some(digits) = word.strip_prefix('+') {
        let is_phone = digits.len() >= 7 && digits.bytes().all(|b| b.is_ascii_digit());
        return is_phone.then(|| phone(word));
    }
    // A network is nobody in particular.
    match word.parse().ok()? {
        IpAddr::V4(ip) => {
            let [a, b, _, _] = ip.octets();
            Some(format!("{a}.{b}.•.•"))
        }
        IpAddr::V6(ip) => {
            let [a, b, ..] = ip.segments();
            Some(format!("{a:x}:{b:x}:{GAP}"))
        }
    }
}

fn phone(number: &str) -> String {
    let chars: Vec<char> = number.chars().collect();
    if chars.len() < 8 {
        return GAP.to_owned();
    }
    let (start, end): (String, String) =
        (chars[..3].iter().collect(), chars[chars.len() - 2..].iter().collect());
    format!("{start}{GAP}{end}")
}

/// Masks runs of digits that are as long as a card number and pass its check, with spaces or hyphens between
/// them or not.
fn card_numbers(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut masked = String::with_capacity(text.len());
    let mut kept = 0;
    let mut at = 0;
    while at < bytes.len() {
        let begins = bytes[at].is_ascii_digit() && (at == 0 || !bytes[at - 1].is_ascii_alphanumeric());
        if !begins {
            at += 1;
            continue;
        }
        let mut digits = Vec::new();
        let mut end = at;
        let mut next = at;
        while next < bytes.len() {
            match bytes[next] {
                digit @ b'0'..=b'9' => {
                    digits.push(digit - b'0');
                    end = next + 1;
                }
                b' ' | b'-' if bytes[next - 1].is_ascii_digit() => {}
                _ => break,
            }
            next += 1;
        }
        let alone = bytes.get(end).is_none_or(|byte| !byte.is_ascii_alphanumeric());
        let is_phone = at > 0 && bytes[at - 1] == b'+' && digits.len() <= PHONE_DIGITS_MAX;
        if alone && !is_phone && PAN_DIGITS.contains(&digits.len()) && passes_luhn(&digits) {
            let digit = |d: &u8| char::from(b'0' + d);
            masked.push_str(&text[kept..at]);
            masked.extend(digits[..6].iter().map(digit));
            masked.push_str("••••••");
            masked.extend(digits[digits.len() - 4..].iter().map(digit));
            kept = end;
        }
        at = end.max(at + 1);
    }
    masked.push_str(&text[kept..]);
    masked
}

fn passes_luhn(digits: &[u8]) -> bool {
    let doubled = |d: u8| if d > 4 { 2 * d - 9 } else { 2 * d };
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, &digit)| u32::from(if place % 2 == 1 { doubled(digit) } else { digit }))
        .sum();
    sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_message_shows_whom_it_is_about_without_saying_who_that_is() {
        let mut message = json!({
            "card": {"token": "tok_k1_0123456789abcdef0123456789abcdef", "bin": "411111", "last4": "1111"},
            "customer": {"id": "c_1", "email": "jane.doe@example.com", "phone": "+4915112345678"},
            "device": {"ip": "203.0.113.9"}, "accepted_at_us": 1_700_000_000_000_000_i64,
            "reasons": [{"message": "5 cards from 2001:db8::7, the last by jane@example.com."}],
        });
        Mask::Personal.value(&mut message);
        assert_eq!(
            message,
            json!({
                "card": {"token": "tok_k1_01234567…", "bin": "411111", "last4": "1111"},
                "customer": {"id": "c_1", "email": "j•••@example.com", "phone": "+49•••78"},
                "device": {"ip": "203.0.•.•"}, "accepted_at_us": 1_700_000_000_000_000_i64,
                "reasons": [{"message": "5 cards from 2001:db8:•••, the last by j•••@example.com."}],
            })
        );
    }

    #[test]
    fn what_may_be_a_card_number_is_never_shown() {
        for mask in [Mask::Personal, Mask::CardsOnly] {
            let text = mask.text(r#"{"card":"4111 1111 1111 1111","n":4111111111111111"#);
            assert_eq!(text, r#"{"card":"411111••••••1111","n":411111••••••1111"#);
            let mut value = json!({"card_number": 4_111_111_111_111_111_u64, "cvc": "123", "note": "4000-0000-0000-0002"});
            mask.value(&mut value);
            assert_eq!(value, json!({"card_number": "•••", "cvc": "•••", "note": "400000••••••0002"}));
        }
    }

    #[test]
    fn what_is_no_ones_stays_as_it_is() {
        for text in [
            "txn_0190b6f4a4a47c8e9f7a6d5c4b3a2910",
            "block_ip all 203.0.113.0/24",
            "4111111111111112",
            "v4111111111111111",
            "amount_over_limit",
            "1.5",
            "",
        ] {
            assert_eq!(Mask::Personal.text(text), text);
        }
        assert_eq!(Mask::Personal.text("block_ip all 203.0.113.7"), "block_ip all 203.0.•.•");
        // This one passes a card number's check.
        assert_eq!(Mask::Personal.text("\"+4915112345678\""), "\"+49•••78\"");
        assert_eq!(
            Mask::CardsOnly.text("203.0.113.7 a@b.c tok_k1_0123456789"),
            "203.0.113.7 a@b.c tok_k1_0123456789"
        );
    }
}
