//! Whatever fails, each record counts once.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Warehouse, proxy, wait_for};
use crate::clickhouse::{ClickHouseConfig, crash};

/// Where the service is killed.
const POINTS: [&str; 5] =
    ["before the plan", "after the plan", "between inserts", "after the inserts", "after the commit"];

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_point_and_started_again_it_stores_each_record_once() {
    let Some(warehouse) = Warehouse::new("killed").await else { return };
    let mut n = 0;
    for point in POINTS {
        for pass in [1, 2] {
            crash::arm(&warehouse.config.database, point, pass);
            warehouse.world.append(n..n + 600).await;
            n += 600;
            let running = warehouse.start();
            warehouse.wait_until_stored().await;
            running.kill().await;
        }
    }
    warehouse.assert_stored_once(n).await;
    warehouse.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_and_started_on_another_machine_without_the_disk_it_stores_each_record_once() {
    let Some(warehouse) = Warehouse::new("machine").await else { return };
    let mut n = 0;
    for point in POINTS {
        crash::arm(&warehouse.config.database, point, 2);
        warehouse.world.append(n..n + 600).await;
        n += 600;
        let here = tempfile::tempdir().unwrap();
        let running = warehouse.start_with(&warehouse.config, here.path());
        wait_for("the crash", async || !crash::is_armed(&warehouse.config.database)).await;
        running.kill().await;
        let there = tempfile::tempdir().unwrap();
        let running = warehouse.start_with(&warehouse.config, there.path());
        warehouse.wait_until_stored().await;
        running.kill().await;
    }
    warehouse.assert_stored_once(n).await;
    warehouse.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_random_moments_it_stores_each_record_once() {
    let Some(warehouse) = Warehouse::new("random").await else { return };
    warehouse.world.append(0..6_000).await;
    for turn in 0..25_u64 {
        let running = warehouse.start();
        tokio::time::sleep(Duration::from_millis(turn * 37 % 211)).await;
        running.kill().await;
    }
    let running = warehouse.start();
    warehouse.wait_until_stored().await;
    running.stop().await;
    warehouse.assert_stored_once(6_000).await;
    warehouse.end().await;
}

/// The embedded log lets each of them believe that it has the work; only the newest writer has.
#[tokio::test(flavor = "multi_thread")]
async fn services_that_all_take_the_work_for_theirs_store_each_record_once() {
    let Some(warehouse) = Warehouse::new("rivals").await else { return };
    warehouse.world.append(0..4_000).await;
    let spools = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let rivals: Vec<_> =
        spools.iter().map(|spool| warehouse.start_with(&warehouse.config, spool.path())).collect();
    warehouse.world.append(4_000..6_000).await;
    warehouse.wait_until_stored().await;
    for rival in rivals {
        rival.kill().await;
    }
    warehouse.assert_stored_once(6_000).await;
    warehouse.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_whose_answer_is_lost_counts_once() {
    let Some(warehouse) = Warehouse::new("lost").await else { return };
    let (url, faults) = proxy::start(&warehouse.config.url).await;
    faults.swallow.store(3, Ordering::SeqCst);
    let config = ClickHouseConfig { url, insert_deadline_ms: 700, ..warehouse.config.clone() };
    warehouse.world.append(0..4_000).await;
    let running = warehouse.start_with(&config, warehouse.spool());
    warehouse.wait_until_stored().await;
    let failures = running.metric("paystream_warehouse_insert_failures_total");
    assert!(failures >= 10.0, "only {failures} inserts failed");
    assert!(faults.swallowed.load(Ordering::SeqCst) >= 10);
    running.kill().await;
    warehouse.assert_stored_once(4_000).await;
    warehouse.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_server_is_away_rows_wait_on_disk_and_then_reading_pauses() {
    let Some(warehouse) = Warehouse::new("away").await else { return };
    let (url, faults) = proxy::start(&warehouse.config.url).await;
    faults.is_away.store(true, Ordering::SeqCst);
    let config = ClickHouseConfig { url, spool_max_bytes: 600_000, ..warehouse.config.clone() };
    warehouse.world.append(0..6_000).await;
    let running = warehouse.start_with(&config, warehouse.spool());
    wait_for("reading to pause", async || running.metric("paystream_warehouse_paused") == 1.0).await;
    let on_disk = |dir: &std::path::Path| -> u64 {
        std::fs::read_dir(dir).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum()
    };
    let waiting = on_disk(warehouse.spool());
    assert!((300_000..700_000).contains(&waiting), "{waiting} bytes wait on disk");
    assert!(running.metric("paystream_warehouse_unsent_rows") > 500.0);
    // A restart while the server is away takes up what waits on disk.
    running.kill().await;
    let running = warehouse.start_with(&config, warehouse.spool());
    wait_for("reading to pause", async || running.metric("paystream_warehouse_paused") == 1.0).await;
    faults.is_away.store(false, Ordering::SeqCst);
    warehouse.wait_until_stored().await;
    wait_for("the spool to be empty", async || on_disk(warehouse.spool()) == 0).await;
    running.stop().await;
    warehouse.assert_stored_once(6_000).await;
    warehouse.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_the_server_refuses_for_their_content_are_kept_and_hold_up_nothing() {
    let Some(warehouse) = Warehouse::new("refused").await else { return };
    warehouse.run("ALTER TABLE alerts MODIFY COLUMN card_masked FixedString(2)").await;
    warehouse.world.append(0..500).await;
    let running = warehouse.start();
    warehouse.wait_until_stored().await;
    assert!(running.metric("paystream_warehouse_refused_batches") >= 1.0);
    running.stop().await;
    assert_eq!(warehouse.numbers("SELECT count() FROM decisions").await, [500]);
    assert_eq!(warehouse.numbers("SELECT count() FROM alerts").await, [0]);
    // Mended, and started again.
    warehouse.run("ALTER TABLE alerts MODIFY COLUMN card_masked String").await;
    let running = warehouse.start();
    wait_for("the refused rows", async || std::fs::read_dir(warehouse.spool()).unwrap().count() == 0).await;
    running.stop().await;
    warehouse.assert_stored_once(500).await;
    warehouse.end().await;
}
