//! Sends malformed requests, and checks that each is refused for the right reason.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hyper::Method;
use serde::Serialize;
use serde_json::Value;

use super::{Malformed, MalformedRequest};
use crate::client::{Answer, Line, Target};
use crate::traffic::fresh_run_id;

const TIMEOUT: Duration = Duration::from_secs(10);
/// A server that closes connections is tried again, so often.
const CONNECTION_TRIES: u32 = 3;
/// A server that limits its callers is waited for, so often.
const RATE_LIMIT_TRIES: u32 = 60;
const RATE_LIMIT_PAUSE_MAX: Duration = Duration::from_secs(2);
/// Wrong answers beyond it are counted only.
const LISTED_MAX: usize = 100;
/// As much of a wrong answer's body is shown.
const SHOWN_CHARS: usize = 300;

/// What became of the malformed requests.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MalformedReport {
    /// Different kinds among those sent.
    pub kinds: u64,
    /// Requests sent.
    pub sent: u64,
    /// Requests refused with 400, 413, 415 or 422.
    pub refused_4xx: u64,
    /// Refusals that name the wrong field.
    pub named_field: u64,
    /// Requests that were not refused as they have to be.
    pub wrong_total: u64,
    /// The first hundred of them.
    pub wrong: Vec<WrongAnswer>,
}

/// A malformed request that was not refused as it has to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WrongAnswer {
    /// Which kind of request it was.
    pub name: String,
    /// The answer's status; absent when there was no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What is wrong with the answer.
    pub detail: String,
}

impl fmt::Display for MalformedReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "malformed requests {:>8}  of {} kinds", self.sent, self.kinds)?;
        writeln!(f, "  refused          {:>8}", self.refused_4xx)?;
        writeln!(f, "  field named      {:>8}", self.named_field)?;
        write!(f, "  wrong            {:>8}", self.wrong_total)?;
        for WrongAnswer { name, status, detail } in &self.wrong {
            let status = status.map_or_else(|| "no answer".to_owned(), |status| status.to_string());
            write!(f, "\n    {name}: {status}: {detail}")?;
        }
        Ok(())
    }
}

/// Sends `count` malformed requests, one after the other, and checks each answer: a 4xx that names the
/// wrong field and repeats no card number.
///
/// # Errors
/// When the URL makes no sense. Wrong and missing answers are no error: they are in the report.
pub async fn run_malformed(url: &str, count: u64, api_key: Option<&str>) -> anyhow::Result<MalformedReport> {
    let target = Arc::new(Target::resolve(url, api_key).await?);
    let mut line = Line::new(Arc::clone(&target));
    let mut requests = Malformed::new(fresh_run_id(), jiff::Timestamp::now());
    let kinds = u64::try_from(requests.kinds()).context("counting the kinds of malformed requests")?;
    let mut report = MalformedReport { kinds: kinds.min(count), ..MalformedReport::default() };
    for _ in 0..count {
        let request = requests.generate();
        report.sent += 1;
        let answer = submit(&target, &mut line, &request).await?;
        report.judge(&request, answer.as_ref());
    }
    Ok(report)
}

async fn submit(
    target: &Target,
    line: &mut Line,
    request: &MalformedRequest,
) -> anyhow::Result<Option<Answer>> {
    let mut tries = 0;
    loop {
        let sent = target.request(Method::POST, request.path, &request.headers, request.body.clone())?;
        let answer = line.exchange(sent, TIMEOUT).await.ok();
        tries += 1;
        match answer {
            Some(Answer { status: 429, retry_after, .. }) if tries < RATE_LIMIT_TRIES => {
                let pause = retry_after.unwrap_or(RATE_LIMIT_PAUSE_MAX).min(RATE_LIMIT_PAUSE_MAX);
                tokio::time::sleep(pause).await;
            }
            // A server may close an idle connection just as the next request is sent on it.
            None if tries < CONNECTION_TRIES => {}
            answer => return Ok(answer),
        }
    }
}

impl MalformedReport {
    fn judge(&mut self, request: &MalformedRequest, answer: Option<&Answer>) {
        let Some(answer) = answer else {
            return self.note(request, None, "the connection broke".to_owned());
        };
        let shown = || String::from_utf8_lossy(&answer.body).chars().take(SHOWN_CHARS).collect::<String>();
        let refused = matches!(answer.status, 400 | 413 | 415 | 422);
        let named = refused && names(request, answer);
        self.refused_4xx += u64::from(refused);
        self.named_field += u64::from(named);
        let wrong = if String::from_utf8_lossy(&answer.body).contains(&request.card.to_string()) {
            "the answer repeats the card number".to_owned()
        } else if !refused {
            format!("has to be 400, 413, 415 or 422: {}", shown())
        } else if !named {
            format!("does not name {}: {}", request.to_be_named(), shown())
        } else {
            return;
        };
        self.note(request, Some(answer.status), wrong);
    }

