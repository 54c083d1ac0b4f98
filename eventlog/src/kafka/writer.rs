//! Writers: transactions, and fencing by the broker.
//!
//! A commit is acknowledged before its markers are in the partitions, and until they are, the same
//! transactional id cannot begin again: the broker says so, and librdkafka asks again after 20 ms. So a writer
//! has several ids and takes them in turn. Who takes a writer's place initialises all of them, and has the
//! place once it has the first: nobody appends with the others who has not appended with that one before.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{Producer as _, ThreadedProducer};
use tokio::sync::oneshot;

use super::appender::{self, Topics};
use super::client;
use super::config::KafkaConfig;
use super::delivery::{Completion, Deliveries};
use super::metrics::Metrics;
use crate::{LogError, NewRecord, Position, Writer};

/// How many transactional ids a writer takes in turn.
const IDS: usize = 3;
/// After its last report a record is off librdkafka's count within microseconds; asked that often.
const COUNT_RETRY: Duration = Duration::from_micros(20);
const COUNT_DEADLINE: Duration = Duration::from_secs(1);
/// Between two tries of what librdkafka says may be tried again.
const RETRY: Duration = Duration::from_millis(20);
/// One append at a time, so one request waits at the most.
const REQUESTS: usize = 1;

/// What writers are made with.
#[derive(Clone)]
pub(super) struct Writers {
    pub(super) config: Arc<KafkaConfig>,
    pub(super) topics: Arc<Topics>,
    pub(super) metrics: Arc<Metrics>,
}

impl Writers {
    /// Becomes the writer of a name: shuts out the one before, and waits until all it wrote is decided.
    pub(super) async fn replace(&self, name: &str) -> Result<KafkaWriter, LogError> {
        let (this, owned) = (self.clone(), name.to_owned());
        let what = format!("becoming the writer `{name}`");
        // What is open in the former writer's name is waited for as well.
        let deadline = 3 * self.config.request_deadline() + self.config.append_deadline();
        let requests = client::blocking(&what, deadline, move || this.start(&owned)).await?;
        Ok(KafkaWriter { requests })
    }

    fn start(&self, name: &str) -> Result<SyncSender<Request>, LogError> {
        let deadline = Instant::now() + 3 * self.config.request_deadline();
        let ids = (0..IDS).map(|number| self.initialise(name, number, deadline));
        let ids = ids.collect::<Result<Vec<_>, _>>()?;
        let (requests, inbox) = std::sync::mpsc::sync_channel(REQUESTS);
        let thread = WriterThread { name: name.to_owned(), ids, turn: 0, end: None, with: self.clone() };
        std::thread::Builder::new()
            .name("kafka-writer".to_owned())
            .spawn(move || thread.run(&inbox))
            .map_err(|e| LogError::Storage(format!("starting the thread of the writer `{name}`: {e}")))?;
        Ok(requests)
    }

    fn initialise(
        &self,
        name: &str,
        number: usize,
        deadline: Instant,
    ) -> Result<ThreadedProducer<Deliveries>, LogError> {
        let config = &self.config;
        let what = format!("becoming the writer `{name}`");
        let mut settings = client::producer(config);
        settings
            .set("transactional.id", format!("{}-{number}", config.full(name)))
            .set("transaction.timeout.ms", config.transaction_timeout_ms.to_string())
            .set(
                "delivery.timeout.ms",
                (config.append_deadline_ms * 9 / 10).min(config.transaction_timeout_ms).to_string(),
            )
            // All records of a transaction are there at once: there is nothing to wait for.
            .set("linger.ms", "0");
        let producer: ThreadedProducer<Deliveries> =
            settings.create_with_context(Deliveries).map_err(client::storage(&what))?;
        loop {
            match producer.init_transactions(deadline.saturating_duration_since(Instant::now())) {
                Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < deadline => {
                    client::pause(RETRY);
                }
                result => return result.map(|()| producer).map_err(client::storage(&what)),
            }
        }
    }
}

/// A writer; its transactions run on a thread of their own, as librdkafka's calls block.
pub(super) struct KafkaWriter {
    requests: SyncSender<Request>,
}

struct Request {
    records: Vec<NewRecord>,
    reply: oneshot::Sender<Result<Vec<Position>, LogError>>,
}

#[async_trait]
impl Writer for KafkaWriter {
    async fn append(&mut self, records: Vec<NewRecord>) -> Result<Vec<Position>, LogError> {
        if records.is_empty() {
            return Ok(Vec::new());
        }
        let (reply, answer) = oneshot::channel();
        // Full when the caller before went away and its transaction still runs.
        self.requests.try_send(Request { records, reply }).map_err(|error| match error {
            std::sync::mpsc::TrySendError::Full(_) => LogError::Full,
            std::sync::mpsc::TrySendError::Disconnected(_) => LogError::Closed,
        })?;
        // The thread answers: everything it does has a deadline.
        answer.await.unwrap_or(Err(LogError::Closed))
    }
}

