//! The manifest: which Parquet files make up the warehouse, and up to where in the log they go.
//!
//! It is one JSON file that is replaced as a whole. Files and positions change in the same replacement:
//! that is what makes each record stored exactly once, whenever the process dies.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::positions::Positions;
use crate::schema::Table;

/// The version this build writes and reads.
const VERSION: u32 = 1;
const FILE: &str = "manifest.json";
const TEMPORARY: &str = "manifest.json.tmp";

/// What the warehouse consists of on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    version: u32,
    /// Grows by one with each replacement; part of the names of new files, so that none is used twice.
    pub(crate) generation: u64,
    /// Everything before these positions is in the files.
    pub(crate) positions: Positions,
    /// The files, oldest first.
    pub(crate) files: Vec<FileEntry>,
}

/// One Parquet file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileEntry {
    /// Whose rows it holds.
    pub(crate) table: Table,
    /// Below the warehouse's folder, with `/`.
    pub(crate) path: String,
    /// The hour all its rows belong to: hours since the Unix epoch.
    pub(crate) hour: i64,
    /// Its rows.
    pub(crate) rows: u64,
    /// Its size.
    pub(crate) bytes: u64,
    /// The least time in the table's time column.
    pub(crate) min_time_ms: i64,
    /// The greatest time in the table's time column.
    pub(crate) max_time_ms: i64,
    /// All its records come from before these positions.
    pub(crate) positions: Positions,
}

/// Why a warehouse's folder cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ManifestError {
    /// The file system refused.
    #[error("cannot {action} the warehouse's manifest {path}: {source}")]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not a manifest.
    #[error(
        "{path} is not a warehouse manifest ({reason}): restore it from a backup; do not delete it, it says which files count"
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file was written by another version of paystream.
    #[error(
        "{path} has version {found}, this build reads version {VERSION}: run the paystream that wrote it, or a newer one"
    )]
    UnknownVersion {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u64,
    },
}

impl Manifest {
    /// A warehouse without rows.
    pub(crate) fn empty() -> Self {
        Self { version: VERSION, generation: 0, positions: Positions::default(), files: Vec::new() }
    }

    /// Reads the manifest of a warehouse; a folder without one is an empty warehouse.
    pub(crate) fn load(dir: &Path) -> Result<Self, ManifestError> {
        let path = dir.join(FILE);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::empty()),
            Err(source) => return Err(ManifestError::Io { action: "read", path, source }),
        };
        let malformed = |reason: String| ManifestError::Malformed { path: path.clone(), reason };
        let json: serde_json::Value = serde_json::from_slice(&bytes).map_err(|e| malformed(e.to_string()))?;
        match json.get("version").and_then(serde_json::Value::as_u64) {
            Some(found) if found == u64::from(VERSION) => {}
            Some(found) => return Err(ManifestError::UnknownVersion { path, found }),
            None => return Err(malformed("it has no `version`".to_owned())),
        }
        serde_json::from_value(json).map_err(|e| malformed(e.to_string()))
    }

    /// Replaces the manifest on disk: after a crash at any moment, the old or the new one is there whole.
    pub(crate) fn store(&self, dir: &Path) -> Result<(), ManifestError> {
        let (path, temporary) = (dir.join(FILE), dir.join(TEMPORARY));
        let error = |action, path: &Path| {
            let path = path.to_owned();
            move |source| ManifestError::Io { action, path, source }
        };
        let json = serde_json::to_vec(self).expect("the manifest has string keys only");
        let write = || -> io::Result<()> {
            let mut file = File::create(&temporary)?;
            file.write_all(&json)?;
            file.sync_all()
        };
        write().map_err(error("write", &temporary))?;
        fs::rename(&temporary, &path).map_err(error("replace", &path))?;
        sync_dir(dir).map_err(error("make durable", &path))
    }
}

/// Makes the names in a folder durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> Manifest {
        let mut positions = Positions::default();
        positions.set("transactions.decided", 2, 17);
        let file = FileEntry {
            table: Table::RuleHits,
            path: "rule_hits/x.parquet".to_owned(),
            hour: 3,
            rows: 2,
            bytes: 100,
            min_time_ms: 1,
            max_time_ms: 2,
            positions: positions.clone(),
        };
        Manifest { generation: 4, positions, files: vec![file], ..Manifest::empty() }
    }

    #[test]
    fn a_stored_manifest_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Manifest::load(dir.path()).unwrap(), Manifest::empty());
        manifest().store(dir.path()).unwrap();
        assert_eq!(Manifest::load(dir.path()).unwrap(), manifest());
    }

    #[test]
    fn an_unknown_version_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), r#"{"version":2,"anything":true}"#).unwrap();
        let error = Manifest::load(dir.path()).unwrap_err();
        assert!(matches!(error, ManifestError::UnknownVersion { found: 2, .. }), "{error}");
    }

    #[test]
    fn a_damaged_manifest_is_an_error_and_not_an_empty_warehouse() {
        let dir = tempfile::tempdir().unwrap();
        for damaged in ["", "{\"version\":1", "{}", "{\"version\":1}"] {
            fs::write(dir.path().join(FILE), damaged).unwrap();
            let error = Manifest::load(dir.path()).unwrap_err();
            assert!(matches!(error, ManifestError::Malformed { .. }), "{damaged:?}: {error}");
        }
    }

    #[test]
    fn a_replacement_that_was_not_finished_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        manifest().store(dir.path()).unwrap();
        fs::write(dir.path().join(TEMPORARY), "{\"version\":1,\"gener").unwrap();
        assert_eq!(Manifest::load(dir.path()).unwrap(), manifest());
        manifest().store(dir.path()).unwrap();
        assert_eq!(Manifest::load(dir.path()).unwrap(), manifest());
    }
}
