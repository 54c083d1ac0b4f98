//! What is not supported is refused at load, with its place and the reason.

use scoring::{Ruleset, RulesetSource, SourceFile};

const PACK: &str = "version: 1\nthresholds: {review: 65, decline: 75}\nrules: []";

fn load(sql: &str, rules: &str) -> String {
    let source = RulesetSource {
        features: vec![SourceFile { name: "f.sql".into(), text: sql.into() }],
        rules: vec![SourceFile { name: "r.yaml".into(), text: rules.into() }],
        lists: Vec::new(),
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

fn with_lists(lists: &str, when: &str) -> Result<Ruleset, String> {
    let rules = format!(
        "version: 1\nthresholds: {{}}\nrules:\n  - {{id: a, when: \"{when}\", points: 1, severity: low, reason: x, \
         message: m, observed: 1, limit: 1}}"
    );
    let source = RulesetSource {
        features: Vec::new(),
        rules: vec![SourceFile { name: "r.yaml".into(), text: rules }],
        lists: vec![SourceFile { name: "l.yaml".into(), text: lists.into() }],
    };
    Ruleset::load(&source).map_err(|e| e.to_string())
}

const LISTS: &str = "version: 1
lists:
  - {id: cards, kind: card, description: Cards}
  - {id: words, kind: text, description: Words, entries: [one, '2', {value: three, expires_at: '2027-01-31T00:00:00Z'}]}
  - {id: places, kind: country, description: Places, entries: [NO, de]}
  - {id: ranges, kind: bin, description: Ranges, entries: [411111, 222100-272099]}";

#[test]
fn everything_wrong_with_lists_is_said_at_once() {
    let error = with_lists(
        "version: 1
lists:
  - {id: Cards, kind: card, description: Cards}
  - {id: ips, kind: ip, description: ' ', entries: [10.0.0.1/8, 10.0.0.0/33, 300.1.1.1, ok]}
  - {id: ips, kind: bin, description: d, entries: [4, 411111-4, 42-41, {value: 41, expires_at: tomorrow}]}
  - {id: words, kind: text, description: d, entries: [7]}",
        "true",
    )
    .unwrap_err();
    for expected in [
        "l.yaml: lists.Cards.id: must be 1 to 64 of a-z",
        "lists.ips.description",
        "lists.ips.entries[0]: must be an IPv4 or IPv6 address",
        "lists.ips.entries[1]",
        "lists.ips.entries[2]",
        "lists.ips.id: is used twice",
        "lists.ips.entries[0]: must be 2 to 8 digits",
        "lists.ips.entries[1]: must be 2 to 8 digits",
        "lists.ips.entries[2]: must be 2 to 8 digits",
        "lists.ips.entries[3].expires_at: must be a time with its zone",
        "lists.words.entries[0]: is a number and must be text: put it in quotes",
    ] {
        assert!(error.contains(expected), "{expected} in\n{error}");
    }
    for (lists, place, says) in [
        ("version: 2\nlists: []", "l.yaml:", "version: 2 is unknown"),
        ("version: 1\nlists:\n  - id: a\n    knd: card\n", "l.yaml:4:", "knd"),
        ("version: 1\nlists:\n  - {id: a, kind: colour, description: d}", "l.yaml:3:", "colour"),
        (
            "version: 1\nlists:\n  - {id: a, kind: ip, description: d, entries: [{valu: x}]}",
            "l.yaml:3:",
            "an entry must be a text",
        ),
    ] {
        let error = with_lists(lists, "true").unwrap_err();
        assert!(error.starts_with(place) && error.contains(says), "{lists}\n→ {error}");
    }
}

#[test]
fn a_call_of_in_list_that_could_never_match_is_refused_with_what_to_write() {
    for (when, says) in [
        ("in_list('cards', card)", ""),
        ("in_list('places', billing_country) OR NOT in_list('words', lower(customer_id))", ""),
        ("in_list('card', card)", "no list `card` is declared"),
        ("in_list('card', card)", "one of: cards, words, places, ranges"),
        ("in_list(card, 'cards')", "write in_list('list', expression)"),
        ("in_list('cards')", "write in_list('list', expression)"),
        ("in_list()", "in_list"),
        ("in_list('words', amount_minor)", "`amount_minor` is Int64, and in_list() asks about text"),
        ("in_list('cards', email)", "write card"),
        ("in_list('words', CASE WHEN in_list('cards', card) THEN 'a' END)", "in_list() within in_list()"),
        ("in_list('words', no_such_column)", "no_such_column"),
        ("in_list('words', CAST(now() AS VARCHAR))", "now() gives another answer"),
    ] {
        match with_lists(LISTS, when) {
            Ok(_) => assert!(says.is_empty(), "{when} is taken"),
            Err(error) => {
                assert!(
                    !says.is_empty() && error.contains("rules.a.when") && error.contains(says),
                    "{when}\n→ {error}"
                );
            }
        }
    }
}

#[test]
fn a_list_in_feature_sql_is_refused() {
    let error = refused(
        "SELECT count(*) FILTER (WHERE in_list('block_card', card)) OVER (PARTITION BY ip ORDER BY event_time \
         RANGE BETWEEN INTERVAL '1 day' PRECEDING AND CURRENT ROW) AS n FROM transactions",
    );
    assert!(error.starts_with("f.sql:1:") && error.contains("in_list() is for rules"), "{error}");
}

#[test]
fn lists_are_part_of_the_rulesets_hash() {
    let hash = |lists: &str| with_lists(lists, "true").unwrap().hash().to_owned();
    assert_ne!(hash(LISTS), hash(&LISTS.replace("[NO, de]", "[NO]")));
    assert_eq!(hash(LISTS), hash(LISTS));
}
