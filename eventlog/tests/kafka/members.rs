//! Processes that share parts.

use std::collections::BTreeSet;

use eventlog::contract::DEADLINE;
use eventlog::{Change, EventLog, LogError, Membership};

use crate::support::Cluster;

async fn change(member: &mut Box<dyn Membership>) -> Change {
    tokio::time::timeout(DEADLINE, member.changed()).await.expect("in time").unwrap()
}

async fn gain(member: &mut Box<dyn Membership>, parts: usize) -> BTreeSet<u32> {
    let mut gained = BTreeSet::new();
    while gained.len() < parts {
        match change(member).await {
            Change::Gained(parts) => gained.extend(parts),
            other => panic!("expected to gain, got {other:?}"),
        }
    }
    gained
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_go_to_who_joins_once_they_are_let_go_and_come_back_when_it_leaves() {
    let Some(cluster) = Cluster::new().await else { return };
    let (one, other) = (cluster.open().await, cluster.open().await);
    let mut first = one.join("four", 4).await.unwrap();
    assert_eq!(gain(&mut first, 4).await, BTreeSet::from([0, 1, 2, 3]));

    let mut second = other.join("four", 4).await.unwrap();
    let Change::Losing(lost, let_go) = change(&mut first).await else { panic!("expected to lose parts") };
    assert_eq!(lost.len(), 2);
    // Held back for as long as the first holds on.
    let early = tokio::time::timeout(std::time::Duration::from_secs(2), second.changed()).await;
    assert!(early.is_err(), "{early:?}");
    drop(let_go);
    assert_eq!(gain(&mut second, 2).await, lost.iter().copied().collect());

    second.leave().await;
    assert_eq!(gain(&mut first, 2).await, lost.into_iter().collect());
    first.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_dropped_gives_its_parts_up_at_once() {
    let Some(cluster) = Cluster::new().await else { return };
    let log = cluster.open().await;
    let mut first = log.join("four", 4).await.unwrap();
    gain(&mut first, 4).await;
    drop(first);
    let mut second = log.join("four", 4).await.unwrap();
    let started = std::time::Instant::now();
    gain(&mut second, 4).await;
    let session = std::time::Duration::from_millis(cluster.config.session_timeout_ms);
    assert!(started.elapsed() < session, "{:?}", started.elapsed());
    second.leave().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_whose_topic_is_missing_or_has_other_parts_is_an_error_that_says_what_to_do() {
    let Some(cluster) = Cluster::new().await else { return };
    let log = cluster.open().await;
    let missing = log.join("nobody", 1).await.err().unwrap();
    assert!(
        matches!(&missing, LogError::UnknownTopic(topic) if topic.ends_with("members.nobody")),
        "{missing}"
    );
    let other = log.join("four", 8).await.err().unwrap().to_string();
    assert!(other.contains("4 partitions") && other.contains("paystream topics apply"), "{other}");
}
