//! The middleware that lets a request through only with a key of the right scope.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::{ApiKeys, Authenticator, Caller, Scope};
use crate::observe::RequestId;
use crate::problem::{self, Kind, Problem};

/// The scope that a group of routes asks for. Made by `Gateway::scope_guard`.
#[derive(Debug, Clone)]
pub struct ScopeGuard {
    authenticator: Authenticator,
    scope: Scope,
}

impl ScopeGuard {
    pub(crate) fn new(authenticator: Authenticator, scope: Scope) -> Self {
        Self { authenticator, scope }
    }

    /// A guard where there is no gateway. `anonymous`: whether a request without a key is of the test merchant,
    /// which is for loopback addresses.
    #[must_use]
    pub fn of_keys(keys: ApiKeys, anonymous: bool, scope: Scope) -> Self {
        Self::new(Authenticator::new(keys, anonymous), scope)
    }

    fn check(&self, caller: &Caller) -> Result<(), Problem> {
        if caller.scopes.contains(&self.scope) {
            return Ok(());
        }
        let detail = format!("The API key lacks the scope `{}`. Use one that has it.", self.scope.as_str());
        Err(Problem::new(Kind::Forbidden, detail))
    }
}

/// Middleware for `axum::middleware::from_fn_with_state(guard, require_scope)`: authenticates unless an
/// outer layer did, refuses keys without the scope, and hands the [`Caller`] on as an extension.
pub async fn require_scope(State(guard): State<ScopeGuard>, mut request: Request, next: Next) -> Response {
    let known = request.extensions().get::<Arc<Caller>>().cloned();
    let admitted = match known {
        Some(caller) => Ok(caller),
        None => guard.authenticator.authenticate(request.headers()),
    }
    .and_then(|caller| guard.check(&caller).map(|()| caller));
    match admitted {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        // Under the gateway's own router the outermost layer names the request in the answer; under
        // another router this is the place.
        Err(problem) if request.extensions().get::<RequestId>().is_some() => problem.into_response(),
        Err(problem) => problem::render(&problem, &RequestId::of(request.headers())),
    }
}
