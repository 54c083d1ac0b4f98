//! What is accepted is in the log, and what is not in the log is not accepted.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use eventlog::{EventLog as _, NewRecord};
use events::{Message as _, Transaction, TransactionId, topics};
use tower::ServiceExt as _;

use crate::support::{Fault, Gate, canonical, changed, config, post, within};

const KEY: (&str, &str) = ("idempotency-key", "order-77");

#[tokio::test]
async fn a_client_that_hangs_up_after_sending_has_still_paid() {
    let gate = Gate::open().await;
    gate.log.set(Fault::Held);
    let request = tokio::spawn(gate.router().oneshot(post("/v1/transactions", &canonical(), &[KEY])));
    gate.until("the write", || async { gate.log.held.load(Ordering::SeqCst) == 1 }).await;
    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    assert_eq!(gate.created().await.len(), 0);
    gate.send(post("/v1/transactions", &canonical(), &[KEY])).await.problem(409, "request-in-progress");

    gate.log.set(Fault::None);
    let path = format!("/v1/transactions/{}", TransactionId::derive(&"test".parse().unwrap(), KEY.1));
    gate.until("the decision", || async { gate.get(&path).await.json()["status"] == "decided" }).await;
    let retry = gate.send(post("/v1/transactions", &canonical(), &[KEY])).await;
    assert_eq!(retry.header("idempotent-replayed"), Some("true"));
    assert_eq!(gate.created().await.len(), 1);
}

#[tokio::test]
async fn a_log_without_room_means_503_and_nothing_accepted() {
    let gate = Gate::open().await;
    gate.log.set(Fault::Full);
    let answer = gate.send(post("/v1/transactions", &canonical(), &[KEY])).await;
    answer.problem(503, "unavailable");
    assert!(answer.header("retry-after").is_some());
    assert_eq!(gate.created().await.len(), 0);
    assert_eq!(gate.gateway.ledger().accepted(0).count(), 0);
    assert_eq!(gate.metric("paystream_gateway_accepted_total"), 0.0);

    gate.log.set(Fault::None);
    let retry = gate.send(post("/v1/transactions", &canonical(), &[KEY])).await;
    assert_eq!((retry.status.as_u16(), retry.header("idempotent-replayed")), (201, None));
    assert_eq!(gate.created().await.len(), 1);
}

#[tokio::test]
async fn a_failed_write_that_left_nothing_can_be_tried_again() {
    let gate = Gate::open().await;
    gate.log.set(Fault::FailedUnwritten);
    gate.send(post("/v1/transactions", &canonical(), &[KEY])).await.problem(503, "unavailable");
    gate.log.set(Fault::None);
    assert!(within(gate.gateway.ready()).await);
    let retry = gate.send(post("/v1/transactions", &canonical(), &[KEY])).await;
    assert_eq!((retry.status.as_u16(), retry.header("idempotent-replayed")), (201, None));
    assert_eq!(gate.created().await.len(), 1);
}

#[tokio::test]
async fn a_failed_write_that_is_in_the_log_all_the_same_is_not_made_twice() {
    let gate = Gate::open().await;
    gate.log.set(Fault::FailedWritten);
    gate.send(post("/v1/transactions", &canonical(), &[KEY])).await.problem(503, "unavailable");
    gate.log.set(Fault::None);
    assert!(within(gate.gateway.ready()).await);
    let retry = gate.send(post("/v1/transactions", &canonical(), &[KEY])).await;
    assert_eq!((retry.status.as_u16(), retry.header("idempotent-replayed")), (201, Some("true")));
    assert_eq!(gate.created().await.len(), 1);
    let accepted: Vec<_> = gate.gateway.ledger().accepted(0).map(Result::unwrap).collect();
    assert!(accepted.len() == 1 && accepted[0].recovered, "{accepted:?}");
}

#[tokio::test]
async fn a_crash_between_log_and_ledger_leaves_a_transaction_that_a_retry_finds() {
    let gate = Gate::open().await;
    // What a crash leaves: a transaction in the log that the ledger has never seen. Its record is one
    // that another gateway with the same keys wrote, so that its fingerprint is the real one.
    gate.send(post("/v1/transactions", &canonical(), &[KEY])).await;
    let transaction: Transaction = gate.created().await.remove(0);
    let dir = gate.stop().await;
    std::fs::remove_dir_all(dir.path().join("gateway")).unwrap();
    std::fs::remove_dir_all(dir.path().join("log")).unwrap();

    let gate = Gate::start(dir, config());
    assert!(gate.gateway.ready().await);
    gate.decides.send_replace(false);
    let record = NewRecord {
        topic: topics::CREATED,
        key: Bytes::from(String::from(transaction.card.token.clone())),
        value: Bytes::from(transaction.encode()),
        headers: Vec::new(),
        timestamp_ms: transaction.accepted_at_us / 1_000,
    };
    gate.log.append(vec![record]).await.unwrap();
    assert_eq!(gate.gateway.ledger().accepted(0).count(), 0);

    let gate = Gate::start(gate.stop().await, config());
    assert!(gate.gateway.ready().await, "ready only once the ledger knows the log");
    let accepted: Vec<_> = gate.gateway.ledger().accepted(0).map(Result::unwrap).collect();
    assert_eq!(accepted.len(), 1);
    assert_eq!((accepted[0].id, accepted[0].recovered), (transaction.id, true));
    let retry = gate.send(post("/v1/transactions", &canonical(), &[KEY])).await;
    assert_eq!((retry.status.as_u16(), retry.header("idempotent-replayed")), (201, Some("true")));
    assert_eq!(gate.created().await.len(), 1, "no second event");
}

