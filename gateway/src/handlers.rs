//! What the routes for single transactions do.

use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;

use crate::accept::{self, Call};
use crate::answer::{self, Answer, Progress};
use crate::auth::Caller;
use crate::body::{self, BODY_BYTES_MAX};
use crate::observe::StartedAt;
use crate::problem::Problem;
use crate::request::Form;
use crate::state::{App, Door};
use crate::stored::{Stored, own};

const JSON: &[&str] = &["application/json"];

/// `POST /v1/transactions`
pub(crate) async fn submit_canonical(
    State(app): State<App>,
    Extension(caller): Extension<Arc<Caller>>,
    request: Request,
) -> Result<Answer, Problem> {
    submit(&app, &caller, request, Form::Canonical).await
}

/// `POST /transaction`
pub(crate) async fn submit_short(
    State(app): State<App>,
    Extension(caller): Extension<Arc<Caller>>,
    request: Request,
) -> Result<Answer, Problem> {
    submit(&app, &caller, request, Form::Short).await
}

async fn submit(app: &App, caller: &Caller, request: Request, form: Form) -> Result<Answer, Problem> {
    let started = started_at(&request);
    let (parts, bytes) = body::read(app, request, JSON, BODY_BYTES_MAX).await?;
    let call = Call {
        caller,
        form,
        header_key: body::idempotency_key(&parts.headers)?,
        asynchronous: body::prefers_async(&parts.headers),
        started,
        latest: started + app.decision_deadline_max(),
    };
    accept::submit(app, &bytes, &call).await
}

pub(crate) fn started_at(request: &Request) -> Instant {
    request.extensions().get::<StartedAt>().map_or_else(Instant::now, |started| started.0)
}

/// `GET /v1/transactions/{id}` and `GET /transaction/{id}`
pub(crate) async fn show(
    State(app): State<App>,
    Extension(caller): Extension<Arc<Caller>>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let (id, known) = own(&app, &caller, &id).await?;
    let body = match Stored::read(&app, id, known).await? {
        Stored::Pending(transaction) => answer::body(&transaction, &Progress::Pending),
        Stored::Decided(body) => body,
    };
    Ok(answer::json(StatusCode::OK, body))
}

/// `GET /health`: whether this gateway takes transactions, for load balancers.
pub(crate) async fn health(State(app): State<App>) -> Response {
    let (status, body) = match *app.door.borrow() {
        Door::Open => (StatusCode::OK, r#"{"status":"ok"}"#),
        Door::Starting => (StatusCode::SERVICE_UNAVAILABLE, r#"{"status":"starting"}"#),
        Door::Recovering => (StatusCode::SERVICE_UNAVAILABLE, r#"{"status":"recovering"}"#),
        Door::Closed => (StatusCode::SERVICE_UNAVAILABLE, r#"{"status":"stopping"}"#),
    };
    let mut response = answer::json(status, body.as_bytes().to_vec());
    // Not a problem document: a load balancer reads the status, a person the word.
    response.extensions_mut().insert(crate::problem::Finished);
    response
}
