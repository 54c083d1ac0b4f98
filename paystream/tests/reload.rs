//! `POST /-/reload` and SIGHUP: another ruleset without a restart.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod support;

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use support::{System, client, eventually, reconcile, seed_body};

const REPOSITORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Copies of the built-in features and rules, to be changed.
fn own_files(dir: &Path) {
    for (from, to) in [("sql/features", "features"), ("rules", "rules")] {
        fs::create_dir(dir.join(to)).unwrap();
        for entry in fs::read_dir(Path::new(REPOSITORY).join(from)).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, dir.join(to).join(path.file_name().unwrap())).unwrap();
        }
    }
}

async fn start(dir: &Path) -> System {
    let (features, rules) = (dir.join("features"), dir.join("rules"));
    let env = [
        ("PAYSTREAM__SCORING__FEATURES_DIR", features.to_str().unwrap()),
        ("PAYSTREAM__SCORING__RULES_DIR", rules.to_str().unwrap()),
    ];
    System::start_with(&dir.join("data"), "127.0.0.1:0", &[], &env).await
}

/// Adds a rule that fires on every transaction.
fn add_rule(dir: &Path, id: &str, when: &str) {
    let rule = format!(
        "version: 1\nrules:\n  - {{id: {id}, when: '{when}', points: 1, severity: low, reason: {id}, \
         message: always, observed: 1, limit: 0}}\n"
    );
    fs::write(dir.join("rules").join(format!("zz_{id}.yaml")), rule).unwrap();
}

async fn reasons(system: &System) -> String {
    let (status, body, _) = system.post("/transaction", &seed_body(), &[]).await;
    assert_eq!(status, 201, "{body}");
    body["decision"]["reasons"].to_string()
}

/// The ruleset in force, once the analyzer has recovered.
async fn ruleset(system: &System) -> Value {
    eventually("a ruleset is in force", async || {
        let (status, body, _) = system.get("/-/ruleset").await;
        (status == 200).then_some(body)
    })
    .await
}

async fn metric(system: &System, name: &str) -> f64 {
    let metrics = system.get_text("/metrics").await;
    let line = metrics.lines().find(|line| line.split([' ', '{']).next() == Some(name));
    line.unwrap_or_else(|| panic!("no {name}")).rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn reload_and_hangup_take_up_what_the_folders_hold() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path();
    own_files(dir);
    let mut system = start(dir).await;
    let first = ruleset(&system).await;
    assert!(!reasons(&system).await.contains("extra"));

    add_rule(dir, "extra", "amount_minor > 0");
    let (status, answer, _) = system.post("/-/reload", &Value::Null, &[]).await;
    assert_eq!((status, &answer["from_seq"], &answer["warm_up"]), (200, &json!(1), &Value::Null), "{answer}");
    assert_ne!(answer["ruleset"], first["ruleset"]);
    assert!(reasons(&system).await.contains("extra"));

    let wrong = dir.join("rules/zz_wrong.yaml");
    fs::write(&wrong, "version: 1\nrules:\n  - {id: 7}\n").unwrap();
    fs::write(dir.join("rules/zz_worse.yaml"), "version: 9\nrules: []\n").unwrap();
    let (status, problem, headers) = system.post("/-/reload", &Value::Null, &[]).await;
    assert_eq!((status, &headers["content-type"]), (422, &"application/problem+json".parse().unwrap()));
    let errors = problem["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 2, "{problem}");
    assert!(
        problem.to_string().contains("zz_wrong.yaml:3")
            && problem.to_string().contains("version: 9 is unknown")
    );
    assert_eq!(ruleset(&system).await["ruleset"], answer["ruleset"]);
    assert!(reasons(&system).await.contains("extra"));
    assert_eq!(metric(&system, "paystream_analyzer_ruleset_reload_failures_total").await, 1.0);
    assert_eq!(metric(&system, "paystream_analyzer_ruleset_last_reload_successful").await, 0.0);
    assert!(system.stderr().contains("zz_wrong.yaml"), "logged too");
    fs::remove_file(wrong).unwrap();
    fs::remove_file(dir.join("rules/zz_worse.yaml")).unwrap();

    // Other windows, which the log is far enough back for: all of it is there.
    let sql = "SELECT count(*) OVER twin AS card_twins FROM transactions WINDOW twin AS (PARTITION BY card \
               ORDER BY event_time RANGE BETWEEN INTERVAL '5 days' PRECEDING AND CURRENT ROW)";
    fs::write(dir.join("features/zz_twins.sql"), sql).unwrap();
    add_rule(dir, "twins", "card_twins = 4");
    system.signal("HUP");
    let changed = eventually("the new windows are in force", async || {
        let now = ruleset(&system).await;
        (now["ruleset"] != answer["ruleset"]).then_some(now)
    })
    .await;
    assert_eq!((&changed["from_seq"], &changed["warming_rules"]), (&json!(3), &json!([])), "{changed}");
    assert!(reasons(&system).await.contains("twins"), "the fourth of this card, of which three came before");
    assert_eq!(metric(&system, "paystream_analyzer_ruleset_last_reload_successful").await, 1.0);
    assert!(
        metric(&system, "paystream_analyzer_ruleset_last_reload_success_timestamp_seconds").await > 1.7e9
    );
    assert_eq!(metric(&system, "paystream_analyzer_rule_warming").await, 0.0);

    system.kill();
    let system = start(dir).await;
    assert_eq!(ruleset(&system).await["ruleset"], changed["ruleset"]);
    assert!(!reasons(&system).await.contains("twins"), "the fifth");
    assert_eq!(metric(&system, "paystream_analyzer_replay_mismatches_total").await, 0.0);
    let (agrees, report) = reconcile(&["--url", &system.url]);
    assert!(agrees && report["accepted"] == 5, "{report}");
}

#[tokio::test]
async fn without_folders_a_reload_changes_nothing_and_pages_of_other_sites_cannot_ask_for_it() {
    let temp = tempfile::tempdir().unwrap();
    let system = System::start(&temp.path().join("data")).await;
    let before = ruleset(&system).await;
    let (status, answer, _) = system.post("/-/reload", &Value::Null, &[]).await;
    assert_eq!((status, &answer), (200, &before));
    let (status, _, _) = system.post("/-/reload", &Value::Null, &[("origin", "https://evil.example")]).await;
    assert_eq!(status, 403);
    assert_eq!(system.get("/-/reload").await.0, 405, "a look does not reload");
}

#[tokio::test]
async fn with_an_address_of_their_own_the_routes_are_there_alone() {
    let temp = tempfile::tempdir().unwrap();
    let env = [("PAYSTREAM__SERVER__ADMIN_LISTEN", "127.0.0.1:0")];
    let system = System::start_with(&temp.path().join("data"), "127.0.0.1:0", &[], &env).await;
    assert_eq!(system.post("/-/reload", &Value::Null, &[]).await.0, 404);
    let admin = system.metrics_url.clone().unwrap().replace("/metrics", "/-/reload");
    assert_eq!(client().post(admin).send().await.unwrap().status(), 200);
}
