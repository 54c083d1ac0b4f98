//! What is put on lists and taken off them.

use events::{ListAction, ListScope, ListSource};
use gateway::Scope;
use serde_json::{Value, json};

use crate::support::{Answer, Fault, Gate, bearer, canonical, complete, get, post, raw};

const CARDS: &str = "/v1/lists/block_card/entries";
const NUMBER: &str = "4929 4212 3460 0821";
const DIGITS: &str = "4929421234600821";

fn key(gate: &Gate, merchant: &str, livemode: bool, scopes: &[Scope]) -> String {
    bearer(&gate.keys.create(&merchant.parse().unwrap(), livemode, scopes).unwrap())
}

fn results(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    let text = std::str::from_utf8(&answer.body).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn an_entry_is_durable_in_its_one_form_and_so_is_its_removal() {
    let gate = Gate::open().await;
    let path = "/v1/lists/block_ip/entries";
    let body =
        json!({"value": "::ffff:10.0.0.0/104", "expires_at": "2099-01-31T01:00:00+01:00", "note": "botnet"});
    let answer = gate.post(path, &body).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let mut view = answer.json();
    assert!(view["changed_at"].as_str().unwrap().ends_with('Z'));
    view.as_object_mut().unwrap().remove("changed_at");
    let expected = json!({"list": "block_ip", "scope": "merchant", "value": "10.0.0.0/8", "action": "add",
        "expires_at": "2099-01-31T00:00:00.000Z", "note": "botnet"});
    assert_eq!(view, expected);
    let removed = gate.post(&format!("{path}/remove"), &json!({"value": "10.0.0.0/8"})).await;
    assert_eq!((removed.status.as_u16(), &removed.json()["action"]), (200, &json!("remove")));

    let changes = gate.list_changes().await;
    let actions: Vec<_> =
        changes.iter().map(|change| (change.action, change.expires_at_us.is_some())).collect();
    assert_eq!(actions, [(ListAction::Add, true), (ListAction::Remove, false)]);
    assert!(changes.iter().all(|change| change.key() == "block_ip test/test 10.0.0.0/8"));
    assert_eq!(changes[0].source, ListSource::Merchant);
    assert_eq!(gate.metric("paystream_gateway_list_changes_total"), 2.0);
}

#[tokio::test]
async fn a_card_is_named_by_its_number_its_token_or_a_transaction() {
    let gate = Gate::open().await;
    let mut transaction = complete();
    transaction["card"]["number"] = json!(NUMBER);
    let accepted = gate.post("/v1/transactions", &transaction).await;
    let token = accepted.json()["card"]["token"].as_str().unwrap().to_owned();
    for body in [
        json!({"card_number": NUMBER}),
        json!({"card_number": DIGITS, "note": "stolen"}),
        json!({"value": token}),
        json!({"transaction_id": accepted.id()}),
    ] {
        let answer = gate.post(CARDS, &body).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["value"]), (201, &json!(token)), "{answer:?}");
    }
    // Other kinds take theirs from the same transaction.
    for (kind, value) in
        [("bin", "49294212"), ("ip", "203.0.113.9"), ("email", "jane.doe@example.com"), ("device", "dev_1")]
    {
        let path = format!("/v1/lists/block_{kind}/entries");
        let answer = gate.post(&path, &json!({"transaction_id": accepted.id()})).await;
        assert_eq!((answer.status.as_u16(), &answer.json()["value"]), (201, &json!(value)), "{answer:?}");
    }
    // A transaction without a device has none to block; another merchant's is not there.
    let bare = gate.post("/v1/transactions", &canonical()).await.id();
    let answer = gate.post("/v1/lists/block_device/entries", &json!({"transaction_id": bare})).await;
    assert_eq!(answer.problem(422, "validation"), [("/transaction_id".to_owned(), "conflict".to_owned())]);
    let other = key(&gate, "other", false, &Scope::USUAL);
    let body = json!({"transaction_id": accepted.id()});
    gate.send(post(CARDS, &body, &[("authorization", &other)])).await.problem(404, "not-found");
}

