use std::error::Error as _;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Bytes;
use axum::http::StatusCode;
use axum::routing::{get, post};
use hyper::body::Frame;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::*;

/// Far longer than anything here takes: a test that reaches it hangs.
const LONG: Duration = Duration::from_secs(30);

struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
}

async fn start(router: Router, limits: HttpLimits) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    Running { address, task: tokio::spawn(serve(listener, router, limits, stop.clone())), stop }
}

async fn connect(address: SocketAddr, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

/// Everything the server sends until it closes the connection.
async fn read_all(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    tokio::time::timeout(LONG, stream.read_to_end(&mut text)).await.expect("the server closes").unwrap();
    String::from_utf8(text).unwrap()
}

async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    while !text.contains(end) {
        let mut chunk = [0; 1024];
        let n = tokio::time::timeout(LONG, stream.read(&mut chunk)).await.expect("an answer").unwrap();
        assert!(n > 0, "closed after {text:?}");
        text.push_str(std::str::from_utf8(&chunk[..n]).unwrap());
    }
    text
}

async fn finished(running: Running) {
    running.stop.cancel();
    tokio::time::timeout(LONG, running.task).await.expect("the server ends").unwrap().unwrap();
}

#[tokio::test]
async fn handlers_see_the_clients_address() {
    let router = Router::new()
        .route("/", get(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.to_string() }));
    let running = start(router, HttpLimits::default()).await;
    let mut client = connect(running.address, "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    let own = client.local_addr().unwrap().to_string();
    let answer = read_all(&mut client).await;
    assert!(answer.ends_with(&own), "{answer}");
    finished(running).await;
}

#[tokio::test]
async fn a_head_that_does_not_arrive_in_time_ends_the_connection() {
    let limits = HttpLimits { header_read_timeout: Duration::from_millis(50), ..HttpLimits::default() };
    let running = start(Router::new(), limits).await;
    let mut slow = connect(running.address, "GET / HTTP/1.1\r\nhost:").await;
    let answer = read_all(&mut slow).await;
    assert!(!answer.contains("200"), "{answer}");
    let mut silent = connect(running.address, "").await;
    assert_eq!(read_all(&mut silent).await, "");
    finished(running).await;
}

