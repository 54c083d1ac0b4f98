//! Any message reads back as it was written.

use events::{
    Address, Alert, AlertId, AmountMinor, Card, CardToken, Currency, Customer, Decided, Decision, Device,
    Label, LabelSource, ListAction, ListChange, ListKind, ListScope, ListSource, ListValue, Location,
    MerchantId, Message, Outcome, Reason, RiskLevel, Severity, Taken, TestBehaviour, Transaction,
    TransactionId, Verdict,
};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

/// Texts with quotes, controls and all of Unicode.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z0-9 ]{0,16}",
        any::<String>(),
        select(vec!["\"\\/\n\t\0", "\u{2028}", "💳", ""]).prop_map(str::to_owned)
    ]
}

fn id() -> impl Strategy<Value = TransactionId> {
    any::<u128>().prop_map(|id| TransactionId::from_uuid(uuid::Uuid::from_u128(id)))
}

fn merchant() -> impl Strategy<Value = MerchantId> {
    "[a-z0-9_-]{1,64}".prop_map(|text| text.parse().unwrap())
}

fn token() -> impl Strategy<Value = CardToken> {
    ("[a-z0-9]{1,16}", any::<[u8; 16]>()).prop_map(|(key, mac)| CardToken::new(&key, &mac).unwrap())
}

fn amount() -> impl Strategy<Value = AmountMinor> {
    (0..=AmountMinor::MAX).prop_map(|minor| AmountMinor::try_from(minor).unwrap())
}

fn currency() -> impl Strategy<Value = Currency> {
    select(vec!["USD", "EUR", "JPY", "KWD", "CLF", "ZWG"]).prop_map(|code| code.parse().unwrap())
}

/// Finite numbers of every size, whole ones and the neighbours of whole ones among them.
fn number() -> impl Strategy<Value = f64> {
    let whole = any::<i64>().prop_map(|n| n as f64);
    let ratio = (any::<i32>(), 1..10_000_i32).prop_map(|(a, b)| f64::from(a) / f64::from(b));
    prop_oneof![whole, ratio, any::<f64>()].prop_filter("finite", |n| n.is_finite())
}

prop_compose! {
    fn card()(
        token in token(), bin in "[0-9]{6}|[0-9]{8}", last4 in "[0-9]{4}", brand in text(),
        exp_month in 1..=12_u8, exp_year in 2000..2100_u16,
    ) -> Card {
        Card { token, bin, last4, brand, exp_month, exp_year }
    }
}

prop_compose! {
    fn customer()(id in option::of(text()), email in option::of(text()), phone in option::of(text())) -> Customer {
        Customer { id, email, phone }
    }
}

prop_compose! {
    fn device()(id in option::of(text()), ip in option::of(text()), user_agent in option::of(text())) -> Device {
        Device { id, ip, user_agent }
    }
}

prop_compose! {
    fn address()(
        country in option::of(text()), city in option::of(text()), postal_code in option::of(text()),
    ) -> Address {
        Address { country, city, postal_code }
    }
}

prop_compose! {
    fn location()(country in option::of(text()), lat in -90.0..=90.0, lon in -180.0..=180.0) -> Location {
        Location { country, lat, lon }
    }
}

fn test_behaviour() -> impl Strategy<Value = TestBehaviour> {
    select(vec![TestBehaviour::Decline, TestBehaviour::Block, TestBehaviour::ElevatedRisk])
}

