//! A Telegram Bot API and a webhook receiver in the test's own process, a real log, and an alerter in a
//! runtime of its own, so that it can be killed at any moment.
#![allow(dead_code)] // each test file uses its part

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use alerter::{Alerter, AlerterConfig, Secret};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use axum::{Json, Router};
use eventlog::{EmbeddedLog, EmbeddedLogConfig, EventLog, NewRecord};
use events::{Alert, CardToken, Message as _, topics};
use serde_json::{Value, json};
use tempfile::TempDir;

pub(crate) const TOKEN: &str = "123456789:AAF7-g0gYncWnm5IyfZlpPRqRRv6kNAGlao";
const CHAT: &str = "-1001";
/// How long a condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(60);

/// How the server answers.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Ok,
    /// 429 with `retry_after`.
    TooMany {
        retry_after_s: u64,
    },
    /// 502 with a page instead of JSON.
    ServerError,
    /// 4xx with this description.
    Refused(&'static str),
    /// Takes nothing and never answers.
    Hang,
    /// Takes the message and never answers.
    TakeAndHang,
}

/// One call that reached the server.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: String,
    pub(crate) body: Value,
    pub(crate) headers: HeaderMap,
    /// Whether the server took it.
    pub(crate) taken: bool,
    pub(crate) at: Instant,
}

impl Call {
    pub(crate) fn text(&self) -> &str {
        self.body["text"].as_str().unwrap_or_default()
    }
}

#[derive(Default)]
struct Inner {
    once: VecDeque<Answer>,
    always: Option<Answer>,
    calls: Vec<Call>,
    next_id: i64,
}

/// A server that speaks `sendMessage` and `editMessageText`, and takes webhooks at `/hook`.
#[derive(Clone, Default)]
pub(crate) struct Server {
    inner: Arc<Mutex<Inner>>,
    pub(crate) url: String,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server =
            Self { inner: Arc::default(), url: format!("http://{}", listener.local_addr().unwrap()) };
        let router = Router::new()
            .route("/{bot}/{method}", post(telegram))
            .route("/hook", post(webhook))
            .with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        server
    }

    /// From now on.
    pub(crate) fn answer(&self, answer: Answer) {
        self.inner.lock().unwrap().always = Some(answer);
    }

    /// To the next call that no earlier `answer_once` is for.
    pub(crate) fn answer_once(&self, answer: Answer) {
        self.inner.lock().unwrap().once.push_back(answer);
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.inner.lock().unwrap().calls.clone()
    }

    /// The calls that were taken.
    pub(crate) fn taken(&self, method: &str) -> Vec<Call> {
        self.calls().into_iter().filter(|call| call.taken && call.method == method).collect()
    }

    /// How many new messages about an alert's transaction were taken.
    pub(crate) fn messages_about(&self, alert: &Alert) -> usize {
        let id = alert.transaction_id.to_string();
        self.taken("SendMessage").iter().filter(|call| call.text().contains(&id)).count()
    }

    fn called(&self, method: &str, headers: HeaderMap, body: Value) -> (Answer, i64) {
        let mut inner = self.inner.lock().unwrap();
        let answer = inner.once.pop_front().or_else(|| inner.always.clone()).unwrap_or(Answer::Ok);
        let taken = matches!(answer, Answer::Ok | Answer::TakeAndHang);
        inner.calls.push(Call { method: method.to_owned(), body, headers, taken, at: Instant::now() });
        inner.next_id += 1;
        (answer, inner.next_id)
    }
}

async fn telegram(
    State(server): State<Server>,
    Path((bot, method)): Path<(String, String)>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    assert_eq!(bot, format!("bot{TOKEN}"));
    let edited = body["message_id"].as_i64();
    let (answer, id) = server.called(&method, headers, body);
    let failure = |code: u16, description: &str, parameters: Value| {
        let mut body = json!({"ok": false, "error_code": code, "description": description});
        if !parameters.is_null() {
            body["parameters"] = parameters;
        }
        (StatusCode::from_u16(code).unwrap(), Json(body)).into_response()
    };
    match answer {
        Answer::Ok => {
            let chat = json!({"id": -1001, "type": "group", "title": "on call"});
            let message = json!({"message_id": edited.unwrap_or(id), "date": 1, "chat": chat, "text": "x"});
            Json(json!({"ok": true, "result": message})).into_response()
        }
        Answer::TooMany { retry_after_s } => failure(
            429,
            &format!("Too Many Requests: retry after {retry_after_s}"),
            json!({"retry_after": retry_after_s}),
        ),
        Answer::ServerError => (StatusCode::BAD_GATEWAY, "<html>Bad Gateway</html>").into_response(),
        Answer::Refused(description) => failure(400, description, Value::Null),
        Answer::Hang | Answer::TakeAndHang => std::future::pending().await,
    }
}

async fn webhook(State(server): State<Server>, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    match server.called("hook", headers, body).0 {
        Answer::Ok => StatusCode::NO_CONTENT.into_response(),
        Answer::TooMany { retry_after_s } => {
            (StatusCode::TOO_MANY_REQUESTS, [("retry-after", retry_after_s.to_string())]).into_response()
        }
        Answer::ServerError => StatusCode::BAD_GATEWAY.into_response(),
        Answer::Refused(_) => StatusCode::UNAUTHORIZED.into_response(),
        Answer::Hang | Answer::TakeAndHang => std::future::pending().await,
    }
}

