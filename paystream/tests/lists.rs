//! Lists from end to end: through the API and the command line to decisions, over a restart.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod support;

use serde_json::{Value, json};
use support::{System, eventually, run, seed_body, succeed, text};

/// Another valid number than the one of the seed's body.
const CARD: &str = "4000 0566 5566 5556";

fn payment(card: &str) -> Value {
    let mut body = seed_body();
    body["card_number"] = json!(card);
    body
}

/// The outcome, and the code of the first reason.
async fn pay(system: &System, body: &Value) -> (String, String) {
    let (status, answer, _) = system.post("/transaction", body, &[]).await;
    assert_eq!(status, 201, "{answer}");
    let decision = &answer["decision"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&decision["outcome"]), text(&decision["reasons"][0]["code"]))
}

fn blocked() -> (String, String) {
    ("decline".to_owned(), "list_block_card".to_owned())
}

#[tokio::test]
async fn a_blocked_card_is_declined_from_the_answer_on_and_after_a_restart() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("data");
    let system = System::start(&dir).await;
    let passed = pay(&system, &payment(CARD)).await;
    assert_eq!(passed.0, "approve");
    let (status, entry, _) =
        system.post("/v1/lists/block_card/entries", &json!({"card_number": CARD}), &[]).await;
    assert_eq!(status, 201, "{entry}");
    assert_eq!(pay(&system, &payment(CARD)).await, blocked(), "at once");
    assert_eq!(pay(&system, &payment("4242424242424242")).await.0, "approve", "no other card");
    assert!(system.stop().await.success());

    let system = System::start(&dir).await;
    assert_eq!(pay(&system, &payment(CARD)).await, blocked(), "also with the checkpoint of before");
    let metrics = system.get_text("/metrics").await;
    assert!(metrics.contains("paystream_analyzer_list_entries{list=\"block_card\"} 1"), "{metrics}");
    assert!(metrics.contains("paystream_analyzer_replay_mismatches_total 0"));
    let remove = "/v1/lists/block_card/entries/remove";
    let (status, answer, _) = system.post(remove, &json!({"value": entry["value"]}), &[]).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(pay(&system, &payment(CARD)).await.0, "approve");
    drop(system);
}

#[tokio::test]
async fn a_killed_system_comes_back_with_its_lists() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("data");
    let mut system = System::start(&dir).await;
    system.post("/v1/lists/block_card/entries", &json!({"card_number": CARD}), &[]).await;
    assert_eq!(pay(&system, &payment(CARD)).await, blocked());
    system.kill();
    let system = System::start(&dir).await;
    assert_eq!(pay(&system, &payment(CARD)).await, blocked());
    let metrics = system.get_text("/metrics").await;
    assert!(metrics.contains("paystream_analyzer_replay_mismatches_total 0"));
}

#[tokio::test]
async fn lists_are_filled_from_the_command_line() {
    let temp = tempfile::tempdir().unwrap();
    let system = System::start(&temp.path().join("data")).await;
    let url = ["--url", system.url.as_str()];
    let lists = |args: &[&str]| run(&[&["lists"], args, &url[..]].concat());
    let shown: Value =
        serde_json::from_str(&succeed(&[&["lists", "show", "--json"], &url[..]].concat())).unwrap();
    let ids: Vec<_> = shown.as_array().unwrap().iter().map(|list| list["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 12, "{ids:?}");

    let file = temp.path().join("stolen.csv");
    std::fs::write(
        &file,
        format!("value,expires_at\n{CARD}\n4242424242424241\n5555555555554444,2020-01-01T00:00:00Z\n"),
    )
    .unwrap();
    let output = lists(&["add", "block_card", "--file", file.to_str().unwrap(), "--json"]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["taken"], &report["refused"]), (&json!(1), &json!(2)), "{report}");
    let lines: Vec<_> =
        report["examples"].as_array().unwrap().iter().map(|e| e["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, [3, 4]);
    for output in [&output.stdout, &output.stderr] {
        assert!(!text(output).contains("424242") && !text(output).contains("555555"));
    }
    assert_eq!(pay(&system, &payment(CARD)).await, blocked());

    // More than one request's worth.
    let many: String = (0..2_500).map(|n| format!("10.0.{}.{}\n", n / 256, n % 256)).collect();
    std::fs::write(&file, many).unwrap();
    let output =
        lists(&["add", "block_ip", "--file", file.to_str().unwrap(), "--expires-at", "2099-01-01T00:00:00Z"]);
    assert_eq!(text(&output.stdout), "2500 put on block_ip, 0 refused\n", "{}", text(&output.stderr));
    // Taken in although nothing is to be decided.
    eventually("the entries are in force", async || {
        let metrics = system.get_text("/metrics").await;
        metrics.contains("paystream_analyzer_list_entries{list=\"block_ip\"} 2500").then_some(())
    })
    .await;
    let output = lists(&["remove", "block_ip", "10.0.0.1", "10.0.0.2"]);
    assert_eq!(text(&output.stdout), "2 taken off block_ip, 0 refused\n", "{}", text(&output.stderr));

    for (args, code, says) in [
        (&["add", "block_card", "4242424242424242"][..], 2, "--file"),
        (&["add", "nonsense", "x"], 2, "lists show"),
        (&["add", "block_ip"], 2, "no entries"),
        (&["add", "block_ip", "::1", "--all-merchants"], 1, "lists:all"),
        (&["add", "block_ip", "10.0.0.1/8"], 1, "line 1: /value has to be"),
    ] {
        let output = lists(args);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(says), "{args:?}: {}", text(&output.stderr));
    }
}
