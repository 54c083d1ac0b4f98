//! `paystream up`: every stage in one process.

mod banner;
mod listen;
mod local;
mod reload;
mod stages;

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use gateway::{ApiKeys, Scope};
use runtime::http::HttpMetrics;
use runtime::signals::Hangups;
use runtime::trace::Traces;
use runtime::{Readiness, Service, telemetry};
use tokio_util::sync::CancellationToken;

use self::banner::Banner;
use self::listen::Listen;
use self::reload::Reloader;
use self::stages::Stages;
use crate::cli::{Global, UpArgs};
use crate::config::{self, Config};
use crate::data_dir::{DataDir, Held, Holder};
use crate::exit::{Failure, OrUsage as _, Outcome};
use crate::output;

/// Whose transactions are those sent with the key of the first start.
const TEST_MERCHANT: &str = "test";
/// What the last spans of traces get to be sent in, after everything else has stopped.
const LAST_SPANS: Duration = Duration::from_secs(3);

pub(crate) fn run(global: &Global, args: UpArgs) -> Outcome {
    let mut config = config::load(global.config.as_deref())?.value;
    apply(args, &mut config).or_usage()?;
    telemetry::init(&config.telemetry, global.color.into()).or_usage()?;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if config.server.worker_threads > 0 {
        builder.worker_threads(config.server.worker_threads);
    }
    let runtime = builder.enable_all().build().context("starting the asynchronous runtime")?;
    let traces = Traces::start(&config.telemetry, "paystream", runtime.handle()).or_usage()?;
    let outcome = runtime.block_on(up(&config, &traces));
    traces.stop(LAST_SPANS);
    // What the shutdown deadline cut off must not hold up the end.
    runtime.shutdown_timeout(Duration::from_millis(100));
    outcome
}

/// The command line goes before the configuration.
fn apply(args: UpArgs, config: &mut Config) -> anyhow::Result<()> {
    if let Some(dir) = args.data_dir {
        config.server.data_dir = dir;
    }
    if let Some(listen) = args.listen {
        config.server.listen = listen;
    }
    if args.demo || args.no_demo {
        config.demo.enabled = args.demo;
    }
    if let Some(rate) = args.demo_rate {
        if !(0.001..=10_000.0).contains(&rate) {
            return Err(anyhow!("--demo-rate {rate}: give 0.001 to 10000 transactions per second"));
        }
        config.demo.rate_per_s = rate;
    }
    Ok(())
}

/// Starts the stages in the order data flows, serves until asked to stop, and stops them in that order.
async fn up(config: &Config, traces: &Traces) -> Outcome {
    let stop = runtime::signals::listen().context("listening for signals")?;
    // From here on SIGHUP does not end the process.
    let hangups = Hangups::listen().context("listening for SIGHUP")?;
    let dir = DataDir::new(&config.server.data_dir);
    dir.create().or_usage()?;
    let mut held = dir.hold().or_usage()?;
    let listen = Listen::bind(&config.server).await.or_usage()?;
    let keys = ApiKeys::load(&dir.api_keys()).or_usage()?;
    admit(&keys, &listen, config)?;

    let registry = prometheus::Registry::new();
    traces.register(&registry).context("registering the metrics of traces")?;
    let readiness = Readiness::default();
    readiness.set_not_ready("gateway", "catching up with the log");
    let stages = Stages::start(config, keys.clone(), &dir, &listen, &registry).await?;
    let urls = listen.urls();
    let metrics = HttpMetrics::new(&registry).context("registering the server's metrics")?;
    let reloader =
        Reloader { scoring: config.scoring.clone(), rulesets: stages.rulesets(), lists: stages.lists() };
    let operators = reloader.router();
    reloader.heed(hangups, stop.clone());
    let limits = config.server.limits();
    let router = stages.router(listen.is_loopback());
    let (serving, admin) = listen.serve(router, operators, &registry, &readiness, limits, metrics);
    let mut services = vec![serving];
    let ready = tokio::select! {
        ready = stages.ready() => ready,
        () = stop.cancelled() => false,
    };
    let ruleset = stages.ruleset_summary();
    services.extend(stages.into_services());
    services.extend(admin);

    if ready {
        readiness.set_ready("gateway");
        let first_key = first_key(&keys)?;
        announce(&mut held, &urls)?;
        let banner = Banner { config, dir: &dir, urls: &urls, ruleset: &ruleset, first_key };
        if let Err(error) = output::print(&banner.to_string()) {
            tracing::warn!("{error:#}: serving all the same");
        }
        tracing::info!(url = urls.api, data_dir = %dir.path().display(), "paystream is up");
        if config.demo.enabled {
            services.insert(0, demo(urls.api.clone(), config.demo.rate_per_s));
        }
    }
    not_ready_once(&stop, &readiness);
    let deadline = Duration::from_millis(config.server.shutdown_deadline_ms);
    runtime::service::run_until(services, stop, deadline).await?;
    tracing::info!("stopped");
    drop(held);
    Ok(())
}

/// Who may call: anyone on loopback, holders of keys elsewhere.
fn admit(keys: &ApiKeys, listen: &Listen, config: &Config) -> Outcome {
    if listen.is_loopback() {
        return Ok(());
    }
    if keys.is_empty() {
        return Err(Failure::Usage(anyhow!(
            "{} is not a loopback address and there are no API keys: anyone could call. Make one first with \
             `paystream keys create --data-dir {}`, or listen on 127.0.0.1",
            config.server.listen,
            config.server.data_dir.display()
        )));
    }
    if config.demo.enabled {
        return Err(Failure::Usage(anyhow!(
            "made-up traffic is for loopback addresses: leave --demo away, or listen on 127.0.0.1"
        )));
    }
    Ok(())
}

/// A key to begin with, when there has never been one. Made only once it can be shown.
fn first_key(keys: &ApiKeys) -> Result<Option<String>, Failure> {
    if !keys.list().is_empty() {
        return Ok(None);
    }
    let merchant = TEST_MERCHANT.parse().expect("`test` is a merchant id");
    Ok(Some(keys.create(&merchant, false, &Scope::USUAL).or_usage()?))
}

/// Writes down where the system can be reached, for `paystream query` and `reconcile`.
fn announce(held: &mut Held, urls: &listen::Urls) -> anyhow::Result<()> {
    held.announce(&Holder {
        pid: std::process::id(),
        url: Some(urls.api.clone()),
        metrics_url: urls.metrics.clone(),
    })
}

/// Made-up traffic, sent over HTTP as anyone else's.
fn demo(url: String, rate_per_s: f64) -> Service {
    let stop = CancellationToken::new();
    let token = stop.clone();
    let task = tokio::spawn(async move { ::loadtest::run_demo(&url, rate_per_s, token, None).await });
    Service { name: "demo", stop, task }
}

/// Takes the process out of its load balancer as soon as it is asked to stop.
fn not_ready_once(stop: &CancellationToken, readiness: &Readiness) {
    let (stop, readiness) = (stop.clone(), readiness.clone());
    tokio::spawn(async move {
        stop.cancelled().await;
        readiness.set_not_ready("process", "stopping");
    });
}
