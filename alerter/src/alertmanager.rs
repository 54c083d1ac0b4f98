//! `POST /alertmanager`: takes what Prometheus' Alertmanager says of the system itself.

mod notification;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, FromRequest as _, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use self::notification::Flaw;
use crate::config::Secret;
use crate::deliver::{now_ms, on_store};
use crate::metrics::Metrics;
use crate::routes::Routes;
use crate::store::{Store, Told};

/// A group of some thousand alerts.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// What a notification is taken with.
pub(crate) struct Intake {
    pub(crate) token: Secret,
    pub(crate) store: Arc<Store>,
    pub(crate) routes: Arc<Routes>,
    /// The receivers that have a worker, each with what wakes it.
    pub(crate) workers: BTreeMap<String, Arc<Notify>>,
    pub(crate) metrics: Metrics,
}

/// The route. Without a token it takes notifications only where programs of this machine alone can connect.
pub(crate) fn router(intake: Arc<Intake>, loopback: bool) -> Router {
    let state = Door { intake, loopback };
    Router::new()
        .route("/alertmanager", post(take))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(state)
}

#[derive(Clone)]
struct Door {
    intake: Arc<Intake>,
    loopback: bool,
}

impl Door {
    fn admit(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let token = &self.intake.token;
        if token.is_empty() {
            return if self.loopback { Ok(()) } else { Err(Problem::no_token()) };
        }
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.split_once(' '));
        let given = given.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        // Digests, so that the time taken says nothing of where two tokens differ.
        let same = |given: &str| Sha256::digest(given.trim()) == Sha256::digest(token.expose());
        if given.is_some_and(|(_, given)| same(given)) { Ok(()) } else { Err(Problem::unauthenticated()) }
    }
}

async fn take(State(door): State<Door>, request: Request) -> Result<Response, Problem> {
    door.admit(request.headers())?;
    let media_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    // Not a type that a page of another origin may send unasked.
    let media_type = media_type.and_then(|text| text.split(';').next()).map(str::trim);
    if media_type != Some("application/json") {
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "Send application/json."));
    }
    let body = axum::body::Bytes::from_request(request, &()).await.map_err(|error| {
        let detail = format!("The body cannot be read, or is larger than {BODY_BYTES_MAX} bytes.");
        Problem { detail: detail.into(), ..Problem::new(error.into_response().status(), "") }
    })?;
    let said = notification::parse(&body).map_err(Problem::wrong)?;
    let intake = door.intake;
    let told: Vec<Told> = said.into_iter().map(|said| intake.route(said)).collect();
    let count = told.len();
    match on_store(&intake.store, move |store| store.record_incidents(told, now_ms())).await {
        Ok(news) => {
            intake.metrics.incidents.inc_by(news as u64);
            intake.metrics.alerts_duplicate.inc_by((count - news) as u64);
            intake.workers.values().for_each(|wake| wake.notify_one());
            Ok(StatusCode::OK.into_response())
        }
        Err(error) => {
            tracing::error!("a notification of Alertmanager could not be recorded: {error:#}");
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "Nothing was recorded. Send it again."))
        }
    }
}

impl Intake {
    fn route(&self, said: crate::incident::Notification) -> Told {
        let receivers = self.routes.receivers_of_incident(said.severity, &said.name);
        let receivers: Vec<String> = receivers.into_iter().map(str::to_owned).collect();
        if receivers.is_empty() {
            tracing::info!(
                alert = said.name,
                severity = said.severity.as_str(),
                "no route takes it: sent nowhere"
            );
        }
        Told { said, receivers }
    }
}

/// RFC 9457.
#[derive(Debug, Serialize)]
struct Problem {
    r#type: &'static str,
    title: &'static str,
    #[serde(serialize_with = "status_number")]
    status: StatusCode,
    detail: std::borrow::Cow<'static, str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Flaw>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn status_number<S: serde::Serializer>(status: &StatusCode, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u16(status.as_u16())
}

impl Problem {
    fn new(status: StatusCode, detail: &'static str) -> Self {
        let title = status.canonical_reason().unwrap_or("Error");
        Self { r#type: "about:blank", title, status, detail: detail.into(), errors: Vec::new() }
    }

    fn unauthenticated() -> Self {
        let detail = "Send `Authorization: Bearer` with the token that `alerter.alertmanager.token` holds.";
        Self::new(StatusCode::UNAUTHORIZED, detail)
    }

    fn no_token() -> Self {
        let detail = "`alerter.alertmanager.token` is not set: notifications are taken on loopback only.";
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    fn wrong(errors: Vec<Flaw>) -> Self {
        let detail = "This is not a notification of Alertmanager's webhook, version 4. Nothing was recorded.";
        Self { errors, ..Self::new(StatusCode::BAD_REQUEST, detail) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self).expect("string keys and numbers only");
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let json = header::HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        if self.status == StatusCode::UNAUTHORIZED {
            let bearer = header::HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
        }
        response
    }
}
