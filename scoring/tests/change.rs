//! Another ruleset over the same state, and rules that wait until their windows are complete.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod support;

use events::{Decision, Transaction};
use scoring::{Ruleset, RulesetSource, Scorer, SourceFile, WarmingRule};
use support::{START_US, Sketch, batch, store, transactions};

const SECOND_US: i64 = 1_000_000;
const DAY_US: i64 = 86_400 * SECOND_US;

fn load(features: &str, rules: &str) -> Ruleset {
    let file = |name: &str, text: String| SourceFile { name: name.into(), text };
    let rules = format!("version: 1\nthresholds: {{review: 65}}\nrules:\n{rules}");
    let source = RulesetSource {
        features: vec![file("features.sql", features.to_owned())],
        rules: vec![file("rules.yaml", rules)],
        lists: Vec::new(),
    };
    Ruleset::load(&source).unwrap()
}

fn rule(id: &str, when: &str, mode: &str) -> String {
    format!(
        "  - {{id: {id}, when: '{when}', points: 10, severity: low, reason: r, message: m, observed: 1, limit: 1, mode: {mode}}}\n"
    )
}

/// One transaction a second, of two cards.
fn stream(n: usize) -> Vec<Transaction> {
    let sketch = |i: usize| Sketch {
        gap_us: SECOND_US,
        card: u8::try_from(i % 2).unwrap(),
        merchant: 0,
        amount_minor: i64::try_from(i % 13 * 100).unwrap(),
        ip: None,
        device: None,
        place: None,
    };
    transactions(&(0..n).map(sketch).collect::<Vec<_>>())
}

fn decide(scorer: &mut Scorer, list: &[Transaction], batch_rows: usize) -> Vec<Decision> {
    let batches = list.chunks(batch_rows).map(batch);
    batches.flat_map(|b| scorer.score(&b).unwrap()).map(|s| s.decision).collect()
}

const COUNTS: &str = "SELECT count(*) OVER minute AS in_minute, count(*) OVER ten AS in_ten FROM transactions
    WINDOW minute AS (PARTITION BY card ORDER BY event_time RANGE BETWEEN INTERVAL '1 minute' PRECEDING AND CURRENT ROW),
    ten AS (PARTITION BY card ORDER BY event_time RANGE BETWEEN INTERVAL '10 seconds' PRECEDING AND CURRENT ROW)";

fn counting() -> Ruleset {
    let rules = [
        rule("minute", "in_minute > 0", "live"),
        rule("ten", "in_ten > 0", "shadow"),
        rule("shown", "amount_minor >= 0 AND in_ten > 0", "live"),
        rule("amount", "amount_minor >= 0", "live"),
        rule("unused", "in_minute > 0", "off"),
    ];
    load(COUNTS, &rules.concat())
}

fn fired(decision: &Decision, rule: &str) -> bool {
    decision.reasons.iter().chain(&decision.shadow_reasons).any(|reason| &*reason.rule == rule)
}

#[test]
fn a_rule_fires_from_the_row_on_whose_windows_are_complete_however_the_stream_is_cut() {
    let list = stream(200);
    // The first ten are unknown.
    let late = |rows| {
        let mut scorer = Scorer::new(counting(), &store());
        scorer.begin_after(START_US + 10 * SECOND_US);
        decide(&mut scorer, &list[10..], rows)
    };
    let decisions = late(190);
    let first = |rule| 10 + decisions.iter().position(|d| fired(d, rule)).unwrap();
    // The second after the last one that is unknown, and the reach on top; row i is at second i + 1.
    let complete_us = START_US + 10 * SECOND_US + 1;
    let row_at = |us: i64| usize::try_from((us - START_US - 1) / SECOND_US).unwrap();
    assert_eq!(first("minute"), row_at(complete_us + 60 * SECOND_US));
    assert_eq!(first("ten"), row_at(complete_us + 10 * SECOND_US));
    assert_eq!(first("shown"), first("ten"));
    assert_eq!(first("amount"), 10);
    for rule in ["minute", "ten", "shown", "amount"] {
        assert!(decisions[first(rule) - 10..].iter().all(|d| fired(d, rule)), "{rule}");
    }
    for rows in [1, 7, 64] {
        assert_eq!(late(rows), decisions, "batches of {rows}");
    }
    let complete = decide(&mut Scorer::new(counting(), &store()), &list, 200);
    assert_eq!(decisions[first("minute") - 10..], complete[first("minute")..], "the same once all is known");
}

