//! The analyzer over a real embedded log: one decision each, in an order that can be replayed.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use eventlog::{EventLog, NewRecord};
use events::{
    CardToken, Decided, Label, LabelSource, ListAction, ListChange, ListScope, ListSource, Message as _,
    Outcome, Taken, Verdict, topics,
};
use scoring::{MemoryStore, Ruleset, RulesetSource, Scorer, SegmentStore, SourceFile, transactions};
use support::{
    assert_each_once, decided, hash, open_log, record, ruleset, start, start_with, stop, submit, topic,
    uninterrupted,
};

const DEAD_LETTERS: &str = "transactions.created.dlq";

fn remove_checkpoints(dir: &Path, how_many: usize) {
    let paths = |dir: &Path| std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let generations = paths(&dir.join("analyzer/lane-0-of-1"));
    let mut files: Vec<_> = generations.flat_map(|dir| paths(&dir)).filter(|path| path.is_file()).collect();
    files.sort();
    for newest in files.into_iter().rev().take(how_many) {
        std::fs::remove_file(newest).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_transaction_gets_one_decision_and_replay_agrees_after_any_loss_of_checkpoints() {
    for lost in 0..=2 {
        let dir = tempfile::tempdir().unwrap();
        let log = open_log(dir.path());
        submit(&*log, 0..1_500).await;
        stop(start(&log, dir.path())).await;
        submit(&*log, 1_500..3_000).await;
        stop(start(&log, dir.path())).await;
        remove_checkpoints(dir.path(), lost);
        submit(&*log, 3_000..4_000).await;
        stop(start(&log, dir.path())).await;

        let decided = decided(&*log).await;
        assert_each_once(&decided, 4_000);
        let live = hash(decided.iter().map(|d| &d.decision));
        let whole = uninterrupted(ruleset(), &decided);
        assert_eq!(live, hash(whole.iter()), "{lost} checkpoints lost");
        let raised = topic(&*log, topics::ALERTS).await.len();
        assert!(raised > 0, "the stream must raise alerts");
        let mut alerts: Vec<_> = topic(&*log, topics::ALERTS)
            .await
            .iter()
            .map(|r| events::Alert::decode(&r.value).unwrap().id)
            .collect();
        alerts.sort_unstable();
        alerts.dedup();
        assert_eq!(alerts.len(), raised, "each alert once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_decoded_is_a_dead_letter_once_and_nothing_else_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_log(dir.path());
    submit(&*log, 0..50).await;
    for i in 0..10 {
        let bad = if i % 2 == 0 {
            b"not json".to_vec()
        } else {
            br#"{"type":"transaction","v":99,"data":{}}"#.to_vec()
        };
        log.append(vec![record(&format!("bad{i}"), bad)]).await.unwrap();
    }
    submit(&*log, 50..60).await;
    log.append(vec![record("last", b"{}".to_vec())]).await.unwrap();
    for lost in [2, 2, 0] {
        stop(start(&log, dir.path())).await;
        remove_checkpoints(dir.path(), lost);
    }
    assert_each_once(&decided(&*log).await, 60);
    let dead = topic(&*log, DEAD_LETTERS).await;
    assert_eq!(dead.len(), 11);
    let header = |record: &eventlog::LoggedRecord, name: &str| {
        let value = record.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
        String::from_utf8(value.unwrap_or_default().to_vec()).unwrap()
    };
    assert!(dead.iter().all(|r| header(r, "original-topic") == topics::CREATED));
    assert!(dead.iter().any(|r| header(r, "reason").contains("version 99 is unknown")));
}

/// Declines cards of which a payment turned out to be fraud.
fn fraud_ruleset() -> Ruleset {
    let file = |name: &str, text: &str| SourceFile { name: name.into(), text: text.into() };
    let features = "SELECT count(*) FILTER (WHERE fraud) OVER (PARTITION BY card ORDER BY event_time
        RANGE BETWEEN INTERVAL '30 days' PRECEDING AND CURRENT ROW) AS card_frauds FROM transactions";
    let rules = "
version: 1
thresholds: {review: 50, decline: 90}
rules:
  - {id: card_had_fraud, when: card_frauds > 0, points: 100, severity: high, reason: card_had_fraud,
     message: \"{observed} frauds\", observed: card_frauds, limit: 0}";
    let source = RulesetSource {
        features: vec![file("frauds.sql", features)],
        lists: Vec::new(),
        rules: vec![file("frauds.yaml", rules)],
    };
    Ruleset::load(&source).unwrap()
}

fn label_record(key: &str, value: Vec<u8>) -> NewRecord {
    NewRecord { topic: topics::LABELLED, ..record(key, value) }
}

/// Says of every seventh decided transaction that it was fraud, and of every fourteenth then that it was
/// not.
async fn label(log: &dyn EventLog, decided: &[Decided]) {
    for decided in decided.iter().step_by(7) {
        let verdicts =
            if decided.seq % 14 == 0 { &[Verdict::Fraud, Verdict::Legit][..] } else { &[Verdict::Fraud] };
        for &verdict in verdicts {
            let label = Label {
                transaction_id: decided.transaction.id,
                window_time_us: decided.decision.window_time_us,
                source_partition: decided.source_partition,
                merchant_id: decided.transaction.merchant_id.clone(),
                verdict,
                source: LabelSource::Chargeback,
                labelled_at_us: decided.decided_at_us,
                note: None,
            };
            let id = decided.transaction.id.to_string();
            log.append(vec![label_record(&id, label.encode())]).await.unwrap();
        }
    }
}

/// What one scorer that never stopped makes of the events and the labels, where the analyzer says that it
/// took them in.
async fn uninterrupted_with_labels(log: &dyn EventLog, decided: &[Decided]) -> String {
    let mut labels = Vec::new();
    let mut taken = vec![0; log.partitions(topics::LABELLED).unwrap() as usize];
    for (before_row, decided) in decided.iter().enumerate() {
        let Some(Taken { labelled, .. }) = &decided.taken else { continue };
        for ((partition, from), &until) in (0..).zip(&mut taken).zip(labelled) {
            let records = log.read(topics::LABELLED, partition, *from, 10_000, Duration::ZERO).await.unwrap();
            let known =
                records.iter().filter(|r| r.offset < until).filter_map(|r| Label::decode(&r.value).ok());
            labels.extend(known.map(|label| scoring::Label {
                before_row,
                window_time_us: label.window_time_us,
                fraud: label.verdict == Verdict::Fraud,
            }));
            *from = until;
        }
    }
    assert!(labels.len() > 50, "labels were taken in");
    let list: Vec<_> = decided.iter().map(|d| &d.transaction).collect();
    let store: Arc<dyn SegmentStore> = MemoryStore::new();
    let mut scorer = Scorer::new(fraud_ruleset(), &store);
    let scored = scorer.score_labelled(&transactions::batch(&list), &labels, &mut ()).unwrap();
    hash(scored.iter().map(|s| &s.decision))
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_change_what_comes_after_them_and_replay_takes_them_in_at_the_same_place() {
    for lost in 0..=2 {
        let dir = tempfile::tempdir().unwrap();
        let log = open_log(dir.path());
        submit(&*log, 0..400).await;
        stop(start_with(fraud_ruleset(), &log, dir.path(), &prometheus::Registry::new())).await;
        let first = decided(&*log).await;
        assert!(first.iter().all(|d| d.decision.outcome == Outcome::Approve), "nothing is known yet");
        label(&*log, &first).await;
        log.append(vec![label_record("bad", b"not a label".to_vec())]).await.unwrap();
        submit(&*log, 400..800).await;
        stop(start_with(fraud_ruleset(), &log, dir.path(), &prometheus::Registry::new())).await;
        label(&*log, &decided(&*log).await[400..]).await;
        remove_checkpoints(dir.path(), lost);
        submit(&*log, 800..1_200).await;
        stop(start_with(fraud_ruleset(), &log, dir.path(), &prometheus::Registry::new())).await;

        let decided = decided(&*log).await;
        assert_each_once(&decided, 1_200);
        let declined = decided.iter().filter(|d| d.decision.outcome == Outcome::Decline).count();
        assert!(declined > 100, "{declined} of cards with frauds");
        let live = hash(decided.iter().map(|d| &d.decision));
        assert_eq!(live, uninterrupted_with_labels(&*log, &decided).await, "{lost} checkpoints lost");
        assert_eq!(topic(&*log, "transactions.labelled.dlq").await.len(), 1, "the letter is written once");
    }
}

fn list_record(value: Vec<u8>, key: &str) -> NewRecord {
    NewRecord { topic: topics::LISTS_CHANGED, ..record(key, value) }
}

async fn change_list(log: &dyn EventLog, card: u8, action: ListAction) {
    let change = ListChange {
        list: "block_card".parse().unwrap(),
        scope: ListScope::All,
        value: CardToken::new("k1", &[card; 16]).unwrap().to_string(),
        action,
        expires_at_us: None,
        source: ListSource::Operator,
        changed_at_us: 1_700_000_000_000_000,
        note: None,
    };
    log.append(vec![list_record(change.encode(), &change.key())]).await.unwrap();
}

/// What one scorer makes of the events and the changes to lists in the order the decisions say.
async fn with_lists(log: &dyn EventLog, decided: &[Decided]) -> String {
    let store: Arc<dyn SegmentStore> = MemoryStore::new();
    let mut scorer = Scorer::new(ruleset(), &store);
    let mut taken_in = vec![0_u64; log.partitions(topics::LISTS_CHANGED).unwrap() as usize];
    let mut decisions = Vec::new();
    for one in decided {
        for ((partition, next), &until) in
            (0..).zip(&mut taken_in).zip(one.taken.iter().flat_map(|taken| &taken.lists))
        {
            while *next < until {
                let read =
                    log.read(topics::LISTS_CHANGED, partition, *next, 1, Duration::ZERO).await.unwrap();
                *next += 1;
                if let Ok(change) = ListChange::decode(&read[0].value) {
                    scorer.change_list(&change).unwrap();
                }
            }
        }
        let scored = scorer.score(&transactions::batch(&[&one.transaction])).unwrap();
        decisions.extend(scored.into_iter().map(|s| s.decision));
    }
    hash(decisions.iter())
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_change_at_exact_places_which_every_recovery_finds_again() {
    for lost in 0..=2 {
        let dir = tempfile::tempdir().unwrap();
        let log = open_log(dir.path());
        for round in 0..4_u8 {
            if let Some(before) = round.checked_sub(1) {
                change_list(&*log, before, ListAction::Remove).await;
            }
            change_list(&*log, round, ListAction::Add).await;
            log.append(vec![list_record(b"no change".to_vec(), "bad")]).await.unwrap();
            let from = usize::from(round) * 400;
            submit(&*log, from..from + 400).await;
            let registry = prometheus::Registry::new();
            stop(start_with(ruleset(), &log, dir.path(), &registry)).await;
            let metric = |name: &str| {
                let families = registry.gather();
                let family = families.into_iter().find(|family| family.name() == name).expect(name);
                let value =
                    |m: &prometheus::proto::Metric| m.get_counter().get_value() + m.get_gauge().get_value();
                family.get_metric().iter().map(value).sum::<f64>()
            };
            assert_eq!(
                metric("paystream_analyzer_replay_mismatches_total"),
                0.0,
                "{lost} lost, round {round}"
            );
            assert_eq!(metric("paystream_analyzer_list_entries"), 1.0);
            assert_eq!(metric("paystream_analyzer_list_changes_total"), f64::from(2 * round + 1));
            assert_eq!(
                metric("paystream_analyzer_dead_letters_total"),
                1.0,
                "not those of earlier runs again"
            );
            remove_checkpoints(dir.path(), lost);
        }
        let decided = decided(&*log).await;
        assert_each_once(&decided, 1_600);
        for (n, one) in decided.iter().enumerate() {
            let round = u8::try_from(n / 400).unwrap();
            let listed = one.transaction.card.token == CardToken::new("k1", &[round; 16]).unwrap();
            let blocked = one.decision.reasons.iter().any(|reason| &*reason.code == "list_block_card");
            assert_eq!(blocked, listed, "transaction {n}");
        }
        let live = hash(decided.iter().map(|d| &d.decision));
        assert_eq!(live, with_lists(&*log, &decided).await, "{lost} checkpoints lost");
        assert_eq!(topic(&*log, topics::dead_letter(topics::LISTS_CHANGED)).await.len(), 4);
    }
}
