//! SQL is the definition: the incremental state must equal batch DataFusion on every row.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod support;

use datafusion::arrow::array::RecordBatch;
use proptest::prelude::*;
use scoring::{RulesetSource, SourceFile};
use support::{Sketch, Verdict, assert_same, incremental, known, oracle, query, ruleset, transactions};

const SECOND: i64 = 1_000_000;
const HOUR: i64 = 3_600 * SECOND;
const DAY: i64 = 24 * HOUR;

/// Constructs beyond the built-in files: delayed frames, no key, several keys, expressions in and
/// around windows, minima and maxima of floats and times, spreads, first and last values.
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
    first_value(amount_minor) OVER late AS late_first,
    last_value(reporting_amount_minor) OVER late AS late_last,
    min(lat) OVER day AS south,
    max(lat) OVER day AS north,
    min(event_time) OVER day AS first_seen,
    first_value(event_time) OVER day AS first_seen_too,
    first_value(lat) OVER day AS first_lat,
    last_value(lat) OVER day AS own_lat,
    min(amount_minor) FILTER (WHERE device_id IS NULL) OVER day AS cheapest_unknown,
    CASE WHEN count(*) OVER day > 3 THEN amount_minor ELSE NULL END AS busy_amount,
    count(DISTINCT amount_minor % 5) OVER day AS shades,
    count(DISTINCT lat) OVER day AS places,
    sum(CASE WHEN ip IS NULL THEN 1 ELSE 0 END) OVER day AS hidden,
    sum(livemode::int) OVER day AS live,
    min(amount_minor) OVER long AS long_min,
    max(lat) OVER long AS long_north,
    count(DISTINCT amount_minor) OVER long AS long_amounts,
    count(DISTINCT amount_minor) OVER short AS short_amounts,
    max(amount_minor) OVER long_ago AS long_ago_max,
    count(DISTINCT merchant_id) OVER long_ago AS long_ago_merchants
FROM transactions
WINDOW
    short AS (PARTITION BY card ORDER BY event_time
              RANGE BETWEEN INTERVAL '2 hours' PRECEDING AND CURRENT ROW),
    long AS (PARTITION BY card ORDER BY event_time
             RANGE BETWEEN INTERVAL '9 days' PRECEDING AND CURRENT ROW),
    long_ago AS (PARTITION BY ip ORDER BY event_time
             RANGE BETWEEN INTERVAL '10 days' PRECEDING AND INTERVAL '1 day' PRECEDING),
    late AS (PARTITION BY card ORDER BY event_time
             RANGE BETWEEN INTERVAL '2 days' PRECEDING AND INTERVAL '1 hour' PRECEDING),
    day  AS (PARTITION BY card ORDER BY event_time
             RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW)";

/// Spreads and float sums.
const SPREADS: &str = "
SELECT
    stddev(amount_minor) OVER day AS dev,
    stddev_pop(amount_minor) FILTER (WHERE amount_minor % 2 = 0) OVER day AS dev_pop,
    var(amount_minor) OVER late AS variance,
    var_pop(amount_minor) OVER late AS variance_pop,
    sum(amount_minor / 7.0) OVER day AS sevenths,
    avg(amount_minor / 7.0) OVER late AS late_sevenths,
    var_pop(amount_minor / 8.0) OVER day AS eighths
FROM transactions
WINDOW
    late AS (PARTITION BY card ORDER BY event_time
             RANGE BETWEEN INTERVAL '2 days' PRECEDING AND INTERVAL '1 hour' PRECEDING),
    day  AS (PARTITION BY card ORDER BY event_time
             RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW)";

/// The same as a join: DataFusion's sliding aggregates add floats and take them away again, and lose
/// digits (a variance may become negative, its root NaN); its plain aggregates do not.
const SPREADS_AS_JOIN: &str = "
SELECT
    r.event_time,
    stddev(e.amount_minor) FILTER (WHERE day) AS dev,
    stddev_pop(e.amount_minor) FILTER (WHERE day AND e.amount_minor % 2 = 0) AS dev_pop,
    var(e.amount_minor) FILTER (WHERE late) AS variance,
    var_pop(e.amount_minor) FILTER (WHERE late) AS variance_pop,
    sum(e.amount_minor / 7.0) FILTER (WHERE day) AS sevenths,
    avg(e.amount_minor / 7.0) FILTER (WHERE late) AS late_sevenths,
    var_pop(e.amount_minor / 8.0) FILTER (WHERE day) AS eighths
