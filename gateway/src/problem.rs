//! Every error answer: RFC 9457 `application/problem+json`. Nothing in it repeats what a caller sent.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::observe::RequestId;

/// A kind of problem: its status, its `type` and its `title` belong together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 400: the body is not JSON of the expected kind, or a header cannot be read.
    MalformedRequest,
    /// 401: no key, or an unknown or revoked one.
    Unauthenticated,
    /// 403: the key lacks a scope.
    Forbidden,
    /// 404: no such route, or no such transaction of this merchant.
    NotFound,
    /// 405: the route does not know the method.
    MethodNotAllowed,
    /// 408: the body did not arrive in time.
    RequestTimeout,
    /// 409: the same idempotency key is being worked on.
    InProgress,
    /// 410: it was there, and its record has been removed since.
    Gone,
    /// 413: the body is too large.
    BodyTooLarge,
    /// 415: the body is not of a media type the route reads.
    UnsupportedMediaType,
    /// 422: fields are missing or wrong.
    Validation,
    /// 422: the idempotency key belongs to another request.
    IdempotencyMismatch,
    /// 429: too many requests.
    RateLimited,
    /// 500: a defect.
    Internal,
    /// 503: nothing was accepted; try again.
    Unavailable,
}

impl Kind {
    /// The HTTP status.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::MalformedRequest => StatusCode::BAD_REQUEST,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::InProgress => StatusCode::CONFLICT,
            Self::Gone => StatusCode::GONE,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Validation | Self::IdempotencyMismatch => StatusCode::UNPROCESSABLE_ENTITY,
            Self::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The end of the `type` URN, and the label in metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::MalformedRequest => "malformed-request",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not-found",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::RequestTimeout => "request-timeout",
            Self::InProgress => "request-in-progress",
            Self::Gone => "gone",
            Self::BodyTooLarge => "body-too-large",
            Self::UnsupportedMediaType => "unsupported-media-type",
            Self::Validation => "validation",
            Self::IdempotencyMismatch => "idempotency-mismatch",
            Self::RateLimited => "rate-limited",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
        }
    }

    const fn urn(self) -> &'static str {
        match self {
            Self::MalformedRequest => "urn:paystream:problem:malformed-request",
            Self::Unauthenticated => "urn:paystream:problem:unauthenticated",
            Self::Forbidden => "urn:paystream:problem:forbidden",
            Self::NotFound => "urn:paystream:problem:not-found",
            Self::MethodNotAllowed => "urn:paystream:problem:method-not-allowed",
            Self::RequestTimeout => "urn:paystream:problem:request-timeout",
            Self::InProgress => "urn:paystream:problem:request-in-progress",
            Self::Gone => "urn:paystream:problem:gone",
            Self::BodyTooLarge => "urn:paystream:problem:body-too-large",
            Self::UnsupportedMediaType => "urn:paystream:problem:unsupported-media-type",
            Self::Validation => "urn:paystream:problem:validation",
            Self::IdempotencyMismatch => "urn:paystream:problem:idempotency-mismatch",
            Self::RateLimited => "urn:paystream:problem:rate-limited",
            Self::Internal => "urn:paystream:problem:internal",
            Self::Unavailable => "urn:paystream:problem:unavailable",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::MalformedRequest => "The request cannot be read",
            Self::Unauthenticated => "No valid API key",
            Self::Forbidden => "The API key may not do this",
            Self::NotFound => "Not found",
            Self::MethodNotAllowed => "Method not allowed",
            Self::RequestTimeout => "The request took too long to arrive",
            Self::InProgress => "The same request is being worked on",
            Self::Gone => "No longer kept",
            Self::BodyTooLarge => "The body is too large",
            Self::UnsupportedMediaType => "Unsupported media type",
            Self::Validation => "Fields are missing or wrong",
            Self::IdempotencyMismatch => "The idempotency key belongs to another request",
            Self::RateLimited => "Too many requests",
            Self::Internal => "Internal error",
            Self::Unavailable => "Temporarily unavailable",
        }
    }

    /// The kind for an answer that axum or a middleware made without one.
    fn of_status(status: StatusCode) -> Option<Self> {
        Some(match status {
            StatusCode::BAD_REQUEST => Self::MalformedRequest,
            StatusCode::NOT_FOUND => Self::NotFound,
            StatusCode::METHOD_NOT_ALLOWED => Self::MethodNotAllowed,
            StatusCode::REQUEST_TIMEOUT => Self::RequestTimeout,
            StatusCode::PAYLOAD_TOO_LARGE => Self::BodyTooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Self::UnsupportedMediaType,
            StatusCode::TOO_MANY_REQUESTS => Self::RateLimited,
            StatusCode::SERVICE_UNAVAILABLE => Self::Unavailable,
            status if status.is_server_error() => Self::Internal,
            _ => return None,
        })
    }
}