prop_compose! {
    fn transaction()(
        (id, merchant_id, accepted_at_us, livemode) in (id(), merchant(), any::<i64>(), any::<bool>()),
        (amount_minor, currency, reporting_amount_minor) in (amount(), currency(), option::of(any::<i64>())),
        (card, customer, device) in (card(), customer(), device()),
        (billing, shipping, location) in (address(), address(), option::of(location())),
        (mcc, terminal_id) in (option::of(text()), option::of(text())),
        metadata in prop::collection::btree_map(text(), text(), 0..4),
        test_behaviour in option::of(test_behaviour()),
        idempotency_key in option::of(text()),
        request_fingerprint in text(),
    ) -> Transaction {
        Transaction {
            id, merchant_id, accepted_at_us, livemode, amount_minor, currency, reporting_amount_minor,
            card, customer, device, billing, shipping, location, mcc, terminal_id, metadata,
            test_behaviour, idempotency_key, request_fingerprint,
        }
    }
}

prop_compose! {
    fn reason()(
        code in text(), rule in text(), message in text(),
        observed in number(), limit in number(), points: u32,
    ) -> Reason {
        Reason { code: code.into(), rule: rule.into(), message, observed, limit, points }
    }
}

fn reasons() -> impl Strategy<Value = Vec<Reason>> {
    prop::collection::vec(reason(), 0..4)
}

prop_compose! {
    fn decision()(
        transaction_id in id(), window_time_us: i64, outcome in select(Outcome::ALL.to_vec()),
        risk_score in 0..=100_u8, reasons in reasons(), shadow_reasons in reasons(), ruleset in text(),
        model in option::of(text()),
    ) -> Decision {
        let risk_level = RiskLevel::of_score(risk_score);
        Decision {
            transaction_id, window_time_us, outcome, risk_score, risk_level, reasons, shadow_reasons,
            ruleset: ruleset.into(), model,
        }
    }
}

prop_compose! {
    fn decided()(
        seq: u64, source_partition: u32, source_offset: u64, decided_at_us: i64,
        taken in option::of(taken()),
        transaction in transaction(), decision in decision(),
    ) -> Decided {
        Decided { seq, lanes: 1 + source_partition % 3, source_partition, source_offset, decided_at_us, taken, transaction, decision }
    }
}

prop_compose! {
    fn alert()(
        (alert, transaction_id, merchant_id, raised_at_us) in (any::<u128>(), id(), merchant(), any::<i64>()),
        severity in select(Severity::ALL.to_vec()), outcome in select(Outcome::ALL.to_vec()),
        risk_score: u8, card_token in token(), card_masked in text(), amount_minor in amount(),
        currency in currency(), livemode: bool, reasons in reasons(),
    ) -> Alert {
        let id = AlertId::from_uuid(uuid::Uuid::from_u128(alert));
        Alert {
            id, transaction_id, merchant_id, raised_at_us, severity, outcome, risk_score, card_token,
            card_masked, amount_minor, currency, livemode, reasons,
        }
    }
}

prop_compose! {
    fn label()(
        transaction_id in id(), window_time_us: i64, source_partition: u32, merchant_id in merchant(),
        verdict in select(vec![Verdict::Fraud, Verdict::Legit]),
        source in select(vec![
            LabelSource::Chargeback, LabelSource::Analyst, LabelSource::Merchant, LabelSource::Telegram,
        ]),
        labelled_at_us: i64, note in option::of(text()),
    ) -> Label {
        Label { transaction_id, window_time_us, source_partition, merchant_id, verdict, source, labelled_at_us, note }
    }
}

fn taken() -> impl Strategy<Value = Taken> {
    let offsets = || prop::collection::vec(any::<u64>(), 0..5);
    (offsets(), offsets()).prop_map(|(labelled, lists)| Taken { labelled, lists })
}

fn list_scope() -> impl Strategy<Value = ListScope> {
    let merchant = (merchant(), any::<bool>())
        .prop_map(|(merchant_id, livemode)| ListScope::Merchant { merchant_id, livemode });
    prop_oneof![Just(ListScope::All), merchant]
}

