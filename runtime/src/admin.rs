//! `/healthz`, `/readyz` and `/metrics`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use prometheus::{Registry, TextEncoder};
use serde::Serialize;

use crate::process;

/// Which parts of the process are ready to serve. Cheap to clone; clones share what they know.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    parts: Arc<Mutex<BTreeMap<&'static str, Result<(), String>>>>,
}

impl Readiness {
    /// Notes that a part is ready.
    pub fn set_ready(&self, name: &'static str) {
        self.parts().insert(name, Ok(()));
    }

    /// Notes that a part is not ready, and why.
    pub fn set_not_ready(&self, name: &'static str, reason: impl Into<String>) {
        self.parts().insert(name, Err(reason.into()));
    }

    /// Whether every part that was named is ready.
    ///
    /// # Errors
    /// The parts that are not, each with its reason.
    pub fn check(&self) -> Result<(), BTreeMap<&'static str, String>> {
        let problems: BTreeMap<_, _> = self
            .parts()
            .iter()
            .filter_map(|(name, state)| Some((*name, state.as_ref().err()?.clone())))
            .collect();
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    fn parts(&self) -> MutexGuard<'_, BTreeMap<&'static str, Result<(), String>>> {
        // A map of strings cannot be left half-changed by a panic elsewhere.
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The routes for those who run the process: those of [`health`] and [`metrics`].
pub fn router(registry: Registry, readiness: Readiness) -> Router {
    health(readiness).merge(metrics(registry))
}

/// `/healthz` (it lives) and `/readyz` (it can serve; 503 with the problems otherwise).
pub fn health(readiness: Readiness) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready).with_state(readiness))
}

/// `/metrics`, as Prometheus text.
pub fn metrics(registry: Registry) -> Router {
    Router::new().route("/metrics", get(scrape).with_state(registry))
}

#[derive(Serialize)]
struct Ready {
    status: &'static str,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    problems: BTreeMap<&'static str, String>,
}

async fn ready(State(readiness): State<Readiness>) -> Response {
    match readiness.check() {
        Ok(()) => Json(Ready { status: "ready", problems: BTreeMap::new() }).into_response(),
        Err(problems) => {
            let body = Json(Ready { status: "not_ready", problems });
            (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
        }
    }
}

async fn scrape(State(registry): State<Registry>) -> Response {
    match TextEncoder::new().encode_to_string(&registry.gather()) {
        Ok(mut text) => {
            text.push_str(&process::metrics());
            ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "metrics cannot be encoded");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    async fn fetch(router: &Router, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn ready_only_when_every_part_is_and_the_problems_are_listed_otherwise() {
        let readiness = Readiness::default();
        let router = router(Registry::new(), readiness.clone());
        readiness.set_not_ready("analyzer", "recovering: 40 %");
        readiness.set_ready("gateway");
        let (status, body) = fetch(&router, "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body, r#"{"status":"not_ready","problems":{"analyzer":"recovering: 40 %"}}"#);

        readiness.set_ready("analyzer");
        assert_eq!(fetch(&router, "/readyz").await, (StatusCode::OK, r#"{"status":"ready"}"#.to_owned()));
        assert_eq!(fetch(&router, "/healthz").await, (StatusCode::OK, "ok\n".to_owned()));
    }

    #[tokio::test]
    async fn metrics_are_the_registrys_and_the_processs() {
        let registry = Registry::new();
        let counter = prometheus::IntCounter::new("paystream_test_total", "A test.").unwrap();
        registry.register(Box::new(counter.clone())).unwrap();
        counter.inc_by(3);
        let (status, body) = fetch(&router(registry, Readiness::default()), "/metrics").await;
        assert_eq!(status, StatusCode::OK);
        assert!(body.contains("\npaystream_test_total 3\n"), "{body}");
        if cfg!(target_os = "linux") {
            for name in ["process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds"] {
                let line = body.lines().find(|line| line.starts_with(&format!("{name} "))).expect(name);
                let value: f64 = line.rsplit(' ').next().unwrap().parse().unwrap();
                assert!(value.is_finite() && value >= 0.0, "{line}");
            }
            assert!(!body.contains("process_resident_memory_bytes 0\n"));
        }
    }
}
