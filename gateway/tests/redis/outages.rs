//! Redis goes away, or does not answer, and comes back.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tower::ServiceExt as _;

use crate::servers::{Proxy, Server, away, connection, free_port, pair, redis_url, up, with_redis};
use crate::sharing::{deafen, settled};
use crate::support::{Fault, Gate, canonical, config, post};

fn key(n: u32) -> String {
    format!("order-{n}")
}

async fn pay(gate: &Gate, key: &str) -> crate::support::Answer {
    gate.send(post("/v1/transactions", &canonical(), &[("idempotency-key", key)])).await
}

#[tokio::test]
async fn without_redis_requests_go_on_and_retries_are_recognised_and_it_learns_what_it_missed() {
    let Some(_) = redis_url() else { return };
    let server = Server::start(free_port().await).await;
    let (port, url) = (server.port, server.url());
    let config = with_redis(&url);
    let (a, b) = pair(&config).await;
    assert_eq!(pay(&a, &key(0)).await.status, 201);
    drop(server);

    let mut ids = Vec::new();
    for n in 1..=50 {
        let (first, second) = if n % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let answer = pay(first, &key(n)).await;
        assert_eq!((answer.status.as_u16(), answer.header("idempotent-replayed")), (201, None), "{answer:?}");
        let retry = pay(second, &key(n)).await;
        assert_eq!((retry.status.as_u16(), retry.header("idempotent-replayed")), (201, Some("true")));
        assert_eq!(retry.body, answer.body);
        ids.push(answer.id());
    }
    let before = pay(&b, &key(0)).await;
    assert_eq!(before.header("idempotent-replayed"), Some("true"));
    away(&a).await;
    away(&b).await;
    assert_eq!(a.created().await.len(), 51);

    // It comes back and knows nothing.
    let server = Server::start(port).await;
    up(&a).await;
    up(&b).await;
    let redis = connection(&server.url()).await;
    a.until("Redis to have all of it", || {
        let (mut redis, prefix, ids) = (redis.clone(), config.redis.key_prefix.clone(), ids.clone());
        async move {
            let mut command = redis::cmd("EXISTS");
            for id in &ids {
                command.arg(format!("{prefix}{{{id}}}:e")).arg(format!("{prefix}{{{id}}}:v"));
            }
            let present: usize = command.query_async(&mut redis).await.unwrap();
            present == 2 * ids.len()
        }
    })
    .await;
    assert!(a.metric("paystream_redis_restored_total") >= 50.0);
    let retry = pay(&a, &key(7)).await;
    assert_eq!(retry.header("idempotent-replayed"), Some("true"));
    assert_eq!(a.created().await.len(), 51);
}

#[tokio::test]
async fn a_redis_that_does_not_answer_costs_no_more_than_its_timeout_and_soon_nothing() {
    let Some(url) = redis_url() else { return };
    let proxy = Proxy::to(&url).await;
    let mut config = with_redis(&proxy.url);
    config.redis.response_timeout_ms = 200;
    config.redis.failures_max = 3;
    let (a, b) = pair(&config).await;
    assert_eq!(pay(&a, "before").await.status, 201);
    proxy.stalled.send_replace(true);
    let mut took = Vec::new();
    for n in 0..10 {
        let started = Instant::now();
        assert_eq!(pay(&a, &key(n)).await.status, 201);
        took.push(started.elapsed());
    }
    // Three timeouts at most, two of them in one request.
    let total: Duration = took.iter().sum();
    assert!(total < Duration::from_millis(3 * 200 + 1_500), "{took:?}");
    away(&a).await;
    let retry = pay(&b, &key(3)).await;
    assert_eq!(retry.header("idempotent-replayed"), Some("true"));
    proxy.stalled.send_replace(false);
    up(&a).await;
    assert_eq!(pay(&a, "after").await.status, 201);
    assert_eq!(a.created().await.len(), 12);
}

