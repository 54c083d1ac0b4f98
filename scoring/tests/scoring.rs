//! Decisions: independent of batching, equal after recovery, indifferent to hostile clocks and data.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod support;

use events::{Decision, Outcome, TestBehaviour, Transaction};
use scoring::{
    DecisionHash, Probe, RuleRun, Ruleset, RulesetSource, Scorer, SnapshotError, SourceFile, Stage,
};
use support::{Sketch, batch, store, transactions};

fn built_in() -> Ruleset {
    Ruleset::load(&RulesetSource::built_in()).unwrap()
}

fn stream(n: usize) -> Vec<Transaction> {
    let sketches: Vec<_> = (0..n)
        .map(|i| Sketch {
            gap_us: i64::try_from(i * 7_919 % 90_000_000).unwrap(),
            card: u8::try_from(i * i % 17).unwrap(),
            merchant: u8::try_from(i % 3).unwrap(),
            amount_minor: i64::try_from(i * 31 % 40_000).unwrap(),
            ip: (i % 5 != 0).then(|| u8::try_from(i % 7).unwrap()),
            device: (i % 4 != 0).then(|| u8::try_from(i % 9).unwrap()),
            place: Some((u8::try_from(i % 2).unwrap(), 10.0 * (i % 3) as f64)),
        })
        .collect();
    transactions(&sketches)
}

fn decide(scorer: &mut Scorer, list: &[Transaction], batch_rows: usize) -> Vec<Decision> {
    let batches = list.chunks(batch_rows).map(batch);
    batches.flat_map(|b| scorer.score(&b).unwrap()).map(|s| s.decision).collect()
}

fn hash(decisions: &[Decision]) -> String {
    let mut hash = DecisionHash::default();
    decisions.iter().for_each(|d| hash.add(d));
    hash.to_string()
}

#[test]
fn the_cut_into_batches_makes_no_difference() {
    let list = stream(3_000);
    let hashes: Vec<_> = [1, 7, 1_024, 3_000]
        .map(|rows| hash(&decide(&mut Scorer::new(built_in(), &store()), &list, rows)))
        .into();
    assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "{hashes:?}");
    let outcomes = decide(&mut Scorer::new(built_in(), &store()), &list, 500);
    assert!(outcomes.iter().any(|d| d.outcome != Outcome::Approve), "the stream must make rules match");
}

#[test]
fn a_restored_scorer_decides_as_the_one_that_never_stopped() {
    let list = stream(18_000);
    let uninterrupted = decide(&mut Scorer::new(built_in(), &store()), &list, 100);
    for cut in [1, 999, 8_192, 16_384, 17_000] {
        let store = store();
        let mut scorer = Scorer::new(built_in(), &store);
        let mut decisions = decide(&mut scorer, &list[..cut], 64);
        let mut restored = Scorer::restore(built_in(), &store, &scorer.checkpoint().bytes).unwrap();
        decisions.extend(decide(&mut restored, &list[cut..], 64));
        assert_eq!(hash(&decisions), hash(&uninterrupted), "cut at {cut}");
    }
}

#[test]
fn a_damaged_checkpoint_is_refused_wherever_it_is_damaged() {
    let mut scorer = Scorer::new(built_in(), &store());
    decide(&mut scorer, &stream(50), 50);
    let whole = scorer.checkpoint().bytes;
    for at in (0..whole.len()).step_by(whole.len() / 40) {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        let refused = Scorer::restore(built_in(), &store(), &flipped).expect_err("a flipped bit");
        assert!(matches!(refused, SnapshotError::Damaged(_)), "byte {at}: {refused}");
        let cut = Scorer::restore(built_in(), &store(), &whole[..at]).expect_err("a cut");
        assert!(matches!(cut, SnapshotError::Damaged(_)), "cut at {at}: {cut}");
    }
}

#[test]
fn a_checkpoint_of_other_features_is_refused_and_one_of_other_rules_is_not() {
    let mut scorer = Scorer::new(built_in(), &store());
    decide(&mut scorer, &stream(50), 50);
    let checkpoint = scorer.checkpoint().bytes;
    let mut source = RulesetSource::built_in();
    source.rules[0].text = source.rules[0].text.replace("points: 35", "points: 36");
    assert!(Scorer::restore(Ruleset::load(&source).unwrap(), &store(), &checkpoint).is_ok());
    source.features[0].text = source.features[0].text.replace("'1 hour'", "'2 hours'");
    let refused =
        Scorer::restore(Ruleset::load(&source).unwrap(), &store(), &checkpoint).expect_err("other windows");
    assert_eq!(refused, SnapshotError::OtherFeatures);
}

#[test]
fn window_time_rises_whatever_the_clock_does() {
    let mut list = stream(6);
    let times = [100, 100, 50, 100, i64::MAX / 4, 200];
    for (transaction, us) in list.iter_mut().zip(times) {
        transaction.accepted_at_us = us;
    }
    let decisions = decide(&mut Scorer::new(built_in(), &store()), &list, 6);
    let window_times: Vec<_> = decisions.iter().map(|d| d.window_time_us).collect();
    assert_eq!(window_times, [100, 101, 102, 103, i64::MAX / 4, i64::MAX / 4 + 1]);
}

