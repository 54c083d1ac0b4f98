//! `paystream up`: starting, serving, refusing to start.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod support;

use serde_json::{Value, json};
use support::{System, client, eventually, reconcile, run, seed_body, skipped, succeed, text};

#[tokio::test]
async fn the_curl_example_of_seed_002_answers_a_decision() {
    let temp = tempfile::tempdir().unwrap();
    let system = System::start(&temp.path().join("data")).await;
    let (status, body, headers) = system.post("/transaction", &seed_body(), &[]).await;
    assert_eq!(status, 201, "{body}");
    assert_eq!(body["status"], "decided", "{body}");
    assert_eq!(body["amount"], 10_050, "100.50 USD is 10050 minor units");
    let outcome = body["decision"]["outcome"].as_str().unwrap();
    assert!(["approve", "review", "challenge", "decline"].contains(&outcome), "{body}");
    assert_eq!(body["decision"]["degraded"], false);
    let location = headers["location"].to_str().unwrap();
    let (status, found, _) = system.get(location).await;
    assert_eq!((status, &found["id"], &found["decision"]["outcome"]), (200, &body["id"], &json!(outcome)));
}

#[tokio::test]
async fn the_curl_line_that_up_prints_works_when_pasted() {
    let temp = tempfile::tempdir().unwrap();
    let system = System::start(&temp.path().join("data")).await;
    let banner =
        eventually("the banner", async || Some(system.stdout()).filter(|b| b.contains("curl"))).await;
    let line = banner.lines().find(|line| line.trim_start().starts_with("curl ")).unwrap();
    let output = std::process::Command::new("sh").args(["-c", line]).output().unwrap();
    if output.status.code() == Some(127) {
        skipped("curl is not installed, so the line that `up` prints was not pasted");
        return;
    }
    let body: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{line}: {} {}", text(&output.stdout), text(&output.stderr)));
    assert_eq!(body["status"], "decided", "{body}");
}

#[tokio::test]
async fn the_same_idempotency_key_is_one_transaction() {
    let temp = tempfile::tempdir().unwrap();
    let system = System::start(&temp.path().join("data")).await;
    let key = [("idempotency-key", "order-7")];
    let (first_status, first, first_headers) = system.post("/transaction", &seed_body(), &key).await;
    assert_eq!(first_status, 201, "{first}");
    assert!(!first_headers.contains_key("idempotent-replayed"));
    let mut spaced = seed_body();
    spaced["card_number"] = json!("4111 1111 1111 1111");
    for body in [seed_body(), spaced] {
        let (status, again, headers) = system.post("/transaction", &body, &key).await;
        assert_eq!((status, &again["id"]), (201, &first["id"]), "{again}");
        assert_eq!(headers["idempotent-replayed"], "true");
    }
    let mut other = seed_body();
    other["amount"] = json!(7);
    let (status, refused, _) = system.post("/transaction", &other, &key).await;
    assert_eq!(status, 422, "{refused}");

    let (agrees, report) = reconcile(&["--url", &system.url]);
    assert!(agrees, "{report}");
    assert_eq!(report["accepted"], 1, "{report}");
}

#[tokio::test]
async fn a_transaction_is_known_after_a_restart_and_the_first_key_is_shown_once() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("data");
    let system = System::start(&dir).await;
    let key = [("idempotency-key", "order-8")];
    let (_, first, _) = system.post("/transaction", &seed_body(), &key).await;
    let banner =
        eventually("the banner", async || Some(system.stdout()).filter(|b| b.contains("Ctrl-C"))).await;
    let shown: Vec<&str> = banner.split_whitespace().filter(|word| word.starts_with("sk_test_")).collect();
    assert_eq!(shown.len(), 1, "{banner}");
    assert!(system.stop().await.success());

    let (agrees, report) = reconcile(&["--data-dir", dir.to_str().unwrap()]);
    assert!(agrees && report["stored"] == 1, "the stopped system: {report}");

    let system = System::start(&dir).await;
    assert_eq!(system.stdout().matches("sk_test_").count(), 1, "shown at the first start only");
    let bearer = format!("Bearer {}", shown[0]);
    let headers = [key[0], ("authorization", bearer.as_str())];
    let (status, again, headers) = system.post("/transaction", &seed_body(), &headers).await;
    assert_eq!((status, &again["id"]), (201, &first["id"]), "{again}");
    assert_eq!(headers["idempotent-replayed"], "true");
    let (_, report) = reconcile(&["--url", &system.url]);
    assert_eq!(report["accepted"], 1, "{report}");
}

#[tokio::test]
async fn a_directory_in_use_is_refused_in_one_line_that_says_by_whom() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("data");
    let system = System::start(&dir).await;
    let output = run(&["up", "--listen", "127.0.0.1:0", "--data-dir", dir.to_str().unwrap()]);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("is in use by another paystream") && error.contains(&system.url), "{error}");
    // Questions to the directory go to the process that uses it.
    let answer = succeed(&["query", "--json", "--data-dir", dir.to_str().unwrap(), "SELECT 1 AS one"]);
    assert_eq!(serde_json::from_str::<Value>(&answer).unwrap(), json!([{"one": 1}]));
}

