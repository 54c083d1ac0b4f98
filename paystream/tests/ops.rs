//! The operators' tools: doctor, tail and dlq, on a running system and on a stopped one.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod support;

use std::path::Path;
use std::process::{Output, Stdio};

use bytes::Bytes;
use eventlog::{EmbeddedLog, EmbeddedLogConfig, EventLog as _, NewRecord};
use events::{Message as _, Transaction, topics};
use serde_json::{Value, json};
use support::{System, eventually, paystream, run, seed_body, succeed, text};

const GOOD: usize = 2_000;
const BROKEN: usize = 1_000;

/// The `n`th transaction, of one of a hundred cards.
fn transaction(n: usize) -> Transaction {
    serde_json::from_value(json!({
        "id": format!("txn_{n:032x}"), "merchant_id": "shop",
        "accepted_at_us": 1_790_000_000_000_000_u64 + n as u64 * 1_000, "livemode": false,
        "amount_minor": 1_000 + n, "currency": "USD",
        "card": {"token": format!("tok_k1_{:032x}", n % 100), "bin": "411111", "last4": "1111", "brand": "visa",
            "exp_month": 12, "exp_year": 2030},
        "customer": {"email": format!("jane{n}@example.com"), "phone": "+4915112345678"},
        "device": {"ip": "203.0.113.9"},
        "request_fingerprint": "f",
    }))
    .unwrap()
}

fn record(topic: &'static str, key: String, value: Vec<u8>) -> NewRecord {
    // As new as the test: retention goes by it.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    NewRecord {
        topic,
        key: Bytes::from(key),
        value: Bytes::from(value),
        headers: Vec::new(),
        timestamp_ms: i64::try_from(now.as_millis()).unwrap(),
    }
}

/// A data directory whose log holds good transactions and undecodable ones among them, and undecodable labels.
async fn fill(dir: &Path) {
    std::fs::create_dir_all(dir).unwrap();
    let log = EmbeddedLog::open(&dir.join("log"), EmbeddedLogConfig::default()).unwrap();
    let mut records = Vec::new();
    for n in 0..GOOD + BROKEN {
        let transaction = transaction(n);
        let broken: &[u8] = if n % 3 == 2 { b"BROKEN" } else { b"" };
        let value = [broken, &transaction.encode()].concat();
        records.push(record(topics::CREATED, transaction.card.token.as_str().to_owned(), value));
    }
    for n in 0..5 {
        records.push(record(topics::LABELLED, format!("txn_{n}"), vec![0xff, n]));
    }
    log.append(records).await.unwrap();
    log.close().await;
}

fn json_of(output: &str) -> Value {
    serde_json::from_str(output).unwrap_or_else(|e| panic!("{e}: {output}"))
}

/// What `dlq list` says of a topic.
fn listed(source: &[&str], topic: &str) -> Value {
    let list = json_of(&succeed(&[&["dlq", "list", "--json"], source].concat()));
    list.as_array().unwrap().iter().find(|listed| listed["topic"] == topic).unwrap().clone()
}

fn count(source: &[&str], sql: &str) -> u64 {
    json_of(&succeed(&[&["query", "--json", sql], source].concat()))[0]["n"].as_u64().unwrap()
}

#[tokio::test]
async fn a_thousand_dead_letters_are_listed_and_come_through_once_after_a_fix() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("data");
    fill(&dir).await;
    let system = System::start(&dir).await;
    let source = ["--data-dir", dir.to_str().unwrap()];
    let created = eventually("all letters are there", async || {
        let created = listed(&source, "transactions.created.dlq");
        (created["open"] == BROKEN).then_some(created)
    })
    .await;
    assert_eq!(
        created["reasons"],
        json!([{"reason": "not a message envelope: expected value", "count": BROKEN}])
    );
    assert!(created["oldest_ms"].is_u64() && created["oldest_ms"].as_u64() <= created["newest_ms"].as_u64());
    let list = succeed(&[&["dlq", "list"], &source[..]].concat());
    assert!(list.contains("transactions.created.dlq") && list.contains("    1000  not a message"), "{list}");
    shows(&source);
    retries(&source).await;
    labels(&source).await;
    assert!(system.stderr().contains("dead letters were retried") && system.stderr().contains("\"who\":"));
    assert!(system.stop().await.success());

    // Stopped, the same is true of the directory.
    assert_eq!(retry(&source, &["created"])["retried"], 0);
    assert_eq!(listed(&source, "transactions.created.dlq")["open"], 0);
    assert_eq!(listed(&source, "transactions.labelled.dlq")["open"], 0);
    let tail = ["tail", "created", "--json", "--from", "start", "--headers"];
    let all = succeed(&[&tail, &source[..]].concat());
    let again: Vec<Value> =
        all.lines().map(json_of).filter(|entry| entry["headers"]["retry-of"].is_string()).collect();
    assert_eq!((all.lines().count(), again.len()), (GOOD + 2 * BROKEN, BROKEN));
    for entry in &again {
        assert!(
            entry["headers"]["retry-of"].as_str().unwrap().starts_with("transactions.created.dlq/"),
            "{entry}"
        );
        assert_eq!((&entry["headers"]["attempt"], &entry["headers"]["reason"]), (&json!("2"), &Value::Null));
    }
}

