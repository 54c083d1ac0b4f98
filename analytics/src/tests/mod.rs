//! Tests of the parts together, on the embedded log.

mod clickhouse;
mod http;
mod live;
mod query;
mod reconcile;
mod recovery;
mod service;
mod storage;

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use eventlog::{EmbeddedLog, EmbeddedLogConfig, EventLog, NewRecord};
use events::{
    Alert, AlertId, AmountMinor, Card, CardToken, Decided, Decision, Label, LabelSource, Message, Outcome,
    Reason, RiskLevel, Severity, Transaction, TransactionId, Verdict, topics,
};
use tempfile::TempDir;

use crate::config::{Compression, WarehouseConfig};
use crate::engine::{Engine, QueryLimits};
use crate::ingest::chunk;
use crate::parquet::Pacer;
use crate::reader::Reader;
use crate::result::QueryResult;
use crate::rows::Rows;
use crate::store::Store;

/// 2026-11-21T06:59:30Z: half a minute before an hour ends, so that rows fall into two hours.
pub(crate) const BASE_MS: i64 = 1_795_244_370_000;
/// Long after everything in the tests: every hour is over.
pub(crate) const LATER_MS: i64 = BASE_MS + 86_400_000;
const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) fn id(n: u64) -> TransactionId {
    TransactionId::derive(&"shop-1".parse().unwrap(), &n.to_string())
}

pub(crate) fn transaction(n: u64) -> Transaction {
    let token = CardToken::new("k1", &u128::from(n % 97).to_be_bytes()).unwrap();
    Transaction {
        id: id(n),
        merchant_id: format!("shop-{}", n % 7).parse().unwrap(),
        accepted_at_us: (BASE_MS + n.cast_signed() * 20) * 1_000,
        livemode: n.is_multiple_of(2),
        amount_minor: AmountMinor::try_from(10_050 + n.cast_signed()).unwrap(),
        currency: "USD".parse().unwrap(),
        reporting_amount_minor: Some(9_000),
        card: Card {
            token,
            bin: "411111".to_owned(),
            last4: "1111".to_owned(),
            brand: "visa".to_owned(),
            exp_month: 12,
            exp_year: 2030,
        },
        customer: events::Customer { email: Some("a@example.com".to_owned()), ..Default::default() },
        device: events::Device::default(),
        billing: events::Address::default(),
        shipping: events::Address::default(),
        location: Some(events::Location { country: Some("DE".to_owned()), lat: 52.5, lon: 13.4 }),
        mcc: None,
        terminal_id: None,
        metadata: [("order".to_owned(), n.to_string())].into(),
        test_behaviour: None,
        idempotency_key: None,
        request_fingerprint: "f".to_owned(),
    }
}

fn reason(rule: &str) -> Reason {
    Reason {
        code: "velocity_card_count".into(),
        rule: rule.into(),
        message: "12 payments in one hour, 5 are usual".to_owned(),
        observed: 12.0,
        limit: 5.5,
        points: 60,
    }
}

/// Every fifth is declined by a live rule and matches a shadow rule.
pub(crate) fn decided(n: u64, source_partition: u32, source_offset: u64) -> Decided {
    let transaction = transaction(n);
    let declined = n.is_multiple_of(5);
    Decided {
        lanes: 1,
        seq: n,
        source_partition,
        source_offset,
        decided_at_us: transaction.accepted_at_us + 2_500,
        taken: None,
        decision: Decision {
            transaction_id: transaction.id,
            window_time_us: transaction.accepted_at_us,
            outcome: if declined { Outcome::Decline } else { Outcome::Approve },
            risk_score: if declined { 80 } else { 3 },
            risk_level: RiskLevel::of_score(if declined { 80 } else { 3 }),
            reasons: if declined { vec![reason("card-velocity")] } else { Vec::new() },
            shadow_reasons: if declined { vec![reason("night")] } else { Vec::new() },
            ruleset: "abc".into(),
            model: None,
        },
        transaction,
    }
}

pub(crate) fn alert(decided: &Decided) -> Alert {
    let t = &decided.transaction;
    Alert {
        id: AlertId::derive(t.id),
        transaction_id: t.id,
        merchant_id: t.merchant_id.clone(),
        raised_at_us: t.accepted_at_us,
        severity: Severity::High,
        outcome: decided.decision.outcome,
        risk_score: decided.decision.risk_score,
        card_token: t.card.token.clone(),
        card_masked: t.card.masked(),
        amount_minor: t.amount_minor,
        currency: t.currency,
        livemode: t.livemode,
        reasons: decided.decision.reasons.clone(),
    }
}

