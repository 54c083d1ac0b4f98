//! Feature SQL → a plan of windows and the expressions around them.
//!
//! - [`plan`]: all feature files into one [`plan::FeaturePlan`].
//! - [`window`]: one window expression into accumulators, or the reason why not.
//! - [`locate`]: where in the text an error is.

mod locate;
pub(crate) mod plan;
mod window;

pub(crate) use plan::FeaturePlan;
