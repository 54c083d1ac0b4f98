//! The incremental state that keeps sliding windows exact.
//!
//! - [`spec`]: the plan: which accumulators, over which frames, of which inputs.
//! - [`inputs`]: a batch of transactions → columns of numbers: time, condition bits, keys, values.
//! - [`dictionary`]: key bytes ↔ small numbers.
//! - [`reservoir`]: the events that windows still need, packed by [`codec`].
//! - [`layout`]: which tail brings which events to which accumulator.
//! - [`accumulate`]: what is kept per key, with [`wide`] numbers in [`chunked`] rows; [`distinct`]: the same
//!   for different values.
//! - [`state`]: all of it, moved on from batch to batch.
//! - [`drive`]: the loop that takes each of them through a batch.
//! - [`lanes`]: the same for several counts and sums at once.
//! - [`course`]: the events of a step and its rows, in order.
//! - [`labels`]: what events turn out to be, when that becomes known.
//! - [`restore`]: the state again, from a checkpoint.
//! - [`read`]: what accumulators hold → the windows' columns.
//!
//! After Feedzai's Railgun (Gomes et al., 2021): one reservoir, one tail per distinct frame bound,
//! shared by all keys and expressions. An event costs the same however long the windows are: it is
//! added once per accumulator when it enters a frame and taken out once when it leaves.

pub(crate) mod accumulate;
mod chunked;
mod codec;
mod course;
mod dictionary;
mod distinct;
mod drive;
pub(crate) mod inputs;
mod labels;
mod lanes;
pub(crate) mod layout;
mod read;
mod reservoir;
mod restore;
pub(crate) mod spec;
pub(crate) mod state;
pub(crate) mod values;
mod wide;

pub use labels::Label;
pub(crate) use state::WindowState;
