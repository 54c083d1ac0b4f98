//! The layers a request passes before its handler: address, key and rate, then room.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::{Request, State};
use axum::http::HeaderName;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use crate::client_ip::{bucket_of, client_ip};
use crate::problem::Problem;
use crate::replicas::quotas::{self, Take};
use crate::state::{App, Shared, unavailable};

const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// Finds the merchant behind the request, and takes what it costs from the buckets of its address and its
/// key, in one exchange with Redis. A wrong key costs its address the same: guessing keys is limited too.
pub(crate) async fn admit(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let address = client_ip(request.extensions(), request.headers(), &app.trusted_proxies);
    let caller = app.authenticator.authenticate(request.headers());
    let mut takes = vec![Take { limiter: &app.ip_limiter, caller: bucket_of(address), cost: 1 }];
    if let Ok(caller) = &caller {
        takes.push(Take { limiter: &app.key_limiter, caller: caller.bucket, cost: 1 });
    }
    let verdicts = quotas::take(app.redis.as_deref(), &takes).await;
    let mut response = match (verdicts.iter().find_map(|verdict| verdict.err()), caller) {
        (Some(exceeded), _) => exceeded.problem().into_response(),
        (None, Err(problem)) => problem.into_response(),
        (None, Ok(caller)) => {
            // Its span names the merchant.
            let traced = runtime::scope::trace().map(|_| caller.clone());
            request.extensions_mut().insert(caller);
            let mut response = next.run(request).await;
            if let Some(caller) = traced {
                response.extensions_mut().insert(caller);
            }
            response
        }
    };
    // Each limit that was asked adds its own: both headers are lists, of the key before the address.
    for (take, verdict) in takes.iter().zip(&verdicts).rev() {
        let quota = verdict.unwrap_or_else(|exceeded| exceeded.quota);
        response.headers_mut().append(RATE_LIMIT_POLICY, take.limiter.policy_header());
        response.headers_mut().append(RATE_LIMIT, quota.header());
    }
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
