//! One check: a question with a deadline, and what came of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use serde::Serialize;

use super::Patient;

/// How long a check may take. The slowest, reading a large ruleset, takes a second or two.
const DEADLINE: Duration = Duration::from_secs(15);

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Ok,
    Warn,
    Fail,
}

/// What was found, and what to do about it.
#[derive(Debug, Clone)]
pub(super) struct Verdict {
    pub(super) status: Status,
    pub(super) message: String,
    pub(super) hint: Option<String>,
}

impl Verdict {
    pub(super) fn ok(message: impl Into<String>) -> Self {
        Self { status: Status::Ok, message: message.into(), hint: None }
    }

    pub(super) fn warn(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { status: Status::Warn, message: message.into(), hint: Some(hint.into()) }
    }

    pub(super) fn fail(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { status: Status::Fail, message: message.into(), hint: Some(hint.into()) }
    }
}

/// A verdict with the name of its check.
#[derive(Debug, Serialize)]
pub(super) struct Finding {
    pub(super) check: &'static str,
    pub(super) status: Status,
    pub(super) message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hint: Option<String>,
    pub(super) elapsed_ms: u64,
}

impl Finding {
    pub(super) fn new(check: &'static str, verdict: Verdict) -> Self {
        let Verdict { status, message, hint } = verdict;
        Self { check, status, message, hint, elapsed_ms: 0 }
    }

    /// As one line for a person.
    pub(super) fn line(&self) -> String {
        let status = match self.status {
            Status::Ok => "ok",
            Status::Warn => "warn",
            Status::Fail => "FAIL",
        };
        let one_line = |text: &str| text.lines().map(str::trim).collect::<Vec<_>>().join("; ");
        let hint = self.hint.as_deref().map_or_else(String::new, |hint| format!(" -> {}", one_line(hint)));
        format!("{status:<4}  {:<17} {}{hint}", self.check, one_line(&self.message))
    }
}

/// A question and its name.
pub(super) struct Check {
    name: &'static str,
    verdict: BoxFuture<'static, Verdict>,
}

impl Check {
    pub(super) fn new(name: &'static str, verdict: impl Future<Output = Verdict> + Send + 'static) -> Self {
        Self { name, verdict: Box::pin(verdict) }
    }

    pub(super) fn now(name: &'static str, verdict: Verdict) -> Self {
        Self::new(name, std::future::ready(verdict))
    }

    /// A check that reads files.
    pub(super) fn blocking(
        name: &'static str,
        patient: &Arc<Patient>,
        look: fn(&Patient) -> Verdict,
    ) -> Self {
        let patient = Arc::clone(patient);
        Self::new(name, async move {
            let looked = tokio::task::spawn_blocking(move || look(&patient)).await;
            looked.unwrap_or_else(|error| Verdict::fail(format!("the check failed: {error}"), "report this"))
        })
    }

    pub(super) async fn run(self) -> Finding {
        self.run_within(DEADLINE).await
    }

    async fn run_within(self, deadline: Duration) -> Finding {
        let began = Instant::now();
        let verdict = tokio::time::timeout(deadline, self.verdict).await.unwrap_or_else(|_| {
            let message = format!("no answer within {} s", deadline.as_secs());
            Verdict::fail(message, "see whether it hangs, or a firewall swallows what is sent")
        });
        let elapsed_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        Finding { elapsed_ms, ..Finding::new(self.name, verdict) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_check_that_hangs_fails_at_its_deadline() {
        let finding = Check::new("stuck", std::future::pending()).run_within(Duration::from_millis(5)).await;
        assert_eq!((finding.check, finding.status), ("stuck", Status::Fail));
        assert!(finding.message.contains("no answer within"), "{finding:?}");
    }

    #[test]
    fn a_finding_is_one_line_with_what_to_do() {
        let finding = Finding::new("disk space", Verdict::fail("full\nreally", "make room"));
        assert_eq!(finding.line(), "FAIL  disk space        full; really -> make room");
    }
}
