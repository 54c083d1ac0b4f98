//! What a merchant gets for a valid transaction.

use events::TestBehaviour;
use serde_json::{Value, json};

use crate::support::{Gate, canonical, changed, complete, config, get, post, short};

/// An answer with what differs from run to run replaced.
fn stable(mut json: Value) -> Value {
    for (pointer, stands_for) in [("/id", "[id]"), ("/created_at", "[time]"), ("/card/token", "[token]")] {
        if let Some(value) = json.pointer_mut(pointer) {
            assert!(value.is_string());
            *value = stands_for.into();
        }
    }
    if let Some(timing) = json.pointer_mut("/decision/timing_ms") {
        assert!(timing.is_number());
        *timing = "[ms]".into();
    }
    json
}

#[tokio::test]
async fn a_transaction_is_answered_with_its_decision() {
    let gate = Gate::open().await;
    let answer = gate.post("/v1/transactions", &canonical()).await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("location"), Some(format!("/v1/transactions/{}", answer.id()).as_str()));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert!(answer.header("x-request-id").unwrap().starts_with("req_"));
    assert_eq!(answer.json()["decision"]["timing_ms"], 12.345);
    insta::assert_json_snapshot!(stable(answer.json()), @r#"
    {
      "amount": 10050,
      "card": {
        "bin": "41111111",
        "brand": "visa",
        "last4": "1111",
        "token": "[token]"
      },
      "created_at": "[time]",
      "currency": "USD",
      "decision": {
        "degraded": false,
        "model": null,
        "outcome": "approve",
        "reasons": [],
        "risk_level": "normal",
        "risk_score": 3,
        "ruleset": "sha256:00ff",
        "timing_ms": "[ms]"
      },
      "id": "[id]",
      "livemode": false,
      "merchant_id": "test",
      "status": "decided"
    }
    "#);
}

#[tokio::test]
async fn a_decline_comes_with_its_reasons() {
    let gate = Gate::open().await;
    let body = changed(short(), "/card_number", Some("4000 0000 0000 0002".into()));
    let answer = gate.post("/transaction", &body).await;
    assert_eq!(answer.status, 201);
    let decision = &answer.json()["decision"];
    assert_eq!(decision["outcome"], "decline");
    assert_eq!(decision["risk_level"], "highest");
    assert_eq!(
        decision["reasons"],
        json!([{
            "code": "velocity_card_count",
            "rule": "card_count_1h",
            "message": "12 payments with this card within an hour; 10 are usual",
            "observed": 12,
            "limit": 10,
            "points": 80,
        }])
    );
}

#[tokio::test]
async fn both_forms_are_one_transaction() {
    let gate = Gate::open().await;
    let a = gate.send(post("/transaction", &short(), &[("idempotency-key", "k")])).await;
    let b = gate.send(post("/v1/transactions", &canonical(), &[("idempotency-key", "k")])).await;
    assert_eq!((a.status.as_u16(), b.status.as_u16()), (201, 201));
    assert_eq!(b.header("idempotent-replayed"), Some("true"), "the same request in the other form");
    assert_eq!(a.body, b.body);
    let created = gate.created().await;
    assert_eq!(created.len(), 1);
    assert_eq!(created[0].amount_minor.get(), 10_050, "100.50 is exact");
}

#[tokio::test]
async fn decimals_are_read_exactly_whether_numbers_or_strings() {
    let gate = Gate::open().await;
    for (amount, currency, minor) in [
        ("100.50", "USD", 10_050),
        ("\"100.50\"", "USD", 10_050),
        ("100.5", "USD", 10_050),
        ("0.29", "USD", 29),
        ("1.15", "EUR", 115),
        ("500", "JPY", 500),
        ("\"1.005\"", "KWD", 1_005),
        ("9999999999.99", "USD", 999_999_999_999_i64),
    ] {
        let text = short().to_string().replace("100.5", amount).replace("USD", currency);
        let answer = gate.send(crate::support::raw("/transaction", text, &[])).await;
        assert_eq!(answer.status, 201, "{amount} {currency}: {answer:?}");
        assert_eq!(answer.json()["amount"], minor, "{amount} {currency}");
    }
}

