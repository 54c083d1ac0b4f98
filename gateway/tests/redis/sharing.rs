//! What one replica knows, the others answer for.

use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use events::TransactionId;
use tower::ServiceExt as _;

use crate::servers::{connection, pair, redis_url, with_redis};
use crate::support::{Answer, Fault, Gate, canonical, changed, complete, get, post, within};

const KEY: (&str, &str) = ("idempotency-key", "order-77");

/// The answer once no replica is at it any more.
pub(crate) async fn settled(gate: &Gate, key: (&str, &str)) -> Answer {
    let send = || gate.send(post("/v1/transactions", &canonical(), &[key]));
    let waiting = async {
        loop {
            let answer = send().await;
            if answer.status != 409 {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    within(waiting).await
}

/// From now on the log does not tell a replica of new transactions: it only finds those it looks for.
pub(crate) async fn deafen(gate: &Gate) {
    gate.log.deaf.store(true, Ordering::SeqCst);
    // Looking for an unknown one ends the wait that began before.
    let path = format!("/v1/transactions/{}", TransactionId::random());
    gate.get(&path).await.problem(404, "not-found");
}

fn request() -> Request<Body> {
    post("/v1/transactions", &canonical(), &[KEY])
}

#[tokio::test]
async fn one_key_at_two_replicas_at_once_is_one_transaction() {
    let Some(url) = redis_url() else { return };
    let (a, b) = pair(&with_redis(&url)).await;
    let mut written = 0;
    for round in 0..20 {
        let key = ("idempotency-key", &*format!("order-{round}"));
        let send = |gate: &Gate| gate.router().oneshot(post("/v1/transactions", &canonical(), &[key]));
        let (at_a, at_b) = tokio::join!(send(&a), send(&b));
        let answers = [at_a.unwrap(), at_b.unwrap()];
        written += answers
            .iter()
            .filter(|answer| answer.status() == 201 && !answer.headers().contains_key("idempotent-replayed"))
            .count();
        assert!(answers.iter().all(|answer| matches!(answer.status().as_u16(), 201 | 409)), "{answers:?}");
        let (at_a, at_b) = (settled(&a, key).await, settled(&b, key).await);
        assert_eq!(at_a.body, at_b.body);
    }
    assert_eq!((written, a.created().await.len()), (20, 20));
}

#[tokio::test]
async fn what_another_replica_works_on_is_told_to_wait_and_another_request_is_refused() {
    let Some(url) = redis_url() else { return };
    let (a, b) = pair(&with_redis(&url)).await;
    a.log.set(Fault::Held);
    let first = tokio::spawn(a.router().oneshot(request()));
    a.until("the write", || async { a.log.held.load(Ordering::SeqCst) == 1 }).await;
    b.send(request()).await.problem(409, "request-in-progress");
    let other = changed(canonical(), "/amount", Some(1.into()));
    b.send(post("/v1/transactions", &other, &[KEY])).await.problem(422, "idempotency-mismatch");
    a.log.set(Fault::None);
    assert_eq!(first.await.unwrap().unwrap().status(), 201);
    assert_eq!(settled(&b, KEY).await.header("idempotent-replayed"), Some("true"));
    assert_eq!(a.created().await.len(), 1);
}

#[tokio::test]
async fn a_replica_that_has_not_read_the_log_answers_from_redis() {
    let Some(url) = redis_url() else { return };
    let (a, b) = pair(&with_redis(&url)).await;
    deafen(&b).await;
    let first = a.send(request()).await;
    assert_eq!(first.status, 201);
    let retry = settled(&b, KEY).await;
    assert_eq!((retry.status.as_u16(), retry.header("idempotent-replayed")), (201, Some("true")));
    assert_eq!(retry.body, first.body);
    let other = changed(canonical(), "/amount", Some(1.into()));
    b.send(post("/v1/transactions", &other, &[KEY])).await.problem(422, "idempotency-mismatch");
    let path = format!("/v1/transactions/{}", first.id());
    assert_eq!(b.get(&path).await.body, first.body);
    assert_eq!(b.gateway.ledger().accepted(0).count(), 0, "none of it came from the log");

    let stranger = a.keys.create(&"stranger".parse().unwrap(), false, &gateway::Scope::ALL).unwrap();
    let stranger = crate::support::bearer(&stranger);
    b.send(get(&path, &[("authorization", &stranger)])).await.problem(404, "not-found");
}

#[tokio::test]
async fn an_undecided_transaction_of_another_replica_is_pending_and_its_retry_waits() {
    let Some(url) = redis_url() else { return };
    let (a, b) = pair(&with_redis(&url)).await;
    a.decides.send_replace(false);
    let patient = changed(canonical(), "/deadline_ms", Some(30_000.into()));
    let first = a.send(post("/v1/transactions", &patient, &[KEY, ("prefer", "respond-async")])).await;
    assert_eq!(first.status, 202);
    let path = format!("/v1/transactions/{}", first.id());
    assert_eq!(b.get(&path).await.json()["status"], "pending");
    let retry = tokio::spawn(b.router().oneshot(post("/v1/transactions", &patient, &[KEY])));
    a.decides.send_replace(true);
    let retry = retry.await.unwrap().unwrap();
    // Or the first request had not told Redis yet.
    assert!(matches!(retry.status().as_u16(), 201 | 409), "{retry:?}");
    b.until("the decision", || async { b.get(&path).await.json()["status"] == "decided" }).await;
    assert_eq!(a.created().await.len(), 1);
}

#[tokio::test]
async fn a_refused_write_leaves_the_key_to_others_and_one_of_unknown_fate_is_looked_for() {
    let Some(url) = redis_url() else { return };
    let (a, b) = pair(&with_redis(&url)).await;
    a.log.set(Fault::Full);
    a.send(request()).await.problem(503, "unavailable");
    let second = settled(&b, KEY).await;
    assert_eq!(second.status, 201, "{second:?}");
    assert_eq!(a.created().await.len(), 1);

    deafen(&b).await;
    a.log.set(Fault::FailedWritten);
    let key = ("idempotency-key", "order-78");
    a.send(post("/v1/transactions", &canonical(), &[key])).await.problem(503, "unavailable");
    let retry = settled(&b, key).await;
    assert_eq!((retry.status.as_u16(), retry.header("idempotent-replayed")), (201, Some("true")));
    assert_eq!(a.created().await.len(), 2);
}

#[tokio::test]
async fn no_card_number_is_in_redis() {
    let Some(url) = redis_url() else { return };
    let config = with_redis(&url);
    let (a, b) = pair(&config).await;
    let number = "4929421234600821";
    let body = changed(complete(), "/card/number", Some(number.into()));
    let body = changed(body, "/idempotency_key", Some("order-secret".into()));
    let id = a.post("/v1/transactions", &body).await.id();
    b.until("the view", || async { b.get(&format!("/v1/transactions/{id}")).await.status == 200 }).await;

    let mut redis = connection(&url).await;
    let pattern = format!("{}*", config.redis.key_prefix);
    let mut seen = 0;
    a.until("entry and view", || {
        let (mut redis, pattern) = (redis.clone(), pattern.clone());
        async move {
            let keys: Vec<String> = redis::cmd("KEYS").arg(pattern).query_async(&mut redis).await.unwrap();
            keys.iter().any(|key| key.ends_with(":e")) && keys.iter().any(|key| key.ends_with(":v"))
        }
    })
    .await;
    let keys: Vec<String> = redis::cmd("KEYS").arg(&pattern).query_async(&mut redis).await.unwrap();
    for key in keys {
        let value: String = redis::cmd("GET").arg(&key).query_async(&mut redis).await.unwrap();
        let ttl: i64 = redis::cmd("PTTL").arg(&key).query_async(&mut redis).await.unwrap();
        assert!(!value.contains(&number[6..12]) && !key.contains(&number[6..12]), "{key}: {value}");
        assert!(!value.contains("cvc") && !value.contains("cvv"), "{key}: {value}");
        assert!(ttl > 0, "{key} stays for ever");
        seen += 1;
    }
    assert!(seen >= 4, "entry, view and two buckets");
}