#[tokio::test]
async fn a_wrong_entry_is_refused_with_its_fields_and_repeats_nothing() {
    let gate = Gate::open().await;
    let token = "tok_k1_abababababababababababababababab";
    for (list, body, pointer, code) in [
        ("card", json!({}), "/value", "required"),
        ("card", json!({"value": DIGITS}), "/value", "card_number_in_text"),
        ("card", json!({"value": "9999999999999995"}), "/value", "format"),
        ("card", json!({"card_number": "4929421234600822"}), "/card_number", "luhn"),
        ("card", json!({"card_number": 4_929_421_234_600_821_u64}), "/card_number", "type"),
        ("card", json!({"value": token, "card_number": DIGITS}), "", "conflict"),
        (
            "card",
            json!({"card_number": DIGITS, "note": format!("of {NUMBER}")}),
            "/note",
            "card_number_in_text",
        ),
        ("card", json!({"value": token, "note": "x".repeat(501)}), "/note", "too_long"),
        ("card", json!({"value": token, "expires_at": "tomorrow"}), "/expires_at", "format"),
        ("card", json!({"value": token, "expires_at": "2099-01-31T00:00:00"}), "/expires_at", "format"),
        ("card", json!({"value": token, "expires_at": "2020-01-31T00:00:00Z"}), "/expires_at", "range"),
        ("card", json!({"value": token, "scope": "everyone"}), "/scope", "format"),
        ("card", json!({"value": token, "expiry": 1}), "/expiry", "unknown_field"),
        ("bin", json!({"value": "4"}), "/value", "format"),
        ("bin", json!({"value": 411_111}), "/value", "type"),
        ("ip", json!({"value": "10.0.0.1/8"}), "/value", "format"),
        ("ip", json!({"card_number": DIGITS}), "/card_number", "unknown_field"),
        ("email", json!({"value": "jane"}), "/value", "format"),
        ("email", json!({"value": format!("{DIGITS}@shop.test")}), "/value", "card_number_in_text"),
        ("country", json!({"value": "UK"}), "/value", "format"),
        ("country", json!({"transaction_id": "txn_1"}), "/transaction_id", "unknown_field"),
        ("text", json!({"value": NUMBER}), "/value", "card_number_in_text"),
    ] {
        let answer = gate.post(&format!("/v1/lists/block_{list}/entries"), &body).await;
        let errors = answer.problem(422, "validation");
        assert!(errors.contains(&(pointer.to_owned(), code.to_owned())), "{body}: {errors:?}");
        let text = String::from_utf8_lossy(&answer.body);
        assert!(!text.contains(DIGITS) && !text.contains(NUMBER), "{text}");
    }
    let expiry_of_nothing = json!({"value": token, "expires_at": "2099-01-31T00:00:00Z"});
    let errors = gate.post(&format!("{CARDS}/remove"), &expiry_of_nothing).await.problem(422, "validation");
    assert_eq!(errors, [("/expires_at".to_owned(), "unknown_field".to_owned())]);
    gate.post("/v1/lists/nonsense/entries", &json!({"value": "x"})).await.problem(404, "not-found");
    gate.post(CARDS, &json!("x")).await.problem(400, "malformed-request");
    assert_eq!(gate.list_changes().await, []);
}

