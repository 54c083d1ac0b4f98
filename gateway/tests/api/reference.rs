//! The examples in the API reference do what it says.

use axum::http::{Method, Request};

use crate::support::{Gate, from};

const REFERENCE: &str = include_str!("../../../docs/api.md");

/// One `curl` of the reference.
struct Example {
    path: String,
    headers: Vec<(String, String)>,
    body: Option<String>,
}

/// The commands of the reference's shell blocks that start with `curl`, in order.
fn examples() -> Vec<Example> {
    let blocks = REFERENCE.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let commands = blocks.flat_map(|block| block.split("curl ").skip(1));
    commands
        .map(|command| {
            let path = between(command, "$PAYSTREAM", "\"").next().unwrap();
            let headers = between(command, "-H '", "'").chain(between(command, "-H \"", "\""));
            let headers = headers.map(|header| header.split_once(": ").unwrap());
            Example {
                path: path.to_owned(),
                headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
                body: between(command, "-d '", "'").next().map(str::to_owned),
            }
        })
        .collect()
}

fn between<'a>(text: &'a str, start: &'a str, end: &'a str) -> impl Iterator<Item = &'a str> {
    text.split(start).skip(1).map(move |rest| rest.split(end).next().unwrap())
}

#[tokio::test]
async fn every_curl_line_of_the_reference_is_answered_as_described() {
    let gate = Gate::open().await;
    let batch_lines: Vec<&str> =
        REFERENCE.lines().filter_map(|line| line.trim().strip_prefix("'{")).collect();
    let batch =
        batch_lines.iter().map(|line| format!("{{{}\n", line.trim_end_matches("' \\"))).collect::<String>();
    let (mut seen, mut id) = (Vec::new(), String::new());
    for example in examples() {
        let path = example.path.replace("$id", &id);
        let body = match (&example.body, path.ends_with("/batch")) {
            (Some(body), _) => Some(body.clone()),
            (None, true) => Some(batch.clone()),
            (None, false) => None,
        };
        let method = if body.is_some() { Method::POST } else { Method::GET };
        let mut request = Request::builder().method(method.clone()).uri(&path);
        for (name, value) in &example.headers {
            request = request.header(name, value);
        }
        let body = axum::body::Body::from(body.unwrap_or_default());
        let answer = gate.send(from("127.0.0.1", request.body(body).unwrap())).await;
        if answer.status.is_success() && path == "/transaction" {
            id = answer.id();
        }
        let path = if id.is_empty() { path } else { path.replace(&id, "{id}") };
        seen.push(format!("{method} {path} {}", answer.status.as_u16()));
        if path.ends_with("/batch") {
            let statuses: Vec<u64> = String::from_utf8_lossy(&answer.body)
                .lines()
                .map(|line| {
                    serde_json::from_str::<serde_json::Value>(line).unwrap()["status"].as_u64().unwrap()
                })
                .collect();
            assert_eq!(statuses, [201, 422]);
        }
    }
    assert_eq!(
        seen,
        [
            "GET /v1/transactions/txn_00000000000000000000000000000000 401",
            "POST /v1/transactions 201",
            "POST /v1/transactions 202",
            "POST /transaction 201",
            "POST /transaction 201",
            "POST /transaction 201",
            "GET /v1/transactions/{id} 200",
            "POST /v1/transactions/batch 200",
            "POST /v1/transactions/{id}/labels 201",
            "GET /v1/lists 200",
            "POST /v1/lists/block_card/entries 201",
            "POST /v1/lists/block_ip/entries/remove 200",
            "POST /v1/transactions 422",
            "GET /health 200",
        ]
    );
}
