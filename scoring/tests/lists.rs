//! Lists through `Scorer::score`, held against a naive oracle.

#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod support;

use std::net::IpAddr;

use events::{ListAction, ListChange, ListKind, ListScope, ListSource, ListValue, Outcome, Transaction};
use proptest::prelude::*;
use proptest::sample::select;
use scoring::{ListChangeError, Ruleset, RulesetSource, Scorer, SourceFile};
use support::{START_US, Sketch, batch, store, transactions};

const SECOND_US: i64 = 1_000_000;

fn change(list: &str, scope: &ListScope, value: &str, action: ListAction) -> ListChange {
    ListChange {
        list: list.parse().unwrap(),
        scope: scope.clone(),
        value: value.to_owned(),
        action,
        expires_at_us: None,
        source: ListSource::Merchant,
        changed_at_us: START_US,
        note: None,
    }
}

fn add(list: &str, value: &str) -> ListChange {
    change(list, &ListScope::All, value, ListAction::Add)
}

/// One transaction an hour.
fn stream(n: usize) -> Vec<Transaction> {
    let sketch = Sketch {
        gap_us: 3_600 * SECOND_US,
        card: 1,
        merchant: 0,
        amount_minor: 2_000,
        ip: Some(1),
        device: Some(1),
        place: None,
    };
    transactions(&vec![sketch; n])
}

fn built_in() -> Scorer {
    Scorer::new(Ruleset::load(&RulesetSource::built_in()).unwrap(), &store())
}

/// Outcome and the code of the first reason.
fn decide(scorer: &mut Scorer, transaction: &Transaction) -> (Outcome, String) {
    let decision = scorer.score(&batch(std::slice::from_ref(transaction))).unwrap().remove(0).decision;
    let first = decision.reasons.first().map_or_else(String::new, |reason| reason.code.to_string());
    (decision.outcome, first)
}

#[test]
fn an_entry_holds_from_its_change_until_its_removal_or_expiry() {
    let list = stream(8);
    let token = list[0].card.token.as_str();
    let mut scorer = built_in();
    let blocked = (Outcome::Decline, "list_block_card".to_owned());
    let passed = (Outcome::Approve, String::new());
    assert_eq!(decide(&mut scorer, &list[0]), passed);
    scorer.change_list(&add("block_card", token)).unwrap();
    assert_eq!(decide(&mut scorer, &list[1]), blocked);
    scorer.change_list(&change("block_card", &ListScope::All, token, ListAction::Remove)).unwrap();
    assert_eq!(decide(&mut scorer, &list[2]), passed);
    let until = ListChange { expires_at_us: Some(list[4].accepted_at_us), ..add("block_card", token) };
    scorer.change_list(&until).unwrap();
    assert_eq!(decide(&mut scorer, &list[3]), blocked);
    assert_eq!(decide(&mut scorer, &list[4]), passed, "at its expiry it is over");
    // The last change counts: an expiry can be lifted, and one that has passed removes.
    scorer.change_list(&add("block_card", token)).unwrap();
    assert_eq!(decide(&mut scorer, &list[5]), blocked);
    scorer.change_list(&until).unwrap();
    assert_eq!(decide(&mut scorer, &list[6]), passed);
    assert!(scorer.list_entries().all(|(_, entries)| entries == 0));
}

#[test]
fn every_built_in_list_has_its_rule_and_its_reason() {
    let mut transaction = stream(1).remove(0);
    transaction.customer.email = Some("jane@shop.test".into());
    transaction.billing.country = Some("DE".into());
    transaction.device.ip = Some("10.1.2.3".into());
    transaction.card.bin = "41111111".into();
    for (kind, value) in [
        ("card", transaction.card.token.as_str()),
        ("bin", "4111"),
        ("bin", "41110000-41112222"),
        ("ip", "10.1.0.0/16"),
        ("email", "jane@shop.test"),
        ("email", "@shop.test"),
        ("device", transaction.device.id.as_deref().unwrap()),
        ("country", "DE"),
    ] {
        let mut scorer = built_in();
        scorer.change_list(&add(&format!("block_{kind}"), value)).unwrap();
        assert_eq!(decide(&mut scorer, &transaction), (Outcome::Decline, format!("list_block_{kind}")));
        scorer.change_list(&add(&format!("allow_{kind}"), value)).unwrap();
        assert_eq!(decide(&mut scorer, &transaction), (Outcome::Approve, format!("list_allow_{kind}")));
        transaction.test_behaviour = Some(events::TestBehaviour::Block);
        assert_eq!(
            decide(&mut scorer, &transaction).0,
            Outcome::Decline,
            "a hard block goes before an allow"
        );
        transaction.test_behaviour = None;
    }
}

