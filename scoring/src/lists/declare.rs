//! The YAML form of lists.

use events::{ListDeclaration, ListId, ListKind, ListValue};
use serde::Deserialize;

use crate::error::LoadError;
use crate::source::SourceFile;

/// A list of a ruleset with what its file puts on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeclaredList {
    pub(crate) declaration: ListDeclaration,
    /// In the one form of its kind, for everyone's transactions.
    pub(crate) entries: Vec<DeclaredEntry>,
}

/// An entry that stands in a list's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeclaredEntry {
    pub(crate) value: String,
    pub(crate) expires_at_us: Option<i64>,
}

/// A file of `lists/`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListFile {
    /// The version of this form: 1.
    version: u32,
    lists: Vec<ListSpec>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListSpec {
    id: String,
    kind: ListKind,
    description: String,
    #[serde(default)]
    entries: Vec<EntrySpec>,
}

/// A value by itself, or with an expiry.
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "an entry must be a text, numbers in quotes, or {value: …, expires_at: 2027-01-31T00:00:00Z}"
)]
enum EntrySpec {
    Value(Scalar),
    WithExpiry(WithExpiry),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WithExpiry {
    value: Scalar,
    expires_at: String,
}

/// A text, or a BIN that YAML takes for a number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Number(u64),
    Text(String),
}

impl Scalar {
    /// Its text; of a number only where nothing but its digits counts: YAML reads 007 as 7.
    fn text(self, kind: ListKind) -> Option<String> {
        match self {
            Self::Number(number) => (kind == ListKind::Bin).then(|| number.to_string()),
            Self::Text(text) => Some(text),
        }
    }
}

/// Reads every file; on errors, all of them.
pub(crate) fn load(files: &[SourceFile]) -> Result<Vec<DeclaredList>, Vec<LoadError>> {
    let mut lists: Vec<DeclaredList> = Vec::new();
    let mut errors = Vec::new();
    for file in files {
        let read: ListFile = match file.yaml(|read: &ListFile| read.version) {
            Ok(read) => read,
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        for spec in read.lists {
            let mut refuse = |reason: String| errors.push(LoadError::new(&file.name, None, reason));
            if let Some(list) = declared(spec, &mut refuse) {
                if lists.iter().any(|other| other.declaration.id == list.declaration.id) {
                    refuse(format!("lists.{}.id: is used twice", list.declaration.id));
                }
                lists.push(list);
            }
        }
    }
    if errors.is_empty() { Ok(lists) } else { Err(errors) }
}

fn declared(spec: ListSpec, refuse: &mut dyn FnMut(String)) -> Option<DeclaredList> {
    let ListSpec { id: text, kind, description, entries } = spec;
    let Ok(id) = text.parse::<ListId>() else {
        refuse(format!("lists.{text}.id: must be 1 to 64 of a-z, 0-9 and _"));
        return None;
    };
    if description.trim().is_empty() {
        refuse(format!("lists.{id}.description: must say what the list is for"));
    }
    let mut kept = Vec::with_capacity(entries.len());
    for (index, entry) in entries.into_iter().enumerate() {
        let (value, expires_at) = match entry {
            EntrySpec::Value(value) => (value.text(kind), None),
            EntrySpec::WithExpiry(entry) => (entry.value.text(kind), Some(entry.expires_at)),
        };
        let at = format!("lists.{id}.entries[{index}]");
        let Some(value) = value else {
            refuse(format!("{at}: is a number and must be text: put it in quotes"));
            continue;
        };
        let expires_at_us = expires_at.and_then(|text| match text.parse::<jiff::Timestamp>() {
            Ok(time) => Some(time.as_microsecond()),
            Err(_) => {
                refuse(format!(
                    "{at}.expires_at: must be a time with its zone, such as 2027-01-31T00:00:00Z"
                ));
                None
            }
        });
        match ListValue::parse(kind, &value) {
            Ok(value) => kept.push(DeclaredEntry { value: value.to_string(), expires_at_us }),
            Err(error) => refuse(format!("{at}: must be {}", error.expected())),
        }
    }
    Some(DeclaredList { declaration: ListDeclaration { id, kind, description }, entries: kept })
}
