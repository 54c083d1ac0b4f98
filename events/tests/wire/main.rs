//! The wire contract held to its word.

#![allow(clippy::unwrap_used)] // helpers of tests are not seen as tests

mod compatibility;
mod examples;
mod golden;
mod ids;
mod lists;
mod money;
mod round_trip;
