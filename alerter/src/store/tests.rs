use std::collections::BTreeSet;

use events::Severity;
use tempfile::TempDir;

use super::upkeep::{PRUNE_BATCH, REQUEUE_MAX_AGE_MS};
use super::*;
use crate::samples::alert;

const WINDOW_MS: u64 = 60_000;
const INTERVAL_MS: u64 = 5_000;
const R: &str = "telegram";

fn open() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let grouping = Grouping { window_ms: WINDOW_MS, burst_groups: 3, update_interval_ms: INTERVAL_MS };
    let store = Store::open(dir.path(), grouping).unwrap();
    (dir, store)
}

fn routed(alert: Alert) -> Routed {
    Routed { alert, receivers: vec![R.to_owned()], trace: None }
}

/// An alert on a card of its own.
fn on_card(n: u8) -> Alert {
    let mut a = alert(n.into());
    a.card_token = events::CardToken::new("k1", &[n; 16]).unwrap();
    a
}

fn record(store: &Store, next: u64, alerts: impl IntoIterator<Item = Alert>, now_ms: u64) -> Recorded {
    let alerts: Vec<Routed> = alerts.into_iter().map(routed).collect();
    store.record(0, next, &alerts, now_ms).unwrap()
}

fn delivered(store: &Store, id: u64, count: u64, now_ms: u64) {
    store.delivered(GroupId(id), R, count, Some(70), now_ms, PersistMode::Buffer).unwrap();
}

fn next(store: &Store, now_ms: u64) -> Option<(u64, u64)> {
    store.next_pending(R, now_ms).unwrap().map(|pending| (pending.group.0, pending.at_ms))
}

fn load(store: &Store, id: u64) -> (Group, Delivery) {
    match store.load(GroupId(id), R).unwrap().unwrap() {
        (Story::Fraud(group), delivery) => (*group, delivery),
        (other, _) => panic!("not about fraud: {other:?}"),
    }
}

fn active() -> BTreeSet<String> {
    BTreeSet::from([R.to_owned()])
}

#[test]
fn alerts_and_position_survive_together_and_a_second_reading_changes_nothing() {
    let (dir, store) = open();
    assert_eq!(record(&store, 2, [alert(1), alert(2)], 10).new.len(), 2);
    let before = load(&store, 1);
    drop(store);
    let store =
        Store::open(dir.path(), Grouping { window_ms: 1, burst_groups: 1, update_interval_ms: 1 }).unwrap();
    assert_eq!(store.position(0).unwrap(), Some(2));
    assert_eq!(store.position(1).unwrap(), None);
    let again = record(&store, 2, [alert(1), alert(2), alert(1)], 20);
    assert_eq!(again, Recorded { duplicates: 3, ..Recorded::default() });
    assert_eq!(load(&store, 1), before);
}

#[test]
fn one_batch_that_holds_an_alert_twice_records_it_once() {
    let (_dir, store) = open();
    let recorded = record(&store, 2, [alert(1), alert(1)], 10);
    assert_eq!((recorded.new.len(), recorded.duplicates, load(&store, 1).0.count), (1, 1, 1));
}

#[test]
fn alerts_of_one_card_share_a_group_until_its_window_ends() {
    let (_dir, store) = open();
    let mut late = alert(500);
    late.raised_at_us = alert(0).raised_at_us + i64::try_from(WINDOW_MS).unwrap() * 1_000;
    let recorded = record(&store, 101, (0..100).map(alert).chain([late]), 10);
    assert_eq!(recorded.groups_opened, 2);
    assert_eq!((load(&store, 1).0.count, load(&store, 2).0.count), (100, 1));
}

#[test]
fn a_rule_that_strikes_many_cards_gets_one_group_after_a_few() {
    let (_dir, store) = open();
    let recorded = record(&store, 50, (0..50).map(on_card), 10);
    assert_eq!(recorded.groups_opened, 4, "three about cards, one about the rule");
    let (burst, _) = load(&store, 4);
    assert_eq!(burst.subject, Subject::Rule { rule: "card_velocity_10m".to_owned() });
    assert_eq!(burst.count, 47);
    record(&store, 51, [alert_again(on_card(0), 9_000)], 20);
    assert_eq!(load(&store, 1).0.count, 2, "a card with a group of its own stays there");
    record(&store, 52, [alert_again(on_card(30), 9_001)], 20);
    assert_eq!(load(&store, 4).0.count, 48);
}

/// Another alert like `like`.
fn alert_again(like: Alert, n: u64) -> Alert {
    Alert { id: alert(n).id, transaction_id: alert(n).transaction_id, ..like }
}

#[test]
fn an_alert_without_receivers_is_recorded_and_sent_nowhere() {
    let (_dir, store) = open();
    let silent = Routed { alert: alert(1), receivers: vec![], trace: None };
    assert_eq!(store.record(0, 1, &[silent], 10).unwrap().new, [Severity::High]);
    assert_eq!(next(&store, u64::MAX), None);
    assert_eq!(record(&store, 2, [alert(1)], 11).duplicates, 1);
}

#[test]
fn first_messages_go_before_updates_and_updates_keep_their_distance() {
    let (_dir, store) = open();
    record(&store, 1, [on_card(1)], 10);
    assert_eq!(next(&store, 10), Some((1, 10)));
    delivered(&store, 1, 1, 20);
    assert_eq!(next(&store, 20), None);
    record(&store, 2, [alert_again(on_card(1), 100)], 30);
    assert_eq!(next(&store, 30), Some((1, 20 + INTERVAL_MS)), "an update, not before its time");
    record(&store, 3, [on_card(2)], 20 + INTERVAL_MS);
    assert_eq!(next(&store, 20 + INTERVAL_MS).unwrap().0, 2, "both are due: the first message first");
    delivered(&store, 2, 1, 20 + INTERVAL_MS);
    assert_eq!(next(&store, 20 + INTERVAL_MS).unwrap().0, 1);
    assert_eq!(load(&store, 1).1.editable(), Some(70));
}

