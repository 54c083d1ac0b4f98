//! The bytes themselves: whoever renames a field, changes a type or reorders what is written fails here. A
//! change that other readers cannot take needs a new version, see `docs/events.md`.

use events::{
    AlertId, Currency, Label, LabelSource, ListAction, ListChange, ListKind, ListScope, ListSource, Message,
    Outcome, RiskLevel, Severity, TestBehaviour, Transaction, Verdict, topics,
};

use crate::examples;

const SCHEMA: &str = include_str!("../../../docs/events.md");

/// The example of a message in its schema, which is the golden form.
fn written_example(kind: &str) -> serde_json::Value {
    let start = format!("```json\n{{\"type\": \"{kind}\",");
    let at = SCHEMA.find(&start).unwrap_or_else(|| panic!("docs/events.md has no example of `{kind}`"));
    let example = SCHEMA[at..].trim_start_matches("```json\n");
    let (example, _) = example.split_once("```").unwrap();
    serde_json::from_str(example).unwrap()
}

fn holds<M: Message + PartialEq + std::fmt::Debug>(message: &M) {
    let written: serde_json::Value = serde_json::from_slice(&message.encode()).unwrap();
    let golden = written_example(M::TYPE);
    assert_eq!(written, golden, "`{}` is written otherwise than docs/events.md says", M::TYPE);
    assert_eq!(&M::decode(golden.to_string().as_bytes()).unwrap(), message);
}

#[test]
fn a_transaction_is_written_as_its_schema_says() {
    holds(&examples::transaction());
}

#[test]
fn a_decided_record_is_written_as_its_schema_says() {
    holds(&examples::decided());
}

#[test]
fn an_alert_is_written_as_its_schema_says() {
    holds(&examples::alert());
}

#[test]
fn a_label_is_written_as_its_schema_says() {
    holds(&examples::label());
}

#[test]
fn a_list_change_is_written_as_its_schema_says() {
    holds(&examples::list_change());
}

/// A row of the schema's tables names the field in its first column.
fn is_documented(field: &str) -> bool {
    SCHEMA.lines().any(|line| line.starts_with(&format!("| `{field}` |")))
}

fn undocumented(value: &serde_json::Value, found: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, value) in fields {
                if !is_documented(name) {
                    found.push(name.clone());
                }
                if name != "metadata" {
                    undocumented(value, found);
                }
            }
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| undocumented(value, found)),
        _ => {}
    }
}

#[test]
fn every_field_has_a_row_in_the_schema() {
    let mut found = Vec::new();
    for kind in ["transaction", "decided", "alert", "label", "list_change"] {
        undocumented(&written_example(kind)["data"], &mut found);
    }
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn a_bare_transaction_is_written_without_what_it_lacks() {
    let written = String::from_utf8(examples::bare_transaction().encode()).unwrap();
    assert_eq!(
        written,
        concat!(
            r#"{"type":"transaction","v":1,"data":{"id":"txn_229050686a6d503f8cfe76f299b3cd6b","#,
            r#""merchant_id":"merchant-1","accepted_at_us":1795219200123456,"livemode":false,"#,
            r#""amount_minor":10050,"currency":"USD","#,
            r#""card":{"token":"tok_k1_abababababababababababababababab","bin":"41111111","last4":"1111","#,
            r#""brand":"visa","exp_month":12,"exp_year":2028},"request_fingerprint":"9f86d081884c7d65"}}"#,
        )
    );
    assert_eq!(Transaction::decode(written.as_bytes()).unwrap(), examples::bare_transaction());
}

#[test]
fn a_label_without_a_note_is_written_without_one() {
    let label = Label { note: None, ..examples::label() };
    let written = String::from_utf8(label.encode()).unwrap();
    assert!(!written.contains("note"), "{written}");
    assert_eq!(Label::decode(written.as_bytes()).unwrap(), label);
}

#[test]
fn a_list_change_for_everyone_is_written_without_what_it_lacks() {
    let change =
        ListChange { scope: ListScope::All, expires_at_us: None, note: None, ..examples::list_change() };
    let written = String::from_utf8(change.encode()).unwrap();
    assert_eq!(
        written,
        concat!(
            r#"{"type":"list_change","v":1,"data":{"list":"block_card","scope":{"of":"all"},"#,
            r#""value":"tok_k1_abababababababababababababababab","action":"add","source":"merchant","#,
            r#""changed_at_us":1795222800123456}}"#,
        )
    );
    assert_eq!(ListChange::decode(written.as_bytes()).unwrap(), change);
}

#[test]
fn all_changes_to_one_entry_of_a_list_have_one_key() {
    let change = examples::list_change();
    let removed = ListChange { action: ListAction::Remove, changed_at_us: 0, ..change.clone() };
    assert_eq!(change.key(), "block_card merchant-1/test tok_k1_abababababababababababababababab");
    assert_eq!(removed.key(), change.key());
    assert_ne!(ListChange { scope: ListScope::All, ..change.clone() }.key(), change.key());
}

#[test]
fn whole_figures_are_written_as_integers_and_others_exactly() {
    let written = |observed: f64, limit: f64| {
        let reason = events::Reason { observed, limit, ..examples::reason() };
        let value = serde_json::to_value(reason).unwrap();
        (value["observed"].to_string(), value["limit"].to_string())
    };
    assert_eq!(written(12.0, 0.0), ("12".to_owned(), "0".to_owned()));
    assert_eq!(written(-3.0, 0.1), ("-3".to_owned(), "0.1".to_owned()));
    assert_eq!(
        written(1e300, 33.333_333_333_333_336),
        ("1e+300".to_owned(), "33.333333333333336".to_owned())
    );
}

#[test]
fn a_figure_that_is_no_number_leaves_the_record_readable() {
    for strange in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let mut decided = examples::decided();
        decided.decision.reasons[0].observed = strange;
        let read = events::Decided::decode(&decided.encode()).unwrap();
        assert!(read.decision.reasons[0].observed.is_nan());
        assert_eq!(read.transaction, decided.transaction);
    }
}

