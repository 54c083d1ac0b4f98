//! Many transactions in one request, each on its own.

use gateway::GatewayConfig;
use serde_json::{Value, json};

use crate::support::{Answer, Gate, canonical, changed, config, post, raw};

const PATH: &str = "/v1/transactions/batch";
const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");

fn results(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    let text = std::str::from_utf8(&answer.body).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn each_line_has_its_own_result_in_order() {
    let gate = Gate::open().await;
    let keyed = changed(canonical(), "/idempotency_key", Some("line-1".into()));
    let bad = changed(canonical(), "/card/number", Some("4111111111111112".into()));
    let body = format!("{keyed}\n\n{bad}\r\n{{\"amount\":\n{keyed}");
    let answer = gate.send(raw(PATH, body, &[NDJSON])).await;
    let results = results(&answer);
    let seen: Vec<_> =
        results.iter().map(|r| (r["line"].as_u64().unwrap(), r["status"].as_u64().unwrap())).collect();
    // The last line is under way or done when the first one is: both are right.
    assert_eq!(seen[..3], [(1, 201), (3, 422), (4, 400)]);
    assert!(seen[3] == (5, 201) || seen[3] == (5, 409), "{seen:?}");
    assert_eq!(results[0]["body"]["decision"]["outcome"], "approve");
    assert_eq!(results[1]["body"]["errors"][0]["pointer"], "/card/number");
    assert_eq!(results[1]["body"]["request_id"], answer.header("x-request-id").unwrap());
    assert_eq!(gate.created().await.len(), 1);

    let again = gate.send(raw(PATH, keyed.to_string(), &[NDJSON])).await;
    let again = self::results(&again);
    assert_eq!((&again[0]["status"], &again[0]["idempotent_replayed"]), (&json!(201), &json!(true)));
    assert_eq!(again[0]["body"], results[0]["body"]);
    assert_eq!(gate.created().await.len(), 1);
}

#[tokio::test]
async fn an_array_of_a_thousand_is_accepted_whole() {
    let gate = Gate::open().await;
    let lines: Vec<Value> = (1..=1_000).map(|i| changed(canonical(), "/amount", Some(i.into()))).collect();
    let answer = gate.send(post(PATH, &Value::Array(lines), &[])).await;
    let results = results(&answer);
    assert_eq!(results.len(), 1_000);
    for (i, result) in (1..).zip(&results) {
        assert_eq!((&result["line"], &result["status"]), (&json!(i), &json!(201)));
        assert_eq!(result["body"]["amount"], i);
    }
    assert_eq!(gate.created().await.len(), 1_000);
}

#[tokio::test]
async fn a_batch_beyond_its_bounds_is_refused_whole() {
    let gate = Gate::open().await;
    let line = canonical().to_string();
    let too_many = vec![line.as_str(); 1_001].join("\n");
    gate.send(raw(PATH, too_many, &[NDJSON])).await.problem(413, "body-too-large");
    let too_large = format!("{line}{}", " ".repeat(1024 * 1024));
    gate.send(raw(PATH, too_large, &[NDJSON])).await.problem(413, "body-too-large");
    for nothing in ["", "\n\n", "[]", "[1,", "["] {
        gate.send(raw(PATH, nothing, &[])).await.problem(400, "malformed-request");
    }
    let with_key = raw(PATH, line.clone(), &[NDJSON, ("idempotency-key", "k")]);
    gate.send(with_key).await.problem(400, "malformed-request");
    gate.send(raw(PATH, line, &[("content-type", "text/csv")])).await.problem(415, "unsupported-media-type");
    assert_eq!(gate.created().await.len(), 0);
}

#[tokio::test]
async fn a_batch_costs_as_much_as_its_lines() {
    let config = GatewayConfig { key_rate_per_second: 1, key_burst_requests: 10, ..config() };
    let gate = Gate::with(config).await;
    let line = canonical().to_string();
    let eight = [line.as_str(); 8].join("\n");
    assert_eq!(gate.send(raw(PATH, eight.clone(), &[NDJSON])).await.status, 200);
    gate.send(raw(PATH, eight, &[NDJSON])).await.problem(429, "rate-limited");
    assert_eq!(gate.created().await.len(), 8);
}
