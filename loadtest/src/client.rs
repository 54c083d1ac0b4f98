//! One keep-alive HTTP/1.1 connection per worker: no pool, no locks, nothing that takes processor time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;

pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

const RESOLVE_DEADLINE: Duration = Duration::from_secs(5);
/// A connection idle for longer is replaced before use: the server may be about to close it.
const IDLE_LIMIT: Duration = Duration::from_secs(2);
/// Longest answer that is kept; the rest is read and dropped.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// Where requests go.
#[derive(Debug)]
pub(crate) struct Target {
    addresses: Vec<SocketAddr>,
    prefix: String,
    headers: HeaderMap,
    submit: Uri,
}

impl Target {
    /// Resolves a base URL such as `http://127.0.0.1:8080`.
    pub(crate) async fn resolve(url: &str, api_key: Option<&str>) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("reading the URL {url:?}"))?;
        ensure!(
            uri.scheme_str() == Some("http"),
            "the URL {url:?} does not begin with http://: the load generator speaks plain HTTP, put TLS in front of it"
        );
        let authority = uri.authority().with_context(|| format!("the URL {url:?} names no host"))?;
        let (host, port) = (authority.host().trim_matches(['[', ']']), authority.port_u16().unwrap_or(80));
        let addresses = tokio::time::timeout(RESOLVE_DEADLINE, tokio::net::lookup_host((host, port)))
            .await
            .with_context(|| format!("looking up {host}: no answer in {} s", RESOLVE_DEADLINE.as_secs()))?
            .with_context(|| format!("looking up {host}"))?
            .collect();
        let prefix = uri.path().trim_end_matches('/').to_owned();
        let submit = format!("{prefix}/v1/transactions").parse().context("the path of the URL")?;
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_str(authority.as_str()).context("the host of the URL")?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(key) = api_key {
            let mut value = HeaderValue::from_str(&format!("Bearer {key}"))
                .context("the API key holds characters that no HTTP header can carry")?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        Ok(Self { addresses, prefix, headers, submit })
    }

    /// The request that submits a transaction.
    pub(crate) fn submission(&self, idempotency_key: &str, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.submit.clone();
        *request.headers_mut() = self.headers.clone();
        let key = HeaderValue::from_str(idempotency_key).expect("generated keys are letters and digits");
        request.headers_mut().insert(IDEMPOTENCY_KEY, key);
        request
    }

    /// Any request: `headers` replace the usual ones of the same name.
    pub(crate) fn request(
        &self,
        method: Method,
        path: &str,
        headers: &HeaderMap,
        body: Bytes,
    ) -> anyhow::Result<Request<Full<Bytes>>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() =
            format!("{}{path}", self.prefix).parse().with_context(|| format!("the path {path}"))?;
        *request.headers_mut() = self.headers.clone();
        for (name, value) in headers {
            request.headers_mut().insert(name, value.clone());
        }
        Ok(request)
    }
}

/// Why there was no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// No connection could be made.
    Connect,
    /// The connection broke before the answer was complete.
    Lost,
    /// The answer is not HTTP.
    BadAnswer,
    /// No answer in time.
    Timeout,
}

/// An answer, whatever its status.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) body: Bytes,
}

/// One connection, made when it is needed and made anew after it broke.
pub(crate) struct Line {
    target: Arc<Target>,
    sender: Option<SendRequest<Full<Bytes>>>,
    used: Instant,
}

impl Line {
    pub(crate) fn new(target: Arc<Target>) -> Self {
        Self { target, sender: None, used: Instant::now() }
    }

    /// Sends a request and reads the whole answer, in `timeout`.
    pub(crate) async fn exchange(
        &mut self,
        request: Request<Full<Bytes>>,
        timeout: Duration,
    ) -> Result<Answer, Failure> {
        let sender =
            self.sender.take().filter(|sender| !sender.is_closed() && self.used.elapsed() < IDLE_LIMIT);
        let result = match tokio::time::timeout(timeout, exchange(&self.target, sender, request)).await {
            Ok(Ok((sender, answer))) => {
                self.sender = Some(sender);
                Ok(answer)
            }
            Ok(Err(failure)) => Err(failure),
            // Dropping the sender closes the connection: a late answer cannot be taken for the next one's.
            Err(_) => Err(Failure::Timeout),
        };
        self.used = Instant::now();
        result
    }

    /// Makes the connection now.
    pub(crate) async fn connect(&mut self, timeout: Duration) -> Result<(), Failure> {
        let sender = tokio::time::timeout(timeout, connect(&self.target)).await;
        self.sender = Some(sender.map_err(|_| Failure::Timeout)??);
        self.used = Instant::now();
        Ok(())
    }
}

async fn connect(target: &Target) -> Result<SendRequest<Full<Bytes>>, Failure> {
    let stream = TcpStream::connect(&target.addresses[..]).await.map_err(|_| Failure::Connect)?;
    stream.set_nodelay(true).map_err(|_| Failure::Connect)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|_| Failure::Connect)?;
    // Ends with the connection; what went wrong is told to the sender.
    tokio::spawn(connection);
    Ok(sender)
}

async fn exchange(
    target: &Target,
    sender: Option<SendRequest<Full<Bytes>>>,
    mut request: Request<Full<Bytes>>,
) -> Result<(SendRequest<Full<Bytes>>, Answer), Failure> {
    if let Some(mut sender) = sender
        && sender.ready().await.is_ok()
    {
        match sender.try_send_request(request).await {
            Ok(response) => return read(sender, response).await,
            // Not one byte of it was sent: the server had closed the idle connection.
            Err(mut error) => match error.take_message() {
                Some(unsent) => request = unsent,
                None => return Err(failure_of(error.error())),
            },
        }
    }
    let mut sender = connect(target).await?;
    sender.ready().await.map_err(|error| failure_of(&error))?;
    let response = sender.send_request(request).await.map_err(|error| failure_of(&error))?;
    read(sender, response).await
}

async fn read(
    sender: SendRequest<Full<Bytes>>,
    response: Response<Incoming>,
) -> Result<(SendRequest<Full<Bytes>>, Answer), Failure> {
    let (head, mut incoming) = response.into_parts();
    let mut first = Bytes::new();
    let mut more = BytesMut::new();
    while let Some(frame) = incoming.frame().await {
        let Ok(data) = frame.map_err(|error| failure_of(&error))?.into_data() else { continue };
        if first.is_empty() {
            first = data;
        } else if first.len() + more.len() + data.len() <= MAX_ANSWER_BYTES {
            more.extend_from_slice(&data);
        }
    }
    let body = if more.is_empty() { first } else { [&first[..], &more[..]].concat().into() };
    let retry_after =
        head.headers.get(RETRY_AFTER).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    let answer =
        Answer { status: head.status.as_u16(), retry_after: retry_after.map(Duration::from_secs), body };
    Ok((sender, answer))
}

fn failure_of(error: &hyper::Error) -> Failure {
    if error.is_parse() { Failure::BadAnswer } else { Failure::Lost }
}