FROM (
    SELECT r.event_time, e.amount_minor,
           e.event_time >= r.event_time - INTERVAL '1 day' AS day,
           e.event_time <= r.event_time - INTERVAL '1 hour' AS late
    FROM transactions r JOIN transactions e ON r.card = e.card
        AND e.event_time BETWEEN r.event_time - INTERVAL '2 days' AND r.event_time
) AS e(event_time, amount_minor, day, late) JOIN transactions r ON r.event_time = e.event_time
GROUP BY r.event_time";

/// What looks at all of a key's history. No key is silent for long enough to be forgotten, so this is
/// plain SQL.
const HISTORY: &str = "
-- EXPIRE KEYS AFTER INTERVAL '100000 days'
SELECT
    count(*) OVER ever AS seen,
    count(reporting_amount_minor) FILTER (WHERE amount_minor > 400) OVER ever AS seen_large,
    sum(amount_minor) OVER ever AS total,
    max(amount_minor) OVER ever AS largest,
    min(lat) OVER ever AS southmost,
    first_value(event_time) OVER ever AS first_time,
    first_value(lat) OVER ever AS first_place,
    count(*) OVER rows_3 AS n_3,
    sum(reporting_amount_minor) OVER rows_3 AS sum_3,
    avg(amount_minor) OVER rows_3 AS avg_3,
    min(amount_minor) FILTER (WHERE amount_minor > 100) OVER rows_3 AS min_3,
    max(lat) OVER rows_3 AS north_3,
    first_value(amount_minor) OVER rows_3 AS first_3,
    last_value(amount_minor) OVER (PARTITION BY card ORDER BY event_time
        ROWS BETWEEN 4 PRECEDING AND 2 PRECEDING) AS second_last,
    sum(amount_minor) OVER (PARTITION BY card ORDER BY event_time
        ROWS BETWEEN 4 PRECEDING AND 2 PRECEDING) AS sum_before,
    lag(reporting_amount_minor) OVER ever AS before,
    lag(lat, 2) OVER ever AS place_2,
    lag(amount_minor, 3, -1) OVER ever AS third_last,
    event_time - lag(event_time) OVER ever AS since,
    lag(event_time) OVER (PARTITION BY merchant_id, bin ORDER BY event_time) AS before_there
FROM transactions
WINDOW
    ever AS (PARTITION BY card ORDER BY event_time),
    rows_3 AS (PARTITION BY card ORDER BY event_time ROWS BETWEEN 3 PRECEDING AND CURRENT ROW)";

/// Windows over what windows made, in one file by a common table expression and from file to file.
const LAYERS: [(&str, &str); 2] = [
    (
        "layers_1.sql",
        "
WITH base AS (
    SELECT *, avg(amount_minor) OVER month AS usual, amount_minor * 2 AS twice,
           count(DISTINCT merchant_id) OVER month AS merchants
    FROM transactions
    WINDOW month AS (PARTITION BY card ORDER BY event_time
                     RANGE BETWEEN INTERVAL '30 days' PRECEDING AND CURRENT ROW)
)
SELECT
    usual AS card_usual,
    count(DISTINCT merchant_id) FILTER (WHERE amount_minor > usual) OVER (PARTITION BY card ORDER BY event_time
        RANGE BETWEEN INTERVAL '10 days' PRECEDING AND CURRENT ROW) AS unusual_merchants,
    count(*) FILTER (WHERE amount_minor > usual) OVER (PARTITION BY card ORDER BY event_time
        RANGE BETWEEN INTERVAL '30 days' PRECEDING AND CURRENT ROW) AS unusual_30d,
    max(usual) OVER (PARTITION BY card ORDER BY event_time
        RANGE BETWEEN INTERVAL '30 days' PRECEDING AND CURRENT ROW) AS most_usual,
    count(DISTINCT merchants) OVER (PARTITION BY merchant_id ORDER BY event_time
        RANGE BETWEEN INTERVAL '2 days' PRECEDING AND INTERVAL '1 hour' PRECEDING) AS kinds_of_cards,
    count(*) FILTER (WHERE amount_minor > 1.2 * usual) OVER (PARTITION BY card ORDER BY event_time
        RANGE BETWEEN INTERVAL '14 days' PRECEDING AND CURRENT ROW) AS unusual_14d,
    max(twice) OVER (PARTITION BY card ORDER BY event_time
        RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW) AS max_twice
FROM base",
    ),
    (
        "layers_2.sql",
        "
SELECT
    sum(unusual_14d) OVER (PARTITION BY merchant_id ORDER BY event_time
        RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW) AS unusual_here,
    count(DISTINCT unusual_14d) OVER (ORDER BY event_time
        RANGE BETWEEN INTERVAL '3 days' PRECEDING AND INTERVAL '1 day' PRECEDING) AS kinds_of_unusual,
    unusual_14d + card_usual AS mixed
FROM transactions",
    ),
];

