//! The broker goes away and comes back. Disturbs every other test on it, so it is only tried with
//! PAYSTREAM_TEST_DISRUPT=1.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use eventlog::contract::{DEADLINE, read_all, record};
use eventlog::{EventLog, LogError};
use events::topics::{CREATED, DECIDED};

use crate::support::{Cluster, until, values};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_restart_of_the_broker_loses_nothing_that_was_acknowledged() {
    if std::env::var("PAYSTREAM_TEST_DISRUPT").as_deref() != Ok("1") {
        eprintln!("SKIPPED: PAYSTREAM_TEST_DISRUPT is not 1: the broker is not restarted");
        return;
    }
    let Some(cluster) = Cluster::new().await else { return };
    let log = Arc::new(cluster.open().await);
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let plain: Vec<_> =
        (0..8).map(|caller| tokio::spawn(append(log.clone(), caller, stop.clone(), count.clone()))).collect();
    let commits = Arc::new(AtomicU64::new(0));
    let transactions = tokio::spawn(append_as_writer(log.clone(), stop.clone(), commits.clone()));
    let counts = || (count.load(Ordering::Relaxed), commits.load(Ordering::Relaxed));
    until("appends flow", async || counts().0 > 100 && counts().1 > 10).await;

    let restart = tokio::task::spawn_blocking(|| {
        let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tools/services.sh");
        Command::new(script).args(["restart", "kafka"]).status().unwrap()
    });
    assert!(restart.await.unwrap().success());
    let before = counts();
    until("appends flow again", async || counts().0 > before.0 + 100 && counts().1 > before.1 + 10).await;
    stop.store(true, Ordering::Relaxed);

    let mut found = Vec::new();
    for partition in 0..2 {
        found.extend(values(&read_all(&*log, CREATED, partition).await));
    }
    let found: std::collections::HashSet<String> = found.into_iter().collect();
    for caller in plain {
        for value in caller.await.unwrap() {
            assert!(found.contains(&value), "{value} was acknowledged and is gone");
        }
    }
    let written = transactions.await.unwrap();
    let mut found = Vec::new();
    for partition in 0..2 {
        found.extend(values(&read_all(&*log, DECIDED, partition).await));
    }
    let mut kept = found.clone();
    kept.retain(|value| written.contains(value));
    assert_eq!(kept, written, "acknowledged transactions are there once, in order");
    println!("{} appends, {} transactions acknowledged", count.load(Ordering::Relaxed), written.len());
}

/// Appends one record after the other, and returns those that were acknowledged.
async fn append(
    log: Arc<impl EventLog>,
    caller: u32,
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
) -> Vec<String> {
    let mut acknowledged = Vec::new();
    for i in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let value = format!("{caller}-{i}");
        if log.append(vec![record(CREATED, &value, &value)]).await.is_ok() {
            acknowledged.push(value);
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
    acknowledged
}

/// Goes on as a stage does: a writer whose last append is of unknown fate is made anew.
async fn append_as_writer(
    log: Arc<impl EventLog>,
    stop: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
) -> Vec<String> {
    let mut acknowledged = Vec::new();
    let mut writer = log.writer("restart").await.unwrap();
    for i in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let value = format!("t-{i}");
        match writer.append(vec![record(DECIDED, "key", &value)]).await {
            Ok(_) => {
                acknowledged.push(value);
                count.fetch_add(1, Ordering::Relaxed);
            }
            Err(LogError::NotWritten(_)) => {}
            Err(LogError::Storage(_)) => {
                let started = Instant::now();
                writer = loop {
                    match log.writer("restart").await {
                        Ok(writer) => break writer,
                        Err(error) => assert!(started.elapsed() < 2 * DEADLINE, "{error}"),
                    }
                    tokio::time::sleep(Duration::from_millis(100)).await;
                };
            }
            Err(error) => panic!("{error}"),
        }
    }
    acknowledged
}
