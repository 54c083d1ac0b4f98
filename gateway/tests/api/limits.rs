//! Load beyond what is allowed is refused, and nobody gets around it by what they write in a header.

use gateway::{GatewayConfig, Scope};
use tower::ServiceExt as _;

use crate::support::{Fault, Gate, bearer, canonical, config, from, post};

fn tight() -> GatewayConfig {
    GatewayConfig {
        key_rate_per_second: 1,
        key_burst_requests: 3,
        ip_rate_per_second: 1,
        ip_burst_requests: 5,
        ..config()
    }
}

#[tokio::test]
async fn a_key_has_its_limit_and_says_so() {
    let gate = Gate::with(tight()).await;
    let first = gate.post("/v1/transactions", &canonical()).await;
    let headers = |name| first.headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(headers("ratelimit-policy"), [r#""key";q=3;w=3"#, r#""ip";q=5;w=5"#]);
    assert_eq!(headers("ratelimit"), [r#""key";r=2;t=1"#, r#""ip";r=4;t=1"#]);
    gate.post("/v1/transactions", &canonical()).await;
    gate.post("/v1/transactions", &canonical()).await;
    let refused = gate.post("/v1/transactions", &canonical()).await;
    refused.problem(429, "rate-limited");
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    assert!(refused.headers.contains_key("ratelimit-policy"));

    let key = gate.keys.create(&"shop".parse().unwrap(), false, &Scope::ALL).unwrap();
    let other = gate.send(post("/v1/transactions", &canonical(), &[("authorization", &bearer(&key))])).await;
    assert_eq!(other.status, 201, "another key has its own");
    assert_eq!(gate.created().await.len(), 4);
}

#[tokio::test]
async fn no_header_evades_the_limit_of_an_address() {
    let gate = Gate::with(GatewayConfig { key_burst_requests: 1_000, ..tight() }).await;
    for i in 0..10_u32 {
        let address = format!("203.0.113.{i}");
        let request = post(
            "/v1/transactions",
            &canonical(),
            &[
                ("x-forwarded-for", &address),
                ("x-real-ip", &address),
                ("forwarded", &format!("for={address}")),
            ],
        );
        let answer = gate.send(from("198.51.100.7", request)).await;
        if i < 5 {
            assert_eq!(answer.status, 201);
        } else {
            answer.problem(429, "rate-limited");
        }
    }
    let other = gate.send(from("198.51.100.8", post("/v1/transactions", &canonical(), &[]))).await;
    assert_eq!(other.status, 201);
}

#[tokio::test]
async fn behind_a_trusted_proxy_the_client_is_limited_and_not_the_proxy() {
    let config = GatewayConfig {
        key_burst_requests: 1_000,
        trusted_proxies: vec!["10.0.0.0/8".to_owned()],
        ..tight()
    };
    let gate = Gate::with(config).await;
    let send = |forwarded: String| {
        let request = post("/v1/transactions", &canonical(), &[("x-forwarded-for", &forwarded)]);
        gate.send(from("10.1.1.1", request))
    };
    for i in 0..10 {
        assert_eq!(send(format!("203.0.113.{i}")).await.status, 201);
    }
    for i in 0..10 {
        let answer = send(format!("1.2.3.{i}, 203.0.113.77")).await;
        assert_eq!(answer.status.as_u16(), if i < 5 { 201 } else { 429 }, "the client wrote the first one");
    }
}

#[tokio::test]
async fn failed_guesses_of_keys_are_limited() {
    let gate = Gate::with(tight()).await;
    let mut statuses = Vec::new();
    for i in 0..6 {
        let guess = format!("Bearer sk_live_{i:064}");
        let answer = gate.send(post("/v1/transactions", &canonical(), &[("authorization", &guess)])).await;
        statuses.push(answer.status.as_u16());
    }
    assert_eq!(statuses, [401, 401, 401, 401, 401, 429]);
}

#[tokio::test]
async fn more_at_once_than_there_is_room_for_is_refused() {
    let gate = Gate::with(GatewayConfig { in_flight_max_requests: 2, ..config() }).await;
    gate.log.set(Fault::Held);
    let waiting: Vec<_> = (0..2)
        .map(|_| tokio::spawn(gate.router().oneshot(post("/v1/transactions", &canonical(), &[]))))
        .collect();
    gate.until("two to be under way", || async {
        gate.log.held.load(std::sync::atomic::Ordering::SeqCst) == 2
    })
    .await;
    let refused = gate.post("/v1/transactions", &canonical()).await;
    refused.problem(503, "unavailable");
    assert_eq!(refused.header("retry-after"), Some("1"));
    gate.log.set(Fault::None);
    for request in waiting {
        assert_eq!(request.await.unwrap().unwrap().status(), 201);
    }
    assert_eq!(gate.post("/v1/transactions", &canonical()).await.status, 201, "places are given back");
    assert_eq!(gate.created().await.len(), 3);
}

#[tokio::test]
async fn writes_of_clients_that_left_keep_their_places() {
    let gate = Gate::with(GatewayConfig { in_flight_max_requests: 2, ..config() }).await;
    gate.log.set(Fault::Held);
    for n in 1..=2_u8 {
        let request = tokio::spawn(gate.router().oneshot(post("/v1/transactions", &canonical(), &[])));
        gate.until("the write", || async { gate.log.held.load(std::sync::atomic::Ordering::SeqCst) == n })
            .await;
        request.abort();
        let _ = request.await;
    }
    gate.post("/v1/transactions", &canonical()).await.problem(503, "unavailable");
    gate.log.set(Fault::None);
    gate.until("the writes to end", || async { gate.created().await.len() == 2 }).await;
    gate.until("room", || async { gate.post("/v1/transactions", &canonical()).await.status == 201 }).await;
}
