//! Features, rules and lists together, loaded once.

use std::sync::Arc;

use datafusion::prelude::{SessionConfig, SessionContext};
use events::ListDeclaration;
use sha2::{Digest as _, Sha256};

use crate::error::LoadErrors;
use crate::features::{FeaturePlan, KeptState};
use crate::lists::calls;
use crate::lists::{DeclaredList, declare};
use crate::rules::Rules;
use crate::source::RulesetSource;

/// A loaded ruleset: immutable, and cheap to clone.
#[derive(Debug, Clone)]
pub struct Ruleset {
    pub(crate) features: Arc<FeaturePlan>,
    pub(crate) rules: Arc<Rules>,
    pub(crate) lists: Arc<[DeclaredList]>,
    hash: Arc<str>,
}

impl Ruleset {
    /// Reads the lists, plans the features and compiles the rules.
    ///
    /// # Errors
    /// Everything that is wrong with any file, with its place and reason. When a feature file or a file of
    /// lists is wrong, rules are not looked at: their columns or lists are not known.
    pub fn load(source: &RulesetSource) -> Result<Self, LoadErrors> {
        let context = session();
        let (features, lists) =
            match (FeaturePlan::load(&context, &source.features), declare::load(&source.lists)) {
                (Ok(features), Ok(lists)) => (features, lists),
                (features, lists) => {
                    let wrong = [features.err(), lists.err()].into_iter().flatten().flatten();
                    return Err(LoadErrors(wrong.collect()));
                }
            };
        let rules = Rules::load(&context.state(), &features, &source.rules, &lists);
        Ok(Self {
            features: Arc::new(features),
            rules: Arc::new(rules.map_err(LoadErrors)?),
            lists: lists.into(),
            hash: hash(source).into(),
        })
    }

    /// `sha256:` and 16 hexadecimal digits over the names and texts of all files: what every decision
    /// made under this ruleset carries.
    #[must_use]
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The same, as decisions have it.
    pub(crate) fn shared_hash(&self) -> Arc<str> {
        Arc::clone(&self.hash)
    }

    /// Whether the same is kept for both: a [`Scorer`](crate::Scorer) of the one can go on as one of the
    /// other. Expressions around windows may differ, and so may rules.
    #[must_use]
    pub fn has_windows_of(&self, other: &Self) -> bool {
        self.windows_digest() == other.windows_digest()
    }

    /// Whether both declare the same lists, with the same entries in their files.
    #[must_use]
    pub fn has_lists_of(&self, other: &Self) -> bool {
        self.lists == other.lists
    }

    pub(crate) fn windows_digest(&self) -> [u8; 32] {
        let plans = self.features.windows.iter().map(|(_, plan)| plan.describe());
        Sha256::digest(plans.collect::<Vec<_>>().join("\n")).into()
    }

    /// The names of the features, in column order.
    #[must_use]
    pub fn feature_names(&self) -> Vec<String> {
        self.features.names().map(str::to_owned).collect()
    }

    /// What is kept for the features' windows.
    #[must_use]
    pub fn explain(&self) -> Vec<KeptState> {
        self.features.explain()
    }

    /// The lists, in their files' order.
    #[must_use]
    pub fn lists(&self) -> Vec<ListDeclaration> {
        self.lists.iter().map(|list| list.declaration.clone()).collect()
    }

    /// The ids of the rules, in the packs' order.
    #[must_use]
    pub fn rule_ids(&self) -> Vec<String> {
        self.rules.ids().map(str::to_owned).collect()
    }
}

pub(crate) fn session() -> SessionContext {
    let mut config = SessionConfig::new().with_target_partitions(1);
    // Spans let a refused expression be found in its file.
    config.options_mut().sql_parser.collect_spans = true;
    let context = SessionContext::new_with_config(config);
    context.register_udf(calls::function());
    context
}

fn hash(source: &RulesetSource) -> String {
    const HASH_BYTES: usize = 8;
    let mut hasher = Sha256::new();
    for file in source.features.iter().chain(&source.rules).chain(&source.lists) {
        // Not the folder: the same files are the same ruleset wherever they are.
        let name = file.name.rsplit(['/', '\\']).next().unwrap_or_default();
        for text in [name, &file.text] {
            hasher.update((text.len() as u64).to_le_bytes());
            hasher.update(text);
        }
    }
    format!("sha256:{}", hex::encode(&hasher.finalize()[..HASH_BYTES]))
}
