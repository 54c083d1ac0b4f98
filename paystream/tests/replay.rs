//! `paystream replay`: the live scoring code over a file.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod support;

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;
use support::{run, succeed, text};

const ROWS: u64 = 5_000;
const MAPPING: &str = "version: 1
columns:
  transaction_id: id
  event_time: at
  amount_minor: amount
  card: card
  merchant_id: merchant
";

fn write_input(dir: &Path) -> (String, String) {
    let mut csv = String::from("id,at,amount,card,merchant\n");
    for n in 0..ROWS {
        let (hour, minute, second) = (n / 3_600 % 24, n / 60 % 60, n % 60);
        writeln!(
            csv,
            "{n},2026-01-01T{hour:02}:{minute:02}:{second:02},{},card_{},shop_{}",
            100 + n * 37 % 90_000,
            n % 83,
            n % 7
        )
        .unwrap();
    }
    let (input, mapping) = (dir.join("input.csv"), dir.join("map.yaml"));
    std::fs::write(&input, csv).unwrap();
    std::fs::write(&mapping, MAPPING).unwrap();
    (input.to_str().unwrap().to_owned(), mapping.to_str().unwrap().to_owned())
}

#[test]
fn every_row_is_decided_and_two_runs_decide_alike_in_any_batch_size() {
    let temp = tempfile::tempdir().unwrap();
    let (input, mapping) = write_input(temp.path());
    let replay = |name: &str, batch: &str| -> Value {
        let output = temp.path().join(name);
        let args = ["replay", "--input", &input, "--mapping", &mapping, "--output", output.to_str().unwrap()];
        let report = succeed(&[&args[..], &["--json", "--batch-rows", batch]].concat());
        assert!(output.is_file());
        serde_json::from_str(&report).unwrap()
    };
    let first = replay("a.parquet", "512");
    for key in ["rows", "decisions", "rejected", "decision_hash", "rows_per_s"] {
        assert!(!first[key].is_null(), "{key}: {first}");
    }
    assert_eq!((first["rows"].as_u64(), first["decisions"].as_u64()), (Some(ROWS), Some(ROWS)), "{first}");
    let second = replay("b.parquet", "77");
    assert_eq!(first["decision_hash"], second["decision_hash"]);
}

#[test]
fn a_wrong_mapping_and_a_missing_file_are_said_in_words() {
    let temp = tempfile::tempdir().unwrap();
    let (input, mapping) = write_input(temp.path());
    let output = temp.path().join("out.parquet");
    let output = output.to_str().unwrap();
    let missing = run(&["replay", "--input", &input, "--mapping", "/nonexistent.yaml", "--output", output]);
    assert_eq!(missing.status.code(), Some(2), "{}", text(&missing.stderr));
    std::fs::write(&mapping, "version: 1\ncolumns: {carb: x}\n").unwrap();
    let wrong = run(&["replay", "--input", &input, "--mapping", &mapping, "--output", output]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(text(&wrong.stderr).contains("columns.carb"), "{}", text(&wrong.stderr));
}
