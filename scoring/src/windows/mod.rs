//! The incremental state that keeps sliding windows exact.
//!
//! - [`spec`]: the plan: which accumulators, over which frames, of which inputs.
//! - [`inputs`]: a batch of transactions → columns of numbers: time, condition bits, keys, values.
//! - [`dictionary`]: key bytes ↔ small numbers, found by [`table`].
//! - [`reservoir`]: the events that windows still need, in [`segment`]s packed by [`codec`], with the [`records`] of
//!   their keys.
//! - [`layout`]: which tail brings which events to which accumulator; [`grouping`]: which of them share a loop.
//! - [`accumulate`]: what is kept per key, with [`wide`] numbers in [`chunked`] rows; [`distinct`]: the same
//!   for different values; [`ordered`]: for the oldest, smallest and largest one; [`kind`]: one of them all.
//! - [`repeats`]: which events bring a value that their frame does not have, where frames are long, from the [`newest`]
//!   event of each, in [`lines`] of its key or in a table.
//! - [`state`]: all of it, moved on from batch to batch.
//! - [`tails`]: which events pass which tail before which row.
//! - [`run`]: a step through all of them; [`drive`]: the loop that takes each through it.
//! - [`lanes`]: the same for several counts and sums at once.
//! - [`course`]: the events of a step and its rows, as they are seen by what is kept; [`runs`]: in which order.
//! - [`labels`]: what events turn out to be, when that becomes known.
//! - [`save`]: what goes into segments and checkpoints; [`restore`]: the state again, from them.
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
mod grouping;
pub(crate) mod inputs;
pub(crate) mod kind;
mod labels;
mod lanes;
mod layout;
mod lines;
pub(crate) mod newest;
mod ordered;
mod read;
mod records;
mod repeats;
mod reservoir;
mod restore;
mod run;
mod runs;
mod save;
mod segment;
pub(crate) mod spec;
pub(crate) mod state;
mod table;
mod tails;
pub(crate) mod values;
mod wide;

pub(crate) use accumulate::FRAME_EVENTS;
pub use labels::Label;
pub(crate) use state::WindowState;