#[tokio::test]
async fn everything_a_merchant_sends_reaches_the_log_in_its_canonical_form() {
    let mut config = config();
    config.reporting_rates.insert("EUR".to_owned(), "1.1".to_owned());
    let gate = Gate::with(config).await;
    let answer = gate.post("/v1/transactions", &changed(complete(), "/currency", Some("EUR".into()))).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let transaction = gate.created().await.remove(0);
    assert_eq!(transaction.id.to_string(), answer.id());
    assert_eq!(transaction.reporting_amount_minor, Some(11_055));
    assert_eq!(transaction.idempotency_key.as_deref(), Some("order-1"));
    let rest = json!({
        "card": transaction.card.masked(),
        "expiry": [transaction.card.exp_month, transaction.card.exp_year],
        "customer": transaction.customer,
        "device": transaction.device,
        "billing": transaction.billing,
        "shipping": transaction.shipping,
        "location": transaction.location,
        "mcc": transaction.mcc,
        "terminal_id": transaction.terminal_id,
        "metadata": transaction.metadata,
    });
    assert_eq!(
        rest,
        json!({
            "card": "411111••••••1111",
            "expiry": [12, 2040],
            "customer": {"id": "cus_1", "email": "jane.doe@example.com", "phone": "+49301234567"},
            "device": {"id": "dev_1", "ip": "203.0.113.9", "user_agent": "Mozilla/5.0 (X11)"},
            "billing": {"country": "DE", "city": "Berlin", "postal_code": "10115"},
            "shipping": {"country": "FR", "city": "Paris", "postal_code": "75001"},
            "location": {"country": "DE", "lat": 52.52, "lon": 13.405},
            "mcc": "5411",
            "terminal_id": "trm_7",
            "metadata": {"order": "ord_1", "note": "two boxes"},
        })
    );
}

#[tokio::test]
async fn a_card_with_and_without_spaces_has_one_token() {
    let gate = Gate::open().await;
    for number in ["4111111111111111", "4111 1111 1111 1111", "4111-1111-1111-1111"] {
        let answer =
            gate.post("/v1/transactions", &changed(canonical(), "/card/number", Some(number.into()))).await;
        assert_eq!(answer.status, 201);
    }
    let created = gate.created().await;
    assert_eq!(created.len(), 3);
    assert!(created.iter().all(|t| t.card.token == created[0].card.token));
}

#[tokio::test]
async fn test_cards_ask_scoring_for_their_behaviour_in_test_mode_only() {
    let gate = Gate::open().await;
    let live = gate.keys.create(&"shop".parse().unwrap(), true, &gateway::Scope::ALL).unwrap();
    let body = changed(canonical(), "/card/number", Some("4100000000000019".into()));
    gate.post("/v1/transactions", &body).await;
    let live = crate::support::bearer(&live);
    gate.send(post("/v1/transactions", &body, &[("authorization", &live)])).await;
    let mut seen: Vec<_> = gate.created().await.iter().map(|t| (t.livemode, t.test_behaviour)).collect();
    seen.sort_by_key(|(livemode, _)| *livemode);
    assert_eq!(seen, [(false, Some(TestBehaviour::Block)), (true, None)]);
}

#[tokio::test]
async fn a_merchant_who_will_not_wait_is_answered_once_it_is_durable() {
    let gate = Gate::open().await;
    gate.decides.send_replace(false);
    let request = post("/v1/transactions", &canonical(), &[("prefer", "respond-async")]);
    let answer = gate.send(request).await;
    assert_eq!(answer.status, 202);
    assert_eq!(answer.header("preference-applied"), Some("respond-async"));
    let path = answer.header("location").unwrap().to_owned();
    assert_eq!(gate.created().await.len(), 1);
    let json = answer.json();
    assert_eq!((&json["status"], &json["decision"]), (&json!("pending"), &Value::Null));
    assert_eq!(gate.get(&path).await.body, answer.body, "the status is the same document");

    gate.decides.send_replace(true);
    gate.until("the decision", || async { gate.get(&path).await.json()["status"] == "decided" }).await;
    let decided = gate.get(&path).await;
    assert_eq!(decided.status, 200);
    assert_eq!(decided.json()["decision"]["outcome"], "approve");
}

