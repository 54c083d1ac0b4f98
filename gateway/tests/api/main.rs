//! The gateway's rules, held against real HTTP answers: the router, the real log on disk, and a decider
//! that stands in for the analyzer.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod access;
mod batch;
mod durability;
mod idempotency;
mod labels;
mod limits;
mod lists;
mod malformed;
mod reference;
mod secrets;
mod submit;
mod support;
