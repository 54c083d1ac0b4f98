//! Offline: a file of transactions through the same scoring code as the live stream.
//!
//! - `mapping`: which columns of the file are which of the relation `transactions`.
//! - `input`: the file as batches of that relation, and what had to be rejected.
//! - `work`: what is kept so that a run that was cut off carries on where it was.
//! - [`run`](fn@run): the loop.

mod input;
mod mapping;
mod results;
mod run;
mod work;

pub(crate) use input::{Input, check};
pub use mapping::{Mapping, MappingError};
pub use run::{ReplayConfig, ReplayProgress, ReplayReport, run};
