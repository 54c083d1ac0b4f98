//! One message of each type, with every field set.

use std::collections::BTreeMap;

use events::{
    Address, Alert, AlertId, AmountMinor, Card, CardToken, Customer, Decided, Decision, Device, Label,
    LabelSource, ListAction, ListChange, ListScope, ListSource, Location, MerchantId, Outcome, Reason,
    RiskLevel, Severity, Taken, TestBehaviour, Transaction, TransactionId, Verdict,
};

pub(crate) const ACCEPTED_AT_US: i64 = 1_795_219_200_123_456;

pub(crate) fn merchant() -> MerchantId {
    "merchant-1".parse().unwrap()
}

pub(crate) fn transaction_id() -> TransactionId {
    TransactionId::derive(&merchant(), "order-1001")
}

pub(crate) fn token() -> CardToken {
    CardToken::new("k1", &[0xab; 16]).unwrap()
}

pub(crate) fn transaction() -> Transaction {
    let text = |text: &str| Some(text.to_owned());
    Transaction {
        id: transaction_id(),
        merchant_id: merchant(),
        accepted_at_us: ACCEPTED_AT_US,
        livemode: false,
        amount_minor: AmountMinor::try_from(10_050).unwrap(),
        currency: "USD".parse().unwrap(),
        reporting_amount_minor: Some(9_246),
        card: Card {
            token: token(),
            bin: "41111111".to_owned(),
            last4: "1111".to_owned(),
            brand: "visa".to_owned(),
            exp_month: 12,
            exp_year: 2028,
        },
        customer: Customer {
            id: text("customer-7"),
            email: text("ada@example.com"),
            phone: text("+442079460000"),
        },
        device: Device { id: text("device-3"), ip: text("203.0.113.9"), user_agent: text("Mozilla/5.0") },
        billing: Address { country: text("GB"), city: text("London"), postal_code: text("N1 9GU") },
        shipping: Address { country: text("FR"), city: text("Paris"), postal_code: text("75001") },
        location: Some(Location { country: text("GB"), lat: 51.507_4, lon: -0.127_8 }),
        mcc: text("5732"),
        terminal_id: text("terminal-12"),
        metadata: BTreeMap::from([("basket".to_owned(), "42".to_owned())]),
        test_behaviour: Some(TestBehaviour::ElevatedRisk),
        idempotency_key: text("order-1001"),
        request_fingerprint: "9f86d081884c7d65".to_owned(),
    }
}

/// A transaction with nothing that may be left out.
pub(crate) fn bare_transaction() -> Transaction {
    Transaction {
        reporting_amount_minor: None,
        customer: Customer::default(),
        device: Device::default(),
        billing: Address::default(),
        shipping: Address::default(),
        location: None,
        mcc: None,
        terminal_id: None,
        metadata: BTreeMap::new(),
        test_behaviour: None,
        idempotency_key: None,
        ..transaction()
    }
}

pub(crate) fn reason() -> Reason {
    Reason {
        code: "velocity_card_count".into(),
        rule: "card-velocity-1h".into(),
        message: "12 payments with this card within an hour, 10 are usual at most".to_owned(),
        observed: 12.0,
        limit: 10.0,
        points: 40,
    }
}

pub(crate) fn decision() -> Decision {
    let shadow = Reason { rule: "amount-ratio".into(), observed: 3.75, limit: 2.5, points: 0, ..reason() };
    Decision {
        transaction_id: transaction_id(),
        window_time_us: ACCEPTED_AT_US + 1,
        outcome: Outcome::Challenge,
        risk_score: 70,
        risk_level: RiskLevel::Elevated,
        reasons: vec![reason()],
        shadow_reasons: vec![shadow],
        ruleset: "sha256:0011aabb".into(),
        model: Some("trees@3".to_owned()),
    }
}

pub(crate) fn decided() -> Decided {
    Decided {
        lanes: 1,
        seq: 41,
        source_partition: 2,
        source_offset: 17,
        decided_at_us: ACCEPTED_AT_US + 2_500,
        taken: Some(Taken { labelled: vec![3, 0, 12, 7], lists: vec![0, 41, 0, 5] }),
        transaction: transaction(),
        decision: decision(),
    }
}

pub(crate) fn alert() -> Alert {
    Alert {
        id: AlertId::derive(transaction_id()),
        transaction_id: transaction_id(),
        merchant_id: merchant(),
        raised_at_us: ACCEPTED_AT_US + 1,
        severity: Severity::High,
        outcome: Outcome::Challenge,
        risk_score: 70,
        card_token: token(),
        card_masked: transaction().card.masked(),
        amount_minor: AmountMinor::try_from(10_050).unwrap(),
        currency: "USD".parse().unwrap(),
        livemode: false,
        reasons: vec![reason()],
    }
}

pub(crate) fn label() -> Label {
    Label {
        transaction_id: transaction_id(),
        window_time_us: ACCEPTED_AT_US + 1,
        source_partition: 2,
        merchant_id: merchant(),
        verdict: Verdict::Fraud,
        source: LabelSource::Chargeback,
        labelled_at_us: ACCEPTED_AT_US + 604_800_000_000,
        note: Some("code 10.4".to_owned()),
    }
}

pub(crate) fn list_change() -> ListChange {
    ListChange {
        list: "block_card".parse().unwrap(),
        scope: ListScope::Merchant { merchant_id: merchant(), livemode: false },
        value: token().to_string(),
        action: ListAction::Add,
        expires_at_us: Some(ACCEPTED_AT_US + 2_592_000_000_000),
        source: ListSource::Merchant,
        changed_at_us: ACCEPTED_AT_US + 3_600_000_000,
        note: Some("two chargebacks".to_owned()),
    }
}
