//! One worker per receiver: takes what is due from the store, attempts it, and notes what came of it.
//!
//! At least once: a message that was sent but not noted before a crash is sent again, one per receiver.
//! What cannot be delivered now stays in the queue on disk for as long as it takes.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use backon::{BackoffBuilder as _, ExponentialBuilder};
use fjall::PersistMode;
use runtime::scope::{self, Scope};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::RetryConfig;
use crate::group::GroupId;
use crate::metrics::Metrics;
use crate::pace::Pace;
use crate::receiver::{Failure, Notice, Receiver};
use crate::store::{Delivery, Store, StoreError};
use crate::story::Story;
use crate::trace;

/// With nothing due, the queue is looked at this often even if no one says that something came.
const IDLE_CHECK: Duration = Duration::from_secs(30);
/// How many messages get a last attempt when stopping: the rest waits on disk for the next start.
const LAST_ATTEMPTS_MAX: usize = 1_000;
/// Doublings after which the longest delay is reached whatever the configuration says.
const DOUBLINGS_MAX: u32 = 24;

/// Runs work that reads or writes the store where blocking is allowed.
pub(crate) async fn on_store<T: Send + 'static>(
    store: &Arc<Store>,
    work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
) -> anyhow::Result<T> {
    let store = Arc::clone(store);
    Ok(tokio::task::spawn_blocking(move || work(&store))
        .await
        .context("work on the alerter's store panicked")??)
}

/// Milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The wait after so many failures in a row: doubled from the shortest to the longest, with jitter.
pub(crate) fn backoff(retry: &RetryConfig, failures: u32) -> Duration {
    let max = Duration::from_millis(retry.max_delay_ms);
    let doubled = usize::try_from(failures.saturating_sub(1).min(DOUBLINGS_MAX)).unwrap_or(0);
    ExponentialBuilder::new()
        .with_jitter()
        .with_min_delay(Duration::from_millis(retry.min_delay_ms))
        .with_max_delay(max)
        .without_max_times()
        .build()
        .nth(doubled)
        .unwrap_or(max)
}

/// How stopping is announced to the workers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stop {
    /// Nothing more will be recorded: attempt what is left once, then end.
    pub(crate) last_attempts: CancellationToken,
    /// Time is up: break off.
    pub(crate) now: CancellationToken,
}

/// What came of an attempt.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    /// The receiver is better left alone for now.
    Paused,
}

/// Delivers to one receiver, one message at a time.
pub(crate) struct Worker {
    pub(crate) name: String,
    pub(crate) receiver: Receiver,
    pub(crate) pace: Pace,
    pub(crate) store: Arc<Store>,
    pub(crate) retry: RetryConfig,
    pub(crate) wake: Arc<Notify>,
    pub(crate) metrics: Metrics,
    pub(crate) stop: Stop,
    pub(crate) failures_in_a_row: u32,
    /// After a failure: no attempt before this, except the last ones when stopping.
    pub(crate) not_before: Instant,
}

