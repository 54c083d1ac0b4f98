//! Asking a running system over HTTP.

use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use reqwest::header::HeaderMap;
use reqwest::{RequestBuilder, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Longer than the server takes for its slowest answer, a reconciliation of a busy system.
const TIMEOUT: Duration = Duration::from_secs(300);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a server that has no room is asked again before that is an error …
const BUSY_ATTEMPTS: u32 = 60;
/// … and the longest it is waited for each time.
const RETRY_AFTER_MAX_S: u64 = 30;
/// The longest that a log is followed in one go.
const FOLLOWING: Duration = Duration::from_secs(30 * 24 * 3_600);
/// Far longer than any record of the log.
const LINE_MAX_BYTES: usize = 64 * 1024 * 1024;
/// As much of an answer that is no problem document is shown.
const SHOWN_CHARS: usize = 300;

/// A client of one running system.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    url: String,
    api_key: Option<String>,
    http: reqwest::Client,
}

/// RFC 9457, as far as it is shown.
#[derive(Deserialize)]
struct Problem {
    title: String,
    #[serde(default)]
    detail: String,
}

impl Client {
    /// A client of the system at a base URL.
    pub(crate) fn new(url: &str, api_key: Option<String>) -> anyhow::Result<Self> {
        let url = url.trim_end_matches('/').to_owned();
        let parsed = reqwest::Url::parse(&url).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
        parsed.with_context(|| format!("`{url}` is not a URL: write for example http://127.0.0.1:8080"))?;
        // What asks a given URL goes there, whatever proxy the environment names for other programs.
        let http = reqwest::Client::builder().timeout(TIMEOUT).connect_timeout(CONNECT_TIMEOUT).no_proxy();
        Ok(Self { url, api_key, http: http.build().context("starting the HTTP client")? })
    }

    /// The JSON answer to a GET.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        self.send(self.http.get(format!("{}{path}", self.url))).await
    }

    /// The JSON answer to a POST.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &serde_json::Value,
    ) -> anyhow::Result<T> {
        self.send(self.http.post(format!("{}{path}", self.url)).json(body)).await
    }

    /// The answers to a POST of lines of JSON, which says the same however often it is sent: a server that has
    /// no room is waited for.
    pub(crate) async fn post_lines<T: DeserializeOwned>(
        &self,
        path: &str,
        lines: String,
    ) -> anyhow::Result<Vec<T>> {
        let lines = bytes::Bytes::from(lines);
        let mut attempts = BUSY_ATTEMPTS;
        loop {
            let request = self.http.post(format!("{}{path}", self.url)).body(lines.clone());
            let request = request.header(reqwest::header::CONTENT_TYPE, "application/x-ndjson");
            let (status, headers, body) = self.exchange(request).await?;
            let busy = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE);
            attempts -= 1;
            if busy && attempts > 0 {
                let seconds =
                    headers.get(reqwest::header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
                tokio::time::sleep(Duration::from_secs(seconds.unwrap_or(1).min(RETRY_AFTER_MAX_S))).await;
                continue;
            }
            if !status.is_success() {
                return Err(refusal(status, &body));
            }
            let lines = body.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
            return lines.map(|line| self.read(line)).collect();
        }
    }

    /// The lines of an answer that goes on for as long as both sides wish.
    pub(crate) async fn follow(&self, path: &str) -> anyhow::Result<Lines> {
        let mut request = self.http.get(format!("{}{path}", self.url)).timeout(FOLLOWING);
        if let Some(key) = &self.api_key {
            request = request.bearer_auth(key);
        }
        let answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        let status = answer.status();
        if !status.is_success() {
            let body = answer.bytes().await.with_context(|| format!("reading the answer of {}", self.url))?;
            return Err(refusal(status, &body));
        }
        Ok(Lines { url: self.url.clone(), answer, rest: Vec::new() })
    }

    async fn send<T: DeserializeOwned>(&self, request: RequestBuilder) -> anyhow::Result<T> {
        let (status, _, body) = self.exchange(request).await?;
        if !status.is_success() {
            return Err(refusal(status, &body));
        }
        self.read(&body)
    }

    async fn exchange(
        &self,
        mut request: RequestBuilder,
    ) -> anyhow::Result<(StatusCode, HeaderMap, bytes::Bytes)> {
        if let Some(key) = &self.api_key {
            request = request.bearer_auth(key);
        }
        let answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = answer.bytes().await.with_context(|| format!("reading the answer of {}", self.url))?;
        Ok((status, headers, body))
    }

    fn read<T: DeserializeOwned>(&self, body: &[u8]) -> anyhow::Result<T> {
        serde_json::from_slice(body).with_context(|| {
            format!("the answer of {} is not what this version of paystream expects", self.url)
        })
    }

    fn unreachable(&self, error: &reqwest::Error) -> anyhow::Error {
        let url = &self.url;
        if error.is_connect() {
            return anyhow!("nothing answers at {url}: start `paystream up` first, or name another --url");
        }
        if error.is_timeout() {
            return anyhow!("{url} did not answer within {TIMEOUT:?}");
        }
        anyhow!("asking {url}: {error}")
    }
}

/// Lines of JSON as they arrive.
pub(crate) struct Lines {
    url: String,
    answer: reqwest::Response,
    rest: Vec<u8>,
}

impl Lines {
    /// The next one; none when the server has ended the answer.
    pub(crate) async fn next<T: DeserializeOwned>(&mut self) -> anyhow::Result<Option<T>> {
        loop {
            if let Some(end) = self.rest.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                if line.len() == 1 {
                    continue;
                }
                let read = serde_json::from_slice(&line);
                return read.map(Some).with_context(|| {
                    format!("a line of {} is not what this version of paystream expects", self.url)
                });
            }
            if self.rest.len() > LINE_MAX_BYTES {
                bail!("a line of {} is longer than {LINE_MAX_BYTES} bytes", self.url);
            }
            match self.answer.chunk().await.with_context(|| format!("{} went away", self.url))? {
                Some(chunk) => self.rest.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }
}

fn refusal(status: StatusCode, body: &[u8]) -> anyhow::Error {
    let said = match serde_json::from_slice::<Problem>(body) {
        Ok(Problem { title, detail }) if detail.is_empty() => title,
        Ok(Problem { title, detail }) => format!("{title}: {detail}"),
        Err(_) => String::from_utf8_lossy(body).chars().take(SHOWN_CHARS).collect(),
    };
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            anyhow!("{said} (give an API key with --api-key or PAYSTREAM_API_KEY)")
        }
        _ => anyhow!("the server answered {status}: {said}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_the_problem_document_says() {
        let body = br#"{"type":"x","title":"Invalid SQL","status":400,"detail":"no table `x`"}"#;
        let text = refusal(StatusCode::BAD_REQUEST, body).to_string();
        assert_eq!(text, "the server answered 400 Bad Request: Invalid SQL: no table `x`");
        let text = refusal(StatusCode::UNAUTHORIZED, br#"{"title":"Unauthenticated"}"#).to_string();
        assert!(text.contains("--api-key"), "{text}");
    }

    #[test]
    fn what_is_no_url_is_refused_before_anything_is_sent() {
        assert!(Client::new("127.0.0.1:8080", None).is_err());
        assert!(Client::new("ftp://x", None).is_err());
        Client::new("http://127.0.0.1:8080/", None).unwrap();
    }
}
