//! `GET /-/log/{topic}`: a topic's records as lines of JSON, for as long as both sides wish.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use eventlog::EventLog;
use gateway::auth::{ScopeGuard, require_scope};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::WAITING_MAX;
use super::filter::Filter;
use super::follow::{self, Event, From, Request};
use crate::host::problem;
use crate::logs;
use crate::mask::Mask;

/// Those who may follow topics at the same time.
const MAX_AT_ONCE: usize = 16;

#[derive(Clone)]
struct Follow {
    log: Arc<dyn EventLog>,
    places: Arc<Semaphore>,
    stop: CancellationToken,
}

/// The routes: masked without access control, in full with the guard's scope.
pub(crate) fn router(log: Arc<dyn EventLog>, guard: ScopeGuard, stop: CancellationToken) -> Router {
    let follow = Follow { log, places: Arc::new(Semaphore::new(MAX_AT_ONCE)), stop };
    let full = Router::new()
        .route("/-/log/{topic}/full", get(in_full))
        .route_layer(from_fn_with_state(guard, require_scope));
    Router::new().route("/-/log/{topic}", get(masked)).merge(full).with_state(follow)
}

/// Where a running system answers a request.
pub(super) fn path(request: &Request) -> String {
    let end = if request.mask == Mask::CardsOnly { "/full" } else { "" };
    let mut url = reqwest::Url::parse("http://log").expect("a constant");
    url.set_path(&format!("/-/log/{}{end}", request.topic));
    {
        let mut query = url.query_pairs_mut();
        query.append_pair("from", &request.from.to_string());
        query.append_pair("follow", if request.follow { "true" } else { "false" });
        for (name, value) in [("partition", request.partition.map(u64::from)), ("limit", request.limit)] {
            if let Some(value) = value {
                query.append_pair(name, &value.to_string());
            }
        }
        for filter in &request.filters {
            query.append_pair("filter", &filter.to_string());
        }
    }
    format!("{}?{}", url.path(), url.query().unwrap_or_default())
}

/// The request behind a path.
fn parse(topic: &str, query: &str, mask: Mask) -> Result<Request, String> {
    let topic = logs::find(topic).ok_or_else(|| format!("there is no topic `{topic}`"))?;
    let mut request = Request {
        topic,
        partition: None,
        from: From::End,
        limit: None,
        follow: true,
        filters: Vec::new(),
        mask,
    };
    let url = reqwest::Url::parse(&format!("http://log/?{query}")).map_err(|e| e.to_string())?;
    for (name, value) in url.query_pairs() {
        let number = || value.parse::<u64>().map_err(|_| format!("{name}: expected a number"));
        match &*name {
            "from" => request.from = From::parse(&value)?,
            "follow" => request.follow = value != "false",
            "limit" => request.limit = Some(number()?.max(1)),
            "partition" => {
                request.partition =
                    Some(u32::try_from(number()?).map_err(|_| "partition: too large".to_owned())?);
            }
            "filter" => request.filters.push(Filter::parse(&value)?),
            other => return Err(format!("unknown parameter `{other}`")),
        }
    }
    Ok(request)
}

async fn masked(
    State(state): State<Follow>,
    Path(topic): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    answer(state, &topic, query.as_deref(), Mask::Personal)
}

async fn in_full(
    State(state): State<Follow>,
    Path(topic): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    answer(state, &topic, query.as_deref(), Mask::CardsOnly)
}

fn answer(state: Follow, topic: &str, query: Option<&str>, mask: Mask) -> Response {
    let request = match parse(topic, query.unwrap_or_default(), mask) {
        Ok(request) => request,
        Err(detail) => return problem(StatusCode::BAD_REQUEST, "Invalid request", &detail, &[]),
    };
    let Ok(place) = state.places.try_acquire_owned() else {
        let detail = format!("{MAX_AT_ONCE} others follow topics already. Try again when one has ended.");
        let busy = problem(StatusCode::SERVICE_UNAVAILABLE, "Busy", &detail, &[]);
        return ([(header::RETRY_AFTER, "5")], busy).into_response();
    };
    let (out, events) = mpsc::channel(WAITING_MAX);
    let (log, stop) = (state.log, state.stop);
    // Ends when the client goes, which drops the receiver, or the system stops.
    tokio::spawn(async move {
        stop.run_until_cancelled(follow::follow(&*log, &request, out)).await;
    });
    let media_type = [(header::CONTENT_TYPE, "application/x-ndjson")];
    (media_type, Body::from_stream(lines(events, place))).into_response()
}

fn lines(
    events: mpsc::Receiver<Event>,
    place: OwnedSemaphorePermit,
) -> impl futures::Stream<Item = Result<Vec<u8>, Infallible>> {
    futures::stream::unfold((events, place), |(mut events, place)| async move {
        let event = events.recv().await?;
        let mut line = serde_json::to_vec(&event).expect("an event has string keys and finite numbers");
        line.push(b'\n');
        Some((Ok(line), (events, place)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_survives_the_way_to_the_server() {
        let request = Request {
            topic: events::topics::DECIDED,
            partition: Some(3),
            from: From::Offset(7),
            limit: Some(9),
            follow: false,
            filters: vec![Filter::parse("data.note=a&b c=%").unwrap(), Filter::parse("v=1").unwrap()],
            mask: Mask::CardsOnly,
        };
        let path = path(&request);
        let (before, query) = path.split_once('?').unwrap();
        assert_eq!(before, "/-/log/transactions.decided/full");
        let parsed = parse("decided", query, Mask::CardsOnly).unwrap();
        assert_eq!(format!("{parsed:?}"), format!("{request:?}"));
        assert!(parse("decided", "form=start", Mask::Personal).unwrap_err().contains("form"));
        assert!(parse("decision", "", Mask::Personal).unwrap_err().contains("decision"));
    }
}
