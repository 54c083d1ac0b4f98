//! Figures: `cargo test --release -p eventlog --test kafka -- --ignored --nocapture speed`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use eventlog::contract::{DEADLINE, record};
use eventlog::{EventLog, NewRecord, Position};
use events::topics::{ALERTS, CREATED, DECIDED};

use crate::support::Cluster;

const VALUE_BYTES: usize = 700;

fn batch(records: usize) -> Vec<NewRecord> {
    let value: bytes::Bytes = (0..VALUE_BYTES).map(|i| (i * 31 % 97) as u8).collect::<Vec<_>>().into();
    (0..records)
        .map(|i| {
            let topic = if i % 10 == 9 { ALERTS } else { DECIDED };
            NewRecord { value: value.clone(), ..record(topic, &format!("card-{i}"), "") }
        })
        .collect()
}

fn print(what: &str, records: usize, mut times: Vec<Duration>, whole: Duration) {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    let rate = (records * times.len()) as f64 / whole.as_secs_f64();
    println!(
        "{what:>12} {records:>5} records: p50 {:.2} ms, p99 {:.2} ms, {:.0}/s, {rate:.0} records/s",
        at(0.5),
        at(0.99),
        times.len() as f64 / whole.as_secs_f64(),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn speed_of_appends_and_transactions() {
    let Some(cluster) = Cluster::with_partitions(4).await else { return };
    let log = cluster.open().await;
    let mut writer = log.writer("speed").await.unwrap();
    for (records, rounds) in [(1, 400), (100, 400), (5_000, 60)] {
        for _ in 0..3 {
            log.append(batch(records)).await.unwrap();
            writer.append(batch(records)).await.unwrap();
        }
        let (mut times, whole) = (Vec::new(), Instant::now());
        for _ in 0..rounds {
            let records = batch(records);
            let started = Instant::now();
            log.append(records).await.unwrap();
            times.push(started.elapsed());
        }
        print("append", records, times, whole.elapsed());
        let (mut times, whole) = (Vec::new(), Instant::now());
        for _ in 0..rounds {
            let records = batch(records);
            let started = Instant::now();
            writer.append(records).await.unwrap();
            times.push(started.elapsed());
        }
        print("transaction", records, times, whole.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn speed_from_append_to_another_process() {
    let Some(cluster) = Cluster::with_partitions(4).await else { return };
    let (log, other) = (cluster.open().await, Arc::new(cluster.open().await));
    let mut writer = log.writer("speed").await.unwrap();
    for transactional in [false, true] {
        let (mut from_begin, whole) = (Vec::new(), Instant::now());
        let mut next = vec![0; 4];
        for (partition, next) in (0..).zip(&mut next) {
            *next = other.bounds(CREATED, partition).await.unwrap().1;
        }
        for i in 0..300 {
            let waiter = tokio::spawn({
                let (other, from) = (other.clone(), Position::of_all(&next));
                async move {
                    let ready = other.wait_for_any(CREATED, &from, DEADLINE).await.unwrap();
                    let partition = ready[0];
                    let read =
                        other.read(CREATED, partition, from[partition as usize].offset, 10, Duration::ZERO);
                    let offset = read.await.unwrap().last().unwrap().offset;
                    (partition, offset, Instant::now())
                }
            });
            tokio::time::sleep(Duration::from_millis(5)).await;
            let one = vec![record(CREATED, &format!("card-{i}"), "x")];
            let started = Instant::now();
            if transactional {
                writer.append(one).await.unwrap()
            } else {
                log.append(one).await.unwrap()
            };
            let (partition, offset, at) = waiter.await.unwrap();
            next[partition as usize] = offset + 1;
            from_begin.push(at - started);
        }
        print(if transactional { "writer→read" } else { "append→read" }, 1, from_begin, whole.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures"]
async fn speed_of_catching_up_and_of_single_reads() {
    const RECORDS: usize = 1_000_000;
    let Some(cluster) = Cluster::with_partitions(4).await else { return };
    let log = cluster.open().await;
    let started = Instant::now();
    for _ in 0..RECORDS / 10_000 {
        log.append(batch(10_000).into_iter().map(|r| NewRecord { topic: CREATED, ..r }).collect())
            .await
            .unwrap();
    }
    println!("appended {RECORDS} in {:.1} s", started.elapsed().as_secs_f64());
    let started = Instant::now();
    let (mut next, mut read) = (vec![0_u64; 4], 0);
    while read < RECORDS {
        for partition in log.wait_for_any(CREATED, &Position::of_all(&next), DEADLINE).await.unwrap() {
            let records =
                log.read(CREATED, partition, next[partition as usize], 4_096, Duration::ZERO).await.unwrap();
            next[partition as usize] = records.last().unwrap().offset + 1;
            read += records.len();
        }
    }
    println!("read {RECORDS} in {:.2} s", started.elapsed().as_secs_f64());
    let (mut times, whole) = (Vec::new(), Instant::now());
    for i in 0..200_u64 {
        let started = Instant::now();
        let offset = i * 7_919 % 200_000;
        let one = log.read(CREATED, (i % 4) as u32, offset, 1, Duration::ZERO).await.unwrap();
        assert_eq!(one[0].offset, offset);
        times.push(started.elapsed());
    }
    print("single read", 1, times, whole.elapsed());
    let (mut times, whole) = (Vec::new(), Instant::now());
    for i in 0..200 {
        let started = Instant::now();
        let partition = (i % 4) as usize;
        let none = log.read(CREATED, partition as u32, next[partition], 1, Duration::ZERO).await.unwrap();
        assert!(none.is_empty());
        times.push(started.elapsed());
    }
    print("at the end", 0, times, whole.elapsed());
}
