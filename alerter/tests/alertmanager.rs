//! What Alertmanager says of the system itself, up to the people it is for.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

mod support;

use reqwest::StatusCode;
use serde_json::{Value, json};
use support::{Answer, Running, System, eventually};

const TOKEN: &str = "a-token-of-some-length";

/// What Alertmanager sends of one alert.
fn notification(status: &str, severity: &str) -> Value {
    json!({
        "version": "4", "status": status, "receiver": "paystream", "groupKey": "{}:{}",
        "alerts": [{
            "status": status,
            "labels": {"alertname": "DiskFull", "severity": severity, "instance": "broker-1"},
            "annotations": {"summary": "Less than 5 % free"},
            "startsAt": "2027-01-15T08:00:00Z",
            "endsAt": if status == "resolved" { "2027-01-15T08:01:00Z" } else { "0001-01-01T00:00:00Z" },
            "generatorURL": "http://prom:9090/graph", "fingerprint": "3b15fd163d36582e",
        }],
    })
}

/// Sends it with or without a token.
async fn send(url: &str, token: Option<&str>, body: impl Into<reqwest::Body>) -> (StatusCode, Value) {
    let mut request = reqwest::Client::new().post(url).header("content-type", "application/json").body(body);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let answer = request.send().await.unwrap();
    let status = answer.status();
    (status, serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or(Value::Null))
}

async fn say(running: &Running, body: &Value) -> StatusCode {
    let url = System::alertmanager(running, true).await;
    send(&url, None, body.to_string()).await.0
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incident_is_told_once_and_its_message_says_when_it_is_over() {
    let system = System::new().await;
    let running = system.start();
    let (firing, resolved) = (notification("firing", "critical"), notification("resolved", "critical"));
    for _ in 0..3 {
        assert_eq!(say(&running, &firing).await, StatusCode::OK);
    }
    let server = &system.server;
    eventually("told", || server.taken("SendMessage").len() == 1).await;
    for _ in 0..2 {
        assert_eq!(say(&running, &resolved).await, StatusCode::OK);
    }
    assert_eq!(say(&running, &firing).await, StatusCode::OK, "late");
    eventually("told that it is over", || server.taken("EditMessageText").len() == 1).await;
    running.stop().await;
    let sent = server.taken("SendMessage");
    assert_eq!(sent.len(), 1);
    assert!(sent[0].text().contains("Critical · DiskFull"), "{}", sent[0].text());
    let edit = &server.taken("EditMessageText")[0];
    assert!(edit.text().contains("Resolved · DiskFull"), "{}", edit.text());
    assert_eq!(edit.body["message_id"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_200_is_told_after_a_crash() {
    let system = System::new().await;
    system.server.answer(Answer::Hang);
    let running = system.start();
    assert_eq!(say(&running, &notification("firing", "warning")).await, StatusCode::OK);
    running.crash().await;
    system.server.answer(Answer::Ok);
    let running = system.start();
    eventually("told", || !system.server.taken("SendMessage").is_empty()).await;
    assert_eq!(say(&running, &notification("firing", "warning")).await, StatusCode::OK, "sent again");
    running.stop().await;
    let sent = system.server.taken("SendMessage");
    assert_eq!(sent.len(), 1);
    assert!(sent[0].text().contains("Medium · DiskFull"), "{}", sent[0].text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_gets_the_incident_and_its_end() {
    let mut system = System::new().await;
    let yaml = "receivers:\n  desk:\n    webhook: {url: 'URL/hook'}\nroutes:\n  - name: payments\n    match: {merchants: [shop_1]}\n    receivers: []\n  - name: rest\n    match: {severity_at_least: medium}\n    receivers: [desk]\n";
    system.route(&yaml.replace("URL", &system.server.url));
    let running = system.start();
    assert_eq!(say(&running, &notification("firing", "info")).await, StatusCode::OK, "below the route");
    let mut other = notification("firing", "critical");
    other["alerts"][0]["fingerprint"] = json!("f2");
    assert_eq!(say(&running, &other).await, StatusCode::OK);
    let server = &system.server;
    eventually("posted", || server.taken("hook").len() == 1).await;
    other["alerts"][0]["status"] = json!("resolved");
    other["alerts"][0]["endsAt"] = json!("2027-01-15T08:01:00Z");
    assert_eq!(say(&running, &other).await, StatusCode::OK);
    eventually("posted again", || server.taken("hook").len() == 2).await;
    running.stop().await;
    let calls = server.taken("hook");
    let kinds: Vec<_> = calls.iter().map(|call| (&call.body["type"], &call.body["status"])).collect();
    let kind = json!("infrastructure.alert");
    assert_eq!(kinds, [(&kind, &json!("firing")), (&kind, &json!("resolved"))]);
    assert_eq!(calls[0].body["incident"]["name"], "DiskFull");
    assert_eq!((&calls[0].body["update"], &calls[1].body["update"]), (&json!(false), &json!(true)));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_has_the_token_is_heard_and_without_one_only_loopback() {
    let mut system = System::new().await;
    let body = notification("firing", "critical").to_string();
    let running = system.start();
    let elsewhere = System::alertmanager(&running, false).await;
    let (status, problem) = send(&elsewhere, None, body.clone()).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(problem["detail"].as_str().unwrap().contains("alerter.alertmanager.token"), "{problem}");
    running.stop().await;
    system.config.alertmanager.token = alerter::Secret::from(TOKEN.to_owned());
    let running = system.start();
    for loopback in [true, false] {
        let url = System::alertmanager(&running, loopback).await;
        for wrong in [None, Some("a-token-of-some-lengtH"), Some("")] {
            let (status, problem) = send(&url, wrong, body.clone()).await;
            assert_eq!((status, &problem["status"]), (StatusCode::UNAUTHORIZED, &json!(401)), "{wrong:?}");
        }
        assert_eq!(send(&url, Some(TOKEN), body.clone()).await.0, StatusCode::OK);
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_notification_is_refused_with_the_place_of_what_is_wrong() {
    let system = System::new().await;
    let running = system.start();
    let url = System::alertmanager(&running, true).await;
    let mut bad = notification("firing", "critical");
    bad["alerts"][0]["startsAt"] = json!("yesterday");
    let (status, problem) = send(&url, None, bad.to_string()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(problem["errors"][0]["pointer"], "/alerts/0/startsAt", "{problem}");
    assert!(!problem.to_string().contains("yesterday"));
    assert_eq!(send(&url, None, "{").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(send(&url, None, vec![b' '; 2 * 1024 * 1024]).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    let text = reqwest::Client::new().post(&url).body("{}").header("content-type", "text/plain");
    assert_eq!(text.send().await.unwrap().status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    running.stop().await;
    assert_eq!(system.server.calls().len(), 0, "nothing of it was told");
}
