//! The open loop. Each of a fixed number of connections takes the next request of the schedule, waits
//! until it is due, sends it and reads the answer. While all are busy, due requests wait in the
//! schedule, which costs nothing, and their latency runs from when they were due.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::answer::digest;
use crate::client::{Answer, Failure, Line, Target};
use crate::report::{ErrorKind, Report, Stats};
use crate::schedule::Schedule;
use crate::traffic::{Generated, Traffic};

const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);
/// Longest a worker of an endless run rests after the server said it is busy or was not there.
const REST_MAX: Duration = Duration::from_secs(5);
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// What is done about a request that was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It is an error.
    Count,
    /// It is sent again, with the same key and body, for so long.
    Retry(Duration),
    /// It is an error, and the connection that sent it rests for a while.
    Rest,
}

/// Everything a run needs.
pub(crate) struct Plan {
    pub(crate) target: Arc<Target>,
    pub(crate) traffic: Traffic,
    pub(crate) schedule: Schedule,
    /// `None`: until stopped.
    pub(crate) duration: Option<Duration>,
    pub(crate) connections: usize,
    pub(crate) timeout: Duration,
    pub(crate) refusal: Refusal,
    /// Requests that are later than this are left out instead of sent in a burst.
    pub(crate) skip_later_than: Option<Duration>,
    pub(crate) accepted: Option<AcceptedFile>,
    pub(crate) stop: CancellationToken,
}

/// How a run is going, about once a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progress {
    /// Since the start of the run.
    pub elapsed_s: f64,
    /// How long the run is planned to last; `None` when it is endless.
    pub duration_s: Option<f64>,
    /// Requests that left.
    pub sent: u64,
    /// Requests answered 2xx.
    pub ok: u64,
    /// Requests that failed.
    pub errors: u64,
    /// Attempts beyond the first.
    pub retried: u64,
    /// Requests answered 2xx per second, since the last progress.
    pub rate: f64,
    /// 99th percentile of the latency, since the last progress.
    pub p99_ms: f64,
}

/// The ids of accepted transactions, one a line.
pub(crate) struct AcceptedFile(BufWriter<File>);

impl AcceptedFile {
    pub(crate) fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
        Ok(Self(BufWriter::new(file)))
    }
}

struct Source {
    traffic: Traffic,
    schedule: Schedule,
}

struct Tally {
    stats: Stats,
    accepted: Option<AcceptedFile>,
    /// The first failure to write the ids down: ends the run.
    broken: Option<std::io::Error>,
}

struct Engine {
    target: Arc<Target>,
    source: Mutex<Source>,
    tally: Mutex<Tally>,
    start: Instant,
    /// No request is sent for the first time after it.
    last_call: Option<Instant>,
    duration: Option<Duration>,
    timeout: Duration,
    refusal: Refusal,
    skip_later_than: Option<Duration>,
    stop: CancellationToken,
}

struct Slot {
    due: Instant,
    request: Generated,
}

/// Runs the plan to its end, or until stopped.
pub(crate) async fn drive(plan: Plan, progress: impl FnMut(Progress)) -> anyhow::Result<Report> {
    let Plan { target, traffic, schedule, duration, connections, .. } = plan;
    let start = Instant::now();
    let grace = match plan.refusal {
        Refusal::Retry(deadline) => deadline,
        Refusal::Count | Refusal::Rest => plan.timeout.min(Duration::from_secs(2)),
    };
    let engine = Arc::new(Engine {
        source: Mutex::new(Source { traffic, schedule }),
        tally: Mutex::new(Tally { stats: Stats::new(), accepted: plan.accepted, broken: None }),
        start,
        last_call: duration.map(|duration| start + duration + grace),
        duration,
        timeout: plan.timeout,
        refusal: plan.refusal,
        skip_later_than: plan.skip_later_than,
        stop: plan.stop,
        target,
    });
    let mut workers = JoinSet::new();
    for _ in 0..connections {
        workers.spawn(Arc::clone(&engine).work());
    }
    watch(&engine, &mut workers, progress).await?;
    engine.finish()
}

