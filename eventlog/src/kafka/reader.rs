//! Readers of one topic: which of a few cursors serves whom, and what is known of the topic's ends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::IntCounter;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::appender::Topic;
use super::config::KafkaConfig;
use super::cursor::Cursor;
use super::ends::{Bounds, Ends};
use super::metrics::Metrics;
use super::single::Single;
use super::window::Window;
use crate::{LogError, LoggedRecord, Position};

/// At most this many places of a topic are read at once: a tail, one that catches up, and single records.
const CURSORS_MAX: usize = 3;
/// A window that was asked for something this recently is somebody's: another cursor is begun rather.
const IN_USE: Duration = Duration::from_secs(2);
/// Whoever waits looks again after this, so that its windows stay its own.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// No reader waits longer than this in one call.
const MAX_WAIT: Duration = Duration::from_secs(3_600);

/// What a topic's cursors and readers share.
#[derive(Debug)]
pub(super) struct Shared {
    /// The topic's own name.
    pub(super) topic: &'static str,
    /// Its name on the broker.
    pub(super) full: String,
    pub(super) partitions: u32,
    /// By cursor, then by partition.
    windows: Mutex<Vec<Vec<Option<Window>>>>,
    /// What each partition was last seen to hold.
    known: Mutex<Vec<Option<Bounds>>>,
    pub(super) arrived: Notify,
    pub(super) fetched: IntCounter,
    pub(super) moves: IntCounter,
}

impl Shared {
    pub(super) fn windows(&self) -> MutexGuard<'_, Vec<Vec<Option<Window>>>> {
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> MutexGuard<'_, Vec<Option<Bounds>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Nothing that a cursor or an answer of the broker said holds any more: all is asked anew.
    pub(super) fn doubt(&self, cursor: usize) {
        self.known().fill(None);
        self.windows()[cursor].fill_with(|| None);
        self.arrived.notify_waiters();
    }
}

/// Reads one topic.
pub(super) struct Reader {
    config: Arc<KafkaConfig>,
    shared: Arc<Shared>,
    metrics: Arc<Metrics>,
    ends: Ends,
    single: Arc<Single>,
    /// `None` once the log is closed.
    cursors: Mutex<Option<Vec<Cursor>>>,
}

/// What there is for a reader.
enum Found {
    Records(Vec<LoggedRecord>),
    /// None yet: all before this offset has come.
    NoneBefore(u64),
    /// No window is there.
    Nowhere,
}

impl Reader {
    pub(super) fn new(
        topic: &'static str,
        Topic { full, partitions }: Topic,
        (config, metrics, ends, single): (Arc<KafkaConfig>, Arc<Metrics>, Ends, Arc<Single>),
    ) -> Self {
        let shared = Arc::new(Shared {
            topic,
            full,
            partitions,
            windows: Mutex::default(),
            known: Mutex::new(vec![None; partitions as usize]),
            arrived: Notify::new(),
            fetched: metrics.fetched_records.with_label_values(&[topic]),
            moves: metrics.moves.with_label_values(&[topic]),
        });
        Self { config, shared, metrics, ends, single, cursors: Mutex::new(Some(Vec::new())) }
    }

    pub(super) fn partitions(&self) -> u32 {
        self.shared.partitions
    }

    pub(super) fn check(&self, partition: u32) -> Result<(), LogError> {
        if partition < self.shared.partitions {
            return Ok(());
        }
        Err(LogError::UnknownPartition { topic: self.shared.topic.to_owned(), partition })
    }

    /// Ends all cursors, and every wait with [`LogError::Closed`].
    pub(super) fn close(&self) {
        self.cursors().take();
        for cursor in self.shared.windows().iter_mut() {
            cursor.fill_with(|| None);
        }
        self.shared.arrived.notify_waiters();
    }

    fn cursors(&self) -> MutexGuard<'_, Option<Vec<Cursor>>> {
        self.cursors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_open(&self) -> Result<(), LogError> {
        if self.cursors().is_some() { Ok(()) } else { Err(LogError::Closed) }
    }

