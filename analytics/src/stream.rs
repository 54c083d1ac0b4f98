//! The page's live stream: server-sent events to a bounded number of pages.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use futures::Stream;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::live::{Live, now_ms};
use crate::metrics::Metrics;

/// A page that took nothing for this long gives its place to another when all are taken.
const STALE_MS: i64 = 15_000;

/// The places for pages that follow the stream.
pub(crate) struct Clients {
    places: Mutex<Vec<Arc<Place>>>,
    max: usize,
    metrics: Metrics,
}

/// One page's place. It is polled when the page has room for more, so a page that stopped reading shows
/// by its time.
#[derive(Debug)]
struct Place {
    last_taken_ms: AtomicI64,
    lost: AtomicBool,
}

/// Gives the place back when the connection ends.
struct Seat {
    place: Arc<Place>,
    clients: Arc<Clients>,
}

impl Clients {
    pub(crate) const fn new(max: usize, metrics: Metrics) -> Self {
        Self { places: Mutex::new(Vec::new()), max, metrics }
    }

    fn seat(self: &Arc<Self>, now_ms: i64) -> Option<Seat> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if places.len() >= self.max {
            let stale = |place: &Arc<Place>| now_ms - place.last_taken_ms.load(Ordering::Relaxed) > STALE_MS;
            let at = places.iter().position(stale)?;
            places.swap_remove(at).lost.store(true, Ordering::Relaxed);
            self.metrics.stream_dropped.inc();
        }
        let place = Arc::new(Place { last_taken_ms: AtomicI64::new(now_ms), lost: AtomicBool::new(false) });
        places.push(Arc::clone(&place));
        self.count(places.len());
        drop(places);
        Some(Seat { place, clients: Arc::clone(self) })
    }

    fn count(&self, pages: usize) {
        self.metrics.stream_clients.set(i64::try_from(pages).unwrap_or(i64::MAX));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut places = self.clients.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.retain(|place| !Arc::ptr_eq(place, &self.place));
        self.clients.count(places.len());
    }
}

struct Following {
    /// Sent first, then nothing is left here.
    snapshot: Option<String>,
    ticks: broadcast::Receiver<Arc<str>>,
    seat: Seat,
    stop: CancellationToken,
}

/// The stream for one more page, or nothing when all places are taken.
pub(crate) fn follow(live: &Live, clients: &Arc<Clients>, stop: CancellationToken) -> Option<Response> {
    let now = now_ms();
    let seat = clients.seat(now)?;
    let (snapshot, ticks) = live.subscribe(now);
    let events = events(Following { snapshot: Some(snapshot), ticks, seat, stop });
    Some(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}

fn events(following: Following) -> impl Stream<Item = Result<Event, Infallible>> {
    futures::stream::unfold(following, |mut following| async move {
        if following.seat.place.lost.load(Ordering::Relaxed) {
            return None;
        }
        following.seat.place.last_taken_ms.store(now_ms(), Ordering::Relaxed);
        if let Some(snapshot) = following.snapshot.take() {
            return Some((Ok(Event::default().event("snapshot").data(snapshot)), following));
        }
        let tick = tokio::select! {
            tick = following.ticks.recv() => tick,
            () = following.stop.cancelled() => return None,
        };
        match tick {
            Ok(tick) => Some((Ok(Event::default().event("tick").data(&*tick)), following)),
            Err(RecvError::Lagged(_)) => {
                following.seat.clients.metrics.stream_dropped.inc();
                None
            }
            Err(RecvError::Closed) => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(max: usize) -> Arc<Clients> {
        let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
        Arc::new(Clients::new(max, metrics))
    }

    #[test]
    fn there_are_only_so_many_places_and_they_come_back() {
        let clients = clients(2);
        let (first, _second) = (clients.seat(0).unwrap(), clients.seat(0).unwrap());
        assert!(clients.seat(1).is_none());
        drop(first);
        assert!(clients.seat(1).is_some());
    }

    #[test]
    fn a_page_that_stopped_reading_loses_its_place_to_one_that_asks() {
        let clients = clients(1);
        let stalled = clients.seat(0).unwrap();
        assert!(clients.seat(STALE_MS).is_none());
        let next = clients.seat(STALE_MS + 1).unwrap();
        assert!(stalled.place.lost.load(Ordering::Relaxed));
        drop(stalled);
        assert!(clients.seat(STALE_MS + 1).is_none(), "the stalled page's end frees nobody else's place");
        drop(next);
    }
}
