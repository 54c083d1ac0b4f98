//! The incremental state that keeps sliding windows exact.
//!
//! - [`spec`]: the plan: which accumulators, over which frames, of which inputs.
//! - [`inputs`]: a batch of transactions → per event: key numbers, condition bits, values.
//! - [`dictionary`]: key bytes ↔ small numbers.
//! - [`reservoir`]: the events that windows still need.
//! - [`layout`]: which tail touches which accumulator.
//! - [`keyed`]: the accumulators of each key.
//! - [`state`]: all of it, moved from event to event.
//!
//! After Feedzai's Railgun (Gomes et al., 2021): one reservoir, one tail per distinct frame bound,
//! shared by all keys and expressions. An event costs the same however long the windows are: it is
//! added once per accumulator when it enters a frame and taken out once when it leaves.

pub(crate) mod dictionary;
pub(crate) mod inputs;
mod keyed;
mod layout;
mod reservoir;
pub(crate) mod spec;
pub(crate) mod state;
pub(crate) mod values;

pub(crate) use state::WindowState;