    pub(super) async fn bounds(&self, partition: u32) -> Result<Bounds, LogError> {
        self.check(partition)?;
        self.check_open()?;
        let bounds = self.ends.bounds(&self.shared.full, partition).await?;
        self.shared.known()[partition as usize] = Some(bounds);
        Ok(bounds)
    }

    /// The bounds now, if the offset lies within them.
    async fn bounds_around(&self, partition: u32, offset: u64) -> Result<Bounds, LogError> {
        let bounds = self.bounds(partition).await?;
        if (bounds.start..=bounds.top).contains(&offset) {
            return Ok(bounds);
        }
        Err(LogError::OffsetOutOfRange {
            topic: self.shared.topic.to_owned(),
            partition,
            offset,
            start: bounds.start,
            end: bounds.end,
        })
    }

    pub(super) async fn read(
        &self,
        partition: u32,
        from_offset: u64,
        max_records: usize,
        wait: Duration,
    ) -> Result<Vec<LoggedRecord>, LogError> {
        self.check(partition)?;
        if max_records == 0 {
            return Ok(Vec::new());
        }
        let started = Instant::now();
        let deadline = started + wait.min(MAX_WAIT);
        // For records that are known to be there.
        let fetch_deadline = deadline + self.config.request_deadline();
        let mut is_single = max_records == 1;
        // Where the partition ended when it was asked, at the deadline or after it.
        let mut last_end = None;
        loop {
            let arrived = self.shared.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            self.check_open()?;
            let come = match self.find(partition, from_offset, max_records) {
                Found::Records(records) => return Ok(records),
                Found::NoneBefore(next) => next,
                Found::Nowhere => {
                    if !self.is_known(partition, from_offset) {
                        let bounds = self.bounds_around(partition, from_offset).await?;
                        if from_offset >= bounds.end && Instant::now() >= deadline {
                            return Ok(Vec::new());
                        }
                    }
                    // A window would bring thousands of records for one.
                    if std::mem::take(&mut is_single) && self.is_known(partition, from_offset) {
                        let record = self.single.read(&self.shared.full, partition, from_offset).await;
                        if let Some(record) = record {
                            return Ok(vec![record]);
                        }
                    }
                    self.place(partition, from_offset)?;
                    continue;
                }
            };
            let now = Instant::now();
            let until = match last_end {
                _ if now < deadline => deadline,
                None => {
                    last_end = Some(self.bounds_around(partition, from_offset).await?.end);
                    continue;
                }
                Some(end) if come >= end => return Ok(Vec::new()),
                Some(end) if now >= fetch_deadline => return Err(self.overdue(partition, come, end)),
                Some(_) => fetch_deadline,
            };
            let _ = tokio::time::timeout_at(until.min(now + LOOK_AGAIN), arrived).await;
        }
    }

    fn overdue(&self, partition: u32, come: u64, end: u64) -> LogError {
        LogError::Storage(format!(
            "reading {}/{partition}: the broker says it reaches {end}, but has sent nothing from {come} on for {} s",
            self.shared.full,
            self.config.request_deadline().as_secs()
        ))
    }

    pub(super) async fn wait_for_any(&self, from: &[Position], wait: Duration) -> Result<Vec<u32>, LogError> {
        for position in from {
            self.check(position.partition)?;
        }
        let deadline = Instant::now() + wait.min(MAX_WAIT);
        loop {
            let arrived = self.shared.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            self.check_open()?;
            let mut ready = Vec::new();
            let mut placed = false;
            for (position, place) in from.iter().zip(self.look(from)) {
                let is_ready = match place {
                    Place::Ready => true,
                    Place::Waiting => false,
                    Place::Nowhere => match self.begin(*position).await {
                        // Reading it says so.
                        Err(LogError::OffsetOutOfRange { .. }) => true,
                        Err(error) => return Err(error),
                        Ok(()) => {
                            placed = true;
                            false
                        }
                    },
                };
                if is_ready {
                    ready.push(position.partition);
                }
            }
            let now = Instant::now();
            if !ready.is_empty() || now >= deadline {
                return Ok(ready);
            }
            if !placed {
                let _ = tokio::time::timeout_at(deadline.min(now + LOOK_AGAIN), arrived).await;
            }
        }
    }

