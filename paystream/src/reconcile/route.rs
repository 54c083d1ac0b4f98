//! `GET /v1/reconcile`.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use tokio::sync::Semaphore;

use super::Stores;

/// A reconciliation reads everything there is: one at a time is enough.
const MAX_AT_ONCE: usize = 1;
const RETRY_AFTER_S: &str = "5";

#[derive(Clone)]
struct Reconciler {
    stores: Stores,
    permits: Arc<Semaphore>,
}

/// The route, without access control.
pub(crate) fn router(stores: Stores) -> Router {
    let reconciler = Reconciler { stores, permits: Arc::new(Semaphore::new(MAX_AT_ONCE)) };
    Router::new().route("/v1/reconcile", get(reconcile)).with_state(reconciler)
}

async fn reconcile(State(reconciler): State<Reconciler>) -> Response {
    let Ok(_permit) = reconciler.permits.try_acquire() else {
        let detail = "Another reconciliation is under way. Try again when it is done.";
        let answer = problem(StatusCode::SERVICE_UNAVAILABLE, "Busy", detail);
        return ([(header::RETRY_AFTER, RETRY_AFTER_S)], answer).into_response();
    };
    match reconciler.stores.reconcile().await {
        Ok(report) => Json(report).into_response(),
        Err(error) => {
            tracing::error!("reconciliation failed: {error:#}");
            let detail = "A store could not be read; the server's log says which and why.";
            problem(StatusCode::INTERNAL_SERVER_ERROR, "Reconciliation failed", detail)
        }
    }
}

fn problem(status: StatusCode, title: &str, detail: &str) -> Response {
    let body = json!({ "type": "about:blank", "title": title, "status": status.as_u16(), "detail": detail });
    let media_type = [(header::CONTENT_TYPE, "application/problem+json")];
    (status, media_type, body.to_string()).into_response()
}
