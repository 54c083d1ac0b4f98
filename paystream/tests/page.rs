//! The page in a real browser: `tests/browser/page.mjs`, where node and chromium are installed.

#![allow(clippy::unwrap_used)] // helpers of tests are tests too

mod support;

use std::path::Path;
use std::process::Command;

use support::{System, skipped, text};

fn installed(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

#[tokio::test]
async fn the_page_shows_live_traffic_without_errors() {
    let browser = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
    let missing: Vec<&str> = ["node", "chromium"].into_iter().filter(|program| !installed(program)).collect();
    if !missing.is_empty() {
        skipped(&format!("the page was not tested in a browser: {} not installed", missing.join(" and ")));
        return;
    }
    if !browser.join("node_modules/playwright-core").is_dir() {
        skipped(&format!("the page was not tested in a browser: run `npm ci` in {}", browser.display()));
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let demo = ["--demo", "--demo-rate", "30"];
    let system = System::start_with(&temp.path().join("data"), "127.0.0.1:0", &demo, &[]).await;
    let script = browser.join("page.mjs");
    let url = system.url.clone();
    let output = tokio::task::spawn_blocking(move || {
        Command::new("node").arg(script).arg(url).current_dir(browser).output().unwrap()
    })
    .await
    .unwrap();
    assert!(output.status.success(), "{}\n{}", text(&output.stdout), text(&output.stderr));
}
