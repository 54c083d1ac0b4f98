//! `POST /v1/query` on ClickHouse.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use bytes::Bytes;
use tokio::sync::Semaphore;

use super::config::ClickHouseConfig;
use super::server::Server;
use crate::api::{MAX_BODY_BYTES, asked};
use crate::engine::QueryError;
use crate::problem::{Problem, RequestId};

/// Queries of this process that ClickHouse works on at the same time; others are told to come back.
const MAX_AT_ONCE: usize = 8;

#[derive(Clone)]
struct Context {
    server: Server,
    config: Arc<ClickHouseConfig>,
    places: Arc<Semaphore>,
}

pub(crate) fn router(server: Server, config: ClickHouseConfig) -> axum::Router {
    let places = Arc::new(Semaphore::new(MAX_AT_ONCE));
    axum::Router::new()
        .route("/v1/query", post(query).layer(DefaultBodyLimit::max(MAX_BODY_BYTES)))
        .with_state(Context { server, config: Arc::new(config), places })
}

async fn query(
    State(context): State<Context>,
    id: RequestId,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let answered = async {
        let sql = asked(body)?;
        let _place = context.places.try_acquire().map_err(|_| QueryError::Busy)?;
        Ok(context.server.query(&sql, &context.config).await?)
    };
    let answer = answered.await.map_err(|problem: Problem| problem.of(&id))?;
    let headers = [
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    Ok((headers, Json(answer)).into_response())
}
