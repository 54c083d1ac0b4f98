//! A replica dies, and its merchants' retries go to another one.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gateway::GatewayConfig;
use tokio::runtime::Runtime;
use tower::ServiceExt as _;

use crate::servers::{redis_url, up, with_redis};
use crate::sharing::{deafen, settled};
use crate::support::{Fault, Gate, canonical, post};

const KEY: (&str, &str) = ("idempotency-key", "order-77");
const LEASE: Duration = Duration::from_millis(1_000);

fn short_lease(url: &str) -> GatewayConfig {
    let mut config = with_redis(url);
    config.append_deadline_ms = 500;
    config.redis.claim_margin_ms = 500;
    config
}

/// The other replica, in threads of its own: they can be taken away.
struct Mortal {
    gate: Gate,
    runtime: Runtime,
}

impl Mortal {
    async fn of(gate: &Gate, config: GatewayConfig) -> Self {
        let runtime = Runtime::new().unwrap();
        let other = {
            let _inside = runtime.enter();
            gate.replica(config)
        };
        assert!(other.gateway.ready().await);
        up(&other).await;
        Self { gate: other, runtime }
    }

    /// Dies while the log writes, or after it has written and before anybody is told.
    async fn die_in(self, fault: Fault) {
        let Self { gate, runtime } = self;
        gate.log.set(fault);
        runtime.spawn(gate.router().oneshot(post("/v1/transactions", &canonical(), &[KEY])));
        gate.until("the write", || async { gate.log.held.load(Ordering::SeqCst) == 1 }).await;
        runtime.shutdown_background();
    }
}

#[tokio::test]
async fn a_replica_that_died_between_log_and_redis_leaves_one_transaction() {
    let Some(url) = redis_url() else { return };
    let config = short_lease(&url);
    let b = Gate::with(config.clone()).await;
    up(&b).await;
    deafen(&b).await;
    let before = Instant::now();
    Mortal::of(&b, config).await.die_in(Fault::WrittenHeld).await;
    assert_eq!(b.created().await.len(), 1);

    b.send(post("/v1/transactions", &canonical(), &[KEY])).await.problem(409, "request-in-progress");
    let retry = settled(&b, KEY).await;
    assert!(before.elapsed() >= LEASE, "a claim is believed for its lease");
    assert_eq!((retry.status.as_u16(), retry.header("idempotent-replayed")), (201, Some("true")));
    assert_eq!(b.created().await.len(), 1, "no second record");
}

#[tokio::test]
async fn a_replica_that_died_before_it_wrote_keeps_the_key_no_longer_than_its_lease() {
    let Some(url) = redis_url() else { return };
    let config = short_lease(&url);
    let b = Gate::with(config.clone()).await;
    up(&b).await;
    Mortal::of(&b, config).await.die_in(Fault::Held).await;
    b.send(post("/v1/transactions", &canonical(), &[KEY])).await.problem(409, "request-in-progress");
    let retry = settled(&b, KEY).await;
    assert_eq!(retry.status, 201);
    assert_eq!(b.created().await.len(), 1);
}

#[tokio::test]
async fn a_write_that_takes_longer_than_the_lease_keeps_its_claim() {
    let Some(url) = redis_url() else { return };
    let config = short_lease(&url);
    let a = Gate::with(config.clone()).await;
    let b = a.replica(config);
    assert!(b.gateway.ready().await);
    up(&a).await;
    up(&b).await;
    a.log.set(Fault::Held);
    let request = tokio::spawn(a.router().oneshot(post("/v1/transactions", &canonical(), &[KEY])));
    a.until("the write", || async { a.log.held.load(Ordering::SeqCst) == 1 }).await;
    let since = Instant::now();
    while since.elapsed() < LEASE * 2 {
        b.send(post("/v1/transactions", &canonical(), &[KEY])).await.problem(409, "request-in-progress");
        tokio::time::sleep(LEASE / 10).await;
    }
    a.log.set(Fault::None);
    // Its client was told to try again long ago; the write went on.
    assert_eq!(request.await.unwrap().unwrap().status(), 503);
    let retry = settled(&b, KEY).await;
    assert_eq!((retry.status.as_u16(), retry.header("idempotent-replayed")), (201, Some("true")));
    assert_eq!(b.created().await.len(), 1);
}
