//! No card number and no CVV is ever stored, logged or measured; no malformed request is accepted.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod support;

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use support::{System, reconcile, run, seed_body, succeed, text};

const CVV: &str = "937";

/// Valid card numbers that nothing else in the system would contain by chance.
fn card_numbers() -> Vec<String> {
    (0..50_u64)
        .map(|n| {
            let head = format!("41111{:010}", 7_919_191_919 + n * 1_000_003);
            let sum: u32 = head
                .bytes()
                .rev()
                .enumerate()
                .map(|(i, b)| {
                    let digit = u32::from(b - b'0') * if i % 2 == 0 { 2 } else { 1 };
                    digit / 10 + digit % 10
                })
                .sum();
            format!("{head}{}", (10 - sum % 10) % 10)
        })
        .collect()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// How much of a needle is compared before all of it is.
const PREFIX: usize = 4;

/// The first of the needles that is in the text. The texts are large and the needles many, so a place is
/// looked at only where some needle's first bytes are.
fn find<'n>(haystack: &[u8], needles: &'n [Vec<u8>]) -> Option<&'n [u8]> {
    let mut prefixes: Vec<&[u8]> = needles.iter().map(|needle| &needle[..PREFIX]).collect();
    prefixes.sort_unstable();
    prefixes.dedup();
    let places = haystack.windows(PREFIX).enumerate().filter(|(_, window)| prefixes.contains(window));
    places
        .flat_map(|(at, _)| needles.iter().filter(move |needle| haystack[at..].starts_with(needle)))
        .next()
        .map(Vec::as_slice)
}

#[test]
fn the_search_finds_what_is_there() {
    let needles = [b"4111222".to_vec(), b"\"937\"".to_vec()];
    assert_eq!(find(b"41114111222", &needles), Some(&b"4111222"[..]));
    assert_eq!(find(b"{\"cvv\":\"937\"}", &needles), Some(&b"\"937\""[..]));
    assert_eq!(find(b"4111 2224111", &needles), None);
}

#[tokio::test]
async fn card_numbers_and_cvvs_are_nowhere_in_data_logs_and_metrics() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("data");
    // Files without compression show what is in them; the log is as talkative as it gets.
    let env = [
        ("PAYSTREAM__WAREHOUSE__COMPRESSION", "none"),
        ("PAYSTREAM__WAREHOUSE__FLUSH_INTERVAL_MS", "100"),
        ("PAYSTREAM__TELEMETRY__LEVEL", "trace"),
    ];
    let system = System::start_with(&dir, "127.0.0.1:0", &[], &env).await;
    let cards = card_numbers();
    for (n, card) in cards.iter().enumerate() {
        let mut body = seed_body();
        body["card_number"] = json!(if n % 2 == 0 { card.clone() } else { spaced(card) });
        body["cvv"] = json!(CVV);
        if n % 10 == 9 {
            // Refused, and not to be echoed either: in a wrong field, and beside one.
            body["currency"] = json!(card);
        }
        let (status, answer, _) = system.post("/transaction", &body, &[]).await;
        assert_eq!(status, if n % 10 == 9 { 422 } else { 201 }, "{answer}");
        assert!(!answer.to_string().contains(card), "{answer}");
        // On a list it is a token; in a remark beside it, it is refused.
        let entry =
            json!({"card_number": body["card_number"], "note": if n % 10 == 9 { card } else { "lost" }});
        let (status, answer, _) = system.post("/v1/lists/block_card/entries", &entry, &[]).await;
        assert_eq!(status, if n % 10 == 9 { 422 } else { 201 }, "{answer}");
        assert!(!answer.to_string().contains(card), "{answer}");
    }
    let metrics = system.get_text("/metrics").await;
    let (agrees, report) = reconcile(&["--url", &system.url]);
    assert!(agrees && report["accepted"] == 45, "{report}");
    assert!(system.stop().await.success());

    let mut places = files(temp.path());
    assert!(places.iter().any(|path| path.ends_with("data.stderr")), "{places:?}");
    let metrics_file = temp.path().join("metrics");
    std::fs::write(&metrics_file, metrics).unwrap();
    places.push(metrics_file);
    let quoted_cvv = format!("\"{CVV}\"");
    let needles: Vec<Vec<u8>> = cards
        .iter()
        .flat_map(|card| [card.clone(), spaced(card)])
        .chain([quoted_cvv, format!("cvv={CVV}"), format!("cvv: {CVV}")])
        .map(String::into_bytes)
        .collect();
    for place in places {
        let bytes = std::fs::read(&place).unwrap();
        let found = find(&bytes, &needles).map(text);
        assert_eq!(found, None, "in {}", place.display());
    }
}

fn spaced(card: &str) -> String {
    card.as_bytes().chunks(4).map(text).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn a_thousand_malformed_requests_are_refused_by_field_and_none_is_in_the_log() {
    let temp = tempfile::tempdir().unwrap();
    let system = System::start(&temp.path().join("data")).await;
    let output = run(&["loadtest", "--malformed", "1000", "--json", "--url", &system.url]);
    let report: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output.stderr)));
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    assert_eq!((&report["sent"], &report["wrong_total"]), (&json!(1000), &json!(0)), "{report:#}");
    assert!(report["kinds"].as_u64().unwrap() >= 30, "{report}");
    let (agrees, counts) = reconcile(&["--url", &system.url]);
    assert!(agrees && counts["accepted"] == 0 && counts["logged"] == 0, "{counts}");
    // The search above can find something: a good request is there.
    system.post("/transaction", &seed_body(), &[]).await;
    let found = succeed(&["reconcile", "--json", "--url", &system.url]);
    assert_eq!(serde_json::from_str::<Value>(&found).unwrap()["logged"], 1);
}
