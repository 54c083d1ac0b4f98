//! Lists: what is blocked or allowed, declared with the ruleset and changed while it runs.
//!
//! - [`declare`]: the YAML form.
//! - [`calls`]: `in_list(…)` in rules, as columns of a batch.
//! - [`state`]: which entries are in force.
//! - [`coverage`]: from a value to the keys of all entries that would cover it.
//! - [`entries`]: the entries of one list, compactly.
//! - [`arena`]: memory for them.

mod arena;
pub(crate) mod calls;
mod coverage;
pub(crate) mod declare;
mod entries;
mod state;

pub(crate) use calls::Calls;
pub(crate) use declare::DeclaredList;
pub use state::ListChangeError;
pub(crate) use state::Lists;
