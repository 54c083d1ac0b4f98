//! A merchant says what a transaction turned out to be.

use events::{LabelSource, Verdict};
use serde_json::json;

use crate::support::{Fault, Gate, canonical};

#[tokio::test]
async fn a_label_is_durable_and_echoed() {
    let gate = Gate::open().await;
    let id = gate.post("/v1/transactions", &canonical()).await.id();
    let path = format!("/v1/transactions/{id}/labels");
    let answer = gate.post(&path, &json!({"verdict": "fraud", "note": "chargeback announced"})).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let mut json = answer.json();
    assert!(json["labelled_at"].as_str().unwrap().ends_with('Z'));
    json.as_object_mut().unwrap().remove("labelled_at");
    let expected = json!({"transaction_id": id, "verdict": "fraud", "source": "merchant", "note": "chargeback announced"});
    assert_eq!(json, expected);
    gate.post(&path, &json!({"verdict": "legit"})).await;
    let labels = gate.labels().await;
    assert_eq!(labels.len(), 2);
    assert_eq!((labels[0].verdict, labels[0].source), (Verdict::Fraud, LabelSource::Merchant));
    assert_eq!((labels[1].verdict, labels[1].note.as_deref()), (Verdict::Legit, None));
    assert!(labels.iter().all(|l| l.transaction_id.to_string() == id && l.merchant_id.as_str() == "test"));
    assert!(labels[0].labelled_at_us <= labels[1].labelled_at_us);
}

#[tokio::test]
async fn a_wrong_label_is_refused_with_its_fields() {
    let gate = Gate::open().await;
    let id = gate.post("/v1/transactions", &canonical()).await.id();
    let path = format!("/v1/transactions/{id}/labels");
    for (body, pointer, code) in [
        (json!({}), "/verdict", "required"),
        (json!({"verdict": "maybe"}), "/verdict", "format"),
        (json!({"verdict": true}), "/verdict", "type"),
        (json!({"verdict": "fraud", "note": "x".repeat(501)}), "/note", "too_long"),
        (json!({"verdict": "fraud", "note": "card 4111 1111 1111 1111"}), "/note", "card_number_in_text"),
        (json!({"verdict": "fraud", "source": "analyst"}), "/source", "unknown_field"),
    ] {
        let errors = gate.post(&path, &body).await.problem(422, "validation");
        assert_eq!(errors, [(pointer.to_owned(), code.to_owned())]);
    }
    let unknown = "/v1/transactions/txn_00000000000000000000000000000000/labels";
    gate.post(unknown, &json!({"verdict": "fraud"})).await.problem(404, "not-found");
    gate.log.set(Fault::Full);
    gate.post(&path, &json!({"verdict": "fraud"})).await.problem(503, "unavailable");
    assert_eq!(gate.labels().await.len(), 0);
}
