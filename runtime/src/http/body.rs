//! Bodies with an end: a request's that must arrive in time, an event stream's that stops with the
//! server.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{Response, header};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::time::Sleep;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Past this the connection is closed instead of reading a body that nobody wants.
const MAX_DISCARDED_BYTES: u64 = 256 * 1024;
const DISCARD_TIMEOUT: Duration = Duration::from_millis(500);

/// The request's body did not arrive in time. Handlers find it among the sources of the error that
/// reading the body gave them, and answer 408.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyTimedOut;

impl fmt::Display for BodyTimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the request body did not arrive in time")
    }
}

impl std::error::Error for BodyTimedOut {}

/// A request body that has to arrive within a time, counted from when it is first waited for. A body
/// that is there already costs no timer.
pub(super) struct ReadDeadline(Arc<Mutex<Arriving>>);

struct Arriving {
    incoming: Incoming,
    deadline: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    ended: bool,
}

impl Arriving {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) {
            self.ended |= frame.is_none() || self.incoming.is_end_stream();
            return Poll::Ready(frame.map(|result| result.map_err(Into::into)));
        }
        let deadline = self.deadline;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(tokio::time::sleep(deadline)));
        match sleep.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(Some(Err(BodyTimedOut.into()))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl ReadDeadline {
    /// The body for the handler, and what its rest can be discarded with.
    pub(super) fn new(incoming: Incoming, deadline: Duration) -> (Self, Rest) {
        let ended = incoming.is_end_stream();
        let shared = Arc::new(Mutex::new(Arriving { incoming, deadline, sleep: None, ended }));
        (Self(Arc::clone(&shared)), Rest(shared))
    }
}

/// No code panics under this lock, so what it guards is whole.
fn lock(shared: &Mutex<Arriving>) -> MutexGuard<'_, Arriving> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl HttpBody for ReadDeadline {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        lock(&self.0).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        lock(&self.0).incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        lock(&self.0).incoming.size_hint()
    }
}

/// What a handler left of a request's body.
pub(super) struct Rest(Arc<Mutex<Arriving>>);

impl Rest {
    /// Whether there is nothing left, or the handler still reads.
    pub(super) fn is_done(&self) -> bool {
        Arc::strong_count(&self.0) > 1 || lock(&self.0).ended
    }

    /// Reads the rest of a body that its handler has let go of, so that the connection can be used again.
    /// Returns whether it can: not when the rest is large or slow.
    pub(super) async fn discard(self) -> bool {
        if self.is_done() {
            return true;
        }
        let all = async {
            let mut discarded = 0;
            loop {
                if self.is_done() {
                    return true;
                }
                if discarded + lock(&self.0).incoming.size_hint().lower() > MAX_DISCARDED_BYTES {
                    return false;
                }
                match poll_fn(|cx| lock(&self.0).poll_frame(cx)).await {
                    None => return true,
                    Some(Ok(frame)) => {
                        discarded += frame.data_ref().map_or(0, |data| data.len() as u64);
                    }
                    Some(Err(_)) => return false,
                }
            }
        };
        tokio::time::timeout(DISCARD_TIMEOUT, all).await.unwrap_or(false)
    }
}

pub(super) fn is_event_stream(response: &Response<Body>) -> bool {
    let content_type = response.headers().get(header::CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"text/event-stream"))
}

/// A response body that ends when the server is asked to stop.
pub(super) struct UntilStopped {
    inner: Body,
    stopped: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl UntilStopped {
    pub(super) fn new(inner: Body, stop: CancellationToken) -> Self {
        Self { inner, stopped: Box::pin(stop.cancelled_owned()) }
    }
}

impl HttpBody for UntilStopped {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        if this.stopped.as_mut().poll(cx).is_ready() {
            return Poll::Ready(None);
        }
        Pin::new(&mut this.inner).poll_frame(cx)
    }

    fn size_hint(&self) -> SizeHint {
        // What the inner body promises may not come.
        SizeHint::default()
    }
}
