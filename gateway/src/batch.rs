//! Many transactions in one request: each line is accepted or refused on its own.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use futures::StreamExt as _;
use serde_json::value::RawValue;

use crate::accept::{self, Call};
use crate::answer::Answer;
use crate::auth::Caller;
use crate::body;
use crate::handlers::started_at;
use crate::observe::RequestId;
use crate::problem::{Kind, Problem};
use crate::request::Form;
use crate::state::App;

const NDJSON: &str = "application/x-ndjson";
const MEDIA_TYPES: &[&str] = &["application/json", NDJSON];
const BODY_BYTES_MAX: usize = 1024 * 1024;
const LINES_MAX: usize = 1_000;
/// Lines of one batch that are under way at once: more would take the places of other requests.
const CONCURRENT_LINES: usize = 64;
const RESULT_BYTES: usize = 640;

/// `POST /v1/transactions/batch`: a JSON array or one object per line; one result per line, in order.
pub(crate) async fn submit_batch(
    State(app): State<App>,
    Extension(caller): Extension<Arc<Caller>>,
    Extension(request_id): Extension<RequestId>,
    request: Request,
) -> Result<Response, Problem> {
    // A line's deadline counts from when its turn comes; the whole batch has the longest one.
    let latest = started_at(&request) + app.decision_deadline_max();
    let (parts, bytes) = body::read(&app, request, MEDIA_TYPES, BODY_BYTES_MAX).await?;
    if body::idempotency_key(&parts.headers)?.is_some() {
        let detail = "A batch has no `Idempotency-Key` header: give each line its `idempotency_key`.";
        return Err(Problem::new(Kind::MalformedRequest, detail));
    }
    let asynchronous = body::prefers_async(&parts.headers);
    let lines = split(&bytes)?;
    app.check_open()?;
    charge(&app, &caller, lines.len())?;
    let (app, caller, request_id) = (&app, &caller, &request_id);
    let results: Vec<Vec<u8>> = futures::stream::iter(lines)
        .map(|(number, line)| async move {
            let call = Call {
                caller,
                form: Form::Canonical,
                header_key: None,
                asynchronous,
                started: Instant::now(),
                latest,
            };
            let result = accept::submit(app, &line, &call).await;
            if let Err(problem) = &result {
                app.metrics.rejected.with_label_values(&[problem.kind().name()]).inc();
            }
            render(number, result, request_id)
        })
        .buffered(CONCURRENT_LINES)
        .collect()
        .await;
    let mut response = Response::new(Body::from(results.concat()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(NDJSON));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    *response.status_mut() = StatusCode::OK;
    Ok(response)
}

/// A batch costs as many requests as it has lines; one is paid already.
fn charge(app: &App, caller: &Caller, lines: usize) -> Result<(), Problem> {
    let cost = u32::try_from(lines.saturating_sub(1)).unwrap_or(u32::MAX);
    match app.key_limiter.take(caller.bucket, cost, Instant::now()) {
        Ok(_) => Ok(()),
        Err(exceeded) => Err(exceeded.problem()),
    }
}

/// The lines with their numbers, from 1: of the file for NDJSON, of the array for an array.
fn split(body: &Bytes) -> Result<Vec<(usize, Bytes)>, Problem> {
    let lines: Vec<(usize, Bytes)> = if body.trim_ascii_start().starts_with(b"[") {
        let items: Vec<&RawValue> = serde_json::from_slice(body).map_err(|e| {
            let detail = format!("The body is not a JSON array (line {}, column {}).", e.line(), e.column());
            Problem::new(Kind::MalformedRequest, detail)
        })?;
        (1..).zip(items.into_iter().map(|item| body.slice_ref(item.get().as_bytes()))).collect()
    } else {
        let numbered = (1..).zip(body.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii));
        numbered
            .filter(|(_, line)| !line.is_empty())
            .map(|(number, line)| (number, body.slice_ref(line)))
            .collect()
    };
    match lines.len() {
        0 => Err(Problem::new(Kind::MalformedRequest, "The batch is empty.")),
        1..=LINES_MAX => Ok(lines),
        n => {
            let detail =
                format!("The batch has {n} lines, and at most {LINES_MAX} are taken. Nothing was accepted.");
            Err(Problem::new(Kind::BodyTooLarge, detail))
        }
    }
}

/// `{"line":1,"status":201,"body":{…}}` and a line feed.
fn render(number: usize, result: Result<Answer, Problem>, request_id: &RequestId) -> Vec<u8> {
    let (status, replayed, body) = match result {
        Ok(answer) => (answer.status, answer.replayed, answer.body),
        Err(problem) => (problem.kind().status(), false, problem.document(Some(request_id.as_str()))),
    };
    let mut line = Vec::with_capacity(RESULT_BYTES);
    let replayed = if replayed { r#""idempotent_replayed":true,"# } else { "" };
    write!(line, r#"{{"line":{number},"status":{},{replayed}"body":"#, status.as_u16())
        .expect("writing to a Vec cannot fail");
    line.extend(body);
    line.extend(b"}\n");
    line
}
