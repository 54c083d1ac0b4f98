//! Running SQL over a snapshot: read only, bounded in memory, time and answer, away from the threads that
//! serve merchants.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::object_store::local::LocalFileSystem;
use datafusion::physical_plan::{SendableRecordBatchStream, execute_stream};
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::StreamExt as _;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::config::WarehouseConfig;
use crate::guard::guard;
use crate::result::QueryResult;
use crate::schema::Table;
use crate::store::Snapshot;
use crate::table::{STORE_URL, SnapshotTable};

/// Footers of files kept in memory.
const METADATA_CACHE_BYTES: usize = 32 * 1024 * 1024;
/// An answer is cut at this size, whatever its number of rows.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// A statement longer than this is refused before it is parsed.
const MAX_SQL_BYTES: usize = 64 * 1024;
/// Functions that make much out of nothing, outside the memory that is accounted for.
const REFUSED_SCALARS: [&str; 3] = ["repeat", "lpad", "rpad"];
const REFUSED_TABLES: [&str; 2] = ["generate_series", "range"];

/// Bounds of one query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueryLimits {
    /// The query is cancelled after this time.
    pub deadline: Duration,
    /// The answer is cut after this many rows.
    pub max_rows: usize,
}

impl QueryLimits {
    /// What the configuration says.
    #[must_use]
    pub const fn of(config: &WarehouseConfig) -> Self {
        Self { deadline: Duration::from_millis(config.query_deadline_ms), max_rows: config.query_max_rows }
    }
}

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The SQL is wrong, or asks for what is not allowed.
    #[error("{0}")]
    Invalid(String),
    /// It took too long.
    #[error(
        "the query took longer than {}: narrow it, for example to a shorter time, or raise query_deadline_ms",
        seconds(*.0)
    )]
    Deadline(Duration),
    /// It needed too much memory.
    #[error("the query needs more memory than query_memory_bytes allows: group or join fewer rows ({0})")]
    TooLarge(String),
    /// All places were taken until the deadline.
    #[error("all places for queries are taken: try again later")]
    Busy,
    /// The warehouse failed.
    #[error("the warehouse cannot be read: {0}")]
    Failed(String),
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn seconds(time: Duration) -> String {
    format!("{} s", time.as_secs_f64())
}

/// Plans and runs queries, on threads of its own.
pub(crate) struct Engine {
    env: Arc<RuntimeEnv>,
    places: Arc<Semaphore>,
    partitions: usize,
    /// Taken out only when the engine is dropped.
    runtime: Option<Runtime>,
}

