//! The scorer of a ruleset with other windows, made ready beside the one that decides: from the decided
//! transactions the log still holds, as recovery without a checkpoint does, and then along with the stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use eventlog::EventLog;
use scoring::Ruleset;
use tokio::runtime::Handle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::checkpoint::Checkpoint;
use crate::generations::Generations;
use crate::lane::Lane;
use crate::metrics::Metrics;
use crate::recovery::Recovered;

/// Transactions taken in between two checkpoints: what they sealed is in memory until then.
const PART_TRANSACTIONS: usize = 16_384;
/// What the scoring thread may have to take in itself when it takes over: a few milliseconds of work.
const CLOSE_TRANSACTIONS: usize = 256;
/// Between two log lines that say how far it is.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// What warm-ups work on.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) lane: Lane,
    pub(crate) generations: Generations,
    pub(crate) metrics: Metrics,
    /// The place of the next decision: everything before has been appended.
    pub(crate) next_seq: Arc<AtomicU64>,
}

/// A warm-up under way. Dropping it lets it end.
pub(crate) struct WarmUp {
    /// What is to take over. The rules may be other than those the warm-up began with.
    pub(crate) ruleset: Ruleset,
    thread: JoinHandle<anyhow::Result<Recovered>>,
    stop: DropGuard,
}

impl WarmUp {
    /// Begins on a thread of its own, behind all work that someone waits for.
    pub(crate) fn start(ruleset: Ruleset, surroundings: Surroundings) -> anyhow::Result<Self> {
        let stop = CancellationToken::new();
        let metrics = surroundings.metrics.clone();
        let (handle, asked, of) = (Handle::current(), stop.clone(), ruleset.clone());
        let thread = std::thread::Builder::new()
            .name("warm-up".to_owned())
            .spawn(move || {
                runtime::background::yield_to_answers();
                handle.block_on(warm_up(of, &surroundings, &asked))
            })
            .context("starting the thread that warms a ruleset up")?;
        metrics.warm_up.set(1);
        Ok(Self { ruleset, thread, stop: stop.drop_guard() })
    }

    /// Whether it is close behind, or has failed.
    pub(crate) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// What it came to, and the ruleset that is to take over.
    pub(crate) fn end(self) -> (Ruleset, anyhow::Result<Recovered>) {
        let ended = self.thread.join();
        (self.ruleset, ended.unwrap_or_else(|_| Err(anyhow::anyhow!("the warm-up panicked"))))
    }

    /// Lets it end, and removes what it wrote, beside the caller's work.
    pub(crate) fn discard(self) {
        drop(self.stop);
        tokio::task::spawn_blocking(move || {
            if let Ok(Ok(unwanted)) = self.thread.join()
                && let Err(error) = unwanted.checkpoints.remove()
            {
                tracing::warn!(%error, "what a warm-up wrote could not be removed: the next start does it");
            }
        });
    }

    /// Lets it end, and waits for that: what it wrote is of use to the next start.
    pub(crate) async fn stop(self) {
        drop(self.stop);
        // What it came to is of no interest any more.
        let _ = tokio::task::spawn_blocking(move || self.thread.join()).await;
    }
}

/// Goes on until close behind the stream, with a durable checkpoint: so a crash after the scorer took over
/// comes back to the same state, however little of the log is left by then.
async fn warm_up(
    ruleset: Ruleset,
    surroundings: &Surroundings,
    stop: &CancellationToken,
) -> anyhow::Result<Recovered> {
    let Surroundings { log, lane, generations, metrics, next_seq } = surroundings;
    let mut warming = Recovered::begin(&**log, *lane, generations, ruleset).await?;
    let (began, mut reported, mut durable) = (Instant::now(), Instant::now(), false);
    while !stop.is_cancelled() {
        let until = next_seq.load(Ordering::Acquire);
        let taken = warming.replay_decided(&**log, until, PART_TRANSACTIONS, metrics).await?;
        let lag = until.saturating_sub(warming.progress.next_seq);
        let is_close = taken <= CLOSE_TRANSACTIONS;
        if !stop.is_cancelled() {
            metrics.warm_up_lag_transactions.set(i64::try_from(lag).unwrap_or(i64::MAX));
        }
        if is_close && durable {
            let elapsed_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            tracing::info!(elapsed_ms, "the new ruleset is warmed up");
            break;
        }
        if is_close || taken == PART_TRANSACTIONS {
            let checkpoint = Checkpoint {
                progress: warming.progress.clone(),
                decides: false,
                state: warming.scorer.checkpoint(),
            };
            warming.checkpoints.write(&checkpoint).context("writing a checkpoint of the warm-up")?;
            durable = true;
        }
        if reported.elapsed() >= REPORT_INTERVAL {
            tracing::info!(lag_transactions = lag, "a new ruleset is being warmed up");
            reported = Instant::now();
        }
    }
    Ok(warming)
}
