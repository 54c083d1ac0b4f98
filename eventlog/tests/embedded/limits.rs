//! The queue's bounds, and what happens at them.

use std::sync::Arc;

use eventlog::contract::{read_all, record};
use eventlog::{EmbeddedLog, EmbeddedLogConfig, EventLog, LogError, NewRecord};
use events::topics::CREATED;

use crate::{metric, open, with_size};

async fn count(log: &dyn EventLog) -> usize {
    let mut count = 0;
    for partition in 0..log.partitions(CREATED).unwrap() {
        count += read_all(log, CREATED, partition).await.len();
    }
    count
}

/// Many appends at once against a queue with room for few, with a deadline too short for all of them.
async fn flood(config: EmbeddedLogConfig, callers: usize, append: impl Fn(usize) -> Vec<NewRecord>) {
    let dir = tempfile::tempdir().unwrap();
    let log = Arc::new(EmbeddedLog::open(dir.path(), config).unwrap());
    let registry = prometheus::Registry::new();
    log.register(&registry).unwrap();
    let per_append = append(0).len();
    let appends: Vec<_> = (0..callers)
        .map(|i| {
            let (log, records) = (log.clone(), append(i));
            tokio::spawn(async move { log.append(records).await })
        })
        .collect();
    let (mut written, mut full) = (0, 0);
    for append in appends {
        match append.await.unwrap() {
            Ok(positions) => written += positions.len(),
            Err(LogError::Full) => full += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(full > 0, "the flood must overflow the queue");
    assert!(written > 0, "the queue must not be stuck");
    assert_eq!(written, (callers - full) * per_append);
    assert_eq!(count(&*log).await, written, "what was refused must not be written");
    assert_eq!(metric(&registry, "paystream_log_refused_total"), full as f64);
    assert_eq!(metric(&registry, "paystream_log_queue_records"), 0.0);
    // Room is given back: the log goes on.
    log.append(append(0)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_full_of_records_refuses_and_writes_nothing_of_it() {
    let config =
        EmbeddedLogConfig { append_queue_records: 2, append_deadline_ms: 1, ..EmbeddedLogConfig::default() };
    flood(config, 2_000, |i| vec![record(CREATED, &i.to_string(), "x"), record(CREATED, "y", "y")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_full_of_bytes_refuses_and_writes_nothing_of_it() {
    let config = EmbeddedLogConfig {
        append_queue_bytes: 4_096,
        append_deadline_ms: 1,
        ..EmbeddedLogConfig::default()
    };
    flood(config, 2_000, |i| vec![with_size(record(CREATED, &i.to_string(), ""), 4_000)]).await;
}

#[tokio::test]
async fn an_append_larger_than_the_queue_is_taken_when_it_is_alone() {
    let dir = tempfile::tempdir().unwrap();
    let config = EmbeddedLogConfig {
        append_queue_records: 2,
        append_queue_bytes: 4_096,
        ..EmbeddedLogConfig::default()
    };
    let log = EmbeddedLog::open(dir.path(), config).unwrap();
    let records = (0..50).map(|i| with_size(record(CREATED, &i.to_string(), ""), 500)).collect();
    assert_eq!(log.append(records).await.unwrap().len(), 50);
}

#[tokio::test]
async fn a_record_beyond_the_limit_is_refused_with_all_that_came_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let records = vec![record(CREATED, "key", "x"), with_size(record(CREATED, "key", ""), 17 << 20)];
    assert!(matches!(log.append(records).await, Err(LogError::TooLarge { .. })));
    assert_eq!(count(&log).await, 0);
    log.append(vec![with_size(record(CREATED, "key", ""), 15 << 20)]).await.unwrap();
    assert_eq!(count(&log).await, 1);
}

#[tokio::test]
async fn a_group_without_a_name_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    assert!(log.commit("", CREATED, 0, 1).await.is_err());
    assert!(log.commit(&"g".repeat(70_000), CREATED, 0, 1).await.is_err());
    log.commit("group", CREATED, 0, 1).await.unwrap();
}