/// Windows that ask what events turned out to be.
const LABELLED: [(&str, &str); 2] = [
    (
        "labelled_1.sql",
        "
SELECT
    count(*) FILTER (WHERE fraud) OVER late AS frauds_late,
    count(*) FILTER (WHERE fraud) OVER day AS frauds_day,
    count(*) FILTER (WHERE NOT fraud) OVER day AS legit_day,
    count(*) FILTER (WHERE fraud IS NULL) OVER late AS unknown_late,
    count(reporting_amount_minor) FILTER (WHERE fraud IS NOT TRUE AND amount_minor > 400) OVER day AS large_not_fraud,
    sum(amount_minor) FILTER (WHERE fraud) OVER late AS lost_late,
    sum(lat) FILTER (WHERE fraud IS NOT FALSE) OVER day AS south_of_all,
    avg(reporting_amount_minor) FILTER (WHERE NOT fraud) OVER late AS usual_late,
    avg(amount_minor) FILTER (WHERE CASE WHEN fraud IS NULL THEN amount_minor % 2 = 0 ELSE fraud END) OVER day
        AS mixed_avg,
    count(*) FILTER (WHERE fraud) OVER (ORDER BY event_time
        RANGE BETWEEN INTERVAL '3 days' PRECEDING AND CURRENT ROW) AS frauds_everywhere,
    CASE WHEN count(*) OVER late > 0
         THEN 1.0 * count(*) FILTER (WHERE fraud) OVER late / count(*) OVER late END AS risk
FROM transactions
WINDOW
    late AS (PARTITION BY card ORDER BY event_time
             RANGE BETWEEN INTERVAL '2 days' PRECEDING AND INTERVAL '1 hour' PRECEDING),
    day  AS (PARTITION BY merchant_id, bin ORDER BY event_time
             RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW)",
    ),
    (
        "labelled_2.sql",
        "
WITH base AS (
    SELECT *, count(*) FILTER (WHERE fraud) OVER (PARTITION BY card ORDER BY event_time
                 RANGE BETWEEN INTERVAL '10 days' PRECEDING AND CURRENT ROW) AS frauds
    FROM transactions
)
SELECT
    max(frauds) OVER (PARTITION BY merchant_id ORDER BY event_time
        RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW) AS worst_card,
    count(*) FILTER (WHERE fraud AND frauds > 0) OVER (PARTITION BY card ORDER BY event_time
        RANGE BETWEEN INTERVAL '5 days' PRECEDING AND CURRENT ROW) AS again
FROM base",
    ),
];

/// The same of several frames that end together: how far back each begins, and all end.
fn of_each(key: &str, begins: &[&str], end: &str, aggregates: &[&str]) -> String {
    let when = if end == "CURRENT ROW" { "now" } else { "late" };
    let column = |(frame, (index, aggregate)): (usize, (usize, &&str))| {
        format!("{aggregate} OVER frame_{frame} AS {key}_{when}_{frame}_{index}")
    };
    let of_frame = |frame: usize| aggregates.iter().enumerate().map(move |of| (frame, of));
    let columns: Vec<_> = (0..begins.len()).flat_map(of_frame).map(column).collect();
    let window = |(frame, begin): (usize, &&str)| {
        format!(
            "frame_{frame} AS (PARTITION BY {key} ORDER BY event_time \
             RANGE BETWEEN INTERVAL '{begin}' PRECEDING AND {end})"
        )
    };
    let windows: Vec<_> = begins.iter().enumerate().map(window).collect();
    format!("SELECT {} FROM transactions WINDOW {}", columns.join(", "), windows.join(", "))
}

