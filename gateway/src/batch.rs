//! Many transactions in one request: each line is accepted or refused on its own.

use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use futures::StreamExt as _;

use crate::accept::{self, Call};
use crate::auth::Caller;
use crate::body;
use crate::handlers::started_at;
use crate::lines::{self, Outcome};
use crate::observe::RequestId;
use crate::problem::{Kind, Problem};
use crate::request::Form;
use crate::state::App;

/// Lines of one batch that are under way at once: more would take the places of other requests.
const CONCURRENT_LINES: usize = 64;

/// `POST /v1/transactions/batch`: a JSON array or one object per line; one result per line, in order.
pub(crate) async fn submit_batch(
    State(app): State<App>,
    Extension(caller): Extension<Arc<Caller>>,
    Extension(request_id): Extension<RequestId>,
    request: Request,
) -> Result<Response, Problem> {
    // A line's deadline counts from when its turn comes; the whole batch has the longest one.
    let latest = started_at(&request) + app.decision_deadline_max();
    let (parts, bytes) = body::read(&app, request, lines::MEDIA_TYPES, lines::BODY_BYTES_MAX).await?;
    if body::idempotency_key(&parts.headers)?.is_some() {
        let detail = "A batch has no `Idempotency-Key` header: give each line its `idempotency_key`.";
        return Err(Problem::new(Kind::MalformedRequest, detail));
    }
    let asynchronous = body::prefers_async(&parts.headers);
    let lines = lines::split(&bytes)?;
    app.check_open()?;
    lines::charge(&app, &caller, lines.len()).await?;
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
            let outcome = match accept::submit(app, &line, &call).await {
                Ok(answer) => Outcome { status: answer.status, replayed: answer.replayed, body: answer.body },
                Err(problem) => {
                    app.metrics.rejected.with_label_values(&[problem.kind().name()]).inc();
                    Outcome::refused(&problem, request_id)
                }
            };
            lines::render(number, outcome)
        })
        .buffered(CONCURRENT_LINES)
        .collect()
        .await;
    Ok(lines::response(&results))
}
