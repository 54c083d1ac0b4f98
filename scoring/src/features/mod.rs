//! Feature SQL → a plan of windows and the expressions around them.
//!
//! - [`plan`]: all feature files into one [`plan::FeaturePlan`].
//! - [`select`]: one file's SELECTs into the plan's slots.
//! - [`reach`]: how far back each column looks.
//! - [`window`]: one window expression into accumulators, or the reason why not.
//! - [`label`]: the column that becomes known only later.
//! - [`definition`](fn@definition): the batch query a file stands for.
//! - [`labelled`]: the same of windows that ask for the label.
//! - [`explain`]: what is kept for each window.
//! - [`locate`]: where in the text an error is.

mod definition;
mod explain;
mod label;
mod labelled;
mod locate;
pub(crate) mod plan;
mod reach;
mod select;
mod window;

pub use definition::definition;
pub use explain::KeptState;
pub use labelled::{KnownLabel, LABELS, labels};
pub(crate) use plan::FeaturePlan;
