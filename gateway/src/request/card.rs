//! The card: number, expiry, and the security code, which is checked for its form and forgotten.

use crate::pan::{InvalidPan, Pan};

use super::errors::{Errors, Flaw};
use super::json::{Object, Raw};

/// No issuer's cards are valid for longer.
const YEARS_AHEAD_MAX: u16 = 30;
/// A card is valid until its month has ended everywhere on Earth.
const LAST_TIME_ZONE_US: i64 = 12 * 3_600 * 1_000_000;

/// A card as submitted, without its security code.
#[derive(Debug)]
pub(crate) struct SubmittedCard {
    pub(crate) pan: Pan,
    pub(crate) exp_month: u8,
    pub(crate) exp_year: u16,
}

/// Where the fields of a card stand in a form.
struct Places {
    number: (&'static str, &'static str),
    exp_month: (&'static str, &'static str),
    exp_year: (&'static str, &'static str),
    cvc: (&'static str, &'static str),
    cvv: (&'static str, &'static str),
    /// Which of the two names an error uses when neither is there.
    asked_for: &'static str,
}

const NESTED: Places = Places {
    number: ("number", "/card/number"),
    exp_month: ("exp_month", "/card/exp_month"),
    exp_year: ("exp_year", "/card/exp_year"),
    cvc: ("cvc", "/card/cvc"),
    cvv: ("cvv", "/card/cvv"),
    asked_for: "/card/cvc",
};

const FLAT: Places = Places {
    number: ("card_number", "/card_number"),
    exp_month: ("expiry_month", "/expiry_month"),
    exp_year: ("expiry_year", "/expiry_year"),
    cvc: ("cvc", "/cvc"),
    cvv: ("cvv", "/cvv"),
    asked_for: "/cvv",
};

/// The canonical form: an object `card`.
pub(super) fn nested(object: &mut Object<'_>, now_us: i64, errors: &mut Errors) -> Option<SubmittedCard> {
    let present = object.holds("card");
    let Some(mut card) = object.take_object("card", "/card", errors) else {
        if !present {
            errors.missing("/card");
        }
        return None;
    };
    let read = read(&mut card, &NESTED, now_us, errors);
    card.finish(errors);
    read
}

/// The short form: the card's fields beside the others.
pub(super) fn flat(object: &mut Object<'_>, now_us: i64, errors: &mut Errors) -> Option<SubmittedCard> {
    read(object, &FLAT, now_us, errors)
}

fn read(object: &mut Object<'_>, places: &Places, now_us: i64, errors: &mut Errors) -> Option<SubmittedCard> {
    let mut required = |(name, pointer), errors: &mut Errors| {
        let raw = object.take(name);
        if raw.is_none() {
            errors.missing(pointer);
        }
        raw
    };
    let pan = required(places.number, errors).and_then(|raw| errors.keep(places.number.1, number(raw)));
    let month =
        required(places.exp_month, errors).and_then(|raw| errors.keep(places.exp_month.1, exp_month(raw)));
    let year =
        required(places.exp_year, errors).and_then(|raw| errors.keep(places.exp_year.1, exp_year(raw)));
    security_code(object, places, pan.as_ref(), errors);
    let (exp_month, exp_year) = (month?, year?);
    if let Err((pointer, flaw)) = in_force(exp_month, exp_year, places, now_us) {
        errors.add(pointer, flaw);
    }
    Some(SubmittedCard { pan: pan?, exp_month, exp_year })
}

/// Reads a card number.
pub(crate) fn number(raw: Raw<'_>) -> Result<Pan, Flaw> {
    let text = raw.text().map_err(|_| Flaw::new("type", "has to be a string of digits"))?;
    Pan::parse(&text).map_err(|e| match e {
        InvalidPan::Characters => Flaw::new("format", "has to be digits, with spaces or dashes at most"),
        InvalidPan::Length => Flaw::new("format", "has to have 12 to 19 digits"),
        InvalidPan::CheckDigit => Flaw::new("luhn", "is not a valid card number: a digit is wrong"),
    })
}