#[tokio::test]
async fn what_keeps_up_from_starting_is_said_in_one_line_with_what_to_do() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("data");
    let data_dir = dir.to_str().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let file = temp.path().join("a-file");
    std::fs::write(&file, "").unwrap();
    let below_file = file.join("data");
    for (args, expected) in [
        (["--data-dir", data_dir, "--listen", &address], "choose another with --listen"),
        (["--data-dir", below_file.to_str().unwrap(), "--listen", "127.0.0.1:0"], "with --data-dir"),
        (["--data-dir", data_dir, "--listen", "192.0.2.1:0"], "correct it"),
    ] {
        let output = run(&[&["up"], &args[..]].concat());
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {error}");
        let lines: Vec<&str> = error.lines().filter(|line| line.starts_with("paystream: ")).collect();
        assert!(lines.len() == 1 && lines[0].contains(expected), "{args:?}: {error}");
    }
}

#[tokio::test]
async fn another_address_than_loopback_needs_a_key_and_then_asks_for_it() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("data");
    let data_dir = dir.to_str().unwrap();
    let output = run(&["up", "--listen", "0.0.0.0:0", "--data-dir", data_dir]);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    assert!(error.contains("paystream keys create"), "{error}");

    let key = succeed(&["keys", "create", "--data-dir", data_dir, "--merchant", "shop_1"]).trim().to_owned();
    let submit_only = ["keys", "create", "--data-dir", data_dir, "--scope", "transactions:write"];
    let submit_only = succeed(&submit_only).trim().to_owned();
    let system = System::start_with(&dir, "0.0.0.0:0", &[], &[]).await;
    assert_eq!(system.metrics_url, None);
    assert!(!system.stdout().contains("sk_"), "keys that exist are not shown");
    let (status, problem, _) = system.post("/transaction", &seed_body(), &[]).await;
    assert_eq!(status, 401, "{problem}");
    let bearer = format!("Bearer {key}");
    let (status, body, _) = system.post("/transaction", &seed_body(), &[("authorization", &bearer)]).await;
    assert_eq!((status, &body["merchant_id"]), (201, &json!("shop_1")), "{body}");

    for path in ["/v1/reconcile", "/v1/dashboard/history?minutes=5"] {
        assert_eq!(system.get(path).await.0, 401, "{path}");
        let lacking = client().get(format!("{}{path}", system.url)).bearer_auth(&submit_only).send().await;
        assert_eq!(lacking.unwrap().status(), 403, "{path}");
        let granted = client().get(format!("{}{path}", system.url)).bearer_auth(&key).send().await;
        assert_eq!(granted.unwrap().status(), 200, "{path}");
    }
    let question = json!({"sql": "SELECT 1"});
    assert_eq!(system.post("/v1/query", &question, &[]).await.0, 401);
    assert_eq!(system.get("/metrics").await.0, 404, "metrics have no access control");
    assert_eq!(system.get("/healthz").await.0, 200);
    assert_eq!(system.get("/").await.0, 200, "the page itself loads, and asks for a key");
}

#[tokio::test]
async fn metrics_have_an_address_of_their_own_when_they_are_given_one() {
    let temp = tempfile::tempdir().unwrap();
    let env = [("PAYSTREAM__SERVER__ADMIN_LISTEN", "127.0.0.1:0")];
    let system = System::start_with(&temp.path().join("data"), "127.0.0.1:0", &[], &env).await;
    let metrics_url = system.metrics_url.clone().unwrap();
    assert!(!metrics_url.starts_with(&system.url), "{metrics_url}");
    assert_eq!(system.get("/metrics").await.0, 404);
    let metrics = client().get(metrics_url).send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains("paystream_http_connections "), "{metrics}");
}

#[tokio::test]
async fn the_admin_routes_say_that_it_lives_is_ready_and_what_it_does() {
    let temp = tempfile::tempdir().unwrap();
    let system = System::start(&temp.path().join("data")).await;
    assert_eq!(system.get_text("/healthz").await, "ok\n");
    assert_eq!(system.get("/readyz").await.1, json!({"status": "ready"}));
    system.post("/transaction", &seed_body(), &[]).await;
    let metrics = system.get_text("/metrics").await;
    for name in ["paystream_log_records_total", "paystream_http_connections", "process_resident_memory_bytes"]
    {
        assert!(metrics.contains(name), "{name} in {metrics}");
    }
}

#[tokio::test]
async fn without_a_key_a_page_of_another_site_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let system = System::start(&temp.path().join("data")).await;
    for header in [("origin", "https://evil.example"), ("host", "evil.example")] {
        let (status, problem, _) = system.post("/transaction", &seed_body(), &[header]).await;
        assert_eq!(status, 403, "{header:?}: {problem}");
    }
    assert_eq!(reconcile(&["--url", &system.url]).1["accepted"], 0);
}

#[tokio::test]
async fn demo_traffic_is_decided_and_stored() {
    let temp = tempfile::tempdir().unwrap();
    let data = temp.path().join("data");
    let system = System::start_with(&data, "127.0.0.1:0", &["--demo", "--demo-rate", "50"], &[]).await;
    eventually("fifty stored transactions", async || {
        let question = json!({"sql": "SELECT count(*) AS n FROM transactions"});
        let (_, answer, _) = system.post("/v1/query", &question, &[]).await;
        answer["rows"][0][0].as_u64().filter(|n| *n >= 50)
    })
    .await;
    assert!(system.stop().await.success());
    let (agrees, report) = reconcile(&["--data-dir", data.to_str().unwrap()]);
    assert!(agrees, "{report}");
}
