//! What arrives, and when nothing goes wrong.

use std::collections::BTreeSet;
use std::time::Duration;

use events::topics;

use super::{Warehouse, text, wait_for};
use crate::clickhouse::server::Database;
use crate::clickhouse::{MigrateError, migrate, status};
use crate::tests::record;

#[tokio::test(flavor = "multi_thread")]
async fn every_record_of_the_log_is_stored_once_in_tables_and_views() {
    let Some(warehouse) = Warehouse::new("once").await else { return };
    warehouse.world.append(0..1_500).await;
    let running = warehouse.start();
    warehouse.wait_until_stored().await;
    warehouse.world.append(1_500..3_000).await;
    warehouse.wait_until_stored().await;
    warehouse.assert_stored_once(3_000).await;
    wait_for("nothing to be unsent", async || running.metric("paystream_warehouse_unsent_rows") == 0.0).await;
    assert_eq!(running.metric("paystream_warehouse_unsent_bytes"), 0.0);
    running.stop().await;
    warehouse.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_in_order_stores_what_the_log_holds() {
    let Some(warehouse) = Warehouse::new("stop").await else { return };
    warehouse.world.append(0..1_000).await;
    let running = warehouse.start();
    wait_for("its turn", async || running.metric("paystream_warehouse_active") == 1.0).await;
    running.stop().await;
    warehouse.assert_stored_once(1_000).await;
    warehouse.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_what_the_records_say_and_where_they_stand() {
    let Some(warehouse) = Warehouse::new("rows").await else { return };
    warehouse.world.append(0..10).await;
    warehouse.store().await;
    let rows = warehouse
        .server
        .rows(
            "SELECT id, currency, amount_minor, livemode, toString(accepted_at), location_country, mcc,
                JSONExtractString(metadata, 'order')
             FROM transactions ORDER BY accepted_at LIMIT 1",
            Database::Ours,
        )
        .await
        .unwrap();
    assert_eq!(text(&rows[0][0]), crate::tests::id(0).to_string());
    let rest = serde_json::json!(["USD", 10_050, true, "2026-11-21 06:59:30.000", "DE", null, "0"]);
    assert_eq!(serde_json::json!(rows[0][1..]), rest);
    // The log's places are those of the records themselves.
    let places = warehouse
        .numbers("SELECT uniqExact((log_partition, log_offset)), max(log_offset) < 10 FROM decisions")
        .await;
    assert_eq!(places, [10, 1]);
    warehouse.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn undecodable_records_become_dead_letters_once_and_hold_up_nothing() {
    let Some(warehouse) = Warehouse::new("dead").await else { return };
    let log = &warehouse.world.log;
    warehouse.world.append(0..300).await;
    let bad = |n: u32| record(topics::DECIDED, &format!("k{n}"), format!("not json {n}").into_bytes());
    log.append((0..50).map(bad).collect()).await.unwrap();
    warehouse.world.append(300..600).await;
    for point in ["after the plan", "after the inserts"] {
        crate::clickhouse::crash::arm(&warehouse.config.database, point, 1);
    }
    let running = warehouse.start();
    warehouse.wait_until_stored().await;
    running.stop().await;
    warehouse.assert_stored_once(600).await;
    let dead = topics::dead_letter(topics::DECIDED);
    let mut values = Vec::new();
    for partition in 0..log.partitions(dead).unwrap() {
        let letters = log.read(dead, partition, 0, 1_000, Duration::ZERO).await.unwrap();
        for letter in letters {
            assert!(letter.headers.iter().any(|(name, _)| name == "reason"));
            values.push(letter.value);
        }
    }
    let distinct: BTreeSet<_> = values.iter().collect();
    assert_eq!((values.len(), distinct.len()), (50, 50));
    warehouse.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn migrations_are_applied_once_whoever_runs_them() {
    let Some(warehouse) = Warehouse::new("migrate").await else { return };
    let server = &warehouse.server;
    assert_eq!(migrate(server).await.unwrap(), [], "the test's database is migrated");
    // One that was cut off, and two at once.
    warehouse.run("TRUNCATE TABLE schema_migrations").await;
    let (a, b) = tokio::join!(migrate(server), migrate(server));
    let all = crate::clickhouse::migrate::migrations().len();
    assert!(a.unwrap().len() == all || b.unwrap().len() == all);
    let statuses = status(server).await.unwrap();
    assert_eq!(statuses.len(), all);
    assert!(statuses.iter().all(|s| s.applied_at.is_some() && s.problem.is_none()), "{statuses:?}");
    warehouse.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migration_that_was_edited_after_it_was_applied_is_refused_by_name() {
    let Some(warehouse) = Warehouse::new("edited").await else { return };
    warehouse.run("TRUNCATE TABLE schema_migrations").await;
    warehouse
        .run("INSERT INTO schema_migrations (version, name, checksum) VALUES (1, 'tables', 'abc'), (99, 'later', 'x')")
        .await;
    let Err(MigrateError::Differs { problems, .. }) = migrate(&warehouse.server).await else {
        panic!("it was accepted");
    };
    assert_eq!(problems.len(), 2);
    assert!(problems[0].starts_with("0001_tables was applied with another content"), "{problems:?}");
    assert!(problems[1].starts_with("0099_later is not known"), "{problems:?}");
    warehouse.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_of_a_database_that_is_not_there_says_that_nothing_is_applied() {
    let Some(warehouse) = Warehouse::new("none").await else { return };
    let server = warehouse.server.clone();
    warehouse.end().await;
    assert!(status(&server).await.unwrap().iter().all(|s| s.applied_at.is_none()));
}
