//! `paystream gateway|fraud-analyzer|alerter|analytics`: one stage as a process of its own, on Kafka.
//!
//! A stage is the same code as under `up`; what differs is the log it gets, and who its neighbours are.

use std::sync::{Arc, OnceLock};

use ::analytics::clickhouse::DistributedAnalytics;
use ::gateway::auth::{ScopeGuard, require_scope};
use ::gateway::{ApiKeys, Gateway, Scope};
use alerter::Alerter;
use anyhow::{Context as _, anyhow};
use axum::Router;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse as _;
use eventlog::{Change, EventLog, KafkaLog, Membership};
use fraud_analyzer::Analyzer;
use runtime::Service;
use runtime::signals::Hangups;
use runtime::trace::Traces;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::cli::{Global, ServiceArgs};
use crate::config::{self, Config};
use crate::exit::{Failure, OrUsage as _, Outcome};
use crate::host::{self, Host, Reloader, Serving};

/// A stage that can be a process of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Gateway,
    FraudAnalyzer,
    Alerter,
    Analytics,
}

impl Stage {
    const fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::FraudAnalyzer => "fraud-analyzer",
            Self::Alerter => "alerter",
            Self::Analytics => "analytics",
        }
    }

    /// Where it listens when nothing else is said.
    const fn listen(self) -> &'static str {
        match self {
            Self::Gateway => "127.0.0.1:8080",
            Self::FraudAnalyzer => "127.0.0.1:8081",
            Self::Alerter => "127.0.0.1:8082",
            Self::Analytics => "127.0.0.1:8083",
        }
    }
}

pub(crate) fn run(global: &Global, stage: Stage, args: ServiceArgs) -> Outcome {
    let loaded = config::load(global.config.as_deref())?;
    let listen_is_set = loaded.source_of("server.listen") != runtime::config::Source::Default;
    let mut config = loaded.value;
    if let Some(listen) = args.listen {
        config.server.listen = listen;
    } else if !listen_is_set {
        stage.listen().clone_into(&mut config.server.listen);
    }
    if let Some(dir) = args.data_dir {
        config.server.data_dir = dir;
    }
    if config.kafka.brokers.is_empty() {
        return Err(Failure::Usage(anyhow!(
            "kafka.brokers is empty: `paystream {}` is a part of the distributed system and needs Kafka; name its \
             brokers with PAYSTREAM__KAFKA__BROKERS=host:9092, or run everything in one process with `paystream up`",
            stage.name()
        )));
    }
    host::run(global, &config, stage.name(), async |traces| serve(&config, stage, traces).await)
}

async fn serve(config: &Config, stage: Stage, traces: &Traces) -> Outcome {
    let host = Host::open(config, stage.name(), traces).await?;
    let kafka = KafkaLog::open(config.kafka.clone()).await;
    let kafka = Arc::new(kafka.context("connecting to Kafka").or_usage()?);
    kafka.register(&host.registry).context("registering the metrics of Kafka's client")?;
    let log: Arc<dyn EventLog> = kafka.clone();
    match stage {
        Stage::Gateway => gateway(config, host, log, kafka).await,
        Stage::FraudAnalyzer => fraud_analyzer(config, host, log, kafka).await,
        Stage::Alerter => alerter(config, host, log, kafka).await,
        Stage::Analytics => analytics(config, host, log, kafka).await,
    }
}

async fn gateway(config: &Config, host: Host, log: Arc<dyn EventLog>, kafka: Arc<KafkaLog>) -> Outcome {
    let keys = ApiKeys::load(&host.dir.api_keys_or(&config.gateway.api_keys_file)).or_usage()?;
    host::admit(&keys, &host.listen, config)?;
    host.readiness.set_not_ready("gateway", "catching up with the log");
    let mut settings = config.gateway.clone();
    settings.allow_anonymous_test_merchant = host.listen.is_loopback();
    settings.redis = config.redis.clone();
    settings.other_gateways = true;
    let tokeniser = host.dir.tokeniser(&config.gateway.token_keys_file).or_usage()?;
    let lists = config.scoring.ruleset().or_usage()?.lists();
    let gateway = Gateway::start(settings, keys, tokeniser, log, lists, host.dir.path(), &host.registry)
        .context("starting the gateway")?;
    let stop = host.stop.clone();
    let mut serving = host.serve(config, gateway.router(), Router::new())?;
    let ready = tokio::select! {
        ready = gateway.ready() => ready,
        () = stop.cancelled() => false,
    };
    if ready {
        serving.set_ready("gateway");
        up(&mut serving, Stage::Gateway)?;
    }
    serving.until_stopped(vec![gateway.service, log_service(kafka)]).await
}