#[test]
fn a_merchants_entry_is_for_its_own_transactions_in_its_own_mode() {
    let list = stream(1);
    let (own, token) = (&list[0], list[0].card.token.as_str());
    let mut other = own.clone();
    other.merchant_id = "merchant_9".parse().unwrap();
    let mut test_mode = own.clone();
    test_mode.livemode = false;
    let mut scorer = built_in();
    let scope = ListScope::Merchant { merchant_id: own.merchant_id.clone(), livemode: true };
    scorer.change_list(&change("block_card", &scope, token, ListAction::Add)).unwrap();
    let outcomes = |scorer: &mut Scorer| [own, &other, &test_mode].map(|t| decide(scorer, t).0);
    assert_eq!(outcomes(&mut scorer), [Outcome::Decline, Outcome::Approve, Outcome::Approve]);
    // Removing it for everyone does not remove it for the merchant, and the other way round.
    scorer.change_list(&change("block_card", &ListScope::All, token, ListAction::Remove)).unwrap();
    assert_eq!(outcomes(&mut scorer), [Outcome::Decline, Outcome::Approve, Outcome::Approve]);
    scorer.change_list(&add("block_card", token)).unwrap();
    scorer.change_list(&change("block_card", &scope, token, ListAction::Remove)).unwrap();
    assert_eq!(outcomes(&mut scorer), [Outcome::Decline; 3]);
}

#[test]
fn a_change_that_fits_no_list_says_so_and_changes_nothing() {
    let mut scorer = built_in();
    let unknown = scorer.change_list(&add("no_such_list", "x")).unwrap_err();
    assert!(matches!(unknown, ListChangeError::UnknownList(_)), "{unknown}");
    let wrong = scorer.change_list(&add("block_ip", "jane@shop.test")).unwrap_err();
    assert!(wrong.to_string().contains("block_ip: its values are of kind ip"), "{wrong}");
    assert!(scorer.list_entries().all(|(_, entries)| entries == 0));
}

#[test]
fn entries_of_the_file_are_there_after_a_restore_and_changes_have_to_be_given_again() {
    let list = stream(4);
    let token = list[0].card.token.as_str();
    let mut source = RulesetSource::built_in();
    source.lists[0].text = source.lists[0].text.replace(
        "  - id: block_ip\n    kind: ip\n",
        "  - id: block_ip\n    kind: ip\n    entries: ['::ffff:10.0.0.1']\n",
    );
    let ruleset = Ruleset::load(&source).unwrap();
    let store = store();
    let mut scorer = Scorer::new(ruleset.clone(), &store);
    let blocked = (Outcome::Decline, "list_block_ip".to_owned());
    assert_eq!(decide(&mut scorer, &list[0]), blocked, "an IPv4 address written as IPv6 is the same");
    let allow = add("allow_card", token);
    scorer.change_list(&allow).unwrap();
    assert_eq!(decide(&mut scorer, &list[1]).0, Outcome::Approve);
    let mut restored = Scorer::restore(ruleset, &store, &scorer.checkpoint().bytes).unwrap();
    assert_eq!(decide(&mut restored, &list[2]), blocked);
    restored.change_list(&allow).unwrap();
    assert_eq!(decide(&mut restored, &list[3]).0, Outcome::Approve);
}

#[test]
fn empty_lists_change_no_decision() {
    let with = RulesetSource::built_in();
    let mut without = with.clone();
    let (before, rest) = with.rules[0].text.split_once("  # Lists:").unwrap();
    let (_, after) = rest.split_once("  # The documented test cards").unwrap();
    without.rules[0].text = format!("{before}  # The documented test cards{after}");
    without.lists.clear();
    let sketches = (0..3_000_usize).map(|i| Sketch {
        gap_us: i64::try_from(i * 7_919 % 90_000_000).unwrap(),
        card: u8::try_from(i * i % 17).unwrap(),
        merchant: u8::try_from(i % 3).unwrap(),
        amount_minor: i64::try_from(i * 31 % 40_000).unwrap(),
        ip: Some(u8::try_from(i % 7).unwrap()),
        device: Some(u8::try_from(i % 9).unwrap()),
        place: Some((u8::try_from(i % 2).unwrap(), 10.0)),
    });
    let list = transactions(&sketches.collect::<Vec<_>>());
    let decide = |source: &RulesetSource| {
        let mut scorer = Scorer::new(Ruleset::load(source).unwrap(), &store());
        let mut scored = scorer.score(&batch(&list)).unwrap();
        scored.iter_mut().for_each(|s| s.decision.ruleset = "".into());
        scored
    };
    let decisions = decide(&with);
    assert!(decisions.iter().any(|s| s.decision.outcome != Outcome::Approve), "rules must match");
    assert!(decisions == decide(&without));
}

