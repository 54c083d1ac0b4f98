//! The running service: reading, flushing, stopping, starting again.

use std::sync::Arc;

use prometheus::Registry;
use serde_json::Value;

use super::{World, assert_stored_once, eventually, parquet_files};
use crate::config::WarehouseConfig;
use crate::engine::Engine;
use crate::reader::POLL_RECORDS;
use crate::service::Analytics;
use crate::warehouse::Warehouse;

pub(crate) fn quick() -> WarehouseConfig {
    WarehouseConfig { poll_interval_ms: 1, flush_interval_ms: 100, ..WarehouseConfig::default() }
}

pub(crate) async fn stored(warehouse: &Warehouse) -> i64 {
    let answer = warehouse.query("SELECT count(*) FROM transactions").await.unwrap();
    answer.json_rows().unwrap()[0][0].as_i64().unwrap()
}

async fn stop(analytics: Analytics) {
    analytics.service.stop.cancel();
    analytics.service.task.await.unwrap().unwrap();
}

fn gauge(registry: &Registry, name: &str) -> f64 {
    let families = registry.gather();
    let family = families.iter().find(|f| f.name() == format!("paystream_analytics_{name}")).unwrap();
    family.get_metric()[0].get_gauge().get_value()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_logged_is_stored_over_restarts_and_flushed_at_a_stop() {
    let world = World::new();
    for round in 0..3 {
        let analytics =
            Analytics::start(quick(), Arc::clone(&world.log), &world.dir(), &Registry::new()).unwrap();
        world.append(round * 300..(round + 1) * 300).await;
        let expected = (round.cast_signed() + 1) * 300;
        let warehouse = analytics.warehouse();
        eventually("all rows are visible", async || stored(&warehouse).await == expected).await;
        stop(analytics).await;
    }
    let store = world.open();
    assert_eq!(store.snapshot().tail_records, 0);
    assert_stored_once(&world.engine(), &store, 900).await;
    world.catch_up(&store).await;
    assert_eq!(store.snapshot().tail_records, 0, "a stop leaves nothing to be read again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_takes_in_what_the_log_holds_by_then() {
    let world = World::new();
    let analytics =
        Analytics::start(quick(), Arc::clone(&world.log), &world.dir(), &Registry::new()).unwrap();
    world.append(0..3_000).await;
    stop(analytics).await;
    assert_stored_once(&world.engine(), &world.open(), 3_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_age_of_rows_alone_causes_a_flush() {
    let world = World::new();
    let analytics =
        Analytics::start(quick(), Arc::clone(&world.log), &world.dir(), &Registry::new()).unwrap();
    world.append(0..5).await;
    eventually("five rows are in files", async || parquet_files(&world.dir()).len() >= 5).await;
    stop(analytics).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_takes_no_writes_stops_the_reading_and_loses_nothing() {
    const BOUND: usize = 1_000;
    let world = World::new();
    let blocked = world.dir().join("decisions");
    let config = WarehouseConfig { tail_max_rows: BOUND, flush_min_rows: BOUND, ..quick() };
    let registry = Registry::new();
    let analytics = Analytics::start(config, Arc::clone(&world.log), &world.dir(), &registry).unwrap();
    // A file where a folder is needed: what a full or broken disk does, but repeatable.
    std::fs::write(&blocked, b"").unwrap();
    let total = (BOUND + 2 * POLL_RECORDS) as u64;
    world.append(0..total).await;
    eventually("reading pauses", async || gauge(&registry, "ingest_paused") > 0.0).await;
    let warehouse = analytics.warehouse();
    assert!(warehouse.store.snapshot().tail_records <= BOUND + POLL_RECORDS);
    assert!(stored(&warehouse).await < total.cast_signed());
    std::fs::remove_file(&blocked).unwrap();
    eventually("all is stored", async || stored(&warehouse).await == total.cast_signed()).await;
    drop(warehouse);
    stop(analytics).await;
    assert_stored_once(&world.engine(), &world.open(), total.cast_signed()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_on_another_log_ends_with_an_error_that_says_so() {
    let world = World::new();
    world.append(0..10).await;
    let store = world.open();
    world.catch_up(&store).await;
    store.flush(&super::fast()).unwrap();
    drop(store);
    let other = World::new();
    let analytics =
        Analytics::start(quick(), Arc::clone(&other.log), &world.dir(), &Registry::new()).unwrap();
    let error = analytics.service.task.await.unwrap().unwrap_err().to_string();
    assert!(error.contains("the log was replaced or lost records"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_system_can_be_queried_without_being_changed() {
    let world = World::new();
    let store = world.open();
    world.append(0..100).await;
    world.catch_up(&store).await;
    store.flush(&super::fast()).unwrap();
    drop(store);
    world.append(100..150).await;
    let leftover = world.dir().join("labels/2026-11-21/06-000000000099.parquet");
    std::fs::write(&leftover, b"unfinished").unwrap();
    let before = parquet_files(&world.dir());
    let manifest = std::fs::read(world.dir().join("manifest.json")).unwrap();

    let warehouse = Warehouse::open_offline(&world.dir(), Arc::clone(&world.log)).await.unwrap();
    assert_stored_once(&warehouse.engine, &warehouse.store, 150).await;
    drop(warehouse);
    assert_eq!(parquet_files(&world.dir()), before);
    assert_eq!(std::fs::read(world.dir().join("manifest.json")).unwrap(), manifest);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_start_of_all_answers_before_anything_is_stored() {
    let world = World::new();
    let engine: Engine = world.engine();
    assert_stored_once(&engine, &world.open(), 0).await;
    let rows: Vec<Vec<Value>> = super::ask(&engine, &world.open(), "SELECT 1").await.json_rows().unwrap();
    assert_eq!(rows, [[1]]);
}
