//! A condition taken apart holds where the whole one does, and a batch that is passed over has no such row.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::{
    Array as _, ArrayRef, AsArray as _, BooleanArray, Float64Array, Int32Array, Int64Array, RecordBatch,
    StringArray,
};
use datafusion::arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use datafusion::execution::SessionState;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::prelude::SessionContext;
use proptest::prelude::*;
use proptest::sample::select;

use super::bounds::Ranges;
use super::compile::expression;
use super::condition::{Condition, Hit};
use crate::lists::Calls;
use crate::windows::inputs::evaluate;

static STATE: LazyLock<SessionState> = LazyLock::new(|| SessionContext::new().state());

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    use DataType::{Boolean, Float64, Int32, Int64, Utf8};
    let columns = [("i", Int64), ("j", Int64), ("n", Int32), ("f", Float64), ("g", Float64), ("b", Boolean)];
    let columns = columns.into_iter().chain([("t", Utf8), ("u", Utf8)]);
    Arc::new(Schema::new(columns.map(|(name, of)| Field::new(name, of, true)).collect::<Vec<_>>()))
});

fn compiled(sql: &str, wanted: &DataType) -> Result<Arc<dyn PhysicalExpr>, String> {
    expression(&STATE, &mut Calls::new(&SCHEMA, &[]), sql, wanted)
}

fn condition(sql: &str, observed: &str) -> Result<Condition, String> {
    let figure = |sql: &str| compiled(sql, &DataType::Float64);
    Condition::new(compiled(sql, &DataType::Boolean)?, figure(observed)?, figure("f")?, &SCHEMA)
        .map_err(|e| e.to_string())
}

/// The hits of a condition that is evaluated whole, on the whole batch.
fn plain(sql: &str, observed: &str, batch: &RecordBatch) -> Vec<Hit> {
    let whole = |sql: &str, of: &DataType| evaluate(sql, &*compiled(sql, of).unwrap(), batch).unwrap();
    let holds = whole(sql, &DataType::Boolean);
    let figures = [whole(observed, &DataType::Float64), whole("f", &DataType::Float64)];
    let shown = |of: &ArrayRef, row: usize| {
        let of = of.as_primitive::<Float64Type>();
        Some(of.value(row)).filter(|f| of.is_valid(row) && f.is_finite()).unwrap_or(0.0)
    };
    let rows = holds.as_boolean().iter().enumerate().filter(|(_, holds)| *holds == Some(true));
    rows.map(|(row, _)| Hit { row, observed: shown(&figures[0], row), limit: shown(&figures[1], row) })
        .collect()
}

fn numbers() -> impl Strategy<Value = Option<i64>> {
    const EXACT: i64 = 1 << f64::MANTISSA_DIGITS;
    let extremes = [i64::MIN, i64::MIN + 1, i64::MAX, i64::MAX - 1, EXACT, EXACT + 1, -EXACT - 1];
    prop_oneof![2 => (-3_i64..4).prop_map(Some), 1 => select(extremes.to_vec()).prop_map(Some), 1 => Just(None)]
}

fn floats() -> impl Strategy<Value = Option<f64>> {
    let extremes = [f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0, 0.0, 9.3e18, -9.3e18];
    prop_oneof![2 => (-3_i8..4).prop_map(|n| Some(f64::from(n) / 2.0)),
        1 => select(extremes.to_vec()).prop_map(Some), 1 => Just(None)]
}

fn batches() -> impl Strategy<Value = RecordBatch> {
    let small = prop_oneof![(-3_i32..4).prop_map(Some), Just(Some(i32::MAX)), Just(None)];
    let text = || select(vec![None, Some("a"), Some("b")]);
    let row = (numbers(), numbers(), small, floats(), floats(), any::<Option<bool>>(), text(), text());
    // Few rows, and columns of one value: otherwise few conditions could be told not to hold.
    (prop::collection::vec(row, 1..8), any::<[bool; 8]>()).prop_map(|(rows, constant)| {
        let row = |at: usize, column: usize| &rows[if constant[column] { 0 } else { at }];
        let all = || 0..rows.len();
        let columns: Vec<ArrayRef> = vec![
            Arc::new(all().map(|at| row(at, 0).0).collect::<Int64Array>()),
            Arc::new(all().map(|at| row(at, 1).1).collect::<Int64Array>()),
            Arc::new(all().map(|at| row(at, 2).2).collect::<Int32Array>()),
            Arc::new(all().map(|at| row(at, 3).3).collect::<Float64Array>()),
            Arc::new(all().map(|at| row(at, 4).4).collect::<Float64Array>()),
            Arc::new(all().map(|at| row(at, 5).5).collect::<BooleanArray>()),
            Arc::new(all().map(|at| row(at, 6).6).collect::<StringArray>()),
            Arc::new(all().map(|at| row(at, 7).7).collect::<StringArray>()),
        ];
        RecordBatch::try_new(Arc::clone(&SCHEMA), columns).unwrap()
    })
}

/// Columns, through casts, and expressions of which some fail on some rows.
const OPERANDS: [&str; 20] = [
    "i",
    "j",
    "n",
    "f",
    "g",
    "CAST(i AS DOUBLE)",
    "CAST(n AS DOUBLE)",
    "CAST(n AS BIGINT)",
    "CAST(i AS INT)",
    "TRY_CAST(i AS INT)",
    "CAST(CAST(i AS INT) AS DOUBLE)",
    "CAST(f AS BIGINT)",
    "CAST(f AS REAL)",
    "i / j",
    "1000 / i",
    "i % j",
    "i + 1",
    "f / g",
    "-n",
    "CASE WHEN b THEN i ELSE 1 / j END",
];

