//! Where the engine leaves what it does not need in memory.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Names a sealed segment of events: written once, never changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentId {
    /// The reservoir it belongs to: a ruleset has a few per layer of its features, by how long their columns
    /// are needed.
    pub reservoir: u32,
    /// Its place in the reservoir's order.
    pub number: u64,
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.reservoir, self.number)
    }
}

/// Keeps sealed segments. The engine itself does no I/O: whoever owns a [`Scorer`](crate::Scorer)
/// decides where segments live, and makes those durable that a checkpoint names before the checkpoint.
pub trait SegmentStore: fmt::Debug + Send + Sync {
    /// Takes a segment in. Called on the hot path: must not wait for a disk.
    fn put(&self, id: SegmentId, bytes: Arc<[u8]>);

    /// A segment that was put, also by an earlier process.
    ///
    /// # Errors
    /// When it cannot be read. The engine then stops: a wrong figure is worse than none.
    fn get(&self, id: SegmentId) -> io::Result<Arc<[u8]>>;

    /// No window needs the segments of `reservoir` before `number` any more. A checkpoint may: a store
    /// that outlives the process must keep what its checkpoints name.
    fn forget(&self, reservoir: u32, number: u64);
}

/// Keeps segments in memory, for runs that need no restart.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<BTreeMap<SegmentId, Arc<[u8]>>>);

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.lock().values().map(|bytes| bytes.len()).sum()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SegmentId, Arc<[u8]>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SegmentStore for MemoryStore {
    fn put(&self, id: SegmentId, bytes: Arc<[u8]>) {
        self.lock().insert(id, bytes);
    }

    fn get(&self, id: SegmentId) -> io::Result<Arc<[u8]>> {
        self.lock()
            .get(&id)
            .map(Arc::clone)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("segment {id} was never put")))
    }

    fn forget(&self, reservoir: u32, number: u64) {
        self.lock().retain(|id, _| id.reservoir != reservoir || id.number >= number);
    }
}
