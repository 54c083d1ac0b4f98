//! The HTTP routes: the page, what it asks for, and SQL for analysts.

use std::sync::Arc;

use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, RawQuery, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use events::{AmountMinor, Currency, TransactionId};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use crate::live::{Live, now_ms};
use crate::page;
use crate::problem::{Problem, RequestId};
use crate::queries::{self, Param, bind};
use crate::stream::{Clients, follow};
use crate::warehouse::Warehouse;

/// A statement and its JSON around it.
pub(crate) const MAX_BODY_BYTES: usize = 128 * 1024;
const DEFAULT_HISTORY_MINUTES: i64 = 60;
const MAX_HISTORY_MINUTES: i64 = 1_440;
const MINUTE_MS: i64 = 60_000;
const OUTCOMES: [&str; 4] = ["approve", "review", "challenge", "decline"];

#[derive(Clone)]
struct Context {
    warehouse: Arc<Warehouse>,
    live: Arc<Live>,
    clients: Arc<Clients>,
    stop: CancellationToken,
}

pub(crate) fn router(
    warehouse: Arc<Warehouse>,
    live: Arc<Live>,
    clients: Arc<Clients>,
    stop: CancellationToken,
) -> Router {
    Router::new()
        .route("/v1/dashboard/stream", get(stream))
        .route("/v1/dashboard/history", get(history))
        .route("/v1/dashboard/transactions/{id}", get(transaction))
        .route("/v1/query", post(query).layer(DefaultBodyLimit::max(MAX_BODY_BYTES)))
        .with_state(Context { warehouse, live, clients, stop })
        .merge(page::router())
}

/// JSON that no cache keeps.
fn fresh(value: Value) -> Response {
    let headers = [
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (StatusCode::OK, headers, Json(value)).into_response()
}

async fn stream(State(context): State<Context>, id: RequestId) -> Result<Response, Problem> {
    follow(&context.live, &context.clients, context.stop.clone()).ok_or_else(|| {
        Problem::unavailable("all places for pages that follow the stream are taken: try again later").of(&id)
    })
}

async fn history(
    State(context): State<Context>,
    RawQuery(asked): RawQuery,
    id: RequestId,
) -> Result<Response, Problem> {
    let minutes = history_minutes(asked.as_deref()).map_err(|problem| problem.of(&id))?;
    let last = now_ms().div_euclid(MINUTE_MS);
    let first = last - minutes + 1;
    let sql = bind(queries::OUTCOMES_PER_MINUTE, &[("since", Param::TimeMs(first * MINUTE_MS))]);
    let rows = objects(&context.warehouse, &sql).await.map_err(|problem| problem.of(&id))?;
    Ok(fresh(per_minute(first, last, &rows)))
}

fn history_minutes(query: Option<&str>) -> Result<i64, Problem> {
    let mut minutes = DEFAULT_HISTORY_MINUTES;
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("minutes", text)) => {
                minutes =
                    text.parse().ok().filter(|m| (1..=MAX_HISTORY_MINUTES).contains(m)).ok_or_else(|| {
                        Problem::malformed(format!(
                            "`minutes` is a whole number from 1 to {MAX_HISTORY_MINUTES}"
                        ))
                    })?;
            }
            _ => return Err(Problem::malformed("the only parameter is `minutes`")),
        }
    }
    Ok(minutes)
}

/// One list per outcome, with a zero for every minute without traffic.
fn per_minute(first: i64, last: i64, rows: &[Map<String, Value>]) -> Value {
    let len = usize::try_from(last - first + 1).unwrap_or(0);
    let mut lists = [vec![0; len], vec![0; len], vec![0; len], vec![0; len]];
    for row in rows {
        let minute =
            row.get("minute").and_then(Value::as_str).and_then(|t| t.parse::<jiff::Timestamp>().ok());
        let at = minute.map(|t| t.as_millisecond().div_euclid(MINUTE_MS) - first);
        let Some(at) = at.and_then(|at| usize::try_from(at).ok()).filter(|at| *at < len) else { continue };
        for (list, outcome) in lists.iter_mut().zip(OUTCOMES) {
            list[at] = row.get(outcome).and_then(Value::as_i64).unwrap_or(0);
        }
    }
    let [approve, review, challenge, decline] = lists;
    let t_s: Vec<i64> = (first..=last).map(|minute| minute * 60).collect();
    json!({ "t_s": t_s, "approve": approve, "review": review, "challenge": challenge, "decline": decline })
}

