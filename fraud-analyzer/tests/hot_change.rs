//! Another ruleset while transactions flow: at an exact place, over the right state, whatever crashes.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use eventlog::{EmbeddedLog, EventLog, NewRecord};
use events::{Decided, Label, LabelSource, Message as _, Verdict, topics};
use fraud_analyzer::{Analyzer, ReloadError, RulesetStatus};
use prometheus::Registry;
use scoring::{Ruleset, RulesetSource, SourceFile};
use support::{
    assert_each_once, decided, eventually, open_log, ruleset, start_with, stop, submit, topic, uninterrupted,
};

/// The built-in ruleset with other points.
fn other_rules() -> Ruleset {
    let mut source = RulesetSource::built_in();
    source.rules[0].text = source.rules[0].text.replace("points: 35", "points: 36");
    Ruleset::load(&source).unwrap()
}

/// The built-in ruleset and a rule over a window that it does not have, which asks for labels.
fn other_windows(seconds: u32) -> Ruleset {
    let mut source = RulesetSource::built_in();
    let text = format!(
        "SELECT count(*) OVER lately AS card_lately, count(*) FILTER (WHERE fraud) OVER lately AS card_frauds \
         FROM transactions WINDOW lately AS (PARTITION BY card ORDER BY event_time \
         RANGE BETWEEN INTERVAL '{seconds} seconds' PRECEDING AND CURRENT ROW)"
    );
    source.features.push(SourceFile { name: "zz_lately.sql".into(), text });
    let rule = |id: &str, when: &str, observed: &str| {
        format!(
            "  - {{id: {id}, when: '{when}', points: 1, severity: low, reason: r, message: '{{observed}}', \
             observed: {observed}, limit: 0}}\n"
        )
    };
    let rules =
        rule("lately", "card_lately > 2", "card_lately") + &rule("frauds", "card_frauds > 0", "card_frauds");
    let text = format!("version: 1\nrules:\n{rules}");
    source.rules.push(SourceFile { name: "zz_lately.yaml".into(), text });
    Ruleset::load(&source).unwrap()
}

async fn reload(analyzer: &Analyzer, ruleset: Ruleset) -> RulesetStatus {
    analyzer.rulesets.reload(move || Ok(ruleset)).await.unwrap()
}

async fn in_force(analyzer: &Analyzer, ruleset: &Ruleset) -> RulesetStatus {
    eventually("the ruleset is in force", async || {
        analyzer.rulesets.status().filter(|status| status.ruleset == ruleset.hash())
    })
    .await
}

async fn all_decided(log: &EmbeddedLog, n: usize) {
    eventually("all are decided", async || {
        let mut decided = 0;
        for partition in 0..log.partitions(topics::DECIDED).unwrap() {
            decided += log.bounds(topics::DECIDED, partition).await.unwrap().1;
        }
        (decided == n as u64).then_some(())
    })
    .await;
}

/// Labels some of what was decided.
async fn label(log: &EmbeddedLog, decided: &[Decided]) {
    let record = |d: &Decided| {
        let label = Label {
            transaction_id: d.transaction.id,
            merchant_id: d.transaction.merchant_id.clone(),
            verdict: if d.seq.is_multiple_of(3) { Verdict::Fraud } else { Verdict::Legit },
            source: LabelSource::Analyst,
            labelled_at_us: 0,
            window_time_us: d.decision.window_time_us,
            source_partition: d.source_partition,
            note: None,
        };
        let value = label.encode().into();
        NewRecord {
            topic: topics::LABELLED,
            value,
            ..support::record(&d.transaction.id.to_string(), Vec::new())
        }
    };
    log.append(decided.iter().step_by(5).map(record).collect()).await.unwrap();
}

/// Decisions carry the one hash before a place and the other from there on, without a gap.
fn assert_changed_at(decided: &[Decided], before: &Ruleset, after: &Ruleset, from_seq: u64) {
    for d in decided {
        let expected = if d.seq < from_seq { before } else { after };
        assert_eq!(&*d.decision.ruleset, expected.hash(), "{}, changed at {from_seq}", d.seq);
    }
}

fn assert_same(found: &[Decided], expected: &[events::Decision]) {
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(&found.decision, expected, "{}", found.seq);
    }
}

