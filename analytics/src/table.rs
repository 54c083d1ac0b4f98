//! A table of a snapshot, as DataFusion sees it: its Parquet files and its rows in memory, as one.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{ColumnStatistics, Result, ScalarValue, Statistics};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::datasource::physical_plan::parquet::CachedParquetFileReaderFactory;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::union::UnionExec;

use crate::column::UTC;
use crate::manifest::FileEntry;
use crate::schema::Table;
use crate::store::Snapshot;

/// Where the warehouse's folder is registered; nothing else of the file system is reachable from SQL.
pub(crate) const STORE_URL: &str = "warehouse://files/";

/// One table in one snapshot. Holding it keeps the snapshot's files from being removed.
#[derive(Debug)]
pub(crate) struct SnapshotTable {
    table: Table,
    snapshot: Arc<Snapshot>,
}

impl SnapshotTable {
    pub(crate) const fn new(table: Table, snapshot: Arc<Snapshot>) -> Self {
        Self { table, snapshot }
    }

    fn batches(&self) -> Vec<RecordBatch> {
        let at = self.table as usize;
        self.snapshot.tail.iter().filter_map(|chunk| chunk.batches[at].clone()).collect()
    }

    fn scan_files(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        limit: Option<usize>,
    ) -> Result<Option<Arc<dyn ExecutionPlan>>> {
        let entries: Vec<&FileEntry> =
            self.snapshot.files.iter().map(|f| &f.entry).filter(|e| e.table == self.table).collect();
        if entries.is_empty() {
            return Ok(None);
        }
        let files = entries.iter().map(|e| self.partitioned_file(e)).collect();
        let partitions = state.config().target_partitions().min(entries.len());
        let url = ObjectStoreUrl::parse(STORE_URL)?;
        let env = state.runtime_env();
        let readers = CachedParquetFileReaderFactory::new(
            env.object_store(&url)?,
            env.cache_manager.get_file_metadata_cache(),
        );
        let source = ParquetSource::new(self.schema()).with_parquet_file_reader_factory(Arc::new(readers));
        let scan = FileScanConfigBuilder::new(url, Arc::new(source))
            .with_file_groups(FileGroup::new(files).split_files(partitions))
            .with_statistics(self.statistics_of(&entries))
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(Some(DataSourceExec::from_data_source(scan)))
    }

    fn partitioned_file(&self, entry: &FileEntry) -> PartitionedFile {
        PartitionedFile::new(entry.path.as_str(), entry.bytes)
            .with_statistics(Arc::new(self.statistics_of(&[entry])))
    }

    /// What the manifest knows: rows, and the bounds of the time column, by which files are left out.
    fn statistics_of(&self, entries: &[&FileEntry]) -> Statistics {
        let schema = self.schema();
        let mut statistics = Statistics::new_unknown(&schema);
        let rows: u64 = entries.iter().map(|e| e.rows).sum();
        statistics.num_rows = Precision::Exact(usize::try_from(rows).unwrap_or(usize::MAX));
        let bound = |ms: Option<i64>| match ms {
            Some(ms) => Precision::Exact(ScalarValue::TimestampMillisecond(Some(ms), Some(UTC.into()))),
            None => Precision::Absent,
        };
        if let Ok(at) = schema.index_of(self.table.time_column()) {
            statistics.column_statistics[at] = ColumnStatistics {
                null_count: Precision::Exact(0),
                min_value: bound(entries.iter().map(|e| e.min_time_ms).min()),
                max_value: bound(entries.iter().map(|e| e.max_time_ms).max()),
                ..ColumnStatistics::new_unknown()
            };
        }
        statistics
    }
}

#[async_trait]
impl TableProvider for SnapshotTable {
    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let memory =
            || MemorySourceConfig::try_new_exec(&[self.batches()], self.schema(), projection.cloned());
        let Some(files) = self.scan_files(state, projection, limit)? else { return Ok(memory()?) };
        if self.snapshot.tail.is_empty() {
            return Ok(files);
        }
        UnionExec::try_new(vec![files, memory()?])
    }
}
