//! The outermost layer: names the request, counts and times it, and finishes error answers.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderValue, Method};
use axum::middleware::Next;
use axum::response::Response;
use events::TransactionId;
use runtime::scope::{self, Scope};
use runtime::trace::{self, Span, TraceContext};
use uuid::Uuid;

use crate::auth::Caller;
use crate::problem;
use crate::request::looks_like_card_number;
use crate::state::App;

const REQUEST_ID_MAX: usize = 64;
/// Asked by load balancers every second or so, and of no use in a trace.
const UNTRACED: &str = "/health";
/// The route label of requests that no route matches.
const UNMATCHED: &str = "unmatched";

/// Names one request in its answer and in the logs.
#[derive(Debug, Clone)]
pub struct RequestId(String);

impl RequestId {
    /// The header that carries it, both ways.
    pub const HEADER: &'static str = "x-request-id";

    /// The id a caller sent, when it is harmless, else a new one.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let sent = headers.get(Self::HEADER).and_then(|value| value.to_str().ok()).filter(|id| {
            (1..=REQUEST_ID_MAX).contains(&id.len())
                && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
                && !looks_like_card_number(id)
        });
        Self(sent.map_or_else(|| format!("req_{}", Uuid::new_v4().simple()), str::to_owned))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn header_value(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0).expect("letters, digits and `-_.` only")
    }
}

/// When the head of a request had been read: deadlines and latencies count from here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StartedAt(pub(crate) Instant);

pub(crate) async fn observe(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = RequestId::of(request.headers());
    // The template, never the path: a path holds whatever a caller wrote into it.
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = method_label(request.method());
    request.extensions_mut().insert(id.clone());
    request.extensions_mut().insert(StartedAt(started));
    let route = route.as_ref().map_or(UNMATCHED, MatchedPath::as_str);
    let span = trace_of(&request, method, route);
    let context = span.as_ref().map(Span::context);
    let scope = Scope { request_id: Some(id.as_str().into()), trace: context, transaction_id: None };
    let response = scope::within(scope, next.run(request)).await;

    let (mut response, kind) = problem::finish(response, &id);
    response.headers_mut().insert(RequestId::HEADER, id.header_value());
    let status = response.status();
    let class = ["1xx", "2xx", "3xx", "4xx", "5xx"][usize::from(status.as_u16() / 100).clamp(1, 5) - 1];
    app.metrics.requests.with_label_values(&[route, method, class]).inc();
    app.metrics.request_seconds.with_label_values(&[route]).observe(started.elapsed().as_secs_f64());
    if let Some(kind) = kind {
        app.metrics.rejected.with_label_values(&[kind.name()]).inc();
    }
    let transaction_id = response.extensions().get::<TransactionId>().map(tracing::field::display);
    let (request_id, trace_id, status_code) =
        (id.as_str(), context.map(TraceContext::trace_id), status.as_u16());
    if status.is_server_error() {
        tracing::warn!(
            request_id,
            trace_id,
            transaction_id,
            route,
            method,
            status = status_code,
            "request failed"
        );
    } else {
        tracing::debug!(request_id, trace_id, transaction_id, route, method, status = status_code, "request");
    }
    if let Some(span) = span {
        end(span, &id, &response);
    }
    response
}

/// The request's span, if it is sampled.
fn trace_of(request: &Request, method: &'static str, route: &str) -> Option<Span> {
    if route == UNTRACED {
        return None;
    }
    let incoming = request.headers().get(trace::HEADER).map(HeaderValue::as_bytes);
    let mut span = trace::begin("gateway", incoming)?;
    span.rename(format!("{method} {route}"));
    span.set("http.request.method", method);
    span.set("http.route", route.to_owned());
    Some(span)
}

fn end(mut span: Span, id: &RequestId, response: &Response) {
    let status = response.status();
    span.set("http.response.status_code", i64::from(status.as_u16()));
    span.set("http.request.id", id.as_str().to_owned());
    if let Some(id) = response.extensions().get::<TransactionId>() {
        span.set("transaction.id", id.to_string());
    }
    if let Some(caller) = response.extensions().get::<Arc<Caller>>() {
        span.set("merchant.id", caller.merchant.as_str().to_owned());
    }
    if status.is_server_error() {
        span.fail(status.canonical_reason().unwrap_or("server error"));
    }
}

fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        _ => "other",
    }
}