async fn fraud_analyzer(
    config: &Config,
    host: Host,
    log: Arc<dyn EventLog>,
    kafka: Arc<KafkaLog>,
) -> Outcome {
    // From here on SIGHUP does not end the process.
    let hangups = Hangups::listen().context("listening for SIGHUP")?;
    let ruleset = config.scoring.ruleset().or_usage()?;
    let analyzer = Analyzer::start(config.analyzer.clone(), ruleset, log, host.dir.path(), &host.registry)
        .context("starting the fraud-analyzer")?;
    let reloader =
        Reloader { scoring: config.scoring.clone(), rulesets: analyzer.rulesets.clone(), lists: None };
    let operators = reloader.router();
    reloader.heed(hangups, host.stop.clone());
    let mut serving = host.serve_internal(config, operators)?;
    up(&mut serving, Stage::FraudAnalyzer)?;
    serving.until_stopped(vec![analyzer.service, log_service(kafka)]).await
}

async fn alerter(config: &Config, host: Host, log: Arc<dyn EventLog>, kafka: Arc<KafkaLog>) -> Outcome {
    let (stop, loopback) = (host.stop.clone(), host.listen.is_loopback());
    let (dir, registry) = (host.dir.alerter(), host.registry.clone());
    // Served while standing by too, for health checks; what else is asked for waits for the turn.
    let active = Arc::new(OnceLock::new());
    let mut serving = host.serve_internal(config, once_active(active.clone()))?;
    up(&mut serving, Stage::Alerter)?;
    let mut stages = Vec::new();
    if let Some(seat) = Seat::take(&*log, Stage::Alerter, &stop).await? {
        let alerter = Alerter::start(config.alerter.clone(), log, &dir, &registry)
            .context("starting the alerter")
            .or_usage()?;
        active.get_or_init(|| alerter.router(loopback));
        stages.extend([alerter.service, seat.keep()]);
    }
    stages.push(log_service(kafka));
    serving.until_stopped(stages).await
}

/// Hands requests on to a router once there is one.
fn once_active(active: Arc<OnceLock<Router>>) -> Router {
    Router::new().fallback(async move |request: Request| match active.get() {
        Some(router) => router.clone().oneshot(request).await.into_response(),
        None => {
            (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "5")], "standing by\n").into_response()
        }
    })
}

async fn analytics(config: &Config, host: Host, log: Arc<dyn EventLog>, kafka: Arc<KafkaLog>) -> Outcome {
    if config.clickhouse.url.is_empty() {
        return Err(Failure::Usage(anyhow!(
            "clickhouse.url is empty: `paystream analytics` fills ClickHouse; name it with \
             PAYSTREAM__CLICKHOUSE__URL=http://host:8123"
        )));
    }
    let spool = host.dir.path().join("spool");
    let analytics = DistributedAnalytics::start(&config.clickhouse, log, spool, &host.registry)
        .context("starting the warehouse")?;
    // Queries are for holders of keys with the scope; without keys only for this machine.
    let keys = ApiKeys::load(&host.dir.api_keys_or(&config.gateway.api_keys_file)).or_usage()?;
    let guard = ScopeGuard::of_keys(keys, host.listen.is_loopback(), Scope::Analytics);
    let router = analytics.router().route_layer(from_fn_with_state(guard, require_scope));
    let mut serving = host.serve_internal(config, router)?;
    up(&mut serving, Stage::Analytics)?;
    serving.until_stopped(vec![analytics.service, log_service(kafka)]).await
}

/// Says where the process can be reached.
fn up(serving: &mut Serving, stage: Stage) -> anyhow::Result<()> {
    serving.announce()?;
    tracing::info!(url = serving.urls.api, "paystream {} is up", stage.name());
    Ok(())
}

/// A turn at what one process does at a time; others stand by.
struct Seat {
    membership: Box<dyn Membership>,
}

impl Seat {
    /// Waits for the turn. `None` when asked to stop before it came.
    async fn take(
        log: &dyn EventLog,
        stage: Stage,
        stop: &CancellationToken,
    ) -> anyhow::Result<Option<Self>> {
        let mut membership = log.join(stage.name(), 1).await.context("joining the others of this kind")?;
        tracing::info!("waiting for the turn of this process: one works at a time");
        loop {
            tokio::select! {
                change = membership.changed() => if let Change::Gained(_) = change? {
                    return Ok(Some(Self { membership }));
                },
                () = stop.cancelled() => {
                    membership.leave().await;
                    return Ok(None);
                }
            }
        }
    }

    /// Keeps the turn until asked to stop. A turn that is lost ends the process: its supervisor starts it again,
    /// to stand by.
    fn keep(self) -> Service {
        let stop = CancellationToken::new();
        let asked = stop.clone();
        let mut membership = self.membership;
        let task = tokio::spawn(async move {
            let ended = tokio::select! {
                change = membership.changed() => match change {
                    Ok(change) => Err(anyhow!("another process has taken over ({change:?}): this one ends")),
                    Err(error) => Err(error.into()),
                },
                () = asked.cancelled() => Ok(()),
            };
            membership.leave().await;
            ended
        });
        Service { name: "turn", stop, task }
    }
}

fn log_service(log: Arc<KafkaLog>) -> Service {
    host::log_service(async move { log.close().await })
}
