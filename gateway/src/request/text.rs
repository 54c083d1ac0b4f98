//! Free text, and card numbers where none belong.

use crate::pan::{Pan, brand, luhn};

use super::errors::Flaw;
use super::json::Raw;

/// A field that holds any text up to a length, without control characters.
pub(crate) struct FreeText {
    pub(crate) chars_max: usize,
}

impl FreeText {
    /// Reads and checks a text. `own` is the request's own card number.
    pub(crate) fn read(&self, raw: Raw<'_>, own: Option<&Pan>) -> Result<String, Flaw> {
        let text = raw.text()?;
        self.check(&text, own)?;
        Ok(text.into_owned())
    }

    pub(crate) fn check(&self, text: &str, own: Option<&Pan>) -> Result<(), Flaw> {
        if text.is_empty() {
            return Err(Flaw::new("format", "is empty: leave it out instead"));
        }
        // Bytes are an upper bound of characters, and nearly always enough to know.
        if text.len() > self.chars_max && text.chars().count() > self.chars_max {
            return Err(Flaw::new("too_long", format!("is longer than {} characters", self.chars_max)));
        }
        if text.chars().any(char::is_control) {
            return Err(Flaw::new("format", "holds a control character"));
        }
        refuse_card_numbers(text, own)
    }
}

/// Refuses a text that holds what looks like a card number: it would be stored as it is.
pub(super) fn refuse_card_numbers(text: &str, own: Option<&Pan>) -> Result<(), Flaw> {
    if looks_like_card_number(text) || own.is_some_and(|pan| holds_digits_of(text, pan)) {
        return Err(card_number_in_text());
    }
    Ok(())
}

pub(super) fn card_number_in_text() -> Flaw {
    let message = "holds what looks like a card number: send card numbers in the card's number field only";
    Flaw::new("card_number_in_text", message)
}

/// The characters people write between the groups of a card number.
const fn is_separator(c: char) -> bool {
    matches!(c, ' ' | '-' | '.' | '_' | '/' | '\u{a0}' | '\u{2010}'..='\u{2015}')
}

/// Whether a run of digits in the text, with or without separators, is a number of a known scheme with
/// a valid check digit. Numbers of no scheme pass: one order number in ten has a valid check digit.
pub(crate) fn looks_like_card_number(text: &str) -> bool {
    if text.bytes().filter(u8::is_ascii_digit).count() < 14 {
        return false;
    }
    let mut run = Run::default();
    let mut separated = false;
    for c in text.chars() {
        if c.is_ascii_digit() {
            if separated || run.digits.is_empty() {
                run.group_starts.push(run.digits.len());
            }
            separated = false;
            #[allow(clippy::cast_possible_truncation)] // an ASCII digit
            run.digits.push(c as u32 as u8);
        } else if is_separator(c) && !separated {
            separated = true;
        } else {
            if run.holds_card_number() {
                return true;
            }
            run = Run::default();
            separated = false;
        }
    }
    run.holds_card_number()
}

/// Digits with at most one separator between any two, and where its groups begin.
#[derive(Default)]
struct Run {
    digits: Vec<u8>,
    group_starts: Vec<usize>,
}

impl Run {
    fn holds_card_number(&self) -> bool {
        self.group_starts.iter().any(|&start| {
            let rest = &self.digits[start..];
            if rest.len() < 14 {
                return false;
            }
            let lengths: &[usize] = match brand(rest) {
                "unknown" => &[],
                "amex" => &[15],
                "diners" => &[14, 16],
                _ => &[16],
            };
            lengths.iter().any(|&len| rest.get(..len).is_some_and(luhn))
                || (!lengths.is_empty() && self.ends_as_a_longer_number(start))
        })
    }

    /// Some issuers have numbers of 17 to 19 digits: only looked for where a group ends.
    fn ends_as_a_longer_number(&self, start: usize) -> bool {
        let ends = self.group_starts.iter().copied().chain([self.digits.len()]);
        ends.into_iter()
            .any(|end| end > start && (17..=19).contains(&(end - start)) && luhn(&self.digits[start..end]))
    }
}

/// Whether the digits of the text hold those of the card number, whatever stands between them.
pub(super) fn holds_digits_of(text: &str, pan: &Pan) -> bool {
    let number = pan.digits();
    if text.bytes().filter(u8::is_ascii_digit).count() < number.len() {
        return false;
    }
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_digit).collect();
    digits.windows(number.len()).any(|window| window == number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn card_numbers_are_found_however_they_are_written() {
        for text in [
            "4111111111111111",
            "card 4111 1111 1111 1111 please",
            "4111-1111-1111-1111",
            "4111.1111.1111.1111",
            "pan=5555555555554444;",
            "4111 1111 1111 1111 12/27",
            "41111111111111111227",
            "4111 1111 1111 1111 123",
            "ref 12 4111111111111111",
            "378282246310005",
            "3782 822463 10005",
            "30569309025904",
            "6011\u{a0}1111\u{a0}1111\u{a0}1117",
        ] {
            assert!(looks_like_card_number(text), "{text}");
        }
    }

    #[test]
    fn ordinary_numbers_pass() {
        for text in [
            "",
            "order 4711",
            "+4915112345678",
            "1732170000000",
            "1732170000000000",
            "4111111111111112",
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/131.0.6778.204 Safari/537.36",
            "550e8400-e29b-41d4-a716-446655440000",
            "192.168.100.200",
            "2026-11-21T06:28:09.123456Z",
        ] {
            assert!(!looks_like_card_number(text), "{text}");
        }
    }

    #[test]
    fn the_requests_own_number_is_found_even_without_a_known_scheme() {
        let pan = Pan::parse("9999999999999995").unwrap();
        assert!(!looks_like_card_number("9999999999999995"));
        assert!(refuse_card_numbers("x9999:9999:9999:9995x", Some(&pan)).is_err());
        assert!(refuse_card_numbers("9999999999999994", Some(&pan)).is_ok());
    }
}
