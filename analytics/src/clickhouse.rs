//! The warehouse on ClickHouse: the same tables as the embedded one, each record exactly once, in tables and
//! in the materialized views over them. How that is made sure is in `docs/adr/0006-clickhouse-exactly-once.md`.
//!
//! In the order data flows:
//! - [`config`]: what can be set.
//! - [`mod@migrate`]: the tables on the server, from `sql/clickhouse/`.
//! - `form`, `batch`: from the log to batches of rows, on a thread of its own.
//! - `queue`, `spool`: batches that wait, in memory and on disk.
//! - `plan`, `send`: batches planned in the log, inserted, confirmed.
//! - `sink`: one process at a time does this.
//! - [`server`], [`query`]: what is said to ClickHouse.
//! - [`stored`], `compare`: what reconciliation asks of it, at once and all the time.
//! - `service`, `api`, `metrics`: starting and stopping, SQL over HTTP, what is counted.

mod api;
pub(crate) mod batch;
pub(crate) mod compare;
pub mod config;
pub(crate) mod crash;
mod form;
pub(crate) mod metrics;
pub mod migrate;
mod plan;
pub mod query;
mod queue;
mod send;
pub mod server;
mod service;
mod sink;
mod spool;
pub mod stored;

pub use config::{ClickHouseConfig, Wire};
pub use migrate::{MigrateError, migrate, status};
pub use server::{Server, ServerError};
pub use service::DistributedAnalytics;
pub use stored::ClickHouseStored;

/// The group whose positions say what is in ClickHouse, and whose members take turns at filling it.
pub(crate) const GROUP: &str = "analytics";
/// The writer of plans.
const WRITER: &str = "analytics-batches";
