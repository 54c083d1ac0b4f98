//! A gateway under test.

#[path = "faulty_log.rs"]
mod faulty_log;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, Request, StatusCode};
use bytes::Bytes;
use eventlog::{EmbeddedLog, EmbeddedLogConfig, EventLog as _, LoggedRecord, NewRecord, Position};
use events::{
    Decided, Decision, Label, ListChange, ListDeclaration, ListKind, Message, Outcome, Reason, RiskLevel,
    TestBehaviour, Transaction, topics,
};
use gateway::{ApiKeys, Gateway, GatewayConfig, Tokeniser};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tower::ServiceExt as _;

pub(crate) use faulty_log::{Fault, FaultyLog};

/// Nothing a test waits for takes nearly as long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A running gateway with its log and its decider.
pub(crate) struct Gate {
    pub(crate) gateway: Gateway,
    pub(crate) log: Arc<FaultyLog>,
    pub(crate) registry: prometheus::Registry,
    pub(crate) keys: ApiKeys,
    /// Whether the decider decides.
    pub(crate) decides: watch::Sender<bool>,
    router: axum::Router,
    decider: tokio::task::JoinHandle<()>,
    dir: Arc<TempDir>,
}

/// A list of each kind, under the kind's name.
fn lists() -> Vec<ListDeclaration> {
    let list = |kind: ListKind| ListDeclaration {
        id: format!("block_{kind}").parse().unwrap(),
        kind,
        description: format!("what is blocked, by {kind}"),
    };
    ListKind::ALL.map(list).into()
}

pub(crate) fn config() -> GatewayConfig {
    GatewayConfig { allow_anonymous_test_merchant: true, ..GatewayConfig::default() }
}

impl Gate {
    pub(crate) async fn open() -> Self {
        Self::with(config()).await
    }

    pub(crate) async fn with(config: GatewayConfig) -> Self {
        let gate = Self::start(Arc::new(tempfile::tempdir().unwrap()), config);
        assert!(gate.gateway.ready().await);
        gate
    }

    /// Over a directory that may hold what an earlier run left.
    pub(crate) fn start(dir: Arc<TempDir>, config: GatewayConfig) -> Self {
        let inner = EmbeddedLog::open(&dir.path().join("log"), EmbeddedLogConfig::default()).unwrap();
        let log = FaultyLog::new(Arc::new(inner));
        let keys = ApiKeys::load(&dir.path().join("api-keys.json")).unwrap();
        let tokeniser = Tokeniser::open(dir.path()).unwrap();
        let registry = prometheus::Registry::new();
        let gateway =
            Gateway::start(config, keys.clone(), tokeniser, log.clone(), lists(), dir.path(), &registry)
                .unwrap();
        let decides = watch::Sender::new(true);
        let decider = tokio::spawn(decide(log.clone(), decides.subscribe()));
        let router = gateway.router();
        Self { gateway, log, registry, keys, decides, router, decider, dir }
    }

