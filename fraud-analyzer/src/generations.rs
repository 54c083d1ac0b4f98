//! A directory for each scorer that began anew: scorers with different windows share no segment.
//!
//! There are two while a new ruleset is warmed up beside the one in force, and one otherwise.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::checkpoint::Checkpoints;
use crate::durable;

const PREFIX: &str = "generation-";

/// The analyzer's directory.
#[derive(Debug, Clone)]
pub(crate) struct Generations {
    dir: PathBuf,
}

impl Generations {
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// The newest first.
    pub(crate) fn newest_first(&self) -> io::Result<Vec<Checkpoints>> {
        let mut numbers: Vec<u64> = self.entries()?.iter().filter_map(|path| number_of(path)).collect();
        numbers.sort_unstable_by_key(|&number| std::cmp::Reverse(number));
        numbers.into_iter().map(|number| Checkpoints::open(&self.path(number))).collect()
    }

    /// The place that the newest checkpoint was made at.
    pub(crate) fn newest_seq(&self) -> io::Result<Option<u64>> {
        let mut newest = None;
        for checkpoints in self.newest_first()? {
            newest = newest.max(checkpoints.newest_seq()?);
        }
        Ok(newest)
    }

    /// One for a scorer that begins anew, newer than all others.
    pub(crate) fn create(&self) -> io::Result<Checkpoints> {
        loop {
            let newest = self.entries()?.iter().filter_map(|path| number_of(path)).max();
            let path = self.path(newest.map_or(1, |number| number + 1));
            match fs::create_dir(&path) {
                // A warm-up that is given up may begin at the same moment as the one that replaces it.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
                Ok(()) => {
                    let checkpoints = Checkpoints::open(&path)?;
                    durable::sync_dir_of(&path.join("segments"))?;
                    durable::sync_dir_of(&path)?;
                    return Ok(checkpoints);
                }
            }
        }
    }

    /// Removes all generations but one, and what builds without generations left.
    pub(crate) fn keep_only(&self, kept: &Checkpoints) -> io::Result<()> {
        let is_unwanted =
            |path: &PathBuf| path != kept.dir() && (number_of(path).is_some() || is_older(path));
        self.entries()?.into_iter().filter(is_unwanted).try_for_each(|path| remove(&path))
    }

    /// Removes the generations that are older than one.
    pub(crate) fn remove_before(&self, kept: &Checkpoints) -> io::Result<()> {
        let is_before = |path: &PathBuf| number_of(path).is_some() && number_of(path) < number_of(kept.dir());
        self.entries()?.into_iter().filter(is_before).try_for_each(|path| remove(&path))
    }

    fn entries(&self) -> io::Result<Vec<PathBuf>> {
        fs::read_dir(&self.dir)?.map(|entry| Ok(entry?.path())).collect()
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{PREFIX}{number:06}"))
    }
}

fn number_of(path: &Path) -> Option<u64> {
    path.file_name()?.to_str()?.strip_prefix(PREFIX)?.parse().ok()
}

/// Whether it is of a build that kept checkpoints and segments in the analyzer's directory itself.
fn is_older(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name == "segments" || name.starts_with("checkpoint-")
}

fn remove(path: &Path) -> io::Result<()> {
    if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(generations: &Generations) -> Vec<String> {
        let found = generations.newest_first().unwrap();
        found.iter().map(|c| c.dir().file_name().unwrap().to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_new_generation_is_newer_than_all_and_older_ones_go_without_touching_newer_ones() {
        let dir = tempfile::tempdir().unwrap();
        let generations = Generations::open(dir.path()).unwrap();
        let list = [1, 2, 3].map(|_| generations.create().unwrap());
        assert_eq!(names(&generations), ["generation-000003", "generation-000002", "generation-000001"]);
        generations.remove_before(&list[1]).unwrap();
        assert_eq!(names(&generations), ["generation-000003", "generation-000002"]);
        fs::write(dir.path().join("checkpoint-00000000000000000001.bin"), "of an earlier build").unwrap();
        fs::create_dir(dir.path().join("lost+found")).unwrap();
        generations.keep_only(&list[1]).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "what is not the analyzer's stays");
        assert_eq!(names(&generations), ["generation-000002"]);
    }
}
