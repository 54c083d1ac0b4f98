//! The texts a ruleset is made of.

/// One file of a ruleset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// How the file is called in error messages.
    pub name: String,
    /// Its contents.
    pub text: String,
}

/// The files of a ruleset, in the order they are read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RulesetSource {
    /// `sql/features/*.sql`: one SELECT each.
    pub features: Vec<SourceFile>,
    /// `rules/*.yaml`: one rule pack each.
    pub rules: Vec<SourceFile>,
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
    /// The features and rules that ship with the binary.
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
        }
    }

    /// A ruleset of features alone.
    #[must_use]
    pub fn without_rules(features: Vec<SourceFile>) -> Self {
        let text = "version: 1\nthresholds: {}\nrules: []".to_owned();
        Self { features, rules: vec![SourceFile { name: "no rules".to_owned(), text }] }
    }
}