#[tokio::test]
async fn a_redis_that_forgot_is_not_believed_before_the_log_was_asked() {
    let Some(_) = redis_url() else { return };
    let server = Server::start(free_port().await).await;
    let (port, mut config) = (server.port, with_redis(&server.url()));
    config.redis.settling_ms = 60_000;
    let (a, b) = pair(&config).await;
    deafen(&b).await;
    let first = pay(&a, &key(1)).await;
    drop(server);
    away(&a).await;
    away(&b).await;
    let _server = Server::start(port).await;
    up(&b).await;
    let retry = settled(&b, ("idempotency-key", &key(1))).await;
    assert_eq!(retry.header("idempotent-replayed"), Some("true"));
    assert_eq!(retry.body, first.body);
    assert_eq!(a.created().await.len(), 1);
}

#[tokio::test]
async fn a_redis_that_takes_no_writes_or_lost_its_scripts_is_left_alone_until_it_is_well() {
    let Some(_) = redis_url() else { return };
    let server = Server::start(free_port().await).await;
    let (a, b) = pair(&with_redis(&server.url())).await;
    let mut redis = connection(&server.url()).await;
    let mut set = async |what: &[&str]| {
        redis::cmd(what[0]).arg(&what[1..]).exec_async(&mut redis).await.unwrap();
    };
    set(&["CONFIG", "SET", "maxmemory", "1"]).await;
    away(&a).await;
    away(&b).await;
    assert_eq!(pay(&a, &key(1)).await.status, 201);
    assert_eq!(pay(&b, &key(1)).await.header("idempotent-replayed"), Some("true"));
    set(&["CONFIG", "SET", "maxmemory", "0"]).await;
    up(&a).await;
    up(&b).await;

    set(&["SCRIPT", "FLUSH"]).await;
    let errors = a.metric("paystream_redis_errors_total");
    a.until("its scripts to be missed", || async { a.metric("paystream_redis_errors_total") > errors }).await;
    assert_eq!(pay(&b, &key(2)).await.status, 201);
    up(&a).await;
    up(&b).await;
    assert_eq!(settled(&a, ("idempotency-key", &key(2))).await.header("idempotent-replayed"), Some("true"));
    assert_eq!(a.created().await.len(), 2);
}

/// The hole that is left, and what closes it: whoever decides takes the second record of an id for the first.
#[tokio::test]
async fn without_redis_one_key_at_two_replicas_at_the_same_moment_is_two_records_of_one_id() {
    let Some(_) = redis_url() else { return };
    let config = with_redis(&format!("redis://127.0.0.1:{}", free_port().await));
    let a = Gate::with(config.clone()).await;
    let b = a.replica(config);
    assert!(b.gateway.ready().await);
    let mut requests = Vec::new();
    for gate in [&a, &b] {
        gate.log.set(Fault::Held);
        let request = post("/v1/transactions", &canonical(), &[("idempotency-key", "same")]);
        requests.push(tokio::spawn(gate.router().oneshot(request)));
        gate.until("its write", || async { gate.log.held.load(Ordering::SeqCst) == 1 }).await;
    }
    for gate in [&a, &b] {
        gate.log.set(Fault::None);
    }
    for request in requests {
        let answer = request.await.unwrap().unwrap();
        assert_eq!(answer.status(), 201);
        assert!(!answer.headers().contains_key("idempotent-replayed"));
    }
    let created = a.created().await;
    assert_eq!(created.len(), 2);
    assert_eq!(created[0].id, created[1].id);
    for gate in [&a, &b] {
        assert_eq!(pay(gate, "same").await.header("idempotent-replayed"), Some("true"));
    }
    assert_eq!(a.created().await.len(), 2);
}

#[tokio::test]
async fn replicas_without_any_redis_recognise_each_others_transactions() {
    let config = gateway::GatewayConfig { other_gateways: true, ..config() };
    let a = Gate::with(config.clone()).await;
    let b = a.replica(config);
    assert!(b.gateway.ready().await);
    deafen(&b).await;
    for n in 0..20 {
        let first = pay(&a, &key(n)).await;
        let retry = pay(&b, &key(n)).await;
        assert_eq!(retry.header("idempotent-replayed"), Some("true"));
        assert_eq!(retry.body, first.body);
        let unkeyed = a.post("/v1/transactions", &canonical()).await;
        let path = format!("/v1/transactions/{}", unkeyed.id());
        b.until("the decision", || async { b.get(&path).await.body == unkeyed.body }).await;
    }
    assert_eq!(a.created().await.len(), 40);
}