#[tokio::test]
async fn each_of_many_is_taken_or_refused_on_its_own_and_those_taken_are_written_together() {
    let gate = Gate::open().await;
    let body = concat!(
        r#"{"value":"10.0.0.0/8"}"#,
        "\n\n",
        r#"{"value":"nowhere"}"#,
        "\r\n",
        r#"{"value":"::1","note":"loop"}"#,
        "\n[]",
    );
    let path = "/v1/lists/block_ip/entries";
    let answer = gate.send(raw(path, body, &[("content-type", "application/x-ndjson")])).await;
    let seen: Vec<_> = results(&answer)
        .iter()
        .map(|r| (r["line"].as_u64().unwrap(), r["status"].as_u64().unwrap()))
        .collect();
    assert_eq!(seen, [(1, 201), (3, 422), (4, 201), (5, 400)]);
    let values: Vec<String> = gate.list_changes().await.into_iter().map(|change| change.value).collect();
    assert_eq!(values.len(), 2, "{values:?}");

    let entries: Vec<Value> =
        (0..1_000).map(|n| json!({"value": format!("10.1.{}.{}", n / 256, n % 256)})).collect();
    let answer = gate.send(post(path, &json!(entries), &[])).await;
    assert!(results(&answer).iter().all(|result| result["status"] == 201));
    let answer = gate.send(post(&format!("{path}/remove"), &json!(entries), &[])).await;
    assert!(results(&answer).iter().all(|result| result["status"] == 200));
    assert_eq!(gate.list_changes().await.len(), 2_002);
    let too_many: Vec<Value> = (0..1_001).map(|_| json!({"value": "::1"})).collect();
    gate.send(post(path, &json!(too_many), &[])).await.problem(413, "body-too-large");
    gate.send(raw(path, "[]", &[])).await.problem(400, "malformed-request");
}

#[tokio::test]
async fn nothing_is_confirmed_that_the_log_did_not_take() {
    let gate = Gate::open().await;
    let body = json!({"value": "10.0.0.0/8"});
    let path = "/v1/lists/block_ip/entries";
    gate.log.set(Fault::Full);
    gate.post(path, &body).await.problem(503, "unavailable");
    gate.send(post(path, &json!([body]), &[])).await.problem(503, "unavailable");
    gate.log.set(Fault::FailedUnwritten);
    gate.post(path, &body).await.problem(503, "unavailable");
    assert_eq!(gate.list_changes().await, []);
    assert_eq!(gate.metric("paystream_gateway_list_changes_total"), 0.0);
}

#[tokio::test]
async fn a_merchants_key_changes_its_own_scope_only() {
    let gate = Gate::open().await;
    let own = key(&gate, "shop", true, &Scope::USUAL);
    let operator = key(&gate, "ops", true, &[Scope::Lists, Scope::ListsAll]);
    let operator_in_test_mode = key(&gate, "ops", false, &Scope::ALL);
    let without = key(&gate, "shop", true, &[Scope::TransactionsWrite, Scope::ListsAll]);
    let path = "/v1/lists/block_ip/entries";
    let send = |key: &str, body: &Value| post(path, body, &[("authorization", key)]);
    let (mine, everyones) = (json!({"value": "::1"}), json!({"value": "::1", "scope": "all"}));
    gate.send(send(&without, &mine)).await.problem(403, "forbidden");
    gate.send(send(&own, &everyones)).await.problem(403, "forbidden");
    gate.send(send(&operator_in_test_mode, &everyones)).await.problem(403, "forbidden");
    gate.post(path, &everyones).await.problem(403, "forbidden");
    assert_eq!(gate.list_changes().await, []);
    assert_eq!(gate.send(send(&own, &mine)).await.json()["scope"], "merchant");
    assert_eq!(gate.send(send(&operator, &everyones)).await.json()["scope"], "all");
    let changes = gate.list_changes().await;
    let of = |source| changes.iter().find(|change| change.source == source).unwrap();
    let shop = ListScope::Merchant { merchant_id: "shop".parse().unwrap(), livemode: true };
    assert_eq!(of(ListSource::Merchant).scope, shop);
    assert_eq!(of(ListSource::Operator).scope, ListScope::All);
    assert!(
        Scope::USUAL.iter().all(|scope| *scope != Scope::ListsAll),
        "no key changes lists of others by default"
    );
}

#[tokio::test]
async fn the_lists_there_are_can_be_asked_for() {
    let gate = Gate::open().await;
    let answer = gate.get("/v1/lists").await;
    let lists = answer.json()["lists"].as_array().unwrap().clone();
    let card = json!({"id": "block_card", "kind": "card", "description": "what is blocked, by card"});
    assert_eq!((lists.len(), &lists[0]), (7, &card));
    let reads = key(&gate, "shop", true, &[Scope::TransactionsRead]);
    gate.send(get("/v1/lists", &[("authorization", &reads)])).await.problem(403, "forbidden");
}