#[test]
fn words_on_the_wire_are_those_that_tables_and_labels_use() {
    fn written<T: serde::Serialize>(value: T) -> String {
        serde_json::to_value(value).unwrap().as_str().unwrap().to_owned()
    }
    for outcome in Outcome::ALL {
        assert_eq!(written(outcome), outcome.as_str());
        assert_eq!(outcome.to_string(), outcome.as_str());
    }
    for severity in Severity::ALL {
        assert_eq!(written(severity), severity.as_str());
        assert_eq!(severity.to_string(), severity.as_str());
    }
    for level in [RiskLevel::Normal, RiskLevel::Elevated, RiskLevel::Highest] {
        assert_eq!(written(level), level.as_str());
    }
    for behaviour in [TestBehaviour::Decline, TestBehaviour::Block, TestBehaviour::ElevatedRisk] {
        assert_eq!(written(behaviour), behaviour.as_str());
    }
    for verdict in [Verdict::Fraud, Verdict::Legit] {
        assert_eq!(written(verdict), verdict.as_str());
    }
    use LabelSource::{Analyst, Chargeback, Merchant, Telegram};
    for source in [Chargeback, Analyst, Merchant, Telegram] {
        assert_eq!(written(source), source.as_str());
    }
    for kind in ListKind::ALL {
        assert_eq!(written(kind), kind.as_str());
    }
    for action in [ListAction::Add, ListAction::Remove] {
        assert_eq!(written(action), action.as_str());
    }
    for source in [ListSource::Merchant, ListSource::Operator, ListSource::Analyst, ListSource::Telegram] {
        assert_eq!(written(source), source.as_str());
    }
}

#[test]
fn outcomes_and_severities_are_ordered_from_mild_to_severe() {
    assert!(Outcome::ALL.is_sorted());
    assert!(Severity::ALL.is_sorted());
    assert!(Outcome::Approve < Outcome::Review && Outcome::Challenge < Outcome::Decline);
    assert!(Severity::Low < Severity::Critical);
}

#[test]
fn the_bands_of_the_risk_score_are_those_of_the_product() {
    for (score, level) in [
        (0, RiskLevel::Normal),
        (64, RiskLevel::Normal),
        (65, RiskLevel::Elevated),
        (74, RiskLevel::Elevated),
        (75, RiskLevel::Highest),
        (100, RiskLevel::Highest),
    ] {
        assert_eq!(RiskLevel::of_score(score), level, "{score}");
    }
}

#[test]
fn a_card_is_shown_with_six_digits_of_its_bin() {
    let mut card = examples::transaction().card;
    assert_eq!(card.masked(), "411111••••••1111");
    card.bin = "411111".to_owned();
    assert_eq!(card.masked(), "411111••••••1111");
}

#[test]
fn topics_are_named_as_their_schema_says() {
    assert_eq!(
        topics::ALL,
        [
            "transactions.created",
            "transactions.decided",
            "transactions.labelled",
            "lists.changed",
            "fraud.alerts"
        ]
    );
    for (topic, dead) in topics::ALL.into_iter().zip(topics::DEAD_LETTERS) {
        assert!(SCHEMA.contains(&format!("`{topic}`")), "{topic}");
        assert_eq!(topics::dead_letter(topic), dead);
        assert_eq!(dead, format!("{topic}.dlq"));
    }
    assert_eq!(AlertId::derive(examples::transaction_id()), examples::alert().id);
    let usd: Currency = "USD".parse().unwrap();
    assert_eq!(examples::alert().currency, usd);
}

#[test]
#[should_panic(expected = "`nope` has no dead-letter topic")]
fn a_topic_that_is_none_has_no_dead_letters() {
    let _ = topics::dead_letter("nope");
}
