//! What is on disk: the fjall database, which segments there are, and the lock on the directory.
//!
//! ```text
//! DIR/paystream.lock      held by the process that has the log open; holds its process id
//! DIR/store/              the fjall database, with these keyspaces:
//!   segments              topic, segment number → first offsets, age and size
//!   positions             group, partition, topic → committed offset
//!   segment.TOPIC.NUMBER  partition, offset → record
//! ```

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use bytes::{Buf, BufMut};
use fjall::compaction::Leveled;
use fjall::config::{BlockSizePolicy, CompressionPolicy, FilterPolicy};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};

use super::config::EmbeddedLogConfig;
use super::format;
use super::topic::Segment;
use crate::LogError;

const LOCK_FILE: &str = "paystream.lock";
const DATABASE: &str = "store";
const SEGMENTS: &str = "segments";
const POSITIONS: &str = "positions";
const SEGMENT_PREFIX: &str = "segment.";
/// The first byte of a segment's entry.
const ENTRY_FORMAT: u8 = 1;

/// Journals beyond this size make fjall flush what holds the oldest of them; they are read again at start.
const MAX_JOURNAL_BYTES: u64 = 128 * 1024 * 1024;
/// The writer rotates memtables itself, see `writer`: this only keeps fjall from doing it too.
const NEVER_ROTATE_BYTES: u64 = 1 << 40;
/// Small tables of quiet topics are merged once there are this many. A busy topic's segment is full before.
const TABLES_TO_MERGE: u8 = 12;
/// Records are read in runs: large blocks compress well and cost few seeks.
const BLOCK_BYTES: u32 = 32 * 1024;

/// The database and its keyspaces beside the segments.
#[derive(Clone)]
pub(super) struct Store {
    database: Database,
    segments: Keyspace,
    positions: Keyspace,
    root: PathBuf,
}

impl Store {
    /// Opens the database, or makes it.
    pub(super) fn open(dir: &Path, config: &EmbeddedLogConfig) -> Result<Self, LogError> {
        let root = dir.join(DATABASE);
        discard_unfinished_creation(&root).map_err(io("clearing an unfinished log in", &root))?;
        let database = Database::builder(&root)
            .cache_size(config.read_cache_bytes)
            .journal_compression(CompressionType::None) // short-lived, and CPU is scarcer than disk
            .manual_journal_persist(true) // every batch names its durability
            .max_journaling_size(MAX_JOURNAL_BYTES)
            // One: with more, fjall's first worker spins while another compacts.
            .worker_threads(1)
            .open()
            .map_err(|e| match e {
                fjall::Error::Locked => in_use(dir, None),
                e => storage("opening the log in", &root)(e),
            })?;
        let small = || KeyspaceCreateOptions::default().max_memtable_size(NEVER_ROTATE_BYTES);
        let open = |name: &str| database.keyspace(name, small).map_err(storage("opening the log in", &root));
        let store =
            Self { segments: open(SEGMENTS)?, positions: open(POSITIONS)?, database: database.clone(), root };
        for made in [dir, &store.root, &store.root.join("keyspaces")] {
            sync_dir(made)?;
        }
        Ok(store)
    }

    pub(super) fn batch(&self) -> OwnedWriteBatch {
        self.database.batch().durability(Some(PersistMode::SyncData))
    }

    /// Writes a batch, all or none, and syncs it to the disk.
    pub(super) fn commit(&self, batch: OwnedWriteBatch) -> Result<(), LogError> {
        batch.commit().map_err(storage("writing to", &self.root))
    }

    /// Where committed positions are kept.
    pub(super) fn positions(&self) -> &Keyspace {
        &self.positions
    }

