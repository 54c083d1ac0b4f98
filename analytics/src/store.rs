//! The rows themselves: files on disk and the newest rows in memory, seen as one through snapshots.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::watch;

use crate::config::Compression;
use crate::manifest::{FileEntry, Manifest, ManifestError};
use crate::parquet::FileError;
use crate::positions::Positions;
use crate::rows::Batches;
use crate::schema::Table;

/// A Parquet file that some snapshot consists of. A file that was merged into another is removed when the
/// last snapshot that reads it is gone.
#[derive(Debug)]
pub(crate) struct DataFile {
    pub(crate) entry: FileEntry,
    path: PathBuf,
    obsolete: AtomicBool,
}

impl DataFile {
    pub(crate) fn new(dir: &Path, entry: FileEntry) -> Self {
        Self { path: dir.join(&entry.path), entry, obsolete: AtomicBool::new(false) }
    }

    pub(crate) fn retire(&self) {
        self.obsolete.store(true, Ordering::Release);
    }
}

impl Drop for DataFile {
    fn drop(&mut self) {
        if *self.obsolete.get_mut()
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a merged file; the next start tries again");
        }
    }
}

/// Rows read from the log in one go, in memory until they are flushed.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) batches: Batches,
    /// How many log records they were made of.
    pub(crate) records: usize,
    /// Where reading goes on after them.
    pub(crate) to: Positions,
    /// When they arrived.
    pub(crate) since: Instant,
}

/// What a query sees: each stored record exactly once, whatever is flushed or merged meanwhile.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    pub(crate) files: Arc<Vec<Arc<DataFile>>>,
    pub(crate) tail: Vec<Arc<Chunk>>,
    pub(crate) tail_records: usize,
    /// Everything before these positions is in the files or in the tail.
    pub(crate) positions: Positions,
}

/// Why the store could not be opened or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot split rows by hour: {0}")]
    Arrow(#[from] datafusion::arrow::error::ArrowError),
    #[error("merging files of {0} would change the number of rows from {1} to {2}: nothing was changed")]
    RowsChanged(&'static str, u64, u64),
}

/// The warehouse's rows. One thread changes files; one appends; anyone takes snapshots.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) dir: PathBuf,
    pub(crate) compression: Compression,
    manifest: Mutex<Manifest>,
    current: Mutex<Arc<Snapshot>>,
    positions: watch::Sender<Positions>,
}

impl Store {
    /// Opens the warehouse in `dir` for reading and writing; files that no manifest names are removed.
    pub(crate) fn open(dir: &Path, compression: Compression) -> Result<Self, StoreError> {
        std::fs::create_dir_all(dir).map_err(FileError::io("create", dir))?;
        let store = Self::open_read_only(dir, compression)?;
        store.remove_orphans()?;
        Ok(store)
    }

    /// Opens the warehouse in `dir` without changing anything in it.
    pub(crate) fn open_read_only(dir: &Path, compression: Compression) -> Result<Self, StoreError> {
        let manifest = Manifest::load(dir)?;
        let files = manifest.files.iter().map(|entry| Arc::new(DataFile::new(dir, entry.clone()))).collect();
        let snapshot = Snapshot {
            files: Arc::new(files),
            tail: Vec::new(),
            tail_records: 0,
            positions: manifest.positions.clone(),
        };
        Ok(Self {
            dir: dir.to_owned(),
            compression,
            positions: watch::Sender::new(manifest.positions.clone()),
            manifest: Mutex::new(manifest),
            current: Mutex::new(Arc::new(snapshot)),
        })
    }

    /// A consistent view of all rows as of now.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.current())
    }

    /// Told whenever rows are appended, with the positions reached.
    pub(crate) fn watch_positions(&self) -> watch::Receiver<Positions> {
        self.positions.subscribe()
    }

    /// Makes rows visible.
    pub(crate) fn append(&self, chunk: Chunk) {
        let positions = chunk.to.clone();
        {
            let mut current = self.current();
            let mut next = Snapshot::clone(&current);
            next.tail_records += chunk.records;
            next.positions = chunk.to.clone();
            next.tail.push(Arc::new(chunk));
            *current = Arc::new(next);
        }
        self.positions.send_replace(positions);
    }

    /// Held by the one thread that changes files, also while it writes.
    pub(crate) fn manifest(&self) -> MutexGuard<'_, Manifest> {
        self.manifest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the manifest on disk and then in memory.
    pub(crate) fn commit(&self, manifest: &mut Manifest, next: Manifest) -> Result<(), StoreError> {
        next.store(&self.dir)?;
        *manifest = next;
        Ok(())
    }

    /// After a commit: the new files take the place of `flushed` chunks and of the files merged into them.
    pub(crate) fn publish(
        &self,
        added: Vec<Arc<DataFile>>,
        merged: &[Arc<DataFile>],
        flushed: &[Arc<Chunk>],
    ) {
        let mut current = self.current();
        let mut next = Snapshot::clone(&current);
        let gone: HashSet<&str> = merged.iter().map(|f| f.entry.path.as_str()).collect();
        let kept = next.files.iter().filter(|f| !gone.contains(f.entry.path.as_str())).cloned();
        next.files = Arc::new(kept.chain(added).collect());
        debug_assert!(next.tail.iter().zip(flushed).all(|(a, b)| Arc::ptr_eq(a, b)));
        next.tail.drain(..flushed.len());
        next.tail_records -= flushed.iter().map(|c| c.records).sum::<usize>();
        *current = Arc::new(next);
    }

    fn current(&self) -> MutexGuard<'_, Arc<Snapshot>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Removes what a crash left behind: files that were written but never committed, or merged but not
    /// yet removed.
    fn remove_orphans(&self) -> Result<(), StoreError> {
        let manifest = self.manifest();
        let named: HashSet<PathBuf> = manifest.files.iter().map(|f| self.dir.join(&f.path)).collect();
        for table in Table::ALL {
            let folder = self.dir.join(table.as_str());
            for day in list(&folder)? {
                for file in list(&day)? {
                    if !named.contains(&file) {
                        std::fs::remove_file(&file)
                            .map_err(FileError::io("remove the unfinished file", &file))?;
                        tracing::info!(path = %file.display(), "removed a file of an unfinished flush or merge");
                    }
                }
            }
        }
        Ok(())
    }
}

fn list(folder: &Path) -> Result<Vec<PathBuf>, FileError> {
    match std::fs::read_dir(folder) {
        Ok(entries) => entries
            .map(|entry| entry.map(|e| e.path()))
            .collect::<Result<_, _>>()
            .map_err(FileError::io("list", folder)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(FileError::io("list", folder)(e)),
    }
}
