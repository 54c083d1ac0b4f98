//! The data directory: what lies where, and who is using it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use gateway::Tokeniser;
use gateway::tokenise::TokeniserError;
use serde::{Deserialize, Serialize};

/// The role of a process that is the whole system.
pub(crate) const WHOLE: &str = "paystream";

/// A data directory, perhaps of a running system.
#[derive(Debug, Clone)]
pub(crate) struct DataDir {
    root: PathBuf,
}

/// Who holds the directory; kept in its lock file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Holder {
    /// The process.
    pub(crate) pid: u32,
    /// Where its API answers, once it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) url: Option<String>,
    /// Where its metrics are, once they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) metrics_url: Option<String>,
}

/// The directory, held by this process until this is dropped (or the process dies).
#[derive(Debug)]
pub(crate) struct Held {
    file: File,
}

impl DataDir {
    /// The directory at `root`, which need not exist.
    pub(crate) fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.root
    }

    /// Where the event log lies.
    pub(crate) fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    /// Where the warehouse lies.
    pub(crate) fn warehouse(&self) -> PathBuf {
        self.root.join("warehouse")
    }

    /// Where the alerter keeps what it has to deliver.
    pub(crate) fn alerter(&self) -> PathBuf {
        self.root.join("alerter")
    }

    /// What nobody else may read: hashes of API keys, and the secrets that card tokens are made with.
    pub(crate) fn keys(&self) -> PathBuf {
        self.root.join("keys")
    }

    /// The hashes of the API keys.
    fn api_keys(&self) -> PathBuf {
        self.keys().join("api-keys.json")
    }

    /// The hashes of the API keys, here or where the configuration says.
    pub(crate) fn api_keys_or(&self, configured: &Path) -> PathBuf {
        if configured.as_os_str().is_empty() { self.api_keys() } else { configured.to_owned() }
    }

    /// What makes card tokens: from where the configuration says, or else from here, made at the first start.
    pub(crate) fn tokeniser(&self, configured: &Path) -> Result<Tokeniser, TokeniserError> {
        if configured.as_os_str().is_empty() {
            return Tokeniser::open(&self.keys());
        }
        Tokeniser::read(configured)
    }

    /// Makes the directory, for its owner alone, if there is none.
    pub(crate) fn create(&self) -> anyhow::Result<()> {
        for dir in [self.root.clone(), self.keys()] {
            let mut builder = std::fs::DirBuilder::new();
            builder.recursive(true);
            #[cfg(unix)]
            std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
            builder.create(&dir).with_context(|| {
                format!(
                    "data directory {} cannot be made: choose one you may write to with --data-dir",
                    dir.display()
                )
            })?;
        }
        Ok(())
    }

    /// Refuses a directory that nothing has ever been stored in.
    pub(crate) fn must_exist(&self) -> anyhow::Result<()> {
        if !self.log().is_dir() {
            bail!(
                "{} is not a data directory of paystream: name one with --data-dir, or a running system with --url",
                self.root.display()
            );
        }
        Ok(())
    }

    /// Takes the directory for this process; several processes may share it when each has another role.
    ///
    /// The operating system lets go of the lock when the process ends, however it ends.
    pub(crate) fn hold(&self, role: &str) -> anyhow::Result<Held> {
        let path = self.lock_file(role);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(&path).with_context(|| {
            format!(
                "{} cannot be written: choose a data directory you may write to with --data-dir",
                path.display()
            )
        })?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let by = self.holder(role).map_or_else(String::new, |holder| match holder.url {
                    Some(url) => format!(" (process {}, {url})", holder.pid),
                    None => format!(" (process {})", holder.pid),
                });
                bail!(
                    "data directory {} is in use by another paystream{by}: stop it first, or choose another with --data-dir",
                    self.root.display()
                );
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("locking {}", path.display()));
            }
        }
        let mut held = Held { file };
        held.announce(&Holder { pid: std::process::id(), url: None, metrics_url: None })?;
        Ok(held)
    }

    /// Who is using the directory now as a whole, if anyone.
    pub(crate) fn in_use_by(&self) -> Option<Holder> {
        let file = File::open(self.lock_file(WHOLE)).ok()?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => self.holder(WHOLE),
            _ => None,
        }
    }

    fn holder(&self, role: &str) -> Option<Holder> {
        let mut text = String::new();
        File::open(self.lock_file(role)).ok()?.read_to_string(&mut text).ok()?;
        serde_json::from_str(&text).ok()
    }

    fn lock_file(&self, role: &str) -> PathBuf {
        self.root.join(format!("{role}.lock"))
    }
}

impl Held {
    /// Writes down who holds the directory and where it can be reached.
    pub(crate) fn announce(&mut self, holder: &Holder) -> anyhow::Result<()> {
        let text = serde_json::to_string(holder).context("writing the lock file")?;
        self.file
            .set_len(0)
            .and_then(|()| self.file.seek(SeekFrom::Start(0)))
            .and_then(|_| self.file.write_all(text.as_bytes()))
            .and_then(|()| self.file.flush())
            .context("writing the lock file of the data directory")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_directory_is_refused_to_others_and_says_who_holds_it() {
        let temp = tempfile::tempdir().unwrap();
        let dir = DataDir::new(temp.path().join("data"));
        dir.create().unwrap();
        assert_eq!(dir.in_use_by(), None);
        let mut held = dir.hold(WHOLE).unwrap();
        let holder =
            Holder { pid: std::process::id(), url: Some("http://127.0.0.1:7".to_owned()), metrics_url: None };
        held.announce(&holder).unwrap();
        assert_eq!(dir.in_use_by(), Some(holder));
        let refused = dir.hold(WHOLE).unwrap_err().to_string();
        assert!(
            refused.contains("in use by another paystream") && refused.contains("127.0.0.1:7"),
            "{refused}"
        );
        drop(held);
        assert_eq!(dir.in_use_by(), None, "what the last holder wrote does not count once it is gone");
        dir.hold(WHOLE).unwrap();
    }

    #[test]
    fn an_empty_directory_holds_no_data_to_ask_for() {
        let temp = tempfile::tempdir().unwrap();
        let error = DataDir::new(temp.path()).must_exist().unwrap_err().to_string();
        assert!(error.contains("--data-dir"), "{error}");
    }
}
