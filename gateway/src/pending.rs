//! Requests under way: one at a time per transaction id, each with room for one decision.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use events::{Decision, TransactionId};
use tokio::sync::oneshot;

/// Locks are held for a map operation; shards keep two processors out of each other's way.
const SHARDS: usize = 16;

/// A decision as it came from the log.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) decision: Decision,
    pub(crate) decided_at_us: i64,
}

/// The requests under way, at most `max`.
#[derive(Debug)]
pub(crate) struct Pending {
    shards: [Mutex<HashMap<TransactionId, Slot>>; SHARDS],
    count: AtomicUsize,
    max: usize,
}

#[derive(Debug)]
struct Slot {
    /// Nothing while the ledger recovers the transaction: then the request is not known.
    fingerprint: Option<[u8; 16]>,
    waiter: Option<oneshot::Sender<Verdict>>,
    /// Whether a record of it that comes up in the log may be this request's own.
    writes: bool,
}

/// Why an id could not be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Busy {
    /// The same request is under way.
    Same,
    /// Another request under the same idempotency key is.
    Other,
    /// There is no room.
    Full,
}

/// Holds an id until the last clone is dropped: the request and its write each have one.
#[derive(Debug, Clone)]
pub(crate) struct Claim(Arc<Held>);

impl Claim {
    /// From here on the log may hold a record of this request.
    pub(crate) fn writes(&self) {
        if let Some(slot) = self.0.pending.shard(self.0.id).get_mut(&self.0.id) {
            slot.writes = true;
        }
    }
}

#[derive(Debug)]
struct Held {
    pending: Arc<Pending>,
    id: TransactionId,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.pending.shard(self.id).remove(&self.id);
        self.pending.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pending {
    pub(crate) fn new(max: usize) -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()), count: AtomicUsize::new(0), max }
    }

    /// Takes an id. The receiver gets the decision, also one that comes before anybody waits.
    pub(crate) fn claim(
        self: &Arc<Self>,
        id: TransactionId,
        fingerprint: Option<[u8; 16]>,
    ) -> Result<(Claim, oneshot::Receiver<Verdict>), Busy> {
        if self.count.fetch_add(1, Ordering::Relaxed) >= self.max {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return Err(Busy::Full);
        }
        let busy = match self.shard(id).entry(id) {
            Entry::Vacant(vacant) => {
                let (sender, receiver) = oneshot::channel();
                vacant.insert(Slot { fingerprint, waiter: Some(sender), writes: false });
                return Ok((Claim(Arc::new(Held { pending: self.clone(), id })), receiver));
            }
            Entry::Occupied(slot) => match slot.get().fingerprint {
                Some(held) if Some(held) != fingerprint => Busy::Other,
                _ => Busy::Same,
            },
        };
        self.count.fetch_sub(1, Ordering::Relaxed);
        Err(busy)
    }

    /// Whether somebody still waits for the decision on a transaction.
    pub(crate) fn waiter(&self, id: TransactionId) -> Option<oneshot::Sender<Verdict>> {
        self.shard(id).get_mut(&id)?.waiter.take()
    }

    /// Whether a request under way may have written a transaction.
    pub(crate) fn may_write(&self, id: TransactionId) -> bool {
        self.shard(id).get(&id).is_some_and(|slot| slot.writes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    fn shard(&self, id: TransactionId) -> MutexGuard<'_, HashMap<TransactionId, Slot>> {
        let byte = id.as_uuid().as_bytes()[15];
        self.shards[usize::from(byte) % SHARDS].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_held_until_the_request_and_its_write_have_let_go() {
        let pending = Arc::new(Pending::new(8));
        let id = TransactionId::random();
        let (request, _decision) = pending.claim(id, Some([1; 16])).unwrap();
        let write = request.clone();
        assert_eq!(pending.claim(id, Some([1; 16])).unwrap_err(), Busy::Same);
        assert_eq!(pending.claim(id, Some([2; 16])).unwrap_err(), Busy::Other);
        drop(request);
        assert_eq!(pending.claim(id, Some([1; 16])).unwrap_err(), Busy::Same);
        drop(write);
        assert!(pending.is_empty());
        assert!(pending.claim(id, Some([2; 16])).is_ok());
    }

    #[test]
    fn there_is_room_for_so_many_and_refusals_take_none() {
        let pending = Arc::new(Pending::new(2));
        let one = TransactionId::random();
        let _one = pending.claim(one, None).unwrap();
        let _same = pending.claim(one, None).unwrap_err();
        let _two = pending.claim(TransactionId::random(), None).unwrap();
        assert_eq!(pending.claim(TransactionId::random(), None).unwrap_err(), Busy::Full);
    }
}
