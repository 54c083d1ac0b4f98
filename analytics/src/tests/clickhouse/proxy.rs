//! A way to the engine on which answers get lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What goes wrong on the way.
#[derive(Default)]
pub(crate) struct Faults {
    /// Nothing gets through.
    pub(crate) is_away: AtomicBool,
    /// Each insert whose number can be divided by this is done, but its answer is lost. 0 = none.
    pub(crate) swallow: AtomicU32,
    /// How many answers were lost.
    pub(crate) swallowed: AtomicU32,
    inserts: AtomicU32,
}

#[derive(Clone)]
struct Proxy {
    backend: String,
    faults: Arc<Faults>,
}

/// Starts a proxy before `url`, and says where it listens.
pub(crate) async fn start(url: &str) -> (String, Arc<Faults>) {
    let backend = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let faults = Arc::new(Faults::default());
    let proxy = Proxy { backend, faults: Arc::clone(&faults) };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(forward).with_state(proxy);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (address, faults)
}

async fn forward(State(proxy): State<Proxy>, request: Request) -> Response {
    let faults = &proxy.faults;
    if faults.is_away.load(Ordering::SeqCst) {
        return StatusCode::BAD_GATEWAY.into_response();
    }
    let target = request.uri().path_and_query().unwrap().to_string();
    let is_insert = target.contains("INSERT");
    let Ok(body) = to_bytes(request.into_body(), usize::MAX).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let (status, answer) = ask(&proxy.backend, &target, &body).await;
    let every = faults.swallow.load(Ordering::SeqCst);
    if is_insert && every > 0 && (faults.inserts.fetch_add(1, Ordering::SeqCst) + 1).is_multiple_of(every) {
        // By turns: an error of something in between, and silence until the client gives up.
        if faults.swallowed.fetch_add(1, Ordering::SeqCst).is_multiple_of(4) {
            tokio::time::sleep(Duration::from_secs(30)).await;
        }
        return StatusCode::BAD_GATEWAY.into_response();
    }
    Response::builder().status(status).body(Body::from(answer)).unwrap()
}

async fn ask(backend: &str, target: &str, body: &Bytes) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(backend).await.unwrap();
    let head = format!(
        "POST {target} HTTP/1.1\r\nHost: {backend}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer[end + 4..].to_vec())
}