    /// Makes an empty segment. It counts once its entry has been written.
    pub(super) fn create_segment(
        &self,
        topic: &str,
        number: u64,
        bases: Vec<u64>,
        now_ms: i64,
    ) -> Result<Segment, LogError> {
        let options = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(NEVER_ROTATE_BYTES)
                .compaction_strategy(Arc::new(Leveled::default().with_l0_threshold(TABLES_TO_MERGE)))
                .data_block_compression_policy(CompressionPolicy::all(CompressionType::Lz4))
                .data_block_size_policy(BlockSizePolicy::all(BLOCK_BYTES))
                .filter_policy(FilterPolicy::disabled()) // records are read by range
        };
        let keyspace = self
            .database
            .keyspace(&segment_name(topic, number), options)
            .map_err(storage("making a segment in", &self.root))?;
        // fjall syncs the keyspace's folder, but not the folder it stands in.
        sync_dir(&self.root.join("keyspaces"))?;
        Ok(Segment {
            number,
            bases,
            created_ms: now_ms,
            keyspace,
            bytes: AtomicU64::new(0),
            newest_ms: AtomicI64::new(i64::MIN),
        })
    }

    /// Adds to a batch what is known of a segment.
    pub(super) fn write_entry(&self, batch: &mut OwnedWriteBatch, topic: &str, segment: &Segment) {
        batch.insert(&self.segments, entry_key(topic, segment.number), encode_entry(segment));
    }

    /// Forgets segments, durably, and then frees their disk space.
    pub(super) fn remove_segments(&self, topic: &str, segments: &[Arc<Segment>]) -> Result<(), LogError> {
        let mut batch = self.batch();
        for segment in segments {
            batch.remove(&self.segments, entry_key(topic, segment.number));
        }
        self.commit(batch)
    }

    /// Deletes the files of a segment that has no entry any more.
    pub(super) fn delete_files(&self, keyspace: Keyspace) -> Result<(), LogError> {
        self.database.delete_keyspace(keyspace).map_err(storage("removing a segment from", &self.root))
    }

    /// All segments of a topic, oldest first. Sizes and ages of the last one are not known.
    pub(super) fn load_segments(&self, topic: &str, partitions: u32) -> Result<Vec<Segment>, LogError> {
        let mut segments = Vec::new();
        for entry in self.segments.prefix(entry_prefix(topic)) {
            let (key, value) = entry.into_inner().map_err(storage("reading the segments in", &self.root))?;
            let damaged = || {
                LogError::Storage(format!(
                    "a segment of {topic} in {} is damaged or missing: restore the data directory from a backup",
                    self.root.display()
                ))
            };
            let number = key.last_chunk::<8>().map(|n| u64::from_be_bytes(*n)).ok_or_else(damaged)?;
            let name = segment_name(topic, number);
            if !self.database.keyspace_exists(&name) {
                return Err(damaged());
            }
            let keyspace = self
                .database
                .keyspace(&name, KeyspaceCreateOptions::default)
                .map_err(storage("opening a segment in", &self.root))?;
            let segment = decode_entry(number, keyspace, &value).ok_or_else(damaged)?;
            let found = segment.bases.len();
            if found != partitions as usize {
                return Err(LogError::Storage(format!(
                    "the log in {} has {found} partitions per topic, not {partitions}: set `log.partitions = \
                     {found}`, or start with an empty data directory",
                    self.root.display()
                )));
            }
            segments.push(segment);
        }
        Ok(segments)
    }

    /// Deletes the files of segments that a crash left without an entry: before their first record, or
    /// after retention had removed them.
    pub(super) fn delete_orphans(&self) -> Result<(), LogError> {
        for name in self.database.list_keyspace_names() {
            let Some((topic, number)) =
                name.strip_prefix(SEGMENT_PREFIX).and_then(|rest| rest.rsplit_once('.'))
            else {
                continue;
            };
            let known = match number.parse() {
                Ok(number) => self
                    .segments
                    .contains_key(entry_key(topic, number))
                    .map_err(storage("reading the segments in", &self.root))?,
                Err(_) => false,
            };
            if !known {
                let keyspace = self
                    .database
                    .keyspace(&name, KeyspaceCreateOptions::default)
                    .map_err(storage("opening a segment in", &self.root))?;
                self.delete_files(keyspace)?;
            }
        }
        Ok(())
    }
}

/// Goes through the last segment of a topic: how far each partition reaches, its size and age.
pub(super) fn survey(topic: &str, segment: &Segment) -> Result<Vec<u64>, LogError> {
    let broken = |what: String| {
        LogError::Storage(format!("{topic}: {what}: restore the data directory from a backup"))
    };
    let mut ends = segment.bases.clone();
    let (mut bytes, mut newest_ms) = (0, i64::MIN);
    for entry in segment.keyspace.iter() {
        let (key, value) = entry.into_inner().map_err(|e| broken(e.to_string()))?;
        let place = format::parse_record_key(&key);
        let end = place.and_then(|(partition, _)| ends.get_mut(partition as usize));
        let (Some((partition, offset)), Some(end)) = (place, end) else {
            return Err(broken("a record stands at no place".to_owned()));
        };
        if *end != offset {
            return Err(broken(format!("offset {end} of partition {partition} is missing, found {offset}")));
        }
        let timestamp_ms = format::decode_timestamp_ms(&value)
            .ok_or_else(|| broken(format!("offset {offset} of partition {partition} is not a record")))?;
        *end += 1;
        bytes += value.len() as u64;
        newest_ms = newest_ms.max(timestamp_ms);
    }
    segment.bytes.store(bytes, Ordering::Release);
    segment.newest_ms.store(newest_ms, Ordering::Release);
    Ok(ends)
}

