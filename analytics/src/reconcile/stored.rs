//! The warehouse's side of reconciliation, whatever it is made of.

use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use serde::Serialize;

use crate::positions::Positions;
use crate::warehouse::Warehouse;

/// How long reading all stored ids may take.
const SCAN: Duration = Duration::from_secs(600);

/// Gets every batch of an answer.
pub type Visit = Box<dyn FnMut(&RecordBatch) + Send>;

/// What reconciliation asks of a warehouse.
#[async_trait]
pub trait Stored: Send + Sync {
    /// Whether new records keep arriving.
    fn is_running(&self) -> bool;

    /// Waits until everything before `goal` is stored. Returns whether it is.
    async fn wait_for(&self, goal: &Positions, wait: Duration) -> bool;

    /// Runs one of `sql/queries/` and hands each batch of its answer to `visit`.
    ///
    /// # Errors
    /// When the warehouse cannot be read.
    async fn visit(&self, sql: &'static str, visit: Visit) -> anyhow::Result<()>;

    /// What the materialized views add up to, and their tables.
    ///
    /// # Errors
    /// When the warehouse cannot be read.
    async fn views(&self) -> anyhow::Result<Vec<ViewTotals>> {
        Ok(Vec::new())
    }
}

/// A materialized view beside the table it is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ViewTotals {
    /// The table the view fills.
    pub view: &'static str,
    /// The table it is made from.
    pub table: &'static str,
    /// Rows of the table.
    pub rows: u64,
    /// Rows the view has counted.
    pub rows_in_view: u64,
    /// The sum of amounts, or points, in the table.
    pub amount: i64,
    /// The same sum in the view.
    pub amount_in_view: i64,
}

impl ViewTotals {
    /// Whether the view counted each row of the table once.
    #[must_use]
    pub const fn agrees(&self) -> bool {
        self.rows == self.rows_in_view && self.amount == self.amount_in_view
    }
}

#[async_trait]
impl Stored for Warehouse {
    fn is_running(&self) -> bool {
        Self::is_running(self)
    }

    async fn wait_for(&self, goal: &Positions, wait: Duration) -> bool {
        Self::wait_for(self, goal, wait).await
    }

    async fn visit(&self, sql: &'static str, visit: Visit) -> anyhow::Result<()> {
        drop(Self::visit(self, sql, SCAN, visit).await?);
        Ok(())
    }
}
