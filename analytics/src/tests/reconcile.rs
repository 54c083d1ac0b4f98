//! Reconciliation over a real log and a real warehouse.

use std::sync::Arc;

use events::{Message, TransactionId, topics};
use prometheus::Registry;

use super::service::quick;
use super::{World, decided, fast, id, record, transaction};
use crate::reconcile::{Report, reconcile};
use crate::service::Analytics;
use crate::warehouse::Warehouse;

const N: u64 = 500;

fn accepted(numbers: std::ops::Range<u64>) -> Vec<(TransactionId, i64)> {
    numbers.map(|n| (id(n), transaction(n).accepted_at_us)).collect()
}

async fn filled() -> World {
    let world = World::new();
    let store = world.open();
    world.append(0..N / 2).await;
    world.catch_up(&store).await;
    store.flush(&fast()).unwrap();
    world.append(N / 2..N).await;
    world
}

async fn offline(world: &World, accepted: Vec<(TransactionId, i64)>) -> Report {
    let warehouse = Warehouse::open_offline(&world.dir(), Arc::clone(&world.log)).await.unwrap();
    reconcile(accepted, &*world.log, &*warehouse).await.unwrap()
}

fn kinds(report: &Report) -> Vec<(&'static str, u64)> {
    report.disagreements.iter().map(|d| (d.kind, d.count)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_system_that_lost_nothing_agrees() {
    let world = filled().await;
    let report = offline(&world, accepted(0..N)).await;
    assert!(report.agrees(), "{report:?}");
    assert_eq!((report.accepted, report.logged, report.decided, report.stored), (N, N, N, N));
    assert_eq!((report.not_covered, report.unacknowledged), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_transaction_that_is_not_in_the_log_is_missing() {
    let world = filled().await;
    let report = offline(&world, accepted(0..N + 1)).await;
    assert_eq!((report.agrees(), report.missing), (false, 1));
    let expected =
        [("decision_not_stored", 1), ("not_decided", 1), ("not_logged", 1), ("transaction_not_stored", 1)];
    assert_eq!(kinds(&report), expected);
    assert!(report.disagreements.iter().all(|d| d.examples == [id(N)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logged_transaction_that_is_not_decided_is_missing() {
    let world = filled().await;
    world.log.append(vec![record(topics::CREATED, "key", transaction(N).encode())]).await.unwrap();
    let report = offline(&world, accepted(0..N + 1)).await;
    assert_eq!((report.agrees(), report.missing, report.logged, report.decided), (false, 1, N + 1, N));
    let expected = [("decision_not_stored", 1), ("not_decided", 1), ("transaction_not_stored", 1)];
    assert_eq!(kinds(&report), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_decision_is_doubled_in_the_log_and_in_the_store() {
    let world = filled().await;
    let again = decided(7, 0, 0).encode();
    world.log.append(vec![record(topics::DECIDED, "key", again)]).await.unwrap();
    let report = offline(&world, accepted(0..N)).await;
    assert_eq!((report.agrees(), report.duplicated, report.missing), (false, 1, 0));
    let expected = [("decided_twice", 1), ("decision_stored_twice", 1), ("transaction_stored_twice", 1)];
    assert_eq!(kinds(&report), expected);
    assert_eq!((report.decided, report.stored), (N + 1, N + 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_lost_from_the_store_are_missing() {
    let world = filled().await;
    // The files of the first half, forgotten: as a restored manifest of the wrong day would.
    let path = world.dir().join("manifest.json");
    let mut manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    manifest["files"].as_array_mut().unwrap().retain(|file| file["table"] != "decisions");
    std::fs::write(&path, manifest.to_string()).unwrap();
    let report = offline(&world, accepted(0..N)).await;
    assert_eq!(kinds(&report), [("decision_not_stored", N / 2)]);
    assert_eq!((report.missing, report.stored), (N / 2, N / 2));
    assert_eq!(report.disagreements[0].examples.len(), 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_on_nothing_is_unexpected() {
    let world = filled().await;
    // Says it was made of a record that holds another transaction.
    let made_up = decided(N + 5, 0, 0).encode();
    world.log.append(vec![record(topics::DECIDED, "key", made_up)]).await.unwrap();
    let report = offline(&world, accepted(0..N)).await;
    assert_eq!((report.agrees(), report.unexpected), (false, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_counted_and_are_no_loss() {
    let world = filled().await;
    world.log.append(vec![record(topics::CREATED, "key", b"{}".to_vec())]).await.unwrap();
    let report = offline(&world, accepted(0..N)).await;
    assert_eq!((report.agrees(), report.undecodable), (true, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_gateway_has_forgotten_is_not_compared() {
    let world = filled().await;
    let report = offline(&world, accepted(100..N)).await;
    assert!(report.agrees(), "{report:?}");
    assert_eq!((report.accepted, report.stored, report.not_covered), (N - 100, N - 100, 100));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_system_is_given_time_to_catch_up_and_only_the_cut_is_compared() {
    let world = World::new();
    let analytics =
        Analytics::start(quick(), Arc::clone(&world.log), &world.dir(), &Registry::new()).unwrap();
    world.append(0..N).await;
    let warehouse = analytics.warehouse();
    let mine = accepted(0..N);
    let (report, ()) = tokio::join!(reconcile(mine, &*world.log, &*warehouse), world.append(N..2 * N));
    let report = report.unwrap();
    assert!(report.agrees(), "{report:?}");
    assert_eq!((report.accepted, report.stored), (N, N));
    analytics.service.stop.cancel();
    analytics.service.task.await.unwrap().unwrap();
}
