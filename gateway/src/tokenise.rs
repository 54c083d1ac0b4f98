//! From a card number to its token: HMAC-SHA-256 under a key that never leaves the data directory.
//!
//! The same key fingerprints requests, so that not even a hash of what a merchant sent can be guessed
//! back without it.

use std::fmt;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use events::CardToken;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;
use zeroize::{Zeroize as _, Zeroizing};

use crate::pan::Pan;

/// The file in the data directory that holds the keys.
pub const KEYS_FILE: &str = "card-token-keys.json";
const FILE_VERSION: u16 = 1;
/// Keeps fingerprints and tokens apart: a card number is digits only.
const FINGERPRINT_PREFIX: &[u8] = b"fingerprint\0";

/// Makes card tokens and request fingerprints. The first key of the file is the active one; older ones
/// stay listed until no idempotency key made under them is remembered any more.
#[derive(Clone)]
pub struct Tokeniser {
    keys: Vec<Key>,
}

#[derive(Clone)]
struct Key {
    id: String,
    mac: Hmac<Sha256>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysFile {
    version: u16,
    keys: Vec<KeyEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyEntry {
    id: String,
    secret: String,
}

impl Drop for KeyEntry {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

/// Why there is no tokeniser.
#[derive(Debug, thiserror::Error)]
pub enum TokeniserError {
    /// The file cannot be read or written.
    #[error("card token keys {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The file is not one of ours. Never replaced by a new one: all tokens would change.
    #[error("card token keys {}: {reason}; restore the file from a backup", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl Tokeniser {
    /// Reads the keys that several replicas share. None is made here: each replica would make its own, and
    /// give the same card another token.
    ///
    /// # Errors
    /// [`TokeniserError::File`], [`TokeniserError::Malformed`].
    pub fn read(path: &Path) -> Result<Self, TokeniserError> {
        match std::fs::read(path) {
            Ok(text) => Self::parse(path, &Zeroizing::new(text)),
            Err(source) => Err(TokeniserError::File { path: path.to_owned(), source }),
        }
    }

    /// Reads the keys of a data directory; at the first start, makes one.
    ///
    /// # Errors
    /// [`TokeniserError::File`], [`TokeniserError::Malformed`].
    pub fn open(dir: &Path) -> Result<Self, TokeniserError> {
        let path = dir.join(KEYS_FILE);
        let at = |source| TokeniserError::File { path: path.clone(), source };
        match std::fs::read(&path) {
            Ok(text) => Self::parse(&path, &Zeroizing::new(text)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                std::fs::create_dir_all(dir).map_err(at)?;
                let key = KeyEntry { id: "k1".to_owned(), secret: hex::encode(random_bytes()) };
                let file = KeysFile { version: FILE_VERSION, keys: vec![key] };
                let text = serde_json::to_vec_pretty(&file).expect("keys have string fields only");
                let text = Zeroizing::new(text);
                write_private(&path, &text).map_err(at)?;
                Self::parse(&path, &text)
            }
            Err(source) => Err(at(source)),
        }
    }

    fn parse(path: &Path, text: &[u8]) -> Result<Self, TokeniserError> {
        let malformed =
            |reason: &str| TokeniserError::Malformed { path: path.to_owned(), reason: reason.to_owned() };
        // The parser's own message could quote a secret.
        let file: KeysFile = serde_json::from_slice(text).map_err(|e| {
            malformed(&format!("not of the expected form (line {}, column {})", e.line(), e.column()))
        })?;
        if file.version != FILE_VERSION {
            return Err(malformed("its version is unknown to this build"));
        }
        let mut keys: Vec<Key> = Vec::new();
        for entry in &file.keys {
            let mut secret = Zeroizing::new([0_u8; 32]);
            hex::decode_to_slice(&entry.secret, &mut *secret)
                .map_err(|_| malformed("a `secret` is not 64 hexadecimal digits"))?;
            if CardToken::new(&entry.id, &[0; 16]).is_err() {
                return Err(malformed("an `id` is not 1 to 16 of a-z and 0-9"));
            }
            if keys.iter().any(|key| key.id == entry.id) {
                return Err(malformed("an `id` is there twice"));
            }
            let mac = Hmac::new_from_slice(&*secret).expect("HMAC takes keys of any length");
            keys.push(Key { id: entry.id.clone(), mac });
        }
        if keys.is_empty() { Err(malformed("it holds no key")) } else { Ok(Self { keys }) }
    }

    fn active(&self) -> &Key {
        self.keys.first().expect("parse refuses a file without keys")
    }

    /// The token of a card under the active key.
    pub(crate) fn token(&self, pan: &Pan) -> CardToken {
        self.active().token(pan)
    }

    /// The fingerprints of a request under all keys. `canonical` writes what identifies the request, given
    /// the card's token.
    pub(crate) fn fingerprints(&self, pan: &Pan, canonical: impl Fn(&CardToken) -> Vec<u8>) -> Fingerprints {
        Fingerprints(self.keys.iter().map(|key| key.fingerprint(&canonical(&key.token(pan)))).collect())
    }
}

impl Key {
    fn token(&self, pan: &Pan) -> CardToken {
        let mac = self.mac.clone().chain_update(pan.digits());
        CardToken::new(&self.id, &first_half(mac)).expect("parse checked the key's id")
    }

    fn fingerprint(&self, canonical: &[u8]) -> Fingerprint {
        let mac = self.mac.clone().chain_update(FINGERPRINT_PREFIX).chain_update(canonical);
        Fingerprint { key_id: self.id.clone(), mac: first_half(mac) }
    }
}

/// One request under every key, so that it is recognised after a rotation, and without its card number.
#[derive(Debug, Clone)]
pub(crate) struct Fingerprints(Vec<Fingerprint>);

impl Fingerprints {
    /// Under the active key.
    pub(crate) fn active(&self) -> &Fingerprint {
        self.0.first().expect("parse refuses a file without keys")
    }

    /// Whether a remembered fingerprint is that of the same request.
    pub(crate) fn matches(&self, remembered: &str) -> bool {
        self.0.iter().any(|fingerprint| fingerprint.to_string() == remembered)
    }
}

impl fmt::Debug for Tokeniser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<&str> = self.keys.iter().map(|key| key.id.as_str()).collect();
        f.debug_struct("Tokeniser").field("key_ids", &ids).finish_non_exhaustive()
    }
}

/// Keyed hash of a request: its key's id and the first half of the HMAC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fingerprint {
    key_id: String,
    mac: [u8; 16],
}

