//! Rows in memory, in files, merged: always each exactly once.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{LATER_MS, World, ask, assert_stored_once, fast, numbers, parquet_files};
use crate::compact::Limits;
use crate::schema::Table;

const MERGE_ALL: Limits = Limits { min_files: 1, max_rows: 1_000_000 };

#[tokio::test(flavor = "multi_thread")]
async fn rows_in_are_rows_out_through_flush_restart_and_merge() {
    let world = World::new();
    let engine = world.engine();
    {
        let store = world.open();
        for step in 0..6 {
            world.append(step * 500..(step + 1) * 500).await;
            world.catch_up(&store).await;
            assert_stored_once(&engine, &store, (step.cast_signed() + 1) * 500).await;
            if step != 5 {
                let flushed = store.flush(&fast()).unwrap().unwrap();
                assert_eq!(flushed.records, 500 + 100 + 10);
                assert_stored_once(&engine, &store, (step.cast_signed() + 1) * 500).await;
            }
        }
    }
    let store = world.open();
    assert_stored_once(&engine, &store, 2_500).await;
    world.catch_up(&store).await;
    assert_stored_once(&engine, &store, 3_000).await;
    store.flush(&fast()).unwrap();
    assert_eq!(store.flush(&fast()).unwrap(), None, "nothing is left to flush");

    let before = parquet_files(&world.dir()).len();
    while store.compact_once(LATER_MS, MERGE_ALL, &fast()).unwrap() {
        assert_stored_once(&engine, &store, 3_000).await;
    }
    let after = parquet_files(&world.dir());
    assert!(after.len() < before, "{before} files became {}", after.len());
    let hours = store.snapshot().files.iter().map(|f| (f.entry.table, f.entry.hour)).collect::<Vec<_>>();
    let mut distinct = hours.clone();
    distinct.sort_unstable();
    distinct.dedup();
    assert_eq!((hours.len(), after.len()), (distinct.len(), distinct.len()), "one file per table and hour");
    drop(store);
    assert_stored_once(&engine, &world.open(), 3_000).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_value_is_read_back_as_it_was_written() {
    let world = World::new();
    let engine = world.engine();
    let store = world.open();
    world.append(0..60).await;
    world.catch_up(&store).await;
    let tables =
        Table::ALL.map(|table| format!("SELECT * FROM {} ORDER BY 1, 2, 3, 4, 5, 6", table.as_str()));
    let mut in_memory = Vec::new();
    for sql in &tables {
        in_memory.push(ask(&engine, &store, sql).await.json_rows().unwrap());
    }
    assert!(in_memory.iter().all(|rows| !rows.is_empty()));
    store.flush(&fast()).unwrap();
    assert_eq!(store.snapshot().tail_records, 0);
    for (sql, expected) in tables.iter().zip(&in_memory) {
        assert_eq!(&ask(&engine, &store, sql).await.json_rows().unwrap(), expected, "from files: {sql}");
    }
    store.compact_once(LATER_MS, MERGE_ALL, &fast()).unwrap();
    for (sql, expected) in tables.iter().zip(&in_memory) {
        assert_eq!(&ask(&engine, &store, sql).await.json_rows().unwrap(), expected, "merged: {sql}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_query_sees_each_row_once_while_rows_are_flushed_and_merged() {
    const CHUNKS: u64 = 40;
    let world = World::new();
    let engine = world.engine();
    let store = Arc::new(world.open());
    let done = Arc::new(AtomicBool::new(false));
    let changer = {
        let (store, done) = (Arc::clone(&store), Arc::clone(&done));
        std::thread::spawn(move || {
            while !done.load(Ordering::Acquire) {
                store.flush(&fast()).unwrap();
                store.compact_once(LATER_MS, MERGE_ALL, &fast()).unwrap();
            }
        })
    };
    let mut seen = Vec::new();
    for step in 0..CHUNKS {
        world.append(step * 50..(step + 1) * 50).await;
        world.catch_up(&store).await;
        let sql = "SELECT count(*), count(DISTINCT transaction_id), max(seq) FROM decisions";
        let expected = (step.cast_signed() + 1) * 50;
        assert_eq!(numbers(&engine, &store, sql).await, [expected, expected, expected - 1]);
        seen.push(store.snapshot().files.len());
    }
    done.store(true, Ordering::Release);
    changer.join().unwrap();
    assert!(seen.iter().any(|&files| files > 0), "files changed while queries ran");
    assert_stored_once(&engine, &store, CHUNKS.cast_signed() * 50).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_merged_file_is_removed_when_the_last_query_that_reads_it_is_over() {
    let world = World::new();
    let store = world.open();
    for step in 0..3 {
        world.append(step * 10..(step + 1) * 10).await;
        world.catch_up(&store).await;
        store.flush(&fast()).unwrap();
    }
    let held = store.snapshot();
    let old = parquet_files(&world.dir());
    assert!(old.len() > store.snapshot().files.iter().map(|f| f.entry.table).collect::<HashSet<_>>().len());
    while store.compact_once(LATER_MS, MERGE_ALL, &fast()).unwrap() {}
    let both = parquet_files(&world.dir());
    assert!(old.iter().all(|file| both.contains(file)), "a query may still read them");
    drop(held);
    let merged = parquet_files(&world.dir());
    assert_eq!(merged.len(), store.snapshot().files.len());
    assert!(merged.len() < both.len() && merged.iter().all(|file| both.contains(file)));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_hour_that_may_still_get_rows_is_left_alone() {
    let world = World::new();
    let store = world.open();
    for step in 0..3 {
        world.append(step * 10..(step + 1) * 10).await;
        world.catch_up(&store).await;
        store.flush(&fast()).unwrap();
    }
    assert!(!store.compact_once(super::BASE_MS, MERGE_ALL, &fast()).unwrap());
    assert!(!store.compact_once(super::BASE_MS + 60_000, MERGE_ALL, &fast()).unwrap(), "just over");
    let many = Limits { min_files: 3, ..MERGE_ALL };
    assert!(!store.compact_once(LATER_MS, many, &fast()).unwrap(), "three are not more than three");
    let small = Limits { max_rows: 4, ..MERGE_ALL };
    assert!(!store.compact_once(LATER_MS, small, &fast()).unwrap() || store.snapshot().files.len() > 3);
    assert!(store.compact_once(LATER_MS, MERGE_ALL, &fast()).unwrap());
}
