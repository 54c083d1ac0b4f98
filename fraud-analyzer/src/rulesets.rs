//! Changing the ruleset of a running analyzer, and asking which one is in force.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use scoring::{Ruleset, WarmingRule};
use serde::Serialize;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::metrics::Metrics;

/// Of several reloads at a time each waits for the one before, so that what was read last is in force last.
const RELOADS_AT_ONCE: usize = 1;

/// The ruleset in force, and what is to follow it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RulesetStatus {
    /// The hash that decisions carry.
    pub ruleset: String,
    /// The place in the order of decisions (`seq`) from which on they do, in the first of the lanes.
    pub from_seq: u64,
    /// The lanes that this process decides in.
    pub lanes: Vec<u32>,
    /// How many features there are.
    pub features: usize,
    /// How many rules there are.
    pub rules: usize,
    /// The rules that do not fire yet, as their windows are not complete; soonest complete first.
    pub warming_rules: Vec<WarmingRule>,
    /// The ruleset that is being warmed up to take over.
    pub warm_up: Option<WarmUpStatus>,
}

/// How far a warm-up is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WarmUpStatus {
    /// The hash that decisions will carry.
    pub ruleset: String,
    /// Decided transactions that it has yet to take in.
    pub lag_transactions: u64,
}

/// Why a ruleset was not taken up. The one in force stays.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The files are wrong; [`scoring::LoadErrors`] when it is what they say.
    #[error("{0:#}")]
    Refused(anyhow::Error),
    /// Its warm-up cannot begin.
    #[error("{0:#}")]
    Failed(anyhow::Error),
    /// The analyzer has stopped.
    #[error("the analyzer has stopped")]
    Stopped,
}

/// A ruleset for a scoring thread to take up, and where it answers.
pub(crate) struct Request {
    pub(crate) ruleset: Ruleset,
    pub(crate) answer: oneshot::Sender<anyhow::Result<()>>,
}

/// What a scoring thread has of [`Rulesets`].
pub(crate) struct Inbox {
    pub(crate) requests: mpsc::Receiver<Request>,
    pub(crate) status: watch::Sender<Option<RulesetStatus>>,
}

/// The rulesets of a running analyzer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Rulesets {
    doors: Doors,
    permits: Arc<Semaphore>,
    metrics: Metrics,
}

/// The ways to the lanes of this process.
#[derive(Debug, Clone)]
pub(crate) struct Doors(watch::Sender<Lanes>);

/// Where the lanes are to be asked.
#[derive(Debug)]
struct Lanes {
    /// What a lane begins with.
    ruleset: Ruleset,
    doors: BTreeMap<u32, Door>,
}

#[derive(Debug, Clone)]
struct Door {
    requests: mpsc::Sender<Request>,
    /// `None` until recovery is done.
    status: watch::Receiver<Option<RulesetStatus>>,
}

impl Doors {
    /// Lets a lane in: what it decides by, and where it is told of another ruleset.
    pub(crate) fn open(&self, lane: u32) -> (Ruleset, Inbox) {
        let (requests, inbox) = mpsc::channel(RELOADS_AT_ONCE);
        let (status, watched) = watch::channel(None);
        let mut ruleset = None;
        self.0.send_modify(|lanes| {
            ruleset = Some(lanes.ruleset.clone());
            lanes.doors.insert(lane, Door { requests, status: watched });
        });
        (ruleset.expect("set by the closure, which is called once"), Inbox { requests: inbox, status })
    }

    /// A lane is no longer of this process.
    pub(crate) fn close(&self, lane: u32) {
        self.0.send_modify(|lanes| {
            lanes.doors.remove(&lane);
        });
    }

    fn all(&self) -> Vec<(u32, Door)> {
        self.0.borrow().doors.iter().map(|(&lane, door)| (lane, door.clone())).collect()
    }
}

impl Rulesets {
    pub(crate) fn new(ruleset: Ruleset, metrics: Metrics) -> (Self, Doors) {
        let doors = Doors(watch::channel(Lanes { ruleset, doors: BTreeMap::new() }).0);
        // As Prometheus has it: what the process began with was loaded too.
        metrics.last_reload_successful.set(1);
        let permits = Arc::new(Semaphore::new(RELOADS_AT_ONCE));
        (Self { doors: doors.clone(), permits, metrics }, doors)
    }

    /// The ruleset in force; `None` while the analyzer has no lane, or recovers.
    #[must_use]
    pub fn status(&self) -> Option<RulesetStatus> {
        let doors = self.doors.all();
        let mut status = doors.first()?.1.status.borrow().clone()?;
        status.lanes =
            doors.iter().filter(|(_, door)| door.status.borrow().is_some()).map(|&(lane, _)| lane).collect();
        if let Some(warm_up) = &mut status.warm_up {
            warm_up.lag_transactions = self.metrics.warm_up_lag_transactions.get().try_into().unwrap_or(0);
        }
        Some(status)
    }

    /// Loads a ruleset and has it decide from now on, in every lane: at once when its windows are those in force,
    /// else when they are warmed up, which the answer then says. Waits for recovery first. A lane that this
    /// process gets later begins with it. Counts and logs how it went.
    ///
    /// # Errors
    /// [`ReloadError`]: nothing has changed.
    pub async fn reload(
        &self,
        load: impl FnOnce() -> anyhow::Result<Ruleset> + Send + 'static,
    ) -> Result<RulesetStatus, ReloadError> {
        let taken_up = self.try_reload(load).await;
        match &taken_up {
            Ok(_) => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                self.metrics.last_reload_successful.set(1);
                self.metrics.last_reload_success_seconds.set(now.as_secs().try_into().unwrap_or(i64::MAX));
            }
            Err(error) => {
                self.metrics.reload_failures.inc();
                self.metrics.last_reload_successful.set(0);
                tracing::error!("the ruleset was not reloaded, the one in force stays: {error}");
            }
        }
        taken_up
    }

    async fn try_reload(
        &self,
        load: impl FnOnce() -> anyhow::Result<Ruleset> + Send + 'static,
    ) -> Result<RulesetStatus, ReloadError> {
        let _permit = self.permits.acquire().await.map_err(|_| ReloadError::Stopped)?;
        let loaded = tokio::task::spawn_blocking(load).await.context("loading the ruleset");
        let ruleset = loaded.flatten().map_err(ReloadError::Refused)?;
        // At least one lane, so that the answer says what is in force.
        self.doors
            .0
            .subscribe()
            .wait_for(|lanes| !lanes.doors.is_empty())
            .await
            .map_err(|_| ReloadError::Stopped)?;
        for (_, door) in self.doors.all() {
            door.status.clone().wait_for(Option::is_some).await.map_err(|_| ReloadError::Stopped)?;
            let (answer, answered) = oneshot::channel();
            let request = Request { ruleset: ruleset.clone(), answer };
            door.requests.send(request).await.map_err(|_| ReloadError::Stopped)?;
            answered.await.map_err(|_| ReloadError::Stopped)?.map_err(ReloadError::Failed)?;
        }
        self.doors.0.send_modify(|lanes| lanes.ruleset = ruleset);
        self.status().ok_or(ReloadError::Stopped)
    }
}
