//! Writing and merging Parquet files, at a pace that leaves the processor to payments.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use datafusion::arrow::array::{AsArray as _, BooleanArray, RecordBatch};
use datafusion::arrow::compute::filter_record_batch;
use datafusion::arrow::datatypes::TimestampMillisecondType;
use datafusion::arrow::error::ArrowError;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use datafusion::parquet::basic::{Compression as Codec, ZstdLevel};
use datafusion::parquet::errors::ParquetError;
use datafusion::parquet::file::properties::WriterProperties;
use datafusion::parquet::schema::types::ColumnPath;

use crate::config::Compression;
use crate::schema::Table;

const HOUR_MS: i64 = 3_600_000;
/// Rows of one row group: what a writer holds in memory at most, encoded and compressed.
const ROW_GROUP_ROWS: usize = 131_072;
/// Rows encoded between two rests.
const SLICE_ROWS: usize = 2_048;
/// The longest rest between two slices.
const MAX_REST: Duration = Duration::from_millis(20);

/// Why a file was not written or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// The file system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not what it should be, or writing it failed.
    #[error("Parquet file {path}: {source}")]
    Parquet {
        /// The file.
        path: PathBuf,
        /// What the format's reader or writer said.
        source: ParquetError,
    },
}

impl FileError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }

    fn parquet(path: &Path) -> impl Fn(ParquetError) -> Self {
        move |source| Self::Parquet { path: path.to_owned(), source }
    }
}

/// Rests as long as it works, so that background work takes at most half a processor and gives way to
/// what merchants wait for; stops resting once the process is to stop.
#[derive(Debug, Default)]
pub(crate) struct Pacer {
    hurry: Mutex<bool>,
    changed: Condvar,
}

impl Pacer {
    /// From now on, no rests.
    pub(crate) fn hurry(&self) {
        *self.hurry.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Waits for `time`, or until there is a hurry. Returns whether there is.
    pub(crate) fn wait(&self, time: Duration) -> bool {
        let hurry = self.hurry.lock().unwrap_or_else(PoisonError::into_inner);
        let (hurry, _) = self
            .changed
            .wait_timeout_while(hurry, time, |hurry| !*hurry)
            .unwrap_or_else(PoisonError::into_inner);
        *hurry
    }
}

/// Rows of one table and one hour, on the way to a file.
pub(crate) struct HourRows {
    pub(crate) hour: i64,
    pub(crate) min_time_ms: i64,
    pub(crate) max_time_ms: i64,
    pub(crate) rows: RecordBatch,
}

/// The hour a time belongs to: hours since the Unix epoch.
pub(crate) const fn hour_of(time_ms: i64) -> i64 {
    time_ms.div_euclid(HOUR_MS)
}

/// Splits rows by the hour of their time.
pub(crate) fn split_by_hour(table: Table, batch: &RecordBatch) -> Result<Vec<HourRows>, ArrowError> {
    let column = batch.column_by_name(table.time_column()).expect("every table has its time column");
    let times = column.as_primitive::<TimestampMillisecondType>().values();
    let mut hours: Vec<i64> = times.iter().map(|&t| hour_of(t)).collect();
    hours.sort_unstable();
    hours.dedup();
    let one_hour = hours.len() == 1;
    hours
        .into_iter()
        .map(|hour| {
            let inside = || times.iter().copied().filter(|&t| hour_of(t) == hour);
            let rows = if one_hour {
                batch.clone()
            } else {
                let mask: BooleanArray = times.iter().map(|&t| Some(hour_of(t) == hour)).collect();
                filter_record_batch(batch, &mask)?
            };
            let (min, max) = (inside().min(), inside().max());
            let bounds = min.zip(max).expect("an hour is listed because a row is in it");
            Ok(HourRows { hour, min_time_ms: bounds.0, max_time_ms: bounds.1, rows })
        })
        .collect()
}

/// Writes batches to a new file and makes it durable. Returns its size. On failure nothing is left of it.
pub(crate) fn write(
    path: &Path,
    table: Table,
    batches: impl Iterator<Item = Result<RecordBatch, FileError>>,
    compression: Compression,
    pacer: &Pacer,
) -> Result<u64, FileError> {
    let written = write_paced(path, table, batches, compression, pacer);
    if written.is_err() {
        // If this fails too, the next start removes the file: no manifest names it.
        let _ = std::fs::remove_file(path);
    }
    written
}

fn write_paced(
    path: &Path,
    table: Table,
    batches: impl Iterator<Item = Result<RecordBatch, FileError>>,
    compression: Compression,
    pacer: &Pacer,
) -> Result<u64, FileError> {
    let dir = path.parent().expect("files are below the warehouse's folder");
    std::fs::create_dir_all(dir).map_err(FileError::io("create", dir))?;
    let file = File::create_new(path).map_err(FileError::io("create", path))?;
    let failed = FileError::parquet(path);
    let mut writer =
        ArrowWriter::try_new(file, table.schema(), Some(properties(table, compression))).map_err(&failed)?;
    for batch in batches {
        let batch = batch?;
        for from in (0..batch.num_rows()).step_by(SLICE_ROWS) {
            let began = Instant::now();
            let slice = batch.slice(from, SLICE_ROWS.min(batch.num_rows() - from));
            writer.write(&slice).map_err(&failed)?;
            pacer.wait(began.elapsed().min(MAX_REST));
        }
    }
    let file = writer.into_inner().map_err(&failed)?;
    file.sync_all().map_err(FileError::io("make durable", path))?;
    crate::manifest::sync_dir(dir).map_err(FileError::io("make durable", dir))?;
    Ok(file.metadata().map_err(FileError::io("read the size of", path))?.len())
}

fn properties(table: Table, compression: Compression) -> WriterProperties {
    let codec = match compression {
        Compression::Zstd => Codec::ZSTD(ZstdLevel::default()),
        Compression::Lz4 => Codec::LZ4_RAW,
        Compression::None => Codec::UNCOMPRESSED,
    };
    WriterProperties::builder()
        .set_compression(codec)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        // Looking one transaction up must not read every file.
        .set_column_bloom_filter_enabled(ColumnPath::from(table.transaction_column()), true)
        .build()
}

/// The batches of a file.
pub(crate) fn read(
    path: &Path,
) -> Result<impl Iterator<Item = Result<RecordBatch, FileError>> + use<>, FileError> {
    let file = File::open(path).map_err(FileError::io("open", path))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)
        .and_then(|builder| builder.with_batch_size(SLICE_ROWS).build())
        .map_err(FileError::parquet(path))?;
    let path = path.to_owned();
    Ok(reader.map(move |batch| batch.map_err(|e| FileError::parquet(&path)(ParquetError::from(e)))))
}
