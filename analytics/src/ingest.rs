//! The two threads that keep the warehouse: one reads the log, the other writes and merges files. Both are
//! threads of their own, so that decoding and compressing never delay an answer to a merchant.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::compact::Limits;
use crate::config::WarehouseConfig;
use crate::live::{Live, now_ms};
use crate::metrics::Metrics;
use crate::parquet::Pacer;
use crate::reader::{POLL_RECORDS, Reader};
use crate::rows::Rows;
use crate::schema::Table;
use crate::store::{Chunk, Store};

/// How long an idle reader waits before it looks again by itself.
const IDLE_WAIT: Duration = Duration::from_secs(1);
/// How often the writer looks whether a flush is due.
const WRITER_WAIT: Duration = Duration::from_millis(100);
/// How often the writer looks for files to merge.
const COMPACT_INTERVAL: Duration = Duration::from_secs(30);
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LAST_RETRY: Duration = Duration::from_secs(15);

/// A delay that doubles with each failure in a row.
struct Backoff(Duration);

impl Backoff {
    const fn new() -> Self {
        Self(FIRST_RETRY)
    }

    fn next(&mut self) -> Duration {
        let doubled = (self.0 * 2).min(LAST_RETRY);
        std::mem::replace(&mut self.0, doubled)
    }

    const fn reset(&mut self) {
        self.0 = FIRST_RETRY;
    }
}

/// Reads the log into the store and the page's aggregates.
pub(crate) struct Ingest {
    pub(crate) reader: Reader,
    pub(crate) store: Arc<Store>,
    pub(crate) live: Arc<Live>,
    pub(crate) metrics: Metrics,
    pub(crate) config: WarehouseConfig,
    pub(crate) stop: CancellationToken,
    /// Wakes the writer; it ends, after a last flush, when this is dropped.
    pub(crate) writer: SyncSender<()>,
}

impl Ingest {
    /// Reads until asked to stop, then what the log holds by then, within the drain deadline.
    pub(crate) async fn run(mut self) {
        let mut rows = Rows::default();
        let mut backoff = Backoff::new();
        let poll_interval = Duration::from_millis(self.config.poll_interval_ms);
        let mut drain_until = None;
        loop {
            if self.stop.is_cancelled() {
                let until = drain_until.get_or_insert_with(|| {
                    Instant::now() + Duration::from_millis(self.config.drain_deadline_ms)
                });
                if Instant::now() >= *until {
                    break;
                }
            }
            if self.is_full() {
                self.pause(poll_interval).await;
                continue;
            }
            let polled = self.reader.poll(&mut rows, Some(&self.live)).await;
            self.seal(&mut rows);
            match polled {
                Ok(0) if self.stop.is_cancelled() => break,
                Ok(0) => self.idle(&mut backoff).await,
                Ok(taken) if taken >= POLL_RECORDS => backoff.reset(),
                Ok(_) => {
                    backoff.reset();
                    self.rest(poll_interval).await;
                }
                Err(error) => self.failed(&error, &mut backoff).await,
            }
        }
    }

    /// Makes what was read visible to queries.
    fn seal(&self, rows: &mut Rows) {
        if let Some(chunk) = chunk(rows, &self.reader) {
            self.store.append(chunk);
        }
        let waiting = self.store.snapshot().tail_records;
        self.metrics.tail_records.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        if waiting >= self.config.flush_min_rows {
            // A full channel means that the writer is about to look anyway.
            let _ = self.writer.try_send(());
        }
    }

    fn is_full(&self) -> bool {
        let full = self.store.snapshot().tail_records >= self.config.tail_max_rows;
        self.metrics.ingest_paused.set(i64::from(full));
        full
    }

    /// Until a flush makes room: what is not read stays in the log.
    async fn pause(&self, time: Duration) {
        let _ = self.writer.try_send(());
        tokio::time::sleep(time).await;
    }

    async fn rest(&self, time: Duration) {
        let _ = tokio::time::timeout(time, self.stop.cancelled()).await;
    }

    async fn idle(&self, backoff: &mut Backoff) {
        let waited = tokio::select! {
            waited = self.reader.wait(IDLE_WAIT) => waited,
            () = self.stop.cancelled() => Ok(()),
        };
        match waited {
            Ok(()) => backoff.reset(),
            Err(error) => self.failed(&error, backoff).await,
        }
    }

