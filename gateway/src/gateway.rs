//! The gateway's life: start, catch up, serve, drain, stop.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::Router;
use eventlog::EventLog;
use events::ListDeclaration;
use runtime::Service;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::auth::{ApiKeys, Scope, ScopeGuard};
use crate::catch_up::catch_up;
use crate::config::GatewayConfig;
use crate::ledger::Ledger;
use crate::state::{App, Door, Shared};
use crate::tokenise::Tokeniser;
use crate::{decisions, routes};

/// How often marks are kept, keys are looked at and gaps are looked into.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(1);
const PURGE_INTERVAL: Duration = Duration::from_secs(60);
const CATCH_UP_RETRY: Duration = Duration::from_millis(100);
const DRAIN_POLL: Duration = Duration::from_millis(10);

/// The running gateway.
pub struct Gateway {
    /// Its task; once stopped, it accepts nothing more, waits for what is under way, and ends.
    pub service: Service,
    app: App,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("service", &self.service).finish_non_exhaustive()
    }
}

impl Gateway {
    /// Starts the gateway, with the lists that the rules know. Transactions are refused with 503 until [`Gateway::ready`].
    ///
    /// # Errors
    /// When a setting is wrong, the ledger in `dir/gateway` cannot be opened, or a metric exists already.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn start(
        config: GatewayConfig,
        keys: ApiKeys,
        tokeniser: Tokeniser,
        log: Arc<dyn EventLog>,
        lists: Vec<ListDeclaration>,
        dir: &Path,
        registry: &prometheus::Registry,
    ) -> anyhow::Result<Self> {
        if let Some((key, message)) = config.validate().into_iter().next() {
            bail!("gateway.{key}: {message}");
        }
        if let Some((key, message)) = config.redis.validate().into_iter().next() {
            bail!("redis.{key}: {message}");
        }
        let ledger = Ledger::open(dir).with_context(|| format!("opening the ledger in {}", dir.display()))?;
        let app = Arc::new(Shared::new(config, keys, tokeniser, log, lists, ledger, registry)?);
        let stop = CancellationToken::new();
        let task = tokio::spawn(run(app.clone(), stop.clone()));
        Ok(Self { service: Service { name: "gateway", stop, task }, app })
    }

    /// The merchants' routes and `/health`, with a fallback that answers 404 as a problem document.
    pub fn router(&self) -> Router {
        routes::router(self.app.clone())
    }

    /// The lists that can be changed, to be replaced when the rules know others.
    #[must_use]
    pub fn lists(&self) -> watch::Sender<Vec<ListDeclaration>> {
        self.app.lists.clone()
    }

    /// The accepted transactions.
    #[must_use]
    pub fn ledger(&self) -> Arc<Ledger> {
        self.app.ledger.clone()
    }

    /// The state for [`require_scope`](crate::auth::require_scope) around other routers.
    #[must_use]
    pub fn scope_guard(&self, scope: Scope) -> ScopeGuard {
        ScopeGuard::new(self.app.authenticator.clone(), scope)
    }

    /// Waits until the ledger has caught up with the log and transactions are accepted. Returns whether
    /// they are: not when the gateway was stopped before.
    pub async fn ready(&self) -> bool {
        let mut door = self.app.door.subscribe();
        let state = door.wait_for(|door| matches!(door, Door::Open | Door::Closed)).await.map(|door| *door);
        matches!(state, Ok(Door::Open))
    }
}

async fn run(app: App, stop: CancellationToken) -> anyhow::Result<()> {
    let tail_stop = CancellationToken::new();
    let serve = async {
        tokio::select! {
            () = keep_house(&app) => {}
            () = stop.cancelled() => {}
        }
        drain(&app).await;
        tail_stop.cancel();
    };
    let follow = async {
        if let Some(follower) = &app.follower {
            follower.tail(&app, &tail_stop).await;
        }
    };
    let share = async {
        if let Some(redis) = &app.redis {
            redis.run(&app, &tail_stop).await;
        }
    };
    tokio::join!(serve, decisions::tail(&app, &tail_stop), follow, share);
    let ledger = app.ledger.clone();
    let marks = app.marks.snapshot();
    tokio::task::spawn_blocking(move || ledger.set_created_marks(&marks).and_then(|()| ledger.sync()))
        .await
        .context("writing the ledger")??;
    Ok(())
}

/// Opens the door once the ledger knows the log, and keeps it that way.
async fn keep_house(app: &App) {
    let mut door = app.door.subscribe();
    let mut ticks = tokio::time::interval(HOUSEKEEPING_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut purged_at = Instant::now();
    let mut kept = Vec::new();
    loop {
        let shut = matches!(*door.borrow_and_update(), Door::Starting | Door::Recovering);
        if shut || app.marks.held_back() {
            let failures = app.failures();
            let caught_up = match catch_up(app).await {
                Ok(complete) => complete,
                Err(error) => {
                    tracing::warn!(%error, "the ledger could not catch up with the log: trying again");
                    false
                }
            };
            // A write that failed since may be in the log, too: it is looked for in the next round.
            if caught_up && shut && app.failures() == failures {
                app.set_door(Door::Open);
            } else if shut {
                tokio::time::sleep(CATCH_UP_RETRY).await;
                continue;
            }
        }
        tokio::select! {
            _ = ticks.tick() => {}
            _ = door.changed() => continue,
        }
        let marks = app.marks.snapshot();
        if marks != kept {
            match app.ledger.set_created_marks(&marks) {
                Ok(()) => kept = marks,
                Err(error) => tracing::warn!(%error, "the ledger could not be written"),
            }
        }
        if let Err(error) = app.keys.reload_if_changed() {
            tracing::error!(%error, "the API keys could not be read again: the known ones stay in force");
        }
        if purged_at.elapsed() >= PURGE_INTERVAL {
            purged_at = Instant::now();
            purge(app).await;
        }
    }
}

async fn purge(app: &App) {
    let (ledger, before_us) = (app.ledger.clone(), app.retention_start_us());
    match tokio::task::spawn_blocking(move || ledger.purge(before_us)).await {
        Ok(Ok(purged)) => app.metrics.ledger_purged.inc_by(purged),
        Ok(Err(error)) => tracing::warn!(%error, "old transactions could not be removed from the ledger"),
        Err(error) => tracing::error!(%error, "the purge of the ledger failed"),
    }
}

/// Accepts nothing more, and gives what is under way its time.
async fn drain(app: &App) {
    app.set_door(Door::Closed);
    let until = Instant::now() + Duration::from_millis(app.config.drain_deadline_ms);
    while !app.pending.is_empty() {
        if Instant::now() >= until {
            tracing::warn!("stopping with transactions under way: they are in the log and will be decided");
            return;
        }
        tokio::time::sleep(DRAIN_POLL).await;
    }
}
