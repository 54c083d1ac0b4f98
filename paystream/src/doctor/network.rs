//! Addresses to listen on, and servers that are neither Kafka, ClickHouse nor Redis.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::net::TcpListener;

use super::Patient;
use super::check::Verdict;

/// How long a server may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Whether an address to listen on is for this machine alone, as far as its text says.
pub(super) fn is_loopback(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

pub(super) async fn listen(patient: Arc<Patient>) -> Verdict {
    let ours = patient.holder.as_ref().and_then(|holder| holder.url.clone());
    address(&patient.config.server.listen, ours, "server.listen").await
}

pub(super) async fn admin_listen(patient: Arc<Patient>) -> Verdict {
    let ours = patient.holder.as_ref().and_then(|holder| holder.metrics_url.clone());
    address(&patient.config.server.admin_listen, ours, "server.admin_listen").await
}

/// Free, or answered by the system that uses the data directory.
async fn address(text: &str, ours: Option<String>, setting: &str) -> Verdict {
    let error = match TcpListener::bind(text).await {
        Ok(_) if ours.is_none() => return Verdict::ok(format!("{text} is free")),
        Ok(_) => {
            let ours = ours.unwrap_or_default();
            return Verdict::ok(format!("{text} is free; the running system answers at {ours}"));
        }
        Err(error) => error,
    };
    let port = |text: &str| text.rsplit_once(':').map(|(_, port)| port.to_owned());
    if error.kind() != std::io::ErrorKind::AddrInUse {
        let hint = format!("set {setting} to an address of this machine, and to a port above 1023");
        return Verdict::fail(format!("{text} cannot be listened on: {error}"), hint);
    }
    let of_ours = ours.as_deref().and_then(|url| port(url.trim_end_matches("/metrics")));
    if of_ours.is_some() && of_ours == port(text) {
        return Verdict::ok(format!("{text} is answered by the running system"));
    }
    let hint = format!("find it with `ss -ltnp`, stop it, or choose another {setting}");
    Verdict::fail(format!("another program listens on {text}"), hint)
}

/// The token is part of the URL: no error may name it.
pub(super) async fn telegram(patient: Arc<Patient>) -> Verdict {
    let settings = &patient.config.alerter.telegram;
    let url = format!("{}/bot{}/getMe", settings.api_url.trim_end_matches('/'), settings.bot_token.expose());
    let answer = match ask(&url).await {
        Ok(answer) => answer,
        Err(error) => {
            let message = format!("{} cannot be asked: {error}", settings.api_url);
            return Verdict::fail(
                message,
                "see whether this machine reaches it: proxy, firewall, alerter.telegram.api_url",
            );
        }
    };
    let status = answer.status();
    let body: Value = answer.json().await.unwrap_or_default();
    if body["ok"] == true {
        let name = body["result"]["username"].as_str().unwrap_or("?").to_owned();
        return Verdict::ok(format!("the token is that of @{name}"));
    }
    let said = body["description"].as_str().unwrap_or_default().to_owned();
    match status.as_u16() {
        401 | 404 => Verdict::fail(
            format!("the token is refused: {status} {said}"),
            "take it from @BotFather again, and set alerter.telegram.bot_token",
        ),
        _ => Verdict::warn(format!("the answer is {status} {said}"), "try again later"),
    }
}

pub(super) async fn otlp(endpoint: String) -> Verdict {
    // Any answer says that there is a collector: a GET is nothing it takes.
    match ask(&endpoint).await {
        Ok(_) => Verdict::ok(format!("{endpoint} answers")),
        Err(error) => Verdict::fail(
            format!("{endpoint} cannot be reached: {error}"),
            "start the collector, or correct telemetry.otlp_endpoint; nothing else waits for it",
        ),
    }
}

async fn ask(url: &str) -> anyhow::Result<reqwest::Response> {
    let client = reqwest::Client::builder().timeout(TIMEOUT).build()?;
    client.get(url).send().await.map_err(|error| cause(&error.without_url()))
}

/// What is at the bottom of an error says why.
fn cause(error: &reqwest::Error) -> anyhow::Error {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    anyhow::anyhow!("{cause}")
}

#[cfg(test)]
mod tests {
    use super::super::check::Status;
    use super::*;

    #[test]
    fn loopback_is_told_by_the_text() {
        for yes in ["127.0.0.1:80", "[::1]:80", "localhost:80", "127.9.9.9:1"] {
            assert!(is_loopback(yes), "{yes}");
        }
        for no in ["0.0.0.0:80", "[::]:80", "10.0.0.1:80", "pay.example:80"] {
            assert!(!is_loopback(no), "{no}");
        }
    }

    #[tokio::test]
    async fn an_address_is_free_or_ours_or_anothers() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let text = taken.local_addr().unwrap().to_string();
        let verdict = address(&text, None, "server.listen").await;
        assert_eq!(verdict.status, Status::Fail);
        assert!(verdict.hint.unwrap().contains("server.listen"));
        let ours = address(&text, Some(format!("http://{text}")), "server.listen").await;
        assert_eq!(ours.status, Status::Ok, "{ours:?}");
        assert_eq!(address("127.0.0.1:0", None, "server.listen").await.status, Status::Ok);
        assert_eq!(address("203.0.113.1:80", None, "server.listen").await.status, Status::Fail);
    }

    #[tokio::test]
    async fn what_is_not_there_is_a_failure_that_says_why() {
        let verdict = otlp("http://127.0.0.1:1".to_owned()).await;
        assert_eq!(verdict.status, Status::Fail);
        assert!(verdict.message.contains("refused"), "{verdict:?}");
    }
}