fn shows(source: &[&str]) {
    let show = |args: &[&str]| succeed(&[&["dlq", "show", "created"], args, source].concat());
    let letter = json_of(&show(&["--json"]));
    assert_eq!(letter["headers"]["original-topic"], "transactions.created");
    assert!(letter["text"].as_str().unwrap().starts_with("BROKEN{"), "{letter}");
    let shown = letter.to_string();
    assert!(!shown.contains("@example.com\"") || shown.contains("j•••@example.com"), "{shown}");
    assert!(!shown.contains("203.0.113.9") && !shown.contains("+49151"), "{shown}");
    let (partition, offset) = (letter["partition"].to_string(), letter["offset"].to_string());
    let same = show(&["--partition", &partition, "--offset", &offset, "--unmasked"]);
    assert!(same.contains("203.0.113.9") && same.contains("reason    not a message envelope"), "{same}");
    assert_eq!(show(&["--limit", "7", "--json"]).lines().count(), 7);
    let hex = succeed(&[&["dlq", "show", "labelled", "--json"], source].concat());
    assert!(json_of(&hex)["hex"].as_str().unwrap().starts_with("ff"), "{hex}");
}

fn retry(source: &[&str], args: &[&str]) -> Value {
    json_of(&succeed(&[&["dlq", "retry", "--json"], args, source].concat()))
}

const FIX: [&str; 2] = ["--pipe", "sed s/^BROKEN//"];

async fn retries(source: &[&str]) {
    let dry = retry(source, &["created", "--dry-run"]);
    assert_eq!((&dry["retried"], &dry["dry_run"]), (&json!(BROKEN), &json!(true)));
    let failed = run(&[&["dlq", "retry", "created", "--pipe", "exit 3"], source].concat());
    assert_eq!(failed.status.code(), Some(1));
    assert!(text(&failed.stderr).contains("stays, and those after it"), "{}", text(&failed.stderr));
    assert_eq!(listed(source, "transactions.created.dlq")["open"], BROKEN);

    let some = retry(source, &[&["created", "--limit", "10"], &FIX[..]].concat());
    assert_eq!(some["retried"], 10, "{some}");
    let rest = retry(source, &[&["created"], &FIX[..]].concat());
    assert_eq!(rest["retried"], BROKEN - 10, "{rest}");
    let again = retry(source, &[&["created"], &FIX[..]].concat());
    assert_eq!((&again["retried"], &again["repeated"]), (&json!(0), &json!(0)));
    eventually("all are decided", async || {
        (count(source, "SELECT count(*) AS n FROM decisions") == (GOOD + BROKEN) as u64).then_some(())
    })
    .await;
    assert_eq!(
        count(source, "SELECT count(DISTINCT transaction_id) AS n FROM decisions"),
        (GOOD + BROKEN) as u64
    );
}

/// Two stages bury a label: it is one record all the same. And what fails again is not retried in a circle.
async fn labels(source: &[&str]) {
    let buried = async |open: u64, repeated: u64| {
        eventually("the labels are buried", async || {
            let labelled = listed(source, "transactions.labelled.dlq");
            (labelled["open"] == open && labelled["repeated"].as_u64() >= Some(repeated)).then_some(())
        })
        .await;
    };
    buried(5, 5).await;
    let report = retry(source, &["labelled"]);
    assert_eq!((&report["retried"], &report["repeated"]), (&json!(5), &json!(5)));
    // The analyzer takes labels in before the next transaction, of which there is none.
    buried(5, 0).await;
    let refused = run(&[&["dlq", "purge", "labelled"], source].concat());
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stderr));
    let purge = |args: &[&str]| {
        json_of(&succeed(&[&["dlq", "purge", "labelled", "--yes", "--json"], args, source].concat()))
    };
    assert_eq!(purge(&["--limit", "1"])["purged"], 1);
    assert!(purge(&[])["purged"].as_u64() >= Some(4));
    assert_eq!(listed(source, "transactions.labelled.dlq")["open"], 0);
}

