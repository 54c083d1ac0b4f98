//! The embedded log: the contract of every log, and what only this one promises.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // helpers of tests are not seen as tests

mod crash;
mod limits;
mod reopening;
mod retention;
mod throughput;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use eventlog::contract::{DEADLINE, Fixture};
use eventlog::{EmbeddedLog, EmbeddedLogConfig, EventLog, NewRecord};

/// A log in a directory that goes away with it.
struct Embedded {
    dir: tempfile::TempDir,
    log: Option<Arc<EmbeddedLog>>,
}

#[allow(clippy::unnecessary_wraps)] // the contract asks
async fn embedded() -> Option<impl Fixture> {
    let dir = tempfile::tempdir().unwrap();
    let log = Some(Arc::new(open(dir.path())));
    Some(Embedded { dir, log })
}

#[async_trait]
impl Fixture for Embedded {
    fn log(&self) -> Arc<dyn EventLog> {
        self.log.clone().unwrap()
    }

    async fn reopen(&mut self) {
        self.log.take().unwrap().close().await;
        self.log = Some(Arc::new(open(self.dir.path())));
    }
}

eventlog::contract_tests!(crate::embedded);

fn open(dir: &Path) -> EmbeddedLog {
    EmbeddedLog::open(dir, EmbeddedLogConfig::default()).unwrap()
}

/// Waits for a condition, with a deadline.
async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < DEADLINE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What a metric stands at, summed over its labels.
fn metric(registry: &prometheus::Registry, name: &str) -> f64 {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == name).expect(name);
    let value = |metric: &prometheus::proto::Metric| {
        metric.get_counter().get_value()
            + metric.get_gauge().get_value()
            + metric.get_histogram().get_sample_count() as f64
    };
    family.get_metric().iter().map(value).sum()
}

fn with_size(record: NewRecord, bytes: usize) -> NewRecord {
    NewRecord { value: vec![b'x'; bytes].into(), ..record }
}
