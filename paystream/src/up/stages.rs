//! The stages, wired in the order data flows.

use std::sync::Arc;
use std::time::Duration;

use alerter::Alerter;
use analytics::Analytics;
use anyhow::Context as _;
use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use eventlog::{EmbeddedLog, EventLog};
use events::ListDeclaration;
use fraud_analyzer::{Analyzer, Rulesets};
use gateway::auth::{ScopeGuard, require_scope};
use gateway::{ApiKeys, Gateway, Scope};
use prometheus::Registry;
use runtime::Service;
use tokio::sync::watch;

use crate::config::Config;
use crate::data_dir::DataDir;
use crate::exit::{Failure, OrUsage as _};
use crate::host::{self, Listen};
use crate::reconcile::{self, Stores};

/// How often a system that is starting looks whether one of its stages has given up.
const ENDED_POLL: Duration = Duration::from_millis(100);

/// Every stage, started.
pub(super) struct Stages {
    gateway: Gateway,
    analyzer: Analyzer,
    analytics: Analytics,
    alerter: Alerter,
    log: Service,
    stores: Stores,
    ruleset: String,
}

impl Stages {
    /// Starts all stages. What cannot start says why; nothing that was started before it has accepted
    /// anything yet.
    pub(super) async fn start(
        config: &Config,
        keys: ApiKeys,
        dir: &DataDir,
        listen: &Listen,
        registry: &Registry,
    ) -> Result<Self, Failure> {
        let ruleset = config.scoring.ruleset().or_usage()?;
        let summary = format!(
            "{} features, {} rules ({})",
            ruleset.feature_names().len(),
            ruleset.rule_ids().len(),
            ruleset.hash()
        );
        let (log_dir, log_config) = (dir.log(), config.log.clone());
        let embedded = tokio::task::spawn_blocking(move || EmbeddedLog::open(&log_dir, log_config))
            .await
            .context("opening the event log")?
            .with_context(|| format!("opening the event log in {}", dir.log().display()))
            .or_usage()?;
        embedded.register(registry).context("registering the event log's metrics")?;
        let embedded = Arc::new(embedded);
        let log: Arc<dyn EventLog> = embedded.clone();

        let mut gateway_config = config.gateway.clone();
        gateway_config.allow_anonymous_test_merchant = listen.is_loopback();
        gateway_config.redis = config.redis.clone();
        let tokeniser = dir.tokeniser(&config.gateway.token_keys_file).or_usage()?;
        let lists = ruleset.lists();
        let gateway =
            Gateway::start(gateway_config, keys, tokeniser, log.clone(), lists, dir.path(), registry)
                .context("starting the gateway")?;
        let analyzer = Analyzer::start(config.analyzer.clone(), ruleset, log.clone(), dir.path(), registry)
            .context("starting the fraud-analyzer")?;
        let analytics = Analytics::start(config.warehouse.clone(), log.clone(), &dir.warehouse(), registry)
            .context("starting the warehouse")?;
        let alerter = Alerter::start(config.alerter.clone(), log.clone(), &dir.alerter(), registry)
            .context("starting the alerter")
            .or_usage()?;
        let stores = Stores { ledger: gateway.ledger(), log, warehouse: analytics.warehouse() };
        Ok(Self {
            gateway,
            analyzer,
            analytics,
            alerter,
            log: host::log_service(async move { embedded.close().await }),
            stores,
            ruleset: summary,
        })
    }

    /// Which ruleset decides, and changing it.
    pub(super) fn rulesets(&self) -> Rulesets {
        self.analyzer.rulesets.clone()
    }

    /// The lists that the gateway takes changes to.
    pub(super) fn lists(&self) -> watch::Sender<Vec<ListDeclaration>> {
        self.gateway.lists()
    }

    /// What the rules of the start are made of.
    pub(super) fn ruleset_summary(&self) -> String {
        self.ruleset.clone()
    }

    /// The merchants' API; the page; and its data, queries and reconciliation for those with the scope.
    pub(super) fn router(&self, loopback: bool) -> Router {
        let analysts = self.analytics.router().merge(reconcile::router(self.stores.clone()));
        let analysts = analysts.route_layer(from_fn_with_state(self.guard(), guard_data));
        self.gateway.router().merge(analysts).merge(self.alerter.router(loopback))
    }

    /// The log that the stages share.
    pub(super) fn log(&self) -> Arc<dyn EventLog> {
        self.stores.log.clone()
    }

    /// Lets those through who may see the system's data.
    pub(super) fn guard(&self) -> ScopeGuard {
        self.gateway.scope_guard(Scope::Analytics)
    }

    /// Waits until transactions are accepted. Returns whether they are: not when a stage has ended.
    pub(super) async fn ready(&self) -> bool {
        loop {
            tokio::select! {
                ready = self.gateway.ready() => return ready,
                () = tokio::time::sleep(ENDED_POLL) => if self.any_ended() { return false },
            }
        }
    }

    fn any_ended(&self) -> bool {
        let services =
            [&self.gateway.service, &self.analyzer.service, &self.alerter.service, &self.analytics.service];
        services.iter().any(|service| service.task.is_finished())
    }

    /// The services in the order they are to be stopped: each after what it gets its work from.
    pub(super) fn into_services(self) -> Vec<Service> {
        vec![
            self.gateway.service,
            self.analyzer.service,
            self.alerter.service,
            self.analytics.service,
            self.log,
        ]
    }
}

/// The page itself is for everyone, so that it can ask for a key; what it shows is under `/v1/`.
async fn guard_data(guard: State<ScopeGuard>, request: Request, next: Next) -> Response {
    if request.uri().path().starts_with("/v1/") {
        require_scope(guard, request, next).await
    } else {
        next.run(request).await
    }
}
