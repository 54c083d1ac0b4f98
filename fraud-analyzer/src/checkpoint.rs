//! State and progress in one file, atomically replaced; the one before is kept.
//!
//! The file is one line of JSON with the progress and the names of the segments the state goes on from,
//! the scorer's state, and an XXH3 checksum over both. Segments are durable before the file is.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use scoring::{Cut, SegmentId, SegmentStore};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use xxhash_rust::xxh3::xxh3_64;

use crate::durable;
use crate::generations::Generations;
use crate::lane::Lane;
use crate::metrics::Metrics;
use crate::progress::Progress;
use crate::remote::{Copied, Remote};
use crate::segments::SegmentDir;

const FORMAT: u32 = 4;
const CHECKSUM_BYTES: usize = 8;
/// The newest, and one to fall back on.
const KEPT: usize = 2;

/// A consistent cut: the state after exactly the events that the progress says are behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checkpoint {
    pub(crate) progress: Progress,
    /// Whether it is of the scorer that decides, not of one that is warmed up to take over.
    pub(crate) decides: bool,
    /// What `scoring::Scorer::checkpoint` returned.
    pub(crate) state: Cut,
}

#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    progress: Progress,
    decides: bool,
    /// Reservoir and number of each segment.
    segments: Vec<(u32, u64)>,
}

impl Checkpoint {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let segments = self.state.segments.iter().map(|id| (id.reservoir, id.number)).collect();
        let Self { progress, decides, .. } = self.clone();
        let header = Header { format: FORMAT, progress, decides, segments };
        let mut bytes = serde_json::to_vec(&header).expect("a header has no maps with odd keys");
        bytes.push(b'\n');
        bytes.extend_from_slice(&self.state.bytes);
        let checksum = xxh3_64(&bytes);
        bytes.extend(checksum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let (body, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or("it is cut short")?;
        if xxh3_64(body).to_le_bytes() != *checksum {
            return Err("its checksum does not match".to_owned());
        }
        let line = body.iter().position(|&b| b == b'\n').ok_or("it has no header")?;
        let header: Header = serde_json::from_slice(&body[..line]).map_err(|e| e.to_string())?;
        if header.format != FORMAT {
            return Err(format!("it has format {}, this build reads format {FORMAT}", header.format));
        }
        let segments =
            header.segments.into_iter().map(|(reservoir, number)| SegmentId { reservoir, number }).collect();
        Ok(Self {
            progress: header.progress,
            decides: header.decides,
            state: Cut { bytes: body[line + 1..].to_vec(), segments, open: Vec::new() },
        })
    }
}

/// The checkpoints in a directory: all of one scorer, or of others that went on from it.
#[derive(Debug, Clone)]
pub(crate) struct Checkpoints {
    dir: PathBuf,
    segments: Arc<SegmentDir>,
}

impl Checkpoints {
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        Ok(Self { dir: dir.to_owned(), segments: SegmentDir::open(&dir.join("segments"))? })
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the scorer leaves its segments.
    pub(crate) fn segments(&self) -> Arc<dyn SegmentStore> {
        Arc::<SegmentDir>::clone(&self.segments)
    }

    /// Writes a checkpoint durably, then removes all but the newest two and the segments that neither
    /// names. Returns how many bytes were written.
    pub(crate) fn write(&self, checkpoint: &Checkpoint) -> io::Result<u64> {
        let named = &checkpoint.state.segments;
        let in_segments = self.segments.persist(named)?;
        let bytes = checkpoint.encode();
        durable::replace(&self.dir.join(name(checkpoint.progress.next_seq)), &bytes)?;
        for (_, old) in self.newest_first()?.into_iter().skip(KEPT) {
            fs::remove_file(old)?;
        }
        let kept: BTreeSet<SegmentId> = self.readable()?.flat_map(|c| c.state.segments).collect();
        self.segments.clean(&kept, &checkpoint.state.open)?;
        Ok(in_segments + bytes.len() as u64)
    }

    /// Writes a checkpoint's file as another process made it; its segments have been put beside it.
    pub(crate) fn adopt(&self, file: &[u8]) -> anyhow::Result<()> {
        let checkpoint = Checkpoint::decode(file).map_err(anyhow::Error::msg)?;
        self.segments.persist(&checkpoint.state.segments)?;
        durable::replace(&self.dir.join(name(checkpoint.progress.next_seq)), file)?;
        Ok(())
    }

    /// The place that the newest checkpoint was made at.
    pub(crate) fn newest_seq(&self) -> io::Result<Option<u64>> {
        Ok(self.newest_first()?.first().map(|&(seq, _)| seq))
    }

    /// Removes all of it.
    pub(crate) fn remove(self) -> io::Result<()> {
        fs::remove_dir_all(self.dir)
    }

    /// The checkpoints that can be read, newest first; those that cannot are reported and passed over.
    pub(crate) fn readable(&self) -> io::Result<impl Iterator<Item = Checkpoint> + use<>> {
        Ok(self.newest_first()?.into_iter().filter_map(|(_, path)| {
            let read = fs::read(&path).map_err(|e| e.to_string()).and_then(|b| Checkpoint::decode(&b));
            read.inspect_err(|reason| {
                tracing::error!(file = %path.display(), %reason, "a checkpoint cannot be read; trying the one before");
            })
            .ok()
        }))
    }

