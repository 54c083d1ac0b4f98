//! Declaring topics, and opening a log on what there is.

use eventlog::KafkaLog;
use eventlog::kafka::topics::Difference;
use events::topics::{CREATED, LISTS_CHANGED};

use crate::support::Cluster;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn apply_makes_what_is_missing_and_sets_what_differs_and_nothing_else() {
    let Some(mut cluster) = Cluster::without_topics() else { return };
    let admin = cluster.admin();
    let missing = admin.differences(&cluster.topics).await.unwrap();
    assert_eq!(missing.len(), cluster.topics.len());
    let open = KafkaLog::open(cluster.config.clone()).await.err().unwrap().to_string();
    assert!(open.contains(CREATED) && open.contains("paystream topics apply"), "{open}");

    assert_eq!(admin.apply(&cluster.topics).await.unwrap(), missing);
    assert_eq!(admin.differences(&cluster.topics).await.unwrap(), []);
    assert_eq!(admin.apply(&cluster.topics).await.unwrap(), []);

    let topic = |name: &str| cluster.topics.iter().position(|topic| topic.name == name).unwrap();
    let (created, lists, members) = (topic(CREATED), topic(LISTS_CHANGED), topic("members.four"));
    cluster.topics[created].partitions = 5;
    cluster.topics[lists].settings.insert("max.message.bytes".to_owned(), "2000000".to_owned());
    cluster.topics[members].partitions = 6;
    let before = admin.actual(&cluster.topics).await.unwrap();
    let done = admin.apply(&cluster.topics).await.unwrap();
    assert_eq!(done.len(), 2, "{done:?}");
    // What is not declared of a topic stays as it was, and a keyed topic keeps its partitions.
    let after = admin.actual(&cluster.topics).await.unwrap();
    assert_eq!(after[lists].settings["max.message.bytes"], "2000000");
    assert_eq!(after[lists].own_settings["retention.ms"], before[lists].own_settings["retention.ms"]);
    assert_eq!((after[members].partitions, after[created].partitions), (6, 2));
    let left = admin.differences(&cluster.topics).await.unwrap();
    assert!(matches!(&left[..], [Difference::Partitions { declared: 5, actual: 2, .. }]), "{left:?}");
    assert!(left[0].refusal().unwrap().contains("topic_prefix"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_does_not_open_on_topics_that_do_not_go_together() {
    let Some(mut cluster) = Cluster::without_topics() else { return };
    cluster.topics[1].partitions = 3;
    cluster.admin().apply(&cluster.topics).await.unwrap();
    let error = KafkaLog::open(cluster.config.clone()).await.err().unwrap().to_string();
    assert!(error.contains("has 3 partitions") && error.contains("has 2"), "{error}");
}
