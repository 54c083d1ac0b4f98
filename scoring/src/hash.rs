//! The hash that proves two runs decided alike.

use events::Decision;
use sha2::{Digest as _, Sha256};

/// A running SHA-256 over decisions in order: each step hashes the state before it and the decision's
/// wire form, so that a run can be cut anywhere and carried on from the 32 bytes of the state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DecisionHash([u8; 32]);

impl DecisionHash {
    /// Takes the next decision in.
    pub fn add(&mut self, decision: &Decision) {
        let mut hasher = Sha256::new();
        hasher.update(self.0);
        let json = serde_json::to_vec(decision).expect("a decision has string keys and finite numbers only");
        hasher.update(json);
        self.0 = hasher.finalize().into();
    }

    /// The state, to carry on from.
    #[must_use]
    pub const fn state(&self) -> [u8; 32] {
        self.0
    }

    /// Carries on from a state.
    #[must_use]
    pub const fn from_state(state: [u8; 32]) -> Self {
        Self(state)
    }
}

impl std::fmt::Display for DecisionHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}