#[tokio::test]
async fn a_body_that_does_not_arrive_in_time_is_an_error_the_handler_can_tell() {
    async fn read(body: Body) -> (StatusCode, &'static str) {
        let error = axum::body::to_bytes(body, 1024).await.unwrap_err();
        let mut source = error.source();
        while let Some(at) = source {
            if at.is::<BodyTimedOut>() {
                return (StatusCode::REQUEST_TIMEOUT, "slow");
            }
            source = at.source();
        }
        (StatusCode::BAD_REQUEST, "other")
    }
    let limits = HttpLimits { body_read_timeout: Duration::from_millis(50), ..HttpLimits::default() };
    let running = start(Router::new().route("/", post(read)), limits).await;
    let head = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\nconnection: close\r\n\r\n{";
    let mut client = connect(running.address, head).await;
    let answer = read_all(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    finished(running).await;
}

/// Answers without reading the body.
async fn refuse() -> (StatusCode, &'static str) {
    (StatusCode::UNAUTHORIZED, "refused")
}

#[tokio::test]
async fn a_connection_is_used_again_after_a_body_that_the_handler_did_not_read() {
    let running = start(Router::new().route("/", post(refuse)), HttpLimits::default()).await;
    let head = "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n";
    let mut client = connect(running.address, head).await;
    client.write_all(&vec![b'x'; 100_000]).await.unwrap();
    let first = read_until(&mut client, "refused").await;
    assert!(!first.contains("connection: close"), "{first}");
    client.write_all(b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    assert!(read_all(&mut client).await.ends_with("refused"));
    finished(running).await;
}

#[tokio::test]
async fn a_connection_whose_body_is_too_much_to_discard_is_closed_and_the_client_is_told() {
    let running = start(Router::new().route("/", post(refuse)), HttpLimits::default()).await;
    for head in [
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 100000000\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\nexpect: 100-continue\r\n\r\n",
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{",
    ] {
        let mut client = connect(running.address, head).await;
        let answer = read_all(&mut client).await;
        assert!(answer.starts_with("HTTP/1.1 401") && answer.contains("connection: close"), "{answer}");
    }
    finished(running).await;
}

#[tokio::test]
async fn a_connection_past_the_limit_hears_503_and_the_next_one_is_served_once_there_is_room() {
    let limits = HttpLimits { max_connections: 1, ..HttpLimits::default() };
    let router = Router::new().route("/", get(|| async { "served" }));
    let running = start(router, limits).await;
    let request = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut first = connect(running.address, request).await;
    read_until(&mut first, "served").await;

    let mut second = connect(running.address, request).await;
    let refusal = read_all(&mut second).await;
    assert!(refusal.starts_with("HTTP/1.1 503"), "{refusal}");
    assert!(refusal.contains("retry-after: 1") && refusal.ends_with(refuse_body()), "{refusal}");

    drop(first);
    let served = async {
        loop {
            let mut next = connect(running.address, "GET / HTTP/1.1\r\nconnection: close\r\n\r\n").await;
            if read_all(&mut next).await.contains("served") {
                break;
            }
        }
    };
    tokio::time::timeout(LONG, served).await.expect("room after the first connection closed");
    finished(running).await;
}

fn refuse_body() -> &'static str {
    "or use fewer connections.\"}"
}

#[tokio::test]
async fn a_request_under_way_is_finished_and_new_connections_are_not_taken() {
    let started = Arc::new(Notify::new());
    let release = Arc::new(Notify::new());
    let handler = {
        let (started, release) = (Arc::clone(&started), Arc::clone(&release));
        move || async move {
            started.notify_one();
            release.notified().await;
            "finished"
        }
    };
    let running = start(Router::new().route("/", get(handler)), HttpLimits::default()).await;
    let mut client = connect(running.address, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut idle = connect(running.address, "").await;
    started.notified().await;
    running.stop.cancel();
    assert_eq!(read_all(&mut idle).await, "", "an idle connection is closed at once");
    let refused = async { while TcpStream::connect(running.address).await.is_ok() {} };
    tokio::time::timeout(LONG, refused).await.expect("the listener closes");
    release.notify_one();
    assert!(read_all(&mut client).await.ends_with("finished"));
    finished(running).await;
}

#[tokio::test]
async fn a_request_that_never_ends_is_cut_at_the_drain_timeout() {
    let started = Arc::new(Notify::new());
    let signal = Arc::clone(&started);
    let handler = || async move {
        signal.notify_one();
        std::future::pending::<&'static str>().await
    };
    let limits = HttpLimits { drain_timeout: Duration::from_millis(50), ..HttpLimits::default() };
    let running = start(Router::new().route("/", get(handler)), limits).await;
    let mut client = connect(running.address, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    started.notified().await;
    finished(running).await;
    assert_eq!(read_all(&mut client).await, "");
}

#[tokio::test]
async fn an_event_stream_ends_when_the_server_stops() {
    let handler = || async { ([("content-type", "text/event-stream")], Body::new(OneEvent(false))) };
    let running = start(Router::new().route("/", get(handler)), HttpLimits::default()).await;
    let mut client = connect(running.address, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    read_until(&mut client, "data: tick").await;
    running.stop.cancel();
    let rest = read_all(&mut client).await;
    assert!(rest.ends_with("0\r\n\r\n"), "the stream ends properly, not cut: {rest:?}");
    finished(running).await;
}

#[tokio::test]
async fn a_client_that_takes_nothing_of_its_answer_is_given_up() {
    let started = Arc::new(Notify::new());
    let signal = Arc::clone(&started);
    let handler = || async move {
        signal.notify_one();
        vec![b'x'; 64 * 1024 * 1024]
    };
    let limits = HttpLimits {
        write_stall_timeout: Duration::from_millis(50),
        drain_timeout: LONG * 10,
        ..HttpLimits::default()
    };
    let running = start(Router::new().route("/", get(handler)), limits).await;
    let client = connect(running.address, "GET / HTTP/1.1\r\nhost: x\r\n\r\n").await;
    started.notified().await;
    finished(running).await;
    drop(client);
}

/// One event, then silence for ever.
struct OneEvent(bool);

impl hyper::body::Body for OneEvent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if std::mem::replace(&mut self.0, true) {
            return Poll::Pending;
        }
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"data: tick\n\n")))))
    }
}
