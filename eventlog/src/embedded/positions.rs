//! The positions that consumer groups have committed, in memory as on disk.

use std::collections::HashMap;
use std::sync::RwLock;

use super::format;
use super::store::Store;
use crate::LogError;

/// Committed offsets by their key on disk.
pub(super) struct Positions(RwLock<HashMap<Vec<u8>, u64>>);

impl Positions {
    /// All positions on disk.
    pub(super) fn load(store: &Store) -> Result<Self, LogError> {
        let broken = |what: &dyn std::fmt::Display| {
            LogError::Storage(format!(
                "reading the committed positions: {what}: restore the data directory from a backup"
            ))
        };
        let mut positions = HashMap::new();
        for entry in store.positions().iter() {
            let (key, value) = entry.into_inner().map_err(|e| broken(&e))?;
            let offset = value[..].try_into().map_err(|_| broken(&"not an offset"))?;
            positions.insert(key.to_vec(), u64::from_be_bytes(offset));
        }
        Ok(Self(RwLock::new(positions)))
    }

    pub(super) fn get(&self, group: &str, topic: &str, partition: u32) -> Option<u64> {
        let key = format::commit_key(group, topic, partition);
        self.0.read().expect("no code panics under this lock").get(&key).copied()
    }

    pub(super) fn set(&self, key: Vec<u8>, offset: u64) {
        self.0.write().expect("no code panics under this lock").insert(key, offset);
    }
}
