//! SQL is the definition: the incremental state must equal batch DataFusion on every row.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod support;

use proptest::prelude::*;
use scoring::RulesetSource;
use support::{Sketch, assert_same, incremental, oracle, ruleset, transactions};

const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3_600 * SECOND;
const DAY: i64 = 24 * HOUR;

/// Constructs beyond the built-in files: delayed frames, no key, several keys, expressions in and
/// around windows, minima and maxima of floats and times.
const EVERYTHING: &str = "
SELECT
    count(*) OVER (ORDER BY event_time RANGE BETWEEN INTERVAL '1 minute' PRECEDING AND CURRENT ROW) AS all_1m,
    count(*) OVER (PARTITION BY card, merchant_id ORDER BY event_time
        RANGE BETWEEN INTERVAL '2 hours' PRECEDING AND CURRENT ROW) AS pair_2h,
    count(*) OVER late AS late_count,
    sum(amount_minor) OVER late AS late_sum,
    avg(amount_minor * 2 + 1) FILTER (WHERE amount_minor > 100) OVER late AS late_avg,
    max(amount_minor) OVER late AS late_max,
    count(DISTINCT terminal_id) OVER late AS late_terminals,
    min(lat) OVER day AS south,
    max(lat) OVER day AS north,
    min(event_time) OVER day AS first_seen,
    min(amount_minor) FILTER (WHERE device_id IS NULL) OVER day AS cheapest_unknown,
    CASE WHEN count(*) OVER day > 3 THEN amount_minor ELSE NULL END AS busy_amount,
    count(DISTINCT amount_minor % 5) OVER day AS shades,
    sum(CASE WHEN ip IS NULL THEN 1 ELSE 0 END) OVER day AS hidden
FROM transactions
WINDOW
    late AS (PARTITION BY card ORDER BY event_time
             RANGE BETWEEN INTERVAL '2 days' PRECEDING AND INTERVAL '1 hour' PRECEDING),
    day  AS (PARTITION BY card ORDER BY event_time
             RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW)";

fn gap() -> impl Strategy<Value = i64> {
    prop_oneof![
        3 => Just(0),
        6 => 1..90 * SECOND,
        3 => prop::sample::select(vec![60 * SECOND, 600 * SECOND, HOUR, DAY]),
        3 => HOUR..2 * DAY,
        1 => 29 * DAY..40 * DAY,
        1 => -2 * HOUR..0,
    ]
}

prop_compose! {
    fn sketch()(
        gap_us in gap(),
        card in prop_oneof![4 => Just(0_u8), 2 => 0..3_u8, 1 => 0..20_u8],
        merchant in 0..3_u8,
        amount_minor in prop_oneof![0..1_000_i64, 400..600_i64, Just(999_999_999_999)],
        ip in prop::option::of(0..3_u8),
        device in prop::option::of(0..4_u8),
        place in prop::option::of((0..3_u8, -90.0..90.0_f64)),
    ) -> Sketch {
        Sketch { gap_us, card, merchant, amount_minor, ip, device, place }
    }
}

fn stream() -> impl Strategy<Value = (Vec<Sketch>, Vec<usize>)> {
    (1..220_usize).prop_flat_map(|n| {
        let cuts = prop::collection::vec(0..n, 0..8).prop_map(|mut cuts| {
            cuts.sort_unstable();
            cuts
        });
        (prop::collection::vec(sketch(), n), cuts)
    })
}

fn files() -> Vec<(String, String)> {
    let built_in = RulesetSource::built_in().features.into_iter().map(|f| (f.name, f.text));
    built_in.chain([("everything.sql".to_owned(), EVERYTHING.to_owned())]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn incremental_windows_equal_batch_sql_on_random_streams((sketches, cuts) in stream(), restore: bool) {
        let files = files();
        let named: Vec<_> = files.iter().map(|(n, t)| (n.as_str(), t.as_str())).collect();
        let found = incremental(&ruleset(&named), &transactions(&sketches), &cuts, restore);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for (name, sql) in &named {
            assert_same(&runtime.block_on(oracle(sql, &found)), &found, name);
        }
    }
}

#[test]
fn both_ends_of_a_frame_are_part_of_it() {
    let at = |gap_us| Sketch {
        gap_us,
        card: 0,
        merchant: 0,
        amount_minor: 1,
        ip: None,
        device: None,
        place: None,
    };
    let list = transactions(&[at(0), at(HOUR - 1), at(1), at(1)]);
    let sql = "SELECT count(*) OVER (PARTITION BY card ORDER BY event_time
                      RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW) AS n FROM transactions";
    let found = incremental(&ruleset(&[("n.sql", sql)]), &list, &[], false);
    let counts = datafusion::arrow::array::AsArray::as_primitive::<datafusion::arrow::datatypes::Int64Type>(
        found.column_by_name("n").unwrap(),
    );
    assert_eq!(counts.values(), &[1, 2, 3, 3], "an hour ago is in; an hour and a microsecond ago is out");
}
