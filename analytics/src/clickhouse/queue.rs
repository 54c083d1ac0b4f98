//! Batches between the thread that forms them and the one that sends them: a few in memory, and on disk what
//! ClickHouse is too slow or away for, up to a bound.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::batch::Batch;
use super::metrics::Metrics;
use super::spool::{self, Refusal, Spool, Spooled};

/// Batches that wait in memory; further ones go to disk.
const IN_MEMORY: usize = 2;
/// How long a full disk is waited for before it is tried again.
const DISK_RETRY: Duration = Duration::from_secs(2);

/// A batch in turn.
#[derive(Debug)]
pub(crate) struct InHand {
    pub(crate) batch: Batch,
    /// Its plan is in the log already, and with it its dead letters.
    pub(crate) is_planned: bool,
    file: Option<PathBuf>,
}

#[derive(Debug)]
enum Entry {
    Memory { batch: Box<Batch>, is_planned: bool },
    Disk { file: Spooled, is_planned: bool },
}

#[derive(Debug)]
struct Inner {
    entries: VecDeque<Entry>,
    disk_bytes: u64,
    /// Nothing more is pushed.
    is_finished: bool,
    spool: Spool,
}

/// The queue.
#[derive(Debug)]
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    changed: Notify,
    spool_max_bytes: u64,
    metrics: Metrics,
}

impl Queue {
    pub(crate) fn new(spool: Spool, spool_max_bytes: u64, metrics: Metrics) -> Self {
        metrics.unsent_rows.set(0);
        metrics.unsent_bytes.set(0);
        let inner = Inner { entries: VecDeque::new(), disk_bytes: 0, is_finished: false, spool };
        Self { inner: Mutex::new(inner), changed: Notify::new(), spool_max_bytes, metrics }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a batch that a process before this one planned, or spooled, at the end.
    pub(crate) fn restore(&self, batch: Batch, is_planned: bool) {
        self.count(batch.rows(), batch.bytes(), 1);
        self.inner().entries.push_back(Entry::Memory { batch: Box::new(batch), is_planned });
    }

    /// The same for one on disk.
    pub(crate) fn restore_file(&self, file: Spooled, is_planned: bool) {
        self.count(file.rows, file.bytes, 1);
        let mut inner = self.inner();
        inner.disk_bytes += file.bytes;
        inner.entries.push_back(Entry::Disk { file, is_planned });
    }

    /// Adds a batch: in memory when few wait, else on disk; when the disk's share is used up, waits until
    /// there is room. Returns whether it was added; it is not when `stop` comes first.
    ///
    /// Writes to the disk on the calling thread.
    pub(crate) async fn push(&self, batch: Batch, stop: &CancellationToken) -> bool {
        let (rows, bytes) = (batch.rows(), batch.bytes());
        let mut batch = Some(batch);
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.try_push(&mut batch) {
                self.count(rows, bytes, 1);
                self.metrics.paused.set(0);
                self.changed.notify_waiters();
                return true;
            }
            self.metrics.paused.set(1);
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep(DISK_RETRY) => {}
                () = stop.cancelled() => return false,
            }
        }
    }

    fn try_push(&self, batch: &mut Option<Batch>) -> bool {
        let mut inner = self.inner();
        let Some(waiting) = batch.take() else { return true };
        if inner.entries.len() < IN_MEMORY {
            inner.entries.push_back(Entry::Memory { batch: Box::new(waiting), is_planned: false });
            return true;
        }
        if inner.disk_bytes + waiting.bytes() <= self.spool_max_bytes {
            match inner.spool.put(&waiting) {
                Ok(file) => {
                    inner.disk_bytes += file.bytes;
                    inner.entries.push_back(Entry::Disk { file, is_planned: false });
                    return true;
                }
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::error!(error, "a batch cannot wait on disk: reading from the log pauses");
                }
            }
        }
        *batch = Some(waiting);
        false
    }

    /// The oldest batch; waits for one. Nothing once all are taken and no more will come.
    pub(crate) async fn pop(&self) -> anyhow::Result<Option<InHand>> {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let (entry, is_finished) = {
                let mut inner = self.inner();
                (inner.entries.pop_front(), inner.is_finished)
            };
            if let Some(entry) = entry {
                return in_hand(entry).map(Some);
            }
            if is_finished {
                return Ok(None);
            }
            changed.await;
        }
    }

    /// A batch that is in: it need not be kept.
    pub(crate) fn done(&self, in_hand: InHand) -> anyhow::Result<()> {
        let (rows, bytes) = (in_hand.batch.rows(), in_hand.batch.bytes());
        self.count(rows, bytes, -1);
        if let Some(file) = in_hand.file {
            self.inner().disk_bytes -= bytes;
            spool::remove(&file)?;
        }
        self.changed.notify_waiters();
        Ok(())
    }

    /// Keeps rows that ClickHouse refuses.
    pub(crate) fn refuse(&self, batch: &Batch, refusal: Refusal) -> anyhow::Result<PathBuf> {
        let mut inner = self.inner();
        let path = inner.spool.refuse(batch, refusal)?;
        self.metrics.refused.set(i64::try_from(inner.spool.refused()?.len()).unwrap_or(i64::MAX));
        Ok(path)
    }

    /// No more batches will come; those that wait are still to be taken.
    pub(crate) fn finish(&self) {
        self.inner().is_finished = true;
        self.changed.notify_waiters();
    }

    /// Batches that wait are given up, in memory: they are made again from the log. Files stay.
    pub(crate) fn give_up(&self) {
        let mut inner = self.inner();
        inner.is_finished = true;
        inner.entries.clear();
        drop(inner);
        self.changed.notify_waiters();
    }

    fn count(&self, rows: u64, bytes: u64, sign: i64) {
        let of = |n: u64| i64::try_from(n).unwrap_or(i64::MAX).saturating_mul(sign);
        self.metrics.unsent_rows.add(of(rows));
        self.metrics.unsent_bytes.add(of(bytes));
    }
}

fn in_hand(entry: Entry) -> anyhow::Result<InHand> {
    Ok(match entry {
        Entry::Memory { batch, is_planned } => InHand { batch: *batch, is_planned, file: None },
        Entry::Disk { file, is_planned } => {
            InHand { batch: spool::read(&file.path)?.0, is_planned, file: Some(file.path) }
        }
    })
}
