//! The bounded queue between those who append and the one thread that writes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prometheus::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::config::EmbeddedLogConfig;
use crate::{LogError, Position};

/// Places in the queue beside those for records: for the few requests of the log itself.
const INTERNAL_REQUESTS: usize = 64;

/// A record on its way: where it goes and its bytes.
pub(super) struct Pending {
    pub(super) topic: usize,
    pub(super) partition: u32,
    pub(super) timestamp_ms: i64,
    pub(super) encoded: Bytes,
}

/// What the writer is asked to do.
pub(super) enum Request {
    /// Append these records, all or none.
    Append { records: Vec<Pending>, reply: oneshot::Sender<Result<Vec<Position>, LogError>>, room: Room },
    /// Remember a group's position.
    Commit { key: Vec<u8>, offset: u64, reply: oneshot::Sender<Result<(), LogError>>, room: Room },
    /// Begin another segment of a topic: all records of the present one are to be removed.
    Roll { topic: usize },
    /// Write what is queued, then stop.
    Close,
}

/// A place in the queue, given back when it is dropped: once the request has been answered.
pub(super) struct Room {
    _records: OwnedSemaphorePermit,
    _bytes: OwnedSemaphorePermit,
    queued: i64,
    gauge: IntGauge,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.gauge.sub(self.queued);
    }
}

/// The end of the queue that requests enter.
pub(super) struct Queue {
    sender: mpsc::Sender<Request>,
    records: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
    max_records: usize,
    max_bytes: usize,
    deadline: Duration,
    gauge: IntGauge,
}

impl Queue {
    pub(super) fn new(config: &EmbeddedLogConfig, gauge: IntGauge) -> (Self, mpsc::Receiver<Request>) {
        let (max_records, max_bytes) = (config.append_queue_records, config.append_queue_bytes);
        let (sender, receiver) = mpsc::channel(max_records + INTERNAL_REQUESTS);
        let queue = Self {
            sender,
            records: Arc::new(Semaphore::new(max_records)),
            bytes: Arc::new(Semaphore::new(max_bytes)),
            max_records,
            max_bytes,
            deadline: config.append_deadline(),
            gauge,
        };
        (queue, receiver)
    }

    /// Waits for room, first come first served. A request larger than the whole queue waits until it is
    /// alone in it.
    pub(super) async fn room(&self, records: usize, bytes: usize) -> Result<Room, LogError> {
        let wanted = |n: usize, max: usize| u32::try_from(n.clamp(1, max)).unwrap_or(u32::MAX);
        let both = async {
            let queued = records;
            let records = self.records.clone().acquire_many_owned(wanted(records, self.max_records)).await;
            let bytes = self.bytes.clone().acquire_many_owned(wanted(bytes, self.max_bytes)).await;
            let (Ok(records), Ok(bytes)) = (records, bytes) else { return Err(LogError::Closed) };
            let queued = i64::try_from(queued).unwrap_or(i64::MAX);
            self.gauge.add(queued);
            Ok(Room { _records: records, _bytes: bytes, queued, gauge: self.gauge.clone() })
        };
        tokio::time::timeout(self.deadline, both).await.unwrap_or(Err(LogError::Full))
    }

    /// Hands a request to the writer. From here on it happens, whether or not anyone waits for it.
    pub(super) fn send(&self, request: Request) -> Result<(), LogError> {
        self.sender.try_send(request).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => LogError::Full,
            mpsc::error::TrySendError::Closed(_) => LogError::Closed,
        })
    }

    /// Refuses new requests and asks the writer to finish those that are in. Returns whether it heard.
    pub(super) fn close(&self) -> bool {
        self.records.close();
        self.bytes.close();
        self.send(Request::Close).is_ok()
    }
}
