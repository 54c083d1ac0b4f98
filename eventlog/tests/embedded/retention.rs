//! Removal by age and by size.

use std::path::Path;
use std::time::{Duration, SystemTime};

use eventlog::contract::{DEADLINE, read_all, record};
use eventlog::{EmbeddedLog, EmbeddedLogConfig, EventLog, LogError, NewRecord, Retention};
use events::topics::{CREATED, DECIDED, LABELLED, LISTS_CHANGED};

use crate::{metric, open, until, with_size};

const HOUR_MS: u64 = 3_600_000;
const MIB: u64 = 1 << 20;

fn opened(dir: &Path, max_age_ms: u64, max_bytes: u64) -> EmbeddedLog {
    let retention = Retention { max_age_ms, max_bytes, check_interval_ms: 10 };
    EmbeddedLog::open(dir, EmbeddedLogConfig { retention, ..EmbeddedLogConfig::default() }).unwrap()
}

fn hours_ago(hours: u64) -> i64 {
    let then = SystemTime::now() - Duration::from_millis(hours * HOUR_MS);
    then.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as i64
}

fn aged(topic: &'static str, value: &str, hours: u64) -> NewRecord {
    NewRecord { timestamp_ms: hours_ago(hours), ..record(topic, "key", value) }
}

fn disk_bytes(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
            Ok(metadata) => metadata.len(),
            Err(_) => 0, // removed since it was listed
        })
        .sum()
}

#[tokio::test]
async fn records_older_than_the_limit_are_removed_also_from_an_idle_topic() {
    let dir = tempfile::tempdir().unwrap();
    let log = opened(dir.path(), HOUR_MS, 1 << 30);
    let registry = prometheus::Registry::new();
    log.register(&registry).unwrap();
    let place = log.append(vec![aged(CREATED, "old", 2), aged(CREATED, "old too", 3)]).await.unwrap()[0];
    let kept = log.append(vec![aged(DECIDED, "young", 0)]).await.unwrap()[0];

    until("the old records are gone", async || log.bounds(CREATED, place.partition).await.unwrap() == (2, 2))
        .await;
    let error = log.read(CREATED, place.partition, 0, 10, DEADLINE).await;
    assert!(
        matches!(error, Err(LogError::OffsetOutOfRange { offset: 0, start: 2, end: 2, .. })),
        "{error:?}"
    );
    assert_eq!(read_all(&log, DECIDED, kept.partition).await.len(), 1);
    assert_eq!(metric(&registry, "paystream_log_removed_records_total"), 2.0);

    // Offsets go on where they were, now and after a restart.
    let next = log.append(vec![aged(CREATED, "young", 0)]).await.unwrap()[0];
    assert_eq!(next.offset, 2);
    log.close().await;
    let log = open(dir.path());
    assert_eq!(log.bounds(CREATED, place.partition).await.unwrap(), (2, 3));
    assert_eq!(log.append(vec![aged(CREATED, "young", 0)]).await.unwrap()[0].offset, 3);
}

