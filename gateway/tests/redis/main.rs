//! Replicas of the gateway: several on one log, with a real Redis between them, and without it.
//!
//! Needs `PAYSTREAM_TEST_REDIS`, and for the tests that end a Redis of their own `redis-server` on the path.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod deaths;
mod limits;
mod outages;
mod servers;
mod sharing;
#[path = "../api/support.rs"]
#[allow(dead_code, reason = "shared with the tests of the API")]
mod support;
