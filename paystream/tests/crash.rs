//! What was accepted survives: signals and crashes under load.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod support;

use std::collections::HashSet;
use std::path::Path;
use std::process::{Child, Output, Stdio};

use serde_json::{Value, json};
use support::{System, eventually, paystream, reconcile, run, text};

const KILLS: usize = 5;

fn load(url: &str, accepted: &Path, args: &[&str]) -> Child {
    paystream(&["loadtest", "--json", "--url", url, "--accepted-out", accepted.to_str().unwrap()])
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

async fn finish(child: Child) -> Output {
    tokio::task::spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap()
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)))
}

async fn decided(system: &System) -> u64 {
    let metrics = system.get_text("/metrics").await;
    let line = metrics.lines().find(|line| {
        line.starts_with("paystream_log_records_total") && line.contains("transactions.decided")
    });
    line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).map_or(0, |n| n as u64)
}

/// The accepted transactions, and those of them that the warehouse has, each once.
fn all_stored(dir: &Path, accepted: &Path) {
    let ids = std::fs::read_to_string(accepted).unwrap();
    let ids: HashSet<&str> = ids.lines().collect();
    let data_dir = dir.to_str().unwrap();
    let (agrees, report) = reconcile(&["--data-dir", data_dir]);
    assert!(agrees, "{report}");
    assert!(report["accepted"].as_u64().unwrap() >= ids.len() as u64, "{report}");
    let stored =
        run(&["query", "--format", "csv", "--data-dir", data_dir, "SELECT transaction_id FROM decisions"]);
    let stored = text(&stored.stdout);
    let mut seen = HashSet::new();
    for id in stored.lines().skip(1) {
        assert!(seen.insert(id), "{id} is stored twice");
    }
    let lost: Vec<_> = ids.iter().filter(|id| !seen.contains(**id)).collect();
    assert!(lost.is_empty(), "{} of {} accepted transactions are lost: {lost:?}", lost.len(), ids.len());
}

#[tokio::test]
async fn sigterm_under_load_loses_nothing_and_ends_with_zero() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, accepted) = (temp.path().join("data"), temp.path().join("accepted"));
    let system = System::start(&dir).await;
    let load = load(&system.url, &accepted, &["--rate", "200", "--duration", "60s", "--timeout", "5s"]);
    eventually("some decisions", async || Some(decided(&system).await).filter(|n| *n >= 200)).await;
    assert!(system.stop().await.success());
    let pid = load.id().to_string();
    std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap();
    let output = finish(load).await;
    assert_eq!(output.status.code(), Some(130), "an interrupted load says so: {}", text(&output.stderr));
    assert!(report(&output)["ok"].as_u64().unwrap() >= 200);
    all_stored(&dir, &accepted);
}

#[tokio::test]
async fn every_accepted_transaction_survives_sigkill_exactly_once() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, accepted) = (temp.path().join("data"), temp.path().join("accepted"));
    let mut system = System::start(&dir).await;
    let address = system.address().to_owned();
    let arguments = ["--rate", "300", "--duration", "20s", "--retry", "--timeout", "5s"];
    let load = load(&system.url, &accepted, &arguments);
    for _ in 0..KILLS {
        let before = decided(&system).await;
        eventually("more decisions", async || Some(decided(&system).await).filter(|n| *n >= before + 100))
            .await;
        system.kill();
        system = System::start_with(&dir, &address, &[], &[]).await;
    }
    let output = finish(load).await;
    let report = report(&output);
    assert_eq!((output.status.code(), &report["errors"]), (Some(0), &json!(0)), "{report}");
    assert!(report["retried"].as_u64().unwrap() > 0, "the kills were not noticed: {report}");
    let (agrees, live) = reconcile(&["--url", &system.url]);
    assert!(agrees, "while running: {live}");
    assert_eq!(live["accepted"], report["ok"], "a retry is the same transaction: {live} {report}");
    assert!(system.stop().await.success());
    all_stored(&dir, &accepted);
}

#[tokio::test]
async fn a_second_signal_ends_at_once_with_130() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("data");
    let mut system = System::start(&dir).await;
    // A request that never ends keeps the ordered shutdown waiting.
    let mut slow = std::net::TcpStream::connect(system.address()).unwrap();
    let head = "POST /transaction HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                content-length: 100\r\n\r\n{";
    std::io::Write::write_all(&mut slow, head.as_bytes()).unwrap();
    eventually("the request is under way", async || {
        let metrics = system.get_text("/metrics").await;
        metrics.contains("paystream_http_connections 2").then_some(())
    })
    .await;
    system.signal("TERM");
    eventually("the first signal is heard", async || {
        system.stderr().contains("stopping in order").then_some(())
    })
    .await;
    system.signal("INT");
    assert_eq!(system.wait().await.code(), Some(130), "{}", system.stderr());
    // Nothing is broken by it.
    assert!(System::start(&dir).await.stop().await.success());
}
