//! Requests that a server has to refuse with a 4xx that names what is wrong, and accept none of.

mod check;
mod kinds;

pub use check::{MalformedReport, WrongAnswer, run_malformed};

use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::{Value, json};

use self::kinds::{Edit, Header, Kind, canonical, common, short};
use crate::card::{CardNumber, random_card};
use crate::client::IDEMPOTENCY_KEY;
use crate::random::{Domain, Rng, hash_text, stream};

/// Stands for text that a [`Value`] cannot hold, until the body is written.
const PLACEHOLDER: &str = "@raw@";

/// One malformed request.
#[derive(Debug, Clone)]
pub struct MalformedRequest {
    /// The form of the body and what is wrong with it, for example `canonical/amount_negative`.
    pub name: String,
    /// The HTTP method: `POST`.
    pub method: &'static str,
    /// `/v1/transactions` for the canonical form, `/transaction` for the short one.
    pub path: &'static str,
    /// Headers, `Idempotency-Key` and `Content-Type` included.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// JSON pointers of which the answer has to name one; the empty one is the body as a whole.
    pub pointers: &'static [&'static str],
    /// The header the answer has to name instead, when the mistake is there.
    pub header: Option<&'static str>,
    /// The number of the card in it: never to be seen in an answer.
    card: CardNumber,
}

/// The malformed requests of one run: every kind once, then all again with other amounts, cards and keys.
#[derive(Debug)]
pub struct Malformed {
    kinds: Vec<(Form, Kind)>,
    run_id: String,
    year: u16,
    index: usize,
    rng: Rng,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Canonical,
    Short,
}

impl Form {
    const fn path(self) -> &'static str {
        match self {
            Self::Canonical => "/v1/transactions",
            Self::Short => "/transaction",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Canonical => "canonical",
            Self::Short => "short",
        }
    }
}

impl Malformed {
    /// The requests of a run. `now` decides which cards have expired.
    #[must_use]
    pub fn new(run_id: impl Into<String>, now: jiff::Timestamp) -> Self {
        let run_id = run_id.into();
        let year = now.to_zoned(jiff::tz::TimeZone::UTC).year();
        let tag = |form: Form, kinds: Vec<Kind>| kinds.into_iter().map(move |kind| (form, kind));
        let kinds = tag(Form::Canonical, common())
            .chain(tag(Form::Canonical, canonical(i64::from(year))))
            .chain(tag(Form::Short, common()))
            .chain(tag(Form::Short, short(i64::from(year))))
            .collect();
        let rng = stream(hash_text(&run_id), Domain::Ordinary, 0);
        Self { kinds, run_id, year: u16::try_from(year).unwrap_or(1970), index: 0, rng }
    }

    /// How many different requests there are before they repeat.
    #[must_use]
    pub fn kinds(&self) -> usize {
        self.kinds.len()
    }

    /// The next request. The sequence does not end.
    pub fn generate(&mut self) -> MalformedRequest {
        let (form, kind) = &self.kinds[self.index % self.kinds.len()];
        let nth = self.index;
        self.index += 1;
        let (body, card) = valid(*form, nth, self.year, &mut self.rng);
        MalformedRequest {
            name: format!("{}/{}", form.name(), kind.name),
            method: "POST",
            path: form.path(),
            headers: headers(kind.header, &format!("bad-{}-{nth}", self.run_id)),
            body: spoil(body, &kind.edit, card),
            pointers: kind.pointers,
            header: kind.names_header,
            card,
        }
    }
}

impl Iterator for Malformed {
    type Item = MalformedRequest;

    fn next(&mut self) -> Option<MalformedRequest> {
        Some(self.generate())
    }
}

/// A body with every field, in which nothing is wrong yet.
fn valid(form: Form, nth: usize, year: u16, rng: &mut Rng) -> (Value, CardNumber) {
    let card = random_card(rng, year);
    let (number, cvc) = (card.number.to_string(), card.cvc.to_string());
    let address = json!({"country": "DE", "city": "Berlin", "postal_code": "10115"});
    let mut body = json!({
        "currency": "USD",
        "customer": {"id": "cus_bad", "email": "bad@example.com", "phone": "+4930231250"},
        "device": {"id": "dev_bad", "ip": "198.51.100.7", "user_agent": "paystream-loadtest"},
        "billing": address,
        "shipping": address,
        "location": {"country": "DE", "lat": 52.52, "lon": 13.405},
        "mcc": "5411",
        "terminal_id": "trm_bad",
        "metadata": {"order": format!("ord_{nth}")},
        "deadline_ms": 500,
    });
    match form {
        Form::Canonical => {
            body["amount"] = json!(1_000 + nth);
            body["card"] = json!({
                "number": number,
                "exp_month": card.exp_month,
                "exp_year": card.exp_year,
                "cvc": cvc,
            });
        }
        Form::Short => {
            body["amount"] = json!(format!("{}.50", 10 + nth));
            body["card_number"] = json!(number);
            body["expiry_month"] = json!(card.exp_month);
            body["expiry_year"] = json!(card.exp_year);
            body["cvv"] = json!(cvc);
        }
    }
    (body, card.number)
}

