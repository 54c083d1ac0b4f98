//! The YAML form of a rule pack.

use events::{Outcome, Severity};
use serde::Deserialize;

/// A file of `rules/`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RulePack {
    /// The version of this form: 1.
    pub(crate) version: u32,
    /// From which score on the outcome is at least …; one pack of a ruleset must say.
    pub(crate) thresholds: Option<Thresholds>,
    /// The rules, in the order their reasons are listed when points are equal.
    pub(crate) rules: Vec<RuleSpec>,
}

/// Scores (1 to 100) from which an outcome follows by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Thresholds {
    pub(crate) review: Option<u8>,
    pub(crate) challenge: Option<u8>,
    pub(crate) decline: Option<u8>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RuleSpec {
    /// `a-z`, `0-9` and `_`; unique in the ruleset.
    pub(crate) id: String,
    /// A boolean SQL expression over the transaction and its features.
    pub(crate) when: String,
    /// What a match adds to the score, 0 to 100.
    pub(crate) points: u32,
    /// How urgent a match is; medium and above raise an alert.
    pub(crate) severity: Severity,
    /// The reason code merchants see.
    pub(crate) reason: String,
    /// One sentence; `{observed}` and `{limit}` are filled in.
    pub(crate) message: String,
    /// The figure that was seen: a numeric SQL expression.
    pub(crate) observed: Figure,
    /// The figure that is allowed.
    pub(crate) limit: Figure,
    /// What a match does beside its points.
    #[serde(default)]
    pub(crate) action: Action,
    /// Whether a match counts.
    #[serde(default)]
    pub(crate) mode: Mode,
    /// The share of transactions the rule looks at, 0 to 100.
    #[serde(default = "everyone")]
    pub(crate) rollout_percent: u8,
}

const fn everyone() -> u8 {
    100
}

/// A number, or an SQL expression that is one.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub(crate) enum Figure {
    /// The number itself.
    Number(f64),
    /// SQL.
    Sql(String),
}

impl Figure {
    /// The figure as SQL.
    pub(crate) fn sql(&self) -> String {
        match self {
            Self::Number(number) => format!("CAST({number} AS DOUBLE)"),
            Self::Sql(sql) => sql.clone(),
        }
    }
}

/// What a match does beside its points.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Action {
    /// Nothing: the score decides.
    #[default]
    Score,
    /// The outcome is at least review.
    Review,
    /// The outcome is at least challenge.
    Challenge,
    /// The outcome is decline.
    Decline,
    /// The outcome is decline, unless a rule allows.
    Block,
    /// The outcome is approve, unless a rule blocks hard.
    Allow,
    /// The outcome is decline, whatever allows.
    HardBlock,
}

impl Action {
    /// The least the outcome will be, unless a rule allows.
    pub(crate) const fn outcome(self) -> Outcome {
        match self {
            Self::Score | Self::Allow => Outcome::Approve,
            Self::Review => Outcome::Review,
            Self::Challenge => Outcome::Challenge,
            Self::Decline | Self::Block | Self::HardBlock => Outcome::Decline,
        }
    }

    /// Which of the actions that go before the score goes before which: a hard block before an allow, an
    /// allow before a block; 0 for all others.
    pub(crate) const fn precedence(self) -> u8 {
        match self {
            Self::HardBlock => 3,
            Self::Allow => 2,
            Self::Block => 1,
            Self::Score | Self::Review | Self::Challenge | Self::Decline => 0,
        }
    }
}

/// Whether a match counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// It does.
    #[default]
    Live,
    /// It is recorded, without effect.
    Shadow,
    /// The rule is not evaluated.
    Off,
}
