//! Merging the small files of an hour that is over.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::flush::file_path;
use crate::manifest::FileEntry;
use crate::parquet::{self, FileError, Pacer};
use crate::schema::Table;
use crate::store::{DataFile, Store, StoreError};

/// Hours this recent may still get rows: the log's latest records are read with some delay.
const GRACE_MS: i64 = 300_000;

/// What is small, and how many small files are too many.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// An hour with more small files than this is merged.
    pub(crate) min_files: usize,
    /// A merged file gets at most about this many rows; one of half as many is not small.
    pub(crate) max_rows: u64,
}

impl Store {
    /// Merges the small files of one table and hour, if there are too many. Returns whether there were.
    pub(crate) fn compact_once(
        &self,
        now_ms: i64,
        limits: Limits,
        pacer: &Pacer,
    ) -> Result<bool, StoreError> {
        let mut manifest = self.manifest();
        let Some(group) = choose(&manifest.files, now_ms, limits) else { return Ok(false) };
        manifest.generation += 1;
        let merged = self.merge(&group, manifest.generation, pacer)?;

        let mut next = manifest.clone();
        next.files.retain(|file| !group.contains(file));
        next.files.push(merged.clone());
        self.commit(&mut manifest, next)?;

        let snapshot = self.snapshot();
        let old: Vec<_> = snapshot.files.iter().filter(|f| group.contains(&f.entry)).cloned().collect();
        drop(snapshot);
        self.publish(vec![Arc::new(DataFile::new(&self.dir, merged))], &old, &[]);
        for file in &old {
            file.retire();
        }
        Ok(true)
    }

    fn merge(&self, group: &[FileEntry], generation: u64, pacer: &Pacer) -> Result<FileEntry, StoreError> {
        let first = group.first().expect("a group has files");
        let path = file_path(first.table, first.hour, generation);
        let target = self.dir.join(&path);
        let expected: u64 = group.iter().map(|f| f.rows).sum();
        let mut rows = 0;
        let batches = group
            .iter()
            .flat_map(|file| {
                let batches = parquet::read(&self.dir.join(&file.path));
                let (batches, failed) = match batches {
                    Ok(batches) => (Some(batches), None),
                    Err(error) => (None, Some(Err::<_, FileError>(error))),
                };
                failed.into_iter().chain(batches.into_iter().flatten())
            })
            .inspect(|batch| rows += batch.as_ref().map_or(0, |b| b.num_rows() as u64));
        let bytes = parquet::write(&target, first.table, batches, self.compression, pacer)?;
        if rows != expected {
            let _ = std::fs::remove_file(&target);
            return Err(StoreError::RowsChanged(first.table.as_str(), expected, rows));
        }
        let last = group.iter().max_by_key(|f| &f.path).expect("a group has files");
        Ok(FileEntry {
            table: first.table,
            path,
            hour: first.hour,
            rows,
            bytes,
            min_time_ms: group.iter().map(|f| f.min_time_ms).min().unwrap_or_default(),
            max_time_ms: group.iter().map(|f| f.max_time_ms).max().unwrap_or_default(),
            positions: last.positions.clone(),
        })
    }
}

/// The small files of the oldest table and hour that has too many, oldest first, as many as fit one file.
fn choose(files: &[FileEntry], now_ms: i64, limits: Limits) -> Option<Vec<FileEntry>> {
    let first_open_hour = parquet::hour_of(now_ms.saturating_sub(GRACE_MS));
    let mut groups: BTreeMap<(i64, Table), Vec<&FileEntry>> = BTreeMap::new();
    for file in files.iter().filter(|f| f.hour < first_open_hour && f.rows < limits.max_rows / 2) {
        groups.entry((file.hour, file.table)).or_default().push(file);
    }
    let (_, group) = groups.into_iter().find(|(_, group)| group.len() > limits.min_files)?;
    let mut rows = 0;
    let fitting = group.into_iter().take_while(|file| {
        rows += file.rows;
        rows <= limits.max_rows
    });
    Some(fitting.cloned().collect())
}