async fn objects(warehouse: &Warehouse, sql: &str) -> Result<Vec<Map<String, Value>>, Problem> {
    let answer = warehouse.query(sql).await?;
    answer.json_objects().map_err(|error| Problem::internal(error.to_string()))
}

async fn transaction(
    State(context): State<Context>,
    Path(id): Path<String>,
    request: RequestId,
) -> Result<Response, Problem> {
    let missing = || Problem::not_found("no such transaction is stored").of(&request);
    let id = id.parse::<TransactionId>().map_err(|_| missing())?.to_string();
    let details = details(&context.warehouse, &id).await.map_err(|problem| problem.of(&request))?;
    details.map(fresh).ok_or_else(missing)
}

/// All that is known of a transaction, or nothing when it is not stored.
async fn details(warehouse: &Warehouse, id: &str) -> Result<Option<Value>, Problem> {
    let ask = |query| async move { objects(warehouse, &bind(query, &[("id", Param::Text(id))])).await };
    let Some(mut transaction) = ask(queries::TRANSACTION).await?.pop() else { return Ok(None) };
    if let Some(amount) = shown_amount(&transaction) {
        transaction.insert("amount".to_owned(), amount.into());
    }
    let metadata = transaction.get("metadata").and_then(Value::as_str);
    if let Some(metadata) = metadata.and_then(|text| serde_json::from_str(text).ok()) {
        transaction.insert("metadata".to_owned(), metadata);
    }
    let mut decision = ask(queries::TRANSACTION_DECISION).await?.pop();
    let (mut live, mut shadow) = (Vec::new(), Vec::new());
    for mut hit in ask(queries::TRANSACTION_RULE_HITS).await? {
        let is_live = hit.remove("mode").is_some_and(|mode| mode == "live");
        if let Some(limit) = hit.remove("limit_value") {
            hit.insert("limit".to_owned(), limit);
        }
        if is_live { live.push(hit) } else { shadow.push(hit) }
    }
    if let Some(decision) = &mut decision {
        decision.insert("reasons".to_owned(), json!(live));
        decision.insert("shadow_reasons".to_owned(), json!(shadow));
    }
    Ok(Some(json!({
        "transaction": transaction,
        "decision": decision,
        "alerts": ask(queries::TRANSACTION_ALERTS).await?,
        "labels": ask(queries::TRANSACTION_LABELS).await?,
    })))
}

fn shown_amount(transaction: &Map<String, Value>) -> Option<String> {
    let minor = AmountMinor::try_from(transaction.get("amount_minor")?.as_i64()?).ok()?;
    let currency = transaction.get("currency")?.as_str()?.parse::<Currency>().ok()?;
    Some(crate::live::view::amount(minor, currency))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    sql: String,
}

async fn query(
    State(context): State<Context>,
    id: RequestId,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    answer(&context.warehouse, body).await.map(fresh).map_err(|problem| problem.of(&id))
}

/// The SQL in a request's body.
pub(crate) fn asked(body: Result<Bytes, BytesRejection>) -> Result<String, Problem> {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::too_large(format!("the body has at most {MAX_BODY_BYTES} bytes"))
        }
        _ => Problem::malformed("the body did not arrive whole"),
    })?;
    let asked: Asked = serde_json::from_slice(&body)
        .map_err(|error| Problem::malformed(format!("the body is {{\"sql\": \"SELECT …\"}}: {error}")))?;
    Ok(asked.sql)
}

async fn answer(warehouse: &Warehouse, body: Result<Bytes, BytesRejection>) -> Result<Value, Problem> {
    let answer = warehouse.query(&asked(body)?).await?;
    let rows = answer.json_rows().map_err(|error| Problem::internal(error.to_string()))?;
    Ok(json!({
        "columns": answer.columns(),
        "rows": rows,
        "row_count": answer.row_count,
        "truncated": answer.truncated,
    }))
}
