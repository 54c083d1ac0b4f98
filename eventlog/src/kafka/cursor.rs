//! One consumer of one topic, on an OS thread of its own, that fills windows.
//!
//! The thread alone touches the consumer. Readers leave what they want in the windows, and the thread comes
//! round every few milliseconds: it takes the consumer to where windows are to begin, holds partitions back
//! whose windows are full, and lets go of those that nobody reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::{Offset, TopicPartitionList};

use super::client::{self, Logs};
use super::config::KafkaConfig;
use super::metrics::Pulse;
use super::reader::Shared;
use super::window::{Limits, Window};
use crate::{LogError, LoggedRecord};

/// How long the thread waits for records before it looks at what readers want.
const ROUND: Duration = Duration::from_millis(10);
/// How long it sleeps when there is nothing to read at all; a reader wakes it.
const IDLE_ROUND: Duration = Duration::from_secs(1);
/// Records taken from librdkafka before readers get them.
const BATCH_RECORDS: usize = 1_024;
/// A window that nobody has asked for anything for so long is given up.
const UNUSED: Duration = Duration::from_secs(60);

/// The readers' end of a cursor.
#[derive(Debug)]
pub(super) struct Cursor {
    wanted: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: Thread,
}

impl Cursor {
    /// Starts the thread of cursor `number`.
    pub(super) fn start(
        config: &KafkaConfig,
        number: usize,
        shared: Arc<Shared>,
        pulse: Arc<Pulse>,
    ) -> Result<Self, LogError> {
        let failed = |e| client::storage("making a Kafka consumer")(e);
        let consumer: BaseConsumer<Logs> = settings(config).create_with_context(Logs).map_err(failed)?;
        let (wanted, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let limits = Limits { records: config.fetch_buffer_records, bytes: config.fetch_buffer_bytes };
        let fetcher = Fetcher {
            partitions: vec![Fetching::No; shared.partitions as usize],
            consumer,
            number,
            shared,
            limits,
            wanted: Arc::clone(&wanted),
            stop: Arc::clone(&stop),
            pulse,
        };
        let handle = std::thread::Builder::new()
            .name("kafka-reader".to_owned())
            .spawn(move || fetcher.run())
            .map_err(|e| LogError::Storage(format!("starting a thread that reads: {e}")))?;
        Ok(Self { wanted, stop, thread: handle.thread().clone() })
    }

    /// Has the thread look at its windows.
    pub(super) fn wake(&self) {
        self.wanted.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.thread.unpark();
    }
}

fn settings(config: &KafkaConfig) -> rdkafka::ClientConfig {
    // Never joined: librdkafka only wants a name.
    let mut settings = client::consumer(config, &config.full("readers"));
    settings
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "error")
        .set("fetch.min.bytes", "1")
        .set("fetch.wait.max.ms", config.fetch_wait_ms.to_string())
        .set("fetch.error.backoff.ms", "50")
        // How soon a partition is fetched again once librdkafka's own queue has room.
        .set("fetch.queue.backoff.ms", "5")
        .set("queued.min.messages", "20000")
        .set("queued.max.messages.kbytes", "8192");
    settings
}

/// What the consumer does about a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fetching {
    No,
    Yes,
    HeldBack,
}

/// What came for a partition.
enum Arrival {
    Record(LoggedRecord),
    /// Everything up to this offset has come.
    End(u64),
}

struct Fetcher {
    consumer: BaseConsumer<Logs>,
    number: usize,
    shared: Arc<Shared>,
    limits: Limits,
    partitions: Vec<Fetching>,
    wanted: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    pulse: Arc<Pulse>,
}

impl Fetcher {
    fn run(mut self) {
        let mut arrivals = Vec::with_capacity(BATCH_RECORDS);
        while !self.stop.load(Ordering::Acquire) {
            self.pulse.beat();
            if self.wanted.swap(false, Ordering::AcqRel) {
                self.follow();
            }
            if self.partitions.iter().all(|&fetching| fetching == Fetching::No) {
                while self.consumer.poll(Duration::ZERO).is_some() {}
                std::thread::park_timeout(IDLE_ROUND);
                continue;
            }
            self.poll(&mut arrivals);
            self.deliver(&mut arrivals);
        }
    }

    /// Takes what there is, or waits for it.
    fn poll(&mut self, arrivals: &mut Vec<(usize, Arrival)>) {
        let mut wait = ROUND;
        while arrivals.len() < BATCH_RECORDS {
            let Some(event) = self.consumer.poll(wait) else { return };
            wait = Duration::ZERO;
            match event {
                Ok(message) => {
                    if let Ok(partition) = usize::try_from(message.partition()) {
                        arrivals.push((partition, Arrival::Record(to_record(&message))));
                    }
                }
                Err(KafkaError::PartitionEOF(partition)) => {
                    let end = self.position(partition);
                    if let (Ok(partition), Some(end)) = (usize::try_from(partition), end) {
                        arrivals.push((partition, Arrival::End(end)));
                    }
                }
                Err(error) => self.failed(&error),
            }
        }
    }

    /// What comes next of a partition, past records of transactions' ends, which readers never see.
    fn position(&self, partition: i32) -> Option<u64> {
        let positions = self.consumer.position().ok()?;
        match positions.find_partition(&self.shared.full, partition)?.offset() {
            Offset::Offset(offset) => u64::try_from(offset).ok(),
            _ => None,
        }
    }

