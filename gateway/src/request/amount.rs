//! Amounts: read from the text of the number, never through a float.

use std::borrow::Cow;

use events::{AmountMinor, Currency};

use super::errors::{Errors, Flaw};
use super::json::Object;

/// Digits of the largest amount, and room for leading zeros.
const DIGITS_MAX: usize = 24;

/// The canonical form: a whole number of minor units.
pub(super) fn minor_units(
    object: &mut Object<'_>,
    errors: &mut Errors,
) -> (Option<Currency>, Option<AmountMinor>) {
    let currency = currency(object, errors);
    let Some(raw) = object.take("amount") else {
        errors.missing("/amount");
        return (currency, None);
    };
    let read = raw.number().and_then(|text| {
        if text.bytes().all(|b| b.is_ascii_digit() || b == b'-') {
            checked(text.parse().ok())
        } else {
            let message = "has to be a whole number of minor units, such as 10050 for 100.50 USD";
            Err(Flaw::new("format", message))
        }
    });
    (currency, errors.keep("/amount", read))
}

/// The short form: a decimal, as a number or as a string.
pub(super) fn decimal(
    object: &mut Object<'_>,
    errors: &mut Errors,
) -> (Option<Currency>, Option<AmountMinor>) {
    let currency = currency(object, errors);
    let Some(raw) = object.take("amount") else {
        errors.missing("/amount");
        return (currency, None);
    };
    // Without a currency the digits allowed are unknown: all others are checked with the most there are.
    let exponent = currency.map_or(4, |currency| usize::from(currency.exponent()));
    let read = raw.number_or_text().and_then(|text| match scaled(&text, exponent) {
        Ok(minor) => checked(minor),
        Err(NotAnAmount::Form) => Err(Flaw::new("format", "has to be a plain decimal, such as 100.50")),
        Err(NotAnAmount::Digits) => Err(Flaw::new("precision", too_precise(currency))),
    });
    (currency, errors.keep("/amount", read))
}

fn currency(object: &mut Object<'_>, errors: &mut Errors) -> Option<Currency> {
    let Some(raw) = object.take("currency") else {
        errors.missing("/currency");
        return None;
    };
    let read = raw.text().and_then(|text: Cow<'_, str>| {
        text.parse().map_err(|e: events::money::InvalidCurrency| Flaw::new("currency", format!("is {e}")))
    });
    errors.keep("/currency", read)
}

fn checked(minor: Option<i64>) -> Result<AmountMinor, Flaw> {
    minor.filter(|&minor| minor > 0).and_then(|minor| AmountMinor::try_from(minor).ok()).ok_or_else(|| {
        let message = format!("has to be more than 0 and at most {} minor units", AmountMinor::MAX);
        Flaw::new("range", message)
    })
}

fn too_precise(currency: Option<Currency>) -> String {
    match currency.map(|currency| (currency, currency.exponent())) {
        None => "has more decimal digits than any currency".to_owned(),
        Some((currency, 0)) => format!("has decimal digits: {currency} has none"),
        Some((currency, n)) => format!("has more than {n} decimal digits: {currency} has {n}"),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NotAnAmount {
    Form,
    Digits,
}

/// `100.5` with an exponent of 2 is 10050. More digits than the exponent are refused, also zeros:
/// nothing is rounded or guessed. `None` is a number beyond an `i64`.
fn scaled(text: &str, exponent: usize) -> Result<Option<i64>, NotAnAmount> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, part) = match digits.split_once('.') {
        Some((_, "")) => return Err(NotAnAmount::Form),
        Some((whole, part)) => (whole, part),
        None => (digits, ""),
    };
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(part) {
        return Err(NotAnAmount::Form);
    }
    if part.len() > exponent {
        return Err(NotAnAmount::Digits);
    }
    if negative || whole.len() > DIGITS_MAX {
        return Ok(None);
    }
    let minor = whole
        .bytes()
        .chain(part.bytes())
        .chain(std::iter::repeat_n(b'0', exponent - part.len()))
        .try_fold(0_i64, |minor, digit| minor.checked_mul(10)?.checked_add(i64::from(digit - b'0')));
    Ok(minor)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn decimals_are_exact() {
        for (text, exponent, minor) in [
            ("100.50", 2, 10_050),
            ("100.5", 2, 10_050),
            ("100", 2, 10_000),
            ("0.01", 2, 1),
            ("1.005", 3, 1_005),
            ("500", 0, 500),
            ("90071992547409.93", 2, 9_007_199_254_740_993),
        ] {
            assert_eq!(scaled(text, exponent), Ok(Some(minor)), "{text}");
        }
    }

    #[test]
    fn nothing_is_rounded_and_nothing_is_guessed() {
        assert_eq!(scaled("0.001", 2), Err(NotAnAmount::Digits));
        assert_eq!(scaled("500.0", 0), Err(NotAnAmount::Digits));
        assert_eq!(scaled("100.500", 2), Err(NotAnAmount::Digits));
        for text in
            ["", ".", "1.", ".5", "1e2", "1E2", "NaN", "Infinity", "1,5", "1_000", "0x10", " 1", "+1", "--1"]
        {
            assert_eq!(scaled(text, 2), Err(NotAnAmount::Form), "{text}");
        }
        assert_eq!(scaled("-1.00", 2), Ok(None));
        assert_eq!(scaled("99999999999999999999", 2), Ok(None));
    }

    proptest! {
        #[test]
        fn every_amount_is_read_back_from_how_people_write_it(minor in 1..=AmountMinor::MAX, code in "(USD|JPY|KWD|CLF)") {
            let currency: Currency = code.parse().unwrap();
            let written = currency.format(AmountMinor::try_from(minor).unwrap());
            let digits = written.split(' ').next().unwrap();
            prop_assert_eq!(scaled(digits, usize::from(currency.exponent())), Ok(Some(minor)));
        }
    }
}
