//! What the gateway knows of the transactions it accepted: for retries, for status, for reconciliation.
//!
//! An entry is written after the log acknowledged the transaction and before the merchant is answered.
//! It is handed to the operating system, not synced: SIGKILL loses none, and what a power cut loses is
//! read from the log again at the next start.

use std::path::Path;

use eventlog::Position;
use events::{MerchantId, Transaction, TransactionId};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};
use uuid::Uuid;

/// Entries are looked up soon after they are written: a small cache is enough.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;
const MEMTABLE_BYTES: u64 = 16 * 1024 * 1024;
const JOURNAL_BYTES: u64 = 64 * 1024 * 1024;
/// Entries removed by one write, so that requests do not wait behind a purge.
const PURGE_BATCH: usize = 256;

const LIVEMODE: u8 = 1;
const RECOVERED: u8 = 2;

/// The ledger of one data directory.
#[derive(Clone)]
pub struct Ledger {
    database: Database,
    /// id → [`Entry`].
    entries: Keyspace,
    /// accept time, id → flags: in time order, for reconciliation and for the purge.
    by_time: Keyspace,
    /// id → position of its record on `transactions.decided`.
    decided: Keyspace,
    /// [`Reader`] and partition → the first offset that may be missing here.
    marks: Keyspace,
}

/// The ledger's storage failed, or holds what this build did not write.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The disk.
    #[error("gateway ledger: {0}")]
    Storage(#[from] fjall::Error),
    /// A damaged value.
    #[error(
        "gateway ledger: the {0} of a transaction cannot be read; remove the ledger to rebuild it from the log"
    )]
    Damaged(&'static str),
}

/// What a mark is kept for: how far the ledger knows a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    Created,
    Decided,
}

/// One accepted transaction, as reconciliation needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepted {
    /// The transaction.
    pub id: TransactionId,
    /// When it was accepted: microseconds since the Unix epoch.
    pub accepted_at_us: i64,
    /// Whether it was found in the log: another replica accepted it, or this one did before a crash, so that
    /// its merchant may have had no answer.
    pub recovered: bool,
}

/// What is known of one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) merchant: MerchantId,
    pub(crate) livemode: bool,
    pub(crate) recovered: bool,
    pub(crate) accepted_at_us: i64,
    pub(crate) fingerprint: String,
    pub(crate) created: Position,
}

/// Where a decision stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DecidedAt {
    /// In `transactions.decided`.
    pub(crate) position: Position,
    /// In window time: what a label on the transaction is known by.
    pub(crate) window_time_us: i64,
}

impl Entry {
    pub(crate) fn of(transaction: &Transaction, created: Position, recovered: bool) -> Self {
        Self {
            merchant: transaction.merchant_id.clone(),
            livemode: transaction.livemode,
            recovered,
            accepted_at_us: transaction.accepted_at_us,
            fingerprint: transaction.request_fingerprint.clone(),
            created,
        }
    }

    fn flags(&self) -> u8 {
        (if self.livemode { LIVEMODE } else { 0 }) | (if self.recovered { RECOVERED } else { 0 })
    }

    fn encode(&self) -> Vec<u8> {
        let merchant = self.merchant.as_str();
        let mut bytes = Vec::with_capacity(22 + merchant.len() + self.fingerprint.len());
        bytes.push(self.flags());
        bytes.extend(self.accepted_at_us.to_be_bytes());
        bytes.extend(encode_position(self.created));
        bytes.push(u8::try_from(merchant.len()).expect("a merchant id has at most 64 bytes"));
        bytes.extend(merchant.as_bytes());
        bytes.extend(self.fingerprint.as_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (flags, rest) = bytes.split_first()?;
        let (accepted_at, rest) = rest.split_first_chunk()?;
        let (created, rest) = rest.split_first_chunk()?;
        let (len, rest) = rest.split_first()?;
        let (merchant, fingerprint) = rest.split_at_checked(usize::from(*len))?;
        Some(Self {
            merchant: std::str::from_utf8(merchant).ok()?.parse().ok()?,
            livemode: flags & LIVEMODE != 0,
            recovered: flags & RECOVERED != 0,
            accepted_at_us: i64::from_be_bytes(*accepted_at),
            fingerprint: std::str::from_utf8(fingerprint).ok()?.to_owned(),
            created: decode_position(*created),
        })
    }
}

fn encode_position(position: Position) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&position.partition.to_be_bytes());
    bytes[4..].copy_from_slice(&position.offset.to_be_bytes());
    bytes
}

fn decode_position(bytes: [u8; 12]) -> Position {
    let [p0, p1, p2, p3, offset @ ..] = bytes;
    Position { partition: u32::from_be_bytes([p0, p1, p2, p3]), offset: u64::from_be_bytes(offset) }
}

fn mark_key(reader: Reader, partition: u32) -> [u8; 5] {
    let [a, b, c, d] = partition.to_be_bytes();
    let reader = match reader {
        Reader::Created => b'c',
        Reader::Decided => b'd',
    };
    [reader, a, b, c, d]
}

