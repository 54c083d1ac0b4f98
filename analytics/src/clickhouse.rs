//! The warehouse on ClickHouse: the same tables as the embedded one, each record exactly once, in tables and
//! in the materialized views over them. How that is made sure is in `docs/adr/0006-clickhouse-exactly-once.md`.
//!
//! In the order data flows:
//! - [`config`]: what can be set.
//! - [`migrate`]: the tables on the server, from `sql/clickhouse/`.
//! - `form`, `batch`: from the log to batches of rows, on a thread of its own.
//! - `queue`, `spool`: batches that wait, in memory and on disk.
//! - `plan`, `send`: batches planned in the log, inserted, confirmed.
//! - `sink`: one process at a time does this.
//! - [`server`]: what is said to ClickHouse.
//! - `metrics`: what is counted.

mod batch;
pub mod config;
mod crash;
mod form;
mod metrics;
pub mod migrate;
mod plan;
mod queue;
mod send;
pub mod server;
mod sink;
mod spool;

#[cfg(test)]
mod tests;

/// The group whose positions say what is in ClickHouse, and whose members take turns at filling it.
pub(crate) const GROUP: &str = "analytics";
/// The writer of plans.
const WRITER: &str = "analytics-batches";
