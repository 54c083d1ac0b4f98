//! One key, one transaction.

use events::TransactionId;

use crate::support::{Fault, Gate, canonical, changed, complete, config, post};

const KEY: (&str, &str) = ("idempotency-key", "order-77");

#[tokio::test]
async fn a_retry_is_answered_like_the_first_time() {
    let gate = Gate::open().await;
    let first = gate.send(post("/v1/transactions", &complete(), &[])).await;
    assert_eq!(first.status, 201, "{first:?}");
    assert_eq!(first.header("idempotent-replayed"), None);
    for _ in 0..3 {
        let retry = gate.send(post("/v1/transactions", &complete(), &[])).await;
        assert_eq!(retry.status, 201);
        assert_eq!(retry.header("idempotent-replayed"), Some("true"));
        assert_eq!(retry.header("location"), first.header("location"));
        assert_eq!(retry.body, first.body);
    }
    assert_eq!(gate.created().await.len(), 1);
    assert_eq!(gate.metric("paystream_gateway_replayed_total"), 3.0);
}

#[tokio::test]
async fn the_id_follows_from_merchant_and_key() {
    let gate = Gate::open().await;
    let answer = gate.send(post("/v1/transactions", &canonical(), &[KEY])).await;
    assert_eq!(answer.id(), TransactionId::derive(&"test".parse().unwrap(), "order-77").to_string());
}

#[tokio::test]
async fn three_at_once_are_one_event() {
    let gate = Gate::open().await;
    let send = || gate.send(post("/v1/transactions", &canonical(), &[KEY]));
    let answers = tokio::join!(send(), send(), send());
    let mut created = 0;
    for answer in [answers.0, answers.1, answers.2] {
        match answer.status.as_u16() {
            201 if answer.header("idempotent-replayed").is_none() => created += 1,
            201 => {}
            _ => {
                answer.problem(409, "request-in-progress");
                assert!(answer.header("retry-after").is_some());
            }
        }
    }
    assert_eq!(created, 1);
    assert_eq!(gate.created().await.len(), 1);
}

#[tokio::test]
async fn a_retry_while_the_first_runs_is_told_to_wait() {
    let gate = Gate::open().await;
    gate.log.set(Fault::Held);
    let first = tokio::spawn({
        let router = gate.router();
        async move {
            let request = post("/v1/transactions", &canonical(), &[KEY]);
            tower::ServiceExt::oneshot(router, request).await.unwrap().status()
        }
    });
    gate.until("the first request's write", || async {
        gate.log.held.load(std::sync::atomic::Ordering::SeqCst) == 1
    })
    .await;
    gate.send(post("/v1/transactions", &canonical(), &[KEY])).await.problem(409, "request-in-progress");
    let other = changed(canonical(), "/amount", Some(1.into()));
    gate.send(post("/v1/transactions", &other, &[KEY])).await.problem(422, "idempotency-mismatch");
    gate.log.set(Fault::None);
    assert_eq!(first.await.unwrap(), 201);
    let retry = gate.send(post("/v1/transactions", &canonical(), &[KEY])).await;
    assert_eq!(retry.header("idempotent-replayed"), Some("true"));
}

#[tokio::test]
async fn the_same_key_for_another_request_is_refused() {
    let gate = Gate::open().await;
    assert_eq!(gate.post("/v1/transactions", &complete()).await.status, 201);
    for (pointer, value) in [
        ("/amount", 10_051.into()),
        ("/currency", "EUR".into()),
        ("/card/number", "4242424242424242".into()),
        ("/card/exp_year", 41.into()),
        ("/customer/email", "john@example.com".into()),
        ("/device/ip", "203.0.113.10".into()),
        ("/metadata/order", "ord_2".into()),
        ("/location/lat", 1.5.into()),
    ] {
        let other = changed(complete(), pointer, Some(value));
        gate.post("/v1/transactions", &other).await.problem(422, "idempotency-mismatch");
    }
    assert_eq!(gate.created().await.len(), 1);
}

#[tokio::test]
async fn what_does_not_identify_a_request_may_differ() {
    let gate = Gate::open().await;
    assert_eq!(gate.post("/v1/transactions", &complete()).await.status, 201);
    for (pointer, value) in [
        ("/card/cvc", "999".into()),
        ("/deadline_ms", 4_000.into()),
        ("/card/number", "4111-1111-1111-1111".into()),
        ("/card/exp_year", 2040.into()),
        ("/customer/email", "JANE.DOE@example.com".into()),
    ] {
        let same = gate.post("/v1/transactions", &changed(complete(), pointer, Some(value))).await;
        assert_eq!(same.header("idempotent-replayed"), Some("true"), "{pointer}: {same:?}");
    }
}

#[tokio::test]
async fn keys_belong_to_their_merchant_and_mode() {
    let gate = Gate::open().await;
    let mut ids = Vec::new();
    for (merchant, livemode) in [("a", false), ("b", false), ("b", true)] {
        let key = gate.keys.create(&merchant.parse().unwrap(), livemode, &gateway::Scope::ALL).unwrap();
        let key = crate::support::bearer(&key);
        let answer = gate.send(post("/v1/transactions", &canonical(), &[KEY, ("authorization", &key)])).await;
        if livemode {
            answer.problem(422, "idempotency-mismatch");
        } else {
            assert_eq!(answer.status, 201);
            ids.push(answer.id());
        }
    }
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn a_retry_of_an_undecided_transaction_waits_for_its_decision() {
    let gate = Gate::open().await;
    gate.decides.send_replace(false);
    let body = changed(canonical(), "/deadline_ms", Some(20.into()));
    let first = gate.send(post("/v1/transactions", &body, &[KEY])).await;
    assert_eq!(first.status, 202);
    let again = gate.send(post("/v1/transactions", &body, &[KEY])).await;
    assert_eq!((again.status.as_u16(), again.header("idempotent-replayed")), (202, Some("true")));
    assert_eq!(again.json()["decision"]["degraded"], true);

    let patient = changed(canonical(), "/deadline_ms", Some(30_000.into()));
    let request = post("/v1/transactions", &patient, &[KEY]);
    let (waited, ()) = tokio::join!(gate.send(request), async {
        gate.decides.send_replace(true);
    });
    assert_eq!(waited.status, 201);
    assert_eq!(waited.json()["decision"]["outcome"], "approve");
    assert_eq!(gate.created().await.len(), 1);
}

#[tokio::test]
async fn a_key_is_remembered_over_a_restart() {
    let gate = Gate::open().await;
    let first = gate.send(post("/v1/transactions", &canonical(), &[KEY])).await;
    let gate = Gate::start(gate.stop().await, config());
    assert!(gate.gateway.ready().await);
    let retry = gate.send(post("/v1/transactions", &canonical(), &[KEY])).await;
    assert_eq!(retry.header("idempotent-replayed"), Some("true"));
    assert_eq!(retry.body, first.body);
    assert_eq!(gate.created().await.len(), 1);
}

#[tokio::test]
async fn without_a_key_every_request_is_a_transaction() {
    let gate = Gate::open().await;
    let a = gate.post("/v1/transactions", &canonical()).await;
    let b = gate.post("/v1/transactions", &canonical()).await;
    assert_ne!(a.id(), b.id());
}
