//! Amounts and currencies.

use events::{AmountMinor, Currency};
use proptest::prelude::*;

fn currency(code: &str) -> Currency {
    code.parse().unwrap()
}

fn amount(minor: i64) -> AmountMinor {
    AmountMinor::try_from(minor).unwrap()
}

#[test]
fn exponents_are_those_of_iso_4217() {
    for (code, exponent) in [
        ("USD", 2),
        ("EUR", 2),
        ("GBP", 2),
        ("INR", 2),
        ("HUF", 2),
        ("MGA", 2),
        ("MRU", 2),
        ("JPY", 0),
        ("KRW", 0),
        ("VND", 0),
        ("CLP", 0),
        ("ISK", 0),
        ("UGX", 0),
        ("XAF", 0),
        ("XOF", 0),
        ("XPF", 0),
        ("KWD", 3),
        ("BHD", 3),
        ("OMR", 3),
        ("TND", 3),
        ("JOD", 3),
        ("IQD", 3),
        ("LYD", 3),
        ("CLF", 4),
        ("UYW", 4),
    ] {
        assert_eq!(currency(code).exponent(), exponent, "{code}");
    }
}

#[test]
fn every_active_code_is_found_and_nothing_else() {
    let mut found = Vec::new();
    for a in b'A'..=b'Z' {
        for b in b'A'..=b'Z' {
            for c in b'A'..=b'Z' {
                let code = String::from_utf8(vec![a, b, c]).unwrap();
                if let Ok(currency) = code.parse::<Currency>() {
                    assert_eq!(currency.code(), code);
                    assert_eq!(currency.to_string(), code);
                    found.push(currency);
                }
            }
        }
    }
    assert_eq!(found.len(), 164, "the table is not sorted, or holds a code twice");
    for gone in ["DEM", "HRK", "BGN", "VEF", "SLL", "CUC", "ZWL", "ANG", "XXX", "XTS", "XAU", "AAA"] {
        assert!(gone.parse::<Currency>().is_err(), "{gone}");
    }
    for malformed in ["", "US", "USDD", "usd", "Usd", " USD", "€", "US\0"] {
        assert!(malformed.parse::<Currency>().is_err(), "{malformed:?}");
    }
}

#[test]
fn amounts_are_written_with_the_digits_of_their_currency() {
    assert_eq!(currency("USD").format(amount(10_050)), "100.50 USD");
    assert_eq!(currency("USD").format(amount(5)), "0.05 USD");
    assert_eq!(currency("USD").format(amount(0)), "0.00 USD");
    assert_eq!(currency("JPY").format(amount(500)), "500 JPY");
    assert_eq!(currency("KWD").format(amount(1_005)), "1.005 KWD");
    assert_eq!(currency("CLF").format(amount(10_001)), "1.0001 CLF");
    assert_eq!(currency("USD").format(amount(AmountMinor::MAX)), "9999999999.99 USD");
}

#[test]
fn amounts_have_bounds() {
    assert_eq!(amount(0).get(), 0);
    assert_eq!(amount(AmountMinor::MAX).get(), 999_999_999_999);
    for outside in [-1, AmountMinor::MAX + 1, i64::MIN, i64::MAX] {
        let error = AmountMinor::try_from(outside).unwrap_err();
        assert_eq!(error.to_string(), "an amount is between 0 and 999999999999 minor units");
    }
    assert!(AmountMinor::MAX.checked_mul(9_000_000).is_some(), "the documented sum must fit");
}

proptest! {
    #[test]
    fn an_amount_is_a_plain_integer_on_the_wire(minor in 0..=AmountMinor::MAX) {
        let written = serde_json::to_string(&amount(minor)).unwrap();
        prop_assert_eq!(&written, &minor.to_string());
        prop_assert_eq!(serde_json::from_str::<AmountMinor>(&written).unwrap(), amount(minor));
    }

    #[test]
    fn what_is_shown_is_the_amount_with_a_point(minor in 0..=AmountMinor::MAX, code in "USD|JPY|KWD|CLF") {
        let currency = currency(&code);
        let shown = currency.format(amount(minor));
        let digits: String = shown.chars().filter(char::is_ascii_digit).collect();
        prop_assert_eq!(digits.parse::<i64>().unwrap(), minor);
        let part = shown.split(' ').next().unwrap().split_once('.').map_or(0, |(_, part)| part.len());
        prop_assert_eq!(part, usize::from(currency.exponent()));
    }
}