prop_compose! {
    fn list_change()(
        list in "[a-z0-9_]{1,64}", scope in list_scope(), value in text(),
        action in select(vec![ListAction::Add, ListAction::Remove]),
        expires_at_us in option::of(any::<i64>()),
        source in select(vec![
            ListSource::Merchant, ListSource::Operator, ListSource::Analyst, ListSource::Telegram,
        ]),
        changed_at_us: i64, note in option::of(text()),
    ) -> ListChange {
        let list = list.parse().unwrap();
        ListChange { list, scope, value, action, expires_at_us, source, changed_at_us, note }
    }
}

fn round_trip<M: Message + PartialEq + std::fmt::Debug>(message: &M) -> Result<(), TestCaseError> {
    let bytes = message.encode();
    let read = M::decode(&bytes).map_err(|e| TestCaseError::fail(e.to_string()))?;
    prop_assert_eq!(&read, message);
    // And the bytes are the same the second time: a record that is copied on does not drift.
    prop_assert_eq!(read.encode(), &bytes[..]);
    // However its envelope is written, and with its text.
    let spaced = [b" ", &bytes[..]].concat();
    prop_assert_eq!(&M::decode(&spaced).map_err(|e| TestCaseError::fail(e.to_string()))?, message);
    let (read, text) = M::decode_with_text(&bytes).map_err(|e| TestCaseError::fail(e.to_string()))?;
    prop_assert_eq!(&read, message);
    let end = format!("\"data\":{text}}}");
    prop_assert!(bytes.ends_with(end.as_bytes()));
    Ok(())
}

proptest! {
    #[test]
    fn any_transaction_reads_back_as_written(message in transaction()) {
        round_trip(&message)?;
    }

    #[test]
    fn any_decided_record_reads_back_as_written(message in decided()) {
        round_trip(&message)?;
    }

    #[test]
    fn a_decided_record_is_the_same_when_its_parts_are_borrowed(message in decided()) {
        let (_, text) = Transaction::decode_with_text(&message.transaction.encode()).unwrap();
        let Decided { seq, lanes, source_partition, source_offset, decided_at_us, ref taken, ref decision, .. } = message;
        let taken = taken.clone();
        let borrowed = Decided {
            seq, lanes, source_partition, source_offset, decided_at_us, taken, transaction: &*text, decision,
        };
        prop_assert_eq!(borrowed.encode(), message.encode());
    }

    #[test]
    fn any_alert_reads_back_as_written(message in alert()) {
        round_trip(&message)?;
    }

    #[test]
    fn any_label_reads_back_as_written(message in label()) {
        round_trip(&message)?;
    }

    #[test]
    fn any_list_change_reads_back_as_written(message in list_change()) {
        round_trip(&message)?;
    }

    /// A value in its one form reads back as itself, and is written as it was.
    #[test]
    fn a_value_of_a_list_has_one_form(
        kind in select(ListKind::ALL.to_vec()),
        text in prop_oneof![
            any::<String>(), "[0-9]{2,8}(-[0-9]{2,8})?", "[0-9]{1,3}(\\.[0-9]{1,3}){3}(/[0-9]{1,2})?",
            "([0-9a-f]{0,4}:){1,7}[0-9a-f]{0,4}(/[0-9]{1,3})?", "[A-Za-z]{2}", "[A-Zaİß.]{0,5}@[A-Z.a]{1,5}",
        ],
    ) {
        if let Ok(value) = ListValue::parse(kind, &text) {
            let written = value.to_string();
            let again = ListValue::parse(kind, &written);
            prop_assert_eq!(again.as_ref(), Ok(&value));
            prop_assert_eq!(again.unwrap().to_string(), written);
        }
    }

    #[test]
    fn no_bytes_make_decoding_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Transaction::decode(&bytes).is_err());
    }

    /// A message with one byte changed is refused, or is a message: never a panic.
    #[test]
    fn a_damaged_message_does_not_make_decoding_panic(message in decided(), at: prop::sample::Index, to: u8) {
        let mut bytes = message.encode();
        let at = at.index(bytes.len());
        bytes[at] = to;
        let _ = Decided::decode(&bytes);
    }
}