/// More counts than run side by side, conditions, and frames of which another file keeps more.
const COUNTS: [&str; 6] = [
    "count(*)",
    "sum(reporting_amount_minor)",
    "count(*) FILTER (WHERE amount_minor > 400)",
    "count(reporting_amount_minor)",
    "count(device_id)",
    "avg(amount_minor) FILTER (WHERE ip IS NULL)",
];

/// More frames than run side by side.
const MANY: [&str; 10] = [
    "1 minute",
    "10 minutes",
    "30 minutes",
    "3 hours",
    "6 hours",
    "12 hours",
    "3 days",
    "5 days",
    "8 days",
    "20 days",
];

/// What labels change, and what they do not.
const OUTCOMES: [&str; 3] =
    ["count(*)", "count(*) FILTER (WHERE fraud)", "sum(amount_minor) FILTER (WHERE fraud IS NOT TRUE)"];

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

/// Verdicts on rows of a stream of `n`: most come soon, some late, some twice or with another outcome.
fn verdicts(n: usize) -> impl Strategy<Value = Vec<Verdict>> {
    let after = prop_oneof![4 => 1..4_usize, 2 => 1..40_usize, 1 => Just(usize::MAX)];
    prop::collection::vec((0..n, after, any::<bool>()), 0..n.min(60)).prop_map(move |list| {
        let verdict = |(of, after, fraud): (usize, usize, bool)| Verdict {
            at: of.saturating_add(after).min(n),
            of,
            fraud,
        };
        let mut list: Vec<Verdict> = list.into_iter().map(verdict).collect();
        list.sort_by_key(|v| v.at);
        list
    })
}

fn stream() -> impl Strategy<Value = (Vec<Sketch>, Vec<Verdict>, Vec<usize>)> {
    (1..220_usize).prop_flat_map(|n| {
        let cuts = prop::collection::vec(0..n, 0..8).prop_map(|mut cuts| {
            cuts.sort_unstable();
            cuts
        });
        (prop::collection::vec(sketch(), n), verdicts(n), cuts)
    })
}

fn files() -> Vec<(String, String)> {
    let built_in = RulesetSource::built_in().features.into_iter().map(|f| (f.name, f.text));
    let here = [("everything.sql", EVERYTHING), ("history.sql", HISTORY)];
    let here = here.into_iter().chain(LAYERS).map(|(name, text)| (name.to_owned(), text.to_owned()));
    let frames = [
        of_each("card", &["90 minutes", "1 day", "9 days", "35 days"], "CURRENT ROW", &COUNTS),
        of_each("ip", &["2 hours", "2 days", "12 days"], "INTERVAL '1 hour' PRECEDING", &COUNTS),
        of_each("device_id", &MANY, "CURRENT ROW", &["count(*)"]),
    ];
    let frames = (0..).zip(frames).map(|(number, text)| (format!("frames_{number}.sql"), text));
    built_in.chain(here).chain(frames).collect()
}

/// As [`files`], of those in which no key is known for ever: numbers are given to others as frames are left.
fn forgetful_files() -> Vec<(String, String)> {
    files().into_iter().filter(|(_, text)| text != HISTORY).collect()
}

fn labelled_files() -> Vec<(String, String)> {
    let frames = [
        of_each("card", &["3 hours", "3 days", "12 days"], "INTERVAL '1 hour' PRECEDING", &OUTCOMES),
        of_each("merchant_id", &["2 hours", "1 day", "3 days"], "CURRENT ROW", &OUTCOMES),
    ];
    let frames = (0..).zip(frames).map(|(number, text)| (format!("frames_{number}.sql"), text));
    LABELLED.map(|(name, text)| (name.to_owned(), text.to_owned())).into_iter().chain(frames).collect()
}

