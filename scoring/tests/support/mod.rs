//! Transactions for tests, and batch DataFusion as the oracle for features.

#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)] // each test file uses its part

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch, new_null_array};
use datafusion::arrow::compute::{cast, concat_batches, sort_to_indices, take_record_batch};
use datafusion::arrow::datatypes::{DataType, Field, Float64Type, Schema};
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};
use events::{Address, Card, CardToken, Customer, Device, Location, MerchantId, Transaction, TransactionId};
use scoring::{
    KnownLabel, LABELS, Label, MemoryStore, Ruleset, RulesetSource, Scorer, SegmentStore, SourceFile,
    definition, labels, transactions,
};

/// The few things about a transaction that windows look at.
#[derive(Debug, Clone)]
pub struct Sketch {
    pub gap_us: i64,
    pub card: u8,
    pub merchant: u8,
    pub amount_minor: i64,
    pub ip: Option<u8>,
    pub device: Option<u8>,
    pub place: Option<(u8, f64)>,
}

pub const START_US: i64 = 1_700_000_000_000_000;

/// Transactions from sketches; a negative gap is a clock that steps back.
pub fn transactions(sketches: &[Sketch]) -> Vec<Transaction> {
    let mut now_us = START_US;
    sketches
        .iter()
        .enumerate()
        .map(|(i, sketch)| {
            now_us += sketch.gap_us;
            transaction(i, now_us, sketch)
        })
        .collect()
}

fn transaction(i: usize, accepted_at_us: i64, sketch: &Sketch) -> Transaction {
    let merchant_id: MerchantId = format!("merchant_{}", sketch.merchant).parse().unwrap();
    Transaction {
        id: TransactionId::derive(&merchant_id, &i.to_string()),
        merchant_id,
        accepted_at_us,
        livemode: true,
        amount_minor: sketch.amount_minor.try_into().unwrap(),
        currency: "USD".parse().unwrap(),
        reporting_amount_minor: (sketch.amount_minor % 7 != 0).then_some(sketch.amount_minor),
        card: Card {
            token: CardToken::new("k1", &[sketch.card; 16]).unwrap(),
            bin: format!("41111{}", sketch.card % 3),
            last4: "1111".into(),
            brand: "visa".into(),
            exp_month: 1,
            exp_year: 2040,
        },
        customer: Customer { id: None, email: sketch.ip.map(|n| format!("{n}@example.com")), phone: None },
        device: Device {
            id: sketch.device.map(|n| format!("device_{n}")),
            ip: sketch.ip.map(|n| format!("10.0.0.{n}")),
            user_agent: None,
        },
        billing: Address { country: Some("DE".into()), city: None, postal_code: None },
        shipping: Address::default(),
        location: sketch.place.map(|(country, lat)| Location {
            country: Some(format!("C{country}")),
            lat,
            lon: -lat,
        }),
        mcc: None,
        terminal_id: sketch.device.map(|n| format!("t{}", n % 2)),
        metadata: std::collections::BTreeMap::new(),
        test_behaviour: None,
        idempotency_key: None,
        request_fingerprint: "00".into(),
    }
}

pub fn store() -> Arc<dyn SegmentStore> {
    MemoryStore::new()
}

pub fn batch(list: &[Transaction]) -> RecordBatch {
    transactions::batch(&list.iter().collect::<Vec<_>>())
}

pub fn ruleset(features: &[(&str, &str)]) -> Ruleset {
    let file = |(name, text): &(&str, &str)| SourceFile { name: (*name).into(), text: (*text).into() };
    let rules = vec![SourceFile {
        name: "none.yaml".into(),
        text: "version: 1\nthresholds: {review: 65, decline: 75}\nrules: []".into(),
    }];
    Ruleset::load(&RulesetSource { features: features.iter().map(file).collect(), rules, lists: Vec::new() })
        .unwrap()
}

/// What becomes known before row `at` of the transaction in row `of`, which comes before it.
#[derive(Debug, Clone, Copy)]
pub struct Verdict {
    pub at: usize,
    pub of: usize,
    pub fraud: bool,
}

/// The window times of a list.
fn times_us(list: &[Transaction]) -> Vec<i64> {
    transactions::in_window_time(i64::MIN, &batch(list)).unwrap().1
}

/// Verdicts as batch SQL needs them.
pub fn known(list: &[Transaction], verdicts: &[Verdict]) -> Vec<KnownLabel> {
    let times_us = times_us(list);
    let known = |v: &Verdict| KnownLabel {
        window_time_us: times_us[v.of],
        fraud: v.fraud,
        known_after_us: times_us[v.at - 1],
    };
    verdicts.iter().map(known).collect()
}

