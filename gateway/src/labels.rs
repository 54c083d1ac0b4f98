//! A merchant says what a transaction turned out to be.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use eventlog::NewRecord;
use events::{Label, LabelSource, Message as _, Verdict, topics};
use serde::Serialize;

use crate::accept::ledger_failed;
use crate::answer;
use crate::auth::Caller;
use crate::body::{self, BODY_BYTES_MAX};
use crate::problem::Problem;
use crate::publish::publish;
use crate::request::{Errors, Flaw, FreeText, Object};
use crate::state::{App, unavailable};
use crate::stored::own;

const NOTE: FreeText = FreeText { chars_max: 500 };

#[derive(Serialize)]
struct View<'a> {
    transaction_id: events::TransactionId,
    verdict: Verdict,
    source: LabelSource,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'a str>,
    labelled_at: String,
}

/// `POST /v1/transactions/{id}/labels`: 201 once the label is durable.
pub(crate) async fn label(
    State(app): State<App>,
    Extension(caller): Extension<Arc<Caller>>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (id, _) = own(&app, &caller, &id).await?;
    let (_, bytes) = body::read(&app, request, &["application/json"], BODY_BYTES_MAX).await?;
    let (verdict, note) = parse(&bytes)?;
    let decided = app.ledger.decided(id).map_err(|e| ledger_failed(&e))?;
    let decided =
        decided.ok_or_else(|| unavailable("The transaction has no decision yet. Send the label again."))?;
    let label = Label {
        transaction_id: id,
        window_time_us: decided.window_time_us,
        // One key, so one partition in every topic.
        source_partition: decided.position.partition,
        merchant_id: caller.merchant.clone(),
        verdict,
        source: LabelSource::Merchant,
        labelled_at_us: app.clock.now_us(),
        note,
    };
    let record = NewRecord {
        topic: topics::LABELLED,
        key: Bytes::from(id.to_string()),
        value: Bytes::from(label.encode()),
        headers: Vec::new(),
        timestamp_ms: label.labelled_at_us / 1_000,
    };
    publish(&app, vec![record], "The label could not be written. Send it again.").await?;
    app.metrics.labelled.inc();
    let view = View {
        transaction_id: id,
        verdict,
        source: label.source,
        note: label.note.as_deref(),
        labelled_at: answer::time_text(label.labelled_at_us),
    };
    let body = serde_json::to_vec(&view).expect("a label has string fields only");
    Ok(answer::json(StatusCode::CREATED, body))
}

fn parse(body: &[u8]) -> Result<(Verdict, Option<String>), Problem> {
    let mut object = Object::of_body(body)?;
    let mut errors = Errors::default();
    let verdict = match object.take("verdict") {
        None => {
            errors.missing("/verdict");
            None
        }
        Some(raw) => {
            let read = raw.text().and_then(|text| match &*text {
                "fraud" => Ok(Verdict::Fraud),
                "legit" => Ok(Verdict::Legit),
                _ => Err(Flaw::new("format", "has to be `fraud` or `legit`")),
            });
            errors.keep("/verdict", read)
        }
    };
    let note = object.take("note").and_then(|raw| errors.keep("/note", NOTE.read(raw, None)));
    object.finish(&mut errors);
    match verdict {
        Some(verdict) if errors.is_empty() => Ok((verdict, note)),
        _ => Err(errors.into_problem()),
    }
}