/// Holds features equal to batch SQL, and returns them with [`SPREADS`].
fn check(
    files: &[(String, String)],
    list: &[events::Transaction],
    verdicts: &[Verdict],
    cuts: &[usize],
    restore: bool,
) -> RecordBatch {
    let named: Vec<_> = files.iter().map(|(n, t)| (n.as_str(), t.as_str())).collect();
    let ruleset = ruleset(&[named.as_slice(), &[("spreads.sql", SPREADS)]].concat());
    let found = incremental(&ruleset, list, verdicts, cuts, restore);
    let known = known(list, verdicts);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for (name, sql) in &named {
        let file = SourceFile { name: (*name).to_owned(), text: (*sql).to_owned() };
        assert_same(&runtime.block_on(oracle(&file, &found, &known)), &found, name);
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn incremental_windows_equal_batch_sql_on_random_streams(
        (sketches, verdicts, cuts) in stream(),
        restore: bool,
        forgetful: bool,
    ) {
        let files = if forgetful { forgetful_files() } else { files() };
        let found = check(&files, &transactions(&sketches), &verdicts, &cuts, restore);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert_same(&runtime.block_on(query(SPREADS_AS_JOIN, &found)), &found, "spreads.sql");
    }
}

/// What looks at all of a key's history, which ends with a silence.
fn mortal(name: &str, expiry: &str) -> String {
    format!(
        "-- EXPIRE KEYS AFTER INTERVAL '{expiry}'
        SELECT count(*) OVER card AS {name}_seen, lag(amount_minor) OVER card AS {name}_before,
               lag(reporting_amount_minor) OVER card AS {name}_before_it, lag(amount_minor, 2) OVER card AS {name}_second,
               sum(amount_minor) OVER (PARTITION BY card ORDER BY event_time
                   ROWS BETWEEN 3 PRECEDING AND CURRENT ROW) AS {name}_sum_4,
               lag(amount_minor) OVER (PARTITION BY merchant_id, bin ORDER BY event_time) AS {name}_there
        FROM transactions WINDOW card AS (PARTITION BY card ORDER BY event_time)"
    )
}

/// The same in plain SQL: each life of a key is a partition of its own. In hours, since DataFusion compares an interval
/// in days with what lies between two times as if any day were longer than all hours.
fn lives(name: &str, expiry: &str) -> String {
    let life = |key: &str, of: &str| {
        format!(
            "SELECT *, sum(anew) OVER (PARTITION BY {key} ORDER BY event_time) AS {of}_life FROM (
            SELECT *, CASE WHEN event_time - lag(event_time) OVER (PARTITION BY {key} ORDER BY event_time)
                       > INTERVAL '{expiry}' THEN 1 ELSE 0 END AS anew FROM "
        )
    };
    format!(
        "WITH cards AS ({} transactions)), places AS ({} (SELECT * EXCEPT (anew) FROM cards)))
        SELECT event_time, count(*) OVER card AS {name}_seen, lag(amount_minor) OVER card AS {name}_before,
               lag(reporting_amount_minor) OVER card AS {name}_before_it, lag(amount_minor, 2) OVER card AS {name}_second,
               sum(amount_minor) OVER (PARTITION BY card, card_life ORDER BY event_time
                   ROWS BETWEEN 3 PRECEDING AND CURRENT ROW) AS {name}_sum_4,
               lag(amount_minor) OVER (PARTITION BY merchant_id, bin, place_life ORDER BY event_time) AS {name}_there
        FROM places WINDOW card AS (PARTITION BY card, card_life ORDER BY event_time)",
        life("card", "card"),
        life("merchant_id, bin", "place"),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn histories_end_with_a_silence_on_random_streams((sketches, _, cuts) in stream(), restore: bool) {
        let lived = [("hours", "3 hours"), ("day", "24 hours"), ("month", "720 hours")];
        let files = lived.map(|(name, expiry)| (format!("{name}.sql"), mortal(name, expiry)));
        let files: Vec<_> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        let found = incremental(&ruleset(&files), &transactions(&sketches), &[], &cuts, restore);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        for (name, expiry) in lived {
            assert_same(&runtime.block_on(query(&lives(name, expiry), &found)), &found, name);
        }
    }
}

proptest! {
    // Planning the batch queries takes long.
    #![proptest_config(ProptestConfig::with_cases(20))]

    #[test]
    fn labels_change_windows_as_batch_sql_says_on_random_streams((sketches, verdicts, cuts) in stream(), restore: bool) {
        check(&labelled_files(), &transactions(&sketches), &verdicts, &cuts, restore);
    }
}

/// More events become old at once than a tail passes at a time, of keys that others then have the numbers of.
#[test]
fn a_long_silence_is_worked_off_in_parts() {
    let sketch = |i: usize| Sketch {
        gap_us: if i == 18_000 { 60 * DAY } else { SECOND },
        card: u8::try_from(i % 50 + i / 18_000 * 20).unwrap(),
        merchant: u8::try_from(i % 3).unwrap(),
        amount_minor: i64::try_from(i * 31 % 40_000).unwrap() + 1,
        ip: (!i.is_multiple_of(5)).then(|| u8::try_from(i % 7).unwrap()),
        device: (!i.is_multiple_of(4)).then(|| u8::try_from(i % 9).unwrap()),
        place: None,
    };
    let list = transactions(&(0..18_300).map(sketch).collect::<Vec<_>>());
    let verdicts: Vec<_> =
        [18_000, 18_001, 18_100].map(|at| Verdict { at, of: 17_990, fraud: at != 18_001 }).into();
    for cuts in [&[18_000, 18_001][..], &[9_000]] {
        check(&forgetful_files(), &list, &verdicts, cuts, true);
    }
}

/// Before each of some rows fewer events leave than a step may have, and before all of them more.
#[test]
fn rows_before_which_many_events_leave_are_taken_few_at_a_time() {
    let sketch = |i: usize| Sketch {
        gap_us: if i < 18_000 { SECOND } else { 600 * SECOND },
        card: u8::try_from(i * 7 % 50).unwrap(),
        merchant: u8::try_from(i % 3).unwrap(),
        amount_minor: i64::try_from(i * 31 % 40_000).unwrap() + 1,
        ip: (!i.is_multiple_of(5)).then(|| u8::try_from(i % 7).unwrap()),
        device: (!i.is_multiple_of(4)).then(|| u8::try_from(i % 9).unwrap()),
        place: None,
    };
    let list = transactions(&(0..18_200).map(sketch).collect::<Vec<_>>());
    let verdicts: Vec<_> = [18_010, 18_100].map(|at| Verdict { at, of: 17_990, fraud: at != 18_100 }).into();
    for cuts in [&[18_020, 18_021][..], &[9_000]] {
        check(&forgetful_files(), &list, &verdicts, cuts, true);
    }
}

/// Long enough for segments to be sealed, read again, forgotten and restored from.
#[test]
fn incremental_windows_equal_batch_sql_over_many_segments() {
    let list: Vec<_> = (0..30_000_usize)
        .map(|i| Sketch {
            gap_us: i64::try_from(i * 7_919 % 600).unwrap() * SECOND,
            card: u8::try_from(i * i % 251).unwrap(),
            merchant: u8::try_from(i % 3).unwrap(),
            amount_minor: i64::try_from(i * 31 % 40_000).unwrap() + 1,
            ip: (!i.is_multiple_of(5)).then(|| u8::try_from(i % 7).unwrap()),
            device: (!i.is_multiple_of(4)).then(|| u8::try_from(i % 9).unwrap()),
            place: (i % 6 != 0).then(|| (u8::try_from(i % 2).unwrap(), 10.0 * (i % 3) as f64)),
        })
        .collect();
    let verdicts: Vec<_> = (1..30_000_usize)
        .filter(|at| at % 50 == 0)
        .map(|at| Verdict { at, of: at - 1 - at * 7 % at.min(3_000), fraud: at % 3 != 0 })
        .collect();
    let named = |prefix: &str, files: Vec<(String, String)>| -> Vec<(String, String)> {
        files.into_iter().map(|(name, text)| (format!("{prefix}_{name}"), text)).collect()
    };
    let all = [files(), named("labelled", labelled_files())].concat();
    check(&all, &transactions(&list), &verdicts, &[100, 8_191, 8_192, 8_193, 20_000, 29_000], true);
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
    let found = incremental(&ruleset(&[("n.sql", sql)]), &list, &[], &[], false);
    let counts = datafusion::arrow::array::AsArray::as_primitive::<datafusion::arrow::datatypes::Int64Type>(
        found.column_by_name("n").unwrap(),
    );
    assert_eq!(counts.values(), &[1, 2, 3, 3], "an hour ago is in; an hour and a microsecond ago is out");
}