pub(crate) fn record(topic: &'static str, key: &str, value: Vec<u8>) -> NewRecord {
    NewRecord {
        topic,
        key: Bytes::from(key.to_owned()),
        value: value.into(),
        headers: Vec::new(),
        timestamp_ms: crate::live::now_ms(),
    }
}

/// A log and a folder for the warehouse, in a temporary directory.
pub(crate) struct World {
    pub(crate) log: Arc<dyn EventLog>,
    dir: TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(&dir.path().join("log"), EmbeddedLogConfig::default()).unwrap();
        Self { log: Arc::new(log), dir }
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.dir.path().join("warehouse")
    }

    /// Writes transactions through all topics, as the gateway and the analyzer would.
    pub(crate) async fn append(&self, numbers: Range<u64>) {
        for chunk in numbers.collect::<Vec<_>>().chunks(500) {
            let created = chunk.iter().map(|&n| {
                let t = transaction(n);
                record(topics::CREATED, t.card.token.as_str(), t.encode())
            });
            let positions = self.log.append(created.collect()).await.unwrap();
            let mut records = Vec::new();
            for (&n, at) in chunk.iter().zip(positions) {
                let decided = decided(n, at.partition, at.offset);
                let key = decided.transaction.card.token.as_str();
                records.push(record(topics::DECIDED, key, decided.encode()));
                if n % 5 == 0 {
                    records.push(record(topics::ALERTS, key, alert(&decided).encode()));
                }
                if n % 50 == 0 {
                    records.push(record(topics::LABELLED, &id(n).to_string(), label(n).encode()));
                }
            }
            self.log.append(records).await.unwrap();
        }
    }

    pub(crate) fn open(&self) -> Store {
        Store::open(&self.dir(), Compression::Zstd).unwrap()
    }

    pub(crate) fn engine(&self) -> Engine {
        std::fs::create_dir_all(self.dir()).unwrap();
        Engine::new(&self.dir(), &WarehouseConfig::default()).unwrap()
    }

    /// Reads everything the log holds beyond the store's positions into its memory.
    pub(crate) async fn catch_up(&self, store: &Store) {
        let positions = store.snapshot().positions.clone();
        let mut reader = Reader::open(Arc::clone(&self.log), positions, None).await.unwrap();
        let mut rows = Rows::default();
        while reader.poll(&mut rows, None).await.unwrap() > 0 {
            store.append(chunk(&mut rows, &reader).unwrap());
        }
    }
}

pub(crate) fn label(n: u64) -> Label {
    Label {
        transaction_id: id(n),
        merchant_id: "shop-1".parse().unwrap(),
        verdict: Verdict::Fraud,
        source: LabelSource::Chargeback,
        window_time_us: BASE_MS * 1_000,
        source_partition: 0,
        labelled_at_us: BASE_MS * 1_000,
        note: None,
    }
}

/// No rests between slices.
pub(crate) fn fast() -> Pacer {
    let pacer = Pacer::default();
    pacer.hurry();
    pacer
}

pub(crate) async fn ask(engine: &Engine, store: &Store, sql: &str) -> QueryResult {
    let limits = QueryLimits { deadline: DEADLINE, max_rows: 1_000_000 };
    engine.query(store.snapshot(), sql, limits).await.unwrap()
}

/// The numbers of the one row that is answered.
pub(crate) async fn numbers(engine: &Engine, store: &Store, sql: &str) -> Vec<i64> {
    let rows = ask(engine, store, sql).await.json_rows().unwrap();
    assert_eq!(rows.len(), 1, "{sql}");
    rows[0].iter().map(|value| value.as_i64().unwrap()).collect()
}

/// Asserts that the first `n` transactions are stored exactly once, in every table.
pub(crate) async fn assert_stored_once(engine: &Engine, store: &Store, n: i64) {
    let fifth = (n + 4) / 5;
    for (sql, expected) in [
        ("SELECT count(*), count(DISTINCT id) FROM transactions", vec![n, n]),
        (
            "SELECT count(*), count(DISTINCT transaction_id), coalesce(CAST(sum(seq) AS BIGINT), 0) FROM decisions",
            vec![n, n, n * (n - 1) / 2],
        ),
        ("SELECT count(*), count(DISTINCT transaction_id) FROM rule_hits", vec![2 * fifth, fifth]),
        ("SELECT count(*), count(DISTINCT id) FROM alerts", vec![fifth, fifth]),
        ("SELECT count(*), count(DISTINCT transaction_id) FROM labels", vec![(n + 49) / 50, (n + 49) / 50]),
    ] {
        assert_eq!(numbers(engine, store, sql).await, expected, "{sql}");
    }
}

pub(crate) fn parquet_files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "parquet") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Waits until the condition holds, and fails when it does not within the deadline.
pub(crate) async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !condition().await {
        assert!(began.elapsed() < DEADLINE, "never came true: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
