//! Traffic and load for trying out paystream: realistic card transactions with labelled fraud, sent at
//! a fixed rate, and requests that must be refused. A library: `paystream loadtest` is its front.
//!
//! Knows the HTTP API only; nothing here reads the server's data.
//!
//! In the order data flows:
//! - `random`: repeatable randomness, from the seed.
//! - `card`, `place`, `population`: card numbers, cities, customers with habits, stores and terminals.
//! - `scenario`: the frauds, as scripts of payments.
//! - `body`: a payment written as a request body.
//! - [`traffic`]: honest and fraudulent payments in one repeatable sequence.
//! - `schedule`: when each request is meant to be sent.
//! - `client`, `answer`: one HTTP connection, and what is read of an answer.
//! - `engine`: the open loop of connections, retries and counting.
//! - `report`: counts and latencies.
//! - `run`: one bounded run. `demo`: an endless, gentle one.
//! - [`malformed`]: requests that must be refused.

mod answer;
mod body;
mod card;
mod client;
mod demo;
mod engine;
pub mod malformed;
mod place;
mod population;
mod random;
mod report;
mod run;
mod scenario;
mod schedule;
pub mod traffic;

pub use demo::{demo_traffic, run_demo};
pub use engine::Progress;
pub use malformed::{MalformedReport, run_malformed};
pub use report::{Outcomes, Report};
pub use run::{LoadConfig, run};
pub use scenario::{Scenario, Truth};
pub use schedule::Arrivals;
pub use traffic::{Generated, Traffic, TrafficConfig};
