//! The command line: help, statuses, configuration, keys and formats.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod support;

use std::io::Write as _;
use std::process::Stdio;

use serde_json::{Value, json};
use support::{System, paystream, run, seed_body, succeed, text};

#[test]
fn help_names_examples_statuses_and_environment() {
    let help = succeed(&["--help"]);
    for part in ["Examples:", "Exit status:", "130", "Environment:", "PAYSTREAM__SECTION__KEY", "NO_COLOR"] {
        assert!(help.contains(part), "{part} in {help}");
    }
    for command in [
        "up",
        "query",
        "reconcile",
        "replay",
        "loadtest",
        "features",
        "healthcheck",
        "bench",
        "keys",
        "lists",
        "doctor",
        "tail",
        "dlq",
        "config",
        "alerter",
        "completions",
    ] {
        let help = succeed(&[command, "--help"]);
        assert!(help.contains("Usage:"), "{help}");
    }
    assert!(succeed(&["--version"]).starts_with("paystream "));
}

#[test]
fn wrong_usage_is_status_2() {
    for args in [&["up", "--no-such-flag"][..], &["nonsense"], &["loadtest", "--duration", "soon"], &[]] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn output_that_is_no_terminal_has_no_colour() {
    for args in [&["--help"][..], &["config", "check", "--config", "/nonexistent"]] {
        let output = run(args);
        assert!(!output.stdout.contains(&0x1b) && !output.stderr.contains(&0x1b), "{args:?}");
    }
}

#[test]
fn everything_wrong_with_the_configuration_is_said_at_once() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("mine.toml");
    std::fs::write(
        &file,
        "[server]\nlistn = \"x\"\nmax_connections = \"many\"\n[gateway]\nfail_mode = \"shrug\"\n[nonsense]\n",
    )
    .unwrap();
    let output = paystream(&["config", "check", "--config", file.to_str().unwrap()])
        .env("PAYSTREAM__LOG__PARTITIONS", "lots")
        .env("PAYSTREAM__DEMO__RATE", "3")
        .output()
        .unwrap();
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    for part in [
        "`server.listn` is not a known key; did you mean `server.listen`?",
        "`server.max_connections` must be an integer",
        "`gateway.fail_mode`",
        "`nonsense` is not a known key",
        "PAYSTREAM__LOG__PARTITIONS: `log.partitions` must be an integer",
        "PAYSTREAM__DEMO__RATE: `demo.rate` is not a known key; did you mean `demo.rate_per_s`?",
    ] {
        assert!(error.contains(part), "{part} in:\n{error}");
    }
    assert_eq!(error.lines().count(), 6, "{error}");
    assert!(error.contains("mine.toml"), "{error}");
    // `up` refuses the same.
    let up = paystream(&["up", "--config", file.to_str().unwrap()]).output().unwrap();
    assert_eq!(up.status.code(), Some(2));
}

#[test]
fn values_out_of_range_in_several_sections_are_said_at_once() {
    let output = paystream(&["config", "check"])
        .env("PAYSTREAM__LOG__PARTITIONS", "0")
        .env("PAYSTREAM__GATEWAY__LEDGER_RETENTION_HOURS", "1")
        .env("PAYSTREAM__WAREHOUSE__QUERY_MAX_ROWS", "0")
        .output()
        .unwrap();
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{error}");
    for key in ["log.partitions", "gateway.ledger_retention_hours", "warehouse.query_max_rows"] {
        assert!(error.contains(key), "{key} in:\n{error}");
    }
}

#[test]
fn the_defaults_are_valid_can_be_printed_and_do_as_a_file() {
    let temp = tempfile::tempdir().unwrap();
    let file = temp.path().join("paystream.toml");
    std::fs::write(&file, succeed(&["config", "default"])).unwrap();
    assert!(succeed(&["config", "check", "--config", file.to_str().unwrap()]).contains("valid"));
    let token = "123456789:AAF7-g0gYncWnm5IyfZlpPRqRRv6kNAGlao";
    let output = paystream(&["config", "print", "--json"])
        .env("PAYSTREAM__ALERTER__TELEGRAM__BOT_TOKEN", token)
        .env("PAYSTREAM__ALERTER__TELEGRAM__CHAT_ID", "-100")
        .output()
        .unwrap();
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed["alerter"]["telegram"]["chat_id"], "-100");
    assert!(!text(&output.stdout).contains("AAF7"), "the token is printed");
}

#[test]
fn completions_are_scripts() {
    assert!(succeed(&["completions", "bash"]).contains("complete -F _paystream"));
    assert!(succeed(&["completions", "fish"]).contains("complete -c paystream"));
}

#[test]
fn a_key_is_shown_once_listed_without_itself_and_can_be_revoked() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("data");
    let data_dir = ["--data-dir", dir.to_str().unwrap()];
    let key = succeed(&[&["keys", "create", "--merchant", "shop_1"], &data_dir[..]].concat());
    let key = key.trim();
    assert!(key.starts_with("sk_test_"), "{key}");
    let list = || -> Value {
        serde_json::from_str(&succeed(&[&["keys", "list", "--json"], &data_dir[..]].concat())).unwrap()
    };
    let listed = list();
    assert_eq!(listed[0]["merchant"], "shop_1");
    assert!(!listed.to_string().contains(key));
    let id = listed[0]["id"].as_str().unwrap();
    succeed(&[&["keys", "revoke", id], &data_dir[..]].concat());
    assert!(list()[0]["revoked_at"].is_string());
    let again = run(&[&["keys", "revoke", id], &data_dir[..]].concat());
    assert_eq!(again.status.code(), Some(2), "{}", text(&again.stderr));
}

