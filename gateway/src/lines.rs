//! Many things in one request: lines of JSON or an array, and one result for each, in order.

use std::io::Write as _;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::value::RawValue;

use crate::auth::Caller;
use crate::observe::RequestId;
use crate::problem::{Kind, Problem};
use crate::replicas::quotas::{self, Take};
use crate::state::Shared;

const NDJSON: &str = "application/x-ndjson";
pub(crate) const MEDIA_TYPES: &[&str] = &["application/json", NDJSON];
pub(crate) const BODY_BYTES_MAX: usize = 1024 * 1024;
const LINES_MAX: usize = 1_000;
const RESULT_BYTES: usize = 640;

/// Whether a body of one of the media types is to be taken line by line.
pub(crate) fn are_in(content_type: Option<&HeaderValue>, body: &[u8]) -> bool {
    let media_type =
        content_type.and_then(|value| value.to_str().ok()).and_then(|text| text.split(';').next());
    media_type.is_some_and(|text| text.trim().eq_ignore_ascii_case(NDJSON))
        || body.trim_ascii_start().starts_with(b"[")
}

/// What becomes of one line.
pub(crate) struct Outcome {
    pub(crate) status: StatusCode,
    /// Whether it was accepted before, under the same key.
    pub(crate) replayed: bool,
    pub(crate) body: Vec<u8>,
}

impl Outcome {
    pub(crate) fn refused(problem: &Problem, request_id: &RequestId) -> Self {
        let body = problem.document(Some(request_id.as_str()));
        Self { status: problem.kind().status(), replayed: false, body }
    }
}

/// Many things cost as many requests as they are; one is paid already.
pub(crate) async fn charge(app: &Shared, caller: &Caller, lines: usize) -> Result<(), Problem> {
    let cost = u32::try_from(lines.saturating_sub(1)).unwrap_or(u32::MAX);
    let take = Take { limiter: &app.key_limiter, caller: caller.bucket, cost };
    match quotas::take(app.redis.as_deref(), &[take]).await.first() {
        Some(Err(exceeded)) => Err(exceeded.problem()),
        _ => Ok(()),
    }
}

/// The lines with their numbers, from 1: of the file for NDJSON, of the array for an array.
pub(crate) fn split(body: &Bytes) -> Result<Vec<(usize, Bytes)>, Problem> {
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
pub(crate) fn render(number: usize, outcome: Outcome) -> Vec<u8> {
    let Outcome { status, replayed, body } = outcome;
    let mut line = Vec::with_capacity(RESULT_BYTES);
    let replayed = if replayed { r#""idempotent_replayed":true,"# } else { "" };
    write!(line, r#"{{"line":{number},"status":{},{replayed}"body":"#, status.as_u16())
        .expect("writing to a Vec cannot fail");
    line.extend(body);
    line.extend(b"}\n");
    line
}

/// The answer of all lines' results.
pub(crate) fn response(results: &[Vec<u8>]) -> Response {
    let mut response = Response::new(Body::from(results.concat()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(NDJSON));
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