    /// Another gateway on the same log with the same keys, and faults of its own.
    #[allow(dead_code, reason = "for the tests of replicas")]
    pub(crate) fn replica(&self, config: GatewayConfig) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let log = FaultyLog::new(self.log.inner.clone());
        let tokeniser = Tokeniser::read(&self.dir.path().join(gateway::tokenise::KEYS_FILE)).unwrap();
        let registry = prometheus::Registry::new();
        let keys = self.keys.clone();
        let gateway =
            Gateway::start(config, keys.clone(), tokeniser, log.clone(), lists(), dir.path(), &registry)
                .unwrap();
        let router = gateway.router();
        let decider = tokio::spawn(async {});
        Self { gateway, log, registry, keys, decides: self.decides.clone(), router, decider, dir }
    }

    /// Ends as a process does that is asked to; the directory can be opened again.
    pub(crate) async fn stop(self) -> Arc<TempDir> {
        self.gateway.service.stop.cancel();
        let Self { gateway, log, router, decider, dir, .. } = self;
        let task = gateway.service.task;
        within(task).await.unwrap().unwrap();
        decider.abort();
        let _ = decider.await;
        drop(router);
        log.inner.close().await;
        dir
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = within(self.router.clone().oneshot(request)).await.expect("a router never fails");
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.into_body().collect().await.unwrap().to_bytes();
        Answer { status, headers, body }
    }

    pub(crate) fn router(&self) -> axum::Router {
        self.router.clone()
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(post(path, body, &[])).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(get(path, &[])).await
    }

    /// Every record of a topic.
    pub(crate) async fn records<M: Message>(&self, topic: &str) -> Vec<M> {
        let mut messages = Vec::new();
        for partition in 0..self.log.partitions(topic).unwrap() {
            let (mut from, end) = self.log.bounds(topic, partition).await.unwrap();
            while from < end {
                let records = self.log.read(topic, partition, from, 512, Duration::ZERO).await.unwrap();
                from = records.last().unwrap().offset + 1;
                messages.extend(records.iter().map(|record| M::decode(&record.value).unwrap()));
            }
        }
        messages
    }

    pub(crate) async fn created(&self) -> Vec<Transaction> {
        self.records(topics::CREATED).await
    }

    pub(crate) async fn labels(&self) -> Vec<Label> {
        self.records(topics::LABELLED).await
    }

    pub(crate) async fn list_changes(&self) -> Vec<ListChange> {
        self.records(topics::LISTS_CHANGED).await
    }

    /// Waits until a condition holds.
    pub(crate) async fn until<F: Future<Output = bool>>(&self, what: &str, mut holds: impl FnMut() -> F) {
        let waiting = async {
            while !holds().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "waited in vain for: {what}");
    }

    pub(crate) fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        family.map_or(0.0, |family| {
            family
                .get_metric()
                .iter()
                .map(|m| {
                    m.get_counter().get_value()
                        + m.get_gauge().get_value()
                        + m.get_histogram().get_sample_count() as f64
                })
                .sum()
        })
    }
}

pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("this takes far too long")
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&self.body)))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn id(&self) -> String {
        self.json()["id"].as_str().unwrap().to_owned()
    }

    /// Checks that this is a whole problem document, and returns its `errors`' pointers and codes.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16, kind: &str) -> Vec<(String, String)> {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status.as_u16(), status, "{text}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{text}");
        let document = self.json();
        assert_eq!(document["type"], format!("urn:paystream:problem:{kind}"), "{text}");
        assert_eq!(document["status"], status, "{text}");
        assert_eq!(document["request_id"].as_str(), self.header("x-request-id"), "{text}");
        assert!(document["title"].is_string() && document["detail"].is_string(), "{text}");
        let errors = document["errors"].as_array().cloned().unwrap_or_default();
        errors
            .iter()
            .map(|error| {
                assert!(error["message"].as_str().is_some_and(|m| !m.is_empty()), "{text}");
                let place = error["header"].as_str().or(error["pointer"].as_str()).unwrap();
                (place.to_owned(), error["code"].as_str().unwrap().to_owned())
            })
            .collect()
    }
}

pub(crate) fn post(path: &str, body: &Value, headers: &[(&str, &str)]) -> Request<Body> {
    raw(path, body.to_string(), headers)
}

pub(crate) fn raw(path: &str, body: impl Into<Body>, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::post(path);
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type")) {
        request = request.header("content-type", "application/json");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    from("127.0.0.1", request.body(body.into()).unwrap())
}

