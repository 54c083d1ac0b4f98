//! What any serving process has: its directory, its address, its metrics, and an orderly end.

mod listen;
mod local;
mod reload;

use std::time::Duration;

use ::gateway::ApiKeys;
use anyhow::{Context as _, anyhow};
use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use prometheus::Registry;
use runtime::http::HttpMetrics;
use runtime::trace::Traces;
use runtime::{Readiness, Service, telemetry};
use serde_json::json;
use tokio_util::sync::CancellationToken;

pub(crate) use self::listen::{Listen, Urls};
pub(crate) use self::reload::Reloader;
use crate::cli::Global;
use crate::config::Config;
use crate::data_dir::{DataDir, Held, Holder};
use crate::exit::{Failure, OrUsage as _, Outcome};

/// What the newest spans get to be sent in at the end.
const LAST_SPANS: Duration = Duration::from_secs(3);

/// What the process has before its stages start.
pub(crate) struct Host {
    pub(crate) stop: CancellationToken,
    pub(crate) dir: DataDir,
    pub(crate) registry: Registry,
    pub(crate) readiness: Readiness,
    pub(crate) listen: Listen,
    held: Held,
    shutdown_deadline: Duration,
}

/// A process whose routes are served.
pub(crate) struct Serving {
    pub(crate) urls: Urls,
    pub(crate) stop: CancellationToken,
    /// Those that serve: they stop first …
    pub(crate) first: Vec<Service>,
    /// … and last.
    pub(crate) last: Vec<Service>,
    held: Held,
    readiness: Readiness,
    shutdown_deadline: Duration,
}

/// Starts logging and the asynchronous runtime, and runs in it. `role` is which of the processes this is.
pub(crate) fn run(
    global: &Global,
    config: &Config,
    role: &'static str,
    main: impl AsyncFnOnce(&Traces) -> Outcome,
) -> Outcome {
    telemetry::init(&config.telemetry, global.color.into()).or_usage()?;
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if config.server.worker_threads > 0 {
        builder.worker_threads(config.server.worker_threads);
    }
    let runtime = builder.enable_all().build().context("starting the asynchronous runtime")?;
    let traces = Traces::start(&config.telemetry, role, runtime.handle()).or_usage()?;
    let outcome = runtime.block_on(main(&traces));
    traces.stop(LAST_SPANS);
    // What the shutdown deadline cut off must not hold up the end.
    runtime.shutdown_timeout(Duration::from_millis(100));
    outcome
}

/// A log as a service, given how it is closed: last to stop, because everyone writes to it.
pub(crate) fn log_service(close: impl Future<Output = ()> + Send + 'static) -> Service {
    let stop = CancellationToken::new();
    let asked = stop.clone();
    let task = tokio::spawn(async move {
        asked.cancelled().await;
        close.await;
        Ok(())
    });
    Service { name: "log", stop, task }
}

/// Who may call: anyone on loopback, holders of keys elsewhere.
pub(crate) fn admit(keys: &ApiKeys, listen: &Listen, config: &Config) -> Outcome {
    if listen.is_loopback() {
        return Ok(());
    }
    if keys.is_empty() {
        let file = &config.gateway.api_keys_file;
        let dir = config.server.data_dir.display();
        let arguments =
            if file.as_os_str().is_empty() { format!(" --data-dir {dir}") } else { String::new() };
        return Err(Failure::Usage(anyhow!(
            "{} is not a loopback address and there are no API keys: anyone could call. Make one first with \
             `paystream keys create{arguments}`, or listen on 127.0.0.1",
            config.server.listen,
        )));
    }
    if config.demo.enabled {
        return Err(Failure::Usage(anyhow!(
            "made-up traffic is for loopback addresses: leave --demo away, or listen on 127.0.0.1"
        )));
    }
    Ok(())
}

impl Host {
    /// Takes the directory and the address. `role` is which of the processes on one directory this is.
    pub(crate) async fn open(config: &Config, role: &str, traces: &Traces) -> Result<Self, Failure> {
        let stop = runtime::signals::listen().context("listening for signals")?;
        let dir = DataDir::new(&config.server.data_dir);
        dir.create().or_usage()?;
        let held = dir.hold(role).or_usage()?;
        let listen = Listen::bind(&config.server).await.or_usage()?;
        let registry = Registry::new();
        traces.register(&registry).context("registering the metrics of traces")?;
        Ok(Self {
            stop,
            dir,
            registry,
            readiness: Readiness::default(),
            listen,
            held,
            shutdown_deadline: Duration::from_millis(config.server.shutdown_deadline_ms),
        })
    }

    /// Serves the routes, and those for whoever runs the system.
    pub(crate) fn serve(self, config: &Config, router: Router, operators: Router) -> anyhow::Result<Serving> {
        let Self { stop, registry, readiness, listen, held, shutdown_deadline, .. } = self;
        let urls = listen.urls();
        let metrics = HttpMetrics::new(&registry).context("registering the server's metrics")?;
        let limits = config.server.limits();
        let (http, admin) = listen.serve(router, operators, &registry, &readiness, limits, metrics);
        let last = admin.into_iter().collect();
        Ok(Serving { urls, stop, first: vec![http], last, held, readiness, shutdown_deadline })
    }
}

impl Host {
    /// Serves routes that are for whoever runs the system, and for nobody else: the address is not to be reachable
    /// from outside.
    pub(crate) fn serve_internal(self, config: &Config, operators: Router) -> anyhow::Result<Serving> {
        let metrics = runtime::admin::metrics(self.registry.clone());
        let beside = self.listen.serves_operators();
        let router = if beside { Router::new() } else { metrics.merge(operators.clone()) };
        self.serve(config, router, operators)
    }
}

impl Serving {
    /// Writes down where the process can be reached, for the other commands.
    pub(crate) fn announce(&mut self) -> anyhow::Result<()> {
        self.held.announce(&Holder {
            pid: std::process::id(),
            url: Some(self.urls.api.clone()),
            metrics_url: self.urls.metrics.clone(),
        })
    }

    /// Says that a part of it works.
    pub(crate) fn set_ready(&self, part: &'static str) {
        self.readiness.set_ready(part);
    }

    /// Runs until asked to stop; then stops what serves, then `stages` in their order.
    pub(crate) async fn until_stopped(self, stages: Vec<Service>) -> Outcome {
        let Self { stop, mut first, last, held, readiness, shutdown_deadline, .. } = self;
        // Out of its load balancer as soon as it is asked to stop.
        let asked = stop.clone();
        tokio::spawn(async move {
            asked.cancelled().await;
            readiness.set_not_ready("process", "stopping");
        });
        first.extend(stages);
        first.extend(last);
        runtime::service::run_until(first, stop, shutdown_deadline).await?;
        tracing::info!("stopped");
        drop(held);
        Ok(())
    }
}

/// An answer of the operators' routes that says what is wrong.
pub(crate) fn problem(status: StatusCode, title: &str, detail: &str, errors: &[String]) -> Response {
    let mut body =
        json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail });
    if !errors.is_empty() {
        body["errors"] = json!(errors);
    }
    (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
}