/// Accept times before 1970 do not occur, so big-endian bytes sort as the times do.
fn time_key(accepted_at_us: i64, id: TransactionId) -> [u8; 24] {
    let mut key = [0; 24];
    key[..8].copy_from_slice(&accepted_at_us.max(0).to_be_bytes());
    key[8..].copy_from_slice(id.as_uuid().as_bytes());
    key
}

fn split_time_key(key: &[u8]) -> Option<(i64, TransactionId)> {
    let (time, id) = key.split_first_chunk()?;
    Some((i64::from_be_bytes(*time), TransactionId::from_uuid(Uuid::from_slice(id).ok()?)))
}

impl Ledger {
    /// Opens the ledger in `dir/gateway`, or makes an empty one.
    ///
    /// # Errors
    /// [`LedgerError::Storage`], also when another process has it open.
    pub fn open(dir: &Path) -> Result<Self, LedgerError> {
        let database = Database::builder(dir.join("gateway"))
            .cache_size(CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES)
            .worker_threads(1)
            .open()?;
        let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES);
        Ok(Self {
            entries: database.keyspace("entries", options)?,
            by_time: database.keyspace("by_time", options)?,
            decided: database.keyspace("decided", options)?,
            marks: database.keyspace("marks", options)?,
            database,
        })
    }

    /// The transactions accepted at `since_us` (microseconds since the Unix epoch) or later, oldest first.
    pub fn accepted(&self, since_us: i64) -> impl Iterator<Item = Result<Accepted, LedgerError>> + use<> {
        self.by_time.range(since_us.max(0).to_be_bytes().as_slice()..).map(|guard| {
            let (key, flags) = guard.into_inner()?;
            let (accepted_at_us, id) = split_time_key(&key).ok_or(LedgerError::Damaged("accept time"))?;
            let recovered = flags.first().is_some_and(|flags| flags & RECOVERED != 0);
            Ok(Accepted { id, accepted_at_us, recovered })
        })
    }

    /// The last accept time handed out, so that a clock set back between two runs does not matter.
    pub(crate) fn last_accepted_at_us(&self) -> Result<Option<i64>, LedgerError> {
        let Some(guard) = self.by_time.last_key_value() else { return Ok(None) };
        Ok(split_time_key(&guard.key()?).map(|(time, _)| time))
    }

    pub(crate) fn insert(&self, id: TransactionId, entry: &Entry) -> Result<(), LedgerError> {
        let mut batch = self.database.batch();
        batch.insert(&self.entries, id.as_uuid().as_bytes().as_slice(), entry.encode());
        let key = time_key(entry.accepted_at_us, id);
        batch.insert(&self.by_time, key.as_slice(), [entry.flags()].as_slice());
        Ok(batch.commit()?)
    }

    pub(crate) fn get(&self, id: TransactionId) -> Result<Option<Entry>, LedgerError> {
        let value = self.entries.get(id.as_uuid().as_bytes())?;
        value.map(|bytes| Entry::decode(&bytes).ok_or(LedgerError::Damaged("entry"))).transpose()
    }

    pub(crate) fn contains(&self, id: TransactionId) -> Result<bool, LedgerError> {
        Ok(self.entries.contains_key(id.as_uuid().as_bytes())?)
    }

    /// Notes where decided records of one partition stand and up to which offset that is known, in one
    /// write: what a crash takes of one it takes of the other.
    pub(crate) fn insert_decided(
        &self,
        partition: u32,
        decided: impl Iterator<Item = (TransactionId, u64, i64)>,
        next_offset: u64,
    ) -> Result<(), LedgerError> {
        let mut batch = self.database.batch();
        for (id, offset, window_time_us) in decided {
            let mut value = encode_position(Position { partition, offset }).to_vec();
            value.extend(window_time_us.to_be_bytes());
            batch.insert(&self.decided, id.as_uuid().as_bytes().as_slice(), value);
        }
        self.put_mark(&mut batch, Reader::Decided, partition, next_offset);
        Ok(batch.commit()?)
    }

    pub(crate) fn decided(&self, id: TransactionId) -> Result<Option<DecidedAt>, LedgerError> {
        let Some(value) = self.decided.get(id.as_uuid().as_bytes())? else { return Ok(None) };
        let parts = value.split_first_chunk().and_then(|(p, time)| Some((*p, time.try_into().ok()?)));
        let (position, time) = parts.ok_or(LedgerError::Damaged("decided position"))?;
        let window_time_us = i64::from_be_bytes(time);
        Ok(Some(DecidedAt { position: decode_position(position), window_time_us }))
    }

    /// The first offset of a partition that may be missing here.
    pub(crate) fn mark(&self, reader: Reader, partition: u32) -> Result<u64, LedgerError> {
        let Some(value) = self.marks.get(mark_key(reader, partition))? else { return Ok(0) };
        let bytes = value.as_ref().try_into().map_err(|_| LedgerError::Damaged("low-water mark"))?;
        Ok(u64::from_be_bytes(bytes))
    }

    /// Moves the marks of `transactions.created`.
    pub(crate) fn set_created_marks(&self, marks: &[u64]) -> Result<(), LedgerError> {
        let mut batch = self.database.batch();
        for (partition, &offset) in (0..).zip(marks) {
            self.put_mark(&mut batch, Reader::Created, partition, offset);
        }
        Ok(batch.commit()?)
    }

    fn put_mark(&self, batch: &mut OwnedWriteBatch, reader: Reader, partition: u32, offset: u64) {
        let value = offset.to_be_bytes();
        batch.insert(&self.marks, mark_key(reader, partition).as_slice(), value.as_slice());
    }

    /// Forgets what was accepted before `before_us`; returns how many transactions that were.
    pub(crate) fn purge(&self, before_us: i64) -> Result<u64, LedgerError> {
        let end = before_us.max(0).to_be_bytes();
        let mut purged = 0;
        let mut batch = self.database.batch();
        for guard in self.by_time.range(..end.as_slice()) {
            let key = guard.key()?;
            let (_, id) = split_time_key(&key).ok_or(LedgerError::Damaged("accept time"))?;
            batch.remove(&self.by_time, key);
            batch.remove(&self.entries, id.as_uuid().as_bytes().as_slice());
            batch.remove(&self.decided, id.as_uuid().as_bytes().as_slice());
            purged += 1;
            if batch.len() >= PURGE_BATCH * 3 {
                std::mem::replace(&mut batch, self.database.batch()).commit()?;
            }
        }
        batch.commit()?;
        Ok(purged)
    }

    /// Syncs everything to disk, for an orderly end.
    pub(crate) fn sync(&self) -> Result<(), LedgerError> {
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }
}

