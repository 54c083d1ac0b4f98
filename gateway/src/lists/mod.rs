//! Lists: which there are, and what is put on them and taken off again.
//!
//! - [`entry`]: one entry as a caller writes it.

mod entry;

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use eventlog::NewRecord;
use events::{ListAction, ListChange, ListDeclaration, ListScope, Message as _, topics};
use futures::StreamExt as _;
use serde::Serialize;

use crate::answer;
use crate::auth::Caller;
use crate::body;
use crate::lines::{self, Outcome};
use crate::observe::RequestId;
use crate::problem::{Kind, Problem};
use crate::publish::publish;
use crate::state::{App, Shared};

/// Transactions of one request that are read from the log at once.
const CONCURRENT_READS: usize = 16;
const NOT_WRITTEN: &str = "The list could not be changed. Send it again: that does no harm.";

/// `GET /v1/lists`: the lists there are.
pub(crate) async fn declared(State(app): State<App>) -> Response {
    #[derive(Serialize)]
    struct View<'a> {
        id: &'a str,
        kind: &'a str,
        description: &'a str,
    }
    let view = |list: &ListDeclaration| {
        serde_json::to_value(View {
            id: list.id.as_str(),
            kind: list.kind.as_str(),
            description: &list.description,
        })
        .expect("a list has string fields only")
    };
    let lists: Vec<_> = app.lists.borrow().iter().map(view).collect();
    answer::json(StatusCode::OK, serde_json::json!({ "lists": lists }).to_string().into_bytes())
}

/// `POST /v1/lists/{list}/entries`: 201 once the entry is durable, or a result for each of many.
pub(crate) async fn add(
    state: State<App>,
    caller: Extension<Arc<Caller>>,
    request_id: Extension<RequestId>,
    list: Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    change(state, caller, request_id, list, request, ListAction::Add).await
}

/// `POST /v1/lists/{list}/entries/remove`: by body, as values have no place in the logs of URLs.
pub(crate) async fn remove(
    state: State<App>,
    caller: Extension<Arc<Caller>>,
    request_id: Extension<RequestId>,
    list: Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    change(state, caller, request_id, list, request, ListAction::Remove).await
}

async fn change(
    State(app): State<App>,
    Extension(caller): Extension<Arc<Caller>>,
    Extension(request_id): Extension<RequestId>,
    Path(list): Path<String>,
    request: Request,
    action: ListAction,
) -> Result<Response, Problem> {
    let declared = app.lists.borrow().iter().find(|declared| declared.id.as_str() == list).cloned();
    let list = &declared.ok_or_else(|| {
        Problem::new(Kind::NotFound, "There is no list of this name. `GET /v1/lists` names those there are.")
    })?;
    let (parts, bytes) = body::read(&app, request, lines::MEDIA_TYPES, lines::BODY_BYTES_MAX).await?;
    let to = entry::To { app: &app, caller: &caller, list, action };
    if lines::are_in(parts.headers.get(header::CONTENT_TYPE), &bytes) {
        return many(&to, &request_id, &bytes).await;
    }
    if bytes.len() > body::BODY_BYTES_MAX {
        return Err(body::too_large(body::BODY_BYTES_MAX));
    }
    let change = to.read(&bytes).await?;
    write(&app, std::slice::from_ref(&change)).await?;
    Ok(answer::json(status(action), view(&change)))
}

/// Each line is taken or refused on its own; those that are taken become durable together.
async fn many(to: &entry::To<'_>, request_id: &RequestId, bytes: &Bytes) -> Result<Response, Problem> {
    let lines = lines::split(bytes)?;
    lines::charge(to.app, to.caller, lines.len()).await?;
    let read: Vec<(usize, Result<ListChange, Problem>)> = futures::stream::iter(lines)
        .map(|(number, line)| async move { (number, to.read(&line).await) })
        .buffered(CONCURRENT_READS)
        .collect()
        .await;
    let changes: Vec<ListChange> =
        read.iter().filter_map(|(_, change)| change.as_ref().ok().cloned()).collect();
    write(to.app, &changes).await?;
    let results = read.into_iter().map(|(number, change)| {
        let outcome = match change {
            Ok(change) => Outcome { status: status(to.action), replayed: false, body: view(&change) },
            Err(problem) => {
                to.app.metrics.rejected.with_label_values(&[problem.kind().name()]).inc();
                Outcome::refused(&problem, request_id)
            }
        };
        lines::render(number, outcome)
    });
    Ok(lines::response(&results.collect::<Vec<_>>()))
}

async fn write(app: &Shared, changes: &[ListChange]) -> Result<(), Problem> {
    if changes.is_empty() {
        return Ok(());
    }
    let record = |change: &ListChange| NewRecord {
        topic: topics::LISTS_CHANGED,
        key: Bytes::from(change.key()),
        value: Bytes::from(change.encode()),
        headers: Vec::new(),
        timestamp_ms: change.changed_at_us / 1_000,
    };
    publish(app, changes.iter().map(record).collect(), NOT_WRITTEN).await?;
    for change in changes {
        app.metrics.list_changes.with_label_values(&[change.list.as_str(), change.action.as_str()]).inc();
    }
    Ok(())
}

const fn status(action: ListAction) -> StatusCode {
    match action {
        ListAction::Add => StatusCode::CREATED,
        ListAction::Remove => StatusCode::OK,
    }
}

/// What the caller is told: the entry in the form it is compared in.
fn view(change: &ListChange) -> Vec<u8> {
    #[derive(Serialize)]
    struct View<'a> {
        list: &'a str,
        scope: &'static str,
        value: &'a str,
        action: ListAction,
        #[serde(skip_serializing_if = "Option::is_none")]
        expires_at: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        note: Option<&'a str>,
        changed_at: String,
    }
    let view = View {
        list: change.list.as_str(),
        scope: match change.scope {
            ListScope::All => "all",
            ListScope::Merchant { .. } => "merchant",
        },
        value: &change.value,
        action: change.action,
        expires_at: change.expires_at_us.map(answer::time_text),
        note: change.note.as_deref(),
        changed_at: answer::time_text(change.changed_at_us),
    };
    serde_json::to_vec(&view).expect("a change has string fields only")
}