pub(crate) fn get(path: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::get(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    from("127.0.0.1", request.body(Body::empty()).unwrap())
}

pub(crate) fn from(peer: &str, mut request: Request<Body>) -> Request<Body> {
    request.extensions_mut().insert(ConnectInfo(SocketAddr::new(peer.parse().unwrap(), 4242)));
    request
}

pub(crate) fn bearer(key: &str) -> String {
    format!("Bearer {key}")
}

/// A valid canonical body.
pub(crate) fn canonical() -> Value {
    json!({
        "amount": 10_050,
        "currency": "USD",
        "card": {"number": "4111111111111111", "exp_month": 12, "exp_year": 2040, "cvc": "123"},
    })
}

/// A valid canonical body with everything in it.
pub(crate) fn complete() -> Value {
    json!({
        "amount": 10_050,
        "currency": "USD",
        "card": {"number": "4111 1111 1111 1111", "exp_month": 12, "exp_year": 40, "cvc": "123"},
        "customer": {"id": "cus_1", "email": "Jane.Doe@Example.com", "phone": "+49 30 1234-567"},
        "device": {"id": "dev_1", "ip": "::ffff:203.0.113.9", "user_agent": "Mozilla/5.0 (X11)"},
        "billing": {"country": "DE", "city": "Berlin", "postal_code": "10115"},
        "shipping": {"country": "FR", "city": "Paris", "postal_code": "75001"},
        "location": {"country": "DE", "lat": 52.52, "lon": 13.405},
        "mcc": "5411",
        "terminal_id": "trm_7",
        "metadata": {"order": "ord_1", "note": "two boxes"},
        "deadline_ms": 5_000,
        "idempotency_key": "order-1",
    })
}

/// A valid short body: seed 002's example.
pub(crate) fn short() -> Value {
    json!({
        "amount": 100.50,
        "currency": "USD",
        "card_number": "4111111111111111",
        "expiry_month": 12,
        "expiry_year": 2040,
        "cvv": "123",
    })
}

/// A body with one thing changed: `/card/cvc` and a value, or nothing to take it out.
pub(crate) fn changed(mut body: Value, pointer: &str, value: Option<Value>) -> Value {
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let object = body.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match value {
        Some(value) => object.insert(name.to_owned(), value),
        None => object.remove(name),
    };
    body
}

/// Decides what is created, as the analyzer would: a decline for the test card that asks for one.
async fn decide(log: Arc<FaultyLog>, mut decides: watch::Receiver<bool>) {
    let partitions = log.partitions(topics::CREATED).unwrap();
    let mut next = Vec::new();
    let mut seq = 0;
    for partition in 0..partitions {
        next.push(log.committed("decider", topics::CREATED, partition).await.unwrap().unwrap_or(0));
    }
    loop {
        if decides.wait_for(|decides| *decides).await.is_err() {
            return;
        }
        if log
            .wait_for_any(topics::CREATED, &Position::of_all(&next), Duration::from_millis(50))
            .await
            .is_err()
        {
            return;
        }
        if !*decides.borrow() {
            continue;
        }
        for partition in 0..partitions {
            let at = &mut next[partition as usize];
            let Ok(records) = log.read(topics::CREATED, partition, *at, 64, Duration::ZERO).await else {
                return;
            };
            let Some(last) = records.last() else { continue };
            *at = last.offset + 1;
            let decided = records.into_iter().zip(seq..).map(|(record, seq)| decided(partition, seq, record));
            let decided: Vec<NewRecord> = decided.collect();
            seq += decided.len() as u64;
            let done = log.append(decided).await.is_ok()
                && log.commit("decider", topics::CREATED, partition, *at).await.is_ok();
            if !done {
                return;
            }
        }
    }
}

fn decided(source_partition: u32, seq: u64, record: LoggedRecord) -> NewRecord {
    let transaction = Transaction::decode(&record.value).unwrap();
    let decided = Decided {
        lanes: 1,
        seq,
        source_partition,
        source_offset: record.offset,
        decided_at_us: transaction.accepted_at_us + 12_345,
        taken: None,
        decision: decision(&transaction),
        transaction,
    };
    NewRecord {
        topic: topics::DECIDED,
        key: record.key,
        value: Bytes::from(decided.encode()),
        headers: Vec::new(),
        timestamp_ms: record.timestamp_ms,
    }
}

fn decision(transaction: &Transaction) -> Decision {
    let declined = transaction.test_behaviour == Some(TestBehaviour::Decline);
    let reason = Reason {
        code: "velocity_card_count".into(),
        rule: "card_count_1h".into(),
        message: "12 payments with this card within an hour; 10 are usual".to_owned(),
        observed: 12.0,
        limit: 10.0,
        points: 80,
    };
    let score = if declined { 80 } else { 3 };
    Decision {
        transaction_id: transaction.id,
        window_time_us: transaction.accepted_at_us,
        outcome: if declined { Outcome::Decline } else { Outcome::Approve },
        risk_score: score,
        risk_level: RiskLevel::of_score(score),
        reasons: if declined { vec![reason] } else { Vec::new() },
        shadow_reasons: Vec::new(),
        ruleset: "sha256:00ff".into(),
        model: None,
    }
}
