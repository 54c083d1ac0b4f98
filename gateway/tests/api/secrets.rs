//! No card number and no security code passes the gateway.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::json;

use crate::support::{Gate, canonical, changed, post};

/// Numbers with a valid check digit and codes that no other bytes hold by chance.
const CARDS: [(&str, &str); 4] = [
    ("4929 4212 3460 0821", "4929421234600821"),
    ("5425-2334-3010-9903", "5425233430109903"),
    ("6011601160116611", "6011601160116611"),
    ("374245455400126", "374245455400126"),
];

/// Takes every log line of the process, those of other tests included.
#[derive(Clone, Default)]
struct LogLines(Arc<Mutex<Vec<u8>>>);

impl Write for LogLines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

fn holds(haystack: &[u8], needle: &str) -> bool {
    let needle = needle.as_bytes();
    let mut rest = haystack;
    while let Some(at) = rest.iter().position(|byte| *byte == needle[0]) {
        rest = &rest[at..];
        if rest.starts_with(needle) {
            return true;
        }
        rest = &rest[1..];
    }
    false
}

#[tokio::test]
async fn no_card_number_and_no_code_is_on_disk_in_answers_in_logs_or_in_metrics() {
    let lines = LogLines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let gate = Gate::open().await;
    let mut seen = Vec::new();
    for (i, (written, digits)) in CARDS.iter().enumerate() {
        let code = if digits.len() == 15 { "7391" } else { "739" };
        let card = json!({"number": written, "exp_month": 12, "exp_year": 2040, "cvc": code});
        let key = format!("order-{i}");
        let accepted = post(
            "/v1/transactions",
            &changed(canonical(), "/card", Some(card.clone())),
            &[("idempotency-key", &key)],
        );
        let answer = gate.send(accepted).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        seen.push(answer.body);
        // Wherever else it may be written: refused, and not repeated.
        let elsewhere = changed(canonical(), "/card", Some(card));
        for body in [
            changed(elsewhere.clone(), "/metadata", Some(json!({"note": written}))),
            changed(elsewhere.clone(), "/metadata", Some(json!({*digits: "x"}))),
            changed(elsewhere.clone(), &format!("/{digits}"), Some(1.into())),
            changed(elsewhere.clone(), "/idempotency_key", Some((*digits).into())),
            changed(elsewhere, "/currency", Some((*digits).into())),
            json!(digits),
        ] {
            let answer = gate.send(post("/v1/transactions", &body, &[("x-request-id", digits)])).await;
            assert!(answer.status.is_client_error(), "{answer:?}");
            seen.push(format!("{:?}", answer.headers).into());
            seen.push(answer.body);
        }
        seen.push(gate.get(&format!("/v1/transactions/{digits}")).await.body);
        // On a list it is a token; anywhere else in an entry it is refused, and not repeated.
        let entries = "/v1/lists/block_card/entries";
        let listed = gate.send(post(entries, &json!({"card_number": written}), &[])).await;
        assert_eq!(listed.status, 201, "{listed:?}");
        seen.push(listed.body);
        for body in [
            json!({"card_number": written, "note": written}),
            json!({"value": written}),
            json!({"value": digits}),
            json!({"transaction_id": digits}),
            json!({*digits: "x", "card_number": written}),
            json!({"card_number": written, "scope": digits}),
        ] {
            let answer = gate.send(post(entries, &body, &[("x-request-id", digits)])).await;
            assert!(answer.status.is_client_error(), "{answer:?}");
            seen.push(answer.body);
        }
        let path = format!("/v1/lists/{digits}/entries");
        seen.push(gate.send(post(&path, &json!({"card_number": written}), &[])).await.body);
    }
    seen.push(prometheus::TextEncoder::new().encode_to_string(&gate.registry.gather()).unwrap().into());
    assert_eq!(gate.created().await.len(), CARDS.len());
    assert_eq!(gate.list_changes().await.len(), CARDS.len());
    let logged: Vec<String> =
        gate.created().await.iter().map(|t| serde_json::to_string(t).unwrap()).collect();
    assert!(logged.iter().all(|text| !text.contains("cvc") && !text.contains("cvv")));

    let dir = gate.stop().await;
    let lines = std::mem::take(&mut *lines.0.lock().unwrap());
    assert!(holds(&lines, "/v1/transactions/{id}"), "requests are logged, by their route");
    seen.push(lines.into());
    let mut paths = Vec::new();
    files(dir.path(), &mut paths);
    assert!(paths.len() > 3, "{paths:?}");
    for path in &paths {
        seen.push(std::fs::read(path).unwrap().into());
    }
    for (written, digits) in CARDS {
        for bytes in &seen {
            assert!(!holds(bytes, written) && !holds(bytes, digits), "{}", String::from_utf8_lossy(bytes));
        }
    }
    let on_disk = |needle: &str| paths.iter().any(|path| holds(&std::fs::read(path).unwrap(), needle));
    assert!(on_disk("order-0"), "the search finds what is there");
}
