//! Objects of JSON as they were written: member names checked for duplicates, numbers with their text.
//!
//! A parser that turns `100.50` into a float has rounded an amount before anyone looked at it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::errors::{Errors, Flaw, child_pointer};
use crate::problem::{FieldError, Kind, Problem};

/// No object of the API has nearly as many members.
const MEMBERS_MAX: usize = 128;

/// A value as it was written.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Raw<'a>(&'a RawValue);

impl<'a> Raw<'a> {
    fn is_null(self) -> bool {
        self.0.get() == "null"
    }

    /// The value of a string.
    pub(crate) fn text(self) -> Result<Cow<'a, str>, Flaw> {
        let written = self.0.get();
        let Some(inner) = written.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
            return Err(Flaw::new("type", "has to be a string"));
        };
        if !inner.contains('\\') {
            return Ok(Cow::Borrowed(inner));
        }
        serde_json::from_str(written)
            .map(Cow::Owned)
            .map_err(|_| Flaw::new("format", "holds an escape that is not valid Unicode"))
    }

    /// The text of a number.
    pub(crate) fn number(self) -> Result<&'a str, Flaw> {
        let written = self.0.get();
        if written.starts_with(|c: char| c == '-' || c.is_ascii_digit()) {
            Ok(written)
        } else {
            Err(Flaw::new("type", "has to be a number"))
        }
    }

    /// The text of a number, or of a string that is to hold one.
    pub(crate) fn number_or_text(self) -> Result<Cow<'a, str>, Flaw> {
        match self.number() {
            Ok(number) => Ok(Cow::Borrowed(number)),
            Err(_) => self.text().map_err(|_| Flaw::new("type", "has to be a number or a string")),
        }
    }
}

/// The members of an object, taken out one by one; what stays is unknown.
#[derive(Debug)]
pub(crate) struct Object<'a> {
    pointer: &'static str,
    members: Vec<Member<'a>>,
}

#[derive(Debug)]
struct Member<'a> {
    name: Cow<'a, str>,
    raw: Raw<'a>,
    taken: bool,
}

impl<'a> Object<'a> {
    /// The object a body consists of.
    pub(crate) fn of_body(body: &'a [u8]) -> Result<Self, Problem> {
        let flaw = |code, message: String| {
            let error = FieldError { pointer: "".into(), header: None, code, message: message.into() };
            Problem::new(Kind::MalformedRequest, "The body cannot be read. Nothing was accepted.")
                .with_errors(vec![error])
        };
        let Ok(text) = std::str::from_utf8(body) else {
            return Err(flaw("json_syntax", "the body is not UTF-8".to_owned()));
        };
        if text.trim_start().starts_with(|c: char| c != '{') {
            return Err(flaw("type", "the body has to be one JSON object".to_owned()));
        }
        // The parser's own message could quote the body: only the place is repeated.
        serde_json::from_str::<Members<'_>>(text)
            .map(|members| Self { pointer: "", members: members.0 })
            .map_err(|e| match e.classify() {
                serde_json::error::Category::Data => {
                    flaw("too_many", format!("an object has more than {MEMBERS_MAX} members"))
                }
                _ => flaw(
                    "json_syntax",
                    format!("the body is not valid JSON (line {}, column {})", e.line(), e.column()),
                ),
            })
    }

    /// A member's value; `null` is the same as nothing.
    pub(crate) fn take(&mut self, name: &str) -> Option<Raw<'a>> {
        let member = self.members.iter_mut().find(|member| member.name == name)?;
        member.taken = true;
        (!member.raw.is_null()).then_some(member.raw)
    }

    /// Whether a member is there and not `null`.
    pub(super) fn holds(&self, name: &str) -> bool {
        self.members.iter().any(|member| member.name == name && !member.raw.is_null())
    }

    /// A member that is to be an object.
    pub(super) fn take_object(
        &mut self,
        name: &str,
        pointer: &'static str,
        errors: &mut Errors,
    ) -> Option<Self> {
        let raw = self.take(name)?;
        let members = if raw.0.get().starts_with('{') {
            serde_json::from_str::<Members<'_>>(raw.0.get())
                .map_err(|_| Flaw::new("too_many", format!("has more than {MEMBERS_MAX} members")))
        } else {
            Err(Flaw::new("type", "has to be an object"))
        };
        let members = errors.keep(pointer, members)?.0;
        Some(Self { pointer, members })
    }

    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// The members, for an object whose names the caller chooses.
    pub(super) fn into_members(self) -> impl Iterator<Item = (Cow<'a, str>, Raw<'a>)> {
        self.members.into_iter().map(|member| (member.name, member.raw))
    }

    /// Reports the members nobody asked for, and those that are there twice.
    pub(crate) fn finish(self, errors: &mut Errors) {
        for member in self.members.iter().filter(|member| !member.taken) {
            let flaw = if self.members.iter().any(|other| other.taken && other.name == member.name) {
                duplicate()
            } else {
                Flaw::new("unknown_field", "is not a field of this request")
            };
            errors.add(child_pointer(self.pointer, &member.name), flaw);
        }
    }
}

/// Which of two values a merchant means cannot be known.
pub(super) fn duplicate() -> Flaw {
    Flaw::new("duplicate_field", "is there twice")
}

struct Members<'a>(Vec<Member<'a>>);

/// A member's name, borrowed unless it has escapes.
#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(12);
                while let Some(Name(name)) = map.next_key()? {
                    if members.len() == MEMBERS_MAX {
                        return Err(de::Error::custom("too many members"));
                    }
                    members.push(Member { name, raw: Raw(map.next_value()?), taken: false });
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Collect)
    }
}
