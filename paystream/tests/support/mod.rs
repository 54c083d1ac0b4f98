//! Starts the real binary and talks to it.
#![allow(dead_code)] // each test file uses its part

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Far longer than anything here takes on a busy machine: a test that reaches it hangs.
pub(crate) const LONG: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(20);

pub(crate) fn paystream(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_paystream"));
    command.args(args).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command
}

/// Runs a command to its end.
pub(crate) fn run(args: &[&str]) -> Output {
    paystream(args).stdin(Stdio::null()).output().expect("the binary runs")
}

/// Runs a command that has to succeed, and returns its standard output.
pub(crate) fn succeed(args: &[&str]) -> String {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// Says that a test was skipped, past the test harness, which hides what passing tests print.
pub(crate) fn skipped(what: &str) {
    let _ = writeln!(std::io::stderr(), "\n*** SKIPPED: {what} ***\n");
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Polls `check` until it finds something.
pub(crate) async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let until = Instant::now() + LONG;
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < until, "never happened: {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// A running `paystream up`; killed when dropped.
pub(crate) struct System {
    pub(crate) url: String,
    pub(crate) metrics_url: Option<String>,
    pub(crate) dir: PathBuf,
    child: Child,
}

impl System {
    /// Starts on a free port of loopback.
    pub(crate) async fn start(dir: &Path) -> Self {
        Self::start_with(dir, "127.0.0.1:0", &[], &[]).await
    }

    /// Starts on the given address. What it prints goes to `stdout` and `stderr` beside the data
    /// directory, one run after the other.
    pub(crate) async fn start_with(dir: &Path, listen: &str, args: &[&str], env: &[(&str, &str)]) -> Self {
        let output = |name: &str| {
            let path = dir.with_extension(name);
            File::options().create(true).append(true).open(path).expect("an output file")
        };
        let data_dir = dir.to_str().expect("an UTF-8 path");
        let child = paystream(&["up", "--data-dir", data_dir, "--listen", listen])
            .args(args)
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(output("stdout"))
            .stderr(output("stderr"))
            .spawn()
            .expect("the binary starts");
        let mut system = Self { url: String::new(), metrics_url: None, dir: dir.to_path_buf(), child };
        let pid = system.child.id();
        let holder = eventually("the system is up", async || {
            if let Some(status) = system.child.try_wait().expect("a child") {
                panic!("up ended with {status}: {}", system.stderr());
            }
            let holder = std::fs::read(dir.join("paystream.lock")).ok()?;
            let holder: Value = serde_json::from_slice(&holder).ok()?;
            (holder["pid"] == pid && holder["url"].is_string()).then_some(holder)
        })
        .await;
        system.url = holder["url"].as_str().expect("checked above").to_owned();
        system.metrics_url = holder["metrics_url"].as_str().map(str::to_owned);
        system
    }

    pub(crate) fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    pub(crate) fn stdout(&self) -> String {
        std::fs::read_to_string(self.dir.with_extension("stdout")).unwrap_or_default()
    }

    pub(crate) fn stderr(&self) -> String {
        std::fs::read_to_string(self.dir.with_extension("stderr")).unwrap_or_default()
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("the process exists");
        self.child.wait().expect("a child");
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &pid]).status().expect("kill runs");
        assert!(status.success(), "kill -{name} {pid}");
    }

    pub(crate) async fn wait(&mut self) -> ExitStatus {
        eventually("the process ends", async || self.child.try_wait().expect("a child")).await
    }

    /// SIGTERM, and waits for the ordered end.
    pub(crate) async fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        self.wait().await
    }

    pub(crate) async fn post(
        &self,
        path: &str,
        body: &Value,
        headers: &[(&str, &str)],
    ) -> (u16, Value, reqwest::header::HeaderMap) {
        let mut request = client().post(format!("{}{path}", self.url)).json(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        answer(request).await
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value, reqwest::header::HeaderMap) {
        answer(client().get(format!("{}{path}", self.url))).await
    }

    pub(crate) async fn get_text(&self, path: &str) -> String {
        let answer = client().get(format!("{}{path}", self.url)).send().await.expect("an answer");
        answer.text().await.expect("a body")
    }
}

impl Drop for System {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn client() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().timeout(LONG).build().expect("a client")
}

async fn answer(request: reqwest::RequestBuilder) -> (u16, Value, reqwest::header::HeaderMap) {
    let answer = request.send().await.expect("an answer");
    let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
    let body = answer.bytes().await.expect("a body");
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null), headers)
}

/// The body of seed 002's curl example, its expiry moved to the future.
pub(crate) fn seed_body() -> Value {
    json!({
        "amount": 100.50, "currency": "USD", "card_number": "4111111111111111",
        "expiry_month": 12, "expiry_year": 2030, "cvv": "123",
    })
}

/// `paystream reconcile --json`: whether it agrees, and what it says.
pub(crate) fn reconcile(args: &[&str]) -> (bool, Value) {
    let output = run(&[&["reconcile", "--json"], args].concat());
    let report = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("no report: {}", text(&output.stderr)));
    assert_eq!(output.status.code(), Some(i32::from(!agrees(&report))), "{report}");
    (output.status.success(), report)
}

fn agrees(report: &Value) -> bool {
    report["missing"] == 0 && report["duplicated"] == 0
}