#[test]
fn keys_are_kept_in_the_file_that_the_configuration_names() {
    let temp = tempfile::tempdir().unwrap();
    let (dir, file, config) =
        (temp.path().join("data"), temp.path().join("shared.json"), temp.path().join("paystream.toml"));
    let text = format!("[server]\ndata_dir = {dir:?}\n[gateway]\napi_keys_file = {file:?}\n");
    std::fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();
    succeed(&["--config", config, "keys", "create", "--merchant", "shop_1"]);
    assert!(succeed(&["--config", config, "keys", "list"]).contains("shop_1"));
    assert!(std::fs::read_to_string(&file).unwrap().contains("shop_1"));
    assert!(!dir.join("keys/api-keys.json").exists());
}

#[test]
fn the_route_of_an_alert_is_explained() {
    let taken = succeed(&["alerter", "check-config", "--severity", "critical"]);
    assert!(taken.contains("taken"), "{taken}");
    let json = succeed(&["alerter", "check-config", "--json", "--merchant", "shop_9"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["alert"]["merchant_id"], "shop_9");
    assert!(json["explanation"].as_array().is_some_and(|lines| !lines.is_empty()));
    assert_eq!(run(&["alerter", "check-config", "--severity", "loud"]).status.code(), Some(2));
}

#[tokio::test]
async fn a_query_is_answered_as_table_csv_and_json_running_and_stopped() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("data");
    let system = System::start(&dir).await;
    let (_, sent, _) = system.post("/transaction", &seed_body(), &[]).await;
    support::reconcile(&["--url", &system.url]);
    let id = sent["id"].as_str().unwrap().to_owned();
    let sql = "SELECT id, amount_minor, currency FROM transactions";
    let url = system.url.clone();
    let running = ["--url", url.as_str()];
    check_formats(sql, &running, &id);
    let wrong = run(&["query", "--url", &url, "SELECT no_such_column FROM transactions"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(text(&wrong.stderr).contains("no_such_column"), "{}", text(&wrong.stderr));
    assert!(system.stop().await.success());
    check_formats(sql, &["--data-dir", dir.to_str().unwrap()], &id);
    let unreachable = run(&["query", "--url", &url, "SELECT 1"]);
    assert_eq!(unreachable.status.code(), Some(1));
    assert!(text(&unreachable.stderr).contains("nothing answers at"), "{}", text(&unreachable.stderr));
}

fn check_formats(sql: &str, source: &[&str], id: &str) {
    let ask = |args: &[&str]| succeed(&[&["query", sql], source, args].concat());
    let json: Value = serde_json::from_str(&ask(&["--json"])).unwrap();
    assert_eq!(json, json!([{"id": id, "amount_minor": 10_050, "currency": "USD"}]));
    assert_eq!(ask(&["--format", "csv"]), format!("id,amount_minor,currency\n{id},10050,USD\n"));
    let table = ask(&[]);
    assert!(table.contains(id) && table.ends_with("1 row\n"), "{table}");
    let mut child = paystream(&[&["query", "--format", "csv"], source].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"SELECT count(*) AS n FROM transactions").unwrap();
    assert_eq!(text(&child.wait_with_output().unwrap().stdout), "n\n1\n", "from standard input");
}

#[test]
fn a_question_to_nothing_says_what_to_name() {
    let temp = tempfile::tempdir().unwrap();
    for command in [&["query", "SELECT 1"][..], &["reconcile"]] {
        let output = run(&[command, &["--data-dir", temp.path().to_str().unwrap()]].concat());
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains("--data-dir"), "{}", text(&output.stderr));
    }
}

#[tokio::test]
async fn a_health_check_succeeds_while_the_system_can_serve_and_fails_otherwise() {
    let temp = tempfile::tempdir().unwrap();
    let system = System::start(&temp.path().join("data")).await;
    let check = |url: String| {
        let output = run(&["healthcheck", "--url", &url, "--timeout", "10s"]);
        (output.status.code(), text(&output.stderr))
    };
    assert_eq!(check(format!("{}/", system.url)).0, Some(0));
    let (code, error) = check(format!("{}/no/such", system.url));
    assert!(code == Some(1) && error.contains("answered 404"), "{error}");
    // The configuration says where, in a container too.
    let address = system.address();
    let by_configuration = || paystream(&["healthcheck"]).env("PAYSTREAM__SERVER__LISTEN", address).output();
    assert!(by_configuration().unwrap().status.success());
    let wrong = paystream(&["healthcheck"]).env("PAYSTREAM__SERVER__LISTEN", "nowhere").output().unwrap();
    assert_eq!(wrong.status.code(), Some(1), "not 2, which container engines reserve");
    assert!(system.stop().await.success());
}
