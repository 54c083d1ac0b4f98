//! How fast it is. Measures, and holds to nothing: run it by hand on a quiet machine.
//!
//! `cargo test --release -p paystream -p eventlog --test embedded -- --ignored --nocapture measure`

use std::sync::Arc;
use std::time::{Duration, Instant};

use eventlog::contract::record;
use eventlog::{EventLog, NewRecord, Position};
use events::topics::{ALERTS, CREATED, DECIDED};

use crate::{open, with_size};

const SECONDS: u32 = 20;
/// What a load of 3,000 transactions a second appends.
const SINGLE_PER_S: u32 = 3_000;
const BATCH_EVERY: Duration = Duration::from_millis(5);
const BATCH_RECORDS: usize = 15;

fn quantile(sorted: &[Duration], q: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * q) as usize]
}

fn report(what: &str, mut latencies: Vec<Duration>) {
    latencies.sort_unstable();
    println!(
        "{what}: {} appends, p50 {:?}, p99 {:?}, p99.9 {:?}, max {:?}",
        latencies.len(),
        quantile(&latencies, 0.5),
        quantile(&latencies, 0.99),
        quantile(&latencies, 0.999),
        quantile(&latencies, 1.0)
    );
}

/// How long it took to write and sync each group.
fn groups(registry: &prometheus::Registry) {
    let families = registry.gather();
    let fsync = families.iter().find(|family| family.name() == "paystream_log_fsync_seconds").unwrap();
    let histogram = fsync.get_metric()[0].get_histogram();
    let groups = histogram.get_sample_count() as f64;
    println!("groups written: {groups}, mean {:.3} ms", histogram.get_sample_sum() / groups * 1e3);
    for bucket in histogram.get_bucket() {
        let share = bucket.cumulative_count() as f64 / groups * 100.0;
        println!("  within {:>6.2} ms: {share:>7.3} %", bucket.upper_bound() * 1e3);
    }
}

/// Appends at a steady rate whether or not earlier ones are done; latency counts from the intended moment.
async fn steadily(
    log: Arc<dyn EventLog>,
    every: Duration,
    count: u32,
    make: impl Fn(u32) -> Vec<NewRecord>,
) -> Vec<Duration> {
    let begin = tokio::time::Instant::now();
    let mut appends = Vec::with_capacity(count as usize);
    for i in 0..count {
        let intended = begin + every * i;
        tokio::time::sleep_until(intended).await;
        let (log, records) = (log.clone(), make(i));
        appends.push(tokio::spawn(async move {
            log.append(records).await.unwrap();
            intended.elapsed()
        }));
    }
    let mut latencies = Vec::with_capacity(appends.len());
    for append in appends {
        latencies.push(append.await.unwrap());
    }
    latencies
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures, and holds to nothing"]
async fn measure_the_load_of_3000_transactions_a_second() {
    let dir = tempfile::tempdir().unwrap();
    let log = Arc::new(open(dir.path()));
    let registry = prometheus::Registry::new();
    log.register(&registry).unwrap();
    let single = steadily(log.clone(), Duration::from_secs(1) / SINGLE_PER_S, SINGLE_PER_S * SECONDS, |i| {
        vec![with_size(record(CREATED, &format!("tok_{}", i % 5_000), ""), 700)]
    });
    let batches = Duration::from_secs(SECONDS.into()).as_micros() / BATCH_EVERY.as_micros();
    let batched = steadily(log.clone(), BATCH_EVERY, batches as u32, |i| {
        let decided = (0..BATCH_RECORDS).map(|n| {
            let key = format!("tok_{}", (i as usize * BATCH_RECORDS + n) % 5_000);
            with_size(record(DECIDED, &key, ""), 1_400)
        });
        decided.chain([record(ALERTS, "tok_1", "alert")]).collect()
    });
    let tail = {
        let log = log.clone();
        tokio::spawn(async move {
            let mut next = [0_u64; 4];
            let mut seen = 0;
            while !log
                .wait_for_any(CREATED, &Position::of_all(&next), Duration::from_secs(2))
                .await
                .unwrap()
                .is_empty()
            {
                for (partition, next) in (0..).zip(&mut next) {
                    let records = log.read(CREATED, partition, *next, 512, Duration::ZERO).await.unwrap();
                    *next += records.len() as u64;
                    seen += records.len();
                }
            }
            seen
        })
    };
    let started = Instant::now();
    let (single, batched) = tokio::join!(single, batched);
    println!("{:?} for {SECONDS} s of load", started.elapsed());
    report("single", single);
    report("batched", batched);
    println!("tailed {} records", tail.await.unwrap());
    groups(&registry);
    let started = Instant::now();
    log.close().await;
    println!("closed in {:?}", started.elapsed());
    let started = Instant::now();
    let log = open(dir.path());
    println!("opened again in {:?}", started.elapsed());
    log.close().await;
}