/// A ruleset of one list and a rule that asks it about a column.
fn asking(kind: ListKind, column: &str) -> Scorer {
    let file = |name: &str, text: String| vec![SourceFile { name: name.into(), text }];
    let source = RulesetSource {
        features: Vec::new(),
        rules: file(
            "r.yaml",
            format!(
                "version: 1\nthresholds: {{}}\nrules:\n  - {{id: it, when: \"in_list('it', {column})\", points: 1, \
                 severity: low, reason: it, message: m, observed: 1, limit: 0}}"
            ),
        ),
        lists: file("l.yaml", format!("version: 1\nlists:\n  - {{id: it, kind: {kind}, description: it}}")),
    };
    Scorer::new(Ruleset::load(&source).unwrap(), &store())
}

/// One step of a history.
#[derive(Debug, Clone)]
enum Step {
    Change { merchant: Option<(u8, bool)>, value: String, remove: bool, expires_in_s: Option<u8> },
    Ask { merchant: u8, livemode: bool, value: String },
}

/// Scope, value and expiry of an entry.
type Entry = (Option<(u8, bool)>, String, Option<i64>);

/// All changes, the last one for a scope and value counting, and every entry looked at.
#[derive(Default)]
struct Oracle(Vec<Entry>);

impl Oracle {
    fn change(&mut self, scope: Option<(u8, bool)>, value: &str, kept: bool, expires_at_us: Option<i64>) {
        self.0.retain(|(s, v, _)| (s, v.as_str()) != (&scope, value));
        if kept {
            self.0.push((scope, value.to_owned(), expires_at_us));
        }
    }

    fn holds(&self, kind: ListKind, merchant: u8, livemode: bool, value: &str, now_us: i64) -> bool {
        self.0.iter().any(|(scope, entry, expires_at_us)| {
            scope.is_none_or(|of| of == (merchant, livemode))
                && expires_at_us.is_none_or(|us| us > now_us)
                && covers(kind, entry, value)
        })
    }
}

/// By the definition, bit by bit and digit by digit.
fn covers(kind: ListKind, entry: &str, value: &str) -> bool {
    match kind {
        ListKind::Ip => {
            let bits = |address: IpAddr| match address {
                IpAddr::V4(v4) => format!("4{:032b}", v4.to_bits()),
                IpAddr::V6(v6) => format!("6{:0128b}", v6.to_bits()),
            };
            let (network, length) = entry.split_once('/').map_or((entry, None), |(a, l)| (a, Some(l)));
            let network = bits(network.parse().unwrap());
            let length = length.map_or(network.len() - 1, |length| length.parse().unwrap());
            let Ok(address) = value.parse::<IpAddr>() else { return false };
            bits(address.to_canonical()).starts_with(&network[..=length])
        }
        ListKind::Bin => {
            let (first, last) = entry.split_once('-').unwrap_or((entry, entry));
            // Of a BIN of six digits, all cards have to be meant.
            let (low, high) = (format!("{value:0<8}"), format!("{value:9<8}"));
            low >= format!("{first:0<8}") && high <= format!("{last:9<8}")
        }
        ListKind::Email => {
            let value = value.to_lowercase();
            value == entry || entry.starts_with('@') && value.ends_with(entry)
        }
        _ => value == entry,
    }
}

