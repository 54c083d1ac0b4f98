//! The texts a ruleset is made of.

use serde::de::DeserializeOwned;

use crate::error::LoadError;

/// One file of a ruleset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// How the file is called in error messages.
    pub name: String,
    /// Its contents.
    pub text: String,
}

impl SourceFile {
    /// The YAML in the file, of the form with the version this build reads: 1.
    pub(crate) fn yaml<T: DeserializeOwned>(&self, version: impl Fn(&T) -> u32) -> Result<T, LoadError> {
        const VERSION: u32 = 1;
        // Norway is no `false`.
        let strict = serde_saphyr::options! { strict_booleans: true };
        let read: T = serde_saphyr::from_str_with_options(&self.text, strict).map_err(|e| {
            let at = e.location().map(|l| (to_usize(l.line()), to_usize(l.column())));
            LoadError::new(&self.name, at, e.without_snippet().to_string())
        })?;
        match version(&read) {
            VERSION => Ok(read),
            unknown => {
                let reason = format!("version: {unknown} is unknown, this build reads version {VERSION}");
                Err(LoadError::new(&self.name, None, reason))
            }
        }
    }
}

fn to_usize(n: impl TryInto<usize>) -> usize {
    n.try_into().unwrap_or(0)
}

/// The files of a ruleset, in the order they are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RulesetSource {
    /// `sql/features/*.sql`: one SELECT each.
    pub features: Vec<SourceFile>,
    /// `rules/*.yaml`: one rule pack each.
    pub rules: Vec<SourceFile>,
    /// `lists/*.yaml`: lists that rules may ask about.
    pub lists: Vec<SourceFile>,
}

macro_rules! built_in {
    ($($path:literal),* $(,)?) => {
        vec![$(SourceFile {
            name: $path.to_owned(),
            text: include_str!(concat!("../../", $path)).to_owned(),
        }),*]
    };
}

impl RulesetSource {
    /// The features, rules and lists that ship with the binary.
    #[must_use]
    pub fn built_in() -> Self {
        Self {
            features: built_in![
                "sql/features/card.sql",
                "sql/features/device.sql",
                "sql/features/email.sql",
                "sql/features/ip.sql",
                "sql/features/merchant.sql",
                "sql/features/terminal.sql",
            ],
            rules: built_in!["rules/default.yaml"],
            lists: built_in!["lists/default.yaml"],
        }
    }

    /// A ruleset of features alone.
    #[must_use]
    pub fn without_rules(features: Vec<SourceFile>) -> Self {
        let text = "version: 1\nthresholds: {}\nrules: []".to_owned();
        let rules = vec![SourceFile { name: "no rules".to_owned(), text }];
        Self { features, rules, lists: Vec::new() }
    }
}
