//! Where the features, rules and lists come from: the built-in ones, or folders of files.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};
use scoring::{Ruleset, RulesetSource, SourceFile};
use serde::Deserialize;

/// The section `[scoring]`. Empty: built in.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScoringConfig {
    pub(crate) features_dir: String,
    pub(crate) rules_dir: String,
    pub(crate) lists_dir: String,
}

impl ScoringConfig {
    pub(crate) fn validate(&self) -> Vec<(String, String)> {
        let dirs = [
            ("features_dir", &self.features_dir),
            ("rules_dir", &self.rules_dir),
            ("lists_dir", &self.lists_dir),
        ];
        dirs.into_iter()
            .filter(|(_, dir)| !dir.is_empty() && !Path::new(dir).is_dir())
            .map(|(key, _)| (key.to_owned(), "must be empty, or a directory that exists".to_owned()))
            .collect()
    }

    /// The same, with other folders where they are given.
    pub(crate) fn with_dirs(mut self, features: Option<&Path>, rules: Option<&Path>) -> Self {
        for (configured, given) in [(&mut self.features_dir, features), (&mut self.rules_dir, rules)] {
            if let Some(given) = given {
                *configured = given.to_string_lossy().into_owned();
            }
        }
        self
    }

    /// The texts of features, rules and lists.
    pub(crate) fn source(&self) -> anyhow::Result<RulesetSource> {
        let mut source = RulesetSource::built_in();
        if !self.features_dir.is_empty() {
            source.features = read_dir(Path::new(&self.features_dir), &["sql"])?;
        }
        if !self.rules_dir.is_empty() {
            source.rules = read_dir(Path::new(&self.rules_dir), &["yaml", "yml"])?;
        }
        if !self.lists_dir.is_empty() {
            source.lists = read_dir(Path::new(&self.lists_dir), &["yaml", "yml"])?;
        }
        Ok(source)
    }

    /// Features, rules and lists, planned and compiled.
    pub(crate) fn ruleset(&self) -> anyhow::Result<Ruleset> {
        Ok(Ruleset::load(&self.source()?)?)
    }
}

/// A feature file, or those of a folder.
pub(crate) fn feature_files(path: &Path) -> anyhow::Result<Vec<SourceFile>> {
    if path.is_dir() {
        return read_dir(path, &["sql"]);
    }
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(vec![SourceFile { name: path.display().to_string(), text }])
}

/// The files of a folder with one of the extensions, by name: their order is part of the ruleset's hash.
fn read_dir(dir: &Path, extensions: &[&str]) -> anyhow::Result<Vec<SourceFile>> {
    let entries = fs::read_dir(dir).with_context(|| format!("reading the folder {}", dir.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("reading the folder {}", dir.display()))?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if extension.is_some_and(|extension| extensions.contains(&extension)) {
            let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            files.push(SourceFile { name: path.display().to_string(), text });
        }
    }
    ensure!(!files.is_empty(), "{} holds no .{} files", dir.display(), extensions.join(" or ."));
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_in_the_order_of_their_names_and_others_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.sql", "a.sql", "README.md"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        let texts: Vec<_> = read_dir(dir.path(), &["sql"]).unwrap().into_iter().map(|f| f.text).collect();
        assert_eq!(texts, ["a.sql", "b.sql"]);
        assert!(read_dir(dir.path(), &["yaml", "yml"]).is_err(), "an empty ruleset is a mistake");
    }
}