fn value(kind: ListKind) -> BoxedStrategy<String> {
    match kind {
        ListKind::Ip => prop_oneof![
            (any::<u8>(), 0..=32_u8).prop_map(|(n, bits)| {
                let network = ListValue::network_of([10, 0, n % 4, n].into(), bits);
                format!("{network}/{bits}")
            }),
            (any::<u8>(), 0..=128_u8).prop_map(|(n, bits)| {
                let address = IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, u16::from(n % 4), u16::from(n)]);
                format!("{}/{bits}", ListValue::network_of(address, bits))
            }),
            any::<u8>().prop_map(|n| format!("10.0.{}.{n}", n % 4)),
            any::<u8>().prop_map(|n| format!("::ffff:10.0.{}.{n}", n % 4)),
        ]
        .boxed(),
        ListKind::Bin => prop_oneof![
            (4_110..4_130_u32, 0..5_usize).prop_map(|(n, zeros)| format!("{n}{}", "7".repeat(zeros))),
            (0..40_u32, 0..40_u32, select(vec![1, 7, 100, 1_111])).prop_map(|(from, size, scale)| {
                let from = 41_110_000 + from * scale;
                format!("{from}-{}", from + size * scale)
            }),
            "4[12]",
        ]
        .boxed(),
        ListKind::Email => "[abA]?@(x|y|X)\\.(de|fr)".boxed(),
        _ => "[a-c]{1,2}".boxed(),
    }
}

fn asked(kind: ListKind) -> BoxedStrategy<String> {
    match kind {
        ListKind::Ip => prop_oneof![
            any::<u8>().prop_map(|n| format!("10.0.{}.{n}", n % 4)),
            any::<u8>().prop_map(|n| format!("2001:db8::{:x}:{n:x}", n % 4)),
            Just("no address".to_owned()),
        ]
        .boxed(),
        ListKind::Bin => prop_oneof!["41(1|2)[0-9]{3}([0-9]{2})?", "4111[0-9]{4}"].boxed(),
        ListKind::Email => "[abA]@(x|y|X)\\.(de|fr)".boxed(),
        _ => "[a-c]{1,2}".boxed(),
    }
}

fn history() -> impl Strategy<Value = (ListKind, Vec<Step>)> {
    select(vec![ListKind::Ip, ListKind::Bin, ListKind::Email, ListKind::Text]).prop_flat_map(|kind| {
        let scope = prop_oneof![Just(None), (0..2_u8, any::<bool>()).prop_map(Some)];
        let change = (scope, value(kind), prop::bool::weighted(0.25), prop::option::of(0..20_u8));
        let change = change.prop_map(|(merchant, value, remove, expires_in_s)| Step::Change {
            merchant,
            value,
            remove,
            expires_in_s,
        });
        let ask = (0..3_u8, any::<bool>(), asked(kind)).prop_map(|(merchant, livemode, value)| Step::Ask {
            merchant,
            livemode,
            value,
        });
        (Just(kind), prop::collection::vec(prop_oneof![change, ask], 1..60))
    })
}

fn check(kind: ListKind, steps: &[Step]) -> Result<(), TestCaseError> {
    let column = match kind {
        ListKind::Ip => "ip",
        ListKind::Bin => "bin",
        ListKind::Email => "email",
        _ => "customer_id",
    };
    let (mut scorer, mut oracle) = (asking(kind, column), Oracle::default());
    let (mut now_us, template) = (START_US, stream(1).remove(0));
    for step in steps {
        match step {
            Step::Change { merchant, value, remove, expires_in_s } => {
                let expires_at_us = expires_in_s.map(|s| now_us + i64::from(s) * SECOND_US);
                let scope = merchant.map_or(ListScope::All, |(n, livemode)| ListScope::Merchant {
                    merchant_id: format!("merchant_{n}").parse().unwrap(),
                    livemode,
                });
                let action = if *remove { ListAction::Remove } else { ListAction::Add };
                let value = ListValue::parse(kind, value).unwrap().to_string();
                let change = ListChange { expires_at_us, ..change("it", &scope, &value, action) };
                scorer.change_list(&change).unwrap();
                oracle.change(*merchant, &value, !remove, expires_at_us);
            }
            Step::Ask { merchant, livemode, value } => {
                now_us += SECOND_US;
                let mut transaction = template.clone();
                transaction.accepted_at_us = now_us;
                transaction.merchant_id = format!("merchant_{merchant}").parse().unwrap();
                transaction.livemode = *livemode;
                match kind {
                    ListKind::Ip => transaction.device.ip = Some(value.clone()),
                    ListKind::Bin => transaction.card.bin.clone_from(value),
                    ListKind::Email => transaction.customer.email = Some(value.clone()),
                    _ => transaction.customer.id = Some(value.clone()),
                }
                let scored = scorer.score(&batch(&[transaction])).unwrap().remove(0);
                let expected = oracle.holds(kind, *merchant, *livemode, value, now_us);
                prop_assert_eq!(!scored.decision.reasons.is_empty(), expected, "{} of {:?}", value, oracle.0);
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_history_of_changes_is_what_the_naive_oracle_says((kind, steps) in history()) {
        check(kind, &steps)?;
    }
}