impl Engine {
    pub(crate) fn new(dir: &Path, config: &WarehouseConfig) -> anyhow::Result<Self> {
        let disk = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
        let env = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(config.query_memory_bytes)))
            .with_disk_manager_builder(disk)
            .with_metadata_cache_limit(METADATA_CACHE_BYTES)
            .build_arc()?;
        let files = LocalFileSystem::new_with_prefix(dir)?;
        env.register_object_store(ObjectStoreUrl::parse(STORE_URL)?.as_ref(), Arc::new(files));
        env.deregister_object_store(ObjectStoreUrl::local_filesystem().as_ref())?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            // One per query: a step that takes long holds up no other query.
            .worker_threads(config.query_max_concurrent)
            .max_blocking_threads(2)
            .thread_name("warehouse-query")
            .on_thread_start(::runtime::background::yield_to_answers)
            .enable_time()
            .build()?;
        Ok(Self {
            env,
            places: Arc::new(Semaphore::new(config.query_max_concurrent)),
            partitions: config.query_partitions,
            runtime: Some(runtime),
        })
    }

    /// Runs one `SELECT` over the snapshot.
    pub(crate) async fn query(
        &self,
        snapshot: Arc<Snapshot>,
        sql: &str,
        limits: QueryLimits,
    ) -> Result<QueryResult, QueryError> {
        let answer =
            Answer { batches: Vec::new(), rows: 0, bytes: 0, max_rows: limits.max_rows, truncated: false };
        let (schema, answer) = self.run(snapshot, sql, limits.deadline, answer).await?;
        Ok(QueryResult::new(schema, answer.batches, answer.truncated))
    }

    /// Runs one `SELECT` and hands each batch of the answer, however many, to `visit`.
    pub(crate) async fn visit<F>(
        &self,
        snapshot: Arc<Snapshot>,
        sql: &str,
        deadline: Duration,
        visit: F,
    ) -> Result<F, QueryError>
    where
        F: FnMut(&RecordBatch) + Send + 'static,
    {
        let (_, Visit(visit)) = self.run(snapshot, sql, deadline, Visit(visit)).await?;
        Ok(visit)
    }

    async fn run<C: Collect>(
        &self,
        snapshot: Arc<Snapshot>,
        sql: &str,
        deadline: Duration,
        mut collect: C,
    ) -> Result<(SchemaRef, C), QueryError> {
        if sql.len() > MAX_SQL_BYTES {
            return Err(QueryError::Invalid(format!("a query has at most {MAX_SQL_BYTES} bytes")));
        }
        let until = Instant::now() + deadline;
        let place = Arc::clone(&self.places).acquire_owned();
        let place = tokio::time::timeout_at(until, place).await.map_err(|_| QueryError::Busy)?;
        let place = place.map_err(|_| QueryError::Busy)?;
        let context = self.context(&snapshot);
        let sql = sql.to_owned();
        let work = async move {
            let _place = place;
            let mut stream = start(&context, &sql).await?;
            let schema = stream.schema();
            while let Some(batch) = stream.next().await {
                if !collect.take(batch?) {
                    break;
                }
            }
            Ok((schema, collect))
        };
        let runtime = self.runtime.as_ref().expect("taken out only when the engine is dropped");
        // Aborted when this future is dropped: a client that goes away takes its query along.
        let mut task = AbortOnDrop(runtime.spawn(work));
        match tokio::time::timeout_at(until, &mut task.0).await {
            Ok(Ok(done)) => done.map_err(|error| classify(&error)),
            Ok(Err(panicked)) => Err(QueryError::Failed(panicked.to_string())),
            Err(_) => Err(QueryError::Deadline(deadline)),
        }
    }

    /// A session that knows the snapshot's tables and nothing else.
    fn context(&self, snapshot: &Arc<Snapshot>) -> SessionContext {
        let config = SessionConfig::new()
            .with_target_partitions(self.partitions)
            .with_information_schema(true)
            .with_default_catalog_and_schema("paystream", "warehouse")
            .set_str("datafusion.execution.time_zone", crate::column::UTC)
            .set_bool("datafusion.sql_parser.map_string_types_to_utf8view", false);
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(Arc::clone(&self.env))
            .with_default_features()
            .build();
        let context = SessionContext::new_with_state(state);
        for name in REFUSED_SCALARS {
            context.deregister_udf(name);
        }
        for name in REFUSED_TABLES {
            context.deregister_udtf(name);
        }
        for table in Table::ALL {
            let provider = SnapshotTable::new(table, Arc::clone(snapshot));
            context
                .register_table(table.as_str(), Arc::new(provider))
                .expect("the default schema is in memory and takes any table");
        }
        context
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Queries under way are cancelled; waiting for them could block the caller's thread.
            runtime.shutdown_background();
        }
    }
}

struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Takes an answer in, batch by batch.
trait Collect: Send + 'static {
    /// Returns whether to go on.
    fn take(&mut self, batch: RecordBatch) -> bool;
}

struct Visit<F>(F);

impl<F: FnMut(&RecordBatch) + Send + 'static> Collect for Visit<F> {
    fn take(&mut self, batch: RecordBatch) -> bool {
        (self.0)(&batch);
        true
    }
}

/// An answer up to its bounds.
struct Answer {
    batches: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
    max_rows: usize,
    truncated: bool,
}

impl Collect for Answer {
    fn take(&mut self, batch: RecordBatch) -> bool {
        let room = self.max_rows - self.rows;
        let kept = if batch.num_rows() > room { batch.slice(0, room) } else { batch.clone() };
        self.truncated = batch.num_rows() > room;
        self.rows += kept.num_rows();
        self.bytes += kept.get_array_memory_size();
        if kept.num_rows() > 0 {
            self.batches.push(kept);
        }
        self.truncated |= self.bytes > MAX_ANSWER_BYTES;
        !self.truncated
    }
}

async fn start(context: &SessionContext, sql: &str) -> Result<SendableRecordBatchStream, DataFusionError> {
    let read_only =
        SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    let frame = context.sql_with_options(sql, read_only).await?;
    let plan = guard(frame.create_physical_plan().await?)?;
    execute_stream(plan, context.task_ctx())
}

/// Tells the asker's mistakes from the warehouse's failures.
fn classify(error: &DataFusionError) -> QueryError {
    match error.find_root() {
        DataFusionError::ResourcesExhausted(what) => QueryError::TooLarge(what.clone()),
        root @ (DataFusionError::IoError(_)
        | DataFusionError::ObjectStore(_)
        | DataFusionError::ParquetError(_)
        | DataFusionError::Internal(_)
        | DataFusionError::ExecutionJoin(_)) => QueryError::Failed(root.strip_backtrace()),
        root => QueryError::Invalid(root.strip_backtrace()),
    }
}