/// One wrong field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldError {
    /// Where it stands in the body: a JSON pointer (RFC 6901).
    pub pointer: Cow<'static, str>,
    /// The header it came in, when it did not come in the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<&'static str>,
    /// A stable code for programs.
    pub code: &'static str,
    /// A sentence for people. Never holds the value.
    pub message: Cow<'static, str>,
}

/// An error answer.
#[derive(Debug, Clone)]
pub struct Problem(Box<Content>);

#[derive(Debug, Clone)]
struct Content {
    kind: Kind,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    retry_after_s: Option<u64>,
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
}

impl Problem {
    /// A problem with what happened and what to do now, in a sentence or two.
    pub fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Content { kind, detail: detail.into(), errors: Vec::new(), retry_after_s: None }))
    }

    pub(crate) fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.0.errors = errors;
        self
    }

    pub(crate) fn retry_after_s(mut self, seconds: u64) -> Self {
        self.0.retry_after_s = Some(seconds.max(1));
        self
    }

    /// What kind of problem it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.0.kind
    }

    /// The answer's body.
    pub(crate) fn document(&self, request_id: Option<&str>) -> Vec<u8> {
        let content = &*self.0;
        let document = Document {
            kind: content.kind.urn(),
            title: content.kind.title(),
            status: content.kind.status().as_u16(),
            detail: &content.detail,
            request_id,
            errors: &content.errors,
        };
        serde_json::to_vec(&document).expect("a problem has string keys and no maps")
    }

    fn response(&self, request_id: Option<&str>) -> Response {
        let mut response = Response::new(Body::from(self.document(request_id)));
        *response.status_mut() = self.0.kind.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.0.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.0.kind == Kind::Unauthenticated {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl IntoResponse for Problem {
    /// The answer without a request id: the outermost layer, which knows it, writes the body again.
    fn into_response(self) -> Response {
        let mut response = self.response(None);
        response.extensions_mut().insert(self);
        response
    }
}

/// The answer to a problem in a request with a known id.
#[must_use]
pub fn render(problem: &Problem, request_id: &RequestId) -> Response {
    let mut response = problem.response(Some(request_id.as_str()));
    response.headers_mut().insert(RequestId::HEADER, request_id.header_value());
    response
}

/// Marks an error answer that is what it has to be already.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Finished;

/// Makes a problem document of any error answer, with the request's id in it. Headers that the answer
/// has already (`Allow`, `RateLimit`) stay.
pub(crate) fn finish(response: Response, request_id: &RequestId) -> (Response, Option<Kind>) {
    let status = response.status();
    let failed = status.is_client_error() || status.is_server_error();
    if !failed || response.extensions().get::<Finished>().is_some() {
        return (response, None);
    }
    let problem = match response.extensions().get::<Problem>() {
        Some(problem) => problem.clone(),
        None => match Kind::of_status(status) {
            Some(kind) => Problem::new(kind, kind.title()),
            None => return (response, None),
        },
    };
    let kind = problem.kind();
    let mut finished = problem.response(Some(request_id.as_str()));
    for (name, value) in response.headers() {
        if !finished.headers().contains_key(name) && name != header::CONTENT_LENGTH {
            finished.headers_mut().append(name, value.clone());
        }
    }
    (finished, Some(kind))
}

/// The answer to a panic in a handler: the panic's message goes nowhere, it could hold anything.
#[allow(clippy::needless_pass_by_value)] // the signature tower-http asks for
pub(crate) fn of_panic(_panic: Box<dyn std::any::Any + Send + 'static>) -> Response {
    tracing::error!("a handler panicked: this is a defect, please report it");
    internal().into_response()
}

pub(crate) fn internal() -> Problem {
    Problem::new(
        Kind::Internal,
        "Something went wrong here. Try again with the same idempotency key; if it stays, give us the \
         request id.",
    )
}

/// For a router's fallback: no such route.
pub async fn no_such_route() -> Response {
    Problem::new(Kind::NotFound, "There is no such route. The API reference lists them.").into_response()
}

/// For a router's fallback when the route exists: not with this method.
pub async fn no_such_method() -> Response {
    Problem::new(Kind::MethodNotAllowed, "The route does not know this method: see `Allow`.").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_urn_of_a_kind_ends_in_its_name() {
        for kind in [
            Kind::MalformedRequest,
            Kind::Unauthenticated,
            Kind::Forbidden,
            Kind::NotFound,
            Kind::MethodNotAllowed,
            Kind::RequestTimeout,
            Kind::InProgress,
            Kind::Gone,
            Kind::BodyTooLarge,
            Kind::UnsupportedMediaType,
            Kind::Validation,
            Kind::IdempotencyMismatch,
            Kind::RateLimited,
            Kind::Internal,
            Kind::Unavailable,
        ] {
            assert_eq!(kind.urn(), format!("urn:paystream:problem:{}", kind.name()));
        }
    }
}
