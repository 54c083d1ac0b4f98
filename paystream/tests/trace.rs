//! One trace per transaction: from the HTTP request through the log to the call that tells people.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod support;

use std::sync::{Arc, Mutex};

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as SpanStatus;
use prost::Message as _;
use serde_json::{Value, json};
use support::{System, eventually, seed_body};

const TOKEN: &str = "123456789:AAF7-g0gYncWnm5IyfZlpPRqRRv6kNAGlao";
const CARD: &str = "4100000000000019";

/// A span as it reached the collector.
#[derive(Clone, Debug)]
struct Span {
    service: String,
    component: String,
    raw: opentelemetry_proto::tonic::trace::v1::Span,
}

impl Span {
    fn attribute(&self, key: &str) -> Value {
        let found = self.raw.attributes.iter().find(|attribute| attribute.key == key);
        match found.and_then(|attribute| attribute.value.clone()?.value) {
            Some(Any::StringValue(text)) => json!(text),
            Some(Any::IntValue(number)) => json!(number),
            other => panic!("{key} of {} is {other:?}", self.raw.name),
        }
    }

    fn is_child_of(&self, parent: &Self) -> bool {
        self.raw.parent_span_id == parent.raw.span_id && self.raw.trace_id == parent.raw.trace_id
    }
}

/// An OpenTelemetry collector and Telegram's Bot API.
#[derive(Clone, Default)]
struct Outside {
    url: String,
    spans: Arc<Mutex<Vec<Span>>>,
    messages: Arc<Mutex<Vec<String>>>,
    telegram_is_down: Arc<Mutex<bool>>,
}

impl Outside {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let outside = Self { url: format!("http://{}", listener.local_addr().unwrap()), ..Self::default() };
        let router = Router::new()
            .route("/v1/traces", post(collect))
            .route("/{bot}/{method}", post(telegram))
            .with_state(outside.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        outside
    }

    fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }

    /// The spans of the trace that a transaction is part of.
    fn trace_of(&self, transaction: &str) -> Vec<Span> {
        let all = self.spans();
        let about = |span: &&Span| {
            let ids = span.raw.attributes.iter().filter(|a| a.key == "transaction.id");
            ids.filter_map(|a| a.value.clone()?.value).any(|v| v == Any::StringValue(transaction.to_owned()))
        };
        let Some(trace) = all.iter().find(about).map(|span| span.raw.trace_id.clone()) else { return vec![] };
        all.into_iter().filter(|span| span.raw.trace_id == trace).collect()
    }

    async fn span(&self, transaction: &str, name: &str) -> Span {
        let trace = || self.trace_of(transaction).into_iter().find(|span| span.raw.name == name);
        eventually(&format!("the span `{name}`"), async || trace()).await
    }
}

async fn collect(State(outside): State<Outside>, headers: HeaderMap, body: Bytes) -> StatusCode {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let request = ExportTraceServiceRequest::decode(body).expect("OTLP");
    for resource in request.resource_spans {
        let attributes = resource.resource.expect("a resource").attributes;
        let name = attributes.into_iter().find(|attribute| attribute.key == "service.name");
        let Some(Any::StringValue(service)) = name.and_then(|name| name.value?.value) else {
            panic!("a service has a name")
        };
        for scope in resource.scope_spans {
            let component = scope.scope.map(|scope| scope.name).unwrap_or_default();
            let spans = scope.spans.into_iter();
            let spans = spans.map(|raw| Span { service: service.clone(), component: component.clone(), raw });
            outside.spans.lock().unwrap().extend(spans);
        }
    }
    StatusCode::OK
}

async fn telegram(
    State(outside): State<Outside>,
    Path((bot, _method)): Path<(String, String)>,
    Json(body): Json<Value>,
) -> (StatusCode, Json<Value>) {
    assert_eq!(bot, format!("bot{TOKEN}"));
    if *outside.telegram_is_down.lock().unwrap() {
        // With a status of 5xx teloxide would wait for ten seconds before it reads on.
        let error = json!({"ok": false, "error_code": 400, "description": "Internal Server Error"});
        return (StatusCode::BAD_REQUEST, Json(error));
    }
    let mut messages = outside.messages.lock().unwrap();
    messages.push(body["text"].as_str().unwrap_or_default().to_owned());
    let chat = json!({"id": -1001, "type": "group", "title": "on call"});
    let message = json!({"message_id": messages.len(), "date": 1, "chat": chat, "text": "x"});
    (StatusCode::OK, Json(json!({"ok": true, "result": message})))
}