fn exp_month(raw: Raw<'_>) -> Result<u8, Flaw> {
    let flaw = || Flaw::new("range", "has to be a whole number from 1 to 12");
    let text = raw.number_or_text()?;
    let month: u8 = small_number(&text, 1..=2).and_then(|n| n.try_into().ok()).ok_or_else(flaw)?;
    (1..=12).contains(&month).then_some(month).ok_or_else(flaw)
}

fn exp_year(raw: Raw<'_>) -> Result<u16, Flaw> {
    let flaw = || Flaw::new("format", "has to be a year of two or four digits");
    let text = raw.number_or_text()?;
    let year = small_number(&text, 2..=4).filter(|_| text.len() != 3).ok_or_else(flaw)?;
    Ok(if text.len() == 2 { 2000 + year } else { year })
}

/// Digits only: `1e1`, `12.0` and `+12` are not months.
fn small_number(text: &str, len: std::ops::RangeInclusive<usize>) -> Option<u16> {
    let digits = len.contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

/// The code goes no further than this function: its form is checked, and that it is there.
fn security_code(object: &mut Object<'_>, places: &Places, pan: Option<&Pan>, errors: &mut Errors) {
    let (cvc, cvv) = (object.take(places.cvc.0), object.take(places.cvv.0));
    if cvc.is_some() && cvv.is_some() {
        errors.add(places.cvv.1, Flaw::new("conflict", "is the same as `cvc`: send one of them"));
    }
    if cvc.is_none() && cvv.is_none() {
        errors.missing(places.asked_for);
    }
    let amex = pan.map(|pan| pan.brand() == "amex");
    for (raw, pointer) in [(cvc, places.cvc.1), (cvv, places.cvv.1)] {
        let Some(raw) = raw else { continue };
        let checked = raw.text().and_then(|code| {
            let digits = code.bytes().all(|b| b.is_ascii_digit());
            let (fits, message) = match amex {
                Some(true) => (code.len() == 4, "has to be a string of 4 digits for this card"),
                Some(false) => (code.len() == 3, "has to be a string of 3 digits for this card"),
                None => (matches!(code.len(), 3 | 4), "has to be a string of 3 or 4 digits"),
            };
            (digits && fits).then_some(()).ok_or_else(|| Flaw::new("format", message))
        });
        errors.keep(pointer, checked);
    }
}

/// Whether the card has not expired at the accept time, and its year is one that cards have.
fn in_force(month: u8, year: u16, places: &Places, now_us: i64) -> Result<(), (&'static str, Flaw)> {
    let latest = jiff::Timestamp::from_microsecond(now_us - LAST_TIME_ZONE_US).unwrap_or_default();
    let today = jiff::tz::Offset::UTC.to_datetime(latest).date();
    let this_year = u16::try_from(today.year()).unwrap_or_default();
    let this_month = u8::try_from(today.month()).unwrap_or_default();
    if year > this_year + YEARS_AHEAD_MAX {
        let message = format!("is more than {YEARS_AHEAD_MAX} years ahead");
        return Err((places.exp_year.1, Flaw::new("range", message)));
    }
    if year < this_year {
        return Err((places.exp_year.1, Flaw::new("expired", "is past: the card has expired")));
    }
    if (year, month) < (this_year, this_month) {
        return Err((places.exp_month.1, Flaw::new("expired", "is past: the card has expired")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expired_at(month: u8, year: u16, now: &str) -> bool {
        let now: jiff::Timestamp = now.parse().unwrap();
        in_force(month, year, &FLAT, now.as_microsecond()).is_err()
    }

    #[test]
    fn a_card_is_valid_until_its_month_has_ended_everywhere() {
        assert!(!expired_at(11, 2026, "2026-11-21T00:00:00Z"));
        assert!(!expired_at(11, 2026, "2026-12-01T11:59:59Z"), "it is still November west of here");
        assert!(expired_at(11, 2026, "2026-12-01T12:00:00Z"));
        assert!(expired_at(12, 2025, "2026-11-21T00:00:00Z"));
        assert!(!expired_at(1, 2056, "2026-11-21T00:00:00Z"));
        assert!(expired_at(1, 2057, "2026-11-21T00:00:00Z"));
    }
}
