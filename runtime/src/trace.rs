//! Traces: one for each transaction that is sampled.
//!
//! Whether there is one is decided once, where a transaction comes in ([`begin`]). From there on a
//! [`TraceContext`] goes with it, in memory and in the headers of records: where there is no context, no span is
//! made, so that what is not sampled costs nothing. Spans are handed to a bounded queue and sent by a thread of
//! their own; what has no room, or cannot be sent, is counted and dropped.

mod context;
mod export;
mod span;

use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, bail};
use opentelemetry::KeyValue;
pub use opentelemetry::trace::SpanKind as Kind;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{IdGenerator as _, RandomIdGenerator};
use prometheus::Registry;
use tokio::runtime::Handle;

pub use self::context::{HEADER, TraceContext};
use self::export::Queue;
pub use self::span::Span;
use crate::telemetry::TelemetryConfig;

/// Set once a process makes traces.
static TRACING: OnceLock<Tracing> = OnceLock::new();

#[derive(Debug)]
struct Tracing {
    queue: Queue,
    ids: RandomIdGenerator,
    ratio: f64,
    trust_incoming: bool,
}

/// The traces of this process: to be stopped before its asynchronous runtime ends.
#[derive(Debug)]
#[must_use = "without a stop the last spans are lost"]
pub struct Traces(Option<&'static Tracing>);

impl Traces {
    /// Starts sending spans, under the name `service` unless the configuration has another one. Does nothing
    /// while `telemetry.otlp_endpoint` is empty.
    ///
    /// # Errors
    /// When the endpoint cannot be used, or the process makes traces already.
    pub fn start(config: &TelemetryConfig, service: &'static str, runtime: &Handle) -> anyhow::Result<Self> {
        if config.otlp_endpoint.is_empty() {
            return Ok(Self(None));
        }
        let name = if config.service_name.is_empty() { service } else { &config.service_name };
        let resource = Resource::builder_empty()
            .with_service_name(name.to_owned())
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attribute(KeyValue::new("process.pid", i64::from(std::process::id())))
            .build();
        let tracing = Tracing {
            queue: Queue::start(&config.otlp_endpoint, &resource, runtime)
                .context("telemetry.otlp_endpoint")?,
            ids: RandomIdGenerator::default(),
            ratio: config.trace_sample_ratio,
            trust_incoming: config.trace_trust_incoming,
        };
        if TRACING.set(tracing).is_err() {
            bail!("this process makes traces already");
        }
        Ok(Self(TRACING.get()))
    }

    /// Registers what is counted of spans.
    ///
    /// # Errors
    /// When the metric is registered already.
    pub fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        self.0.map_or(Ok(()), |tracing| tracing.queue.register(registry))
    }

    /// Sends what waits, for at most this long. Blocks the thread.
    pub fn stop(self, deadline: Duration) {
        if let Some(tracing) = self.0 {
            tracing.queue.stop(deadline);
        }
    }
}

/// Begins the trace of a request in the share of cases that `telemetry.trace_sample_ratio` says. What the
/// request's own `traceparent` asks for counts only with `telemetry.trace_trust_incoming`.
///
/// `component` is the part of the system that does the work.
#[must_use]
pub fn begin(component: &'static str, incoming: Option<&[u8]>) -> Option<Span> {
    let tracing = TRACING.get()?;
    let (trace_id, parent, sampled) =
        match incoming.filter(|_| tracing.trust_incoming).and_then(context::parse) {
            Some((parent, sampled)) => (parent.trace_id, Some(parent.span_id), sampled),
            None => {
                let trace_id = tracing.ids.new_trace_id();
                (trace_id, None, context::is_sampled(trace_id, tracing.ratio))
            }
        };
    sampled.then(|| Span::new(tracing, component, Kind::Server, "request", trace_id, parent))
}

/// A span within the trace of `parent`; `None` when this process makes none.
#[must_use]
pub fn child(component: &'static str, kind: Kind, name: &'static str, parent: TraceContext) -> Option<Span> {
    let tracing = TRACING.get()?;
    Some(Span::new(tracing, component, kind, name, parent.trace_id, Some(parent.span_id)))
}

/// What to hand on in place of `parent`: the context of the span made within it, if there is one.
#[must_use]
pub fn carried(span: Option<&Span>, parent: Option<TraceContext>) -> Option<TraceContext> {
    span.map(Span::context).or(parent)
}
