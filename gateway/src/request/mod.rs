//! From a body in either form to one [`Submission`], or to every error in it at once.
//!
//! - [`json`]: objects of JSON whose numbers keep their text.
//! - [`errors`]: collecting what is wrong.
//! - [`text`]: free text, and card numbers where none belong.
//! - [`amount`]: exact amounts.
//! - [`card`]: number, expiry, security code.
//! - [`parties`]: customer, device, addresses, place.

mod amount;
mod card;
mod errors;
mod json;
mod parties;
mod text;

use std::collections::BTreeMap;
use std::time::Duration;

use events::{Address, AmountMinor, Currency, Customer, Device, Location};

pub(crate) use card::{SubmittedCard, number as card_number};
pub(crate) use errors::{Errors, Flaw};
pub(crate) use json::Object;
pub(crate) use text::{FreeText, looks_like_card_number};

use crate::config::REQUEST_DEADLINE_MAX_MS;
use crate::problem::Problem;

/// The header that names a retry.
pub(crate) const IDEMPOTENCY_KEY: &str = "Idempotency-Key";
const IDEMPOTENCY_KEY_MAX: usize = 255;
const METADATA_PAIRS_MAX: usize = 50;
const METADATA_KEY: FreeText = FreeText { chars_max: 40 };
const METADATA_VALUE: FreeText = FreeText { chars_max: 500 };
const TERMINAL_ID: FreeText = FreeText { chars_max: 64 };

/// Which of the two documented bodies is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// `amount` in minor units, `card` an object.
    Canonical,
    /// `amount` as a decimal, the card's fields beside it.
    Short,
}

/// A valid request, before the card number is replaced.
#[derive(Debug)]
pub(crate) struct Submission {
    pub(crate) amount: AmountMinor,
    pub(crate) currency: Currency,
    pub(crate) card: SubmittedCard,
    pub(crate) customer: Customer,
    pub(crate) device: Device,
    pub(crate) billing: Address,
    pub(crate) shipping: Address,
    pub(crate) location: Option<Location>,
    pub(crate) mcc: Option<String>,
    pub(crate) terminal_id: Option<String>,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) deadline: Option<Duration>,
    pub(crate) idempotency_key: Option<String>,
}

/// Reads a body. `now_us` is the accept time, which expiry is measured against.
pub(crate) fn parse(
    body: &[u8],
    form: Form,
    header_key: Option<&[u8]>,
    now_us: i64,
) -> Result<Submission, Problem> {
    let mut object = Object::of_body(body)?;
    let mut errors = Errors::default();
    let e = &mut errors;
    let (currency, amount) = match form {
        Form::Canonical => amount::minor_units(&mut object, e),
        Form::Short => amount::decimal(&mut object, e),
    };
    let card = match form {
        Form::Canonical => card::nested(&mut object, now_us, e),
        Form::Short => card::flat(&mut object, now_us, e),
    };
    // Every other text is searched for the number just read, beside what looks like any number.
    let own = card.as_ref().map(|card| &card.pan);
    let customer = parties::customer(&mut object, own, e);
    let device = parties::device(&mut object, own, e);
    let billing = parties::address(&mut object, &parties::BILLING, own, e);
    let shipping = parties::address(&mut object, &parties::SHIPPING, own, e);
    let location = parties::location(&mut object, e);
    let mcc = object.take("mcc").and_then(|raw| e.keep("/mcc", merchant_category(raw)));
    let terminal_id =
        object.take("terminal_id").and_then(|raw| e.keep("/terminal_id", TERMINAL_ID.read(raw, own)));
    let metadata = metadata(&mut object, own, e);
    let deadline = object.take("deadline_ms").and_then(|raw| e.keep("/deadline_ms", deadline(raw)));
    let idempotency_key = idempotency_key(&mut object, header_key, own, e);
    object.finish(e);
    match (amount, currency, card) {
        (Some(amount), Some(currency), Some(card)) if errors.is_empty() => Ok(Submission {
            amount,
            currency,
            card,
            customer,
            device,
            billing,
            shipping,
            location,
            mcc,
            terminal_id,
            metadata,
            deadline,
            idempotency_key,
        }),
        _ => Err(errors.into_problem()),
    }
}

fn merchant_category(raw: json::Raw<'_>) -> Result<String, Flaw> {
    let text = raw.text()?;
    if text.len() == 4 && text.bytes().all(|b| b.is_ascii_digit()) {
        Ok(text.into_owned())
    } else {
        Err(Flaw::new("format", "has to be a merchant category code: four digits, such as \"5411\""))
    }
}

fn deadline(raw: json::Raw<'_>) -> Result<Duration, Flaw> {
    let range = || {
        let message = format!("has to be a whole number of milliseconds, 1 to {REQUEST_DEADLINE_MAX_MS}");
        Flaw::new("range", message)
    };
    let ms: u64 = raw.number()?.parse().map_err(|_| range())?;
    (1..=REQUEST_DEADLINE_MAX_MS).contains(&ms).then(|| Duration::from_millis(ms)).ok_or_else(range)
}

fn metadata(
    object: &mut Object<'_>,
    own: Option<&crate::pan::Pan>,
    errors: &mut Errors,
) -> BTreeMap<String, String> {
    let mut pairs = BTreeMap::new();
    let Some(members) = object.take_object("metadata", "/metadata", errors) else { return pairs };
    if members.len() > METADATA_PAIRS_MAX {
        errors.add("/metadata", Flaw::new("too_many", "holds at most 50 pairs"));
        return pairs;
    }
    for (key, raw) in members.into_members() {
        let pointer = errors::child_pointer("/metadata", &key);
        if let Err(flaw) = METADATA_KEY.check(&key, own) {
            errors.add(pointer, flaw.about("its key"));
        } else if pairs.contains_key(&*key) {
            errors.add(pointer, json::duplicate());
        } else if let Some(value) = errors.keep(pointer, METADATA_VALUE.read(raw, own)) {
            pairs.insert(key.into_owned(), value);
        }
    }
    pairs
}

/// The key, from the body or from the header; both may say the same, not different things.
fn idempotency_key(
    object: &mut Object<'_>,
    header: Option<&[u8]>,
    own: Option<&crate::pan::Pan>,
    errors: &mut Errors,
) -> Option<String> {
    let in_body = object.take("idempotency_key").and_then(|raw| {
        let checked = raw.text().and_then(|text| check_key(&text, own).map(|()| text.into_owned()));
        errors.keep("/idempotency_key", checked)
    });
    let in_header = header.and_then(|bytes| {
        let text = String::from_utf8_lossy(bytes);
        match check_key(&text, own) {
            Ok(()) => Some(text.into_owned()),
            Err(flaw) => {
                errors.add_header(IDEMPOTENCY_KEY, flaw);
                None
            }
        }
    });
    match (in_body, in_header) {
        (Some(body), Some(header)) if body != header => {
            let message = "differs from the `Idempotency-Key` header: send one of them";
            errors.add("/idempotency_key", Flaw::new("conflict", message));
            None
        }
        (body, header) => body.or(header),
    }
}

fn check_key(text: &str, own: Option<&crate::pan::Pan>) -> Result<(), Flaw> {
    let printable = text.bytes().all(|b| matches!(b, b' '..=b'~'));
    if text.trim().is_empty() || text.len() > IDEMPOTENCY_KEY_MAX || !printable {
        let message = format!("has to be 1 to {IDEMPOTENCY_KEY_MAX} printable ASCII characters");
        return Err(Flaw::new("format", message));
    }
    text::refuse_card_numbers(text, own)
}
