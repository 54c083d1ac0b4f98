//! The file of API keys: who may call, kept as hashes.
//!
//! A key is 32 random bytes, so a plain SHA-256 of it cannot be guessed back, and the lookup is by
//! hash: how long it takes tells nothing about any key.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::SystemTime;

use events::MerchantId;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Caller, Scope};
use crate::tokenise::{random_bytes, write_private};

/// Characters of a key that are kept to recognise it by: `sk_test_` and six more.
const SHOWN_CHARS: usize = 14;
/// The longest text that can be a key; longer ones are not hashed.
const KEY_CHARS_MAX: usize = 128;
const FILE_VERSION: u16 = 1;

type Hash = [u8; 32];

/// The API keys of a data directory. Clones share what they know.
#[derive(Debug, Clone)]
pub struct ApiKeys {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// Held while the file is rewritten, so that two changes in one process do not undo each other.
    change: Mutex<()>,
    index: RwLock<Index>,
}

#[derive(Debug, Default)]
struct Index {
    read_at: Option<SystemTime>,
    keys: Vec<ApiKey>,
    active: HashMap<Hash, Arc<Caller>>,
}

/// A key as it is kept: without the key itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiKey {
    /// Names the key in `list` and `revoke`.
    pub id: String,
    /// The key's first characters.
    pub shown: String,
    /// SHA-256 of the key, hexadecimal.
    pub sha256: String,
    /// Whose key it is.
    pub merchant: MerchantId,
    /// `false` for test keys.
    pub livemode: bool,
    /// What it may be used for.
    pub scopes: Vec<Scope>,
    /// When it was made, RFC 3339.
    pub created_at: String,
    /// Since when it is refused, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysFile {
    version: u16,
    keys: Vec<ApiKey>,
}

/// Why the keys could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The file cannot be read or written.
    #[error("API keys file {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The file is not one of ours.
    #[error("API keys file {}: {reason}; restore it from a backup or remove it and create new keys", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No active key has the id.
    #[error("no active API key `{0}`: list the keys to see their ids")]
    NoSuchKey(String),
}

impl ApiKeys {
    /// Reads the keys; a file that is not there holds none.
    ///
    /// # Errors
    /// [`KeysError::File`], [`KeysError::Malformed`].
    pub fn load(path: &Path) -> Result<Self, KeysError> {
        let index = read_index(path)?;
        let inner = Inner { path: path.to_owned(), change: Mutex::new(()), index: RwLock::new(index) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Makes a key and returns it: the only time it can be seen.
    ///
    /// # Errors
    /// [`KeysError::File`], [`KeysError::Malformed`].
    pub fn create(
        &self,
        merchant: &MerchantId,
        livemode: bool,
        scopes: &[Scope],
    ) -> Result<String, KeysError> {
        let secret = hex::encode(random_bytes());
        let key = format!("sk_{}_{secret}", if livemode { "live" } else { "test" });
        let mut scopes = scopes.to_vec();
        scopes.sort_unstable();
        scopes.dedup();
        let entry = ApiKey {
            id: format!("key_{}", &hex::encode(random_bytes())[..12]),
            shown: key[..SHOWN_CHARS].to_owned(),
            sha256: hex::encode(hash(&key)),
            merchant: merchant.clone(),
            livemode,
            scopes,
            created_at: now_text(),
            revoked_at: None,
        };
        self.change(|keys| {
            keys.push(entry);
            Ok(())
        })?;
        Ok(key)
    }

    /// All keys, revoked ones included, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<ApiKey> {
        self.inner.index.read().unwrap_or_else(PoisonError::into_inner).keys.clone()
    }

    /// Whether no key is active.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inner.index.read().unwrap_or_else(PoisonError::into_inner).active.is_empty()
    }

    /// Refuses a key from now on.
    ///
    /// # Errors
    /// [`KeysError::NoSuchKey`], [`KeysError::File`], [`KeysError::Malformed`].
    pub fn revoke(&self, id: &str) -> Result<(), KeysError> {
        self.change(|keys| {
            let key = keys.iter_mut().find(|key| key.id == id && key.revoked_at.is_none());
            let key = key.ok_or_else(|| KeysError::NoSuchKey(id.to_owned()))?;
            key.revoked_at = Some(now_text());
            Ok(())
        })
    }

    /// Reads the file again when it has changed, so that another process may create and revoke keys
    /// while this one serves.
    ///
    /// # Errors
    /// [`KeysError::File`], [`KeysError::Malformed`]: the keys known before stay in force.
    pub fn reload_if_changed(&self) -> Result<(), KeysError> {
        let known = self.inner.index.read().unwrap_or_else(PoisonError::into_inner).read_at;
        if modified_at(&self.inner.path)? == known {
            return Ok(());
        }
        let index = read_index(&self.inner.path)?;
        *self.inner.index.write().unwrap_or_else(PoisonError::into_inner) = index;
        Ok(())
    }

    /// The merchant behind an active key.
    pub(crate) fn find(&self, key: &str) -> Option<Arc<Caller>> {
        if !key.starts_with("sk_") || key.len() > KEY_CHARS_MAX {
            return None;
        }
        let presented = hash(key);
        let index = self.inner.index.read().unwrap_or_else(PoisonError::into_inner);
        let (known, caller) = index.active.get_key_value(&presented)?;
        bool::from(known.ct_eq(&presented)).then(|| caller.clone())
    }

