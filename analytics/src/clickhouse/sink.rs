//! The service that fills ClickHouse: one process at a time, the others stand by.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use eventlog::{Change, EventLog, LetGo, LogError, Membership};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::config::ClickHouseConfig;
use super::form::{self, Former};
use super::metrics::Metrics;
use super::plan;
use super::queue::Queue;
use super::send::{SendError, Sender, retry_refused};
use super::server::Server;
use super::spool::{self, Spool, Spooled};
use super::{GROUP, WRITER};
use crate::positions::{Positions, TOPICS};

/// How long a batch under way may take when another process is to go on.
const HAND_OVER: Duration = Duration::from_secs(10);
const FIRST_REST: Duration = Duration::from_millis(500);
const LAST_REST: Duration = Duration::from_secs(15);

/// What the service works with.
#[derive(Clone)]
pub(crate) struct Sink {
    pub(crate) config: ClickHouseConfig,
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) server: Server,
    pub(crate) spool: PathBuf,
    pub(crate) metrics: Metrics,
}

/// The tokens that end one turn.
#[derive(Clone, Default)]
struct Ends {
    /// Store what the log holds by now, then end.
    drain: CancellationToken,
    /// Finish the batch in hand, then end.
    hand_over: CancellationToken,
    /// End at once.
    stop: CancellationToken,
}

/// One turn at filling the warehouse.
struct Turn {
    ends: Ends,
    /// Ends the turn's threads when the service is dropped without having been stopped.
    _guard: DropGuard,
    task: JoinHandle<anyhow::Result<()>>,
}

enum Event {
    Stop,
    Change(Result<Change, LogError>),
    Ended(Result<anyhow::Result<()>, tokio::task::JoinError>),
}

