//! Which handler answers which route, and which layers lie around it.

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use tower_http::catch_panic::CatchPanicLayer;

use crate::auth::{Scope, ScopeGuard, require_scope};
use crate::state::App;
use crate::{admission, batch, handlers, labels, lists, observe, problem};

pub(crate) fn router(app: App) -> Router {
    let guard = |scope| from_fn_with_state(ScopeGuard::new(app.authenticator.clone(), scope), require_scope);
    let write = Router::new()
        .route("/v1/transactions", post(handlers::submit_canonical))
        .route("/transaction", post(handlers::submit_short))
        .route("/v1/transactions/batch", post(batch::submit_batch))
        .route("/v1/transactions/{id}/labels", post(labels::label))
        .route_layer(guard(Scope::TransactionsWrite));
    let read = Router::new()
        .route("/v1/transactions/{id}", get(handlers::show))
        .route("/transaction/{id}", get(handlers::show))
        .route_layer(guard(Scope::TransactionsRead));
    let lists = Router::new()
        .route("/v1/lists", get(lists::declared))
        .route("/v1/lists/{list}/entries", post(lists::add))
        .route("/v1/lists/{list}/entries/remove", post(lists::remove))
        .route_layer(guard(Scope::Lists));
    // A request passes the layers from the last to the first.
    write
        .merge(read)
        .merge(lists)
        .route_layer(from_fn_with_state(app.clone(), admission::bound_in_flight))
        .route_layer(from_fn_with_state(app.clone(), admission::admit))
        .route("/health", get(handlers::health))
        .fallback(problem::no_such_route)
        .method_not_allowed_fallback(problem::no_such_method)
        .layer(CatchPanicLayer::custom(problem::of_panic))
        .layer(from_fn_with_state(app.clone(), observe::observe))
        .with_state(app)
}