#[test]
fn memory_follows_the_windows_and_not_the_history() {
    const DAY_US: i64 = 86_400_000_000;
    let mut scorer = Scorer::new(built_in(), &store());
    let sketch = |gap_us| Sketch {
        gap_us,
        card: 1,
        merchant: 0,
        amount_minor: 100,
        ip: None,
        device: None,
        place: None,
    };
    let list = transactions(&vec![sketch(DAY_US); 60_000]);
    decide(&mut scorer, &list, 1_000);
    // Whole segments are forgotten: the oldest that is still needed, and the newest.
    let held = scorer.held();
    assert!(held.events < 2 * 8_192 && held.keys < 20, "{held:?} for 31 events in a window");
}

#[test]
fn a_rule_that_fails_on_one_row_is_null_there_and_only_there() {
    let mut source = RulesetSource::built_in();
    source.rules.push(SourceFile {
        name: "division.yaml".into(),
        text: "version: 1
rules:
  - {id: division, when: 1000 / (amount_minor - 100) > 0, points: 65, severity: low, reason: division,
     message: m, observed: 1, limit: 1}"
            .into(),
    });
    let ruleset = Ruleset::load(&source).unwrap();
    let mut list = stream(3);
    for (transaction, minor) in list.iter_mut().zip([101_i64, 100, 102]) {
        transaction.amount_minor = minor.try_into().unwrap();
    }
    for rows in [1, 3] {
        let decisions = decide(&mut Scorer::new(ruleset.clone(), &store()), &list, rows);
        let matched: Vec<_> =
            decisions.iter().map(|d| d.reasons.iter().any(|r| &*r.rule == "division")).collect();
        assert_eq!(matched, [true, false, true], "in batches of {rows}");
    }
}

#[test]
fn test_cards_do_as_documented() {
    let mut list = stream(3);
    for (transaction, behaviour) in
        list.iter_mut().zip([TestBehaviour::Decline, TestBehaviour::Block, TestBehaviour::ElevatedRisk])
    {
        transaction.test_behaviour = Some(behaviour);
    }
    let decisions = decide(&mut Scorer::new(built_in(), &store()), &list, 3);
    let outcomes: Vec<_> = decisions.iter().map(|d| d.outcome).collect();
    assert_eq!(outcomes, [Outcome::Decline, Outcome::Decline, Outcome::Review]);
}

#[test]
fn a_shadow_rule_is_recorded_and_changes_nothing() {
    let mut source = RulesetSource::built_in();
    source.rules.push(SourceFile {
        name: "shadow.yaml".into(),
        text: "version: 1
rules:
  - {id: everything, when: 'true', points: 100, severity: critical, reason: shadow, message: m, observed: 1,
     limit: 0, action: decline, mode: shadow}"
            .into(),
    });
    let mut scorer = Scorer::new(Ruleset::load(&source).unwrap(), &store());
    let scored = scorer.score(&batch(&stream(1))).unwrap().remove(0);
    assert_eq!((scored.decision.outcome, scored.alert), (Outcome::Approve, None));
    assert_eq!(&*scored.decision.shadow_reasons[0].rule, "everything");
}

#[test]
fn a_rollout_takes_in_about_its_share_and_always_the_same() {
    let mut source = RulesetSource::built_in();
    source.rules.push(SourceFile {
        name: "rollout.yaml".into(),
        text: "version: 1
rules:
  - {id: some, when: 'true', points: 1, severity: low, reason: some, message: m, observed: 1, limit: 0,
     rollout_percent: 30}"
            .into(),
    });
    let ruleset = Ruleset::load(&source).unwrap();
    let list = stream(2_000);
    let hits = |rows| {
        let decisions = decide(&mut Scorer::new(ruleset.clone(), &store()), &list, rows);
        decisions.iter().map(|d| d.reasons.iter().any(|r| &*r.rule == "some")).collect::<Vec<_>>()
    };
    let first = hits(2_000);
    assert_eq!(first, hits(13));
    let share = first.iter().filter(|&&hit| hit).count();
    assert!((500..700).contains(&share), "{share} of 2000");
}

#[test]
fn a_probe_is_told_of_every_rule_in_order_and_whether_it_was_evaluated() {
    struct Runs(Vec<(usize, RuleRun)>);
    impl Probe for Runs {
        fn ended(&mut self, _: Stage) {}
        fn rule(&mut self, index: usize, run: RuleRun) {
            self.0.push((index, run));
        }
    }
    let mut source = RulesetSource::built_in();
    source.rules[0].text = source.rules[0].text.replace("mode: shadow", "mode: off");
    let ruleset = Ruleset::load(&source).unwrap();
    let place = |id: &str| ruleset.rule_ids().iter().position(|rule| rule == id).unwrap();
    let mut list = stream(2);
    list[1].reporting_amount_minor = Some(1_000_001);
    let mut runs = Runs(Vec::new());
    let scored =
        Scorer::new(ruleset.clone(), &store()).score_labelled(&batch(&list), &[], &mut runs).unwrap();
    assert!(scored[1].decision.reasons.iter().any(|r| &*r.rule == "amount_over_limit"));
    let told: Vec<usize> = runs.0.iter().map(|(index, _)| *index).collect();
    let off = place("terminal_cards_10m");
    assert_eq!(told, (0..ruleset.rule_ids().len()).filter(|&rule| rule != off).collect::<Vec<_>>());
    for (id, run) in [("amount_over_limit", RuleRun::Evaluated), ("test_card_blocked", RuleRun::Skipped)] {
        assert!(runs.0.contains(&(place(id), run)), "{id}");
    }
}