impl Sink {
    /// Runs until asked to stop; takes turns with the other processes of the group.
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut rest = FIRST_REST;
        while !stop.is_cancelled() {
            match self.member(&stop).await {
                Ok(()) => rest = FIRST_REST,
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::error!(
                        error,
                        ?rest,
                        "the warehouse is not filled by this process: trying again"
                    );
                    let _ = tokio::time::timeout(rest, stop.cancelled()).await;
                    rest = (rest * 2).min(LAST_REST);
                }
            }
        }
        Ok(())
    }

    /// One membership, until it is lost or the service is to stop.
    async fn member(&self, stop: &CancellationToken) -> anyhow::Result<()> {
        let mut membership = tokio::select! {
            joined = self.log.join(GROUP, 1) => joined.context("joining the group `analytics`")?,
            () = stop.cancelled() => return Ok(()),
        };
        let mut turn = None;
        let ended = self.take_turns(&mut *membership, &mut turn, stop).await;
        if let Some(turn) = turn.take() {
            self.end(turn, ended.is_ok()).await;
        }
        membership.leave().await;
        ended
    }

    /// Returns when the service is to stop, or when this membership is of no more use.
    async fn take_turns(
        &self,
        membership: &mut dyn Membership,
        turn: &mut Option<Turn>,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        loop {
            let event = match turn.as_mut() {
                Some(Turn { task, .. }) => tokio::select! {
                    () = stop.cancelled() => Event::Stop,
                    change = membership.changed() => Event::Change(change),
                    ended = task => Event::Ended(ended),
                },
                None => tokio::select! {
                    () = stop.cancelled() => Event::Stop,
                    change = membership.changed() => Event::Change(change),
                },
            };
            match event {
                Event::Stop => return Ok(()),
                Event::Ended(ended) => {
                    *turn = None;
                    self.metrics.active.set(0);
                    ended.context("the task that fills the warehouse failed")??;
                    anyhow::bail!("filling the warehouse ended although nobody asked it to");
                }
                Event::Change(change) => match change.context("in the group `analytics`")? {
                    Change::Gained(_) => {
                        if let Some(before) = turn.take() {
                            self.end(before, false).await;
                        }
                        *turn = Some(self.begin());
                    }
                    Change::Losing(_, let_go) => self.hand_over(turn.take(), let_go).await,
                    Change::Lost(_) => {
                        tracing::warn!(
                            "this process was taken for dead: another one fills the warehouse now"
                        );
                        if let Some(turn) = turn.take() {
                            self.end(turn, false).await;
                        }
                    }
                },
            }
        }
    }

    fn begin(&self) -> Turn {
        let ends = Ends::default();
        let (sink, of_turn) = (self.clone(), ends.clone());
        self.metrics.active.set(1);
        let guard = ends.stop.clone().drop_guard();
        Turn { ends, _guard: guard, task: tokio::spawn(async move { sink.fill(of_turn).await }) }
    }

    /// Ends a turn: after what the log holds is stored, when there is time for that, or at once.
    async fn end(&self, turn: Turn, is_orderly: bool) {
        let Turn { ends, mut task, _guard } = turn;
        if is_orderly {
            ends.drain.cancel();
            let deadline = Duration::from_millis(self.config.drain_deadline_ms);
            if tokio::time::timeout(deadline, &mut task).await.is_err() {
                tracing::warn!(?deadline, "what is not stored yet is stored at the next start");
            }
        }
        ends.stop.cancel();
        if !task.is_finished() {
            let _ = task.await;
        }
        self.metrics.active.set(0);
    }

    async fn hand_over(&self, turn: Option<Turn>, let_go: LetGo) {
        if let Some(Turn { ends, mut task, _guard }) = turn {
            ends.hand_over.cancel();
            if tokio::time::timeout(HAND_OVER, &mut task).await.is_err() {
                ends.stop.cancel();
                let _ = task.await;
            }
        }
        self.metrics.active.set(0);
        drop(let_go);
        tracing::info!("another process fills the warehouse now, this one stands by");
    }

    /// One turn: takes over where the log says that the last one was, and fills the warehouse.
    async fn fill(self, ends: Ends) -> anyhow::Result<()> {
        let prepared = tokio::select! {
            prepared = self.take_over() => prepared?,
            () = ends.stop.cancelled() => return Ok(()),
            () = ends.hand_over.cancelled() => return Ok(()),
        };
        let Prepared { queue, writer, lineage, confirmed, next } = prepared;
        let sender = Sender {
            log: Arc::clone(&self.log),
            writer,
            server: self.server.clone(),
            queue: Arc::clone(&queue),
            config: self.config.clone(),
            metrics: self.metrics.clone(),
            lineage,
            confirmed,
            stop: ends.stop.clone(),
        };
        let stop_forming = ends.stop.child_token();
        let former = Former {
            log: Arc::clone(&self.log),
            queue: Arc::clone(&queue),
            config: self.config.clone(),
            metrics: self.metrics.clone(),
            next,
            drain: ends.drain.clone(),
            stop: stop_forming.clone(),
        };
        let after = Arc::clone(&queue);
        let forming = on_thread("warehouse-form", async move {
            let ended = former.run().await;
            after.finish();
            ended
        })?;
        let mut sending = on_thread("warehouse-send", async move {
            let ended = sender.run().await;
            match ended {
                Ok(()) | Err(SendError::Stopped) => Ok(()),
                Err(SendError::Replaced) => Err(anyhow::anyhow!("another process fills the warehouse now")),
                Err(SendError::Other(error)) => Err(error),
            }
        })?;
        let sent = tokio::select! {
            sent = &mut sending => sent,
            () = ends.hand_over.cancelled() => {
                stop_forming.cancel();
                queue.give_up();
                sending.await
            }
        };
        stop_forming.cancel();
        queue.give_up();
        forming.await.context("the thread that forms batches failed")??;
        sent.context("the thread that sends batches failed")?
    }

    /// Shuts out whoever filled the warehouse before, and finds out where that one was.
    async fn take_over(&self) -> anyhow::Result<Prepared> {
        let writer = self.log.writer(WRITER).await.context("becoming the writer of batches' plans")?;
        let plans = plan::newest(&*self.log).await.context("reading the plans of batches")?;
        let spool = Spool::open(&self.spool)?;
        let (mut files, refused) = (spool.waiting()?, spool.refused()?);
        self.metrics.refused.set(i64::try_from(refused.len()).unwrap_or(i64::MAX));
        let queue = Arc::new(Queue::new(spool, self.config.spool_max_bytes, self.metrics.clone()));
        let mut next = Positions::default();
        for topic in TOPICS {
            let plan = plans.get(topic);
            let starts = form::starts(&*self.log, GROUP, topic, plan.map(|plan| &plan.next)).await?;
            for (partition, offset) in (0..).zip(starts) {
                next.set(topic, partition, offset);
            }
            if let Some(plan) = plan
                && !self.is_confirmed(topic, plan).await?
            {
                self.again(topic, plan, &mut files, &queue).await?;
            }
        }
        // What was in when the last plans were made; the batches that are sent again come on top.
        let confirmed = next.clone();
        restore(files, &queue, &mut next)?;
        if !refused.is_empty() {
            let mut server = self.server.clone();
            tokio::spawn(async move {
                if server.know_settings().await.is_ok() {
                    retry_refused(&server, refused).await;
                }
            });
        }
        let lineage = plans.values().next().map_or_else(plan::new_lineage, |plan| plan.lineage.clone());
        Ok(Prepared { queue, writer, lineage, confirmed, next })
    }

    /// Whether a planned batch is known to be in.
    async fn is_confirmed(&self, topic: &str, plan: &plan::Plan) -> anyhow::Result<bool> {
        for (&partition, span) in &plan.spans.0 {
            let committed = self.log.committed(GROUP, topic, partition).await?;
            if committed.is_none_or(|committed| committed < span.to) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Puts a planned batch first: from the spool when it is there, else made again from the log.
    async fn again(
        &self,
        topic: &'static str,
        plan: &plan::Plan,
        files: &mut Vec<Spooled>,
        queue: &Queue,
    ) -> anyhow::Result<()> {
        tracing::info!(topic, offsets = plan.spans.as_text(), "a batch under way is sent again");
        if let Some(at) = files.iter().position(|file| file.topic == topic && file.spans == plan.spans) {
            queue.restore_file(files.remove(at), true);
            return Ok(());
        }
        if let Some(batch) = form::form_again(&*self.log, topic, &plan.spans, &self.metrics).await? {
            queue.restore(batch, true);
        }
        Ok(())
    }
}

struct Prepared {
    queue: Arc<Queue>,
    writer: Box<dyn eventlog::Writer>,
    lineage: String,
    confirmed: Positions,
    next: Positions,
}

/// Takes up spooled batches that go on exactly where the log's plans end; others were sent, or are another
/// process's by now, and are removed.
fn restore(files: Vec<Spooled>, queue: &Queue, next: &mut Positions) -> anyhow::Result<()> {
    for file in files {
        let goes_on = |(&partition, span): (&u32, &plan::Span)| next.get(file.topic, partition) == span.from;
        if !file.spans.0.iter().all(goes_on) {
            tracing::debug!(path = %file.path.display(), "a spooled batch is not needed any more");
            spool::remove(&file.path)?;
            continue;
        }
        for (&partition, span) in &file.spans.0 {
            next.set(file.topic, partition, span.to);
        }
        queue.restore_file(file, false);
    }
    Ok(())
}

/// Runs a future on a thread of its own, so that its work delays nothing else of this process.
fn on_thread(
    name: &str,
    work: impl Future<Output = anyhow::Result<()>> + Send + 'static,
) -> anyhow::Result<oneshot::Receiver<anyhow::Result<()>>> {
    let (done, ended) = oneshot::channel();
    let handle = tokio::runtime::Handle::current();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let _ = done.send(handle.block_on(work));
        })
        .with_context(|| format!("starting the thread {name}"))?;
    Ok(ended)
}