/// Runs a list through a scorer in batches that end at `cuts`, restoring it from its checkpoint at
/// every cut where `restore` says so. Verdicts are in order of where they become known.
pub fn incremental(
    ruleset: &Ruleset,
    list: &[Transaction],
    verdicts: &[Verdict],
    cuts: &[usize],
    restore: bool,
) -> RecordBatch {
    let store = store();
    let times_us = times_us(list);
    let mut scorer = Scorer::new(ruleset.clone(), &store);
    let mut batches = Vec::new();
    let mut verdicts = verdicts.iter().peekable();
    let mut from = 0;
    for to in cuts.iter().copied().chain([list.len()]) {
        if to <= from || to > list.len() {
            continue;
        }
        let labels: Vec<Label> = std::iter::from_fn(|| verdicts.next_if(|v| v.at <= to))
            .map(|v| Label { before_row: v.at - from, window_time_us: times_us[v.of], fraud: v.fraud })
            .collect();
        batches.push(scorer.features(&batch(&list[from..to]), &labels).unwrap());
        from = to;
        if restore {
            scorer = Scorer::restore(ruleset.clone(), &store, &scorer.checkpoint().bytes).unwrap();
        }
    }
    concat_batches(&batches[0].schema(), &batches).unwrap()
}

/// What batch DataFusion makes of a feature file over rows that have their window times, and the features
/// of earlier files, already: `event_time` and the features, in order of time.
pub async fn oracle(file: &SourceFile, rows: &RecordBatch, known: &[KnownLabel]) -> RecordBatch {
    let context = relation(rows);
    let known = labels(known);
    let table = MemTable::try_new(known.schema(), vec![vec![known]]).unwrap();
    context.register_table(LABELS, Arc::new(table)).unwrap();
    let plan = definition(&context, file).unwrap();
    in_order(&context.execute_logical_plan(plan).await.unwrap().collect().await.unwrap())
}

/// What DataFusion answers over rows as the relation, in order of the answer's first column.
pub async fn query(sql: &str, rows: &RecordBatch) -> RecordBatch {
    in_order(&relation(rows).sql(sql).await.unwrap().collect().await.unwrap())
}

fn relation(rows: &RecordBatch) -> SessionContext {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    // Feature SQL names the label.
    let mut fields: Vec<_> = rows.schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(transactions::FRAUD, DataType::Boolean, true)));
    let mut columns = rows.columns().to_vec();
    columns.push(new_null_array(&DataType::Boolean, rows.num_rows()));
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
    let table = MemTable::try_new(rows.schema(), vec![vec![rows]]).unwrap();
    context.register_table(transactions::RELATION, Arc::new(table)).unwrap();
    context
}

fn in_order(batches: &[RecordBatch]) -> RecordBatch {
    let all = concat_batches(&batches[0].schema(), batches).unwrap();
    let order = sort_to_indices(all.column(0), None, None).unwrap();
    take_record_batch(&all, &order).unwrap()
}

/// Every column of `expected` but the first must be in `found`: integers equal, floats within 1e-9.
pub fn assert_same(expected: &RecordBatch, found: &RecordBatch, context: &str) {
    assert_eq!(expected.num_rows(), found.num_rows(), "{context}");
    for (field, expected) in expected.schema().fields().iter().zip(expected.columns()).skip(1) {
        let name = field.name();
        let found = found.column_by_name(name).unwrap_or_else(|| panic!("{context}: no column {name}"));
        assert_eq!(found.data_type(), expected.data_type(), "{context}: {name}");
        for row in 0..expected.len() {
            assert_eq!(found.is_null(row), expected.is_null(row), "{context}: {name} row {row} null");
        }
        if field.data_type() == &DataType::Float64 {
            close(expected, found, &format!("{context}: {name}"));
        } else {
            assert_eq!(
                &cast(found, &DataType::Utf8).unwrap(),
                &cast(expected, &DataType::Utf8).unwrap(),
                "{context}: {name}"
            );
        }
    }
}

fn close(expected: &ArrayRef, found: &ArrayRef, context: &str) {
    let (expected, found) = (expected.as_primitive::<Float64Type>(), found.as_primitive::<Float64Type>());
    for (row, (e, f)) in expected.iter().zip(found.iter()).enumerate() {
        if let (Some(e), Some(f)) = (e, f) {
            let close = (e - f).abs() <= 1e-9 * e.abs().max(f.abs()).max(1e-300)
                || (e.is_nan() && f.is_nan())
                || e == f;
            assert!(close, "{context} row {row}: expected {e}, found {f}");
        }
    }
}