#[tokio::test]
async fn an_answered_transaction_is_in_the_ledger_as_answered() {
    let gate = Gate::open().await;
    let answer = gate.post("/v1/transactions", &canonical()).await;
    let accepted: Vec<_> = gate.gateway.ledger().accepted(0).map(Result::unwrap).collect();
    assert_eq!(accepted.len(), 1);
    assert_eq!((accepted[0].id.to_string(), accepted[0].recovered), (answer.id(), false));
    assert_eq!(gate.gateway.ledger().accepted(accepted[0].accepted_at_us + 1).count(), 0);
}

#[tokio::test]
async fn an_undecodable_record_in_the_log_stops_nobody() {
    let gate = Gate::open().await;
    gate.decides.send_replace(false);
    for topic in [topics::CREATED, topics::DECIDED] {
        let record = NewRecord {
            topic,
            key: Bytes::from_static(b"k"),
            value: Bytes::from_static(b"{\"type\":\"transaction\",\"v\":99,\"data\":{}}"),
            headers: Vec::new(),
            timestamp_ms: 1_800_000_000_000,
        };
        gate.log.append(vec![record]).await.unwrap();
    }
    gate.until("both to be counted", || async { gate.metric("paystream_gateway_undecodable_total") >= 1.0 })
        .await;
    let gate = Gate::start(gate.stop().await, config());
    assert!(gate.gateway.ready().await);
    assert_eq!(gate.metric("paystream_gateway_undecodable_total"), 1.0, "the one among the created");
}

#[tokio::test]
async fn a_gateway_that_stops_takes_nothing_more_and_finishes_what_it_took() {
    let gate = Gate::open().await;
    gate.log.set(Fault::Held);
    let request = tokio::spawn(gate.router().oneshot(post("/v1/transactions", &canonical(), &[KEY])));
    gate.until("the write", || async { gate.log.held.load(Ordering::SeqCst) == 1 }).await;
    gate.gateway.service.stop.cancel();
    gate.until("the door to close", || async { gate.get("/health").await.status == 503 }).await;
    let refused = gate.post("/v1/transactions", &canonical()).await;
    refused.problem(503, "unavailable");
    assert!(!gate.gateway.service.task.is_finished());
    gate.log.set(Fault::None);
    let answer = within(request).await.unwrap().unwrap();
    assert_eq!(answer.status(), 201, "decided although the gateway is stopping");
    gate.stop().await;
}

#[tokio::test(flavor = "current_thread")]
async fn nothing_is_accepted_before_the_ledger_has_caught_up() {
    let gate = Gate::start(std::sync::Arc::new(tempfile::tempdir().unwrap()), config());
    // On one thread the gateway's task cannot run before this one waits, and refusing needs no wait.
    let mut early = std::pin::pin!(gate.send(post("/v1/transactions", &canonical(), &[])));
    let answer = futures::future::poll_immediate(early.as_mut()).await.expect("a refusal needs no wait");
    answer.problem(503, "unavailable");
    assert!(gate.gateway.ready().await);
    assert_eq!(gate.post("/v1/transactions", &canonical()).await.status, 201);
}

#[tokio::test]
async fn a_defect_is_a_500_that_tells_nothing_and_takes_nothing_down() {
    let gate = Gate::open().await;
    let id = gate.post("/v1/transactions", &canonical()).await.id();
    let path = format!("/v1/transactions/{id}");
    gate.log.set(Fault::Panics);
    for answer in [gate.get(&path).await, gate.send(post("/v1/transactions", &canonical(), &[KEY])).await] {
        answer.problem(500, "internal");
        assert!(!String::from_utf8_lossy(&answer.body).contains("4111"), "{answer:?}");
    }
    gate.log.set(Fault::None);
    assert!(within(gate.gateway.ready()).await);
    assert_eq!(gate.get(&path).await.status, 200);
    assert_eq!(gate.send(post("/v1/transactions", &canonical(), &[KEY])).await.status, 201);
    assert_eq!(gate.metric("paystream_gateway_in_flight_requests"), 0.0);
    assert_eq!(gate.created().await.len(), 2);
}

#[tokio::test]
async fn what_the_log_no_longer_holds_is_gone_and_a_new_log_is_read_from_its_start() {
    let gate = Gate::open().await;
    let path =
        format!("/v1/transactions/{}", gate.send(post("/v1/transactions", &canonical(), &[KEY])).await.id());
    let dir = gate.stop().await;
    std::fs::remove_dir_all(dir.path().join("log")).unwrap();

    let gate = Gate::start(dir, config());
    assert!(gate.gateway.ready().await);
    gate.get(&path).await.problem(410, "gone");
    gate.send(post("/v1/transactions", &canonical(), &[KEY])).await.problem(410, "gone");
    let patient = changed(canonical(), "/deadline_ms", Some(10_000.into()));
    let answer = gate.post("/v1/transactions", &patient).await;
    assert_eq!(answer.status, 201);
    assert_eq!(gate.get(&format!("/v1/transactions/{}", answer.id())).await.body, answer.body);
}
