//! Rules: YAML → compiled conditions → matches → the decision.
//!
//! - [`pack`]: the YAML form.
//! - [`compile`]: conditions and figures as expressions over a batch, and what matches.
//! - [`condition`]: one rule's condition, on no more rows and columns than it takes.
//! - [`bounds`]: in which batches it cannot hold.
//! - [`message`]: the sentence that says why one did.
//! - [`decide`]: what the matches of one transaction amount to.

mod bounds;
pub(crate) mod compile;
mod condition;
pub(crate) mod decide;
mod message;
pub(crate) mod pack;

pub(crate) use compile::Rules;

#[cfg(test)]
mod tests;
