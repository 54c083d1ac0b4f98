//! The scoring engine: window features declared in SQL, rules, and the decision.
//!
//! Pure: no clock, no I/O, no async runtime. The same events in the same order under the same
//! [`Ruleset`] give the same decisions, bit for bit, on any machine and in any batch sizes; live
//! scoring, replay and backtest are this code and no other.
//!
//! In the order data flows:
//! - [`source`]: the SQL and YAML texts a ruleset is made of, and the built-in ones.
//! - [`transactions`]: the relation `transactions` as Arrow batches.
//! - `features`: SQL → a plan of windows and the expressions around them.
//! - `windows`: the incremental state that keeps those windows exact.
//! - `lists`: YAML and changes → what is blocked or allowed, and `in_list(…)` in rules.
//! - `rules`: YAML → compiled conditions.
//! - [`ruleset`]: features, rules and lists together, with the hash every decision carries.
//! - [`store`]: where events of the past are left, for the owner to decide.
//! - [`scorer`]: a ruleset with its state: batch in, decisions out; checkpoint and restore.
//! - [`probe`]: where the time goes.
//! - [`hash`]: the hash that proves two runs decided alike.

mod binary;
mod error;
mod features;
pub mod hash;
mod lists;
mod prefetch;
pub mod probe;
mod rules;
pub mod ruleset;
pub mod scorer;
mod shards;
pub mod source;
pub mod store;
pub mod transactions;
mod windows;

pub use error::{LoadError, LoadErrors, ScoreError, SnapshotError};
pub use features::{KeptState, KnownLabel, LABELS, definition, labels};
pub use hash::DecisionHash;
pub use lists::ListChangeError;
pub use probe::{Probe, RuleRun, Stage};
pub use ruleset::Ruleset;
pub use scorer::{Cut, Held, Scored, Scorer, WarmingRule};
pub use source::{RulesetSource, SourceFile};
pub use store::{MemoryStore, SegmentId, SegmentStore};
pub use windows::Label;
