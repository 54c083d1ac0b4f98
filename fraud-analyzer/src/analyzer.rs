//! Which lanes this process has: it gets them from the group of all analyzers, decides in each on a thread of its
//! own, and gives them up when another is to have them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use eventlog::{Change, EventLog, LogError, Membership};
use events::topics;
use runtime::Service;
use scoring::Ruleset;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::AnalyzerConfig;
use crate::generations::Generations;
use crate::lane::{self, Lane};
use crate::metrics::Metrics;
use crate::pipeline::{self, Order, Workplace};
use crate::progress::GROUP;
use crate::remote::Remote;
use crate::rulesets::{Inbox, Rulesets};

/// Before a lane whose log failed is tried again, and before a group that cannot be reached is.
const RETRY_WAIT: Duration = Duration::from_secs(1);

/// A running analyzer.
#[derive(Debug)]
pub struct Analyzer {
    /// Stops by deciding what is in the log of its lanes, then checkpointing.
    pub service: Service,
    /// Which ruleset decides, and changing it.
    pub rulesets: Rulesets,
}

impl Analyzer {
    /// Joins the group of analyzers, then recovers and decides in each lane that it gets, on a thread of the
    /// lane's own, until stopped. Transactions can be accepted meanwhile, and are decided when a lane has
    /// recovered.
    ///
    /// # Errors
    /// When metrics, the directory or the checkpoints' store cannot be set up.
    pub fn start(
        config: AnalyzerConfig,
        ruleset: Ruleset,
        log: Arc<dyn EventLog>,
        dir: &Path,
        registry: &prometheus::Registry,
    ) -> anyhow::Result<Self> {
        let metrics = Metrics::new(registry).context("registering the analyzer's metrics")?;
        let partitions = log.partitions(topics::CREATED)?;
        anyhow::ensure!(
            config.lanes <= partitions,
            "analyzer.lanes is {}, but {} has {partitions} partitions: there cannot be more lanes",
            config.lanes,
            topics::CREATED
        );
        say_what_is_inexact(&config, &ruleset, &metrics);
        let remote = Remote::open(&config.checkpoint_url).context("opening analyzer.checkpoint_url")?;
        let (rulesets, doors) = Rulesets::new(ruleset, metrics.clone());
        let stop = CancellationToken::new();
        let office = Office { config, log, dir: dir.join("analyzer"), remote, metrics, rulesets: doors };
        let task = tokio::spawn(office.run(stop.clone()));
        Ok(Self { service: Service { name: "fraud-analyzer", stop, task }, rulesets })
    }
}

fn say_what_is_inexact(config: &AnalyzerConfig, ruleset: &Ruleset, metrics: &Metrics) {
    let inexact = if config.lanes > 1 { lane::inexact_features(ruleset) } else { Vec::new() };
    metrics.inexact_windows.set(i64::try_from(inexact.len()).unwrap_or(i64::MAX));
    if !inexact.is_empty() {
        tracing::warn!(
            lanes = config.lanes,
            features = ?inexact,
            "these features are not exact: each lane sees its own cards only; analyzer.lanes = 1 makes them exact"
        );
    }
}

/// Hands lanes to threads.
struct Office {
    config: AnalyzerConfig,
    log: Arc<dyn EventLog>,
    dir: PathBuf,
    remote: Option<Remote>,
    metrics: Metrics,
    rulesets: crate::rulesets::Doors,
}

/// The lanes at work.
#[derive(Default)]
struct Staff {
    /// The lanes that are this process's, at work or to be tried again.
    owned: BTreeSet<u32>,
    orders: BTreeMap<u32, watch::Sender<Order>>,
    ends: JoinSet<(u32, anyhow::Result<()>)>,
    /// Lanes to be tried again.
    retries: JoinSet<u32>,
}