fn mismatches(registry: &Registry) -> u64 {
    let families = registry.gather();
    let family = families.iter().find(|f| f.name() == "paystream_analyzer_replay_mismatches_total").unwrap();
    family.get_metric()[0].get_counter().get_value() as u64
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).into_iter().flatten().flatten() {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &to);
        } else {
            // What is replaced or removed meanwhile is missing, as after a crash.
            let _ = fs::copy(path, to);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn other_rules_decide_from_an_exact_place_on_over_the_same_windows() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_log(dir.path());
    let (before, after) = (ruleset(), other_rules());
    let analyzer = start_with(before.clone(), &log, dir.path(), &Registry::new());
    submit(&*log, 0..1_000).await;
    let flow = tokio::spawn({
        let log = Arc::clone(&log);
        async move { submit(&*log, 1_000..3_000).await }
    });
    eventually("some are decided", async || (decided(&*log).await.len() > 500).then_some(())).await;
    let status = reload(&analyzer, after.clone()).await;
    assert_eq!((status.ruleset.as_str(), &status.warm_up), (after.hash(), &None));
    assert_eq!(reload(&analyzer, after.clone()).await, status, "the same once more changes nothing");
    flow.await.unwrap();
    all_decided(&log, 3_000).await;
    stop(analyzer).await;

    // Recovered from a checkpoint under the first, and from none.
    for (lost, n) in [(false, 3_500), (true, 4_000)] {
        if lost {
            fs::remove_dir_all(dir.path().join("analyzer/lane-0-of-1")).unwrap();
        }
        let registry = Registry::new();
        let analyzer = start_with(after.clone(), &log, dir.path(), &registry);
        submit(&*log, n - 500..n).await;
        all_decided(&log, n).await;
        stop(analyzer).await;
        assert_eq!(mismatches(&registry), 0);
    }
    let decided = decided(&*log).await;
    assert_each_once(&decided, 4_000);
    let at = usize::try_from(status.from_seq).unwrap();
    assert!((500..=3_000).contains(&at), "an exact place among them: {at}");
    assert_changed_at(&decided, &before, &after, status.from_seq);
    let (one, other) = (uninterrupted(before, &decided), uninterrupted(after, &decided));
    assert_same(&decided[..at], &one[..at]);
    assert_same(&decided[at..], &other[at..]);
    let differ = one[at..].iter().zip(&other[at..]).any(|(one, other)| one.reasons != other.reasons);
    assert!(differ, "the points must matter");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_windows_take_over_when_they_are_warm_and_every_crash_comes_back_to_the_same_decisions() {
    const WARMED: usize = 40_000;
    let dir = tempfile::tempdir().unwrap();
    let (state, snapshots) = (dir.path().join("analyzer/lane-0-of-1"), dir.path().join("snapshots"));
    let log = open_log(dir.path());
    let (before, after) = (ruleset(), other_windows(900));
    let registry = Registry::new();
    let analyzer = start_with(before.clone(), &log, dir.path(), &registry);
    submit(&*log, 0..1_000).await;
    all_decided(&log, 1_000).await;
    label(&log, &decided(&*log).await).await;
    submit(&*log, 1_000..WARMED - 3_000).await;
    all_decided(&log, WARMED - 3_000).await;
    label(&log, &decided(&*log).await[WARMED - 6_000..]).await;
    copy(&state, &snapshots.join("before"));
    let flow = tokio::spawn({
        let log = Arc::clone(&log);
        async move { submit(&*log, WARMED - 3_000..WARMED).await }
    });
    let answer = reload(&analyzer, after.clone()).await;
    let warm_up = answer.warm_up.expect("its windows are not there yet");
    assert_eq!((answer.ruleset.as_str(), warm_up.ruleset.as_str()), (before.hash(), after.hash()));
    let second = state.join("generation-000002");
    eventually("a checkpoint of the warm-up", async || {
        fs::read_dir(&second).ok()?.flatten().find(|e| e.file_name().to_string_lossy().ends_with(".bin"))
    })
    .await;
    copy(&state, &snapshots.join("during"));
    let status = in_force(&analyzer, &after).await;
    copy(&state, &snapshots.join("just after"));
    assert_eq!((&status.warm_up, status.warming_rules.len()), (&None, 0));
    flow.await.unwrap();
    submit(&*log, WARMED..WARMED + 500).await;
    all_decided(&log, WARMED + 500).await;
    stop(analyzer).await;
    assert_eq!(mismatches(&registry), 0);
    assert!(!state.join("generation-000001").exists(), "the windows before are removed");
    copy(&state, &snapshots.join("stopped"));

    let mut n = WARMED + 500;
    for snapshot in ["before", "during", "just after", "stopped", "lost"] {
        fs::remove_dir_all(&state).unwrap();
        copy(&snapshots.join(snapshot), &state);
        let registry = Registry::new();
        let analyzer = start_with(after.clone(), &log, dir.path(), &registry);
        submit(&*log, n..n + 100).await;
        n += 100;
        all_decided(&log, n).await;
        stop(analyzer).await;
        assert_eq!(mismatches(&registry), 0, "{snapshot}");
        assert_eq!(fs::read_dir(&state).unwrap().count(), 1, "{snapshot}: one generation is left");
    }
    let decided = decided(&*log).await;
    assert_each_once(&decided, n);
    assert_changed_at(&decided, &before, &after, status.from_seq);
    let at = usize::try_from(status.from_seq).unwrap();
    assert_same(&decided[..at], &uninterrupted(before, &decided)[..at]);
    assert!(
        decided[at..].iter().any(|d| d.decision.reasons.iter().any(|r| &*r.rule == "frauds")),
        "labels count"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_up_gives_way_to_the_next_reload_and_a_refused_one_leaves_everything() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_log(dir.path());
    let before = ruleset();
    let analyzer = start_with(before.clone(), &log, dir.path(), &Registry::new());
    submit(&*log, 0..20_000).await;
    all_decided(&log, 20_000).await;

    reload(&analyzer, other_windows(60)).await;
    let back = reload(&analyzer, before.clone()).await;
    assert_eq!((back.ruleset.as_str(), &back.warm_up), (before.hash(), &None));
    let error = analyzer.rulesets.reload(|| anyhow::bail!("rules.yaml:3: wrong")).await.unwrap_err();
    assert!(
        matches!(&error, ReloadError::Refused(_)) && error.to_string().contains("rules.yaml:3"),
        "{error}"
    );
    assert_eq!(analyzer.rulesets.status().unwrap(), back);

    reload(&analyzer, other_windows(60)).await;
    let replaced = reload(&analyzer, other_windows(90)).await;
    assert_eq!(replaced.warm_up.unwrap().ruleset, other_windows(90).hash());
    let status = in_force(&analyzer, &other_windows(90)).await;
    submit(&*log, 20_000..20_300).await;
    all_decided(&log, 20_300).await;
    stop(analyzer).await;
    let decided = decided(&*log).await;
    assert_changed_at(&decided, &before, &other_windows(90), status.from_seq);
    let at = usize::try_from(status.from_seq).unwrap();
    assert_same(&decided[at..], &uninterrupted(other_windows(90), &decided)[at..]);
    let left = fs::read_dir(dir.path().join("analyzer/lane-0-of-1")).unwrap().count();
    assert_eq!(left, 1, "what gave way is removed");
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_wait_while_the_log_does_not_reach_back_far_enough() {
    const KEPT_FROM: u64 = 1_000;
    let whole = tempfile::tempdir().unwrap();
    let source = open_log(whole.path());
    let analyzer = start_with(ruleset(), &source, whole.path(), &Registry::new());
    // Step by step, so that all partitions are about as far when the thousandth is decided.
    for to in (100..=2_000).step_by(100) {
        submit(&*source, to - 100..to).await;
        all_decided(&source, to).await;
    }
    stop(analyzer).await;

    // The same log, without the first decisions: as retention would leave it.
    let dir = tempfile::tempdir().unwrap();
    let log = open_log(dir.path());
    submit(&*log, 0..2_000).await;
    let kept = topic(&*source, topics::DECIDED).await;
    let kept = kept.into_iter().filter(|r| Decided::decode(&r.value).unwrap().seq >= KEPT_FROM);
    let again = |r: eventlog::LoggedRecord| NewRecord {
        topic: topics::DECIDED,
        key: r.key,
        value: r.value,
        headers: r.headers,
        timestamp_ms: r.timestamp_ms,
    };
    log.append(kept.map(again).collect()).await.unwrap();
    // A quarter of a second between two transactions: 300 seconds are 1,200 of them.
    let ruleset = other_windows(300);
    let analyzer = start_with(ruleset.clone(), &log, dir.path(), &Registry::new());
    let status = in_force(&analyzer, &ruleset).await;
    let first_us = decided(&*source).await[1_000].decision.window_time_us;
    let waiting = status.warming_rules.iter().find(|w| w.rule == "lately").unwrap();
    assert_eq!(waiting.warm_at_us, first_us + 300_000_000);
    submit(&*log, 2_000..2_100).await;
    all_decided(&log, 1_100).await;
    stop(analyzer).await;
    // Still known after a restart.
    let analyzer = start_with(ruleset.clone(), &log, dir.path(), &Registry::new());
    submit(&*log, 2_100..2_500).await;
    all_decided(&log, 1_500).await;
    eventually("the rule fires", async || {
        let status = analyzer.rulesets.status()?;
        (!status.warming_rules.iter().any(|w| w.rule == "lately")).then_some(())
    })
    .await;
    stop(analyzer).await;
    let decided = decided(&*log).await;
    let new: Vec<_> = decided.iter().filter(|d| &*d.decision.ruleset == ruleset.hash()).collect();
    assert_eq!(new.len(), 500);
    for d in new {
        let fired = d.decision.reasons.iter().any(|reason| &*reason.rule == "lately");
        let expected = d.decision.window_time_us >= first_us + 300_000_000;
        assert_eq!(fired, expected, "{}", d.seq);
    }
}
