//! The scoring engine by itself, over a file or made-up events: how fast it is, and whether it is right.
//!
//! - [`source`]: batches of transactions, from a file or made up.
//! - [`mod@bench`]: what an event costs, stage by stage.
//! - [`check`]: every feature of every row against batch SQL.
//! - `batch_sql`: the same features by stock DataFusion.

mod batch_sql;
pub mod bench;
pub mod check;
pub mod source;

pub use bench::{BenchConfig, BenchReport};
pub use check::{CheckConfig, CheckReport};
pub use source::{EngineInput, Synthetic};
