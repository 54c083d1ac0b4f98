//! The embedded warehouse and what is made of it: SQL for analysts, the live page, and reconciliation.
//!
//! It stores what travels on `transactions.decided`, `fraud.alerts` and `transactions.labelled`, each
//! record exactly once: Parquet files and log positions are committed in one manifest, and rows newer than
//! the last commit live in memory and are read from the log again after a restart.
//!
//! In the order data flows:
//! - [`config`]: what can be set.
//! - `schema`, `column`, `rows`: the tables, and events becoming rows.
//! - `reader`, `ingest`: from the log to rows in memory, on a thread of its own.
//! - `store`, `flush`, `compact`, `parquet`, `manifest`: rows in memory and on disk, and snapshots of both.
//! - `table`, `engine`, `guard`, [`result`]: SQL over a snapshot.
//! - [`warehouse`]: the warehouse as others use it.
//! - `live`: what the page shows, in memory.
//! - `api`, `stream`, `page`, `problem`: HTTP.
//! - [`clickhouse`]: the warehouse on a ClickHouse server instead.
//! - [`mod@reconcile`]: whether all stages hold the same transactions.

mod api;
pub mod clickhouse;
mod column;
mod compact;
pub mod config;
mod engine;
mod flush;
mod guard;
mod ingest;
mod live;
mod manifest;
mod metrics;
mod page;
mod parquet;
mod positions;
mod problem;
mod queries;
mod reader;
pub mod reconcile;
pub mod result;
mod rows;
mod schema;
mod service;
mod store;
mod stream;
mod table;
pub mod warehouse;

#[cfg(test)]
mod tests;

pub use clickhouse::{ClickHouseConfig, DistributedAnalytics};
pub use config::{Compression, WarehouseConfig};
pub use engine::{QueryError, QueryLimits};
pub use positions::Positions;
pub use reconcile::{Accepted, Report, Stored, reconcile};
pub use result::{QueryResult, ResultColumn};
pub use schema::Table;
pub use service::Analytics;
pub use warehouse::Warehouse;
