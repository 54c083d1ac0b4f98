//! Every construct of feature SQL: a small file, an input and the answer, which both the engine and
//! batch SQL must give; and every refusal with its text.
//!
//! `UPDATE_GOLDENS=1 cargo test … --test goldens` writes the answers anew; read the difference.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod support;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use datafusion::arrow::array::{Array as _, RecordBatch};
use datafusion::arrow::util::display::array_value_to_string;
use events::Transaction;
use scoring::{KnownLabel, Ruleset, RulesetSource, SourceFile, transactions};
use support::{Sketch, Verdict, incremental, known, oracle, transactions as make};

const MINUTE: i64 = 60_000_000;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

/// `minutes,card,merchant,amount_minor,ip,device,country,lat`; empty for unknown.
fn input() -> Vec<Transaction> {
    let text = fs::read_to_string(folder().join("input.csv")).unwrap();
    let mut before = 0;
    let sketch = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        let minutes: i64 = fields[0].parse().unwrap();
        let gap_us = (minutes - before) * MINUTE;
        before = minutes;
        Sketch {
            gap_us,
            card: fields[1].parse().unwrap(),
            merchant: fields[2].parse().unwrap(),
            amount_minor: fields[3].parse().unwrap(),
            ip: fields[4].parse().ok(),
            device: fields[5].parse().ok(),
            place: fields[6].parse().ok().zip(fields[7].parse().ok()),
        }
    };
    make(&text.lines().skip(1).map(sketch).collect::<Vec<_>>())
}

/// `before,of,fraud`: what becomes known before a row of the input, of an earlier one, rows from 0.
fn verdicts() -> Vec<Verdict> {
    let text = fs::read_to_string(folder().join("verdicts.csv")).unwrap();
    let verdict = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        Verdict {
            at: fields[0].parse().unwrap(),
            of: fields[1].parse().unwrap(),
            fraud: fields[2].parse().unwrap(),
        }
    };
    text.lines().skip(1).map(verdict).collect()
}

fn sql_files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "sql"))
        .collect();
    files.sort();
    files
}

fn file(path: &Path) -> SourceFile {
    let name = path.file_name().unwrap().to_str().unwrap().to_owned();
    SourceFile { name, text: fs::read_to_string(path).unwrap() }
}

/// The features among a batch's columns, as CSV.
fn csv(batch: &RecordBatch, names: &[String]) -> String {
    let mut text = names.join(",") + "\n";
    for row in 0..batch.num_rows() {
        let value = |name: &String| {
            let column = batch.column_by_name(name).unwrap();
            if column.is_null(row) { String::new() } else { array_value_to_string(column, row).unwrap() }
        };
        let _ = writeln!(text, "{}", names.iter().map(value).collect::<Vec<_>>().join(","));
    }
    text
}

fn in_batch(file: &SourceFile, rows: &RecordBatch, known: &[KnownLabel]) -> RecordBatch {
    let width = transactions::schema().fields().len();
    let relation = rows.project(&(0..width).collect::<Vec<_>>()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(oracle(file, &relation, known))
}

/// Equal, but for what batch SQL itself loses: its sliding variances add floats and take them away again.
fn assert_close(batch: &str, found: &str, name: &str) {
    let close = |a: &str, b: &str| match (a.parse::<f64>(), b.parse::<f64>()) {
        (Ok(a), Ok(b)) => (a - b).abs() <= 1e-9 * a.abs().max(b.abs()) || (a - b).abs() < 1e-7,
        _ => a == b,
    };
    let cells = |text: &str| text.split([',', '\n']).map(str::to_owned).collect::<Vec<_>>();
    let (batch_cells, found_cells) = (cells(batch), cells(found));
    let same = batch_cells.len() == found_cells.len()
        && batch_cells.iter().zip(&found_cells).all(|(a, b)| close(a, b));
    assert!(same, "{name}: in batch\n{batch}\nfound\n{found}");
}

#[test]
fn every_construct_gives_its_answer_however_it_is_run() {
    let (list, verdicts) = (input(), verdicts());
    let known = known(&list, &verdicts);
    for path in sql_files(&folder()) {
        let file = file(&path);
        let ruleset = Ruleset::load(&RulesetSource::without_rules(vec![file.clone()]))
            .unwrap_or_else(|e| panic!("{}: {e}", file.name));
        let names = ruleset.feature_names();
        let whole = incremental(&ruleset, &list, &verdicts, &[], false);
        let found = csv(&whole, &names);
        let expected = path.with_extension("csv");
        if std::env::var_os("UPDATE_GOLDENS").is_some() {
            fs::write(&expected, &found).unwrap();
        }
        assert_eq!(found, fs::read_to_string(&expected).unwrap(), "{}: whole", file.name);
        let one_by_one: Vec<usize> = (1..list.len()).collect();
        assert_eq!(
            csv(&incremental(&ruleset, &list, &verdicts, &one_by_one, false), &names),
            found,
            "{}: one by one",
            file.name
        );
        for cut in one_by_one {
            let restored = incremental(&ruleset, &list, &verdicts, &[cut], true);
            assert_eq!(csv(&restored, &names), found, "{}: restored at {cut}", file.name);
        }
        assert_close(&csv(&in_batch(&file, &whole, &known), &names), &found, &file.name);
    }
}

#[test]
fn every_refusal_has_its_text() {
    for path in sql_files(&folder().join("refused")) {
        let source = RulesetSource::without_rules(vec![file(&path)]);
        let found = Ruleset::load(&source).expect_err("it must be refused").to_string() + "\n";
        let expected = path.with_extension("txt");
        if std::env::var_os("UPDATE_GOLDENS").is_some() {
            fs::write(&expected, &found).unwrap();
        }
        assert_eq!(found, fs::read_to_string(&expected).unwrap(), "{}", path.display());
    }
}
