//! A prefix of topics for each test, removed after it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use eventlog::contract::DEADLINE;
use eventlog::kafka::topics::{DEFAULT_TOPICS, DeclaredTopic, TopicAdmin, TopicsFile};
use eventlog::{KafkaConfig, KafkaLog, LoggedRecord};

/// Topics of a test's own on the broker.
pub(crate) struct Cluster {
    pub(crate) config: KafkaConfig,
    pub(crate) topics: Vec<DeclaredTopic>,
}

impl Cluster {
    /// Makes the topics; `None`, said loudly, when no broker is named.
    pub(crate) async fn new() -> Option<Self> {
        Self::with_partitions(2).await
    }

    pub(crate) async fn with_partitions(partitions: u32) -> Option<Self> {
        let mut cluster = Self::without_topics()?;
        cluster.topics = topics(partitions);
        cluster.admin().apply(&cluster.topics).await.unwrap();
        Some(cluster)
    }

    pub(crate) fn without_topics() -> Option<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let brokers = std::env::var("PAYSTREAM_TEST_KAFKA").unwrap_or_default();
        if brokers.is_empty() {
            eprintln!("SKIPPED: PAYSTREAM_TEST_KAFKA is not set; run `make test`");
            return None;
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let config = KafkaConfig {
            brokers,
            topic_prefix: format!("test-{}-{since}-{number}.", std::process::id()),
            ..KafkaConfig::default()
        };
        Some(Self { config, topics: topics(2) })
    }

    pub(crate) fn admin(&self) -> TopicAdmin {
        TopicAdmin::new(self.config.clone()).unwrap()
    }

    /// As another process would.
    pub(crate) async fn open(&self) -> KafkaLog {
        KafkaLog::open(self.config.clone()).await.unwrap()
    }
}

/// Removes the topics, so that the broker does not fill up.
impl Drop for Cluster {
    fn drop(&mut self) {
        let (admin, topics) = (self.admin(), std::mem::take(&mut self.topics));
        let remove = move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let names: Vec<&str> = topics.iter().map(|topic| topic.name.as_str()).collect();
            // Those that a test did not make are not there to delete.
            let _ = runtime.block_on(admin.delete(&names));
        };
        let _ = std::thread::spawn(remove).join();
    }
}

/// Few partitions, and groups for the tests to join.
fn topics(partitions: u32) -> Vec<DeclaredTopic> {
    let yaml = DEFAULT_TOPICS.replacen("partitions: 4", &format!("partitions: {partitions}"), 1);
    let groups = "  - name: members.contract\n    partitions: 3\n  - name: members.four\n    partitions: 4\n";
    TopicsFile::parse(&format!("{yaml}{groups}"), "test").unwrap().topics
}

/// Waits for a condition, with a deadline.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < DEADLINE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn values(records: &[LoggedRecord]) -> Vec<String> {
    records.iter().map(|record| String::from_utf8(record.value.to_vec()).unwrap()).collect()
}

/// What a metric stands at, summed over its labels.
pub(crate) fn metric(registry: &prometheus::Registry, name: &str) -> f64 {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == name).expect(name);
    let value = |metric: &prometheus::proto::Metric| {
        metric.get_counter().get_value() + metric.get_gauge().get_value()
    };
    family.get_metric().iter().map(value).sum()
}