#[tokio::test]
async fn a_late_decision_is_replaced_by_the_fail_mode_and_can_be_asked_for() {
    let mut config = config();
    config.merchant_fail_modes.insert("shop".to_owned(), gateway::FailMode::Approve);
    let gate = Gate::with(config).await;
    gate.decides.send_replace(false);
    let body = changed(canonical(), "/deadline_ms", Some(20.into()));
    let answer = gate.post("/v1/transactions", &body).await;
    assert_eq!(answer.status, 202);
    insta::assert_json_snapshot!(stable(answer.json())["decision"], @r#"
    {
      "degraded": true,
      "model": null,
      "outcome": "review",
      "reasons": [],
      "risk_level": null,
      "risk_score": null,
      "ruleset": null,
      "timing_ms": "[ms]"
    }
    "#);
    assert_eq!(answer.json()["status"], "pending");
    assert_eq!(gate.metric("paystream_gateway_degraded_total"), 1.0);

    let key = gate.keys.create(&"shop".parse().unwrap(), true, &gateway::Scope::ALL).unwrap();
    let key = crate::support::bearer(&key);
    let other = gate.send(post("/v1/transactions", &body, &[("authorization", &key)])).await;
    assert_eq!(other.json()["decision"]["outcome"], "approve", "the merchant's own fail mode");

    gate.decides.send_replace(true);
    let path = answer.header("location").unwrap();
    gate.until("the decision", || async { gate.get(path).await.json()["status"] == "decided" }).await;
    assert_eq!(gate.get(path).await.json()["decision"]["degraded"], false);
}

#[tokio::test]
async fn the_status_is_there_under_both_paths() {
    let gate = Gate::open().await;
    let answer = gate.post("/transaction", &short()).await;
    let canonical = gate.get(&format!("/v1/transactions/{}", answer.id())).await;
    let short = gate.get(&format!("/transaction/{}", answer.id())).await;
    assert_eq!((canonical.status.as_u16(), short.status.as_u16()), (200, 200));
    assert_eq!(canonical.body, answer.body);
    assert_eq!(short.body, answer.body);
    for unknown in ["txn_00000000000000000000000000000000", "txn_x", "4111111111111111", "%ff"] {
        let answer = gate.get(&format!("/v1/transactions/{unknown}")).await;
        assert!(answer.status == 404 || answer.status == 400, "{unknown}");
        assert!(!String::from_utf8_lossy(&answer.body).contains("4111111111111111"));
    }
}

#[tokio::test]
async fn health_says_whether_transactions_are_taken() {
    let gate = Gate::open().await;
    let answer = gate.get("/health").await;
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (200, &br#"{"status":"ok"}"#[..]));
    let router = gate.router();
    gate.stop().await;
    let request = get("/health", &[]);
    let response = tower::ServiceExt::oneshot(router, request).await.unwrap();
    assert_eq!(response.status(), 503);
}

#[tokio::test]
async fn metrics_are_labelled_with_routes_and_never_with_paths() {
    let gate = Gate::open().await;
    let answer = gate.post("/v1/transactions", &canonical()).await;
    gate.get(&format!("/v1/transactions/{}", answer.id())).await;
    gate.get("/no/such/path").await;
    let text = prometheus::TextEncoder::new().encode_to_string(&gate.registry.gather()).unwrap();
    for line in [
        r#"paystream_gateway_requests_total{method="POST",route="/v1/transactions",status_class="2xx"} 1"#,
        r#"paystream_gateway_requests_total{method="GET",route="/v1/transactions/{id}",status_class="2xx"} 1"#,
        r#"paystream_gateway_requests_total{method="GET",route="unmatched",status_class="4xx"} 1"#,
        r#"paystream_gateway_rejected_total{reason="not-found"} 1"#,
        "paystream_gateway_accepted_total 1",
        "paystream_gateway_decision_seconds_count 1",
        "paystream_gateway_in_flight_requests 0",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
    assert!(!text.contains("txn_") && !text.contains("such"), "{text}");
}
