//! The stores of a stopped system.

use std::sync::Arc;

use analytics::Warehouse;
use anyhow::Context as _;
use eventlog::EmbeddedLog;
use gateway::Ledger;

use crate::query::{Answer, Column};
use crate::reconcile::Stores;
use crate::source::Stopped;

/// The log and the warehouse of a stopped system, open.
pub(crate) struct Offline {
    log: Arc<EmbeddedLog>,
    warehouse: Arc<Warehouse>,
}

impl Offline {
    pub(crate) async fn open(stopped: &Stopped) -> anyhow::Result<Self> {
        let (dir, config) = (stopped.dir.log(), stopped.config.log.clone());
        let log = tokio::task::spawn_blocking(move || EmbeddedLog::open(&dir, config))
            .await
            .context("opening the event log")?
            .with_context(|| format!("opening the event log in {}", stopped.dir.log().display()))?;
        let log = Arc::new(log);
        let warehouse = Warehouse::open_offline(&stopped.dir.warehouse(), log.clone())
            .await
            .with_context(|| format!("opening the warehouse in {}", stopped.dir.warehouse().display()))?;
        Ok(Self { log, warehouse })
    }

    /// The answer to a question in SQL.
    pub(crate) async fn query(&self, sql: &str) -> anyhow::Result<Answer> {
        let result = self.warehouse.query(sql).await?;
        let columns = result.columns().into_iter().map(|column| Column { name: column.name }).collect();
        let rows = result.json_rows().context("reading the answer's rows")?;
        Ok(Answer { columns, rows, truncated: result.truncated })
    }

    /// The stores to reconcile.
    pub(crate) fn stores(&self, stopped: &Stopped) -> anyhow::Result<Stores> {
        let ledger = Ledger::open(stopped.dir.path())
            .with_context(|| format!("opening the gateway's ledger in {}", stopped.dir.path().display()))?;
        Ok(Stores { ledger: Arc::new(ledger), log: self.log.clone(), warehouse: self.warehouse.clone() })
    }

    /// Compares a given list of what was accepted with the log and the warehouse.
    pub(crate) async fn reconcile(&self, accepted: analytics::Accepted) -> anyhow::Result<analytics::Report> {
        analytics::reconcile(accepted, &*self.log, &*self.warehouse).await
    }

    pub(crate) async fn close(self) {
        self.log.close().await;
    }
}
