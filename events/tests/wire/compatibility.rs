//! What a reader makes of bytes that are not what it would write itself.

use events::{Alert, Decided, DecodeError, Label, Message, Transaction};
use serde_json::{Value, json};

use crate::examples;

fn value<M: Message>(message: &M) -> Value {
    serde_json::from_slice(&message.encode()).unwrap()
}

fn decode<M: Message>(value: &Value) -> Result<M, DecodeError> {
    M::decode(value.to_string().as_bytes())
}

/// Adds a field to every object.
fn add_unknown_fields(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            // Metadata is a map of the merchant's own: anything in it is known.
            fields
                .iter_mut()
                .filter(|(name, _)| *name != "metadata")
                .for_each(|(_, v)| add_unknown_fields(v));
            fields.insert("added_later".to_owned(), json!({"deep": [1, 2.5, null, "x"]}));
        }
        Value::Array(values) => values.iter_mut().for_each(add_unknown_fields),
        _ => {}
    }
}

fn accepts_unknown_fields<M: Message + PartialEq + std::fmt::Debug>(message: &M) {
    let mut extended = value(message);
    add_unknown_fields(&mut extended);
    assert_ne!(extended, value(message));
    assert_eq!(&decode::<M>(&extended).unwrap(), message);
}

#[test]
fn a_field_added_by_a_later_writer_is_ignored_at_every_depth() {
    accepts_unknown_fields(&examples::transaction());
    accepts_unknown_fields(&examples::decided());
    accepts_unknown_fields(&examples::alert());
    accepts_unknown_fields(&examples::label());
    accepts_unknown_fields(&examples::list_change());
}

#[test]
fn the_order_of_fields_and_white_space_do_not_matter() {
    let mut envelope = value(&examples::label());
    let data = envelope["data"].take();
    let text = format!(" {{ \"data\" : {data:#}\n, \"v\":1,\"type\" :\"label\" }}\n");
    assert_eq!(Label::decode(text.as_bytes()).unwrap(), examples::label());
}

