//! The routes as a browser sees them.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use prometheus::Registry;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::service::{quick, stored};
use super::{World, eventually, id};
use crate::config::WarehouseConfig;
use crate::service::Analytics;

async fn running(world: &World, config: WarehouseConfig) -> Analytics {
    let analytics = Analytics::start(config, Arc::clone(&world.log), &world.dir(), &Registry::new()).unwrap();
    world.append(0..100).await;
    let warehouse = analytics.warehouse();
    eventually("all rows are visible", async || stored(&warehouse).await == 100).await;
    analytics
}

async fn send(router: &Router, request: Request<Body>) -> Response<Body> {
    router.clone().oneshot(request).await.unwrap()
}

async fn get(router: &Router, path: &str) -> (StatusCode, Value) {
    json_of(send(router, Request::get(path).body(Body::empty()).unwrap()).await).await
}

async fn json_of(response: Response<Body>) -> (StatusCode, Value) {
    let status = response.status();
    let expected = if status.is_success() { "application/json" } else { "application/problem+json" };
    assert_eq!(response.headers()["content-type"], expected);
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

async fn post_query(router: &Router, body: &str) -> (StatusCode, Value) {
    let request =
        Request::post("/v1/query").header("x-request-id", "req_1").body(Body::from(body.to_owned()));
    json_of(send(router, request.unwrap()).await).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_and_its_files_are_served_with_strict_headers() {
    let world = World::new();
    let router = running(&world, quick()).await.router();
    for (path, content_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/app.js", "text/javascript; charset=utf-8"),
        ("/assets/app.js", "text/javascript; charset=utf-8"),
        ("/assets/style.css", "text/css; charset=utf-8"),
        ("/assets/uplot.js", "text/javascript; charset=utf-8"),
        ("/assets/icon.svg", "image/svg+xml"),
    ] {
        let response = send(&router, Request::get(path).body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let headers = response.headers().clone();
        assert_eq!(headers["content-type"], content_type, "{path}");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["cache-control"], "no-cache");
        let policy = headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'") && !policy.contains("unsafe"));
        assert!(!response.into_body().collect().await.unwrap().to_bytes().is_empty());

        let again = Request::get(path).header("if-none-match", &headers["etag"]).body(Body::empty()).unwrap();
        let response = send(&router, again).await;
        assert_eq!(response.status(), StatusCode::NOT_MODIFIED, "{path}");
        let other = Request::get(path).header("if-none-match", "\"other\"").body(Body::empty()).unwrap();
        assert_eq!(send(&router, other).await.status(), StatusCode::OK);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stream_begins_with_a_snapshot_and_goes_on_with_ticks_until_the_stop() {
    let world = World::new();
    let analytics = running(&world, quick()).await;
    let request = Request::get("/v1/dashboard/stream").body(Body::empty()).unwrap();
    let response = send(&analytics.router(), request).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let mut body = response.into_body();
    let mut next = async || -> Option<(String, Value)> {
        let bytes = body.frame().await?.unwrap().into_data().unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let (event, data) = text.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
        Some((event.to_owned(), serde_json::from_str(data.trim_end()).unwrap()))
    };
    let (event, snapshot) = next().await.unwrap();
    assert_eq!(event, "snapshot");
    assert_eq!(snapshot["totals"]["transactions"], 100);
    let (event, tick) = next().await.unwrap();
    assert_eq!(event, "tick");
    assert_eq!(tick["totals"]["transactions"], 100);
    analytics.service.stop.cancel();
    while next().await.is_some() {}
    analytics.service.task.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_too_many_is_told_to_come_back() {
    let world = World::new();
    let router = running(&world, WarehouseConfig { stream_max_clients: 1, ..quick() }).await.router();
    let request = || Request::get("/v1/dashboard/stream").body(Body::empty()).unwrap();
    let first = send(&router, request()).await;
    let second = send(&router, request()).await;
    assert!(second.headers().contains_key("retry-after"));
    assert_eq!(json_of(second).await.0, StatusCode::SERVICE_UNAVAILABLE);
    drop(first);
    assert_eq!(send(&router, request()).await.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_answers_columns_and_rows() {
    let world = World::new();
    let router = running(&world, WarehouseConfig { query_max_rows: 2, ..quick() }).await.router();
    let sql = r#"{"sql": "SELECT outcome, count(*) AS n FROM decisions GROUP BY outcome ORDER BY outcome"}"#;
    let expected = json!({
        "columns": [{"name": "outcome", "type": "text"}, {"name": "n", "type": "int64"}],
        "rows": [["approve", 80], ["decline", 20]],
        "row_count": 2,
        "truncated": false,
    });
    assert_eq!(post_query(&router, sql).await, (StatusCode::OK, expected));
    let (_, cut) = post_query(&router, r#"{"sql": "SELECT seq FROM decisions"}"#).await;
    assert_eq!((&cut["row_count"], &cut["truncated"]), (&json!(2), &json!(true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_cannot_be_run_is_a_problem_with_its_reason() {
    let world = World::new();
    let router = running(&world, quick()).await.router();
    let long = format!(r#"{{"sql": "SELECT '{}'"}}"#, "x".repeat(200_000));
    for (body, status, detail) in [
        (r#"{"sql": "SELECT nothing FROM decisions"}"#, 400, "nothing"),
        (r#"{"sql": "DROP TABLE decisions"}"#, 400, "DDL"),
        (r#"{"sql": "SELECT 1", "more": 1}"#, 400, "unknown field"),
        ("SELECT 1", 400, "the body is"),
        ("", 400, "the body is"),
        (&long, 413, "at most"),
    ] {
        let (found, problem) = post_query(&router, body).await;
        let shown = &body[..body.len().min(60)];
        assert_eq!((found.as_u16(), &problem["status"]), (status, &json!(status)), "{shown}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{shown}: {problem}");
        assert_eq!(problem["request_id"], "req_1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_known_of_a_transaction_is_found_by_its_id() {
    let world = World::new();
    let router = running(&world, quick()).await.router();
    let (status, found) = get(&router, &format!("/v1/dashboard/transactions/{}", id(50))).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(found["transaction"]["amount"], "101.00");
    assert_eq!(found["transaction"]["metadata"], json!({"order": "50"}));
    assert_eq!(found["decision"]["outcome"], "decline");
    assert_eq!(found["decision"]["reasons"][0]["rule"], "card-velocity");
    assert_eq!(found["decision"]["reasons"][0]["limit"], 5.5);
    assert_eq!(found["decision"]["shadow_reasons"][0]["rule"], "night");
    assert_eq!(found["alerts"][0]["severity"], "high");
    assert_eq!(found["labels"][0]["verdict"], "fraud");
    for unknown in [id(5_000).to_string(), "txn_1".to_owned(), "a'b".to_owned(), "..%2f".to_owned()] {
        let (status, problem) = get(&router, &format!("/v1/dashboard/transactions/{unknown}")).await;
        assert_eq!((status, &problem["status"]), (StatusCode::NOT_FOUND, &json!(404)), "{unknown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_has_every_minute_and_counts_what_was_decided_in_it() {
    let world = World::new();
    let analytics = running(&world, quick()).await;
    // Decided just now, unlike the others.
    let mut now = super::decided(1_000, 0, 1_000);
    now.decided_at_us = crate::live::now_ms() * 1_000;
    let value = events::Message::encode(&now);
    world.log.append(vec![super::record(events::topics::DECIDED, "key", value)]).await.unwrap();
    let warehouse = analytics.warehouse();
    eventually("the row is visible", async || stored(&warehouse).await == 101).await;
    let router = analytics.router();
    let (status, history) = get(&router, "/v1/dashboard/history?minutes=30").await;
    assert_eq!(status, StatusCode::OK);
    let list = |name: &str| -> Vec<i64> {
        history[name].as_array().unwrap().iter().map(|v| v.as_i64().unwrap()).collect()
    };
    let times = list("t_s");
    assert!(times.len() == 30 && times.windows(2).all(|w| w[1] == w[0] + 60));
    assert_eq!(list("decline").iter().sum::<i64>(), 1 + if recent() { 20 } else { 0 });
    assert_eq!(list("review"), vec![0; 30]);
    for wrong in ["minutes=0", "minutes=1441", "minutes=x", "hours=1"] {
        assert_eq!(get(&router, &format!("/v1/dashboard/history?{wrong}")).await.0, StatusCode::BAD_REQUEST);
    }
}

/// Whether the tests' fixed time is within the last half hour.
fn recent() -> bool {
    (0..1_800_000).contains(&(crate::live::now_ms() - super::BASE_MS))
}
