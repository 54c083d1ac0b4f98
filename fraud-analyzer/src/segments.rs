//! The scorer's sealed segments as files: kept in memory until a checkpoint names them, so that the
//! hot path never waits for a disk.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use scoring::{SegmentId, SegmentStore};

use crate::durable;

const SUFFIX: &str = ".seg";

/// A directory of segments.
#[derive(Debug)]
pub(crate) struct SegmentDir {
    dir: PathBuf,
    /// Sealed, and not yet in a file.
    pending: Mutex<BTreeMap<SegmentId, Arc<[u8]>>>,
}

impl SegmentDir {
    pub(crate) fn open(dir: &Path) -> io::Result<Arc<Self>> {
        fs::create_dir_all(dir)?;
        Ok(Arc::new(Self { dir: dir.to_owned(), pending: Mutex::default() }))
    }

    /// Makes the segments durable that a checkpoint is about to name. Returns the bytes written.
    pub(crate) fn persist(&self, named: &[SegmentId]) -> io::Result<u64> {
        let mut written = 0;
        for &id in named {
            let pending = self.pending().get(&id).map(Arc::clone);
            if let Some(bytes) = pending {
                durable::replace(&self.path(id), &bytes)?;
                self.pending().remove(&id);
                written += bytes.len() as u64;
            }
        }
        Ok(written)
    }

    /// Removes what neither a kept checkpoint names nor a later one will: `open` is what the newest one
    /// says is not sealed yet.
    pub(crate) fn clean(&self, kept: &BTreeSet<SegmentId>, open: &[SegmentId]) -> io::Result<()> {
        let later =
            |id: &SegmentId| open.iter().any(|o| o.reservoir == id.reservoir && o.number <= id.number);
        self.pending().retain(|id, _| kept.contains(id) || later(id));
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if let Some(id) = name_of(&path)
                && !kept.contains(&id)
            {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    fn path(&self, SegmentId { reservoir, number }: SegmentId) -> PathBuf {
        self.dir.join(format!("{reservoir}-{number:012}{SUFFIX}"))
    }

    fn pending(&self) -> MutexGuard<'_, BTreeMap<SegmentId, Arc<[u8]>>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name_of(path: &Path) -> Option<SegmentId> {
    let (reservoir, number) = path.file_name()?.to_str()?.strip_suffix(SUFFIX)?.split_once('-')?;
    Some(SegmentId { reservoir: reservoir.parse().ok()?, number: number.parse().ok()? })
}

impl SegmentStore for SegmentDir {
    fn put(&self, id: SegmentId, bytes: Arc<[u8]>) {
        self.pending().insert(id, bytes);
    }

    fn get(&self, id: SegmentId) -> io::Result<Arc<[u8]>> {
        let pending = self.pending().get(&id).map(Arc::clone);
        match pending {
            Some(bytes) => Ok(bytes),
            None => fs::read(self.path(id)).map(Into::into),
        }
    }

    // A checkpoint may still name them: `clean` removes them once none does.
    fn forget(&self, _: u32, _: u64) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u64) -> SegmentId {
        SegmentId { reservoir: 0, number }
    }

    #[test]
    fn segments_outlive_the_process_once_a_checkpoint_named_them() {
        let dir = tempfile::tempdir().unwrap();
        let segments = SegmentDir::open(dir.path()).unwrap();
        for number in 0..4 {
            segments.put(id(number), vec![u8::try_from(number).unwrap(); 10].into());
        }
        assert_eq!(segments.persist(&[id(1), id(2)]).unwrap(), 20);
        segments.clean(&BTreeSet::from([id(1), id(2)]), &[id(3)]).unwrap();
        assert_eq!(
            segments.get(id(0)).unwrap_err().kind(),
            io::ErrorKind::NotFound,
            "no checkpoint needs it"
        );
        assert_eq!(&*segments.get(id(3)).unwrap(), &[3; 10], "the next checkpoint will");
        let reopened = SegmentDir::open(dir.path()).unwrap();
        assert_eq!(&*reopened.get(id(2)).unwrap(), &[2; 10]);
        reopened.clean(&BTreeSet::from([id(2)]), &[id(4)]).unwrap();
        assert!(reopened.get(id(1)).is_err());
    }
}
