//! Posts groups and incidents as JSON, signed as <https://www.standardwebhooks.com> describes when there is a secret.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{StatusCode, Url};
use serde::Serialize;
use sha2::Sha256;

use crate::config::{Secret, WebhookConfig};
use crate::group::{Few, Group, Subject};
use crate::incident::Incident;
use crate::receiver::{Failure, Notice};
use crate::render;
use crate::routes::WebhookSpec;
use crate::story::Story;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const SECRET_PREFIX: &str = "whsec_";

/// The key behind a secret; `None` when it is not `whsec_` and the base64 of 24 to 64 bytes.
pub(crate) fn signing_key(secret: &Secret) -> Option<Vec<u8>> {
    let key = BASE64_STANDARD.decode(secret.expose().strip_prefix(SECRET_PREFIX)?).ok()?;
    (24..=64).contains(&key.len()).then_some(key)
}

/// One URL.
pub(crate) struct Webhook {
    client: reqwest::Client,
    url: Url,
    key: Option<Vec<u8>>,
    public_url: String,
    retry_after_max: Duration,
}

impl Webhook {
    pub(crate) fn new(spec: &WebhookSpec, config: &WebhookConfig, public_url: &str) -> anyhow::Result<Self> {
        // No redirects: what was signed for one place is not carried to another.
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(Duration::from_millis(config.request_timeout_ms))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .context("cannot set up the HTTP client for webhooks")?;
        Ok(Self {
            client,
            url: spec.url.parse().context("a webhook's `url` is not a URL")?,
            key: signing_key(&spec.secret),
            public_url: public_url.to_owned(),
            retry_after_max: Duration::from_millis(config.retry_after_max_ms),
        })
    }

    /// Posts the story; any 2xx answer means that it was taken.
    pub(crate) async fn deliver(&self, notice: &Notice) -> Result<(), Failure> {
        let body = body(notice, &self.public_url);
        // The same for every attempt, so that the receiver can tell a repetition.
        let id = format!("{}_{}", notice.story.id(), notice.story.count());
        let mut request = self
            .client
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", &id);
        let timestamp_s = now_s();
        request = request.header("webhook-timestamp", timestamp_s);
        if let Some(key) = &self.key {
            request = request.header("webhook-signature", sign(key, &id, timestamp_s, &body));
        }
        // A webhook's path is often its password.
        let answer =
            request.body(body).send().await.map_err(|e| Failure::Retry(e.without_url().to_string()))?;
        self.understand(answer.status(), answer.headers())
    }

    fn understand(&self, status: StatusCode, headers: &HeaderMap) -> Result<(), Failure> {
        let asked_to_wait = || {
            let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
            Some(Failure::Wait(Duration::from_secs(seconds).min(self.retry_after_max)))
        };
        let retry = || Failure::Retry(format!("the receiver answered {status}"));
        match status {
            status if status.is_success() => Ok(()),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                Err(asked_to_wait().unwrap_or_else(retry))
            }
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY => Err(retry()),
            status if status.is_server_error() => Err(retry()),
            status => Err(Failure::Refused(format!("the receiver answered {status}"))),
        }
    }
}

#[derive(Serialize)]
struct Body<'a> {
    r#type: &'static str,
    group: GroupBody<'a>,
    /// The worst alert of the group.
    alert: &'a events::Alert,
    url: Option<String>,
    /// Whether this group was posted before, with fewer alerts.
    update: bool,
}

#[derive(Serialize)]
struct GroupBody<'a> {
    id: String,
    subject: &'a Subject,
    severity: events::Severity,
    count: u64,
    first_raised_at_us: i64,
    last_raised_at_us: i64,
    merchants: &'a Few,
    cards: &'a Few,
}

#[derive(Serialize)]
struct IncidentBody<'a> {
    r#type: &'static str,
    status: &'static str,
    incident: IncidentView<'a>,
    /// Whether this incident was posted before.
    update: bool,
}

#[derive(Serialize)]
struct IncidentView<'a> {
    id: String,
    fingerprint: &'a str,
    name: &'a str,
    severity: events::Severity,
    summary: &'a str,
    labels: &'a BTreeMap<String, String>,
    link: Option<&'a str>,
    started_at_us: i64,
    ended_at_us: Option<i64>,
}

impl<'a> From<&'a Incident> for IncidentView<'a> {
    fn from(incident: &'a Incident) -> Self {
        Self {
            id: incident.id.to_string(),
            fingerprint: &incident.fingerprint,
            name: &incident.name,
            severity: incident.severity,
            summary: &incident.summary,
            labels: &incident.labels,
            link: incident.link.as_deref(),
            started_at_us: incident.started_us,
            ended_at_us: incident.ended_us,
        }
    }
}

fn body(notice: &Notice, public_url: &str) -> Vec<u8> {
    let body = match &notice.story {
        Story::Fraud(group) => serde_json::to_vec(&group_body(group, notice.update, public_url)),
        Story::Incident(incident) => serde_json::to_vec(&IncidentBody {
            r#type: "infrastructure.alert",
            status: if incident.ended_us.is_some() { "resolved" } else { "firing" },
            incident: incident.as_ref().into(),
            update: notice.update,
        }),
    };
    body.expect("the body has string keys and finite numbers only")
}

fn group_body<'a>(group: &'a Group, update: bool, public_url: &str) -> Body<'a> {
    Body {
        r#type: "fraud.alert_group",
        group: GroupBody {
            id: group.id.to_string(),
            subject: &group.subject,
            severity: group.severity,
            count: group.count,
            first_raised_at_us: group.first_raised_us,
            last_raised_at_us: group.last_raised_us,
            merchants: &group.merchants,
            cards: &group.cards,
        },
        alert: &group.worst,
        url: render::transaction_url(group.worst.transaction_id, public_url),
        update,
    }
}

fn sign(key: &[u8], id: &str, timestamp_s: u64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(format!("{id}.{timestamp_s}.").as_bytes());
    mac.update(body);
    format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn the_signature_is_that_of_standard_webhooks() {
        // The example of the specification's reference libraries.
        let key = signing_key(&Secret::from(SECRET.to_owned())).unwrap();
        let signature = sign(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn only_a_proper_secret_makes_a_key() {
        for bad in ["", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_short", "whsec_***"] {
            assert_eq!(signing_key(&Secret::from(bad.to_owned())), None, "{bad}");
        }
    }

    #[test]
    fn client_errors_are_refusals_and_server_errors_are_retried() {
        let spec = WebhookSpec { url: "https://x.example".into(), secret: Secret::default() };
        let config = WebhookConfig { request_timeout_ms: 1_000, retry_after_max_ms: 60_000 };
        let webhook = Webhook::new(&spec, &config, "").unwrap();
        let answer = |code: u16, after: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            if let Some(after) = after {
                headers.insert(RETRY_AFTER, after.parse().unwrap());
            }
            webhook.understand(StatusCode::from_u16(code).unwrap(), &headers)
        };
        assert_eq!(answer(204, None), Ok(()));
        assert_eq!(answer(429, Some("9")), Err(Failure::Wait(Duration::from_secs(9))));
        assert_eq!(answer(503, Some("99999")), Err(Failure::Wait(Duration::from_secs(60))), "capped");
        for code in [408, 425, 429, 500, 502, 503] {
            assert!(matches!(answer(code, None), Err(Failure::Retry(_))), "{code}");
        }
        for code in [301, 400, 401, 404, 410] {
            assert!(matches!(answer(code, None), Err(Failure::Refused(_))), "{code}");
        }
    }
}