impl Fingerprint {
    pub(crate) const fn mac(&self) -> [u8; 16] {
        self.mac
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", self.key_id, hex::encode(self.mac))
    }
}

fn first_half(mac: Hmac<Sha256>) -> [u8; 16] {
    let bytes = mac.finalize().into_bytes();
    let mut half = [0; 16];
    half.copy_from_slice(&bytes[..16]);
    half
}

/// 32 bytes nobody can guess. `uuid` reads the operating system's generator, 122 bits at a time; four
/// of them through SHA-256 leave no trace of their fixed bits.
pub(crate) fn random_bytes() -> [u8; 32] {
    let mut digest = Sha256::new();
    for _ in 0..4 {
        digest.update(Uuid::new_v4().as_bytes());
    }
    digest.finalize().into()
}

/// Replaces a file as a whole or not at all, readable by its owner only.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = dir.join(format!(".{name}.{}", Uuid::new_v4().simple()));
    let written = write_new_private(&temporary, content)
        .and_then(|()| std::fs::rename(&temporary, path))
        .and_then(|()| std::fs::File::open(dir)?.sync_all());
    if written.is_err() {
        // Nothing to do about a file that cannot be removed either; the first error is the one to see.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

fn write_new_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    let mut file = options.open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pan(text: &str) -> Pan {
        Pan::parse(text).unwrap()
    }

    fn with_keys(dir: &Path, keys: &[(&str, char)]) -> Result<Tokeniser, TokeniserError> {
        let keys: Vec<_> = keys
            .iter()
            .map(|(id, digit)| serde_json::json!({"id": id, "secret": digit.to_string().repeat(64)}))
            .collect();
        let text = serde_json::json!({"version": 1, "keys": keys}).to_string();
        std::fs::write(dir.join(KEYS_FILE), text).unwrap();
        Tokeniser::open(dir)
    }

    #[test]
    fn a_card_has_one_token_however_it_is_written_and_whenever_it_is_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let first = Tokeniser::open(dir.path()).unwrap().token(&pan("4111111111111111"));
        let after_a_restart = Tokeniser::open(dir.path()).unwrap();
        assert_eq!(first, after_a_restart.token(&pan("4111 1111-1111 1111")));
        assert_ne!(first, after_a_restart.token(&pan("4242424242424242")));
        let elsewhere = tempfile::tempdir().unwrap();
        let other_secret = Tokeniser::open(elsewhere.path()).unwrap();
        assert_ne!(first, other_secret.token(&pan("4111111111111111")), "the token is keyed");
    }

    #[test]
    fn the_token_is_the_hmac_of_the_digits() {
        let dir = tempfile::tempdir().unwrap();
        let token = with_keys(dir.path(), &[("k1", '0')]).unwrap().token(&pan("4111111111111111"));
        let mac = Hmac::<Sha256>::new_from_slice(&[0; 32]).unwrap().chain_update(b"4111111111111111");
        assert_eq!(token.as_str(), format!("tok_k1_{}", &hex::encode(mac.finalize().into_bytes())[..32]));
    }

    #[test]
    #[cfg(unix)]
    fn only_the_owner_may_read_the_keys() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        Tokeniser::open(dir.path()).unwrap();
        let mode = std::fs::metadata(dir.path().join(KEYS_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_request_is_recognised_after_its_key_was_rotated() {
        let dir = tempfile::tempdir().unwrap();
        let card = pan("4111111111111111");
        let canonical = |token: &CardToken| format!("100 USD {token}").into_bytes();
        let before = with_keys(dir.path(), &[("k1", '1')]).unwrap();
        let remembered = before.fingerprints(&card, canonical).active().to_string();

        let rotated = with_keys(dir.path(), &[("k2", '2'), ("k1", '1')]).unwrap();
        assert!(rotated.token(&card).as_str().starts_with("tok_k2_"));
        assert!(rotated.fingerprints(&card, canonical).matches(&remembered));
        assert!(!rotated.fingerprints(&pan("4242424242424242"), canonical).matches(&remembered));

        let dropped = with_keys(dir.path(), &[("k2", '2')]).unwrap();
        assert!(!dropped.fingerprints(&card, canonical).matches(&remembered));
    }

    #[test]
    fn secrets_that_replicas_share_are_read_and_never_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shared.json");
        assert!(matches!(Tokeniser::read(&path), Err(TokeniserError::File { .. })));
        assert!(!path.exists());
        let first = Tokeniser::open(dir.path()).unwrap().token(&pan("4111111111111111"));
        std::fs::copy(dir.path().join(KEYS_FILE), &path).unwrap();
        assert_eq!(Tokeniser::read(&path).unwrap().token(&pan("4111111111111111")), first);
    }

    #[test]
    fn a_damaged_file_is_an_error_that_does_not_quote_it() {
        let dir = tempfile::tempdir().unwrap();
        for (text, why) in [
            ("", "empty"),
            (r#"{"version":1,"keys":[]}"#, "no key"),
            (r#"{"version":9,"keys":[]}"#, "version"),
            (r#"{"version":1,"keys":[{"id":"k1","secret":"abc"}]}"#, "short secret"),
            (r#"{"version":1,"keys":["deadbeef"]}"#, "form"),
        ] {
            std::fs::write(dir.path().join(KEYS_FILE), text).unwrap();
            let error = Tokeniser::open(dir.path()).unwrap_err();
            assert!(matches!(error, TokeniserError::Malformed { .. }), "{why}");
            assert!(!error.to_string().contains("deadbeef"), "{why}");
        }
        assert!(with_keys(dir.path(), &[("k1", '1'), ("k1", '2')]).is_err());
        assert!(with_keys(dir.path(), &[("K-1", '1')]).is_err());
    }

    #[test]
    fn a_tokeniser_prints_the_ids_of_its_keys_only() {
        let dir = tempfile::tempdir().unwrap();
        let tokeniser = with_keys(dir.path(), &[("k1", '7')]).unwrap();
        assert_eq!(format!("{tokeniser:?}"), r#"Tokeniser { key_ids: ["k1"], .. }"#);
    }
}