fn headers(spoilt: Header, key: &str) -> HeaderMap {
    let (content_type, key) = match spoilt {
        Header::Good => ("application/json", key.to_owned()),
        Header::ContentType(other) => (other, key.to_owned()),
        Header::Key(other) => ("application/json", other.to_owned()),
        Header::KeyOfLength(len) => ("application/json", "k".repeat(len)),
    };
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    let key = HeaderValue::from_bytes(key.as_bytes()).expect("the table holds no control characters");
    headers.insert(IDEMPOTENCY_KEY, key);
    headers
}

fn spoil(mut body: Value, edit: &Edit, card: CardNumber) -> Bytes {
    match edit {
        Edit::None => body.to_string().into(),
        Edit::Set(pointer, value) => {
            *place(&mut body, pointer) = value.clone();
            body.to_string().into()
        }
        Edit::Raw(pointer, text) => {
            *place(&mut body, pointer) = PLACEHOLDER.into();
            body.to_string().replace(&format!("\"{PLACEHOLDER}\""), text).into()
        }
        Edit::Remove(pointer) => {
            let (parent, name) = pointer.rsplit_once('/').expect("pointers begin with a slash");
            let parent = body.pointer_mut(parent).and_then(Value::as_object_mut);
            parent.expect("the table names members of the valid body").remove(name);
            body.to_string().into()
        }
        Edit::OwnCard(pointer, separator) => {
            let digits = card.to_string();
            let groups: Vec<&str> =
                (0..digits.len()).step_by(4).map(|at| &digits[at..digits.len().min(at + 4)]).collect();
            *place(&mut body, pointer) = groups.join(separator).into();
            body.to_string().into()
        }
        Edit::Cut(len) => Bytes::from(body.to_string()).slice(..*len),
        Edit::Body(bytes) => Bytes::from_static(bytes),
        Edit::Insert(text) => body.to_string().replacen('{', &format!("{{{text}"), 1).into(),
        Edit::Append(text) => (body.to_string() + text).into(),
        Edit::Pad(len) => {
            let mut text = body.to_string();
            text.pop();
            text.extend(std::iter::repeat_n(' ', len.saturating_sub(text.len())));
            text.push('}');
            text.into()
        }
    }
}

/// The value at a pointer, made if its parent has no such member.
fn place<'a>(body: &'a mut Value, pointer: &str) -> &'a mut Value {
    let (parent, name) = pointer.rsplit_once('/').expect("pointers begin with a slash");
    let parent = body.pointer_mut(parent).expect("the table names members of the valid body");
    &mut parent[name]
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn all() -> Vec<MalformedRequest> {
        let malformed = Malformed::new("t", "2026-11-21T00:00:00Z".parse().unwrap());
        let kinds = malformed.kinds();
        malformed.take(kinds).collect()
    }

    #[test]
    fn there_are_many_kinds_each_with_a_name_of_its_own() {
        let names: HashSet<String> = all().into_iter().map(|r| r.name).collect();
        assert_eq!(names.len(), all().len());
        let mistakes: HashSet<&str> =
            names.iter().filter_map(|n| n.split_once('/')).map(|(_, k)| k).collect();
        assert!(mistakes.len() >= 100, "{} mistakes", mistakes.len());
    }

    #[test]
    fn every_request_says_what_has_to_be_named() {
        for request in all() {
            assert!(!request.pointers.is_empty() || request.header.is_some(), "{}", request.name);
        }
    }

    #[test]
    fn where_a_header_is_wrong_the_body_is_not() {
        for request in all().into_iter().filter(|request| request.header.is_some()) {
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            assert_eq!(body.as_object().unwrap().len(), if request.path == "/transaction" { 15 } else { 12 });
        }
    }

    #[test]
    fn the_edit_is_at_the_pointer_that_has_to_be_named() {
        for request in all() {
            let Ok(body) = serde_json::from_slice::<Value>(&request.body) else { continue };
            let pointer = request.pointers.first().copied().unwrap_or_default();
            match request.name.split_once('/').unwrap().1 {
                name if name.ends_with("_missing") => assert!(body.pointer(pointer).is_none(), "{name}"),
                name if name.starts_with("card_number_in_") => {
                    let digits = |s: &str| s.chars().filter(char::is_ascii_digit).collect::<String>();
                    let text = body.pointer(pointer).and_then(Value::as_str).unwrap();
                    assert_eq!(digits(text), request.card.to_string(), "{name}");
                }
                _ => {}
            }
        }
    }

    #[test]
    fn repeated_kinds_are_other_requests() {
        let malformed = Malformed::new("t", "2026-11-21T00:00:00Z".parse().unwrap());
        let kinds = malformed.kinds();
        let two_rounds: Vec<_> = malformed.take(2 * kinds).collect();
        let keys: HashSet<_> = two_rounds.iter().map(|r| r.headers[IDEMPOTENCY_KEY].clone()).collect();
        assert!(keys.len() > 2 * kinds - 20, "{} keys", keys.len());
        assert_eq!(two_rounds[0].name, two_rounds[kinds].name);
    }

    #[test]
    fn the_large_body_is_beyond_the_limit_of_the_api() {
        let large = all().into_iter().find(|r| r.name == "canonical/body_too_large").unwrap();
        assert!(large.body.len() > 64 * 1024);
        assert!(serde_json::from_slice::<Value>(&large.body).is_ok(), "only its size is wrong");
    }
}