/// The log, the alerter's directory and its configuration: what is there whether it runs or not.
pub(crate) struct System {
    pub(crate) server: Server,
    pub(crate) log: Arc<EmbeddedLog>,
    pub(crate) config: AlerterConfig,
    pub(crate) dir: TempDir,
}

/// A running alerter.
pub(crate) struct Running {
    runtime: tokio::runtime::Runtime,
    alerter: Alerter,
    pub(crate) registry: prometheus::Registry,
}

impl System {
    /// With Telegram on, short waits, and no grouping by rule.
    pub(crate) async fn new() -> Self {
        let server = Server::start().await;
        let dir = tempfile::tempdir().unwrap();
        let mut config = AlerterConfig {
            public_url: "https://pay.example.com".into(),
            burst_groups: 1_000,
            update_interval_ms: 200,
            ..AlerterConfig::default()
        };
        config.telegram.bot_token = Secret::from(TOKEN.to_owned());
        config.telegram.chat_id = CHAT.into();
        config.telegram.api_url = server.url.clone();
        config.telegram.request_timeout_ms = 500;
        config.telegram.min_interval_ms = 0;
        config.telegram.messages_per_minute = 1_800;
        config.retry.min_delay_ms = 20;
        config.retry.max_delay_ms = 100;
        assert_eq!(config.validate(), vec![]);
        let log = open_log(&dir.path().join("log"));
        Self { server, log, config, dir }
    }

    /// Everything that was appended is gone, as if the alerts could never be read again.
    pub(crate) async fn lose_log(&mut self) {
        self.log.close().await;
        self.log = open_log(&self.dir.path().join("another-log"));
    }

    /// Writes a routes file and uses it.
    pub(crate) fn route(&mut self, yaml: &str) {
        let path = self.dir.path().join("routes.yaml");
        std::fs::write(&path, yaml).unwrap();
        self.config.routes_file = path.to_str().unwrap().to_owned();
    }

    pub(crate) async fn publish(&self, alerts: &[Alert]) {
        let records = alerts.iter().map(|a| record(a.card_token.as_str(), a.encode())).collect();
        self.log.append(records).await.unwrap();
    }

    pub(crate) async fn publish_raw(&self, value: &str) {
        self.log.append(vec![record("k", value.as_bytes().to_vec())]).await.unwrap();
    }

    /// Where Alertmanager sends to, of a running alerter, whose end it shares.
    pub(crate) async fn alertmanager(running: &Running, loopback: bool) -> String {
        let router = running.alerter.router(loopback);
        let serve = async move {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url = format!("http://{}/alertmanager", listener.local_addr().unwrap());
            tokio::spawn(async move { axum::serve(listener, router).await });
            url
        };
        running.runtime.spawn(serve).await.unwrap()
    }

    pub(crate) fn start(&self) -> Running {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let registry = prometheus::Registry::new();
        let log: Arc<dyn EventLog> = self.log.clone();
        let guard = runtime.enter();
        let alerter =
            Alerter::start(self.config.clone(), log, &self.dir.path().join("alerter"), &registry).unwrap();
        drop(guard);
        Running { runtime, alerter, registry }
    }
}

fn open_log(dir: &std::path::Path) -> Arc<EmbeddedLog> {
    Arc::new(EmbeddedLog::open(dir, EmbeddedLogConfig::default()).unwrap())
}

fn record(key: &str, value: Vec<u8>) -> NewRecord {
    NewRecord {
        topic: topics::ALERTS,
        key: key.to_owned().into(),
        value: value.into(),
        headers: vec![],
        timestamp_ms: i64::try_from(
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis(),
        )
        .unwrap(),
    }
}

impl Running {
    /// Ends it as a kill would: nothing gets to finish.
    pub(crate) async fn crash(self) {
        let Self { runtime, alerter, .. } = self;
        drop(alerter);
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(PATIENCE)).await.unwrap();
    }

    /// Ends it as asked to.
    pub(crate) async fn stop(self) {
        let Self { runtime, alerter, .. } = self;
        alerter.service.stop.cancel();
        let ended = tokio::time::timeout(PATIENCE, alerter.service.task).await;
        ended.expect("it stops in time").expect("it does not panic").expect("it stops without error");
        tokio::task::spawn_blocking(move || runtime.shutdown_timeout(PATIENCE)).await.unwrap();
    }

    /// The sum of a metric over the label values given.
    pub(crate) fn metric(&self, name: &str, label: &str) -> f64 {
        let families = self.registry.gather();
        let metrics = families
            .iter()
            .filter(|family| family.name() == name)
            .flat_map(prometheus::proto::MetricFamily::get_metric);
        metrics
            .filter(|m| label.is_empty() || m.get_label().iter().any(|l| l.value() == label))
            .map(|m| m.get_counter().get_value() + m.get_gauge().get_value())
            .sum()
    }
}

/// Waits until something is true.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// An alert on a card of its own.
pub(crate) fn on_card(n: u8) -> Alert {
    let mut alert = alerter::samples::alert(u64::from(n) + 10_000);
    alert.card_token = CardToken::new("k1", &[n; 16]).unwrap();
    alert
}
