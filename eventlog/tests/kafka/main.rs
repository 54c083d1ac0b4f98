//! The log on Kafka, against a real broker: the contract of every log, and what only this one promises.
//! PAYSTREAM_TEST_KAFKA names the broker; `make test` starts one.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)] // helpers of tests are not seen as tests

mod fencing;
mod members;
mod reading;
mod restart;
mod speed;
mod support;
mod topics;

use std::sync::Arc;

use async_trait::async_trait;
use eventlog::contract::Fixture;
use eventlog::{EventLog, KafkaLog};
use support::Cluster;

/// A log on topics of its own.
struct OnKafka {
    cluster: Cluster,
    log: Option<Arc<KafkaLog>>,
}

async fn on_kafka() -> Option<impl Fixture> {
    let cluster = Cluster::new().await?;
    let log = Some(Arc::new(cluster.open().await));
    Some(OnKafka { cluster, log })
}

#[async_trait]
impl Fixture for OnKafka {
    fn log(&self) -> Arc<dyn EventLog> {
        self.log.clone().unwrap()
    }

    async fn reopen(&mut self) {
        // Dropped without a farewell.
        drop(self.log.take());
        self.log = Some(Arc::new(self.cluster.open().await));
    }
}

mod contract {
    eventlog::contract_tests!(crate::on_kafka);
}
