//! Letters are dealt with once, whatever cuts in.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use eventlog::{EmbeddedLog, EmbeddedLogConfig, LoggedRecord, Membership, Position};
use events::topics;

use super::*;

const DEAD: &str = "transactions.created.dlq";

/// A log whose group `dlq` cannot commit while it is told so: what a crash right after an append leaves.
struct Cut {
    inner: EmbeddedLog,
    cut: AtomicBool,
}

#[async_trait]
impl EventLog for Cut {
    fn partitions(&self, topic: &str) -> Result<u32, LogError> {
        self.inner.partitions(topic)
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Position>, LogError> {
        self.inner.append(records).await
    }

    async fn read(
        &self,
        topic: &str,
        partition: u32,
        from_offset: u64,
        max_records: usize,
        wait: Duration,
    ) -> Result<Vec<LoggedRecord>, LogError> {
        self.inner.read(topic, partition, from_offset, max_records, wait).await
    }

    async fn bounds(&self, topic: &str, partition: u32) -> Result<(u64, u64), LogError> {
        self.inner.bounds(topic, partition).await
    }

    async fn wait_for_any(
        &self,
        topic: &str,
        from: &[Position],
        wait: Duration,
    ) -> Result<Vec<u32>, LogError> {
        self.inner.wait_for_any(topic, from, wait).await
    }

    async fn commit(&self, group: &str, topic: &str, partition: u32, offset: u64) -> Result<(), LogError> {
        if group == GROUP && self.cut.load(Ordering::Relaxed) {
            return Err(LogError::Storage("cut off".to_owned()));
        }
        self.inner.commit(group, topic, partition, offset).await
    }

    async fn committed(&self, group: &str, topic: &str, partition: u32) -> Result<Option<u64>, LogError> {
        self.inner.committed(group, topic, partition).await
    }

    async fn writer(&self, name: &str) -> Result<Box<dyn Writer>, LogError> {
        self.inner.writer(name).await
    }

    async fn join(&self, group: &str, parts: u32) -> Result<Box<dyn Membership>, LogError> {
        self.inner.join(group, parts).await
    }
}

fn open(dir: &Path) -> Arc<Cut> {
    let inner = EmbeddedLog::open(dir, EmbeddedLogConfig::default()).unwrap();
    Arc::new(Cut { inner, cut: AtomicBool::new(false) })
}

/// Letters about the records at `offsets` of partition 0.
async fn bury(log: &Cut, offsets: std::ops::Range<u64>) {
    let header = |name: &str, value: String| (name.to_owned(), Bytes::from(value));
    let letters = offsets.map(|offset| NewRecord {
        topic: DEAD,
        key: Bytes::from(format!("key {}", offset % 7)),
        value: Bytes::from(format!("record {offset}")),
        headers: vec![
            header("reason", "torn".to_owned()),
            header("original-topic", topics::CREATED.to_owned()),
            header("original-partition", "0".to_owned()),
            header("original-offset", offset.to_string()),
        ],
        timestamp_ms: 1,
    });
    log.append(letters.collect()).await.unwrap();
}

/// Retries everything there is now.
async fn retry_all(desk: &mut Desk, group: usize) -> anyhow::Result<(u64, u64)> {
    let until = desk.ends(DEAD).await?;
    let (mut retried, mut repeated) = (0, 0);
    loop {
        let step = desk.retry(DEAD, &until, group, None).await?;
        retried += step.retried;
        repeated += step.repeated;
        if step.done {
            return Ok((retried, repeated));
        }
    }
}

/// The values in the original topic, sorted.
async fn appended(log: &Cut) -> Vec<String> {
    let mut values = Vec::new();
    for partition in 0..log.partitions(topics::CREATED).unwrap() {
        let mut next = 0;
        loop {
            let read = log.read(topics::CREATED, partition, next, 1_000, Duration::ZERO).await.unwrap();
            let Some(last) = read.last() else { break };
            next = last.offset + 1;
            values.extend(read.iter().map(|record| String::from_utf8(record.value.to_vec()).unwrap()));
        }
    }
    values.sort();
    values
}

fn records(offsets: std::ops::Range<u64>) -> Vec<String> {
    let mut records: Vec<String> = offsets.map(|offset| format!("record {offset}")).collect();
    records.sort();
    records
}

#[tokio::test]
async fn every_record_is_retried_once_however_many_letters_are_about_it() {
    let temp = tempfile::tempdir().unwrap();
    let log = open(temp.path());
    bury(&log, 0..300).await;
    bury(&log, 100..200).await;
    let mut desk = Desk::new(log.clone());
    assert_eq!(retry_all(&mut desk, 64).await.unwrap(), (300, 100));
    assert_eq!(appended(&log).await, records(0..300));
    // A stage that comes back later buries what another has buried before.
    bury(&log, 0..50).await;
    assert_eq!(retry_all(&mut desk, 64).await.unwrap(), (0, 50));
    bury(&log, 50..90).await;
    assert_eq!(retry_all(&mut Desk::new(log.clone()), 64).await.unwrap(), (0, 40), "whoever retries");
    assert_eq!(appended(&log).await, records(0..300));
    log.inner.close().await;
}

#[tokio::test]
async fn what_was_appended_before_a_crash_is_not_appended_again() {
    let temp = tempfile::tempdir().unwrap();
    let log = open(temp.path());
    bury(&log, 0..100).await;
    let mut desk = Desk::new(log.clone());
    let until = desk.ends(DEAD).await.unwrap();
    assert_eq!(desk.retry(DEAD, &until, 30, None).await.unwrap().retried, 30);
    for _ in 0..2 {
        log.cut.store(true, Ordering::Relaxed);
        assert!(retry_all(&mut Desk::new(log.clone()), 20).await.is_err());
        log.cut.store(false, Ordering::Relaxed);
        // Others go on writing meanwhile.
        let other = NewRecord {
            topic: topics::CREATED,
            key: Bytes::from_static(b"key 1"),
            value: Bytes::from_static(b"another"),
            headers: Vec::new(),
            timestamp_ms: 1,
        };
        log.append(vec![other]).await.unwrap();
    }
    let (retried, repeated) = retry_all(&mut Desk::new(log.clone()), 25).await.unwrap();
    assert_eq!(retried + repeated, 70, "{retried} {repeated}");
    let mut expected = records(0..100);
    expected.splice(0..0, ["another".to_owned(), "another".to_owned()]);
    assert_eq!(appended(&log).await, expected);
    log.inner.close().await;
}

#[tokio::test]
async fn of_two_who_retry_the_later_one_goes_on() {
    let temp = tempfile::tempdir().unwrap();
    let log = open(temp.path());
    bury(&log, 0..60).await;
    let (mut first, mut second) = (Desk::new(log.clone()), Desk::new(log.clone()));
    let until = first.ends(DEAD).await.unwrap();
    assert_eq!(first.retry(DEAD, &until, 20, None).await.unwrap().retried, 20);
    assert_eq!(second.retry(DEAD, &until, 20, None).await.unwrap().retried, 20);
    let error = first.retry(DEAD, &until, 20, None).await.unwrap_err();
    assert!(format!("{error:#}").contains("another process"), "{error:#}");
    assert_eq!(retry_all(&mut second, 20).await.unwrap(), (20, 0));
    assert_eq!(appended(&log).await, records(0..60));
    log.inner.close().await;
}

#[tokio::test]
async fn mended_values_are_taken_for_exactly_the_next_letters() {
    let temp = tempfile::tempdir().unwrap();
    let log = open(temp.path());
    bury(&log, 0..3).await;
    let mut desk = Desk::new(log.clone());
    let until = desk.ends(DEAD).await.unwrap();
    let letters = desk.peek(DEAD, None, &until, 2).await.unwrap().letters;
    let mended = |letter: &Letter| Mended {
        partition: letter.partition,
        offset: letter.record.offset,
        value: [b"mended ", &letter.record.value[..]].concat(),
    };
    let values: Vec<Mended> = letters.iter().map(mended).collect();
    let wrong = vec![values[1].clone(), values[0].clone()];
    assert!(desk.retry(DEAD, &until, 2, Some(wrong)).await.is_err());
    assert_eq!(desk.retry(DEAD, &until, 2, Some(values.clone())).await.unwrap().retried, 2);
    assert!(desk.retry(DEAD, &until, 2, Some(values)).await.is_err(), "they have been dealt with");
    assert_eq!(desk.purge(DEAD, &until, 5).await.unwrap(), 1);
    assert_eq!(retry_all(&mut desk, 10).await.unwrap(), (0, 0));
    let appended = appended(&log).await;
    assert!(appended.len() == 2 && appended.iter().all(|value| value.starts_with("mended ")), "{appended:?}");
    log.inner.close().await;
}
