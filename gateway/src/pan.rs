//! The card number. It lives as short as possible, prints as stars and wipes its memory.

use std::fmt;

use events::TestBehaviour;
use zeroize::{Zeroize, ZeroizeOnDrop};

const DIGITS_MIN: usize = 12;
const DIGITS_MAX: usize = 19;
/// A text longer than this, separators included, is not a card number.
const TEXT_MAX: usize = 64;

/// A card number: 12 to 19 digits with a valid check digit.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(crate) struct Pan {
    digits: [u8; DIGITS_MAX],
    len: usize,
}

/// Why a text is not a card number. Never holds the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InvalidPan {
    Characters,
    Length,
    CheckDigit,
}

impl Pan {
    /// Reads a card number; spaces and dashes between the digits are ignored.
    pub(crate) fn parse(text: &str) -> Result<Self, InvalidPan> {
        if text.len() > TEXT_MAX {
            return Err(InvalidPan::Length);
        }
        let mut pan = Self { digits: [0; DIGITS_MAX], len: 0 };
        for byte in text.bytes() {
            match byte {
                b'0'..=b'9' if pan.len == DIGITS_MAX => return Err(InvalidPan::Length),
                b'0'..=b'9' => {
                    pan.digits[pan.len] = byte;
                    pan.len += 1;
                }
                b' ' | b'-' => {}
                _ => return Err(InvalidPan::Characters),
            }
        }
        if pan.len < DIGITS_MIN {
            return Err(InvalidPan::Length);
        }
        // No issuer's range begins with 0, and a row of zeros has a valid check digit.
        if pan.digits[0] == b'0' || !luhn(pan.digits()) {
            return Err(InvalidPan::CheckDigit);
        }
        Ok(pan)
    }

    /// The digits, for the tokeniser and for finding the number in other fields.
    pub(crate) fn digits(&self) -> &[u8] {
        &self.digits[..self.len]
    }

    /// The issuer: eight digits of a long number, six of a short one.
    pub(crate) fn bin(&self) -> String {
        text(&self.digits[..if self.len >= 16 { 8 } else { 6 }])
    }

    pub(crate) fn last4(&self) -> String {
        text(&self.digits[self.len - 4..self.len])
    }

    /// The scheme by the number's first digits, whatever its length.
    pub(crate) fn brand(&self) -> &'static str {
        brand(self.digits())
    }

    /// What a documented test card asks for.
    pub(crate) fn test_behaviour(&self) -> Option<TestBehaviour> {
        match self.digits() {
            b"4000000000000002" => Some(TestBehaviour::Decline),
            b"4100000000000019" => Some(TestBehaviour::Block),
            b"4000000000009235" => Some(TestBehaviour::ElevatedRisk),
            _ => None,
        }
    }
}

impl fmt::Debug for Pan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("****")
    }
}

fn text(digits: &[u8]) -> String {
    digits.iter().copied().map(char::from).collect()
}

/// Whether the last digit is the check digit of the others (ISO/IEC 7812-1).
pub(crate) fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(i, byte)| match u32::from(byte - b'0') {
            digit if i % 2 == 0 => digit,
            digit if digit < 5 => digit * 2,
            digit => digit * 2 - 9,
        })
        .sum();
    sum.is_multiple_of(10)
}

/// The scheme that issues numbers beginning with these digits; at least six are needed.
pub(crate) fn brand(digits: &[u8]) -> &'static str {
    let Some(first) = digits.get(..6) else { return "unknown" };
    let prefix = |len: usize| first[..len].iter().fold(0_u32, |n, b| n * 10 + u32::from(b - b'0'));
    match (prefix(1), prefix(2), prefix(3), prefix(4)) {
        (4, ..) => "visa",
        (_, 51..=55, ..) | (_, _, _, 2221..=2720) => "mastercard",
        (_, 34 | 37, ..) => "amex",
        (_, 65, ..) | (_, _, 644..=649, _) | (_, _, _, 6011) => "discover",
        (_, _, _, 3528..=3589) => "jcb",
        (_, 36 | 38 | 39, ..) | (_, _, 300..=305, _) => "diners",
        (_, 62 | 81, ..) => "unionpay",
        (_, _, _, 2200..=2204) => "mir",
        _ => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_do_not_make_another_number() {
        let plain = Pan::parse("4111111111111111").unwrap();
        for text in ["4111 1111 1111 1111", "4111-1111-1111-1111", " 41111111 11111111 "] {
            assert_eq!(Pan::parse(text).unwrap().digits(), plain.digits(), "{text}");
        }
        assert_eq!((plain.bin().as_str(), plain.last4().as_str()), ("41111111", "1111"));
        let amex = Pan::parse("378282246310005").unwrap();
        assert_eq!((amex.bin().as_str(), amex.last4().as_str(), amex.brand()), ("378282", "0005", "amex"));
    }

    #[test]
    fn what_is_not_a_card_number_is_refused_with_its_reason() {
        for (text, reason) in [
            ("", InvalidPan::Length),
            ("41111111111", InvalidPan::Length),
            ("41111111111111111111", InvalidPan::Length),
            ("4111111111111112", InvalidPan::CheckDigit),
            ("0000000000000000", InvalidPan::CheckDigit),
            ("4111x11111111111", InvalidPan::Characters),
            ("４１１１１１１１１１１１１１１１", InvalidPan::Characters),
        ] {
            assert_eq!(Pan::parse(text).unwrap_err(), reason, "{text}");
        }
    }

    #[test]
    fn the_schemes_are_told_by_their_ranges() {
        for (number, scheme) in [
            ("4242424242424242", "visa"),
            ("5555555555554444", "mastercard"),
            ("2223003122003222", "mastercard"),
            ("6011111111111117", "discover"),
            ("3530111333300000", "jcb"),
            ("30569309025904", "diners"),
            ("6200000000000005", "unionpay"),
            ("2200000000000004", "mir"),
            ("9999999999999995", "unknown"),
        ] {
            assert_eq!(Pan::parse(number).unwrap().brand(), scheme, "{number}");
        }
    }

    #[test]
    fn the_test_cards_are_known() {
        let behaviour = |number| Pan::parse(number).unwrap().test_behaviour();
        assert_eq!(behaviour("4000 0000 0000 0002"), Some(TestBehaviour::Decline));
        assert_eq!(behaviour("4100 0000 0000 0019"), Some(TestBehaviour::Block));
        assert_eq!(behaviour("4000 0000 0000 9235"), Some(TestBehaviour::ElevatedRisk));
        assert_eq!(behaviour("4242 4242 4242 4242"), None);
    }

    #[test]
    fn a_card_number_does_not_print() {
        let pan = Pan::parse("4111111111111111").unwrap();
        assert_eq!(format!("{pan:?} {:#?}", Some(&pan)), "**** Some(\n    ****,\n)");
    }
}
