//! Readers at several places, bounds of memory, and what retention has taken.

use std::time::Duration;

use bytes::Bytes;
use eventlog::contract::{DEADLINE, record};
use eventlog::{EventLog, KafkaConfig, KafkaLog, LogError, NewRecord, Position};
use events::topics::CREATED;
use rdkafka::TopicPartitionList;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;

use crate::support::{Cluster, metric, values};

async fn fill(log: &KafkaLog, records: usize) -> u32 {
    let batch = (0..records).map(|i| record(CREATED, "key", &i.to_string())).collect();
    log.append(batch).await.unwrap()[0].partition
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_at_many_places_each_get_their_records() {
    const RECORDS: u64 = 3_000;
    let Some(mut cluster) = Cluster::new().await else { return };
    // Windows are much smaller than the partition, so that readers have to move.
    cluster.config = KafkaConfig { fetch_buffer_records: 64, ..cluster.config.clone() };
    let log = std::sync::Arc::new(cluster.open().await);
    let partition = fill(&log, RECORDS as usize).await;
    let readers: Vec<_> = (0..5)
        .map(|reader: u64| {
            let log = log.clone();
            tokio::spawn(async move {
                let mut next = reader * 400;
                while next < RECORDS {
                    let max_records = 1 + (reader as usize * 37) % 100;
                    let records =
                        log.read(CREATED, partition, next, max_records, Duration::ZERO).await.unwrap();
                    let expected: Vec<String> =
                        (next..next + records.len() as u64).map(|i| i.to_string()).collect();
                    assert!(!records.is_empty());
                    assert_eq!(values(&records), expected);
                    // One of them goes in leaps.
                    next += if reader == 4 { 450 } else { records.len() as u64 };
                }
            })
        })
        .collect();
    for reader in readers {
        tokio::time::timeout(2 * DEADLINE, reader).await.expect("in time").unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_holds_no_more_than_its_bounds_and_loses_nothing() {
    const RECORDS: usize = 20_000;
    let Some(mut cluster) = Cluster::new().await else { return };
    cluster.config = KafkaConfig { fetch_buffer_records: 500, ..cluster.config.clone() };
    let log = cluster.open().await;
    let registry = prometheus::Registry::new();
    log.register(&registry).unwrap();
    let partition = fill(&log, RECORDS).await;
    let mut next = 0;
    while next < RECORDS as u64 {
        let ready =
            log.wait_for_any(CREATED, &[Position { partition, offset: next }], DEADLINE).await.unwrap();
        assert_eq!(ready, [partition]);
        let records = log.read(CREATED, partition, next, 300, Duration::ZERO).await.unwrap();
        assert_eq!(records[0].offset, next);
        next += records.len() as u64;
        // One of librdkafka's own batches comes on top.
        let ahead = metric(&registry, "paystream_log_fetched_records_total") - next as f64;
        assert!(ahead <= 500.0 + 1_024.0, "{ahead} records wait");
    }
    assert_eq!(metric(&registry, "paystream_log_moves_total"), 1.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_retention_has_removed_is_out_of_range_for_every_reader() {
    let Some(cluster) = Cluster::new().await else { return };
    let log = cluster.open().await;
    let partition = fill(&log, 100).await;
    // A reader that has seen the offset before, and one that has not.
    let single = log.read(CREATED, partition, 5, 1, Duration::ZERO).await.unwrap();
    assert_eq!(values(&single), ["5"]);
    remove_before(&cluster, partition, 50).await;
    let other = cluster.open().await;
    for log in [&log, &other] {
        assert_eq!(log.bounds(CREATED, partition).await.unwrap(), (50, 100));
        let error = log.read(CREATED, partition, 10, 1, DEADLINE).await;
        assert!(
            matches!(error, Err(LogError::OffsetOutOfRange { start: 50, end: 100, offset: 10, .. })),
            "{error:?}"
        );
        let ready = log.wait_for_any(CREATED, &[Position { partition, offset: 10 }], DEADLINE).await;
        assert_eq!(ready.unwrap(), [partition], "reading says why");
        assert_eq!(log.read(CREATED, partition, 50, 1, Duration::ZERO).await.unwrap()[0].offset, 50);
    }
}

async fn remove_before(cluster: &Cluster, partition: u32, offset: i64) {
    let admin: AdminClient<DefaultClientContext> =
        rdkafka::ClientConfig::new().set("bootstrap.servers", &cluster.config.brokers).create().unwrap();
    let mut list = TopicPartitionList::new();
    let topic = format!("{}{CREATED}", cluster.config.topic_prefix);
    list.add_partition_offset(&topic, i32::try_from(partition).unwrap(), rdkafka::Offset::Offset(offset))
        .unwrap();
    admin.delete_records(&list, &AdminOptions::new()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_beyond_the_limit_is_refused_with_all_that_came_with_it() {
    let Some(cluster) = Cluster::new().await else { return };
    let log = cluster.open().await;
    let large = NewRecord { value: Bytes::from(vec![b'x'; 1_000_001]), ..record(CREATED, "key", "") };
    let error = log.append(vec![record(CREATED, "key", "x"), large]).await;
    assert!(matches!(error, Err(LogError::TooLarge { .. })), "{error:?}");
    for partition in 0..2 {
        assert_eq!(log.bounds(CREATED, partition).await.unwrap(), (0, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_stays_full_refuses_and_writes_nothing_of_it() {
    let Some(mut cluster) = Cluster::new().await else { return };
    cluster.config = KafkaConfig {
        append_queue_records: 2,
        append_deadline_ms: 3_000,
        linger_ms: 1_000,
        ..cluster.config.clone()
    };
    let log = std::sync::Arc::new(cluster.open().await);
    let registry = prometheus::Registry::new();
    log.register(&registry).unwrap();
    let appends: Vec<_> = (0..40)
        .map(|i| {
            let log = log.clone();
            tokio::spawn(async move { log.append(vec![record(CREATED, "key", &i.to_string())]).await })
        })
        .collect();
    let (mut written, mut full) = (0, 0);
    for append in appends {
        match append.await.unwrap() {
            Ok(_) => written += 1,
            Err(LogError::Full) => full += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(written > 0 && full > 0, "{written} written, {full} refused");
    let ends = [log.bounds(CREATED, 0).await.unwrap().1, log.bounds(CREATED, 1).await.unwrap().1];
    assert_eq!(ends.iter().sum::<u64>(), written);
    assert_eq!(metric(&registry, "paystream_log_refused_total"), f64::from(full));
    assert_eq!(metric(&registry, "paystream_log_queue_records"), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_log_says_so_to_everyone_who_waits() {
    let Some(cluster) = Cluster::new().await else { return };
    let log = std::sync::Arc::new(cluster.open().await);
    let waiter = tokio::spawn({
        let log = log.clone();
        async move { log.read(CREATED, 0, 0, 1, DEADLINE).await }
    });
    log.close().await;
    let waited = tokio::time::timeout(DEADLINE / 2, waiter).await.expect("it wakes").unwrap();
    assert!(matches!(waited, Err(LogError::Closed)), "{waited:?}");
    assert!(matches!(log.append(vec![record(CREATED, "key", "x")]).await, Err(LogError::Closed)));
    assert!(matches!(log.writer("w").await.err(), Some(LogError::Closed)));
}
