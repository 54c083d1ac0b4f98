//! Opening, closing and the lock on the directory.

use std::sync::Arc;

use eventlog::contract::{DEADLINE, read_all, record};
use eventlog::{EmbeddedLog, EmbeddedLogConfig, EventLog, LogError, Position};
use events::topics::{CREATED, DECIDED};

use crate::{metric, open};

#[tokio::test]
async fn a_second_open_is_refused_and_says_who_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    let error = EmbeddedLog::open(dir.path(), EmbeddedLogConfig::default()).err().unwrap().to_string();
    assert!(error.contains("another paystream process"), "{error}");
    assert!(error.contains(&format!("(process {})", std::process::id())), "{error}");
    assert!(error.contains("stop it"), "{error}");
    // The first is none the worse for it.
    first.append(vec![record(CREATED, "key", "x")]).await.unwrap();
    first.close().await;
    open(dir.path());
}

#[tokio::test]
async fn another_number_of_partitions_is_refused_and_says_which_is_right() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path());
    let config = EmbeddedLogConfig { partitions: 6, ..EmbeddedLogConfig::default() };
    let error = EmbeddedLog::open(dir.path(), config).err().unwrap().to_string();
    assert!(error.contains("has 4 partitions per topic, not 6"), "{error}");
    assert!(error.contains("log.partitions = 4"), "{error}");
}

#[tokio::test]
async fn a_configuration_that_makes_no_sense_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let config = EmbeddedLogConfig { partitions: 0, ..EmbeddedLogConfig::default() };
    let error = EmbeddedLog::open(dir.path(), config).err().unwrap().to_string();
    assert!(error.contains("log.partitions"), "{error}");
}

#[tokio::test]
async fn a_directory_whose_making_was_cut_short_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    std::fs::create_dir_all(store.join("keyspaces")).unwrap();
    std::fs::write(store.join("lock"), "").unwrap();
    std::fs::write(store.join("0.jnl"), vec![0; 4_096]).unwrap();
    std::fs::write(store.join("version"), "").unwrap();
    open(dir.path()).append(vec![record(CREATED, "key", "x")]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_writes_what_is_queued_and_wakes_readers() {
    let dir = tempfile::tempdir().unwrap();
    let log = Arc::new(open(dir.path()));
    let reader = tokio::spawn({
        let log = log.clone();
        async move { log.read(DECIDED, 0, 0, 1, DEADLINE).await }
    });
    let appends: Vec<_> = (0..100)
        .map(|i| {
            let log = log.clone();
            tokio::spawn(async move { log.append(vec![record(CREATED, &i.to_string(), "x")]).await })
        })
        .collect();
    log.close().await;
    assert!(matches!(reader.await.unwrap(), Err(LogError::Closed)));
    let mut acknowledged = 0;
    for append in appends {
        match append.await.unwrap() {
            Ok(_) => acknowledged += 1,
            Err(LogError::Closed) => {}
            Err(error) => panic!("{error}"),
        }
    }
    assert!(matches!(log.append(vec![record(CREATED, "key", "x")]).await, Err(LogError::Closed)));
    assert!(matches!(log.commit("group", CREATED, 0, 1).await, Err(LogError::Closed)));
    assert!(matches!(
        log.wait_for_any(CREATED, &Position::of_all(&[0]), DEADLINE).await,
        Err(LogError::Closed)
    ));

    let log = open(dir.path());
    let mut found = 0;
    for partition in 0..4 {
        found += read_all(&log, CREATED, partition).await.len();
    }
    assert_eq!(found, acknowledged);
}

#[tokio::test]
async fn metrics_count_what_happened() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let registry = prometheus::Registry::new();
    log.register(&registry).unwrap();
    let records = (0..10).map(|i| record(CREATED, &i.to_string(), "x")).collect();
    log.append(records).await.unwrap();
    assert_eq!(metric(&registry, "paystream_log_records_total"), 10.0);
    assert_eq!(metric(&registry, "paystream_log_end_offset"), 10.0);
    assert_eq!(metric(&registry, "paystream_log_start_offset"), 0.0);
    assert_eq!(metric(&registry, "paystream_log_queue_records"), 0.0);
    assert_eq!(metric(&registry, "paystream_log_append_seconds"), 1.0);
    assert!(metric(&registry, "paystream_log_fsync_seconds") >= 1.0);
    assert!(metric(&registry, "paystream_log_kept_bytes") > 0.0);
    assert_eq!(metric(&registry, "paystream_log_poisoned"), 0.0);
}
