//! `paystream features` and `paystream bench`: the scoring engine by itself.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod support;

use serde_json::Value;
use support::{run, succeed, text};

const EVENTS: &str = "20000,300,40";

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&succeed(args)).unwrap()
}

#[test]
fn built_in_features_equal_batch_sql() {
    let report = json(&["features", "check", "--synthetic", EVENTS, "--json"]);
    assert_eq!((&report["rows"], &report["differences"]), (&20_000.into(), &0.into()), "{report}");
    assert!(report["features"].as_u64().unwrap() >= 24, "{report}");
}

#[test]
fn the_handbooks_features_equal_batch_sql() {
    let features = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/handbook/features");
    let report = json(&["features", "check", "--synthetic", EVENTS, "--features", features, "--json"]);
    assert_eq!(report["differences"], 0, "{report}");
}

#[test]
fn a_benchmark_says_what_an_event_costs_and_decides_alike_in_any_batches() {
    let bench =
        |rows: &str| json(&["bench", "engine", "--synthetic", "5000,100,10", "--batch-rows", rows, "--json"]);
    let report = bench("1000");
    for key in ["events_per_s", "ns_per_event", "peak_rss_bytes", "checkpoint_bytes", "state_bytes_per_key"] {
        assert!(report[key].as_f64().unwrap() > 0.0, "{key} in {report}");
    }
    let by_feature = report["ns_by_feature"].as_object().unwrap();
    assert!(by_feature["card_count_1h"].as_f64().unwrap() > 0.0, "{report}");
    let of_features: f64 = by_feature.values().filter_map(Value::as_f64).sum();
    assert!(of_features <= report["ns_by_stage"]["windows"].as_f64().unwrap(), "{report}");
    let by_rule = report["ns_by_rule"].as_object().unwrap();
    assert_eq!(Some(by_rule.len() as u64), report["rules"].as_u64(), "{report}");
    let of_rules: f64 = by_rule.values().filter_map(Value::as_f64).sum();
    assert!(of_rules > 0.0 && of_rules <= report["ns_by_stage"]["rules"].as_f64().unwrap(), "{report}");
    assert_eq!(report["events"], 4_000, "the last batch is scored event by event");
    assert_eq!(report["decision_hash"], bench("500")["decision_hash"]);
    let compared = json(&[
        "bench",
        "engine",
        "--synthetic",
        "5000,100,10",
        "--batch-rows",
        "1000",
        "--against",
        "datafusion",
        "--json",
    ]);
    let figure = |key: &str| compared[key].as_f64().unwrap();
    let ratio = figure("events_per_s") / figure("datafusion_events_per_s");
    assert!((figure("ratio") - ratio).abs() < 1e-6 * ratio, "{compared}");
}

#[test]
fn a_feature_file_is_explained() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../sql/features/terminal.sql");
    let told = succeed(&["features", "explain", file]);
    for part in [
        "terminal_cards_10m",
        "per           terminal_id",
        "the last 10 minutes",
        "how often each card occurs",
    ] {
        assert!(told.contains(part), "{part} in\n{told}");
    }
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/handbook/features");
    let told = succeed(&["features", "explain", folder]);
    assert!(told.contains("the newest event of each"), "{told}");
    assert!(told.contains("only where    labelled fraud\n"), "{told}");
    let kept = json(&["features", "explain", folder, "--json"]);
    let layers: Vec<_> =
        kept.as_array().unwrap().iter().map(|state| state["layer"].as_u64().unwrap()).collect();
    assert!(layers.contains(&1) && layers.contains(&2), "{kept}");
}

#[test]
fn mistakes_are_said_in_words() {
    let cases = [
        (&["features", "check"][..], "--synthetic"),
        (&["bench", "engine", "--input", "x.parquet"], "--mapping"),
        (&["bench", "engine", "--synthetic", "many"], "EVENTS,CARDS,DAYS"),
        (&["features", "explain", "/nonexistent.sql"], "/nonexistent.sql"),
        (&["features", "check", "--synthetic", "9,9,9", "--features", "/nonexistent"], "/nonexistent"),
    ];
    for (args, expected) in cases {
        let output = run(args);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {error}");
        assert!(error.contains(expected), "{args:?}: {error}");
    }
}