/// Takes the directory for this process until the returned file is dropped.
pub(super) fn lock(dir: &Path) -> Result<File, LogError> {
    std::fs::create_dir_all(dir).map_err(io("making the log's directory", dir))?;
    if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        sync_dir(parent)?;
    }
    let path = dir.join(LOCK_FILE);
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(io("opening", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let holder = file.read_to_string(&mut holder).ok().map(|_| holder.trim().to_owned());
            return Err(in_use(dir, holder.filter(|pid| !pid.is_empty()).as_deref()));
        }
        Err(TryLockError::Error(e)) => return Err(io("locking", &path)(e)),
    }
    let written =
        file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
    written.map_err(io("writing", &path))?;
    Ok(file)
}

fn in_use(dir: &Path, holder: Option<&str>) -> LogError {
    let holder = holder.map(|pid| format!(" (process {pid})")).unwrap_or_default();
    LogError::Storage(format!(
        "another paystream process{holder} has the log in {} open: stop it, or give this one another data \
         directory",
        dir.display()
    ))
}

/// A process killed while it made the database leaves a half that fjall refuses to open. Nothing can have
/// been written to it yet if it has no keyspaces.
fn discard_unfinished_creation(root: &Path) -> std::io::Result<()> {
    let marker = std::fs::metadata(root.join("version"));
    if !root.exists() || marker.is_ok_and(|marker| marker.len() > 0) {
        return Ok(());
    }
    let keyspaces = root.join("keyspaces");
    if keyspaces.exists() && std::fs::read_dir(&keyspaces)?.next().is_some() {
        return Ok(());
    }
    std::fs::remove_dir_all(root)
}

/// Makes the names in a directory durable.
fn sync_dir(dir: &Path) -> Result<(), LogError> {
    File::open(dir).and_then(|file| file.sync_all()).map_err(io("syncing", dir))
}

fn segment_name(topic: &str, number: u64) -> String {
    format!("{SEGMENT_PREFIX}{topic}.{number}")
}

fn entry_prefix(topic: &str) -> Vec<u8> {
    [topic.as_bytes(), b"\0"].concat()
}

fn entry_key(topic: &str, number: u64) -> Vec<u8> {
    [&entry_prefix(topic)[..], &number.to_be_bytes()].concat()
}

fn encode_entry(segment: &Segment) -> Vec<u8> {
    let mut out = Vec::with_capacity(29 + 8 * segment.bases.len());
    out.put_u8(ENTRY_FORMAT);
    out.put_i64(segment.created_ms);
    out.put_u64(segment.bytes());
    out.put_i64(segment.newest_ms());
    out.put_u32(u32::try_from(segment.bases.len()).expect("partitions are a u32"));
    for &base in &segment.bases {
        out.put_u64(base);
    }
    out
}

fn decode_entry(number: u64, keyspace: Keyspace, mut bytes: &[u8]) -> Option<Segment> {
    if bytes.try_get_u8().ok()? != ENTRY_FORMAT {
        return None;
    }
    let created_ms = bytes.try_get_i64().ok()?;
    let size = bytes.try_get_u64().ok()?;
    let newest_ms = bytes.try_get_i64().ok()?;
    let partitions = bytes.try_get_u32().ok()?;
    let bases: Option<Vec<u64>> = (0..partitions).map(|_| bytes.try_get_u64().ok()).collect();
    Some(Segment {
        number,
        bases: bases?,
        created_ms,
        keyspace,
        bytes: AtomicU64::new(size),
        newest_ms: AtomicI64::new(newest_ms),
    })
}

fn storage(doing: &'static str, path: &Path) -> impl Fn(fjall::Error) -> LogError {
    let path = path.to_owned();
    move |e| LogError::Storage(format!("{doing} {}: {e}", path.display()))
}

fn io(doing: &'static str, path: &Path) -> impl Fn(std::io::Error) -> LogError {
    let path = path.to_owned();
    move |e| LogError::Storage(format!("{doing} {}: {e}", path.display()))
}