struct WriterThread {
    name: String,
    ids: Vec<ThreadedProducer<Deliveries>>,
    turn: usize,
    /// Why this writer appends nothing more.
    end: Option<LogError>,
    with: Writers,
}

impl WriterThread {
    fn run(mut self, inbox: &Receiver<Request>) {
        while let Ok(Request { records, reply }) = inbox.recv() {
            let result = self.append(&records);
            // Whoever waited may have gone away: the transaction stands all the same.
            let _ = reply.send(result);
        }
    }

    fn append(&mut self, records: &[NewRecord]) -> Result<Vec<Position>, LogError> {
        if let Some(end) = &self.end {
            return Err(end.clone());
        }
        appender::check(&self.with.topics, records, self.with.config.max_record_bytes)?;
        let started = Instant::now();
        let positions = match self.transaction(records) {
            Ok(positions) => positions,
            Err(Failure::NotWritten(reason)) => {
                return Err(LogError::NotWritten(format!("as `{}`: {reason}", self.name)));
            }
            Err(Failure::Fenced) => return Err(self.stop(LogError::Fenced(self.name.clone()))),
            Err(Failure::Unknown(reason)) => {
                let reason = format!(
                    "appending as `{}`: {reason}: whether it was written is known once the writer is made anew",
                    self.name
                );
                return Err(self.stop(LogError::Storage(reason)));
            }
        };
        self.turn = (self.turn + 1) % self.ids.len();
        let metrics = &self.with.metrics;
        metrics.transaction_seconds.observe(started.elapsed().as_secs_f64());
        appender::count_records(metrics, records);
        Ok(positions)
    }

    fn stop(&mut self, reason: LogError) -> LogError {
        self.end = Some(reason.clone());
        reason
    }

    fn transaction(&self, records: &[NewRecord]) -> Result<Vec<Position>, Failure> {
        let producer = &self.ids[self.turn];
        let deadline = Instant::now() + self.with.config.append_deadline();
        producer.begin_transaction().map_err(|error| Failure::of(producer, &error))?;
        let (completion, answer) = Completion::new(records.len(), None);
        appender::send(producer, &self.with.topics, records, &completion);
        drop(completion);
        // Each record has its delivery timeout, so the answer comes.
        let delivered = answer.blocking_recv().unwrap_or(Err(KafkaError::Canceled));
        let positions = delivered.map_err(|error| self.abort(producer, &error))?;
        settle(producer);
        loop {
            match producer.commit_transaction(deadline.saturating_duration_since(Instant::now())) {
                Ok(()) => return Ok(positions),
                Err(KafkaError::Transaction(error)) if error.txn_requires_abort() => {
                    return Err(self.abort(producer, &KafkaError::Transaction(error)));
                }
                Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < deadline => {
                    client::pause(RETRY);
                }
                Err(error) => return Err(Failure::of(producer, &error)),
            }
        }
    }

    /// Takes the open transaction back after an error.
    fn abort(&self, producer: &ThreadedProducer<Deliveries>, cause: &KafkaError) -> Failure {
        if let Failure::Fenced = Failure::of(producer, cause) {
            return Failure::Fenced;
        }
        let deadline = Instant::now() + self.with.config.append_deadline();
        settle(producer);
        loop {
            match producer.abort_transaction(deadline.saturating_duration_since(Instant::now())) {
                Ok(()) => return Failure::NotWritten(client::explain(cause)),
                Err(KafkaError::Transaction(error)) if error.is_retriable() && Instant::now() < deadline => {
                    client::pause(RETRY);
                }
                Err(error) => {
                    return match Failure::of(producer, &error) {
                        // Nobody commits it any more: the broker aborts what is left open.
                        Failure::Unknown(reason) => Failure::Unknown(format!(
                            "{}, and taking it back failed: {reason}",
                            client::explain(cause)
                        )),
                        other => other,
                    };
                }
            }
        }
    }
}

/// Waits until librdkafka has taken all records off its count: before that, its commit and abort wait for a
/// tenth of a second.
fn settle(producer: &ThreadedProducer<Deliveries>) {
    let started = Instant::now();
    while producer.in_flight_count() > 0 && started.elapsed() < COUNT_DEADLINE {
        client::pause(COUNT_RETRY);
    }
}

/// Why a transaction came to nothing.
enum Failure {
    /// It was taken back: nothing was written.
    NotWritten(String),
    /// Another has this writer's place: nothing was written.
    Fenced,
    /// It may have been committed.
    Unknown(String),
}

impl Failure {
    fn of(producer: &ThreadedProducer<Deliveries>, error: &KafkaError) -> Self {
        let fatal = producer.client().fatal_error().map(|(code, _)| code);
        let code = match error {
            KafkaError::Transaction(error) => Some(error.code()),
            error => error.rdkafka_error_code(),
        };
        if [code, fatal].into_iter().flatten().any(is_fenced) {
            return Self::Fenced;
        }
        Self::Unknown(client::explain(error))
    }
}

fn is_fenced(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::Fenced | RDKafkaErrorCode::ProducerFenced | RDKafkaErrorCode::InvalidProducerEpoch
    )
}
