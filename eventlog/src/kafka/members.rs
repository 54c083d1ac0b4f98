//! Membership: the partitions of a topic that holds nothing are the parts, shared out cooperatively.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientContext, Offset, TopicPartitionList};
use tokio::sync::{mpsc, oneshot};

use super::client;
use super::config::KafkaConfig;
use super::metrics::Pulse;
use crate::{Change, LetGo, LogError, Membership};

/// How long the thread waits for something to happen before it looks whether it is to stop.
const ROUND: Duration = Duration::from_millis(100);
/// How often to look, while parts are being let go, whether they were taken already.
const LETTING_GO_ROUND: Duration = Duration::from_millis(20);
/// Changes that wait for the member. More hold the thread up, until it is taken for dead.
const CHANGES: usize = 64;
/// The longest time between two heartbeats.
const HEARTBEAT_MS: u64 = 500;
/// A farewell that the broker does not answer is given up after this.
const LEAVE_DEADLINE: Duration = Duration::from_secs(10);

/// The topic whose partitions are the parts of a group.
pub(super) fn topic(group: &str) -> String {
    format!("members.{group}")
}

/// Joins the members of `topic`, which was seen to exist.
pub(super) fn join(config: &KafkaConfig, topic: &str, pulse: Arc<Pulse>) -> Result<Member, LogError> {
    let (changes, inbox) = mpsc::channel(CHANGES);
    let leaving = Arc::new(AtomicBool::new(false));
    let context = Context {
        changes: changes.clone(),
        leaving: Arc::clone(&leaving),
        let_go_deadline: config.let_go_deadline(),
    };
    let what = format!("joining {topic}");
    let consumer: BaseConsumer<Context> =
        settings(config, topic).create_with_context(context).map_err(client::storage(&what))?;
    consumer.subscribe(&[topic]).map_err(client::storage(&what))?;
    let poller = Poller { consumer, changes, leaving: Arc::clone(&leaving), pulse };
    let thread = std::thread::Builder::new()
        .name("kafka-member".to_owned())
        .spawn(move || poller.run())
        .map_err(|e| LogError::Storage(format!("{what}: starting its thread: {e}")))?;
    Ok(Member { inbox, leaving, thread: Some(thread) })
}

fn settings(config: &KafkaConfig, topic: &str) -> rdkafka::ClientConfig {
    let mut settings = client::consumer(config, topic);
    settings
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", config.session_timeout_ms.to_string())
        // By a heartbeat a member learns that parts are to move, and they stand still until all have.
        .set("heartbeat.interval.ms", (config.session_timeout_ms / 5).min(HEARTBEAT_MS).to_string())
        .set("max.poll.interval.ms", config.max_poll_interval_ms.to_string())
        // There is nothing to fetch.
        .set("fetch.wait.max.ms", "5000")
        .set("socket.timeout.ms", "60000");
    settings
}

/// A place among the members.
pub(super) struct Member {
    inbox: mpsc::Receiver<Result<Change, LogError>>,
    leaving: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[async_trait]
impl Membership for Member {
    async fn changed(&mut self) -> Result<Change, LogError> {
        self.inbox.recv().await.unwrap_or(Err(LogError::Closed))
    }

    async fn leave(mut self: Box<Self>) {
        self.leaving.store(true, Ordering::Release);
        self.inbox.close();
        let Some(thread) = self.thread.take() else { return };
        let left = tokio::task::spawn_blocking(move || thread.join().is_ok());
        if !matches!(tokio::time::timeout(LEAVE_DEADLINE, left).await, Ok(Ok(true))) {
            tracing::warn!("leaving a group: the broker does not answer; it will notice by itself");
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.leaving.store(true, Ordering::Release);
    }
}

struct Poller {
    consumer: BaseConsumer<Context>,
    changes: mpsc::Sender<Result<Change, LogError>>,
    leaving: Arc<AtomicBool>,
    pulse: Arc<Pulse>,
}

impl Poller {
    fn run(self) {
        while !self.leaving.load(Ordering::Acquire) {
            self.pulse.beat();
            let Some(Err(error)) = self.consumer.poll(ROUND) else { continue };
            if let KafkaError::MessageConsumptionFatal(_) = error {
                let error = client::storage("being a member of a group")(error);
                // The member may have gone away.
                let _ = self.changes.blocking_send(Err(error));
                break;
            }
            tracing::warn!(%error, "being a member of a group: it is tried again");
        }
        // Dropping the consumer leaves the group.
    }
}

/// Hears of assignments.
struct Context {
    changes: mpsc::Sender<Result<Change, LogError>>,
    leaving: Arc<AtomicBool>,
    let_go_deadline: Duration,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client::log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        client::log_error(&error, reason);
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, event: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let parts: Vec<u32> =
            list.elements().iter().filter_map(|element| u32::try_from(element.partition()).ok()).collect();
        let result = if event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            self.gain(consumer, list, parts)
        } else {
            self.lose(consumer, parts);
            consumer.incremental_unassign(list)
        };
        if let Err(error) = result {
            tracing::error!(%error, "taking over what the group has decided");
        }
    }
}

impl Context {
    fn tell(&self, change: Change) -> bool {
        !self.leaving.load(Ordering::Acquire) && self.changes.blocking_send(Ok(change)).is_ok()
    }

    fn gain(
        &self,
        consumer: &BaseConsumer<Self>,
        list: &mut TopicPartitionList,
        parts: Vec<u32>,
    ) -> Result<(), KafkaError> {
        list.set_all_offsets(Offset::End)?;
        consumer.incremental_assign(list)?;
        if !parts.is_empty() {
            self.tell(Change::Gained(parts));
        }
        Ok(())
    }

    /// Heartbeats go on by themselves while the member finishes what is under way.
    fn lose(&self, consumer: &BaseConsumer<Self>, parts: Vec<u32>) {
        if parts.is_empty() {
            return;
        }
        if consumer.assignment_lost() {
            self.tell(Change::Lost(parts));
            return;
        }
        let (let_go, mut gone) = oneshot::channel();
        if !self.tell(Change::Losing(parts.clone(), LetGo(let_go))) {
            return;
        }
        let started = Instant::now();
        while let Err(oneshot::error::TryRecvError::Empty) = gone.try_recv() {
            if self.leaving.load(Ordering::Acquire) {
                return;
            }
            if consumer.assignment_lost() || started.elapsed() > self.let_go_deadline {
                tracing::warn!(?parts, "parts were not let go in time: they are taken");
                self.tell(Change::Lost(parts));
                return;
            }
            client::pause(LETTING_GO_ROUND);
        }
    }
}
