//! Reading a request's headers and body, within limits.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use http_body_util::{BodyExt as _, Limited};

use crate::problem::{Kind, Problem};
use crate::request::IDEMPOTENCY_KEY;
use crate::state::Shared;

/// The largest body of all routes but the batch.
pub(crate) const BODY_BYTES_MAX: usize = 64 * 1024;

/// The head and the body of a request whose media type is one of `media_types`.
pub(crate) async fn read(
    app: &Shared,
    request: Request,
    media_types: &[&str],
    bytes_max: usize,
) -> Result<(Parts, Bytes), Problem> {
    let (parts, body) = request.into_parts();
    check_media_type(&parts.headers, media_types)?;
    let length =
        parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: u64| length > bytes_max as u64) {
        return Err(too_large(bytes_max));
    }
    let deadline = Duration::from_millis(app.config.body_deadline_ms);
    match tokio::time::timeout(deadline, collect(body, bytes_max)).await {
        Ok(read) => Ok((parts, read?)),
        Err(_elapsed) => Err(Problem::new(Kind::RequestTimeout, "The body did not arrive in time.")),
    }
}

async fn collect(body: Body, bytes_max: usize) -> Result<Bytes, Problem> {
    match Limited::new(body, bytes_max).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(too_large(bytes_max)),
        Err(_broken) => Err(Problem::new(Kind::MalformedRequest, "The body ended before it was complete.")),
    }
}

pub(crate) fn too_large(bytes_max: usize) -> Problem {
    Problem::new(Kind::BodyTooLarge, format!("The body is larger than {bytes_max} bytes."))
}

fn check_media_type(headers: &HeaderMap, known: &[&str]) -> Result<(), Problem> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let media_type = text(header::CONTENT_TYPE).map(|value| value.split(';').next().unwrap_or("").trim());
    let fits = media_type.is_some_and(|sent| known.iter().any(|known| sent.eq_ignore_ascii_case(known)));
    if !fits {
        let known = known.join(" or ");
        return Err(Problem::new(Kind::UnsupportedMediaType, format!("Send `Content-Type: {known}`.")));
    }
    match text(header::CONTENT_ENCODING) {
        None => Ok(()),
        Some(coding) if coding.eq_ignore_ascii_case("identity") => Ok(()),
        Some(_) => {
            Err(Problem::new(Kind::UnsupportedMediaType, "Send the body without a `Content-Encoding`."))
        }
    }
}

/// The `Idempotency-Key` header, which may be there once.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<&[u8]>, Problem> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    let key = keys.next().map(axum::http::HeaderValue::as_bytes);
    if keys.next().is_some() {
        return Err(Problem::new(Kind::MalformedRequest, "Send one `Idempotency-Key` header."));
    }
    Ok(key)
}

/// Whether the caller asked, by `Prefer: respond-async`, not to wait for the decision.
pub(crate) fn prefers_async(headers: &HeaderMap) -> bool {
    headers
        .get_all("prefer")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split([',', ';']))
        .any(|preference| preference.trim().eq_ignore_ascii_case("respond-async"))
}
