//! The system that uses the data directory.

use std::sync::Arc;

use serde_json::Value;

use super::Patient;
use super::check::Verdict;
use crate::client::Client;

pub(super) async fn running(patient: Arc<Patient>) -> Verdict {
    let Some(holder) = &patient.holder else {
        return Verdict::ok("not running");
    };
    let Some(url) = &holder.url else {
        return Verdict::warn(
            format!("process {} is starting, or is a command that reads the directory", holder.pid),
            "wait, and look again",
        );
    };
    let look = "its log says why; `curl` that address for the parts that are not ready";
    let asked = match Client::new(url, None) {
        Ok(client) => client.get::<Value>("/readyz").await,
        Err(error) => Err(error),
    };
    match asked {
        Ok(answer) if answer["status"] == "ready" => {
            Verdict::ok(format!("ready at {url}, process {}", holder.pid))
        }
        Ok(answer) => Verdict::fail(format!("{url}/readyz says {answer}"), look),
        Err(error) => Verdict::fail(format!("{url}/readyz: {error:#}"), look),
    }
}

/// Whether what decides is what the configuration names.
pub(super) async fn ruleset(patient: Arc<Patient>, client: Client) -> Verdict {
    let status = match client.get::<Value>("/-/ruleset").await {
        Ok(status) => status,
        Err(error) => {
            return Verdict::fail(format!("{error:#}"), "the system's log says why it does not decide");
        }
    };
    let in_force = status["ruleset"].as_str().unwrap_or_default().to_owned();
    if !status["warm_up"].is_null() {
        return Verdict::warn(
            format!(
                "{in_force}, and {} is being warmed up",
                status["warm_up"]["ruleset"].as_str().unwrap_or("?")
            ),
            "wait: `curl …/-/ruleset` says how far it is",
        );
    }
    let own = tokio::task::spawn_blocking(move || patient.config.scoring.ruleset()).await;
    match own {
        Ok(Ok(own)) if own.hash() == in_force => Verdict::ok(in_force),
        Ok(Ok(own)) => Verdict::warn(
            format!("{in_force} decides, the configuration's files are {}", own.hash()),
            "reload: `curl -X POST …/-/reload`; or it was started with another configuration",
        ),
        // The check of the files says what is wrong with them.
        Ok(Err(_)) | Err(_) => Verdict::ok(in_force),
    }
}

pub(super) async fn dead_letters(client: Client) -> Verdict {
    match client.get::<Vec<Value>>("/-/dlq").await {
        Ok(topics) => {
            let open: Vec<String> = topics
                .iter()
                .filter(|topic| topic["open"].as_u64().unwrap_or_default() > 0)
                .map(|topic| format!("{} in {}", topic["open"], topic["topic"].as_str().unwrap_or("?")))
                .collect();
            judge(&open)
        }
        Err(error) => Verdict::warn(format!("{error:#}"), "try `paystream dlq list`"),
    }
}

pub(super) fn judge(open: &[String]) -> Verdict {
    if open.is_empty() {
        return Verdict::ok("none open");
    }
    Verdict::warn(format!("{} open", open.join(", ")), "`paystream dlq list` says why they are there")
}