    /// Where readers at these places stand; the windows they use stay.
    fn look(&self, from: &[Position]) -> Vec<Place> {
        let mut windows = self.shared.windows();
        let mut place = |position: &Position| {
            let covering = windows
                .iter_mut()
                .filter_map(|cursor| cursor[position.partition as usize].as_mut())
                .filter(|window| window.covers(position.offset));
            let Some(window) = covering.max_by_key(|window| window.has(position.offset)) else {
                return Place::Nowhere;
            };
            window.last_used = Instant::now();
            if window.has(position.offset) {
                return Place::Ready;
            }
            // What came before and nobody wants must not hold back what comes next.
            window.read(position.offset, 0);
            Place::Waiting
        };
        from.iter().map(&mut place).collect()
    }

    async fn begin(&self, position: Position) -> Result<(), LogError> {
        if !self.is_known(position.partition, position.offset) {
            self.bounds_around(position.partition, position.offset).await?;
        }
        self.place(position.partition, position.offset)
    }

    fn find(&self, partition: u32, offset: u64, max_records: usize) -> Found {
        let mut windows = self.shared.windows();
        let mut found = Found::Nowhere;
        for window in windows.iter_mut().filter_map(|cursor| cursor[partition as usize].as_mut()) {
            if !window.covers(offset) {
                continue;
            }
            window.last_used = Instant::now();
            let records = window.read(offset, max_records);
            if !records.is_empty() {
                return Found::Records(records);
            }
            found = Found::NoneBefore(window.next());
        }
        found
    }

    /// Whether the offset was seen to be there. If retention has taken it since, its cursor finds out.
    fn is_known(&self, partition: u32, offset: u64) -> bool {
        let Some(known) = self.shared.known()[partition as usize] else { return false };
        let come = |cursor: &Vec<Option<Window>>| {
            cursor[partition as usize].as_ref().is_some_and(|window| window.next() > offset)
        };
        offset >= known.start && (offset < known.end || self.shared.windows().iter().any(come))
    }

    /// Has a window begin at an offset: in a cursor that has none of the partition, else in a new one, else in
    /// place of the window that was used the longest ago.
    fn place(&self, partition: u32, offset: u64) -> Result<(), LogError> {
        let mut cursors = self.cursors();
        let cursors = cursors.as_mut().ok_or(LogError::Closed)?;
        let at = partition as usize;
        let chosen = {
            let mut windows = self.shared.windows();
            if windows.iter().any(|cursor| cursor[at].as_ref().is_some_and(|w| w.covers(offset))) {
                return Ok(());
            }
            let oldest =
                (0..windows.len()).min_by_key(|&number| windows[number][at].as_ref().map(|w| w.last_used));
            let free = oldest.filter(|&number| {
                let window = windows[number][at].as_ref();
                windows.len() >= CURSORS_MAX || window.is_none_or(|w| w.last_used.elapsed() > IN_USE)
            });
            let number = free.unwrap_or_else(|| {
                windows.push((0..self.shared.partitions).map(|_| None).collect());
                windows.len() - 1
            });
            windows[number][at] = Some(Window::at(offset));
            number
        };
        while cursors.len() <= chosen {
            let number = cursors.len();
            let pulse = self.metrics.polls.watch();
            cursors.push(Cursor::start(&self.config, number, Arc::clone(&self.shared), pulse)?);
        }
        cursors[chosen].wake();
        Ok(())
    }
}

/// Where a reader stands.
enum Place {
    Ready,
    Waiting,
    Nowhere,
}
