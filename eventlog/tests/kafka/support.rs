//! A prefix of topics for each test, removed after it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use eventlog::contract::DEADLINE;
use eventlog::kafka::topics::{DEFAULT_TOPICS, DeclaredTopic, TopicAdmin, TopicsFile};
use eventlog::{KafkaConfig, KafkaLog};

/// Topics of a test's own on the broker.
pub(crate) struct Cluster {
    pub(crate) config: KafkaConfig,
    pub(crate) topics: Vec<DeclaredTopic>,
}

impl Cluster {
    /// Makes the topics; `None`, said loudly, when no broker is named.
    pub(crate) async fn new() -> Option<Self> {
        let cluster = Self::without_topics()?;
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
        Some(Self { config, topics: topics() })
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
fn topics() -> Vec<DeclaredTopic> {
    let yaml = DEFAULT_TOPICS.replacen("partitions: 4", "partitions: 2", 1);
    let groups = "  - name: members.contract\n    partitions: 3\n  - name: members.four\n    partitions: 4\n";
    TopicsFile::parse(&format!("{yaml}{groups}"), "test").unwrap().topics
}

/// Waits for a condition, with a deadline.
#[allow(dead_code)]
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < DEADLINE, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
