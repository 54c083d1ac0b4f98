//! What a crash or a failing disk leaves behind.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use eventlog::{EventLog, LogError, LoggedRecord, Membership, NewRecord, Position, Writer};
use events::topics;

use super::{World, assert_stored_once, fast, numbers, parquet_files, record};
use crate::metrics::Metrics;
use crate::positions::Positions;
use crate::reader::Reader;
use crate::rows::Rows;

/// Two flushes' worth of rows, the first flushed.
async fn half_flushed() -> World {
    let world = World::new();
    let store = world.open();
    world.append(0..100).await;
    world.catch_up(&store).await;
    store.flush(&fast()).unwrap();
    world.append(100..200).await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_after_the_files_are_written_stores_each_row_once() {
    let world = half_flushed().await;
    let committed = parquet_files(&world.dir());
    {
        let store = world.open();
        world.catch_up(&store).await;
        let snapshot = store.snapshot();
        let mut manifest = store.manifest();
        store.write_tail(&mut manifest, &snapshot.tail, &fast()).unwrap();
    }
    assert!(parquet_files(&world.dir()).len() > committed.len(), "the crash left files behind");
    let store = world.open();
    assert_eq!(parquet_files(&world.dir()), committed, "which the next start removes");
    world.catch_up(&store).await;
    assert_stored_once(&world.engine(), &store, 200).await;
    store.flush(&fast()).unwrap();
    assert_stored_once(&world.engine(), &store, 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_after_the_commit_stores_each_row_once() {
    let world = half_flushed().await;
    {
        let store = world.open();
        world.catch_up(&store).await;
        let snapshot = store.snapshot();
        let mut manifest = store.manifest();
        let files = store.write_tail(&mut manifest, &snapshot.tail, &fast()).unwrap();
        store.commit_files(&mut manifest, files, &snapshot.positions).unwrap();
    }
    let store = world.open();
    assert_stored_once(&world.engine(), &store, 200).await;
    world.catch_up(&store).await;
    assert_eq!(store.snapshot().tail_records, 0, "nothing is read twice");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_amid_replacing_the_manifest_stores_each_row_once() {
    let world = half_flushed().await;
    std::fs::write(world.dir().join("manifest.json.tmp"), b"{\"version\":1,").unwrap();
    let store = world.open();
    world.catch_up(&store).await;
    assert_stored_once(&world.engine(), &store, 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_that_fails_keeps_the_rows_and_succeeds_later() {
    let world = half_flushed().await;
    let engine = world.engine();
    {
        let store = world.open();
        world.catch_up(&store).await;
        // A file where a folder is needed: what a full or broken disk does, but repeatable.
        let folder = world.dir().join("decisions");
        std::fs::rename(&folder, world.dir().join("aside")).unwrap();
        std::fs::write(&folder, b"").unwrap();
        let error = store.flush(&fast()).unwrap_err().to_string();
        assert!(error.contains("decisions"), "{error}");
        assert_eq!(store.snapshot().tail_records, 100 + 20 + 2, "nothing was dropped");
        std::fs::remove_file(&folder).unwrap();
        std::fs::rename(world.dir().join("aside"), &folder).unwrap();
        assert_stored_once(&engine, &store, 200).await;
        store.flush(&fast()).unwrap().unwrap();
        assert_stored_once(&engine, &store, 200).await;
    }
    let store = world.open();
    world.catch_up(&store).await;
    assert_stored_once(&engine, &store, 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_decoded_is_a_dead_letter_and_the_rest_is_stored() {
    let world = World::new();
    world.append(0..10).await;
    let bad = record(topics::DECIDED, "key", b"{\"type\":\"decided\",\"v\":99,\"data\":{}}".to_vec());
    let at = world.log.append(vec![bad]).await.unwrap()[0];
    world.log.append(vec![record(topics::LABELLED, "key", b"\xff".to_vec())]).await.unwrap();
    world.append(10..20).await;
    let store = world.open();
    world.catch_up(&store).await;
    assert_stored_once(&world.engine(), &store, 20).await;

    let topic = topics::dead_letter(topics::DECIDED);
    let mut dead = Vec::new();
    for partition in 0..world.log.partitions(topic).unwrap() {
        dead.extend(world.log.read(topic, partition, 0, 10, Duration::ZERO).await.unwrap());
    }
    assert_eq!(dead.len(), 1);
    let header = |name: &str| {
        let (_, value) = dead[0].headers.iter().find(|(n, _)| n == name).unwrap();
        String::from_utf8(value.to_vec()).unwrap()
    };
    assert_eq!(header("original-topic"), topics::DECIDED);
    assert_eq!(header("original-partition"), at.partition.to_string());
    assert_eq!(header("original-offset"), at.offset.to_string());
    assert!(header("reason").contains("version 99"), "{}", header("reason"));
    assert_eq!(dead[0].value.as_ref(), b"{\"type\":\"decided\",\"v\":99,\"data\":{}}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warehouse_ahead_of_its_log_is_refused() {
    let world = half_flushed().await;
    let positions = world.open().snapshot().positions.clone();
    let other = World::new();
    let Err(error) = Reader::open(Arc::clone(&other.log), positions, None).await else {
        panic!("the log of another warehouse was accepted")
    };
    assert!(error.to_string().contains("ends at 0"), "{error}");
}

/// A log whose retention has removed the first records of `transactions.decided`.
struct Shortened {
    inner: Arc<dyn EventLog>,
    start: u64,
}

#[async_trait]
impl EventLog for Shortened {
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
        from: u64,
        max: usize,
        wait: Duration,
    ) -> Result<Vec<LoggedRecord>, LogError> {
        let (start, end) = self.bounds(topic, partition).await?;
        if from < start {
            let topic = topic.to_owned();
            return Err(LogError::OffsetOutOfRange { topic, partition, offset: from, start, end });
        }
        self.inner.read(topic, partition, from, max, wait).await
    }

    async fn bounds(&self, topic: &str, partition: u32) -> Result<(u64, u64), LogError> {
        let (start, end) = self.inner.bounds(topic, partition).await?;
        Ok(if topic == topics::DECIDED { (self.start.clamp(start, end), end) } else { (start, end) })
    }

    async fn wait_for_any(
        &self,
        topic: &str,
        from: &[Position],
        wait: Duration,
    ) -> Result<Vec<u32>, LogError> {
        self.inner.wait_for_any(topic, from, wait).await
    }

    async fn writer(&self, name: &str) -> Result<Box<dyn Writer>, LogError> {
        self.inner.writer(name).await
    }

    async fn join(&self, group: &str, parts: u32) -> Result<Box<dyn Membership>, LogError> {
        self.inner.join(group, parts).await
    }

    async fn commit(&self, group: &str, topic: &str, partition: u32, offset: u64) -> Result<(), LogError> {
        self.inner.commit(group, topic, partition, offset).await
    }

    async fn committed(&self, group: &str, topic: &str, partition: u32) -> Result<Option<u64>, LogError> {
        self.inner.committed(group, topic, partition).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn records_removed_before_they_were_read_are_counted_and_the_rest_is_stored() {
    let world = World::new();
    world.append(0..200).await;
    let log = Arc::new(Shortened { inner: Arc::clone(&world.log), start: 10 });
    let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
    // As after a stop: each partition was read up to the first record.
    let mut read = Positions::default();
    for partition in 0..4 {
        read.set(topics::DECIDED, partition, 1);
    }
    let mut reader = Reader::open(log, read, Some(metrics.clone())).await.unwrap();
    let (mut rows, store) = (Rows::default(), world.open());
    while reader.poll(&mut rows, None).await.unwrap() > 0 {}
    reader.poll(&mut rows, None).await.unwrap();
    store.append(crate::ingest::chunk(&mut rows, &reader).unwrap());
    assert_eq!(metrics.lost_records.with_label_values(&[topics::DECIDED]).get(), 4 * 9);
    let stored = numbers(&world.engine(), &store, "SELECT count(*) FROM transactions").await;
    assert_eq!(stored, [200 - 4 * 10]);
}
