//! From ended spans to the collector.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{
    Protocol, RetryPolicy, SpanExporter as Otlp, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanExporter, SpanProcessor as _,
};
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use tokio::runtime::Handle;

/// Where OTLP over HTTP takes traces, below the endpoint.
const PATH: &str = "/v1/traces";
/// Spans that may wait, some MiB of memory.
const QUEUE_SPANS: usize = 8_192;
const BATCH_SPANS: usize = 512;
const SEND_EVERY: Duration = Duration::from_secs(1);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// A collector that is away is spoken of this often.
const WARN_EVERY: Duration = Duration::from_secs(60);
/// More of an answer than this is not read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// The spans that wait to be sent, and the thread that sends them.
#[derive(Debug)]
pub(super) struct Queue {
    processor: BatchSpanProcessor,
    counts: Counts,
}

#[derive(Debug, Clone)]
struct Counts {
    /// Pushed, and not taken by the sender. Kept here because the processor does not tell what it drops.
    waiting: Arc<AtomicUsize>,
    all: IntCounterVec,
    sent: IntCounter,
    dropped: IntCounter,
    failed: IntCounter,
}

impl Queue {
    pub(super) fn start(endpoint: &str, resource: &Resource, runtime: &Handle) -> anyhow::Result<Self> {
        let base = endpoint.trim_end_matches('/');
        let url = if base.ends_with(PATH) { base.to_owned() } else { format!("{base}{PATH}") };
        let client = reqwest::Client::builder()
            .connect_timeout(REQUEST_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .context("cannot set up the HTTP client for traces")?;
        let otlp = Otlp::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_http_client(Client { client, runtime: runtime.clone() })
            .with_endpoint(&url)
            .with_timeout(REQUEST_TIMEOUT)
            // A second attempt covers a collector's restart; what comes after it is newer and worth more.
            .with_retry_policy(RetryPolicy::recommended().with_max_retries(1))
            .build()
            .with_context(|| format!("cannot send traces to {url}"))?;
        let counts = Counts::new()?;
        let exporter = Exporter { otlp, counts: counts.clone(), url, warned: Mutex::new(None) };
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE_SPANS)
            .with_max_export_batch_size(BATCH_SPANS)
            .with_scheduled_delay(SEND_EVERY)
            .build();
        let mut processor = BatchSpanProcessor::new(exporter, batches);
        processor.set_resource(resource);
        Ok(Self { processor, counts })
    }

    /// Never waits: a span that finds no room is counted and dropped.
    pub(super) fn push(&self, span: SpanData) {
        if self.counts.waiting.fetch_add(1, Ordering::Relaxed) >= QUEUE_SPANS {
            self.counts.waiting.fetch_sub(1, Ordering::Relaxed);
            self.counts.dropped.inc();
        } else {
            self.processor.on_end(span);
        }
    }

    pub(super) fn register(&self, registry: &Registry) -> prometheus::Result<()> {
        registry.register(Box::new(self.counts.all.clone()))
    }

    pub(super) fn stop(&self, deadline: Duration) {
        let stopped = self.processor.shutdown_with_timeout(deadline);
        // What ends after this has nobody to be sent by.
        let waiting = self.counts.waiting.swap(QUEUE_SPANS, Ordering::Relaxed);
        if let Err(error) = stopped {
            tracing::warn!(waiting, %error, "the last spans of traces were not sent");
        }
    }
}

impl Counts {
    fn new() -> prometheus::Result<Self> {
        let all = IntCounterVec::new(
            Opts::new(
                "paystream_telemetry_spans_total",
                "Spans of traces by what became of them: sent, dropped (the queue was full) or failed (the \
                 collector did not take them).",
            ),
            &["result"],
        )?;
        let of = |result| all.with_label_values(&[result]);
        let (sent, dropped, failed) = (of("sent"), of("dropped"), of("failed"));
        Ok(Self { waiting: Arc::default(), sent, dropped, failed, all })
    }
}

/// Counts what is sent, and says now and then that something is wrong.
#[derive(Debug)]
struct Exporter {
    otlp: Otlp,
    counts: Counts,
    url: String,
    warned: Mutex<Option<Instant>>,
}

impl Exporter {
    fn warn(&self, error: &impl std::fmt::Display) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            *warned = Some(Instant::now());
            let lost = self.counts.failed.get() + self.counts.dropped.get();
            tracing::warn!(
                url = self.url,
                lost,
                "traces cannot be sent: {error}. Nothing else is affected; see that the collector is up, or set \
                 telemetry.otlp_endpoint"
            );
        }
    }
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        self.counts.waiting.fetch_sub(count, Ordering::Relaxed);
        let result = self.otlp.export(batch).await;
        match &result {
            Ok(()) => self.counts.sent.inc_by(count as u64),
            Err(error) => {
                self.counts.failed.inc_by(count as u64);
                self.warn(error);
            }
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.otlp.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.otlp.set_resource(resource);
    }
}

/// Sends on the asynchronous runtime: the exporter's thread has none.
#[derive(Debug)]
struct Client {
    client: reqwest::Client,
    runtime: Handle,
}

#[async_trait::async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let request = reqwest::Request::try_from(request)?;
        let client = self.client.clone();
        // Once the runtime is gone the task is, too, and the answer is an error.
        self.runtime.spawn(exchange(client, request)).await?
    }
}

async fn exchange(client: reqwest::Client, request: reqwest::Request) -> Result<Response<Bytes>, HttpError> {
    let mut answer = client.execute(request).await?;
    let mut response = Response::builder().status(answer.status());
    if let Some(headers) = response.headers_mut() {
        *headers = std::mem::take(answer.headers_mut());
    }
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            break;
        }
        body.extend_from_slice(&chunk);
    }
    Ok(response.body(Bytes::from(body))?)
}
