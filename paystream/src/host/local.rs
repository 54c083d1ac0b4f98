//! On loopback a request without a key is believed. This keeps pages of other sites, open in a browser on
//! the same machine, from using that: by a request across sites, or by a host name that is made to point
//! to this machine.

use axum::body::Body;
use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::Response;

const BODY: &str = r#"{"type":"about:blank","title":"Forbidden","status":403,"detail":"This request came from another site's page or by a host name that is not this machine's. Without an API key only localhost may call: send `Authorization: Bearer sk_…`."}"#;

/// Middleware: a request without credentials has to name this machine as its host, and a page of this
/// machine as its origin if any.
pub(super) async fn refuse_foreign_pages(request: Request, next: Next) -> Response {
    if is_trustworthy(request.headers(), request.uri()) {
        return next.run(request).await;
    }
    let mut response = Response::new(Body::from(BODY));
    *response.status_mut() = StatusCode::FORBIDDEN;
    let media_type = header::HeaderValue::from_static("application/problem+json");
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}

fn is_trustworthy(headers: &HeaderMap, uri: &Uri) -> bool {
    if headers.contains_key(header::AUTHORIZATION) || headers.contains_key("x-api-key") {
        return true;
    }
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let host = uri.authority().map(Authority::as_str).or_else(|| text(header::HOST));
    let origin = text(header::ORIGIN).map(|origin| origin.split_once("://").map_or("", |(_, host)| host));
    host.is_none_or(is_this_machine) && origin.is_none_or(is_this_machine)
}

/// Whether `host` or `host:port` can only mean this machine.
fn is_this_machine(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<Authority>() else { return false };
    let host = authority.host();
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host.eq_ignore_ascii_case("localhost") || ip.is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted(headers: &[(&'static str, &str)]) -> bool {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), value.parse().unwrap()))
            .collect();
        is_trustworthy(&headers, &Uri::from_static("/v1/query"))
    }

    #[test]
    fn this_machine_is_trusted_and_other_names_and_sites_are_not() {
        for host in ["127.0.0.1:8080", "localhost:8080", "LocalHost", "[::1]:8080", "127.9.9.9"] {
            assert!(trusted(&[("host", host)]), "{host}");
        }
        for host in ["evil.example", "127.0.0.1.evil.example:8080", "localhost.evil.example", "10.0.0.1", ""]
        {
            assert!(!trusted(&[("host", host)]), "{host}");
        }
        assert!(trusted(&[("host", "localhost"), ("origin", "http://127.0.0.1:8080")]));
        assert!(!trusted(&[("host", "localhost"), ("origin", "https://evil.example")]));
        assert!(!trusted(&[("host", "localhost"), ("origin", "null")]));
    }

    #[test]
    fn a_key_is_judged_by_itself() {
        assert!(trusted(&[("host", "pay.example"), ("authorization", "Bearer sk_test_1")]));
        assert!(trusted(&[("host", "pay.example"), ("x-api-key", "sk_test_1")]));
    }
}
