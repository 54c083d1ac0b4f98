//! Made-up alerts: for `paystream alerter check-config` and for tests.

use events::{Alert, AlertId, AmountMinor, CardToken, Outcome, Reason, Severity, TransactionId};

/// An alert as scoring would raise it: high, declined, 100.50 USD on a card of merchant `shop_1`, under a
/// live key. The same `n` makes the same alert; all have one card.
#[must_use]
pub fn alert(n: u64) -> Alert {
    let merchant = "shop_1".parse().expect("a valid merchant id");
    let transaction_id = TransactionId::derive(&merchant, &n.to_string());
    Alert {
        id: AlertId::derive(transaction_id),
        transaction_id,
        merchant_id: merchant,
        raised_at_us: 1_800_000_000_000_000 + i64::try_from(n).unwrap_or(i64::MAX / 2) * 1_000,
        severity: Severity::High,
        outcome: Outcome::Decline,
        risk_score: 88,
        card_token: CardToken::new("k1", &[7; 16]).expect("a valid key id"),
        card_masked: "411111••••••1111".to_owned(),
        amount_minor: AmountMinor::try_from(10_050).expect("within bounds"),
        currency: "USD".parse().expect("an ISO 4217 code"),
        livemode: true,
        reasons: vec![Reason {
            code: "velocity_card_count".into(),
            rule: "card_velocity_10m".into(),
            message: "7 transactions on this card in 10 minutes".to_owned(),
            observed: 7.0,
            limit: 5.0,
            points: 40,
        }],
    }
}
