//! The analyzer over a real embedded log: one decision each, in an order that can be replayed.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod support;

use std::path::Path;

use eventlog::EventLog as _;
use events::{Message as _, topics};
use support::{
    assert_each_once, decided, hash, open_log, record, ruleset, start, stop, submit, topic, uninterrupted,
};

const DEAD_LETTERS: &str = "transactions.created.dlq";

fn remove_checkpoints(dir: &Path, how_many: usize) {
    let paths = |dir: &Path| std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let generations = paths(&dir.join("analyzer"));
    let mut files: Vec<_> = generations.flat_map(|dir| paths(&dir)).filter(|path| path.is_file()).collect();
    files.sort();
    for newest in files.into_iter().rev().take(how_many) {
        std::fs::remove_file(newest).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_transaction_gets_one_decision_and_replay_agrees_after_any_loss_of_checkpoints() {
    for lost in 0..=2 {
        let dir = tempfile::tempdir().unwrap();
        let log = open_log(dir.path());
        submit(&*log, 0..1_500).await;
        stop(start(&log, dir.path())).await;
        submit(&*log, 1_500..3_000).await;
        stop(start(&log, dir.path())).await;
        remove_checkpoints(dir.path(), lost);
        submit(&*log, 3_000..4_000).await;
        stop(start(&log, dir.path())).await;

        let decided = decided(&*log).await;
        assert_each_once(&decided, 4_000);
        let live = hash(decided.iter().map(|d| &d.decision));
        let whole = uninterrupted(ruleset(), &decided);
        assert_eq!(live, hash(whole.iter()), "{lost} checkpoints lost");
        let raised = topic(&*log, topics::ALERTS).await.len();
        assert!(raised > 0, "the stream must raise alerts");
        let mut alerts: Vec<_> = topic(&*log, topics::ALERTS)
            .await
            .iter()
            .map(|r| events::Alert::decode(&r.value).unwrap().id)
            .collect();
        alerts.sort_unstable();
        alerts.dedup();
        assert_eq!(alerts.len(), raised, "each alert once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_decoded_is_a_dead_letter_once_and_nothing_else_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_log(dir.path());
    submit(&*log, 0..50).await;
    for i in 0..10 {
        let bad = if i % 2 == 0 {
            b"not json".to_vec()
        } else {
            br#"{"type":"transaction","v":99,"data":{}}"#.to_vec()
        };
        log.append(vec![record(&format!("bad{i}"), bad)]).await.unwrap();
    }
    submit(&*log, 50..60).await;
    log.append(vec![record("last", b"{}".to_vec())]).await.unwrap();
    for lost in [2, 2, 0] {
        stop(start(&log, dir.path())).await;
        remove_checkpoints(dir.path(), lost);
    }
    assert_each_once(&decided(&*log).await, 60);
    let dead = topic(&*log, DEAD_LETTERS).await;
    assert_eq!(dead.len(), 11);
    let header = |record: &eventlog::LoggedRecord, name: &str| {
        let value = record.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        String::from_utf8(value.unwrap_or_default().to_vec()).unwrap()
    };
    assert!(dead.iter().all(|r| header(r, "original-topic") == topics::CREATED));
    assert!(dead.iter().any(|r| header(r, "reason").contains("version 99 is unknown")));
}