impl std::fmt::Debug for Ledger {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ledger").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(accepted_at_us: i64, recovered: bool) -> Entry {
        Entry {
            merchant: "shop".parse().unwrap(),
            livemode: true,
            recovered,
            accepted_at_us,
            fingerprint: "k1_00ff".to_owned(),
            created: Position { partition: 3, offset: u64::MAX - 1 },
        }
    }

    #[test]
    fn entries_marks_and_positions_survive_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let id = TransactionId::random();
        let decided = DecidedAt { position: Position { partition: 1, offset: 7 }, window_time_us: 11 };
        {
            let ledger = Ledger::open(dir.path()).unwrap();
            ledger.insert(id, &entry(5, true)).unwrap();
            ledger.insert_decided(1, std::iter::once((id, 7, 11)), 8).unwrap();
            ledger.set_created_marks(&[4, 0, 9]).unwrap();
        }
        let ledger = Ledger::open(dir.path()).unwrap();
        assert_eq!(ledger.get(id).unwrap(), Some(entry(5, true)));
        assert_eq!(ledger.decided(id).unwrap(), Some(decided));
        assert_eq!([0, 1, 2, 3].map(|p| ledger.mark(Reader::Created, p).unwrap()), [4, 0, 9, 0]);
        assert_eq!([0, 1].map(|p| ledger.mark(Reader::Decided, p).unwrap()), [0, 8]);
        assert_eq!(ledger.last_accepted_at_us().unwrap(), Some(5));
    }

    #[test]
    fn the_accepted_are_listed_in_time_order_with_how_they_came_here() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        let ids: Vec<TransactionId> = (0..5).map(|_| TransactionId::random()).collect();
        for (i, &id) in ids.iter().enumerate().rev() {
            ledger.insert(id, &entry(1_000 * i64::try_from(i).unwrap(), i == 3)).unwrap();
        }
        let listed: Vec<Accepted> = ledger.accepted(2_000).map(Result::unwrap).collect();
        let expected: Vec<Accepted> = [(2, false), (3, true), (4, false)]
            .map(|(i, recovered)| Accepted { id: ids[i], accepted_at_us: 1_000 * i as i64, recovered })
            .to_vec();
        assert_eq!(listed, expected);
    }

    #[test]
    fn a_purge_forgets_the_old_and_only_the_old() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        let ids: Vec<TransactionId> = (0..1_000).map(|_| TransactionId::random()).collect();
        for (i, &id) in (0..).zip(&ids) {
            ledger.insert(id, &entry(i, false)).unwrap();
            ledger.insert_decided(0, std::iter::once((id, 0, 0)), 1).unwrap();
        }
        assert_eq!(ledger.purge(900).unwrap(), 900);
        assert_eq!(ledger.accepted(0).count(), 100);
        assert!(!ledger.contains(ids[899]).unwrap() && ledger.contains(ids[900]).unwrap());
        assert_eq!(ledger.decided(ids[899]).unwrap(), None);
        assert_eq!(ledger.purge(900).unwrap(), 0);
    }
}
