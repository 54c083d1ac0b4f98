//! From memory to Parquet: the newest rows become files, and files and positions are committed together.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;

use crate::manifest::{FileEntry, Manifest};
use crate::parquet::{self, HourRows, Pacer};
use crate::positions::Positions;
use crate::schema::Table;
use crate::store::{Chunk, DataFile, Store, StoreError};

/// What a flush moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flushed {
    pub(crate) records: usize,
    pub(crate) files: usize,
}

impl Store {
    /// Writes all rows that are in memory now to files. Rows that arrive meanwhile stay in memory.
    ///
    /// A crash before the commit leaves files that nothing names, and positions from which the same rows
    /// are read again; a crash after it leaves rows that are in files and not read again.
    pub(crate) fn flush(&self, pacer: &Pacer) -> Result<Option<Flushed>, StoreError> {
        let frozen = self.snapshot();
        let Some(last) = frozen.tail.last() else { return Ok(None) };
        let mut manifest = self.manifest();
        let entries = self.write_tail(&mut manifest, &frozen.tail, pacer)?;
        let files: Vec<_> = entries.iter().map(|e| Arc::new(DataFile::new(&self.dir, e.clone()))).collect();
        let flushed = Flushed { records: frozen.tail_records, files: files.len() };
        self.commit_files(&mut manifest, entries, &last.to)?;
        self.publish(files, &[], &frozen.tail);
        Ok(Some(flushed))
    }

    /// The rows of the chunks as files that nothing names yet.
    pub(crate) fn write_tail(
        &self,
        manifest: &mut Manifest,
        chunks: &[Arc<Chunk>],
        pacer: &Pacer,
    ) -> Result<Vec<FileEntry>, StoreError> {
        // Counted before the outcome is known: a second attempt never reuses the name of a file that the
        // first one may have committed after all.
        manifest.generation += 1;
        let to = chunks.last().map(|c| c.to.clone()).unwrap_or_default();
        let mut entries = Vec::new();
        for (at, table) in Table::ALL.into_iter().enumerate() {
            let mut hours: BTreeMap<i64, Vec<HourRows>> = BTreeMap::new();
            for batch in chunks.iter().filter_map(|chunk| chunk.batches[at].as_ref()) {
                for part in parquet::split_by_hour(table, batch)? {
                    hours.entry(part.hour).or_default().push(part);
                }
            }
            for (hour, parts) in hours {
                entries.push(self.write_hour(manifest.generation, table, hour, parts, &to, pacer)?);
            }
        }
        Ok(entries)
    }

    fn write_hour(
        &self,
        generation: u64,
        table: Table,
        hour: i64,
        parts: Vec<HourRows>,
        to: &Positions,
        pacer: &Pacer,
    ) -> Result<FileEntry, StoreError> {
        let min_time_ms = parts.iter().map(|p| p.min_time_ms).min().unwrap_or_default();
        let max_time_ms = parts.iter().map(|p| p.max_time_ms).max().unwrap_or_default();
        let rows = parts.iter().map(|p| p.rows.num_rows() as u64).sum();
        let path = file_path(table, hour, generation);
        let batches = parts.into_iter().map(|p| Ok::<RecordBatch, _>(p.rows));
        let bytes = parquet::write(&self.dir.join(&path), table, batches, self.compression, pacer)?;
        Ok(FileEntry { table, path, hour, rows, bytes, min_time_ms, max_time_ms, positions: to.clone() })
    }

    /// Adds files to the manifest and moves its positions, in one replacement.
    pub(crate) fn commit_files(
        &self,
        manifest: &mut Manifest,
        added: Vec<FileEntry>,
        to: &Positions,
    ) -> Result<(), StoreError> {
        let mut next = manifest.clone();
        next.files.extend(added);
        next.positions = to.clone();
        self.commit(manifest, next)
    }
}

/// `decisions/2026-11-21/06-000000000012.parquet`: table, day, hour and the manifest's generation.
pub(crate) fn file_path(table: Table, hour: i64, generation: u64) -> String {
    let (day, hour_of_day) = (hour.div_euclid(24), hour.rem_euclid(24));
    let date = i32::try_from(day)
        .ok()
        .and_then(|days| {
            jiff::civil::date(1970, 1, 1).checked_add(jiff::Span::new().try_days(days).ok()?).ok()
        })
        .map_or_else(|| format!("day{day}"), |date| date.to_string());
    format!("{}/{date}/{hour_of_day:02}-{generation:012}.parquet", table.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_by_table_day_and_hour() {
        assert_eq!(file_path(Table::RuleHits, 0, 1), "rule_hits/1970-01-01/00-000000000001.parquet");
        // 2026-11-21T06:58Z
        assert_eq!(
            file_path(Table::Decisions, 1_795_244_280 / 3_600, 42),
            "decisions/2026-11-21/06-000000000042.parquet"
        );
        assert_eq!(
            file_path(Table::Labels, i64::MAX, 7).split('/').count(),
            3,
            "absurd times have a place too"
        );
    }
}
