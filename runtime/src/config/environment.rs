//! `PAYSTREAM__SECTION__KEY=value`, or `PAYSTREAM__SECTION__KEY__FILE=/path` for a value that is in a file.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;

use toml::{Table, Value};

use super::Source;
use super::merge::{Merge, describe, lookup};

/// What the names of environment variables that set configuration begin with.
pub const PREFIX: &str = "PAYSTREAM__";

/// What the name of a variable ends with whose value is in a file.
const FILE: &str = "__FILE";
/// A secret or a list; more than this is another file than was meant.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The environment variables of this process that set configuration.
#[must_use]
pub fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
        .filter(|(name, _)| name.starts_with(PREFIX))
        .collect()
}

pub(super) fn add(merge: &mut Merge<'_>, env: impl IntoIterator<Item = (String, String)>) {
    let mut variables: Vec<_> = env.into_iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
    variables.sort();
    let names: BTreeSet<String> = variables.iter().map(|(name, _)| name.clone()).collect();
    for (name, mut text) in variables {
        let mut path = path_of(merge, &name[PREFIX.len()..]);
        let source = Source::Environment(name.clone());
        if let Some(plain) = names_a_file(merge, &name, &path) {
            path.pop();
            let read = if names.contains(plain) {
                Err(format!("is set by {plain} as well: keep one of the two"))
            } else {
                read(&text)
            };
            match read {
                Ok(value) => text = value,
                Err(message) => {
                    merge.error(&path, message, &source);
                    continue;
                }
            }
        }
        let parsed = match lookup(merge.defaults, &path) {
            Some(Value::Table(_)) if !merge.is_free_form(&path) => {
                Err("is a section, not a value: name one of its keys after another `__`".to_owned())
            }
            Some(default) => parse_as(&text, default),
            None if merge.is_free_form(&path) => parse_as(&text, &sibling(merge, &path)),
            None => {
                merge.unknown(&path, &source);
                continue;
            }
        };
        match parsed {
            Ok(value) => merge.add(&path, value, &source),
            Err(message) => merge.error(&path, message, &source),
        }
    }
}

/// The variable that would hold the value itself, if this one names a file: not where `file` is a key of its
/// own.
fn names_a_file<'n>(merge: &Merge<'_>, name: &'n str, path: &[String]) -> Option<&'n str> {
    let plain = name.strip_suffix(FILE)?;
    let holder = lookup(merge.defaults, &path[..path.len() - 1]);
    let is_key = lookup(merge.defaults, path).is_some() || holder.is_some_and(Value::is_table);
    (!is_key && plain.len() > PREFIX.len()).then_some(plain)
}

/// What a file says, without the line break at its end.
fn read(path: &str) -> Result<String, String> {
    let refused = |why: &dyn std::fmt::Display| {
        format!("cannot be read from `{path}`: {why}. Name a file that holds nothing but the value")
    };
    let mut text = String::new();
    let file = File::open(path).map_err(|e| refused(&e))?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(|e| refused(&e))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(refused(&format_args!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    text.truncate(text.trim_end_matches(['\r', '\n']).len());
    Ok(text)
}

/// A default beside a key of the user's own, whose type the key shares; a text where there is none.
fn sibling(merge: &Merge<'_>, path: &[String]) -> Value {
    let table = lookup(merge.defaults, &path[..path.len() - 1]).and_then(Value::as_table);
    let first = table.and_then(|table| table.values().next());
    first.cloned().unwrap_or_else(|| Value::String(String::new()))
}

/// The dotted path a variable names. Keys are lower case, except in a table whose keys are the user's
/// own: there they stay as written.
fn path_of(merge: &Merge<'_>, name: &str) -> Vec<String> {
    let mut path: Vec<String> = Vec::new();
    for part in name.split("__") {
        let part = if merge.is_free_form(&path) { part.to_owned() } else { part.to_ascii_lowercase() };
        path.push(part);
    }
    path
}

/// The text as a value of the default's type. The text itself is never part of the message: it may be
/// a secret in the wrong place.
fn parse_as(text: &str, default: &Value) -> Result<Value, String> {
    let expected = || format!("must be {}, found another text", describe(default.type_str()));
    let plain = text.trim().replace('_', "");
    match default {
        Value::String(_) => Ok(Value::String(text.to_owned())),
        Value::Integer(_) => plain.parse().map(Value::Integer).map_err(|_| expected()),
        Value::Float(_) => plain.parse().map(Value::Float).map_err(|_| expected()),
        Value::Boolean(_) => match text.trim() {
            "true" | "1" | "yes" | "on" => Ok(Value::Boolean(true)),
            "false" | "0" | "no" | "off" => Ok(Value::Boolean(false)),
            _ => Err(format!("{}: write true or false", expected())),
        },
        Value::Array(_) => parse_array(text).ok_or_else(expected),
        Value::Table(_) | Value::Datetime(_) => parse_toml(text).ok_or_else(expected),
    }
}

/// TOML's own array syntax, or texts separated by commas.
fn parse_array(text: &str) -> Option<Value> {
    if text.trim_start().starts_with('[') {
        return parse_toml(text);
    }
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    Some(Value::Array(items.map(|item| Value::String(item.to_owned())).collect()))
}

fn parse_toml(text: &str) -> Option<Value> {
    format!("value = {text}").parse::<Table>().ok()?.remove("value")
}