#[test]
fn what_came_while_a_message_was_on_its_way_is_an_update() {
    let (_dir, store) = open();
    record(&store, 1, [alert(1)], 10);
    record(&store, 2, [alert(2)], 15);
    delivered(&store, 1, 1, 20);
    assert_eq!(next(&store, 20), Some((1, 20 + INTERVAL_MS)));
    delivered(&store, 1, 2, 30);
    assert_eq!(next(&store, u64::MAX), None);
}

#[test]
fn a_more_severe_alert_is_told_at_once_in_a_new_message() {
    let (_dir, store) = open();
    record(&store, 1, [alert(1)], 10);
    delivered(&store, 1, 1, 20);
    let mut severe = alert(2);
    severe.severity = Severity::Critical;
    record(&store, 2, [severe], 30);
    assert_eq!(next(&store, 30), Some((1, 30)), "without the distance of updates");
    assert_eq!(load(&store, 1).1.editable(), None);
    delivered(&store, 1, 1, 35);
    assert_eq!(load(&store, 1).1.editable(), None, "what was on its way did not tell of it");
    delivered(&store, 1, 2, 40);
    assert_eq!(load(&store, 1).1.editable(), Some(70));
    assert_eq!(next(&store, u64::MAX), None);
}

#[test]
fn a_failed_message_waits_behind_others_and_more_alerts_do_not_cut_its_wait_short() {
    let (_dir, store) = open();
    record(&store, 1, [on_card(1), on_card(2)], 10);
    store.retry(GroupId(1), R, 900, "down").unwrap();
    assert_eq!(next(&store, 10), Some((2, 10)));
    delivered(&store, 2, 1, 20);
    record(&store, 2, [alert_again(on_card(1), 100)], 30);
    assert_eq!(next(&store, 30), Some((1, 900)));
    let (_, delivery) = load(&store, 1);
    assert_eq!((delivery.attempts, delivery.last_error.as_deref()), (1, Some("down")));
    assert_eq!(store.pending_count(R).unwrap(), 1);
}

#[test]
fn what_was_refused_stays_recorded_and_is_tried_again_after_a_restart_within_a_day() {
    let (_dir, store) = open();
    record(&store, 1, [on_card(1)], 10);
    record(&store, 2, [on_card(2)], 10 + REQUEUE_MAX_AGE_MS);
    for id in [1, 2] {
        store.refused(GroupId(id), R, "chat not found").unwrap();
    }
    record(&store, 3, [alert_again(on_card(2), 100)], 20 + REQUEUE_MAX_AGE_MS);
    assert_eq!(next(&store, u64::MAX), None, "no further attempts, not even for further alerts");
    let now = 11 + REQUEUE_MAX_AGE_MS;
    assert_eq!(store.requeue_refused(&active(), now).unwrap(), (1, BTreeSet::new()));
    assert_eq!(next(&store, now), Some((2, now)));
}

#[test]
fn queues_of_receivers_that_are_gone_are_named() {
    let (_dir, store) = open();
    record(&store, 1, [alert(1)], 10);
    let (_, orphans) = store.requeue_refused(&BTreeSet::from(["console".to_owned()]), 20).unwrap();
    assert_eq!(orphans, active());
}

#[test]
fn what_is_old_is_removed_except_what_still_has_to_be_delivered() {
    let (_dir, store) = open();
    record(&store, 1, [on_card(1), on_card(2)], 10);
    delivered(&store, 1, 1, 20);
    assert!(!store.prune(1_000, &active()).unwrap());
    assert!(store.load(GroupId(1), R).unwrap().is_none());
    assert_eq!(next(&store, 1_000), Some((2, 10)), "not delivered yet");
    assert_eq!(store.recorded_at.inner_len(), 0);
    delivered(&store, 2, 1, 2_000);
    store.prune(1_000, &active()).unwrap();
    assert!(store.load(GroupId(2), R).unwrap().is_none());
    record(&store, 2, [alert_again(on_card(1), 100)], 3_000);
    assert_eq!(load(&store, 3).0.count, 1, "the card's next alert opens a group");
}

#[test]
fn what_waits_for_a_receiver_that_is_gone_is_removed_when_old() {
    let (_dir, store) = open();
    record(&store, 1, [alert(1)], 10);
    store.prune(1_000, &BTreeSet::new()).unwrap();
    assert_eq!(store.pending_count(R).unwrap(), 0);
}

#[test]
fn pruning_goes_on_until_nothing_old_is_left() {
    let (_dir, store) = open();
    record(&store, 1, (0..PRUNE_BATCH as u64 + 1).map(alert), 10);
    assert!(store.prune(1_000, &active()).unwrap());
    assert!(!store.prune(1_000, &active()).unwrap());
    assert_eq!(store.recorded_at.inner_len(), 0);
}

trait InnerLen {
    fn inner_len(&self) -> usize;
}

impl InnerLen for SingleWriterTxKeyspace {
    fn inner_len(&self) -> usize {
        let keyspace: &fjall::Keyspace = self.as_ref();
        keyspace.len().unwrap()
    }
}