    fn newest_first(&self) -> io::Result<Vec<(u64, PathBuf)>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            let seq = path
                .file_name()
                .and_then(|n| n.to_str())
                .and_then(|n| n.strip_prefix("checkpoint-")?.strip_suffix(".bin")?.parse().ok());
            if let Some(seq) = seq {
                found.push((seq, path));
            }
        }
        found.sort_unstable_by_key(|&(seq, _)| std::cmp::Reverse(seq));
        Ok(found)
    }
}

fn name(seq: u64) -> String {
    format!("checkpoint-{seq:020}.bin")
}

/// Writes checkpoints beside the hot path, on a thread of its own, one at a time.
#[derive(Debug)]
pub(crate) struct CheckpointWriter {
    queue: SyncSender<(Checkpoints, Checkpoint)>,
    busy: Arc<AtomicBool>,
    durable_at: Arc<Mutex<Instant>>,
    thread: JoinHandle<()>,
}

impl CheckpointWriter {
    /// Once a checkpoint is written, it is copied to the remote store if there is one, and generations before
    /// its own are removed.
    pub(crate) fn start(
        lane: Lane,
        generations: Generations,
        remote: Option<Remote>,
        metrics: Metrics,
    ) -> io::Result<Self> {
        let (queue, jobs) = sync_channel::<(Checkpoints, Checkpoint)>(1);
        let busy = Arc::new(AtomicBool::new(false));
        let idle_again = Arc::clone(&busy);
        let durable_at = Arc::new(Mutex::new(Instant::now()));
        let newest = Arc::clone(&durable_at);
        let handle = Handle::current();
        let thread = std::thread::Builder::new().name("checkpoint".to_owned()).spawn(move || {
            runtime::background::yield_to_answers();
            let mut copied = Copied::default();
            for (checkpoints, checkpoint) in jobs {
                let began = Instant::now();
                let written = checkpoints.write(&checkpoint).and_then(|bytes| {
                    if let Some(remote) = &remote {
                        let push = remote.push(lane, &checkpoints, &checkpoint, &mut copied);
                        handle.block_on(push).map_err(|e| io::Error::other(format!("{e:#}")))?;
                    }
                    Ok(bytes)
                });
                match written {
                    Ok(bytes) => {
                        *newest.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
                        metrics.checkpoint_seconds.observe(began.elapsed().as_secs_f64());
                        metrics.checkpoint_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
                        if let Err(error) = generations.remove_before(&checkpoints) {
                            tracing::warn!(%error, "windows that are of no more use could not be removed: \
                                                    trying again after the next checkpoint");
                        }
                    }
                    Err(error) => {
                        metrics.checkpoint_failures.inc();
                        tracing::error!(%error, "a checkpoint could not be written: the one before stays in force, \
                                                  and a restart will take longer; check the disk's free space");
                    }
                }
                idle_again.store(false, Ordering::Release);
            }
        })?;
        Ok(Self { queue, busy, durable_at, thread })
    }

    /// How long ago the newest checkpoint became durable, or this began.
    pub(crate) fn age(&self) -> Duration {
        self.durable_at.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// Hands over what is to be written where; skips it when the one before is still being written.
    pub(crate) fn offer(&self, make: impl FnOnce() -> (Checkpoints, Checkpoint)) {
        if self.busy.swap(true, Ordering::AcqRel) {
            return;
        }
        if self.queue.try_send(make()).is_err() {
            tracing::error!("the checkpoint thread has ended: no further checkpoints until a restart");
        }
    }

    /// Writes a last checkpoint and waits until it is durable.
    pub(crate) fn finish(self, last: (Checkpoints, Checkpoint)) {
        let sent = self.queue.send(last);
        drop(self.queue);
        if sent.is_err() || self.thread.join().is_err() {
            tracing::error!("the last checkpoint was not written: a restart will replay more");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint(seq: u64) -> Checkpoint {
        let progress = Progress {
            next_seq: seq,
            created: vec![seq, 2],
            decided: vec![1, 2],
            dead: vec![0, 0],
            labelled: vec![3, 0],
            lists: vec![0, 9],
        };
        Checkpoint {
            progress,
            decides: true,
            state: Cut { bytes: vec![7; 100], segments: Vec::new(), open: Vec::new() },
        }
    }

    #[test]
    fn the_newest_two_are_kept_and_read_newest_first() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::open(dir.path()).unwrap();
        for seq in [5, 17, 900] {
            checkpoints.write(&checkpoint(seq)).unwrap();
        }
        let read: Vec<_> = checkpoints.readable().unwrap().collect();
        assert_eq!(read, [checkpoint(900), checkpoint(17)]);
    }

    #[test]
    fn a_damaged_checkpoint_falls_back_to_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::open(dir.path()).unwrap();
        checkpoints.write(&checkpoint(1)).unwrap();
        checkpoints.write(&checkpoint(2)).unwrap();
        let newest = dir.path().join(name(2));
        let whole = fs::read(&newest).unwrap();
        for at in [0, 10, whole.len() / 2, whole.len() - 1] {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            fs::write(&newest, flipped).unwrap();
            assert_eq!(checkpoints.readable().unwrap().next(), Some(checkpoint(1)), "byte {at}");
        }
        fs::write(&newest, &whole[..whole.len() / 2]).unwrap();
        assert_eq!(checkpoints.readable().unwrap().next(), Some(checkpoint(1)));
    }

    #[test]
    fn a_write_that_was_cut_off_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let checkpoints = Checkpoints::open(dir.path()).unwrap();
        checkpoints.write(&checkpoint(1)).unwrap();
        fs::write(dir.path().join(name(2)).with_extension("tmp"), b"half").unwrap();
        assert_eq!(checkpoints.readable().unwrap().next(), Some(checkpoint(1)));
    }
}
