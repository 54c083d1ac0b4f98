//! `/-/dlq/…`: the dead letters of the log in this process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use eventlog::EventLog;
use futures::future::BoxFuture;
use gateway::auth::{ScopeGuard, require_scope};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::desk::{Desk, GROUP_MAX, Mended};
use super::show::{self, Which};
use super::{Peeked, survey};
use crate::host::problem;
use crate::logs;
use crate::mask::Mask;

/// Mended values of one group, in hexadecimal digits.
const BODY_MAX_BYTES: usize = 64 * 1024 * 1024;
/// Requests that wait for their turn.
const WAITING_MAX: usize = 16;

/// The desk, for one request at a time.
#[derive(Clone)]
struct Shared {
    log: Arc<dyn EventLog>,
    turn: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    desk: Arc<Mutex<Option<Desk>>>,
}

/// What is to be taken of a topic.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Asked {
    pub(super) until: Vec<u64>,
    pub(super) max: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) from: Option<Vec<u64>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) mended: Option<Vec<Mended>>,
    /// Who asks, for the log.
    #[serde(default)]
    pub(super) who: String,
}

/// The routes: masked and without access control, in full with the guard's scope.
pub(crate) fn router(log: Arc<dyn EventLog>, guard: ScopeGuard) -> Router {
    let shared = Shared {
        log,
        turn: Arc::new(Semaphore::new(1)),
        waiting: Arc::new(Semaphore::new(WAITING_MAX)),
        desk: Arc::default(),
    };
    let full = Router::new()
        .route("/-/dlq/{topic}/letters/full", get(letters_in_full))
        .route("/-/dlq/{topic}/peek", post(peek))
        .route("/-/dlq/{topic}/retry/mended", post(retry_mended))
        .route_layer(from_fn_with_state(guard, require_scope));
    Router::new()
        .route("/-/dlq", get(list))
        .route("/-/dlq/{topic}", get(one))
        .route("/-/dlq/{topic}/ends", get(ends))
        .route("/-/dlq/{topic}/letters", get(letters))
        .route("/-/dlq/{topic}/retry", post(retry))
        .route("/-/dlq/{topic}/purge", post(purge))
        .merge(full)
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
        .with_state(shared)
}

impl Shared {
    /// Works at the desk when it is this request's turn, and to the end, also when the client goes away.
    async fn work<T: Serialize + Send + 'static>(
        self,
        work: impl for<'a> FnOnce(&'a mut Desk) -> BoxFuture<'a, anyhow::Result<T>> + Send + 'static,
    ) -> Response {
        let Ok(waiting) = self.waiting.try_acquire_owned() else {
            let busy = problem(StatusCode::SERVICE_UNAVAILABLE, "Busy", "Too many ask at once.", &[]);
            return ([(header::RETRY_AFTER, "1")], busy).into_response();
        };
        let (log, turn, place) = (self.log, self.turn, self.desk);
        let task = tokio::spawn(async move {
            let _waiting = waiting;
            let _turn = turn.acquire_owned().await?;
            let idle = place.lock().unwrap_or_else(PoisonError::into_inner).take();
            let mut desk = idle.unwrap_or_else(|| Desk::new(log));
            let done = work(&mut desk).await;
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(desk);
            done
        });
        match task.await.map_err(anyhow::Error::from).and_then(|done| done) {
            Ok(done) => Json(done).into_response(),
            Err(error) => {
                tracing::warn!("dead letters: {error:#}");
                let detail = format!("{error:#}");
                problem(StatusCode::INTERNAL_SERVER_ERROR, "Dead letters", &detail, &[])
            }
        }
    }
}

/// There is no topic of the name in the path.
struct NoSuchTopic(String);

impl IntoResponse for NoSuchTopic {
    fn into_response(self) -> Response {
        let detail = format!("There is no topic `{}`.", self.0);
        problem(StatusCode::NOT_FOUND, "No such topic", &detail, &[])
    }
}

/// The dead-letter topic of a path.
fn topic(name: &str) -> Result<&'static str, NoSuchTopic> {
    logs::dead_letters_of(name).ok_or_else(|| NoSuchTopic(name.to_owned()))
}

async fn list(State(shared): State<Shared>) -> Response {
    shared.work(|desk| Box::pin(survey::survey(desk))).await
}

async fn one(State(shared): State<Shared>, Path(name): Path<String>) -> Result<Response, NoSuchTopic> {
    let topic = topic(&name)?;
    Ok(shared.work(move |desk| Box::pin(survey::of_topic(desk, topic))).await)
}

async fn ends(State(shared): State<Shared>, Path(name): Path<String>) -> Result<Response, NoSuchTopic> {
    let topic = topic(&name)?;
    Ok(shared.work(move |desk| Box::pin(desk.ends(topic))).await)
}

async fn letters(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    Query(which): Query<Which>,
) -> Result<Response, NoSuchTopic> {
    shown(shared, &name, which, Mask::Personal).await
}

async fn letters_in_full(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    Query(which): Query<Which>,
) -> Result<Response, NoSuchTopic> {
    shown(shared, &name, which, Mask::CardsOnly).await
}

async fn shown(shared: Shared, name: &str, which: Which, mask: Mask) -> Result<Response, NoSuchTopic> {
    let topic = topic(name)?;
    Ok(shared.work(move |desk| Box::pin(show::letters(desk, topic, which, mask))).await)
}

async fn peek(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    Json(asked): Json<Asked>,
) -> Result<Response, NoSuchTopic> {
    let topic = topic(&name)?;
    let work = shared.work(move |desk| {
        Box::pin(async move {
            let max = usize::try_from(asked.max).unwrap_or(usize::MAX).min(GROUP_MAX);
            Ok(Peeked::from(desk.peek(topic, asked.from, &asked.until, max).await?))
        })
    });
    Ok(work.await)
}

async fn retry(
    shared: State<Shared>,
    name: Path<String>,
    Json(asked): Json<Asked>,
) -> Result<Response, NoSuchTopic> {
    // Values of one's own are for those who may see what they replace.
    retry_mended(shared, name, Json(Asked { mended: None, ..asked })).await
}

async fn retry_mended(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    Json(asked): Json<Asked>,
) -> Result<Response, NoSuchTopic> {
    let topic = topic(&name)?;
    let work = shared.work(move |desk| {
        Box::pin(async move {
            let max = usize::try_from(asked.max).unwrap_or(usize::MAX);
            super::retry(desk, topic, &asked.until, max, asked.mended, &asked.who).await
        })
    });
    Ok(work.await)
}

async fn purge(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    Json(asked): Json<Asked>,
) -> Result<Response, NoSuchTopic> {
    let topic = topic(&name)?;
    let work = shared.work(move |desk| {
        Box::pin(async move {
            let purged = super::purge(desk, topic, &asked.until, asked.max, &asked.who).await?;
            Ok(HashMap::from([("purged", purged)]))
        })
    });
    Ok(work.await)
}