    fn failed(&self, error: &KafkaError) {
        use RDKafkaErrorCode::{AutoOffsetReset, OffsetOutOfRange};
        let topic = self.shared.topic;
        if let Some(AutoOffsetReset | OffsetOutOfRange) = error.rdkafka_error_code() {
            // It does not say which partition: every reader finds out for itself.
            tracing::warn!(topic, %error, "an offset is not kept any more: all readers look again");
            self.shared.doubt(self.number);
            self.wanted.store(true, Ordering::Release);
        } else {
            tracing::warn!(topic, %error, "reading from Kafka: it is tried again");
        }
    }

    /// Puts what came into the windows, and holds partitions back or goes on with them.
    fn deliver(&mut self, arrivals: &mut Vec<(usize, Arrival)>) {
        let anything = !arrivals.is_empty();
        let mut records = 0;
        let changes = {
            let mut windows = self.shared.windows();
            let windows = &mut windows[self.number];
            for (partition, arrival) in arrivals.drain(..) {
                let Some(Some(window)) = windows.get_mut(partition) else { continue };
                if window.moving {
                    continue;
                }
                match arrival {
                    Arrival::Record(record) => {
                        window.push(record);
                        records += 1;
                    }
                    Arrival::End(offset) => window.reach(offset),
                }
            }
            self.overdue(windows)
        };
        if records > 0 {
            self.shared.fetched.inc_by(records);
        }
        // Also for an end that was reached: a reader may wait for nothing but to know that.
        if anything {
            self.shared.arrived.notify_waiters();
        }
        for (partition, fetching) in changes {
            self.hold(partition, fetching);
        }
    }

    /// Which partitions are to be held back, and which to go on; gives up windows that nobody uses.
    fn overdue(&self, windows: &mut [Option<Window>]) -> Vec<(usize, Fetching)> {
        let mut changes = Vec::new();
        for (partition, (window, fetching)) in windows.iter_mut().zip(&self.partitions).enumerate() {
            let Some(kept) = window else { continue };
            if kept.last_used.elapsed() > UNUSED {
                *window = None;
                self.wanted.store(true, Ordering::Release);
                continue;
            }
            match fetching {
                Fetching::Yes if kept.is_full(self.limits) => changes.push((partition, Fetching::HeldBack)),
                Fetching::HeldBack if kept.is_half_empty(self.limits) => {
                    changes.push((partition, Fetching::Yes));
                }
                _ => {}
            }
        }
        changes
    }

    fn hold(&mut self, partition: usize, fetching: Fetching) {
        let list = self.list(partition, None);
        let held = match fetching {
            Fetching::HeldBack => self.consumer.pause(&list),
            _ => self.consumer.resume(&list),
        };
        match held {
            Ok(()) => self.partitions[partition] = fetching,
            Err(error) => tracing::warn!(topic = self.shared.topic, %error, "holding a partition back"),
        }
    }

    /// Takes the consumer to where windows are to begin, and away from where there is none.
    fn follow(&mut self) {
        for partition in 0..self.partitions.len() {
            let target = match &self.shared.windows()[self.number][partition] {
                None => None,
                Some(window) if window.moving => Some(window.next()),
                Some(_) => continue,
            };
            if let Err(error) = self.go(partition, target) {
                tracing::warn!(topic = self.shared.topic, partition, %error, "moving a reader: it is tried again");
                self.wanted.store(true, Ordering::Release);
                continue;
            }
            if let (Some(target), Some(window)) = (target, &mut self.shared.windows()[self.number][partition])
            {
                // Another reader may have wanted it elsewhere meanwhile: then this comes round again.
                window.moving = window.next() != target;
            }
        }
    }

    /// What comes from the consumer after this is from the new place: this thread alone takes from it, and
    /// librdkafka drops what it had queued of a partition when that is taken off.
    fn go(&mut self, partition: usize, target: Option<u64>) -> KafkaResult<()> {
        if self.partitions[partition] != Fetching::No {
            let list = self.list(partition, None);
            if self.partitions[partition] == Fetching::HeldBack {
                self.consumer.resume(&list)?;
            }
            self.consumer.incremental_unassign(&list)?;
            self.partitions[partition] = Fetching::No;
        }
        if let Some(target) = target {
            self.consumer.incremental_assign(&self.list(partition, Some(target)))?;
            self.partitions[partition] = Fetching::Yes;
            self.shared.moves.inc();
        }
        Ok(())
    }

    fn list(&self, partition: usize, offset: Option<u64>) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(1);
        let mut element = list.add_partition(&self.shared.full, i32::try_from(partition).unwrap_or(i32::MAX));
        if let Some(offset) = offset.and_then(|offset| i64::try_from(offset).ok()) {
            // Fails for offsets that mean something else only, and those are negative.
            let _ = element.set_offset(Offset::Offset(offset));
        }
        list
    }
}

pub(super) fn to_record(message: &BorrowedMessage<'_>) -> LoggedRecord {
    let (key, value) = (message.key().unwrap_or_default(), message.payload().unwrap_or_default());
    // One allocation for both.
    let mut both = BytesMut::with_capacity(key.len() + value.len());
    both.extend_from_slice(key);
    both.extend_from_slice(value);
    let mut both = both.freeze();
    let value = both.split_off(key.len());
    let headers = message.headers().map_or_else(Vec::new, |headers| {
        let owned = |header: rdkafka::message::Header<'_, &[u8]>| {
            (header.key.to_owned(), Bytes::copy_from_slice(header.value.unwrap_or_default()))
        };
        headers.iter().map(owned).collect()
    });
    LoggedRecord {
        offset: u64::try_from(message.offset()).unwrap_or_default(),
        key: both,
        value,
        headers,
        timestamp_ms: message.timestamp().to_millis().unwrap_or_default(),
    }
}
