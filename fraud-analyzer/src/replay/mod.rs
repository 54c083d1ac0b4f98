//! Offline: a file of transactions through the same scoring code as the live stream.
//!
//! - `mapping`: which columns of the file are which of the relation `transactions`.
//! - `input`: the file as batches of that relation, and what had to be rejected.
//! - `labels`: what becomes known between them.
//! - `work`: what is kept so that a run that was cut off carries on where it was.
//! - [`run`](fn@run): the loop.

mod input;
mod labels;
mod mapping;
mod results;
mod run;
mod work;

pub(crate) use input::{Input, check};
pub(crate) use labels::LabelQueue;
pub use mapping::{LabelMapping, Mapping, MappingError};
pub use run::{ReplayConfig, ReplayProgress, ReplayReport, run};
