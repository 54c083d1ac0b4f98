//! The embedded warehouse, as others see it: SQL over everything stored.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use datafusion::arrow::array::RecordBatch;
use eventlog::EventLog;
use tokio::time::Instant;

use crate::config::WarehouseConfig;
use crate::engine::{Engine, QueryError, QueryLimits};
use crate::ingest::chunk;
use crate::metrics::Metrics;
use crate::positions::Positions;
use crate::reader::Reader;
use crate::result::QueryResult;
use crate::rows::Rows;
use crate::store::Store;

/// How long a query from the command line may take on a stopped system.
const OFFLINE_DEADLINE: Duration = Duration::from_secs(600);
const OFFLINE_MAX_ROWS: usize = 1_000_000;

/// The warehouse of one data directory.
pub struct Warehouse {
    pub(crate) store: Arc<Store>,
    pub(crate) engine: Engine,
    limits: QueryLimits,
    metrics: Option<Metrics>,
    running: bool,
}

impl std::fmt::Debug for Warehouse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Warehouse").field("dir", &self.store.dir).finish_non_exhaustive()
    }
}

impl Warehouse {
    /// Opens a warehouse that is kept up to date by [`crate::Analytics`].
    pub(crate) fn open(dir: &Path, config: &WarehouseConfig, metrics: Metrics) -> anyhow::Result<Self> {
        let store = Store::open(dir, config.compression).context("opening the warehouse")?;
        let engine = Engine::new(dir, config)?;
        let limits = QueryLimits::of(config);
        Ok(Self { store: Arc::new(store), engine, limits, metrics: Some(metrics), running: true })
    }

    /// Opens the warehouse of a system that is not running: its files, and in memory what the log holds
    /// beyond them. Nothing on disk is changed.
    ///
    /// # Errors
    /// When the manifest or the log cannot be read, or do not belong together.
    pub async fn open_offline(dir: &Path, log: Arc<dyn EventLog>) -> anyhow::Result<Arc<Self>> {
        let config = WarehouseConfig::default();
        std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))?;
        let store = Store::open_read_only(dir, config.compression).context("opening the warehouse")?;
        let mut reader = Reader::open(log, store.snapshot().positions.clone(), None).await?;
        let mut rows = Rows::default();
        while reader.poll(&mut rows, None).await.context("reading the log's newest records")? > 0 {
            if let Some(chunk) = chunk(&mut rows, &reader) {
                store.append(chunk);
            }
        }
        let limits = QueryLimits { deadline: OFFLINE_DEADLINE, max_rows: OFFLINE_MAX_ROWS };
        let engine = Engine::new(dir, &config)?;
        Ok(Arc::new(Self { store: Arc::new(store), engine, limits, metrics: None, running: false }))
    }

    /// Runs one `SELECT` within the configured limits.
    ///
    /// # Errors
    /// [`QueryError`] tells a mistake in the SQL from limits and from failures.
    pub async fn query(&self, sql: &str) -> Result<QueryResult, QueryError> {
        self.query_with(sql, self.limits).await
    }

    /// Runs one `SELECT` within other limits.
    ///
    /// # Errors
    /// As [`Warehouse::query`].
    pub async fn query_with(&self, sql: &str, limits: QueryLimits) -> Result<QueryResult, QueryError> {
        let began = Instant::now();
        let answer = self.engine.query(self.store.snapshot(), sql, limits).await;
        if let Some(metrics) = &self.metrics {
            let result = match &answer {
                Ok(_) => "ok",
                Err(QueryError::Invalid(_)) => "invalid",
                Err(QueryError::Deadline(_)) => "deadline",
                Err(QueryError::TooLarge(_)) => "too_large",
                Err(QueryError::Busy) => "busy",
                Err(QueryError::Failed(_)) => "failed",
            };
            metrics.query_seconds.with_label_values(&[result]).observe(began.elapsed().as_secs_f64());
        }
        if let Err(QueryError::Failed(reason)) = &answer {
            tracing::error!(reason, "a query failed for no fault of the asker");
        }
        answer
    }

    /// Runs one `SELECT` and hands every batch of its answer to `visit`.
    pub(crate) async fn visit<F>(&self, sql: &str, deadline: Duration, visit: F) -> Result<F, QueryError>
    where
        F: FnMut(&RecordBatch) + Send + 'static,
    {
        self.engine.visit(self.store.snapshot(), sql, deadline, visit).await
    }

    /// Up to where in the log everything is visible to queries.
    #[must_use]
    pub fn positions(&self) -> Positions {
        self.store.snapshot().positions.clone()
    }

    /// Whether new records keep arriving.
    pub(crate) const fn is_running(&self) -> bool {
        self.running
    }

    /// Waits until everything before `goal` is visible to queries. Returns whether it is.
    pub async fn wait_for(&self, goal: &Positions, wait: Duration) -> bool {
        let mut positions = self.store.watch_positions();
        let reached = positions.wait_for(|here| here.reached(goal));
        matches!(tokio::time::timeout(wait, reached).await, Ok(Ok(_)))
    }
}