const CONSTANTS: [&str; 16] = [
    "0",
    "1",
    "-1",
    "2.5",
    "-0.0",
    "1 + 1",
    "9223372036854775807",
    "-9223372036854775807",
    "-9223372036854775807 - 1",
    "9007199254740993",
    "9007199254740992.0",
    "1e300",
    "CAST('NaN' AS DOUBLE)",
    "CAST('inf' AS DOUBLE)",
    "NULL",
    "1 / 0",
];

const OTHERS: [&str; 21] = [
    "b",
    "NOT b",
    "b = true",
    "false <> b",
    "b > false",
    "b IS TRUE",
    "b IS NOT FALSE",
    "t = 'a'",
    "'b' < t",
    "t <> u",
    "t IN ('a', 'c')",
    "t NOT IN ('a', NULL)",
    "i IN (1, 2)",
    "i IS DISTINCT FROM 1",
    "t LIKE 'a%'",
    "f IS NULL",
    "t IS NOT NULL",
    "i / j IS NOT NULL",
    "true",
    "false",
    "CAST(NULL AS BOOLEAN)",
];

fn conditions() -> impl Strategy<Value = String> {
    let operators = select(vec!["<", "<=", "=", "<>", ">=", ">"]);
    let (operand, constant) = (select(OPERANDS.to_vec()), select(CONSTANTS.to_vec()));
    let compared = (operand.clone(), operators, constant.clone(), operand.clone(), 0..5_u8).prop_map(
        |(operand, operator, constant, other, form)| match form {
            0 => format!("{operand} {operator} {other}"),
            1 | 2 => format!("{constant} {operator} {operand}"),
            _ => format!("{operand} {operator} {constant}"),
        },
    );
    let between =
        (operand, constant.clone(), constant, any::<bool>()).prop_map(|(operand, low, high, not)| {
            format!("{operand} {}BETWEEN {low} AND {high}", if not { "NOT " } else { "" })
        });
    let leaf = prop_oneof![5 => compared, 1 => between, 2 => select(OTHERS.to_vec()).prop_map(str::to_owned)];
    leaf.prop_recursive(3, 8, 2, |inner| {
        prop_oneof![
            3 => (inner.clone(), inner.clone()).prop_map(|(left, right)| format!("({left}) AND ({right})")),
            2 => (inner.clone(), inner.clone()).prop_map(|(left, right)| format!("({left}) OR ({right})")),
            1 => inner.prop_map(|inner| format!("NOT ({inner})")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn a_condition_taken_apart_holds_where_the_whole_one_does(
        batch in batches(),
        sql in conditions(),
        observed in select(OPERANDS.to_vec()),
    ) {
        let taken_apart = condition(&sql, observed);
        prop_assume!(taken_apart.is_ok());
        let taken_apart = taken_apart.unwrap();
        let expected = plain(&sql, observed, &batch);
        prop_assert_eq!(&taken_apart.hits(&sql, &batch).unwrap(), &expected, "{}", sql);
        if !taken_apart.may_hold(&Ranges::new(&batch)) {
            prop_assert_eq!(&expected, &Vec::new(), "{} was passed over", sql);
        }
    }
}

/// i: 3, 7, NULL; j: all NULL; n: 1, 1, 1; f: NaN, -0.0, NULL; g: 1.5, 1.5, 1.5; b: all false;
/// t: all NULL; u: "x", NULL, NULL.
fn sample() -> RecordBatch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![Some(3), Some(7), None])),
        Arc::new(Int64Array::from(vec![None, None, None])),
        Arc::new(Int32Array::from(vec![1, 1, 1])),
        Arc::new(Float64Array::from(vec![Some(f64::NAN), Some(-0.0), None])),
        Arc::new(Float64Array::from(vec![1.5, 1.5, 1.5])),
        Arc::new(BooleanArray::from(vec![false, false, false])),
        Arc::new(StringArray::from(vec![None::<&str>, None, None])),
        Arc::new(StringArray::from(vec![Some("x"), None, None])),
    ];
    RecordBatch::try_new(Arc::clone(&SCHEMA), columns).unwrap()
}

fn may_hold(sql: &str) -> bool {
    condition(sql, "1").unwrap().may_hold(&Ranges::new(&sample()))
}

#[test]
fn what_no_row_can_meet_is_passed_over() {
    let cases = [
        "i > 7",
        "7 < i",
        "i <= 2",
        "i = 8",
        "i BETWEEN 8 AND 20",
        "i > 7.5",
        "CAST(i AS DOUBLE) >= 7.5",
        "i / 2 = 3 AND i > 7",
        "(i > 7 OR g < 1) AND n = 1",
        "NOT (i <= 7 OR n = 1)",
        "n <> 1",
        "n IS NULL",
        "j = 1",
        "j > i",
        "j IS NOT NULL",
        "f < 0.0",
        "g > 1.5",
        "g > 2",
        "b",
        "b = true",
        "NOT (NOT b)",
        "t = 'x'",
        "t <> u",
        "t IN ('x', 'y')",
        "i > NULL",
        "i > 9223372036854775807",
        "false",
    ];
    for sql in cases {
        assert!(!may_hold(sql), "{sql}");
    }
}

#[test]
fn what_a_row_may_meet_is_evaluated() {
    let cases = [
        "i > 6",
        "i < 4",
        "i >= 7 AND n = 1",
        "i = 5",
        "i > 7 OR g > 1",
        "i IS NULL",
        "f > 1e300",
        "f = 0.0",
        "NOT b",
        "t IS NULL",
        "u = 'y'",
        "i % 2 = 5",
        "true",
    ];
    for sql in cases {
        assert!(may_hold(sql), "{sql}");
    }
}