#[test]
fn rules_that_wait_are_listed_until_they_fire_also_after_a_restart() {
    let list = stream(100);
    let store = store();
    let mut scorer = Scorer::new(counting(), &store);
    assert_eq!(scorer.warming_rules(), [], "all there ever was is known");
    scorer.begin_after(START_US);
    let complete_us = START_US + 1;
    let waits =
        |rule: &str, s: i64| WarmingRule { rule: rule.into(), warm_at_us: complete_us + s * SECOND_US };
    let all = [waits("ten", 10), waits("shown", 10), waits("minute", 60)];
    assert_eq!(scorer.warming_rules(), all);
    decide(&mut scorer, &list[..11], 4);
    assert_eq!(scorer.warming_rules(), all[2..]);
    let mut restored = Scorer::restore(counting(), &store, &scorer.checkpoint().bytes).unwrap();
    assert_eq!(restored.warming_rules(), all[2..]);
    assert_eq!(decide(&mut restored, &list[11..], 9), decide(&mut scorer, &list[11..], 30));
    assert_eq!(restored.warming_rules(), []);
}

#[test]
fn the_reach_adds_up_through_layers_and_takes_what_a_window_is_made_of_alone() {
    let window = |partition: &str, days: u32| {
        format!(
            "(PARTITION BY {partition} ORDER BY event_time RANGE BETWEEN INTERVAL '{days} days' PRECEDING AND CURRENT ROW)"
        )
    };
    let features = format!(
        "WITH first AS (SELECT *, avg(amount_minor) OVER {month} AS usual, count(*) OVER {year} AS a_year \
         FROM transactions) \
         SELECT a_year, usual + 1 AS usual_1, amount_minor + 1 AS plain, \
         max(usual) OVER {fortnight} AS highest, \
         count(*) FILTER (WHERE usual > 5) OVER {fortnight} AS filtered, \
         count(*) OVER {fortnight} AS counted, \
         count(*) OVER {by_usual} AS by_usual FROM first",
        month = window("card", 30),
        year = window("card", 365),
        fortnight = window("card", 14),
        by_usual = window("CAST(usual AS BIGINT)", 7),
    );
    let expected = [
        ("plain", None),
        ("counted", Some(14)),
        ("usual_1", Some(30)),
        ("by_usual", Some(37)),
        ("highest", Some(44)),
        ("filtered", Some(44)),
        ("a_year", Some(365)),
    ];
    let rules: String = expected.iter().map(|(name, _)| rule(name, &format!("{name} > 0"), "live")).collect();
    let observed = "  - {id: seen, when: 'plain > 0', points: 1, severity: low, reason: r, message: m, observed: highest, limit: a_year}\n";
    let mut scorer = Scorer::new(load(&features, &(rules + observed)), &store());
    scorer.begin_after(-1);
    let found: Vec<_> = scorer.warming_rules().into_iter().map(|w| (w.rule, w.warm_at_us / DAY_US)).collect();
    let expected = expected.iter().filter_map(|(name, days)| Some(((*name).to_owned(), (*days)?)));
    let expected: Vec<_> = expected.chain([("seen".to_owned(), 365)]).collect();
    assert_eq!(found, expected);
}

#[test]
fn other_rules_and_expressions_over_the_same_windows_go_on_with_the_state() {
    let features = |columns: &str| {
        format!(
            "SELECT {columns} FROM transactions WINDOW minute AS (PARTITION BY card ORDER BY event_time \
             RANGE BETWEEN INTERVAL '1 minute' PRECEDING AND CURRENT ROW)"
        )
    };
    let before = load(
        &features(
            "sum(amount_minor) OVER minute AS spent, count(*) FILTER (WHERE amount_minor > 500) OVER minute AS large",
        ),
        &rule("spent", "spent > 9000", "live"),
    );
    // Other expressions, another order of columns, and an average of what was summed.
    let after = load(
        &features(
            "amount_minor * 2 AS twice, 1 + sum(amount_minor) OVER minute AS spent, \
             count(*) FILTER (WHERE amount_minor > 500) OVER minute AS large, \
             avg(amount_minor) OVER minute AS usual",
        ),
        &(rule("usual", "usual > 590 AND twice > 600", "live")
            + &rule("large", "large + spent > 9001", "live")),
    );
    assert!(after.has_windows_of(&before));
    let list = stream(20_000);
    let store = store();
    let mut scorer = Scorer::new(before.clone(), &store);
    let mut decisions = decide(&mut scorer, &list[..17_000], 512);
    assert!(scorer.adopt(after.clone()));
    decisions.extend(decide(&mut scorer, &list[17_000..18_500], 512));
    let mut restored = Scorer::restore(after.clone(), &store, &scorer.checkpoint().bytes).unwrap();
    decisions.extend(decide(&mut restored, &list[18_500..], 512));
    let whole =
        |ruleset: &Ruleset| decide(&mut Scorer::new(ruleset.clone(), &support::store()), &list, 4_096);
    assert_eq!(decisions[..17_000], whole(&before)[..17_000]);
    assert_eq!(decisions[17_000..], whole(&after)[17_000..]);
    assert!(decisions[17_000..].iter().any(|d| fired(d, "usual")));
    assert!(decisions[17_000..].iter().any(|d| !fired(d, "usual")));

    assert!(!restored.adopt(counting()), "other windows");
    assert_eq!(restored.ruleset().hash(), after.hash());
}