impl Office {
    async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        loop {
            let joined = self.log.join(GROUP, self.config.lanes).await;
            let ended = match joined {
                Ok(membership) => self.serve(membership, &stop).await,
                Err(error) => Err(error).context("joining the group of analyzers"),
            };
            let Err(error) = ended else { return Ok(()) };
            if stop.is_cancelled() {
                return Ok(());
            }
            if !self.heals(&error) {
                return Err(error);
            }
            tracing::error!("the group of analyzers cannot be reached: trying again: {error:#}");
            tokio::select! {
                () = tokio::time::sleep(RETRY_WAIT) => {}
                () = stop.cancelled() => return Ok(()),
            }
        }
    }

    /// A member until stopped.
    async fn serve(
        &self,
        mut membership: Box<dyn Membership>,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let mut staff = Staff::default();
        let ended = self.until_stopped(&mut *membership, &mut staff, stop).await;
        let order = if ended.is_ok() { self.last_order() } else { Order::Abandon };
        staff.order_all(order);
        let lanes = self.finish_all(&mut staff).await;
        membership.leave().await;
        ended.and(lanes)
    }

    /// Alone, what was accepted is decided before the end; others go on with it where there are others.
    fn last_order(&self) -> Order {
        if self.log.is_shared() { Order::HandOver } else { Order::Drain }
    }

    async fn until_stopped(
        &self,
        membership: &mut dyn Membership,
        staff: &mut Staff,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                // A lane that is there to be had is drained before the end.
                biased;
                change = membership.changed() => match change.context("keeping touch with the group of analyzers")? {
                    Change::Gained(lanes) => {
                        tracing::info!(?lanes, "lanes gained");
                        for lane in lanes {
                            staff.owned.insert(lane);
                            self.begin(lane, staff)?;
                        }
                    }
                    Change::Losing(lanes, let_go) => {
                        tracing::info!(?lanes, "lanes are to go to another process");
                        self.give_up(&lanes, Order::HandOver, staff).await;
                        drop(let_go);
                    }
                    Change::Lost(lanes) => {
                        tracing::warn!(?lanes, "this process was taken for dead: its lanes may be another's by now");
                        self.give_up(&lanes, Order::Abandon, staff).await;
                    }
                },
                Some(ended) = staff.ends.join_next() => {
                    let (lane, ended) = ended.context("a lane's task failed")?;
                    self.note_end(lane, ended, staff)?;
                }
                Some(lane) = staff.retries.join_next() => {
                    let lane = lane.context("a timer failed")?;
                    // It may have gone to another process, or come back, meanwhile.
                    if staff.owned.contains(&lane) && !staff.orders.contains_key(&lane) {
                        self.begin(lane, staff)?;
                    }
                }
                () = stop.cancelled() => return Ok(()),
            }
            self.metrics.lanes_owned.set(i64::try_from(staff.orders.len()).unwrap_or(i64::MAX));
        }
    }

    fn begin(&self, number: u32, staff: &mut Staff) -> anyhow::Result<()> {
        let lane = Lane { number, of: self.config.lanes };
        let (order, orders) = watch::channel(Order::Decide);
        let dir = self.dir.join(lane.name());
        let generations = Generations::open(&dir)
            .with_context(|| format!("opening the lane's directory {}", dir.display()))?;
        let (ruleset, inbox) = self.rulesets.open(number);
        let ended = self.spawn(lane, ruleset, inbox, generations, orders)?;
        staff.orders.insert(number, order);
        staff.ends.spawn(async move {
            (number, ended.await.unwrap_or_else(|_| Err(anyhow::anyhow!("the scoring thread panicked"))))
        });
        Ok(())
    }

    fn spawn(
        &self,
        lane: Lane,
        ruleset: Ruleset,
        inbox: Inbox,
        generations: Generations,
        order: watch::Receiver<Order>,
    ) -> anyhow::Result<oneshot::Receiver<anyhow::Result<()>>> {
        let workplace = Workplace {
            lane,
            config: self.config.clone(),
            ruleset,
            log: Arc::clone(&self.log),
            generations,
            remote: self.remote.clone(),
            metrics: self.metrics.clone(),
            inbox,
            order,
        };
        let (ended, end) = oneshot::channel();
        let handle = Handle::current();
        std::thread::Builder::new()
            .name(format!("scoring-{}", lane.number))
            .spawn(move || {
                // Nobody listens when the process is ending anyway.
                let _ = ended.send(handle.block_on(pipeline::run(workplace)));
            })
            .context("starting the scoring thread")?;
        Ok(end)
    }

    /// A lane that ended by itself is tried again when that may help.
    fn note_end(&self, lane: u32, ended: anyhow::Result<()>, staff: &mut Staff) -> anyhow::Result<()> {
        staff.orders.remove(&lane);
        self.rulesets.close(lane);
        let Err(error) = ended else { return Ok(()) };
        if !self.heals(&error) {
            return Err(error);
        }
        tracing::error!(lane, "a lane failed: recovering it again: {error:#}");
        self.metrics.lane_failures.inc();
        staff.retries.spawn(async move {
            tokio::time::sleep(RETRY_WAIT).await;
            lane
        });
        Ok(())
    }

    /// Ends some lanes, and waits for them.
    async fn give_up(&self, lanes: &[u32], order: Order, staff: &mut Staff) {
        let mut wanted: Vec<u32> = Vec::new();
        for lane in lanes {
            staff.owned.remove(lane);
            if let Some(orders) = staff.orders.get(lane) {
                orders.send_replace(order);
                wanted.push(*lane);
            }
        }
        while !wanted.is_empty()
            && let Some(ended) = staff.ends.join_next().await
        {
            let Ok((lane, ended)) = ended else { continue };
            if !wanted.contains(&lane) {
                // One that stays, and failed at this moment.
                if let Err(error) = self.note_end(lane, ended, staff) {
                    tracing::error!(lane, "a lane failed for good: {error:#}");
                }
                continue;
            }
            wanted.retain(|&w| w != lane);
            staff.orders.remove(&lane);
            self.rulesets.close(lane);
            if let Err(error) = ended {
                tracing::error!(
                    lane,
                    "a lane failed as it was given up: another process recovers it: {error:#}"
                );
            }
        }
    }

    async fn finish_all(&self, staff: &mut Staff) -> anyhow::Result<()> {
        let mut result = Ok(());
        while let Some(ended) = staff.ends.join_next().await {
            let (lane, ended) = ended.context("a lane's task failed")?;
            staff.orders.remove(&lane);
            self.rulesets.close(lane);
            result = result.and(ended);
        }
        self.metrics.lanes_owned.set(0);
        result
    }

    /// Whether what failed may work again without a restart.
    fn heals(&self, error: &anyhow::Error) -> bool {
        let by_the_log = error.chain().find_map(|cause| cause.downcast_ref::<LogError>());
        by_the_log.is_some_and(|error| self.log.is_shared() && !matches!(error, LogError::Closed))
    }
}

impl Staff {
    fn order_all(&self, order: Order) {
        for orders in self.orders.values() {
            orders.send_replace(order);
        }
    }
}
