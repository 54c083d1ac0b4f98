//! What is not supported is refused at load, with its place and the reason.

use scoring::{Ruleset, RulesetSource, SourceFile};

const PACK: &str = "version: 1\nthresholds: {review: 65, decline: 75}\nrules: []";

fn load(sql: &str, rules: &str) -> String {
    let source = RulesetSource {
        features: vec![SourceFile { name: "f.sql".into(), text: sql.into() }],
        rules: vec![SourceFile { name: "r.yaml".into(), text: rules.into() }],
    };
    Ruleset::load(&source).expect_err("it must be refused").to_string()
}

fn refused(sql: &str) -> String {
    load(sql, PACK)
}

#[test]
fn unsupported_sql_is_refused_with_file_line_and_reason() {
    const DAY: &str = "ORDER BY event_time RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW";
    let window = |call: &str| {
        format!("SELECT\n  count(*) OVER (PARTITION BY card {DAY}) AS ok,\n  {call} AS x\nFROM transactions")
    };
    let cases = [
        (window("row_number() OVER (PARTITION BY card ORDER BY event_time)"), "f.sql:3:", "incrementally"),
        (
            window(&format!("median(amount_minor) OVER (PARTITION BY card {DAY})")),
            "f.sql:3:",
            "incrementally",
        ),
        (
            window(
                "count(*) OVER (PARTITION BY card ORDER BY event_time ROWS BETWEEN 5 PRECEDING AND CURRENT ROW)",
            ),
            "f.sql:3:",
            "EXPIRE KEYS",
        ),
        (window("count(*) OVER (PARTITION BY card ORDER BY event_time)"), "f.sql:3:", "EXPIRE KEYS"),
        (window("lag(amount_minor) OVER (PARTITION BY card ORDER BY event_time)"), "f.sql:3:", "EXPIRE KEYS"),
        (
            window("lead(amount_minor) OVER (PARTITION BY card ORDER BY event_time)"),
            "f.sql:3:",
            "incrementally",
        ),
        (
            format!(
                "-- EXPIRE KEYS AFTER INTERVAL '9 days'\n{}",
                window("count(DISTINCT bin) OVER (PARTITION BY card ORDER BY event_time)")
            ),
            "f.sql:4:",
            "frame in time",
        ),
        (
            format!(
                "-- EXPIRE KEYS AFTER INTERVAL '9 days'\n{}",
                window("lag(amount_minor, 64) OVER (PARTITION BY card ORDER BY event_time)")
            ),
            "f.sql:4:",
            "63 rows",
        ),
        (
            format!(
                "-- EXPIRE KEYS AFTER INTERVAL '1 month'\n{}",
                window("count(*) OVER (PARTITION BY card ORDER BY event_time)")
            ),
            "f.sql:1:",
            "months",
        ),
        (
            window("first_value(amount_minor) IGNORE NULLS OVER (PARTITION BY card ORDER BY event_time)"),
            "f.sql:3:",
            "IGNORE NULLS",
        ),
        (window(&format!("first_value(currency) OVER (PARTITION BY card {DAY})")), "f.sql:3:", "Utf8"),
        (window("count(*) OVER (PARTITION BY card)"), "f.sql:3:", "ORDER BY event_time"),
        (
            window(
                "count(*) OVER (PARTITION BY card ORDER BY event_time DESC RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW)",
            ),
            "f.sql:3:",
            "ascending",
        ),
        (
            window(
                "count(*) OVER (PARTITION BY card ORDER BY event_time RANGE BETWEEN INTERVAL '1 day' PRECEDING AND INTERVAL '1 hour' FOLLOWING)",
            ),
            "f.sql:3:",
            "past the current row",
        ),
        (
            window(
                "count(*) OVER (PARTITION BY card ORDER BY event_time RANGE BETWEEN INTERVAL '1 month' PRECEDING AND CURRENT ROW)",
            ),
            "f.sql:3:",
            "months",
        ),
        (window(&format!("max(currency) OVER (PARTITION BY card {DAY})")), "f.sql:3:", "Utf8"),
        (
            window(&format!("sum(DISTINCT amount_minor) OVER (PARTITION BY card {DAY})")),
            "f.sql:3:",
            "DISTINCT",
        ),
        (window("date_part('hour', now())"), "f.sql:3:", "now() gives another answer"),
    ];
    for (sql, place, reason) in cases {
        let error = refused(&sql);
        assert!(
            error.starts_with(place) && error.contains(reason),
            "{sql}\n→ {error}\nexpected {place} … {reason}"
        );
    }
}

#[test]
fn other_shapes_of_query_are_refused() {
    let cases = [
        ("SELECT count(*) AS n FROM transactions", "one SELECT", "windows are over"),
        ("SELECT amount_minor AS a FROM transactions WHERE amount_minor > 1", "FILTER", "windows are over"),
        (
            "SELECT a.card AS b FROM transactions a JOIN transactions b ON a.card = b.card",
            "one SELECT",
            "JOIN",
        ),
        (
            "WITH t AS (SELECT median(lat) OVER (ORDER BY event_time RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW) AS a FROM transactions) SELECT a AS b FROM t",
            "f.sql:1:19",
            "incrementally",
        ),
        ("DELETE FROM transactions", "one SELECT", "windows are over"),
        ("SELECT amount_minor AS x FROM elsewhere", "elsewhere", "elsewhere"),
        ("SELECT amonut_minor AS x FROM transactions", "amonut_minor", "amonut_minor"),
        ("SELECT count(* OVER AS x FROM transactions", "f.sql:1:", "f.sql:1:"),
        ("SELECT amount_minor + 0 AS amount_minor FROM transactions", "already taken", "already taken"),
        ("SELECT amount_minor + 1 FROM transactions", "needs a name", "needs a name"),
    ];
    for (sql, one, other) in cases {
        let error = refused(sql);
        assert!(error.contains(one) || error.contains(other), "{sql}\n→ {error}");
    }
}

#[test]
fn everything_wrong_with_a_rule_pack_is_said_at_once() {
    let error = load(
        "SELECT amount_minor * 2 AS twice FROM transactions",
        "version: 1
thresholds: {review: 80, decline: 75}
rules:
  - {id: a, when: twicee > 1, points: 10, severity: low, reason: x, message: m, observed: 1, limit: 1}
  - {id: a, when: twice, points: 200, severity: low, reason: 'X y', message: m, observed: currency, limit: 1}
  - {id: c, when: now() > event_time, points: 1, severity: low, reason: x, message: m, observed: 1, limit: 1}",
    );
    for expected in [
        "thresholds",
        "rules.a.when",
        "twicee",
        "used twice",
        "rules.a.points",
        "rules.a.reason",
        "rules.a.observed",
        "must be true or false",
        "now() gives another answer",
    ] {
        assert!(error.contains(expected), "{expected} in\n{error}");
    }
}

#[test]
fn a_mistyped_key_in_a_rule_pack_names_its_line() {
    let error = load(
        "SELECT amount_minor * 2 AS twice FROM transactions",
        "version: 1\nthresholds: {review: 65}\nrules:\n  - id: a\n    wen: twice > 1\n",
    );
    assert!(error.starts_with("r.yaml:5:") && error.contains("wen"), "{error}");
}

#[test]
fn the_built_in_ruleset_loads_and_is_as_large_as_promised() {
    let ruleset = Ruleset::load(&RulesetSource::built_in()).unwrap_or_else(|e| panic!("{e}"));
    assert!(ruleset.feature_names().len() >= 12);
    assert!(ruleset.rule_ids().len() >= 12);
}
