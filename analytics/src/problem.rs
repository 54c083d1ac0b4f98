//! Errors of the API as RFC 9457 `application/problem+json`.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::engine::QueryError;

/// Sent with 503: how long to wait before trying again.
const RETRY_AFTER_S: &str = "2";

/// An error answer.
#[derive(Debug, Serialize)]
pub(crate) struct Problem {
    #[serde(rename = "type")]
    kind: &'static str,
    title: &'static str,
    #[serde(serialize_with = "as_number")]
    status: StatusCode,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
}

fn as_number<S: serde::Serializer>(status: &StatusCode, s: S) -> Result<S::Ok, S::Error> {
    s.serialize_u16(status.as_u16())
}

macro_rules! problems {
    ($($(#[$doc:meta])* $name:ident = $status:ident, $kind:literal, $title:literal;)*) => {
        impl Problem {
            $(
                $(#[$doc])*
                pub(crate) fn $name(detail: impl Into<String>) -> Self {
                    Self {
                        kind: concat!("urn:paystream:problem:", $kind),
                        title: $title,
                        status: StatusCode::$status,
                        detail: detail.into(),
                        request_id: None,
                    }
                }
            )*
        }
    };
}

problems! {
    /// The request cannot be understood.
    malformed = BAD_REQUEST, "malformed-request", "The request cannot be read";
    /// The SQL is wrong, or asks for what is not allowed.
    invalid_query = BAD_REQUEST, "invalid-query", "The query cannot be run";
    /// There is no such thing.
    not_found = NOT_FOUND, "not-found", "Not found";
    /// The body is too large.
    too_large = PAYLOAD_TOO_LARGE, "body-too-large", "The body is too large";
    /// The query ran into a limit.
    query_limit = UNPROCESSABLE_ENTITY, "query-limit", "The query exceeds a limit";
    /// The warehouse failed.
    internal = INTERNAL_SERVER_ERROR, "internal", "The warehouse cannot be read";
    /// No room now.
    unavailable = SERVICE_UNAVAILABLE, "unavailable", "Not available now";
}

impl Problem {
    /// With the id that the request's log lines carry.
    pub(crate) fn of(mut self, request: &RequestId) -> Self {
        self.request_id.clone_from(&request.0);
        self
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        let detail = error.to_string();
        match error {
            QueryError::Invalid(_) => Self::invalid_query(detail),
            QueryError::Deadline(_) | QueryError::TooLarge(_) => Self::query_limit(detail),
            QueryError::Busy => Self::unavailable(detail),
            // The reason names files of this machine: it is logged, not told.
            QueryError::Failed(_) => Self::internal("try again; the server's log says what failed"),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self).expect("a problem has string keys only");
        let json = HeaderValue::from_static("application/problem+json");
        let mut response = (self.status, [(header::CONTENT_TYPE, json)], body).into_response();
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
        }
        response
    }
}

/// The id a layer before this crate gave the request, if one did.
#[derive(Debug, Default)]
pub(crate) struct RequestId(Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for RequestId {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let id = parts.headers.get("x-request-id").and_then(|value| value.to_str().ok());
        Ok(Self(id.map(str::to_owned)))
    }
}
