//! An embedded log with transactions, and the analyzer over it.
#![allow(dead_code, clippy::unwrap_used)] // each test file uses its part; a failed unwrap is a failed test

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use eventlog::{EmbeddedLog, EmbeddedLogConfig, EventLog, NewRecord};
use events::{
    Card, CardToken, Customer, Decided, Device, MerchantId, Message as _, Transaction, TransactionId, topics,
};
use fraud_analyzer::{Analyzer, AnalyzerConfig};
use scoring::{DecisionHash, MemoryStore, Ruleset, RulesetSource, Scorer, SegmentStore, transactions};

pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) fn transaction(i: usize) -> Transaction {
    let merchant_id: MerchantId = "m1".parse().unwrap();
    Transaction {
        id: TransactionId::derive(&merchant_id, &i.to_string()),
        merchant_id,
        accepted_at_us: 1_700_000_000_000_000 + i64::try_from(i * 250_000).unwrap(),
        livemode: true,
        amount_minor: i64::try_from(100 + i * 37 % 90_000).unwrap().try_into().unwrap(),
        currency: "EUR".parse().unwrap(),
        reporting_amount_minor: Some(i64::try_from(100 + i * 37 % 90_000).unwrap()),
        card: Card {
            token: CardToken::new("k1", &[u8::try_from(i % 40).unwrap(); 16]).unwrap(),
            bin: "411111".into(),
            last4: "1111".into(),
            brand: "visa".into(),
            exp_month: 1,
            exp_year: 2040,
        },
        customer: Customer::default(),
        device: Device { id: None, ip: Some(format!("10.0.0.{}", i % 6)), user_agent: None },
        billing: events::Address::default(),
        shipping: events::Address::default(),
        location: None,
        mcc: None,
        terminal_id: None,
        metadata: std::collections::BTreeMap::new(),
        test_behaviour: None,
        idempotency_key: None,
        request_fingerprint: "00".into(),
    }
}

pub(crate) fn record(key: &str, value: Vec<u8>) -> NewRecord {
    NewRecord {
        topic: topics::CREATED,
        key: Bytes::copy_from_slice(key.as_bytes()),
        value: value.into(),
        headers: Vec::new(),
        timestamp_ms: 1_700_000_000_000,
    }
}

pub(crate) async fn submit(log: &dyn EventLog, range: std::ops::Range<usize>) {
    for chunk in range.collect::<Vec<_>>().chunks(97) {
        let records = chunk.iter().map(|&i| {
            let transaction = transaction(i);
            record(transaction.card.token.as_str(), transaction.encode())
        });
        log.append(records.collect()).await.unwrap();
    }
}

pub(crate) fn ruleset() -> Ruleset {
    Ruleset::load(&RulesetSource::built_in()).unwrap()
}

pub(crate) fn start(log: &Arc<EmbeddedLog>, dir: &Path) -> Analyzer {
    start_with(ruleset(), log, dir, &prometheus::Registry::new())
}

pub(crate) fn start_with(
    ruleset: Ruleset,
    log: &Arc<EmbeddedLog>,
    dir: &Path,
    registry: &prometheus::Registry,
) -> Analyzer {
    let log: Arc<dyn EventLog> = Arc::clone(log) as _;
    let config = AnalyzerConfig { checkpoint_interval_ms: 100, ..AnalyzerConfig::default() };
    Analyzer::start(config, ruleset, log, dir, registry).unwrap()
}

pub(crate) async fn stop(analyzer: Analyzer) {
    analyzer.service.stop.cancel();
    tokio::time::timeout(DEADLINE, analyzer.service.task).await.expect("it stops in time").unwrap().unwrap();
}

pub(crate) async fn topic(log: &dyn EventLog, topic: &str) -> Vec<eventlog::LoggedRecord> {
    let mut all = Vec::new();
    for partition in 0..log.partitions(topic).unwrap() {
        let (mut from, end) = log.bounds(topic, partition).await.unwrap();
        while from < end {
            let records = log.read(topic, partition, from, 1_000, Duration::ZERO).await.unwrap();
            from += records.len() as u64;
            all.extend(records);
        }
    }
    all
}

/// All decided records in the analyzer's order.
pub(crate) async fn decided(log: &dyn EventLog) -> Vec<Decided> {
    let records = topic(log, topics::DECIDED).await;
    let mut all: Vec<_> = records.iter().map(|r| Decided::decode(&r.value).unwrap()).collect();
    all.sort_by_key(|d| d.seq);
    all
}

pub(crate) fn hash<'a>(decisions: impl Iterator<Item = &'a events::Decision>) -> String {
    let mut hash = DecisionHash::default();
    decisions.for_each(|d| hash.add(d));
    hash.to_string()
}

/// What one scorer that never stopped makes of the events in the order the analyzer had them.
pub(crate) fn uninterrupted(ruleset: Ruleset, decided: &[Decided]) -> Vec<events::Decision> {
    let list: Vec<_> = decided.iter().map(|d| &d.transaction).collect();
    let store: Arc<dyn SegmentStore> = MemoryStore::new();
    let scored = Scorer::new(ruleset, &store).score(&transactions::batch(&list)).unwrap();
    scored.into_iter().map(|s| s.decision).collect()
}

pub(crate) fn open_log(dir: &Path) -> Arc<EmbeddedLog> {
    Arc::new(EmbeddedLog::open(&dir.join("log"), EmbeddedLogConfig::default()).unwrap())
}

pub(crate) fn assert_each_once(decided: &[Decided], n: usize) {
    let seqs: Vec<_> = decided.iter().map(|d| d.seq).collect();
    assert_eq!(seqs, (0..n as u64).collect::<Vec<_>>(), "places without gaps or repeats");
    let mut ids: Vec<_> = decided.iter().map(|d| d.transaction.id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), n, "each transaction once");
}

/// Polls `check` until it finds something.
pub(crate) async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let until = std::time::Instant::now() + DEADLINE;
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(std::time::Instant::now() < until, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