    async fn failed(&self, error: &eventlog::LogError, backoff: &mut Backoff) {
        let wait = backoff.next();
        tracing::error!(%error, ?wait, "the warehouse cannot read the log: trying again");
        if self.stop.is_cancelled() {
            // Within the drain deadline, which the loop watches.
            tokio::time::sleep(wait.min(FIRST_RETRY)).await;
        } else {
            self.rest(wait).await;
        }
    }
}

/// What was read since the last chunk, if anything.
pub(crate) fn chunk(rows: &mut Rows, reader: &Reader) -> Option<Chunk> {
    let records = rows.records();
    (records > 0).then(|| Chunk {
        batches: rows.finish(),
        records,
        to: reader.positions().clone(),
        since: Instant::now(),
    })
}

/// Writes the newest rows to files when due, and merges small files.
pub(crate) struct Writer {
    pub(crate) store: Arc<Store>,
    pub(crate) metrics: Metrics,
    pub(crate) config: WarehouseConfig,
    pub(crate) pacer: Arc<Pacer>,
    pub(crate) wake: Receiver<()>,
}

impl Writer {
    /// Runs until the reader is gone, then flushes once more.
    pub(crate) fn run(self) {
        let mut backoff = Backoff::new();
        let mut not_before = Instant::now();
        let mut next_compaction = Instant::now() + COMPACT_INTERVAL;
        self.count_files();
        while let Ok(()) | Err(RecvTimeoutError::Timeout) = self.wake.recv_timeout(WRITER_WAIT) {
            let now = Instant::now();
            if self.is_due(now) && now >= not_before {
                if self.flush() {
                    backoff.reset();
                } else {
                    not_before = Instant::now() + backoff.next();
                }
            } else if now >= next_compaction && !self.compact() {
                next_compaction = Instant::now() + COMPACT_INTERVAL;
            }
        }
        if !self.flush() {
            tracing::warn!("the last flush failed: the next start reads these rows from the log again");
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        let snapshot = self.store.snapshot();
        let interval = Duration::from_millis(self.config.flush_interval_ms);
        snapshot.tail_records >= self.config.flush_min_rows
            || snapshot.tail.first().is_some_and(|oldest| now.duration_since(oldest.since) >= interval)
    }

    /// Returns whether it succeeded. On failure the rows stay in memory and visible.
    fn flush(&self) -> bool {
        let began = Instant::now();
        match self.store.flush(&self.pacer) {
            Ok(None) => true,
            Ok(Some(flushed)) => {
                self.metrics.flush_seconds.observe(began.elapsed().as_secs_f64());
                let tail = self.store.snapshot().tail_records;
                self.metrics.tail_records.set(i64::try_from(tail).unwrap_or(i64::MAX));
                tracing::debug!(records = flushed.records, files = flushed.files, "flushed");
                self.count_files();
                true
            }
            Err(error) => {
                self.metrics.flush_failures.inc();
                tracing::error!(%error, "cannot write the newest rows to disk: they stay in memory, trying again");
                false
            }
        }
    }

    /// Returns whether something was merged, and so whether to look again at once.
    fn compact(&self) -> bool {
        let limits =
            Limits { min_files: self.config.compact_min_files, max_rows: self.config.compact_max_rows };
        match self.store.compact_once(now_ms(), limits, &self.pacer) {
            Ok(merged) => {
                if merged {
                    self.metrics.compactions.inc();
                    self.count_files();
                }
                merged
            }
            Err(error) => {
                tracing::error!(%error, "cannot merge small files: trying again later, nothing is lost");
                false
            }
        }
    }

    fn count_files(&self) {
        let snapshot = self.store.snapshot();
        for table in Table::ALL {
            let files = snapshot.files.iter().filter(|f| f.entry.table == table);
            let (mut count, mut bytes) = (0_i64, 0_i64);
            for file in files {
                count += 1;
                bytes = bytes.saturating_add(i64::try_from(file.entry.bytes).unwrap_or(i64::MAX));
            }
            self.metrics.files.with_label_values(&[table.as_str()]).set(count);
            self.metrics.file_bytes.with_label_values(&[table.as_str()]).set(bytes);
        }
    }
}