fn body(email: &str, amount: u64) -> Value {
    let mut body = seed_body();
    body["amount"] = json!(amount);
    body["customer"] = json!({"id": "c_1", "email": email, "phone": "+4915112345678"});
    body["device"] = json!({"ip": "203.0.113.9"});
    body
}

fn tail(args: &[&str]) -> Output {
    run(&[&["tail"], args].concat())
}

#[tokio::test]
async fn tail_shows_records_as_they_come_masked_and_filtered() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("data");
    let system = System::start(&dir).await;
    let url = system.url.clone();
    let follow = [
        "tail",
        "decided",
        "--url",
        &url,
        "--json",
        "--filter",
        "data.transaction.amount_minor=300",
        "--limit",
        "1",
    ];
    let following = paystream(&follow).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut endless = paystream(&["tail", "created", "--url", &url, "--from", "start"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut following = Some(following);
    let found = eventually("the tail shows what comes", async || {
        // It may have begun after the first of them.
        for amount in [1, 2, 3] {
            let (status, answer, _) =
                system.post("/transaction", &body("jane@example.com", amount), &[]).await;
            assert_eq!(status, 201, "{answer}");
        }
        following
            .as_mut()
            .unwrap()
            .try_wait()
            .unwrap()
            .map(|_| following.take().unwrap().wait_with_output().unwrap())
    })
    .await;
    assert!(found.status.success(), "{}", text(&found.stderr));
    let entry = json_of(&text(&found.stdout));
    assert_eq!(entry["value"]["data"]["transaction"]["amount_minor"], 300);
    assert_eq!(entry["value"]["data"]["transaction"]["customer"]["email"], "j•••@example.com");
    assert_eq!(entry["value"]["data"]["transaction"]["device"]["ip"], "203.0.•.•");

    // It listens for signals before it prints.
    let mut printed = std::io::BufReader::new(endless.stdout.take().unwrap());
    let mut first = String::new();
    std::io::BufRead::read_line(&mut printed, &mut first).unwrap();
    assert!(first.contains(" USD visa 411111••••••1111 txn_"), "{first}");
    let pid = endless.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert_eq!(endless.wait().unwrap().code(), Some(130));

    let masked = tail(&["decided", "--url", &url, "--from", "start", "--limit", "2"]);
    let lines = text(&masked.stdout);
    assert_eq!((masked.status.code(), lines.lines().count()), (Some(0), 2), "{masked:?}");
    assert!(lines.contains("Z  ") && lines.contains("tok_") && lines.contains("… "), "{lines}");
    let full = tail(&["created", "--url", &url, "--from", "start", "--no-follow", "--unmasked", "--json"]);
    assert!(text(&full.stdout).contains("jane@example.com") && text(&full.stdout).contains("203.0.113.9"));
    let none =
        tail(&["created", "--url", &url, "--from", "start", "--no-follow", "--filter", "data.currency=EUR"]);
    assert!(none.status.success() && none.stdout.is_empty(), "{none:?}");
    for wrong in [&["nonsense"][..], &["created", "--filter", "x"], &["created", "--from", "soon"]] {
        assert_eq!(tail(wrong).status.code(), Some(2), "{wrong:?}");
    }
    assert!(system.stop().await.success());
    let stopped = tail(&["created", "--data-dir", dir.to_str().unwrap()]);
    assert!(stopped.status.success() && text(&stopped.stdout).contains("3.00 USD"), "{stopped:?}");
    assert!(!text(&stopped.stdout).contains("jane@"));
}

#[tokio::test]
async fn what_is_not_masked_needs_a_key_where_the_api_does() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("data");
    let data_dir = ["--data-dir", dir.to_str().unwrap()];
    let key = |scope: &str| {
        succeed(&[&["keys", "create", "--scope", scope], &data_dir[..]].concat()).trim().to_owned()
    };
    let (analytics, write) = (key("analytics"), key("transactions:write"));
    let env = [("PAYSTREAM__SERVER__ADMIN_LISTEN", "127.0.0.1:0")];
    let system = System::start_with(&dir, "0.0.0.0:0", &[], &env).await;
    let post = [("authorization", &*format!("Bearer {write}"))];
    assert_eq!(system.post("/transaction", &body("jane@example.com", 5), &post).await.0, 201);
    let tail = |args: &[&str]| {
        tail(&[&["created", "--from", "start", "--no-follow", "--json"], args, &data_dir[..]].concat())
    };
    let masked = tail(&[]);
    assert!(masked.status.success() && text(&masked.stdout).contains("j•••@example.com"), "{masked:?}");
    for args in [&["--unmasked"][..], &["--unmasked", "--api-key", &write]] {
        let refused = tail(args);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert!(text(&refused.stderr).contains("--api-key") && refused.stdout.is_empty(), "{refused:?}");
    }
    let full = tail(&["--unmasked", "--api-key", &analytics]);
    assert!(full.status.success() && text(&full.stdout).contains("jane@example.com"), "{full:?}");
    assert_eq!(system.get("/-/dlq").await.0, 404, "the routes are not where merchants are");
}

