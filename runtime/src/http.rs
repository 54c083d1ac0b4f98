//! Serving an axum router with deadlines, limits and a graceful end.
//!
//! `axum::serve` has no deadline for a client that sends its request slowly, no limit of connections
//! and no deadline for the end; this has.

mod body;
mod refuse;
mod stall;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderValue, Request, Response, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus::{IntCounter, IntGauge, Registry};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service as _;

pub use body::BodyTimedOut;
use stall::StallGuard;

/// How long to wait before accepting again when the process is out of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);
/// Refusals being written at the same time; past that a connection is closed without an answer.
const MAX_REFUSALS: usize = 64;

/// What one listener allows its clients.
#[derive(Debug, Clone)]
pub struct HttpLimits {
    /// For the whole request head, from when the connection waits for it; so it is also how long a
    /// connection may stay idle between two requests.
    pub header_read_timeout: Duration,
    /// For the whole request body, from when its first byte is waited for.
    pub body_read_timeout: Duration,
    /// For a client that takes nothing of its answer.
    pub write_stall_timeout: Duration,
    /// Connections at the same time; the ones past it are answered 503 with `Retry-After` and closed.
    pub max_connections: usize,
    /// What requests under way get to finish in once the server is asked to stop.
    pub drain_timeout: Duration,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            header_read_timeout: Duration::from_secs(30),
            body_read_timeout: Duration::from_secs(10),
            write_stall_timeout: Duration::from_secs(30),
            max_connections: 4_096,
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// What the HTTP server counts.
#[derive(Debug, Clone)]
pub struct HttpMetrics {
    connections: IntGauge,
    refused: IntCounter,
}

impl HttpMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// When they are registered already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self::unregistered();
        registry.register(Box::new(metrics.connections.clone()))?;
        registry.register(Box::new(metrics.refused.clone()))?;
        Ok(metrics)
    }

    fn unregistered() -> Self {
        let valid = "the name is a valid metric name";
        Self {
            connections: IntGauge::new("paystream_http_connections", "Open client connections.")
                .expect(valid),
            refused: IntCounter::new(
                "paystream_http_connections_refused_total",
                "Connections answered 503 or closed because server.max_connections were open.",
            )
            .expect(valid),
        }
    }
}

/// Serves `router` on `listener` until `stop` is cancelled, then lets requests under way finish within
/// the drain timeout. Handlers find the client's address as [`ConnectInfo`]`<SocketAddr>`. A
/// `text/event-stream` answer ends when the server is asked to stop: it would never end by itself.
///
/// # Errors
/// None at present: a failed accept is logged and tried again.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: HttpLimits,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    serve_measured(listener, router, limits, HttpMetrics::unregistered(), stop).await
}

/// [`serve`], counting into `metrics`.
///
/// # Errors
/// As [`serve`].
pub async fn serve_measured(
    listener: TcpListener,
    router: Router,
    limits: HttpLimits,
    metrics: HttpMetrics,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let server = Arc::new(Server {
        router,
        permits: Arc::new(Semaphore::new(limits.max_connections)),
        refusals: Arc::new(Semaphore::new(MAX_REFUSALS)),
        limits,
        metrics,
        stop,
        abort: CancellationToken::new(),
        tasks: TaskTracker::new(),
    });
    loop {
        tokio::select! {
            () = server.stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => server.admit(stream, peer),
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed: trying again");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            },
        }
    }
    drop(listener);
    server.drain().await;
    Ok(())
}

struct Server {
    router: Router,
    permits: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    limits: HttpLimits,
    metrics: HttpMetrics,
    stop: CancellationToken,
    /// Cancelled when the time to drain is over.
    abort: CancellationToken,
    tasks: TaskTracker,
}

impl Server {
    /// Serves the connection in a task of its own, or refuses it when there are enough.
    fn admit(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            let server = Arc::clone(self);
            self.tasks.spawn(async move { server.connection(stream, peer, permit).await });
            return;
        }
        self.metrics.refused.inc();
        if let Ok(permit) = Arc::clone(&self.refusals).try_acquire_owned() {
            tracing::debug!(%peer, "connection refused: server.max_connections are open");
            self.tasks.spawn(async move {
                refuse::too_many_connections(stream).await;
                drop(permit);
            });
        }
    }

    async fn connection(&self, stream: TcpStream, peer: SocketAddr, permit: OwnedSemaphorePermit) {
        self.metrics.connections.inc();
        // Answers are small: waiting to fill a packet would only delay them.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%peer, %error, "TCP_NODELAY could not be set");
        }
        let io = TokioIo::new(StallGuard::new(stream, self.limits.write_stall_timeout));
        let service = service_fn(|request| self.respond(request, peer));
        let mut connection = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(self.limits.header_read_timeout)
                .serve_connection(io, service)
        );
        let mut stopping = false;
        let ended = loop {
            tokio::select! {
                ended = connection.as_mut() => break ended,
                () = self.stop.cancelled(), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
                () = self.abort.cancelled() => break Ok(()),
            }
        };
        if let Err(error) = ended {
            // Clients go away and send nonsense; neither is this server's failure.
            tracing::debug!(%peer, %error, "connection ended");
        }
        self.metrics.connections.dec();
        drop(permit);
    }

    async fn respond(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
    ) -> Result<Response<Body>, Infallible> {
        let deadline = self.limits.body_read_timeout;
        // Reading a body whose sender waits for leave to send it would give that leave.
        let expects = request.headers().contains_key(header::EXPECT);
        let mut rest = None;
        let mut request = request.map(|incoming| {
            let (body, of_body) = body::ReadDeadline::new(incoming, deadline);
            rest = Some(of_body);
            Body::new(body)
        });
        request.extensions_mut().insert(ConnectInfo(peer));
        let mut response = self.router.clone().call(request).await?;
        if let Some(rest) = rest
            && (expects && !rest.is_done() || !rest.discard().await)
        {
            // Said before it happens, so that the client sends its next request elsewhere.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if body::is_event_stream(&response) {
            let stop = self.stop.clone();
            return Ok(response.map(|inner| Body::new(body::UntilStopped::new(inner, stop))));
        }
        Ok(response)
    }

    async fn drain(&self) {
        self.tasks.close();
        if tokio::time::timeout(self.limits.drain_timeout, self.tasks.wait()).await.is_err() {
            tracing::warn!(
                connections = self.tasks.len(),
                "requests still under way after {:?}: closing their connections",
                self.limits.drain_timeout
            );
            self.abort.cancel();
            self.tasks.wait().await;
        }
    }
}

#[cfg(test)]
mod tests;