    fn note(&mut self, request: &MalformedRequest, status: Option<u16>, detail: String) {
        self.wrong_total += 1;
        if self.wrong.len() < LISTED_MAX {
            self.wrong.push(WrongAnswer { name: request.name.clone(), status, detail });
        }
    }
}

impl MalformedRequest {
    fn to_be_named(&self) -> String {
        let pointers = self.pointers.iter().map(|p| if p.is_empty() { "the body" } else { p });
        pointers.chain(self.header).collect::<Vec<_>>().join(" or ")
    }
}

/// Whether a problem document names what is wrong: in `errors`, or for headers and the body as a whole,
/// which no pointer into the body can name, by the status or in the sentence `detail`.
fn names(request: &MalformedRequest, answer: &Answer) -> bool {
    let Ok(problem) = serde_json::from_slice::<Value>(&answer.body) else { return false };
    let no_errors = Vec::new();
    let errors = problem["errors"].as_array().unwrap_or(&no_errors);
    let detail = problem["detail"].as_str().unwrap_or_default().to_ascii_lowercase();
    if let Some(header) = request.header {
        let by_status = header == "content-type" && answer.status == 415;
        let listed = |error: &Value| error["header"].as_str().is_some_and(|h| h.eq_ignore_ascii_case(header));
        return by_status || detail.contains(header) || errors.iter().any(listed);
    }
    let whole = request.pointers.contains(&"") && (answer.status == 413 || detail.contains("body"));
    let listed = |error: &Value| error["pointer"].as_str().is_some_and(|p| request.pointers.contains(&p));
    whole || errors.iter().any(listed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(name: &str) -> MalformedRequest {
        let mut requests = Malformed::new("t", "2026-11-21T00:00:00Z".parse().unwrap());
        requests.find(|request| request.name == name).expect("the kind exists")
    }

    fn judged(name: &str, status: u16, body: impl FnOnce(&MalformedRequest) -> String) -> MalformedReport {
        let request = request(name);
        let body = body(&request).into();
        let mut report = MalformedReport::default();
        report.judge(&request, Some(&Answer { status, retry_after: None, body }));
        report
    }

    #[test]
    fn a_refusal_that_names_the_field_is_right() {
        let report = judged("canonical/amount_negative", 422, |_| {
            r#"{"errors":[{"pointer":"/amount","code":"range","message":"…"}]}"#.to_owned()
        });
        assert_eq!((report.refused_4xx, report.named_field, report.wrong_total), (1, 1, 0));
    }

    #[test]
    fn another_field_no_field_and_no_refusal_are_wrong() {
        let other = |_: &MalformedRequest| r#"{"errors":[{"pointer":"/mcc"}]}"#.to_owned();
        assert_eq!(judged("canonical/amount_negative", 422, other).wrong_total, 1);
        assert_eq!(judged("canonical/amount_negative", 400, |_| "Bad Request".to_owned()).wrong_total, 1);
        for status in [201, 401, 404, 429, 500, 503] {
            let report = judged("canonical/amount_negative", status, |_| {
                r#"{"errors":[{"pointer":"/amount"}]}"#.to_owned()
            });
            assert_eq!((report.refused_4xx, report.wrong_total), (0, 1), "{status}");
        }
    }

    #[test]
    fn an_answer_that_repeats_the_card_number_is_wrong() {
        let report = judged("canonical/card_number_in_metadata", 422, |request| {
            format!(r#"{{"errors":[{{"pointer":"/metadata/note","message":"{}"}}]}}"#, request.card)
        });
        assert_eq!(report.wrong_total, 1);
    }

    #[test]
    fn headers_and_whole_bodies_are_named_where_no_pointer_can() {
        let key = |_: &MalformedRequest| {
            r#"{"errors":[{"pointer":"","header":"Idempotency-Key","code":"format"}]}"#.to_owned()
        };
        assert_eq!(judged("short/key_header_too_long", 422, key).wrong_total, 0);
        let nothing = |_: &MalformedRequest| r#"{"detail":"wrong"}"#.to_owned();
        assert_eq!(judged("short/content_type_text", 415, nothing).wrong_total, 0);
        assert_eq!(judged("short/content_type_text", 422, nothing).wrong_total, 1);
        assert_eq!(judged("short/body_list", 400, nothing).wrong_total, 1);
    }
}
