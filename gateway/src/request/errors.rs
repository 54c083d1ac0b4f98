//! Collecting what is wrong with a request: every field at once.

use std::borrow::Cow;

use super::text::looks_like_card_number;
use crate::problem::{FieldError, Kind, Problem};

/// A body of 64 KiB can hold thousands of errors; a merchant fixes them in rounds.
const LISTED_MAX: usize = 64;
/// A longer name, or one with other characters, is not repeated in an answer.
const ECHOED_NAME_MAX: usize = 40;

/// What is wrong with one field. Never holds the field's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flaw {
    code: &'static str,
    message: Cow<'static, str>,
}

impl Flaw {
    pub(crate) fn new(code: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into() }
    }

    pub(super) fn about(self, what: &str) -> Self {
        Self { code: self.code, message: format!("{what} {}", self.message).into() }
    }
}

/// The errors found so far.
#[derive(Debug, Default)]
pub(crate) struct Errors(Vec<FieldError>);

impl Errors {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn add(&mut self, pointer: impl Into<Cow<'static, str>>, flaw: Flaw) {
        self.push(pointer.into(), None, flaw);
    }

    pub(super) fn add_header(&mut self, header: &'static str, flaw: Flaw) {
        self.push(Cow::Borrowed(""), Some(header), flaw);
    }

    fn push(&mut self, pointer: Cow<'static, str>, header: Option<&'static str>, flaw: Flaw) {
        if self.0.len() < LISTED_MAX {
            self.0.push(FieldError { pointer, header, code: flaw.code, message: flaw.message });
        }
    }

    /// The value, or nothing and one error more.
    pub(crate) fn keep<T>(
        &mut self,
        pointer: impl Into<Cow<'static, str>>,
        read: Result<T, Flaw>,
    ) -> Option<T> {
        read.map_err(|flaw| self.add(pointer, flaw)).ok()
    }

    pub(crate) fn missing(&mut self, pointer: &'static str) {
        self.add(pointer, Flaw::new("required", "is required"));
    }

    pub(crate) fn into_problem(self) -> Problem {
        let detail = match self.0.len() {
            1 => "One field is missing or wrong: see `errors`. Nothing was accepted.".to_owned(),
            n => format!("{n} fields are missing or wrong: see `errors`. Nothing was accepted."),
        };
        Problem::new(Kind::Validation, detail).with_errors(self.0)
    }
}

/// The pointer of a member whose name the caller chose. A name that could be a card number, or that
/// would spoil a log or a page, is replaced by `?`.
pub(super) fn child_pointer(parent: &str, name: &str) -> String {
    let harmless = (1..=ECHOED_NAME_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        && name.bytes().filter(u8::is_ascii_digit).count() < 12
        && !looks_like_card_number(name);
    format!("{parent}/{}", if harmless { name } else { "?" })
}
