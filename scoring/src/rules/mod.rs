//! Rules: YAML → compiled conditions → matches → the decision.
//!
//! - [`pack`]: the YAML form.
//! - [`compile`]: conditions and figures as expressions over a batch.
//! - [`decide`]: what the matches of one transaction amount to.

pub(crate) mod compile;
pub(crate) mod decide;
pub(crate) mod pack;

pub(crate) use compile::Rules;