async fn start(outside: &Outside, dir: &std::path::Path, more: &[(&str, &str)]) -> System {
    let mut env = vec![
        ("PAYSTREAM__TELEMETRY__OTLP_ENDPOINT", outside.url.as_str()),
        ("PAYSTREAM__TELEMETRY__TRACE_SAMPLE_RATIO", "1"),
        ("PAYSTREAM__TELEMETRY__FORMAT", "json"),
        ("PAYSTREAM__TELEMETRY__LEVEL", "info,gateway=debug"),
        ("PAYSTREAM__ALERTER__TELEGRAM__BOT_TOKEN", TOKEN),
        ("PAYSTREAM__ALERTER__TELEGRAM__CHAT_ID", "-1001"),
        ("PAYSTREAM__ALERTER__TELEGRAM__API_URL", outside.url.as_str()),
        ("PAYSTREAM__ALERTER__TELEGRAM__MIN_INTERVAL_MS", "0"),
        ("PAYSTREAM__ALERTER__RETRY__MAX_DELAY_MS", "1000"),
    ];
    env.extend_from_slice(more);
    System::start_with(dir, "127.0.0.1:0", &[], &env).await
}

/// A transaction that raises an alert; its id.
async fn submit(system: &System, headers: &[(&str, &str)]) -> String {
    let mut body = seed_body();
    body["card_number"] = json!(CARD);
    let (status, body, _) = system.post("/transaction", &body, headers).await;
    assert_eq!((status, &body["decision"]["outcome"]), (201, &json!("decline")), "{body}");
    body["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn one_trace_goes_from_the_request_through_the_log_to_the_telegram_call() {
    let temp = tempfile::tempdir().unwrap();
    let outside = Outside::start().await;
    let system = start(&outside, &temp.path().join("data"), &[]).await;
    let ignored = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let id = submit(&system, &[("traceparent", ignored), ("x-request-id", "req-7")]).await;

    let call = outside.span(&id, "notify telegram").await;
    let delivery = outside.span(&id, "deliver alert").await;
    let request = outside.span(&id, "POST /transaction").await;
    let sent = outside.span(&id, "send transactions.created").await;
    let decided = outside.span(&id, "decide transactions.created").await;
    let received = outside.span(&id, "receive transactions.decided").await;
    let recorded = outside.span(&id, "record fraud.alerts").await;
    assert!(request.raw.parent_span_id.is_empty(), "a caller's trace is not gone on with unless configured");
    let trace_id: String = request.raw.trace_id.iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(!ignored.contains(&trace_id));
    for (child, parent) in
        [(&sent, &request), (&decided, &sent), (&received, &decided), (&recorded, &decided)]
    {
        assert!(child.is_child_of(parent), "{} of {}", child.raw.name, parent.raw.name);
    }
    let trace = outside.trace_of(&id);
    let deliveries: Vec<&Span> = trace.iter().filter(|span| span.raw.name == delivery.raw.name).collect();
    assert!(deliveries.iter().all(|span| span.is_child_of(&recorded)), "to the console and to Telegram");
    let to_telegram = deliveries.iter().find(|span| span.attribute("alert.receiver") == "telegram").unwrap();
    assert!(call.is_child_of(to_telegram));

    let kinds = [&request, &sent, &decided, &recorded, &call].map(|span| span.raw.kind());
    let expected =
        [SpanKind::Server, SpanKind::Producer, SpanKind::Consumer, SpanKind::Consumer, SpanKind::Client];
    assert_eq!(kinds, expected);
    assert!(trace.iter().all(|span| span.service == "paystream"));
    let components = [&request, &decided, &call].map(|span| span.component.as_str());
    assert_eq!(components, ["gateway", "fraud-analyzer", "alerter"]);
    assert_eq!(request.attribute("http.response.status_code"), 201);
    assert_eq!(request.attribute("http.route"), "/transaction");
    assert_eq!(request.attribute("merchant.id"), "test");
    assert_eq!(decided.attribute("decision.outcome"), "decline");
    assert!(decided.raw.start_time_unix_nano >= sent.raw.start_time_unix_nano);
    assert!(trace.iter().all(|span| span.raw.end_time_unix_nano >= span.raw.start_time_unix_nano));
    assert!(!format!("{trace:?}").contains(CARD), "nothing of a card");

    let logged = system.stderr();
    let lines = logged.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let line =
        lines.into_iter().find(|line| line["request_id"] == "req-7").expect("a line about the request");
    assert_eq!((&line["transaction_id"], &line["trace_id"]), (&json!(id), &json!(trace_id)), "{line}");
    let metrics = system.get_text("/metrics").await;
    assert!(metrics.contains("paystream_telemetry_spans_total{result=\"dropped\"} 0"), "{metrics}");
    assert!(system.stop().await.success());
}

#[tokio::test]
async fn an_alert_that_waits_for_telegram_stays_in_its_trace_across_a_crash() {
    let temp = tempfile::tempdir().unwrap();
    let outside = Outside::start().await;
    let data = temp.path().join("data");
    *outside.telegram_is_down.lock().unwrap() = true;
    let mut system = start(&outside, &data, &[("PAYSTREAM__TELEMETRY__SERVICE_NAME", "first")]).await;
    let id = submit(&system, &[]).await;
    let failed = outside.span(&id, "notify telegram").await;
    assert_eq!(failed.raw.status.as_ref().unwrap().code(), SpanStatus::Error);
    system.kill();
    *outside.telegram_is_down.lock().unwrap() = false;
    let _system = start(&outside, &data, &[("PAYSTREAM__TELEMETRY__SERVICE_NAME", "second")]).await;
    let call = eventually("a call after the restart", async || {
        let mut trace = outside.trace_of(&id).into_iter();
        trace.find(|span| span.raw.name == "notify telegram" && span.service == "second")
    })
    .await;
    assert_eq!(call.raw.trace_id, failed.raw.trace_id);
    assert!(call.raw.status.is_none_or(|status| status.code() != SpanStatus::Error));
    assert!(outside.messages.lock().unwrap()[0].contains(&id));
}

#[tokio::test]
async fn a_caller_decides_on_its_trace_only_where_that_is_trusted() {
    let temp = tempfile::tempdir().unwrap();
    let outside = Outside::start().await;
    let trusting = [
        ("PAYSTREAM__TELEMETRY__TRACE_TRUST_INCOMING", "true"),
        ("PAYSTREAM__TELEMETRY__TRACE_SAMPLE_RATIO", "0"),
    ];
    let system = start(&outside, &temp.path().join("data"), &trusting).await;
    let none = submit(&system, &[]).await;
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
    let unsampled = submit(&system, &[("traceparent", &format!("{parent}-00"))]).await;
    let id = submit(&system, &[("traceparent", &format!("{parent}-01"))]).await;
    let request = outside.span(&id, "POST /transaction").await;
    assert_eq!(request.raw.parent_span_id, 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes());
    assert!(system.stop().await.success(), "what is left is sent before the end");
    let traces: std::collections::BTreeSet<_> = outside.spans().into_iter().map(|s| s.raw.trace_id).collect();
    assert_eq!(traces.len(), 1, "neither {none} nor {unsampled}");
}

#[tokio::test]
async fn a_collector_that_is_away_neither_slows_nor_floods() {
    let temp = tempfile::tempdir().unwrap();
    let outside = Outside::start().await;
    let gone = [("PAYSTREAM__TELEMETRY__OTLP_ENDPOINT", "http://127.0.0.1:1")];
    let system = start(&outside, &temp.path().join("data"), &gone).await;
    for _ in 0..50 {
        submit(&system, &[]).await;
    }
    eventually("failures are counted", async || {
        let metrics = system.get_text("/metrics").await;
        (!metrics.contains("paystream_telemetry_spans_total{result=\"failed\"} 0")).then_some(())
    })
    .await;
    let logged = system.stderr();
    assert_eq!(logged.matches("traces cannot be sent").count(), 1, "{logged}");
    assert!(system.stop().await.success());
}
