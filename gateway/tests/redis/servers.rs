//! Redis servers: the one there is, ones that a test may end, and the way to one that may stall.

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use gateway::{GatewayConfig, RedisConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use uuid::Uuid;

use crate::support::{Gate, config, within};

/// Where the tests' Redis is. Says loudly when there is none.
pub(crate) fn redis_url() -> Option<String> {
    let url = std::env::var("PAYSTREAM_TEST_REDIS").ok().filter(|url| !url.is_empty());
    if url.is_none() {
        // Past the test harness, which hides what passing tests print.
        let _ = writeln!(
            std::io::stderr(),
            "\n*** SKIPPED: PAYSTREAM_TEST_REDIS is not set; run `make test` ***\n"
        );
    }
    url
}

/// A gateway's settings with a Redis that vouches for its answers at once, and keys of this test alone.
pub(crate) fn with_redis(url: &str) -> GatewayConfig {
    let redis = RedisConfig {
        url: url.to_owned(),
        key_prefix: format!("test-{}:", Uuid::new_v4().simple()),
        connect_timeout_ms: 2_000,
        // Far above what an idle machine needs: these tests are not about it.
        response_timeout_ms: 1_000,
        retry_interval_ms: 50,
        settling_ms: 0,
        entry_retention_hours: 1,
        view_retention_minutes: 5,
        ..RedisConfig::default()
    };
    GatewayConfig { redis, ..config() }
}

/// Two gateways on one log, both connected.
pub(crate) async fn pair(config: &GatewayConfig) -> (Gate, Gate) {
    let a = Gate::with(config.clone()).await;
    let b = a.replica(config.clone());
    assert!(b.gateway.ready().await);
    for gate in [&a, &b] {
        up(gate).await;
    }
    (a, b)
}

pub(crate) async fn up(gate: &Gate) {
    gate.until("Redis to be up", || async { gate.metric("paystream_redis_up") == 1.0 }).await;
}

pub(crate) async fn away(gate: &Gate) {
    gate.until("Redis to be away", || async { gate.metric("paystream_redis_up") == 0.0 }).await;
}

/// A connection of the test's own.
pub(crate) async fn connection(url: &str) -> redis::aio::MultiplexedConnection {
    redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap()
}

/// A port that nothing listens on.
pub(crate) async fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

/// A Redis of a test's own, which forgets everything when it ends.
pub(crate) struct Server {
    pub(crate) port: u16,
    process: Child,
}

impl Server {
    pub(crate) async fn start(port: u16) -> Self {
        let arguments =
            ["--port", &port.to_string(), "--save", "", "--appendonly", "no", "--bind", "127.0.0.1"];
        let process = Command::new("redis-server").args(arguments).stdout(Stdio::null()).spawn();
        let server = Self { port, process: process.expect("redis-server on the path") };
        within(async {
            while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                tokio::time::sleep(std::time::Duration::from_millis(10)).await;
            }
        })
        .await;
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

/// A way to a Redis that can be made to stall: connections stay, and nothing passes.
pub(crate) struct Proxy {
    pub(crate) url: String,
    pub(crate) stalled: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn to(url: &str) -> Self {
        let target: SocketAddr = url.trim_start_matches("redis://").trim_end_matches('/').parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let stalled = watch::Sender::new(false);
        let stall = stalled.clone();
        let task = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut stall = stall.subscribe();
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(target).await.unwrap();
                    while stall.wait_for(|stalled| !*stalled).await.is_ok() {
                        tokio::select! {
                            _ = stall.wait_for(|stalled| *stalled) => {}
                            _ = tokio::io::copy_bidirectional(&mut client, &mut server) => return,
                        }
                    }
                });
            }
        });
        Self { url, stalled, task }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}
