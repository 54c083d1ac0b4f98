//! The amount in the reporting currency, in exact integer arithmetic.

use std::collections::BTreeMap;
use std::str::FromStr;

use events::{AmountMinor, Currency};

/// Digits of a rate, before and after its point together.
const RATE_DIGITS_MAX: usize = 18;

/// Units of the reporting currency per unit of another: `mantissa / 10^scale`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rate {
    mantissa: i128,
    scale: u32,
}

/// A text that is not a rate.
#[derive(Debug, thiserror::Error)]
#[error("expected a positive decimal such as \"1.0842\" with at most {RATE_DIGITS_MAX} digits")]
pub(crate) struct InvalidRate;

impl FromStr for Rate {
    type Err = InvalidRate;

    fn from_str(text: &str) -> Result<Self, InvalidRate> {
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let digits = [whole, part].concat();
        let well_formed = !whole.is_empty()
            && (part.is_empty() != text.contains('.'))
            && digits.len() <= RATE_DIGITS_MAX
            && digits.bytes().all(|b| b.is_ascii_digit());
        if !well_formed {
            return Err(InvalidRate);
        }
        let mantissa: i128 = digits.parse().map_err(|_| InvalidRate)?;
        let scale = u32::try_from(part.len()).map_err(|_| InvalidRate)?;
        if mantissa == 0 { Err(InvalidRate) } else { Ok(Self { mantissa, scale }) }
    }
}

/// Converts amounts for reports.
#[derive(Debug)]
pub(crate) struct Reporting {
    currency: Currency,
    rates: BTreeMap<Currency, Rate>,
}

impl Reporting {
    pub(crate) fn new(currency: &str, rates: &BTreeMap<String, String>) -> anyhow::Result<Self> {
        let currency: Currency = currency.parse()?;
        let mut parsed = BTreeMap::from([(currency, Rate { mantissa: 1, scale: 0 })]);
        for (code, rate) in rates {
            parsed.insert(code.parse()?, rate.parse()?);
        }
        Ok(Self { currency, rates: parsed })
    }

    /// The amount in minor units of the reporting currency, half to even; nothing without a rate.
    pub(crate) fn convert(&self, amount: AmountMinor, currency: Currency) -> Option<i64> {
        let rate = self.rates.get(&currency)?;
        // At most 10^12 * 10^18 * 10^4: within an i128.
        let dividend =
            i128::from(amount.get()) * rate.mantissa * 10_i128.pow(u32::from(self.currency.exponent()));
        let divisor = 10_i128.pow(rate.scale + u32::from(currency.exponent()));
        i64::try_from(divide_half_even(dividend, divisor)).ok()
    }
}

fn divide_half_even(dividend: i128, divisor: i128) -> i128 {
    let (quotient, rest) = (dividend / divisor, dividend % divisor);
    let up = match (rest * 2).cmp(&divisor) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Equal => quotient % 2 == 1,
        std::cmp::Ordering::Greater => true,
    };
    quotient + i128::from(up)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn convert(amount: i64, currency: &str) -> Option<i64> {
        let rates = [("EUR", "1.5"), ("JPY", "0.0065"), ("KWD", "3.25"), ("GBP", "0.25")]
            .map(|(code, rate)| (code.to_owned(), rate.to_owned()));
        Reporting::new("USD", &BTreeMap::from(rates))
            .unwrap()
            .convert(AmountMinor::try_from(amount).unwrap(), currency.parse().unwrap())
    }

    #[test]
    fn amounts_convert_between_currencies_of_different_exponents() {
        assert_eq!(convert(10_050, "USD"), Some(10_050));
        assert_eq!(convert(1_000, "EUR"), Some(1_500));
        assert_eq!(convert(10_000, "JPY"), Some(6_500));
        assert_eq!(convert(1_000, "KWD"), Some(325));
        assert_eq!(convert(1_000, "CHF"), None);
    }

    #[test]
    fn halves_round_to_even() {
        assert_eq!(convert(1, "EUR"), Some(2)); // 1.5
        assert_eq!(convert(3, "EUR"), Some(4)); // 4.5
        assert_eq!(convert(2, "GBP"), Some(0)); // 0.5
        assert_eq!(convert(6, "GBP"), Some(2)); // 1.5
        assert_eq!(convert(3, "GBP"), Some(1)); // 0.75
    }

    #[test]
    fn the_largest_amount_does_not_overflow() {
        let rates = BTreeMap::from([("UYW".to_owned(), "999999999999999999".to_owned())]);
        let reporting = Reporting::new("CLF", &rates).unwrap();
        let most = AmountMinor::try_from(AmountMinor::MAX).unwrap();
        assert_eq!(reporting.convert(most, "UYW".parse().unwrap()), None);
    }

    #[test]
    fn what_is_not_a_plain_positive_decimal_is_no_rate() {
        for bad in
            ["", ".", "1.", ".5", "-1", "+1", "1e3", "0", "0.000", "1,5", "1.2.3", "1234567890123456789"]
        {
            assert!(bad.parse::<Rate>().is_err(), "{bad:?}");
        }
    }
}
