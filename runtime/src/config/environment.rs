//! `PAYSTREAM__SECTION__KEY=value`.

use toml::{Table, Value};

use super::Source;
use super::merge::{Merge, describe, lookup};

/// What the names of environment variables that set configuration begin with.
pub const PREFIX: &str = "PAYSTREAM__";

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
    for (name, text) in variables {
        let path = path_of(merge, &name[PREFIX.len()..]);
        let source = Source::Environment(name);
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
