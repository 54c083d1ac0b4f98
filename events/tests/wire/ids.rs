//! Identifiers: one textual form, and nothing else parses.

use events::{AlertId, CardToken, MerchantId, TransactionId};
use proptest::prelude::*;

use crate::examples;

/// What a merchant's retry, or a second scoring, must find again for ever.
#[test]
fn derived_ids_never_change() {
    let merchant: MerchantId = "merchant-1".parse().unwrap();
    let transaction = TransactionId::derive(&merchant, "order-1001");
    assert_eq!(transaction.to_string(), "txn_229050686a6d503f8cfe76f299b3cd6b");
    assert_eq!(AlertId::derive(transaction).to_string(), "alr_bf4044e9d2325ba39085a7c08e9004a3");
}

#[test]
fn derived_ids_tell_merchants_and_keys_apart() {
    let derive = |merchant: &str, key: &str| TransactionId::derive(&merchant.parse().unwrap(), key);
    assert_eq!(derive("a", "key"), derive("a", "key"));
    assert_ne!(derive("a", "key"), derive("b", "key"));
    assert_ne!(derive("a", "key"), derive("a", "key2"));
    assert_ne!(derive("a", "bkey"), derive("ab", "key"));
    assert_ne!(derive("a", ""), derive("a", " "));
}

#[test]
fn random_ids_differ() {
    assert_ne!(TransactionId::random(), TransactionId::random());
}

proptest! {
    #[test]
    fn a_transaction_id_parses_from_what_it_prints(id: u128) {
        let id = TransactionId::from_uuid(uuid::Uuid::from_u128(id));
        prop_assert_eq!(id.to_string().parse::<TransactionId>().unwrap(), id);
        prop_assert_eq!(id.to_string().len(), 36);
        prop_assert_eq!(format!("{id:?}"), id.to_string());
        prop_assert!(id.to_string().parse::<AlertId>().is_err());
    }

    #[test]
    fn an_alert_id_parses_from_what_it_prints(id: u128) {
        let id = AlertId::from_uuid(uuid::Uuid::from_u128(id));
        prop_assert_eq!(id.to_string().parse::<AlertId>().unwrap(), id);
        prop_assert!(id.to_string().parse::<TransactionId>().is_err());
    }

    #[test]
    fn a_card_token_parses_from_what_it_prints(key in "[a-z0-9]{1,16}", mac: [u8; 16]) {
        let token = CardToken::new(&key, &mac).unwrap();
        prop_assert_eq!(token.to_string().parse::<CardToken>().unwrap(), token);
    }

    #[test]
    fn a_merchant_id_parses_from_what_it_prints(text in "[a-z0-9_-]{1,64}") {
        let id: MerchantId = text.parse().unwrap();
        prop_assert_eq!(id.to_string(), text);
    }

    #[test]
    fn nothing_else_is_an_id(text in ".{0,80}") {
        let is_merchant = text.parse::<MerchantId>().is_ok();
        prop_assert_eq!(
            is_merchant,
            (1..=64).contains(&text.len())
                && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'))
        );
        // What parses prints the same: there are not two texts for one id.
        if let Ok(id) = text.parse::<TransactionId>() {
            prop_assert_eq!(id.to_string(), text.clone());
        }
        if let Ok(token) = text.parse::<CardToken>() {
            prop_assert_eq!(token.to_string(), text);
        }
    }

    #[test]
    fn an_id_with_one_character_changed_still_has_one_form(at in 0..36_usize, to in any::<char>()) {
        let mut text: Vec<char> = examples::transaction_id().to_string().chars().collect();
        text[at] = to;
        let text: String = text.into_iter().collect();
        if let Ok(id) = text.parse::<TransactionId>() {
            prop_assert_eq!(id.to_string(), text);
        }
    }
}

#[test]
fn other_forms_of_an_id_are_refused_with_what_was_expected() {
    let good = "txn_0123456789abcdef0123456789abcdef";
    good.parse::<TransactionId>().unwrap();
    for bad in [
        "",
        "txn_",
        "0123456789abcdef0123456789abcdef",
        "TXN_0123456789abcdef0123456789abcdef",
        "txn_0123456789ABCDEF0123456789abcdef",
        "txn_0123456789abcdef0123456789abcde",
        "txn_0123456789abcdef0123456789abcdef0",
        "txn_01234567-89ab-cdef-0123-456789abcdef",
        "txn_{123456789abcdef0123456789abcde}",
        " txn_0123456789abcdef0123456789abcdef",
        "alr_0123456789abcdef0123456789abcdef",
    ] {
        let error = bad.parse::<TransactionId>().unwrap_err().to_string();
        assert_eq!(error, "transaction id: expected `txn_` and 32 lower-case hexadecimal digits", "{bad}");
    }
}

#[test]
fn other_forms_of_a_card_token_are_refused() {
    "tok_k1_0123456789abcdef0123456789abcdef".parse::<CardToken>().unwrap();
    for bad in [
        "",
        "tok_",
        "tok__0123456789abcdef0123456789abcdef",
        "tok_k1_0123456789abcdef0123456789abcde",
        "tok_k1_0123456789abcdef0123456789abcdeg",
        "tok_k1_0123456789ABCDEF0123456789abcdef",
        "tok_K1_0123456789abcdef0123456789abcdef",
        "tok_k_1_0123456789abcdef0123456789abcdef",
        "tok_abcdefghijklmnopq_0123456789abcdef0123456789abcdef",
        "4111111111111111",
    ] {
        assert!(bad.parse::<CardToken>().is_err(), "{bad}");
    }
    for key in ["", "K1", "k_1", "k-1", "abcdefghijklmnopq"] {
        assert!(CardToken::new(key, &[0; 16]).is_err(), "{key}");
    }
}
