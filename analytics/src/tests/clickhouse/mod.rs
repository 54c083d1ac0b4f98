//! Tests against a real ClickHouse engine, at `PAYSTREAM_TEST_CLICKHOUSE`.

mod failures;
mod proxy;
mod queries;
mod reconcile;
mod sink;
mod throughput;

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use prometheus::Registry;
use serde_json::Value;
use tempfile::TempDir;

use super::World;
use crate::clickhouse::server::Database;
use crate::clickhouse::stored::unconfirmed;
use crate::clickhouse::{ClickHouseConfig, ClickHouseStored, DistributedAnalytics, Server, Wire, migrate};
use crate::positions::TOPICS;
use crate::reconcile::Stored as _;

const VARIABLE: &str = "PAYSTREAM_TEST_CLICKHOUSE";
const DEADLINE: Duration = Duration::from_secs(120);

/// A log, a database of its own, and a spool.
pub(crate) struct Warehouse {
    pub(crate) world: World,
    pub(crate) config: ClickHouseConfig,
    pub(crate) server: Server,
    spool: TempDir,
}

impl Warehouse {
    /// Nothing, loudly, where there is no engine to test against.
    pub(crate) async fn new(name: &str) -> Option<Self> {
        let Ok(url) = std::env::var(VARIABLE) else {
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: {VARIABLE} is not set; run `make test` to test against ClickHouse"
            );
            return None;
        };
        let database = format!("test_{name}_{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
        let config = ClickHouseConfig {
            url,
            database,
            compression: Wire::None,
            batch_max_rows: 200,
            batch_max_ms: 50,
            retry_max_ms: 200,
            reconcile_interval_ms: 0,
            reconcile_grace_ms: 0,
            drain_deadline_ms: 30_000,
            ..ClickHouseConfig::default()
        };
        let server = Server::new(&config);
        migrate(&server).await.unwrap();
        Some(Self { world: World::new(), config, server, spool: tempfile::tempdir().unwrap() })
    }

    pub(crate) fn spool(&self) -> &Path {
        self.spool.path()
    }

    pub(crate) fn start(&self) -> Running {
        self.start_with(&self.config, self.spool())
    }

    pub(crate) fn start_with(&self, config: &ClickHouseConfig, spool: &Path) -> Running {
        let registry = Registry::new();
        let analytics =
            DistributedAnalytics::start(config, self.world.log.clone(), spool.to_owned(), &registry).unwrap();
        Running { analytics, registry }
    }

    /// Stores what the log holds.
    pub(crate) async fn store(&self) {
        let running = self.start();
        self.wait_until_stored().await;
        running.stop().await;
    }

    /// The numbers of the one row that is answered.
    pub(crate) async fn numbers(&self, sql: &str) -> Vec<u64> {
        let rows = self.server.rows(sql, Database::Ours).await.unwrap();
        assert_eq!(rows.len(), 1, "{sql}");
        rows[0].iter().map(|value| value.as_u64().unwrap_or_else(|| panic!("{sql}: {value}"))).collect()
    }

    pub(crate) async fn run(&self, sql: &str) {
        self.server.run(sql, Database::Ours).await.unwrap();
    }

    pub(crate) fn stored(&self) -> ClickHouseStored {
        ClickHouseStored::new(self.server.clone(), self.world.log.clone(), false)
    }

    /// Waits until the log says that all it holds is stored.
    pub(crate) async fn wait_until_stored(&self) {
        let log = &*self.world.log;
        wait_for("everything to be stored", async || {
            for topic in TOPICS {
                for partition in 0..log.partitions(topic).unwrap() {
                    let (_, end) = log.bounds(topic, partition).await.unwrap();
                    if unconfirmed(log, topic, partition, end).await.unwrap() > 0 {
                        return false;
                    }
                }
            }
            true
        })
        .await;
    }

    /// Asserts that the first `n` transactions are stored exactly once, in every table and view.
    pub(crate) async fn assert_stored_once(&self, n: u64) {
        let fifth = n.div_ceil(5);
        let fiftieth = n.div_ceil(50);
        for (sql, expected) in [
            ("SELECT count(), uniqExact(id) FROM transactions", vec![n, n]),
            (
                "SELECT count(), uniqExact(transaction_id), sum(seq) FROM decisions",
                vec![n, n, n * (n - 1) / 2],
            ),
            ("SELECT count(), uniqExact(transaction_id) FROM rule_hits", vec![2 * fifth, fifth]),
            ("SELECT count(), uniqExact(id) FROM alerts", vec![fifth, fifth]),
            ("SELECT count(), uniqExact(transaction_id) FROM labels", vec![fiftieth, fiftieth]),
            ("SELECT sum(transactions) FROM decisions_per_minute", vec![n]),
            ("SELECT sum(alerts) FROM alerts_per_minute", vec![fifth]),
        ] {
            assert_eq!(self.numbers(sql).await, expected, "{sql}");
        }
        for view in self.stored().views().await.unwrap() {
            assert!(view.agrees(), "{view:?}");
        }
    }

    /// Removes the database; left behind by a test that fails, to be looked at.
    pub(crate) async fn end(self) {
        let sql = format!("DROP DATABASE `{}`", self.config.database);
        self.server.run(&sql, Database::None).await.unwrap();
    }
}

/// A service that fills the warehouse.
pub(crate) struct Running {
    pub(crate) analytics: DistributedAnalytics,
    registry: Registry,
}

impl Running {
    /// Ends it in order.
    pub(crate) async fn stop(self) {
        self.analytics.service.stop.cancel();
        self.analytics.service.task.await.unwrap().unwrap();
    }

    /// Ends it as a signal that cannot be caught would.
    pub(crate) async fn kill(self) {
        self.analytics.service.task.abort();
        let _ = self.analytics.service.task.await;
    }

    /// The sum of a metric over its labels.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let families = self.registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        let metrics = family.map_or(&[][..], |family| family.get_metric());
        metrics.iter().map(|m| m.get_gauge().get_value() + m.get_counter().get_value()).sum()
    }
}

/// Waits for a condition, with a deadline.
pub(crate) async fn wait_for(what: &str, condition: impl AsyncFn() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !condition().await {
        assert!(Instant::now() < until, "waited {DEADLINE:?} for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}