    fn change(&self, edit: impl FnOnce(&mut Vec<ApiKey>) -> Result<(), KeysError>) -> Result<(), KeysError> {
        let _one_at_a_time = self.inner.change.lock().unwrap_or_else(PoisonError::into_inner);
        let path = &self.inner.path;
        let mut keys = read_index(path)?.keys;
        edit(&mut keys)?;
        let text = serde_json::to_vec_pretty(&KeysFile { version: FILE_VERSION, keys })
            .expect("keys have string fields only");
        write_private(path, &text).map_err(|source| KeysError::File { path: path.clone(), source })?;
        let index = read_index(path)?;
        *self.inner.index.write().unwrap_or_else(PoisonError::into_inner) = index;
        Ok(())
    }
}

fn hash(key: &str) -> Hash {
    Sha256::digest(key.as_bytes()).into()
}

fn now_text() -> String {
    format!("{:.0}", jiff::Timestamp::now())
}

fn modified_at(path: &Path) -> Result<Option<SystemTime>, KeysError> {
    match std::fs::metadata(path).and_then(|meta| meta.modified()) {
        Ok(time) => Ok(Some(time)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(KeysError::File { path: path.to_owned(), source }),
    }
}

fn read_index(path: &Path) -> Result<Index, KeysError> {
    // The time is read first: a change in between is seen as one the next time.
    let read_at = modified_at(path)?;
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Index::default()),
        Err(source) => return Err(KeysError::File { path: path.to_owned(), source }),
    };
    let malformed = |reason: String| KeysError::Malformed { path: path.to_owned(), reason };
    let file: KeysFile = serde_json::from_slice(&text).map_err(|e| malformed(e.to_string()))?;
    if file.version != FILE_VERSION {
        let reason = format!("version {} is unknown, this build reads {FILE_VERSION}", file.version);
        return Err(malformed(reason));
    }
    let mut active = HashMap::new();
    for key in file.keys.iter().filter(|key| key.revoked_at.is_none()) {
        let mut hash = Hash::default();
        hex::decode_to_slice(&key.sha256, &mut hash)
            .map_err(|_| malformed(format!("the `sha256` of key `{}` is not one", key.id)))?;
        let bucket = u128::from_le_bytes(hash[..16].try_into().expect("16 of 32 bytes"));
        let caller = Caller {
            merchant: key.merchant.clone(),
            livemode: key.livemode,
            scopes: key.scopes.clone(),
            bucket,
        };
        active.insert(hash, Arc::new(caller));
    }
    Ok(Index { read_at, keys: file.keys, active })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shop() -> MerchantId {
        "shop".parse().unwrap()
    }

    #[test]
    fn a_key_is_found_until_it_is_revoked_and_its_text_is_nowhere_in_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api-keys.json");
        let keys = ApiKeys::load(&path).unwrap();
        assert!(keys.is_empty());
        let test = keys.create(&shop(), false, &[Scope::TransactionsWrite]).unwrap();
        let live = keys.create(&shop(), true, &Scope::ALL).unwrap();
        assert!(test.starts_with("sk_test_") && live.starts_with("sk_live_"));
        assert!(!keys.find(&test).unwrap().livemode);
        assert!(keys.find(&live).unwrap().livemode);
        assert!(keys.find("sk_test_0000").is_none());
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&test[SHOWN_CHARS..]) && !text.contains(&live[SHOWN_CHARS..]));

        let id = keys.list()[0].id.clone();
        keys.revoke(&id).unwrap();
        assert!(keys.find(&test).is_none(), "a revoked key is refused at once");
        assert!(keys.find(&live).is_some(), "the other one is not");
        assert!(matches!(keys.revoke(&id), Err(KeysError::NoSuchKey(_))));
        assert_eq!(keys.list().len(), 2, "a revoked key stays on record");
    }

    #[test]
    #[cfg(unix)]
    fn only_the_owner_may_read_the_file() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api-keys.json");
        ApiKeys::load(&path).unwrap().create(&shop(), false, &[]).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_key_revoked_by_another_process_is_refused_after_a_reload() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api-keys.json");
        let serving = ApiKeys::load(&path).unwrap();
        let other_process = ApiKeys::load(&path).unwrap();
        let key = other_process.create(&shop(), false, &Scope::ALL).unwrap();
        serving.reload_if_changed().unwrap();
        assert!(serving.find(&key).is_some());
        other_process.revoke(&other_process.list()[0].id).unwrap();
        // File times may be coarse: say that the file is a new one.
        let later = SystemTime::now() + std::time::Duration::from_secs(5);
        std::fs::File::options().append(true).open(&path).unwrap().set_modified(later).unwrap();
        serving.reload_if_changed().unwrap();
        assert!(serving.find(&key).is_none());
    }

    #[test]
    fn a_file_of_another_form_is_an_error_and_not_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api-keys.json");
        for text in ["", "{}", r#"{"version":2,"keys":[]}"#, r#"{"version":1,"keys":[{"id":"x"}]}"#] {
            std::fs::write(&path, text).unwrap();
            assert!(matches!(ApiKeys::load(&path), Err(KeysError::Malformed { .. })), "{text}");
        }
    }
}