fn doctor(args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, Vec<Value>) {
    let output =
        paystream(&[&["doctor", "--json"], args].concat()).envs(env.iter().copied()).output().unwrap();
    let found = json_of(&text(&output.stdout)).as_array().unwrap().clone();
    (output.status.code(), found)
}

fn of<'a>(found: &'a [Value], check: &str) -> &'a Value {
    found.iter().find(|found| found["check"] == check).unwrap_or_else(|| panic!("no {check} in {found:?}"))
}

#[tokio::test]
async fn doctor_finds_a_healthy_system_healthy() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("data");
    let data_dir = ["--data-dir", dir.to_str().unwrap()];
    let listen = ("PAYSTREAM__SERVER__LISTEN", "127.0.0.1:0");
    let (status, found) = doctor(&data_dir, &[listen]);
    assert_eq!(status, Some(0), "{found:?}");
    assert_eq!(of(&found, "system")["message"], "not running");
    assert!(!dir.exists(), "looking changes nothing");

    let system = System::start(&dir).await;
    let (status, found) = doctor(&data_dir, &[listen]);
    assert_eq!(status, Some(0), "{found:?}");
    assert!(of(&found, "system")["message"].as_str().unwrap().contains(&system.url));
    for check in ["ruleset in force", "dead letters", "secret files", "alert routes", "data directory"] {
        assert_eq!(of(&found, check)["status"], "ok", "{found:?}");
    }
    let lines = paystream(&[&["doctor"], &data_dir[..]].concat()).envs([listen]).output().unwrap();
    assert!(text(&lines.stdout).contains("ok    configuration     valid\n"), "{}", text(&lines.stdout));
    assert!(text(&lines.stdout).ends_with(" 0 failures.\n"), "{}", text(&lines.stdout));
}

#[tokio::test]
async fn doctor_says_what_is_wrong_and_what_to_do() {
    use std::os::unix::fs::PermissionsExt as _;
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("data");
    std::fs::create_dir_all(dir.join("keys")).unwrap();
    let secret = dir.join("keys/token-keys.json");
    std::fs::write(&secret, "{}").unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o644)).unwrap();
    let rules = temp.path().join("rules");
    std::fs::create_dir(&rules).unwrap();
    std::fs::write(rules.join("wrong.yaml"), "version: 9\nrules: []\n").unwrap();
    let taken = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let telegram = "123456789:AAF7-g0gYncWnm5IyfZlpPRqRRv6kNAGlao";
    let listen = taken.local_addr().unwrap().to_string();
    let env = [
        ("PAYSTREAM__SERVER__LISTEN", &*listen),
        ("PAYSTREAM__SCORING__RULES_DIR", rules.to_str().unwrap()),
        ("PAYSTREAM__ALERTER__TELEGRAM__BOT_TOKEN", telegram),
        ("PAYSTREAM__ALERTER__TELEGRAM__CHAT_ID", "-100"),
        ("PAYSTREAM__ALERTER__TELEGRAM__API_URL", "http://127.0.0.1:1"),
    ];
    let (status, found) = doctor(&["--data-dir", dir.to_str().unwrap()], &env);
    assert_eq!(status, Some(1), "{found:?}");
    for (check, said) in [
        ("ruleset", "version: 9 is unknown"),
        ("api keys", "keys create"),
        ("secret files", "chmod"),
        ("listen", "another program listens"),
        ("telegram", "refused"),
    ] {
        let found = of(&found, check);
        assert_eq!(found["status"], "fail", "{found}");
        assert!(found.to_string().contains(said) && found["hint"].is_string(), "{said} in {found}");
    }
    assert!(!json!(found).to_string().contains("AAF7"), "the token is shown");
    let (status, found) = doctor(&[], &[("PAYSTREAM__LOG__PARTITIONS", "0")]);
    assert_eq!((status, found.len(), &found[0]["status"]), (Some(1), 1, &json!("fail")), "{found:?}");
}
