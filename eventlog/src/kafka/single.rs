//! Single records from anywhere in the log, as questions about one transaction ask for: a consumer that
//! fetches little, and nothing at all between two questions, so that no fetch under way is in the way.

use std::collections::HashSet;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};
use tokio::sync::oneshot;

use super::client::{self, Logs};
use super::config::KafkaConfig;
use super::cursor::to_record;
use crate::{LogError, LoggedRecord};

/// Questions that wait. Those past it are answered by a reader that fetches more.
const QUESTIONS: usize = 256;
/// Questions answered at a time, each about another partition.
const ROUND: usize = 32;
/// A question that is not answered within this goes to a reader that fetches more.
const DEADLINE: Duration = Duration::from_secs(1);
/// How long the thread waits at a time.
const WAIT: Duration = Duration::from_millis(20);
/// Without questions for so long, it ends, and its connections with it.
const IDLE: Duration = Duration::from_secs(60);
/// A fetch brings one batch at the least, whatever its size.
const FETCH_BYTES: &str = "16384";

/// Reads single records.
pub(super) struct Single {
    config: Arc<KafkaConfig>,
    questions: Mutex<Option<SyncSender<Question>>>,
}

struct Question {
    topic: String,
    partition: u32,
    offset: u64,
    asked: Instant,
    answer: oneshot::Sender<LoggedRecord>,
}

impl Single {
    pub(super) fn new(config: Arc<KafkaConfig>) -> Self {
        Self { config, questions: Mutex::default() }
    }

    /// The first record at or past an offset that is known to lie before the end; `None` when it could not be
    /// had this way.
    pub(super) async fn read(&self, topic: &str, partition: u32, offset: u64) -> Option<LoggedRecord> {
        let (answer, answered) = oneshot::channel();
        let question = Question { topic: topic.to_owned(), partition, offset, asked: Instant::now(), answer };
        self.ask(question).ok()?;
        tokio::time::timeout(DEADLINE, answered).await.ok()?.ok()
    }

    fn ask(&self, question: Question) -> Result<(), LogError> {
        use std::sync::mpsc::TrySendError::{Disconnected, Full};
        let mut questions = self.questions.lock().unwrap_or_else(PoisonError::into_inner);
        let question = match &*questions {
            None => question,
            Some(sender) => match sender.try_send(question) {
                Ok(()) => return Ok(()),
                Err(Full(_)) => return Err(LogError::Full),
                // It had nothing to do, and ended.
                Err(Disconnected(question)) => question,
            },
        };
        let sender = self.start()?;
        sender.try_send(question).map_err(|_| LogError::Full)?;
        *questions = Some(sender);
        Ok(())
    }

    fn start(&self) -> Result<SyncSender<Question>, LogError> {
        let mut settings = client::consumer(&self.config, &self.config.full("readers"));
        settings
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("fetch.min.bytes", "1")
            .set("fetch.wait.max.ms", "10")
            .set("fetch.message.max.bytes", FETCH_BYTES)
            .set("fetch.queue.backoff.ms", "10")
            .set("queued.min.messages", "1");
        let consumer = settings
            .create_with_context(Logs)
            .map_err(client::storage("making a Kafka consumer for single records"))?;
        let (sender, inbox) = std::sync::mpsc::sync_channel(QUESTIONS);
        std::thread::Builder::new()
            .name("kafka-single".to_owned())
            .spawn(move || run(&consumer, &inbox))
            .map_err(|e| LogError::Storage(format!("starting a thread that reads: {e}")))?;
        Ok(sender)
    }

    pub(super) fn close(&self) {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

fn run(consumer: &BaseConsumer<Logs>, inbox: &Receiver<Question>) {
    let mut waiting: Vec<Question> = Vec::new();
    loop {
        if waiting.is_empty() {
            match inbox.recv_timeout(IDLE) {
                Ok(question) => waiting.push(question),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
            }
        }
        waiting.extend(inbox.try_iter().take(QUESTIONS));
        waiting.retain(|question| question.asked.elapsed() < DEADLINE && !question.answer.is_closed());
        let mut taken = HashSet::new();
        let (now, later) = waiting.into_iter().partition(|question| {
            taken.len() < ROUND && taken.insert((question.topic.clone(), question.partition))
        });
        waiting = later;
        if let Err(error) = answer(consumer, now) {
            tracing::warn!(%error, "reading single records");
        }
    }
}

/// Answers questions, each about another partition.
fn answer(consumer: &BaseConsumer<Logs>, mut questions: Vec<Question>) -> KafkaResult<()> {
    let mut list = TopicPartitionList::with_capacity(questions.len());
    for question in &questions {
        let partition = i32::try_from(question.partition).unwrap_or(i32::MAX);
        let offset = Offset::Offset(i64::try_from(question.offset).unwrap_or(i64::MAX));
        list.add_partition_offset(&question.topic, partition, offset)?;
    }
    consumer.assign(&list)?;
    while !questions.is_empty() {
        match consumer.poll(WAIT) {
            Some(Ok(message)) => {
                let is_about = |question: &Question| {
                    question.topic == message.topic()
                        && i32::try_from(question.partition) == Ok(message.partition())
                        && i64::try_from(question.offset).is_ok_and(|offset| message.offset() >= offset)
                };
                if let Some(at) = questions.iter().position(is_about) {
                    // Whoever asked may have gone away.
                    let _ = questions.swap_remove(at).answer.send(to_record(&message));
                }
            }
            // Only ends of transactions are left of it, which is for another reader to find out.
            Some(Err(KafkaError::PartitionEOF(ended))) => {
                questions.retain(|question| i32::try_from(question.partition) != Ok(ended));
            }
            // So is which partition is gone or cannot be reached.
            Some(Err(error)) => {
                tracing::debug!(%error, "a single record is not to be had");
                break;
            }
            None => {}
        }
        questions.retain(|question| question.asked.elapsed() < DEADLINE && !question.answer.is_closed());
    }
    consumer.unassign()
}
