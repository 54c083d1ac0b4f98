//! The page's state: what a page that joins sees, and what follows.

use std::collections::HashSet;

use serde_json::Value;

use super::{BASE_MS, World, alert, decided, fast};
use crate::live::Live;

/// A time at which the first decisions of the tests are some seconds old.
const NOW_MS: i64 = BASE_MS + 10_500;

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn ids(rows: &Value) -> Vec<String> {
    rows.as_array().unwrap().iter().map(|row| row["transaction_id"].as_str().unwrap().to_owned()).collect()
}

fn keys(value: &Value) -> Vec<&str> {
    let mut keys: Vec<_> = value.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

fn fill(live: &Live, numbers: std::ops::Range<u64>) {
    let all: Vec<_> = numbers.map(|n| decided(n, 0, n)).collect();
    live.decided_at(NOW_MS / 1_000, &all);
    let alerts: Vec<_> = all.iter().filter(|d| d.seq % 5 == 0).map(alert).collect();
    live.alerts(&alerts);
}

#[test]
fn a_page_that_joins_gets_every_row_once_in_snapshot_or_tick() {
    let live = Live::new(NOW_MS - 1_000);
    fill(&live, 0..20);
    live.tick(NOW_MS);
    fill(&live, 20..40);
    let (snapshot, mut ticks) = live.subscribe(NOW_MS);
    fill(&live, 40..45);
    live.tick(NOW_MS + 1_000);
    let (snapshot, tick) = (parse(&snapshot), parse(&ticks.try_recv().unwrap()));
    let (first, second) = (ids(&snapshot["latest"]), ids(&tick["latest"]));
    assert_eq!((first.len(), second.len()), (20, 25));
    let distinct: HashSet<_> = first.iter().chain(&second).collect();
    assert_eq!(distinct.len(), 45);
    let seconds = snapshot["series"]["t_s"].as_array().unwrap();
    assert_eq!(seconds.len(), 300);
    let last = seconds[299].as_i64().unwrap();
    assert_eq!(tick["point"]["t_s"].as_i64().unwrap(), last + 1, "the tick goes on where the snapshot ends");
    assert!(ticks.try_recv().is_err());
}

#[test]
fn snapshot_and_tick_have_the_fields_the_page_reads() {
    let live = Live::new(NOW_MS - 1_000);
    fill(&live, 0..20);
    live.tick(NOW_MS);
    let (snapshot, mut ticks) = live.subscribe(NOW_MS);
    fill(&live, 20..30);
    live.tick(NOW_MS + 1_000);
    let (snapshot, tick) = (parse(&snapshot), parse(&ticks.try_recv().unwrap()));
    let common = ["alerts", "latest", "now_ms"];
    let rest = ["top_merchants", "top_rules", "totals"];
    assert_eq!(keys(&snapshot), [&common[..], &["series"], &rest[..]].concat());
    assert_eq!(keys(&tick), [&common[..], &["point"], &rest[..]].concat());
    let points = ["approve", "challenge", "decline", "p50_ms", "p99_ms", "review", "t_s"];
    assert_eq!(keys(&snapshot["series"]), points);
    assert_eq!(keys(&tick["point"]), points);
    let row = snapshot["latest"].as_array().unwrap().iter().find(|r| r["outcome"] == "decline").unwrap();
    let fields =
        ["amount", "card", "currency", "latency_ms", "merchant_id", "outcome", "reasons", "risk_level"];
    assert_eq!(keys(row), [&fields[..], &["risk_score", "time_ms", "transaction_id"]].concat());
    assert_eq!(keys(&row["reasons"][0]), ["code", "limit", "message", "observed", "points", "rule"]);
    assert_eq!((&row["card"], &row["latency_ms"]), (&"411111••••••1111".into(), &2.5.into()));
    let alert = &snapshot["alerts"][0];
    let fields = ["amount", "card", "currency", "id", "merchant_id", "outcome", "reasons", "risk_score"];
    assert_eq!(keys(alert), [&fields[..], &["severity", "time_ms", "transaction_id"]].concat());
    assert_eq!(keys(&tick["top_rules"][0]), ["code", "hits", "rule"]);
    let fields = ["amount_reporting_minor", "declined", "merchant", "transactions"];
    assert_eq!(keys(&tick["top_merchants"][0]), fields);
    let totals = serde_json::json!({
        "transactions": 30, "approve": 24, "review": 0, "challenge": 0, "decline": 6, "alerts": 6,
        "amount_reporting_minor": 270_000,
    });
    assert_eq!(tick["totals"], totals);
}

#[test]
fn rare_declines_are_shown_among_a_flood_of_approvals() {
    let live = Live::new(NOW_MS - 1_000);
    let (_, mut ticks) = live.subscribe(NOW_MS - 1_000);
    fill(&live, 0..10);
    let flood: Vec<_> = (10..3_000).filter(|n| n % 5 != 0).map(|n| decided(n, 0, n)).collect();
    live.decided_at(NOW_MS / 1_000, &flood);
    live.tick(NOW_MS);
    let tick = parse(&ticks.try_recv().unwrap());
    let rows = tick["latest"].as_array().unwrap();
    assert_eq!(rows.len(), 50);
    assert_eq!(rows.iter().filter(|row| row["outcome"] == "decline").count(), 2);
    let times: Vec<_> = rows.iter().map(|row| row["time_ms"].as_i64().unwrap()).collect();
    assert!(times.is_sorted_by(|a, b| a >= b), "newest first");
}

#[test]
fn a_page_that_does_not_keep_up_is_told_so_and_others_are_not_held_up() {
    let live = Live::new(NOW_MS);
    let (_, mut slow) = live.subscribe(NOW_MS);
    for second in 1..100 {
        live.tick(NOW_MS + second * 1_000);
    }
    assert!(matches!(slow.try_recv(), Err(tokio::sync::broadcast::error::TryRecvError::Lagged(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_the_page_shows_what_it_showed_before() {
    let world = World::new();
    let store = world.open();
    world.append(0..120).await;
    world.catch_up(&store).await;
    store.flush(&fast()).unwrap();

    let before = Live::new(NOW_MS - 1_000);
    fill(&before, 0..120);
    before.tick(NOW_MS);
    let after = Live::new(NOW_MS);
    after.seed(&world.engine(), &store.snapshot(), NOW_MS).await.unwrap();
    assert_eq!(before.totals(), after.totals());
    assert_eq!(after.totals().transactions, 120);

    let (before, after) = (parse(&before.subscribe(NOW_MS).0), parse(&after.subscribe(NOW_MS).0));
    for part in ["series", "top_rules", "top_merchants", "totals"] {
        assert_eq!(before[part], after[part], "{part}");
    }
    assert_eq!(before["alerts"].as_array().unwrap().len(), after["alerts"].as_array().unwrap().len());
    assert_eq!(before["alerts"][0], after["alerts"][0]);
    assert_eq!(before["latest"][0], after["latest"][0]);
    let declined = |state: &Value| {
        state["latest"].as_array().unwrap().iter().find(|r| r["outcome"] == "decline").cloned().unwrap()
    };
    assert_eq!(declined(&before), declined(&after), "with its reasons");
    assert_eq!(declined(&after)["reasons"].as_array().unwrap().len(), 1, "shadow rules are no reasons");
}