impl Worker {
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        while !self.stop.last_attempts.is_cancelled() {
            let name = self.name.clone();
            let next = on_store(&self.store, move |store| store.next_pending(&name, now_ms())).await?;
            let wait = next.map_or(IDLE_CHECK, |pending| {
                let until_due = Duration::from_millis(pending.at_ms.saturating_sub(now_ms()));
                let now = Instant::now();
                until_due.max(self.pace.wait(now)).max(self.not_before.saturating_duration_since(now))
            });
            match next {
                Some(pending) if wait.is_zero() => {
                    self.attempt(pending.group).await?;
                }
                _ => tokio::select! {
                    () = self.stop.last_attempts.cancelled() => {}
                    () = self.wake.notified() => {}
                    () = tokio::time::sleep(wait.min(IDLE_CHECK)) => {}
                },
            }
        }
        self.attempt_all_once().await
    }

    /// The last attempts: each message that waits, until time is up or the receiver fails.
    async fn attempt_all_once(&mut self) -> anyhow::Result<()> {
        let name = self.name.clone();
        let waiting = on_store(&self.store, move |store| store.all_pending(&name, LAST_ATTEMPTS_MAX)).await?;
        for pending in waiting {
            tokio::select! {
                biased;
                () = self.stop.now.cancelled() => break,
                () = tokio::time::sleep(self.pace.wait(Instant::now())) => {}
            }
            if self.attempt(pending.group).await? == Outcome::Paused {
                break;
            }
        }
        let name = self.name.clone();
        let left = on_store(&self.store, move |store| store.pending_count(&name)).await?;
        if left > 0 {
            tracing::warn!(
                receiver = self.name,
                messages = left,
                "kept for the next start: not delivered yet"
            );
        }
        Ok(())
    }

    async fn attempt(&mut self, id: GroupId) -> anyhow::Result<Outcome> {
        let name = self.name.clone();
        let Some((story, delivery)) = on_store(&self.store, move |store| store.load(id, &name)).await? else {
            let name = self.name.clone();
            on_store(&self.store, move |store| store.drop_pending(id, &name)).await?;
            return Ok(Outcome::Done);
        };
        let contexts = trace::contexts(&story, delivery.delivered_count);
        let mut spans = trace::Attempt::begin(&contexts, &story, &self.name, delivery.attempts);
        let transaction_id = match &story {
            Story::Fraud(group) => Some(group.worst.transaction_id.to_string().into()),
            Story::Incident(_) => None,
        };
        let scope = Scope { request_id: None, trace: contexts.last().copied(), transaction_id };
        scope::within(scope, self.call(story, delivery, &mut spans)).await
    }

    async fn call(
        &mut self,
        story: Story,
        delivery: Delivery,
        spans: &mut trace::Attempt,
    ) -> anyhow::Result<Outcome> {
        let id = story.id();
        let notice = Notice { story, editable: delivery.editable(), update: delivery.delivered_count > 0 };
        let started = Instant::now();
        let result = tokio::select! {
            result = self.receiver.deliver(&notice) => result,
            () = self.stop.now.cancelled() => Err(Failure::Retry("broken off: stopping".to_owned())),
        };
        spans.called(&result);
        self.pace.called(Instant::now());
        self.metrics
            .delivery_seconds
            .with_label_values(&[&self.name])
            .observe(started.elapsed().as_secs_f64());
        match result {
            Ok(message_id) => self.delivered(&notice, message_id).await,
            Err(failure) => self.failed(id, delivery.attempts, failure).await,
        }
    }

    async fn delivered(&mut self, notice: &Notice, message_id: Option<i64>) -> anyhow::Result<Outcome> {
        self.failures_in_a_row = 0;
        self.count(if notice.update { "updated" } else { "sent" });
        // A console line said twice after a power cut harms nobody; a message is worth an fsync.
        let persist = match self.receiver {
            Receiver::Console => PersistMode::Buffer,
            Receiver::Telegram(_) | Receiver::Webhook(_) => PersistMode::SyncAll,
        };
        let (id, count, name) = (notice.story.id(), notice.story.count(), self.name.clone());
        on_store(&self.store, move |store| store.delivered(id, &name, count, message_id, now_ms(), persist))
            .await?;
        Ok(Outcome::Done)
    }

    async fn failed(&mut self, id: GroupId, attempts: u32, failure: Failure) -> anyhow::Result<Outcome> {
        let name = self.name.clone();
        match failure {
            Failure::Wait(wait) => {
                self.count("throttled");
                tracing::warn!(
                    receiver = name,
                    wait_ms = wait.as_millis(),
                    "asked to wait: no calls until then"
                );
                self.pace.pause(Instant::now(), wait);
                Ok(Outcome::Paused)
            }
            Failure::Retry(error) => {
                self.count("failed");
                self.failures_in_a_row = self.failures_in_a_row.saturating_add(1);
                self.not_before = Instant::now() + backoff(&self.retry, self.failures_in_a_row);
                // The message's own wait grows apart from the receiver's, so that one message that always
                // fails does not hold up the others.
                let wait = backoff(&self.retry, attempts.saturating_add(1));
                tracing::warn!(receiver = name, group = %id, error, "not delivered, will be tried again");
                let at_ms = now_ms() + u64::try_from(wait.as_millis()).unwrap_or(0);
                on_store(&self.store, move |store| store.retry(id, &name, at_ms, &error)).await?;
                Ok(Outcome::Paused)
            }
            Failure::MessageGone => {
                self.count("failed");
                tracing::warn!(receiver = name, group = %id, "the message to update is gone: sending a new one");
                on_store(&self.store, move |store| store.message_gone(id, &name, now_ms())).await?;
                Ok(Outcome::Done)
            }
            Failure::Refused(error) => {
                self.count("refused");
                tracing::error!(
                    receiver = name,
                    group = %id,
                    error,
                    "refused for good: correct the receiver's settings and restart within a day to deliver it"
                );
                on_store(&self.store, move |store| store.refused(id, &name, &error)).await?;
                Ok(Outcome::Done)
            }
        }
    }

    fn count(&self, result: &str) {
        self.metrics.deliveries.with_label_values(&[self.name.as_str(), result]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_with_jitter() {
        let retry = RetryConfig { min_delay_ms: 100, max_delay_ms: 1_000 };
        for (failures, base_ms) in [(1, 100), (2, 200), (4, 800), (9, 1_000), (u32::MAX, 1_000)] {
            let wait = backoff(&retry, failures).as_millis();
            assert!((base_ms..=2 * base_ms).contains(&wait), "{failures}: {wait} ms");
        }
    }
}
