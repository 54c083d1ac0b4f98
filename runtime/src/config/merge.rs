//! One layer of configuration over another, checked against the defaults.

use std::collections::BTreeMap;
use std::path::Path;

use toml::{Table, Value};

use super::nearest::nearest;
use super::{ConfigError, Source};

/// The layers merged so far, and what was wrong with them.
pub(super) struct Merge<'a> {
    pub(super) defaults: &'a Table,
    free_form: &'a [&'a str],
    known: Vec<String>,
    pub(super) merged: Table,
    pub(super) sources: BTreeMap<String, Source>,
    pub(super) errors: Vec<ConfigError>,
}

impl<'a> Merge<'a> {
    pub(super) fn new(defaults: &'a Table, free_form: &'a [&'a str]) -> Self {
        let mut known = Vec::new();
        collect_keys(defaults, "", &mut known);
        Self {
            defaults,
            free_form,
            known,
            merged: defaults.clone(),
            sources: BTreeMap::new(),
            errors: Vec::new(),
        }
    }

    pub(super) fn add_file(&mut self, path: &Path, table: Table) {
        let source = Source::File(path.to_path_buf());
        for (key, value) in table {
            self.add(&[key], value, &source);
        }
    }

    /// Whether the path is a table that takes any key, or lies in one.
    pub(super) fn is_free_form(&self, path: &[String]) -> bool {
        let dotted = path.join(".");
        self.free_form.iter().any(|free| dotted == *free || dotted.starts_with(&format!("{free}.")))
    }

    /// Sets the value at `path`, or notes why it cannot be.
    pub(super) fn add(&mut self, path: &[String], value: Value, source: &Source) {
        let default = lookup(self.defaults, path);
        let (value, default) = match (value, default) {
            (Value::Table(table), Some(Value::Table(_))) => {
                for (key, value) in table {
                    self.add(&[path, &[key]].concat(), value, source);
                }
                return;
            }
            (value, None) if self.is_free_form(path) => return self.set(path, value, source),
            (_, None) => return self.unknown(path, source),
            (value, Some(default)) => (value, default),
        };
        match fit(value, default) {
            Ok(value) => self.set(path, value, source),
            Err(message) => self.error(path, message, source),
        }
    }

    pub(super) fn unknown(&mut self, path: &[String], source: &Source) {
        let key = path.join(".");
        let message = match nearest(&key, &self.known) {
            Some(known) => format!("is not a known key; did you mean `{known}`?"),
            None => "is not a known key; `paystream config default` lists all keys".to_owned(),
        };
        self.error(path, message, source);
    }

    pub(super) fn error(&mut self, path: &[String], message: String, source: &Source) {
        self.errors.push(ConfigError { source: source.clone(), key: path.join("."), message });
    }

    fn set(&mut self, path: &[String], value: Value, source: &Source) {
        let (last, parents) = path.split_last().expect("a key has at least one part");
        let mut table = &mut self.merged;
        for parent in parents {
            let slot = table.entry(parent.clone()).or_insert_with(|| Value::Table(Table::new()));
            match slot {
                Value::Table(inner) => table = inner,
                other => {
                    *other = Value::Table(Table::new());
                    table = other.as_table_mut().expect("just made a table");
                }
            }
        }
        table.insert(last.clone(), value);
        self.sources.insert(path.join("."), source.clone());
    }
}

/// The value as the type of its default, or what was expected. Only a whole number given for a
/// fractional one is converted.
fn fit(value: Value, default: &Value) -> Result<Value, String> {
    #[allow(clippy::cast_precision_loss)] // what a user writes as a ratio or rate is far below 2^53
    match (value, default) {
        (Value::Integer(whole), Value::Float(_)) => Ok(Value::Float(whole as f64)),
        (value, default) if value.same_type(default) => Ok(value),
        (value, default) => {
            Err(format!("must be {}, found {}", describe(default.type_str()), describe(value.type_str())))
        }
    }
}

pub(super) fn describe(type_name: &str) -> String {
    let article = if type_name.starts_with(['a', 'i']) { "an" } else { "a" };
    format!("{article} {type_name}")
}

pub(super) fn lookup<'t>(table: &'t Table, path: &[String]) -> Option<&'t Value> {
    let (first, rest) = path.split_first()?;
    let value = table.get(first)?;
    match (rest, value) {
        ([], value) => Some(value),
        (rest, Value::Table(inner)) => lookup(inner, rest),
        _ => None,
    }
}

pub(super) fn lookup_mut<'t>(table: &'t mut Table, dotted: &str) -> Option<&'t mut Value> {
    match dotted.split_once('.') {
        None => table.get_mut(dotted),
        Some((first, rest)) => lookup_mut(table.get_mut(first)?.as_table_mut()?, rest),
    }
}

/// Puts the default back at the longest part of `dotted` that has one. Returns whether that changed
/// anything.
pub(super) fn restore_default(defaults: &Table, merged: &mut Table, dotted: &str) -> bool {
    let mut at = dotted;
    while !at.is_empty() {
        let path: Vec<String> = at.split('.').map(str::to_owned).collect();
        if let Some(default) = lookup(defaults, &path)
            && let Some(slot) = lookup_mut(merged, at)
            && slot != default
        {
            *slot = default.clone();
            return true;
        }
        at = at.rsplit_once('.').map_or("", |(parent, _)| parent);
    }
    false
}

fn collect_keys(table: &Table, prefix: &str, keys: &mut Vec<String>) {
    for (key, value) in table {
        let dotted = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        if let Value::Table(inner) = value {
            collect_keys(inner, &dotted, keys);
        }
        keys.push(dotted);
    }
}
