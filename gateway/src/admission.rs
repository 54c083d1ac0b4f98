//! The layers a request passes before its handler: address, key, rate, room.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::HeaderName;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::auth::Caller;
use crate::client_ip::{bucket_of, client_ip};
use crate::limits::Limiter;
use crate::problem::Problem;
use crate::state::{App, Shared, unavailable};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Before the key is looked at: guessing keys is limited too.
pub(crate) async fn limit_by_address(State(app): State<App>, request: Request, next: Next) -> Response {
    let address = client_ip(request.extensions(), request.headers(), &app.trusted_proxies);
    limited(&app.ip_limiter, bucket_of(address), request, next).await
}

/// Finds the merchant behind the request.
pub(crate) async fn authenticate(
    State(app): State<App>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let caller = app.authenticator.authenticate(request.headers())?;
    // Its span names the merchant.
    let traced = runtime::scope::trace().map(|_| caller.clone());
    request.extensions_mut().insert(caller);
    let mut response = next.run(request).await;
    if let Some(caller) = traced {
        response.extensions_mut().insert(caller);
    }
    Ok(response)
}

/// After [`authenticate`].
pub(crate) async fn limit_by_key(State(app): State<App>, request: Request, next: Next) -> Response {
    let bucket = request.extensions().get::<Arc<Caller>>().map_or(0, |caller| caller.bucket);
    limited(&app.key_limiter, bucket, request, next).await
}

async fn limited(limiter: &Limiter, bucket: u128, request: Request, next: Next) -> Response {
    let (quota, mut response) = match limiter.take(bucket, 1, Instant::now()) {
        Ok(quota) => (quota, next.run(request).await),
        Err(exceeded) => (exceeded.quota, exceeded.problem().into_response()),
    };
    // Each limit adds its own: both headers are lists.
    response.headers_mut().append(RATE_LIMIT_POLICY, limiter.policy_header());
    response.headers_mut().append(RATE_LIMIT, quota.header());
    response
}

/// Refuses what would have to wait for room.
pub(crate) async fn bound_in_flight(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let _place = Place::take(app)
        .ok_or_else(|| unavailable("Too many requests are being served. Nothing was accepted; try again."))?;
    Ok(next.run(request).await)
}

/// One of the requests being served; given back when dropped, also by a panic or a client that left.
struct Place(Arc<Shared>);

impl Place {
    fn take(app: App) -> Option<Self> {
        let taken = app.in_flight.fetch_add(1, Ordering::Relaxed);
        app.metrics.in_flight.inc();
        let place = Self(app);
        (taken < place.0.config.in_flight_max_requests).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
        self.0.metrics.in_flight.dec();
    }
}
