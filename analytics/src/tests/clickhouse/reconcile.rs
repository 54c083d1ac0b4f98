//! Reconciliation of the log with ClickHouse, at once and while both go on.

use std::sync::Arc;

use super::Warehouse;
use crate::clickhouse::ClickHouseConfig;
use crate::clickhouse::compare::{Comparer, Found};
use crate::clickhouse::metrics::Metrics;
use crate::reconcile::{Accepted, Report, reconcile};
use crate::tests::{id, transaction};

const N: u64 = 500;

async fn filled(name: &str) -> Option<Warehouse> {
    let warehouse = Warehouse::new(name).await?;
    warehouse.world.append(0..N).await;
    warehouse.store().await;
    Some(warehouse)
}

async fn report(warehouse: &Warehouse, accepted: Accepted) -> Report {
    reconcile(accepted, &*warehouse.world.log, &warehouse.stored()).await.unwrap()
}

fn comparer(warehouse: &Warehouse) -> Comparer {
    let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
    Comparer::new(&warehouse.config, Arc::clone(&warehouse.world.log), warehouse.server.clone(), metrics)
}

const LOSE_ONE: &str = "ALTER TABLE decisions DELETE WHERE seq = 77 SETTINGS mutations_sync = 1";

#[tokio::test(flavor = "multi_thread")]
async fn a_system_that_lost_nothing_agrees_with_and_without_a_list_of_what_was_accepted() {
    let Some(warehouse) = filled("agrees").await else { return };
    let listed = (0..N).map(|n| (id(n), transaction(n).accepted_at_us)).collect();
    for accepted in [Accepted::Listed(listed), Accepted::AsLogged] {
        let report = report(&warehouse, accepted).await;
        assert!(report.agrees(), "{report:?}");
        assert_eq!((report.accepted, report.logged, report.decided, report.stored), (N, N, N, N));
        assert_eq!(report.views.len(), 4);
        assert!(report.views.iter().all(|view| view.rows > 0), "{:?}", report.views);
    }
    warehouse.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_row_and_a_view_that_does_not_add_up_are_found() {
    let Some(warehouse) = filled("lost_row").await else { return };
    warehouse.run(LOSE_ONE).await;
    let report = report(&warehouse, Accepted::AsLogged).await;
    assert_eq!((report.agrees(), report.missing, report.views_differing), (false, 1, 2));
    assert_eq!(report.disagreements[0].kind, "decision_not_stored");
    assert_eq!(report.disagreements[0].examples, [id(77)]);
    warehouse.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_continuous_comparison_looks_at_each_record_once_and_waits_for_what_is_missing() {
    let Some(warehouse) = filled("continuous").await else { return };
    let comparer = comparer(&warehouse);
    let all = N + N / 5 + N / 50;
    assert_eq!(comparer.round().await.unwrap(), Found { compared: all, missing: 0, duplicated: 0 });
    assert_eq!(comparer.round().await.unwrap(), Found::default(), "nothing came since");
    warehouse.world.append(N..N + 100).await;
    let behind = comparer.round().await.unwrap();
    assert!(behind.missing > 0, "the service does not run: {behind:?}");
    warehouse.store().await;
    let found = comparer.round().await.unwrap();
    assert_eq!((found.compared, found.missing, found.duplicated), (100 + 20 + 2, 0, 0));
    warehouse.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_there_twice_is_found_by_the_continuous_comparison() {
    let Some(warehouse) = filled("twice").await else { return };
    warehouse.run("INSERT INTO decisions SELECT * FROM decisions WHERE seq IN (5, 6)").await;
    let found = comparer(&warehouse).round().await.unwrap();
    assert_eq!((found.missing, found.duplicated), (0, 2));
    warehouse.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_compares_by_itself_and_says_when_it_last_agreed() {
    let Some(warehouse) = Warehouse::new("itself").await else { return };
    warehouse.world.append(0..N).await;
    let config = ClickHouseConfig { reconcile_interval_ms: 100, ..warehouse.config.clone() };
    let running = warehouse.start_with(&config, warehouse.spool());
    warehouse.wait_until_stored().await;
    super::wait_for("an agreement", async || {
        running.metric("paystream_reconcile_last_success_timestamp_seconds") > 0.0
    })
    .await;
    running.stop().await;
    warehouse.end().await;
}
