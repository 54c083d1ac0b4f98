//! Entries from arguments, a file or standard input: one value a line, or CSV of `value,expires_at`.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context as _, bail, ensure};

/// An entry as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its line in the file, or its number among the arguments, from 1.
    pub(super) line: u64,
    pub(super) value: String,
    pub(super) expires_at: Option<String>,
}

/// Entries one after the other: a file need not fit in memory.
pub(super) struct Entries {
    lines: Box<dyn Iterator<Item = std::io::Result<String>>>,
    line: u64,
    in_file: bool,
}

impl Entries {
    /// The entries of a file (`-` for standard input), or else those among the arguments.
    pub(super) fn open(file: Option<&Path>, values: Vec<String>, cards: bool) -> anyhow::Result<Self> {
        let Some(file) = file else {
            ensure!(!values.is_empty(), "no entries: give values, or a file of them with --file");
            if cards && values.iter().any(|value| !value.starts_with("tok_")) {
                bail!(
                    "a card number among the arguments is seen by everyone on this machine: give card tokens, or \
                     card numbers with --file"
                );
            }
            return Ok(Self { lines: Box::new(values.into_iter().map(Ok)), line: 0, in_file: false });
        };
        ensure!(values.is_empty(), "give values or --file, not both");
        let lines: Box<dyn Iterator<Item = std::io::Result<String>>> = if file.as_os_str() == "-" {
            Box::new(BufReader::new(std::io::stdin()).lines())
        } else {
            let opened = File::open(file).with_context(|| format!("reading {}", file.display()))?;
            Box::new(BufReader::new(opened).lines())
        };
        Ok(Self { lines, line: 0, in_file: true })
    }
}

impl Iterator for Entries {
    type Item = anyhow::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let text = match self.lines.next()? {
                Ok(text) => text,
                Err(error) => return Some(Err(error).context("reading entries")),
            };
            self.line += 1;
            if !self.in_file {
                return Some(Ok(Entry { line: self.line, value: text, expires_at: None }));
            }
            let text = text.trim().trim_start_matches('\u{feff}');
            let heads = ["value", "value,expires_at"];
            if text.is_empty() || text.starts_with('#') || self.line == 1 && heads.contains(&text) {
                continue;
            }
            let line = self.line;
            let read = fields(text).with_context(|| format!("line {line}: {WRONG}"));
            return Some(read.map(|(value, expires_at)| Entry { line, value, expires_at }));
        }
    }
}

const WRONG: &str = "write a value, or value,expires_at; a value with a comma in \"quotes\"";

/// The value, which may be quoted as in RFC 4180, and the expiry behind a comma.
fn fields(text: &str) -> Option<(String, Option<String>)> {
    let (value, rest) = match text.strip_prefix('"') {
        Some(quoted) => {
            let mut end = quoted.find('"')?;
            // Two of them are one of the value.
            while quoted[end + 1..].starts_with('"') {
                end += 2 + quoted[end + 2..].find('"')?;
            }
            (quoted[..end].replace("\"\"", "\""), &quoted[end + 1..])
        }
        None => {
            let end = text.find(',').unwrap_or(text.len());
            (text[..end].trim().to_owned(), &text[end..])
        }
    };
    let expires_at = match rest.strip_prefix(',') {
        Some(expires_at) => Some(expires_at.trim()).filter(|text| !text.is_empty()),
        None if rest.is_empty() => None,
        None => return None,
    };
    let fits = !value.is_empty() && expires_at.is_none_or(|text| !text.contains(','));
    fits.then(|| (value, expires_at.map(str::to_owned)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> anyhow::Result<Vec<(u64, String, Option<String>)>> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("entries.csv");
        std::fs::write(&path, text)?;
        let entries = Entries::open(Some(&path), Vec::new(), true)?;
        entries.map(|entry| entry.map(|e| (e.line, e.value, e.expires_at))).collect()
    }

    #[test]
    fn lines_are_values_with_or_without_an_expiry() {
        let text = "\u{feff}value,expires_at\n# stolen in May\n\n4242 4242 4242 4242\r\n10.0.0.0/8,2027-01-31T00:00:00Z\n\
                    \"a, \"\"b\"\"\",2027-01-31T00:00:00Z\n\"c\"\nd,\n";
        let expiry = Some("2027-01-31T00:00:00Z".to_owned());
        let expected = [
            (4, "4242 4242 4242 4242".to_owned(), None),
            (5, "10.0.0.0/8".to_owned(), expiry.clone()),
            (6, "a, \"b\"".to_owned(), expiry),
            (7, "c".to_owned(), None),
            (8, "d".to_owned(), None),
        ];
        assert_eq!(read(text).unwrap(), expected);
    }

    #[test]
    fn what_is_no_line_of_entries_is_refused_with_its_number() {
        for text in ["ok\na,b,c\n", "ok\n\"open\n", "ok\n\"a\"b\n", "ok\n,2027\n"] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.starts_with("line 2: write a value"), "{text}: {error}");
        }
    }

    #[test]
    fn card_numbers_are_not_taken_from_the_arguments() {
        assert!(Entries::open(None, vec!["4242424242424242".into()], true).is_err());
        assert!(Entries::open(None, vec!["tok_k1_00".into()], true).is_ok());
        assert!(Entries::open(None, vec!["4242".into()], false).is_ok());
        assert!(Entries::open(None, Vec::new(), false).is_err());
        assert!(Entries::open(Some(Path::new("-")), vec!["x".into()], false).is_err());
    }
}