#[tokio::test]
async fn an_emptied_topic_keeps_its_place_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let log = opened(dir.path(), HOUR_MS, 1 << 30);
    let place = log.append((0..7).map(|_| aged(CREATED, "old", 2)).collect()).await.unwrap()[0];
    until("all is gone", async || log.bounds(CREATED, place.partition).await.unwrap() == (7, 7)).await;
    log.close().await;
    let log = open(dir.path());
    assert_eq!(log.bounds(CREATED, place.partition).await.unwrap(), (7, 7));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_keeps_no_more_bytes_than_the_limit_and_the_newest_of_them() {
    let dir = tempfile::tempdir().unwrap();
    let limit = 4 * MIB;
    let log = opened(dir.path(), 24 * HOUR_MS, limit);
    let registry = prometheus::Registry::new();
    log.register(&registry).unwrap();
    let mut written = 0;
    for i in 0..400_u64 {
        let records: Vec<NewRecord> =
            (0..10).map(|n| with_size(record(CREATED, &format!("key-{}", i * 10 + n), ""), 8_192)).collect();
        written += records.len() as u64;
        log.append(records).await.unwrap();
    }
    assert!(written * 8_192 > 7 * limit);
    let kept_bytes = || metric(&registry, "paystream_log_kept_bytes");
    until("the topic is within its limit", async || kept_bytes() <= limit as f64).await;
    assert!(kept_bytes() > limit as f64 / 2.0, "removed far too much: {}", kept_bytes());

    // What is left is the newest of each partition, whole, and readable to the end.
    let mut kept = 0;
    let mut ends = 0;
    for partition in 0..4 {
        let (start, end) = log.bounds(CREATED, partition).await.unwrap();
        assert!(start > 0, "partition {partition} has lost nothing");
        let records = read_all(&log, CREATED, partition).await;
        assert_eq!(records.len() as u64, end - start);
        assert!(records.iter().all(|record| record.value.len() == 8_192));
        kept += end - start;
        ends += end;
    }
    assert_eq!(ends, written);
    assert_eq!(metric(&registry, "paystream_log_removed_records_total"), (written - kept) as f64);

    // The disk space is free: beyond the journal, which has its own bound, only what is kept is there.
    log.close().await;
    let log = opened(dir.path(), 24 * HOUR_MS, limit);
    let segments = dir.path().join("store/keyspaces");
    until("the files are gone", async || disk_bytes(&segments) <= 2 * limit).await;
    for partition in 0..4 {
        let (start, end) = log.bounds(CREATED, partition).await.unwrap();
        assert_eq!(read_all(&log, CREATED, partition).await.len() as u64, end - start);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_sees_every_record_or_is_told_what_it_missed() {
    let dir = tempfile::tempdir().unwrap();
    let log = opened(dir.path(), 24 * HOUR_MS, MIB);
    let append = async {
        for i in 0..600 {
            let value = with_size(record(CREATED, "key", ""), 8_192);
            let mut value = value.value.to_vec();
            value[..8].copy_from_slice(&u64::to_be_bytes(i));
            log.append(vec![NewRecord { value: value.into(), ..record(CREATED, "key", "") }]).await.unwrap();
        }
    };
    let partition = log.append(vec![with_size(record(CREATED, "key", ""), 8)]).await.unwrap()[0].partition;
    let read = async {
        let (mut next, mut seen, mut skipped) = (1, 0, 0);
        while next <= 600 {
            match log.read(CREATED, partition, next, 3, DEADLINE).await {
                Ok(records) => {
                    for record in records {
                        assert_eq!(record.offset, next);
                        assert_eq!(record.value[..8], (next - 1).to_be_bytes());
                        next += 1;
                        seen += 1;
                    }
                }
                Err(LogError::OffsetOutOfRange { start, .. }) => {
                    assert!(start > next);
                    skipped += start - next;
                    next = start;
                }
                Err(error) => panic!("{error}"),
            }
        }
        (seen, skipped)
    };
    let ((), (seen, skipped)) = tokio::join!(append, read);
    assert_eq!(seen + skipped, 600);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_to_lists_are_kept_whatever_their_age_and_size() {
    let dir = tempfile::tempdir().unwrap();
    let log = opened(dir.path(), HOUR_MS, MIB);
    let registry = prometheus::Registry::new();
    log.register(&registry).unwrap();
    let changes = (0..400).map(|_| with_size(aged(LISTS_CHANGED, "", 2_000), 8_192)).collect();
    let place = log.append(changes).await.unwrap()[0];
    // The same of another topic goes: retention has looked.
    let others = (0..400).map(|_| with_size(aged(LABELLED, "", 2_000), 8_192)).collect();
    log.append(others).await.unwrap();
    until("what is not kept is gone", async || {
        metric(&registry, "paystream_log_removed_records_total") >= 400.0
    })
    .await;
    log.append(vec![aged(LISTS_CHANGED, "", 2_000)]).await.unwrap();
    assert_eq!(log.bounds(LISTS_CHANGED, place.partition).await.unwrap(), (0, 401));
    log.close().await;
    let log = opened(dir.path(), HOUR_MS, MIB);
    assert_eq!(read_all(&log, LISTS_CHANGED, place.partition).await.len(), 401);
    assert_eq!(metric(&registry, "paystream_log_removed_records_total"), 400.0);
}
