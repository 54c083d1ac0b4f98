//! Defaults, file and environment merged into one typed configuration.
//!
//! The commented file of defaults is the schema: a key that it does not have is an error, and so is a
//! value of another type than its default. The user's file is laid over it, and environment variables
//! `PAYSTREAM__SECTION__KEY=value` over both (or `PAYSTREAM__SECTION__KEY__FILE=/path`, for secrets). Every
//! error is found before any is reported, each with its dotted key and where it was set.

mod environment;
mod merge;
mod nearest;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::{Table, Value};

pub use environment::{PREFIX, environment};

/// How many values serde may refuse one after the other before the rest is left for the next run.
const MAX_SHAPE_ERRORS: usize = 64;

/// What a configuration may hold: the file of defaults, and which of its tables take any key.
#[derive(Debug, Clone, Copy)]
pub struct Schema<'a> {
    /// TOML with every key and its default.
    pub defaults: &'a str,
    /// Dotted paths of tables whose keys are the user's own, for example rates by currency.
    pub free_form: &'a [&'a str],
}

/// Where a value was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// In the built-in file of defaults.
    Default,
    /// In the user's file.
    File(PathBuf),
    /// By the environment variable of this name.
    Environment(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("built-in default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// One thing wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Where it was set.
    pub source: Source,
    /// The dotted key; empty when the file as a whole cannot be read.
    pub key: String,
    /// What is wrong and what is expected.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.key.as_str() {
            "" => write!(f, "{}: {}", self.source, self.message),
            key => write!(f, "{}: `{key}` {}", self.source, self.message),
        }
    }
}

/// Everything wrong with the configuration, one per line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// A configuration with what it was made of.
#[derive(Debug, Clone)]
pub struct Loaded<T> {
    /// The typed configuration.
    pub value: T,
    /// The same as TOML, all layers merged.
    pub table: Table,
    sources: BTreeMap<String, Source>,
}

impl<T> Loaded<T> {
    /// Where the value of a dotted key was set.
    #[must_use]
    pub fn source_of(&self, key: &str) -> Source {
        let mut at = key;
        loop {
            if let Some(source) = self.sources.get(at) {
                return source.clone();
            }
            match at.rsplit_once('.') {
                Some((parent, _)) => at = parent,
                None => return Source::Default,
            }
        }
    }

    /// The merged configuration as TOML, with every value of `secrets` (dotted keys) that is set hidden.
    #[must_use]
    pub fn redacted(&self, secrets: &[&str]) -> Table {
        let mut table = self.table.clone();
        for key in secrets {
            if let Some(value) = merge::lookup_mut(&mut table, key) {
                redact(value);
            }
        }
        table
    }
}

fn redact(value: &mut Value) {
    match value {
        Value::String(text) if text.is_empty() => {}
        Value::Array(items) => items.iter_mut().for_each(redact),
        Value::Table(table) => table.iter_mut().for_each(|(_, value)| redact(value)),
        other => *other = Value::String("(redacted)".to_owned()),
    }
}

/// Merges the schema's defaults, the user's file if any and the environment.
///
/// # Errors
/// Every unknown key, every value of the wrong type and every value the configuration's types refuse,
/// at once.
///
/// # Panics
/// When the defaults are not TOML: they are part of the program.
pub fn load<T: DeserializeOwned>(
    schema: &Schema<'_>,
    file: Option<&Path>,
    env: impl IntoIterator<Item = (String, String)>,
) -> Result<Loaded<T>, ConfigErrors> {
    let defaults: Table = schema.defaults.parse().expect("the built-in defaults are valid TOML");
    let mut merge = merge::Merge::new(&defaults, schema.free_form);
    if let Some(path) = file {
        match read(path) {
            Ok(table) => merge.add_file(path, table),
            Err(message) => merge.errors.push(ConfigError {
                source: Source::File(path.to_path_buf()),
                key: String::new(),
                message,
            }),
        }
    }
    environment::add(&mut merge, env);
    let merge::Merge { mut errors, merged, sources, .. } = merge;
    let value = shape(&defaults, merged.clone(), &sources, &mut errors);
    match value {
        Some(value) if errors.is_empty() => Ok(Loaded { value, table: merged, sources }),
        _ => Err(ConfigErrors(errors)),
    }
}

/// Reads a TOML file; what is wrong fits on one line.
fn read(path: &Path) -> Result<Table, String> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| format!("cannot be read: {e}. Name an existing file with --config"))?;
    text.parse::<Table>().map_err(|e| {
        let line = e.span().map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
        format!("line {line} is not valid TOML: {}", e.message().trim().replace('\n', " "))
    })
}

/// Gives the merged table its type. A value that serde refuses is noted, replaced by its default and
/// tried again, so that all of them are found.
fn shape<T: DeserializeOwned>(
    defaults: &Table,
    mut merged: Table,
    sources: &BTreeMap<String, Source>,
    errors: &mut Vec<ConfigError>,
) -> Option<T> {
    for _ in 0..MAX_SHAPE_ERRORS {
        let error = match merged.clone().try_into::<T>() {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        let key = key_of(&error);
        let source = sources
            .iter()
            .filter(|(set, _)| key == **set || key.starts_with(&format!("{set}.")))
            .max_by_key(|(set, _)| set.len());
        errors.push(ConfigError {
            source: source.map_or(Source::Default, |(_, source)| source.clone()),
            key: key.clone(),
            message: error.message().trim().replace('\n', " "),
        });
        if !merge::restore_default(defaults, &mut merged, &key) {
            return None;
        }
    }
    None
}

/// The dotted key a TOML error is about. The `toml` crate shows it, but has no accessor for it.
fn key_of(error: &toml::de::Error) -> String {
    let text = error.to_string();
    text.lines()
        .rev()
        .find_map(|line| line.strip_prefix("in `")?.strip_suffix('`').map(str::to_owned))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
