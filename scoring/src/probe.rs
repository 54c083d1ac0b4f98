//! Where the time goes, for whoever has a clock: the engine has none.

/// A stage of scoring a batch, in order. Windows and expressions come once per layer of features.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Window time, and what windows take from the transaction.
    Inputs,
    /// Keys to numbers.
    Keys,
    /// Appending to the reservoir and moving its tails.
    Tails,
    /// Accumulators: what enters, what leaves, and reading them.
    Windows,
    /// Expressions around windows.
    Expressions,
    /// Rules.
    Rules,
    /// Decisions.
    Decisions,
}

impl Stage {
    /// Its name in figures.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inputs => "inputs",
            Self::Keys => "keys",
            Self::Tails => "tails",
            Self::Windows => "windows",
            Self::Expressions => "expressions",
            Self::Rules => "rules",
            Self::Decisions => "decisions",
        }
    }
}

/// What became of a rule on a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RuleRun {
    /// No row of the batch could match, so its condition was not evaluated.
    Skipped,
    /// Its condition was evaluated.
    Evaluated,
}

/// Is told when stages end and, within [`Stage::Windows`] and [`Stage::Rules`], states and rules.
pub trait Probe {
    /// The work since the last call belonged to `stage`.
    fn ended(&mut self, stage: Stage);

    /// From here on [`Self::states`] counts from the state at `first` of [`crate::Ruleset::explain`].
    fn states_from(&mut self, first: usize) {
        let _ = first;
    }

    /// The work since the last call of this or of [`Self::ended`] belonged to these states together.
    fn states(&mut self, states: &[usize]) {
        let _ = states;
    }

    /// The work since the last call of this or of [`Self::ended`] belonged to the rule at `index` of
    /// [`crate::Ruleset::rule_ids`]. The first rule to ask for a column pays for looking through it. The text that
    /// says why a rule matched is part of the decision.
    fn rule(&mut self, index: usize, run: RuleRun);
}

/// Does not want to know.
impl Probe for () {
    fn ended(&mut self, _: Stage) {}
    fn rule(&mut self, _: usize, _: RuleRun) {}
}
