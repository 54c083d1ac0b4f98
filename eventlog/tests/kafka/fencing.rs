//! Writers of several processes, and what one leaves that dies in the middle.

use std::time::{Duration, Instant};

use eventlog::contract::{read_all, record};
use eventlog::{EventLog, LogError};
use events::topics::DECIDED;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::support::{Cluster, values};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_of_another_process_fences_this_ones() {
    let Some(cluster) = Cluster::new().await else { return };
    let (one, other) = (cluster.open().await, cluster.open().await);
    let mut first = one.writer("lane-0").await.unwrap();
    let mut partition = 0;
    // Wherever the writer stands among its ids.
    for turns in 0..4 {
        for i in 0..turns {
            first.append(vec![record(DECIDED, "key", &format!("{turns}-{i}"))]).await.unwrap();
        }
        let mut second = other.writer("lane-0").await.unwrap();
        for _ in 0..3 {
            let late = first.append(vec![record(DECIDED, "key", "late")]).await;
            assert!(matches!(&late, Err(LogError::Fenced(name)) if name == "lane-0"), "{late:?}");
        }
        partition =
            second.append(vec![record(DECIDED, "key", &format!("{turns}-x"))]).await.unwrap()[0].partition;
        first = second;
    }
    let found = values(&read_all(&one, DECIDED, partition).await);
    assert_eq!(found, ["0-x", "1-0", "1-x", "2-0", "2-1", "2-x", "3-0", "3-1", "3-2", "3-x"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_whose_writer_died_is_never_seen_and_blocks_nobody_after_the_takeover() {
    let Some(cluster) = Cluster::new().await else { return };
    let log = cluster.open().await;
    let place = log.append(vec![record(DECIDED, "key", "before")]).await.unwrap()[0];
    for id in 0..3 {
        die_in_a_transaction(&cluster, id, place.partition);
        let mut writer = log.writer("lane-0").await.unwrap();
        writer.append(vec![record(DECIDED, "key", &format!("after {id}"))]).await.unwrap();
    }
    let started = Instant::now();
    let found = read_all(&log, DECIDED, place.partition).await;
    assert_eq!(values(&found), ["before", "after 0", "after 1", "after 2"]);
    // Only the ends of transactions lie behind the last record: reading there is not held up by them.
    let (_, end) = log.bounds(DECIDED, place.partition).await.unwrap();
    let last = found.last().unwrap().offset;
    assert!(end > last + 1);
    for from in last + 1..=end {
        assert_eq!(log.read(DECIDED, place.partition, from, 10, Duration::ZERO).await.unwrap(), []);
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    let next = log.append(vec![record(DECIDED, "key", "next")]).await.unwrap()[0];
    let read = log.read(DECIDED, place.partition, last + 1, 10, Duration::ZERO).await.unwrap();
    assert_eq!((values(&read), read[0].offset), (vec!["next".to_owned()], next.offset));
}

/// Begins a transaction under one of a writer's ids, and goes away.
fn die_in_a_transaction(cluster: &Cluster, id: usize, partition: u32) {
    let prefix = &cluster.config.topic_prefix;
    let producer: BaseProducer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", &cluster.config.brokers)
        .set("transactional.id", format!("{prefix}lane-0-{id}"))
        .set("transaction.timeout.ms", "600000")
        .create()
        .unwrap();
    producer.init_transactions(Duration::from_secs(30)).unwrap();
    producer.begin_transaction().unwrap();
    let topic = format!("{prefix}{DECIDED}");
    let partition = i32::try_from(partition).unwrap();
    producer.send(BaseRecord::to(&topic).partition(partition).key("key").payload("torn")).unwrap();
    producer.flush(Duration::from_secs(30)).unwrap();
}