/// Reports progress until all workers are done.
async fn watch(
    engine: &Engine,
    workers: &mut JoinSet<()>,
    mut progress: impl FnMut(Progress),
) -> anyhow::Result<()> {
    let mut tick = tokio::time::interval_at(engine.start + PROGRESS_EVERY, PROGRESS_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last = (engine.start, 0);
    loop {
        tokio::select! {
            worker = workers.join_next() => match worker {
                Some(done) => done.context("a load worker panicked")?,
                None => return Ok(()),
            },
            _ = tick.tick() => progress(engine.progress(&mut last)),
        }
    }
}

impl Engine {
    async fn work(self: Arc<Self>) {
        let mut line = Line::new(Arc::clone(&self.target));
        while let Some(slot) = self.claim() {
            if slot.due > Instant::now() {
                tokio::select! {
                    biased;
                    () = self.stop.cancelled() => return,
                    () = tokio::time::sleep_until(slot.due) => {}
                }
            }
            self.deliver(&mut line, &slot).await;
        }
    }

    /// The next request of the schedule. `None` when the run is over.
    fn claim(&self) -> Option<Slot> {
        let now = Instant::now();
        if self.stop.is_cancelled() || self.last_call.is_some_and(|last| now > last) {
            return None;
        }
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let due = self.start + source.schedule.next()?;
            let request = source.traffic.generate();
            if self.skip_later_than.is_none_or(|limit| now.saturating_duration_since(due) <= limit) {
                return Some(Slot { due, request });
            }
        }
    }

    async fn deliver(&self, line: &mut Line, slot: &Slot) {
        let first_sent = Instant::now();
        {
            let stats = &mut self.tally().stats;
            stats.sent += 1;
            stats.lag.record(first_sent.saturating_duration_since(slot.due));
        }
        let mut backoff = RETRY_FIRST;
        loop {
            let request = self.target.submission(&slot.request.idempotency_key, slot.request.body.clone());
            let result = line.exchange(request, self.timeout).await;
            let latency = Instant::now().saturating_duration_since(slot.due);
            let Some((kind, retry_after)) = self.note(&result, latency) else { return };
            let pause = match self.refusal {
                Refusal::Retry(deadline) if may_retry(&result) && first_sent.elapsed() < deadline => {
                    retry_after.unwrap_or(backoff).min(RETRY_MAX)
                }
                Refusal::Rest => {
                    self.tally().stats.failed(kind, latency);
                    return self.pause(retry_after.unwrap_or(RETRY_MAX).min(REST_MAX)).await;
                }
                Refusal::Count | Refusal::Retry(_) => return self.tally().stats.failed(kind, latency),
            };
            self.pause(pause).await;
            if self.stop.is_cancelled() {
                return self.tally().stats.failed(kind, latency);
            }
            backoff = (backoff * 2).min(RETRY_MAX);
            self.tally().stats.retried += 1;
        }
    }

    /// Counts an attempt. Returns why it was not accepted and when to come back, if it was not.
    fn note(
        &self,
        result: &Result<Answer, Failure>,
        latency: Duration,
    ) -> Option<(ErrorKind, Option<Duration>)> {
        let answer = match result {
            Ok(answer) => answer,
            Err(failure) => return Some(((*failure).into(), None)),
        };
        let mut tally = self.tally();
        tally.stats.answered(answer.status);
        if !(200..300).contains(&answer.status) {
            return Some((ErrorKind::Http(answer.status), answer.retry_after));
        }
        let digest = digest(&answer.body);
        let Tally { stats, accepted, broken } = &mut *tally;
        match (accepted, digest.transaction_id) {
            (Some(file), Some(id)) => {
                if let Err(error) = writeln!(file.0, "{id}") {
                    broken.get_or_insert(error);
                    self.stop.cancel();
                }
            }
            (Some(_), None) => {
                stats.failed(ErrorKind::NoTransactionId, latency);
                return None;
            }
            (None, _) => {}
        }
        stats.accepted(answer.status, &digest, latency);
        None
    }

    async fn pause(&self, pause: Duration) {
        tokio::select! {
            () = self.stop.cancelled() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }

    fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn progress(&self, (last_at, last_ok): &mut (Instant, u64)) -> Progress {
        let now = Instant::now();
        let stats = &mut self.tally().stats;
        let progress = Progress {
            elapsed_s: (now - self.start).as_secs_f64(),
            duration_s: self.duration.map(|duration| duration.as_secs_f64()),
            sent: stats.sent,
            ok: stats.ok,
            errors: stats.errors(),
            retried: stats.retried,
            rate: (stats.ok - *last_ok) as f64 / (now - *last_at).as_secs_f64().max(1e-9),
            p99_ms: stats.recent.quantile_ms(0.99),
        };
        stats.recent.clear();
        (*last_at, *last_ok) = (now, stats.ok);
        progress
    }

    /// Counts what was due and never sent, and writes out the rest of the ids.
    fn finish(&self) -> anyhow::Result<Report> {
        let elapsed = self.start.elapsed();
        let mut tally = self.tally();
        if let Some(end) = self.duration.map(|duration| duration.min(elapsed)) {
            let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
            let left = std::iter::from_fn(|| source.schedule.next()).take_while(|&at| at <= end).count();
            tally.stats.not_sent(left as u64);
        }
        let Tally { stats, accepted, broken } = &mut *tally;
        let written = match broken.take() {
            Some(error) => Err(error),
            None => accepted.as_mut().map_or(Ok(()), |file| file.0.flush()),
        };
        written.context("writing the ids of accepted transactions")?;
        Ok(stats.report(elapsed))
    }
}

/// Whether the same key and body may be accepted later: nothing was answered, or the server said that it
/// is busy, still starting, or at work on an earlier attempt.
fn may_retry(result: &Result<Answer, Failure>) -> bool {
    match result {
        Ok(answer) => matches!(answer.status, 409 | 425 | 429 | 502..=504),
        Err(_) => true,
    }
}