#[test]
fn fields_of_the_envelope_after_the_data_do_not_matter_unless_they_say_otherwise() {
    let transaction = examples::transaction();
    let written = String::from_utf8(transaction.encode()).unwrap();
    let with = |more: &str| format!("{},{more}}}", written.strip_suffix('}').unwrap());
    assert_eq!(Transaction::decode(with(r#""later":1"#).as_bytes()).unwrap(), transaction);
    let twice = Transaction::decode(with(r#""v":2"#).as_bytes());
    assert!(matches!(twice, Err(DecodeError::NotAnEnvelope(_))), "{twice:?}");
}

#[test]
fn an_unknown_version_is_an_error_that_says_which() {
    for version in [0, 2, 65_535] {
        let mut later = value(&examples::transaction());
        later["v"] = json!(version);
        assert_eq!(
            decode::<Transaction>(&later).unwrap_err(),
            DecodeError::UnknownVersion { kind: "transaction", known: 1, found: version }
        );
    }
    // Even when the data of that version looks like nothing this build knows.
    let later = json!({"type": "alert", "v": 2, "data": ["anything"]});
    assert!(matches!(decode::<Alert>(&later), Err(DecodeError::UnknownVersion { found: 2, .. })));
}

#[test]
fn a_message_of_another_type_is_an_error_that_names_both() {
    let error = Label::decode(&examples::alert().encode()).unwrap_err();
    assert_eq!(error, DecodeError::WrongType { expected: "label", found: "alert".to_owned() });
    assert_eq!(error.to_string(), "expected a `label` message, found `alert`");
}

#[test]
fn what_is_no_envelope_is_an_error_of_its_own() {
    let whole = examples::label().encode();
    let no_envelopes: Vec<Vec<u8>> = vec![
        vec![],
        b"hello".to_vec(),
        b"\xff\xfe\x00".to_vec(),
        b"null".to_vec(),
        b"[]".to_vec(),
        b"{}".to_vec(),
        br#"{"type":"label","v":1}"#.to_vec(),
        br#"{"type":"label","data":{}}"#.to_vec(),
        br#"{"v":1,"data":{}}"#.to_vec(),
        br#"{"type":1,"v":1,"data":{}}"#.to_vec(),
        br#"{"type":"label","v":"1","data":{}}"#.to_vec(),
        br#"{"type":"label","v":-1,"data":{}}"#.to_vec(),
        br#"{"type":"label","v":65536,"data":{}}"#.to_vec(),
        whole[..whole.len() - 1].to_vec(),
        [&whole[..], b"{}"].concat(),
    ];
    for bytes in no_envelopes {
        let error = Label::decode(&bytes).unwrap_err();
        assert!(
            matches!(error, DecodeError::NotAnEnvelope(_)),
            "{:?} gave {error:?}",
            String::from_utf8_lossy(&bytes)
        );
    }
}

/// Sets what stands at a JSON pointer; removes it where there is no value to set.
fn changed(message: &Value, pointer: &str, to: Option<Value>) -> Value {
    let mut changed = message.clone();
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    let parent = changed.pointer_mut(parent).unwrap().as_object_mut().unwrap();
    match to {
        Some(to) => parent.insert(field.to_owned(), to),
        None => parent.remove(field),
    };
    changed
}

fn malformed<M: Message + std::fmt::Debug>(
    message: &M,
    pointer: &str,
    to: impl Into<Option<Value>>,
    says: &str,
) {
    let to = to.into();
    let error = decode::<M>(&changed(&value(message), pointer, to.clone())).unwrap_err();
    match &error {
        DecodeError::Malformed { kind, reason } if *kind == M::TYPE && reason.contains(says) => {}
        _ => panic!("{pointer} = {to:?} gave {error:?}, which does not say `{says}`"),
    }
}

#[test]
fn a_field_of_the_wrong_form_is_an_error_that_says_what_was_expected() {
    let transaction = examples::transaction();
    malformed(&transaction, "/data/id", json!("txn_1"), "transaction id: expected `txn_`");
    malformed(&transaction, "/data/id", None::<Value>, "missing field `id`");
    malformed(&transaction, "/data/merchant_id", json!("Mr Smith"), "merchant id: expected");
    malformed(&transaction, "/data/amount_minor", json!(-1), "between 0 and 999999999999");
    malformed(&transaction, "/data/amount_minor", json!(1_000_000_000_000_i64), "between 0 and");
    malformed(&transaction, "/data/amount_minor", json!(1.5), "invalid type");
    malformed(&transaction, "/data/amount_minor", json!("1"), "invalid type");
    malformed(&transaction, "/data/currency", json!("usd"), "ISO 4217");
    malformed(&transaction, "/data/currency", json!("XXX"), "ISO 4217");
    malformed(&transaction, "/data/card/token", json!("4111111111111111"), "card token: expected");
    malformed(&transaction, "/data/card/exp_month", json!(300), "invalid value");
    malformed(&transaction, "/data/location/lat", json!("51"), "expected a number");
    malformed(&transaction, "/data/location/lon", json!(null), "expected a number");
    malformed(&transaction, "/data/test_behaviour", json!("explode"), "unknown variant `explode`");
    malformed(&examples::decided(), "/data/decision/outcome", json!("maybe"), "unknown variant `maybe`");
    malformed(&examples::decided(), "/data/decision/risk_score", json!(256), "invalid value");
    malformed(&examples::decided(), "/data/seq", json!(-1), "invalid value");
    malformed(&examples::decided(), "/data/transaction", None::<Value>, "missing field `transaction`");
    malformed(&examples::alert(), "/data/severity", json!("dire"), "unknown variant `dire`");
    malformed(&examples::alert(), "/data/id", json!("txn_00000000000000000000000000000000"), "alert id");
    malformed(&examples::label(), "/data/verdict", json!("guilty"), "unknown variant `guilty`");
    malformed(&examples::label(), "/data", json!([]), "");
    malformed(&examples::list_change(), "/data/list", json!("Block card"), "list id: expected");
    malformed(&examples::list_change(), "/data/scope/of", json!("everyone"), "unknown variant `everyone`");
    malformed(&examples::list_change(), "/data/scope/livemode", None::<Value>, "missing field");
    malformed(&examples::list_change(), "/data/action", json!("ban"), "unknown variant `ban`");
    malformed(&examples::list_change(), "/data/expires_at_us", json!("soon"), "invalid type");
}

#[test]
fn an_error_about_a_card_number_in_the_wrong_place_does_not_repeat_it() {
    let number = "4111111111111111";
    for pointer in ["/data/card/token", "/data/id", "/data/currency", "/data/merchant_id"] {
        let changed = changed(&value(&examples::transaction()), pointer, Some(json!(number)));
        if let Err(error) = decode::<Transaction>(&changed) {
            assert!(!error.to_string().contains(number), "{pointer}: {error}");
        }
    }
}

#[test]
fn what_may_be_left_out_may_be() {
    let mut decided = value(&examples::decided());
    for pointer in ["/data/decision/shadow_reasons", "/data/decision/model", "/data/transaction/customer"] {
        decided = changed(&decided, pointer, None);
    }
    let decided = decode::<Decided>(&decided).unwrap();
    assert!(decided.decision.shadow_reasons.is_empty());
    assert_eq!(decided.decision.model, None);
    assert!(decided.transaction.customer.is_empty());
}
