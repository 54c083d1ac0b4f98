//! One limit for all replicas.

use gateway::GatewayConfig;

use crate::servers::{Server, away, free_port, pair, redis_url, with_redis};
use crate::support::{canonical, post};

fn tight(url: &str) -> GatewayConfig {
    GatewayConfig {
        key_rate_per_second: 1,
        key_burst_requests: 20,
        ip_rate_per_second: 1,
        ip_burst_requests: 40,
        ..with_redis(url)
    }
}

#[tokio::test]
async fn two_replicas_share_the_buckets_of_a_key() {
    let Some(url) = redis_url() else { return };
    let (a, b) = pair(&tight(&url)).await;
    let first = a.post("/v1/transactions", &canonical()).await;
    let headers = |name| first.headers.get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(headers("ratelimit-policy"), [r#""key";q=20;w=20"#, r#""ip";q=40;w=40"#]);
    assert_eq!(headers("ratelimit"), [r#""key";r=19;t=1"#, r#""ip";r=39;t=1"#]);
    let mut accepted = 1;
    let mut refused = 0;
    for _ in 0..15 {
        for gate in [&a, &b] {
            let answer = gate.post("/v1/transactions", &canonical()).await;
            if answer.status == 201 {
                accepted += 1;
            } else {
                answer.problem(429, "rate-limited");
                assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
                refused += 1;
            }
        }
    }
    // One token a second comes back meanwhile; two buckets would have held 40.
    assert!((20..=26).contains(&accepted) && refused >= 5, "{accepted} accepted, {refused} refused");
}

#[tokio::test]
async fn a_batch_draws_from_the_same_bucket_and_a_wrong_key_from_its_address() {
    let Some(url) = redis_url() else { return };
    let (a, b) = pair(&tight(&url)).await;
    let lines: Vec<serde_json::Value> = (0..15).map(|_| canonical()).collect();
    let answer = a.post("/v1/transactions/batch", &lines.into()).await;
    assert_eq!(answer.status, 200);
    let left = b.post("/v1/transactions", &canonical()).await;
    let left = left.headers.get_all("ratelimit").iter().next().unwrap().to_str().unwrap().to_owned();
    let left: u64 = left.split(";r=").nth(1).unwrap().split(';').next().unwrap().parse().unwrap();
    assert!((4..=10).contains(&left), "{left}");

    let mut statuses = Vec::new();
    for i in 0..50 {
        let guess = format!("Bearer sk_live_{i:064}");
        let gate = if i % 2 == 0 { &a } else { &b };
        let answer = gate.send(post("/v1/transactions", &canonical(), &[("authorization", &guess)])).await;
        statuses.push(answer.status.as_u16());
    }
    assert!(statuses.contains(&401) && statuses.contains(&429), "{statuses:?}");
}

#[tokio::test]
async fn without_redis_each_replica_keeps_its_own_limits() {
    let Some(_) = redis_url() else { return };
    let server = Server::start(free_port().await).await;
    let (a, b) = pair(&tight(&server.url())).await;
    assert_eq!(a.post("/v1/transactions", &canonical()).await.status, 201);
    drop(server);
    for gate in [&a, &b] {
        let mut statuses = Vec::new();
        for _ in 0..30 {
            statuses.push(gate.post("/v1/transactions", &canonical()).await.status.as_u16());
        }
        assert!(statuses.iter().filter(|status| **status == 201).count() >= 20, "{statuses:?}");
        assert!(statuses.contains(&429), "{statuses:?}");
        away(gate).await;
    }
}
