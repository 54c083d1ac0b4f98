//! Who may do what.

use gateway::auth::require_scope;
use gateway::{GatewayConfig, Scope};
use tower::ServiceExt as _;

use crate::support::{Gate, bearer, canonical, config, get, post};

fn key(gate: &Gate, merchant: &str, livemode: bool, scopes: &[Scope]) -> String {
    bearer(&gate.keys.create(&merchant.parse().unwrap(), livemode, scopes).unwrap())
}

#[tokio::test]
async fn without_the_loopback_policy_a_key_is_needed() {
    let gate = Gate::with(GatewayConfig { allow_anonymous_test_merchant: false, ..config() }).await;
    let answer = gate.post("/v1/transactions", &canonical()).await;
    answer.problem(401, "unauthenticated");
    assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
    gate.get("/v1/transactions/txn_00000000000000000000000000000000").await.problem(401, "unauthenticated");
    assert_eq!(gate.get("/health").await.status, 200, "health needs no key");

    let key = key(&gate, "shop", true, &Scope::ALL);
    let answer = gate.send(post("/v1/transactions", &canonical(), &[("authorization", &key)])).await;
    assert_eq!((&answer.json()["merchant_id"], &answer.json()["livemode"]), (&"shop".into(), &true.into()));
    let alias = key.strip_prefix("Bearer ").unwrap();
    let answer = gate.send(post("/v1/transactions", &canonical(), &[("x-api-key", alias)])).await;
    assert_eq!(answer.status, 201);
}

#[tokio::test]
async fn a_wrong_key_is_never_taken_for_no_key() {
    let gate = Gate::open().await;
    let good = key(&gate, "shop", false, &Scope::ALL);
    for headers in [
        &[("authorization", "Bearer sk_test_0000000000000000000000000000000000000000")][..],
        &[("authorization", "Bearer")],
        &[("authorization", "Bearer ")],
        &[("authorization", "Basic dXNlcjpwYXNz")],
        &[("authorization", "")],
        &[("x-api-key", "sk_live_nope")],
        &[("authorization", &*good), ("x-api-key", "sk_test_other")],
        &[("authorization", &*good), ("authorization", &*good)],
    ] {
        let answer = gate.send(post("/v1/transactions", &canonical(), headers)).await;
        answer.problem(401, "unauthenticated");
    }
    assert_eq!(gate.created().await.len(), 0);
}

#[tokio::test]
async fn a_revoked_key_is_refused_at_once() {
    let gate = Gate::open().await;
    let key = key(&gate, "shop", false, &Scope::ALL);
    let send = || gate.send(post("/v1/transactions", &canonical(), &[("authorization", &key)]));
    assert_eq!(send().await.status, 201);
    gate.keys.revoke(&gate.keys.list()[0].id).unwrap();
    send().await.problem(401, "unauthenticated");
}

#[tokio::test]
async fn a_key_does_what_its_scopes_say() {
    let gate = Gate::open().await;
    let reads = key(&gate, "shop", false, &[Scope::TransactionsRead]);
    let writes = key(&gate, "shop", false, &[Scope::TransactionsWrite]);
    let by = |key: &str| vec![("authorization".to_owned(), key.to_owned())];
    let submit = |key: &str| {
        let headers = by(key);
        let headers: Vec<_> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        post("/v1/transactions", &canonical(), &headers)
    };
    let show = |id: &str, key: &str| get(&format!("/v1/transactions/{id}"), &[("authorization", key)]);
    gate.send(submit(&reads)).await.problem(403, "forbidden");
    let answer = gate.send(submit(&writes)).await;
    assert_eq!(answer.status, 201);
    gate.send(show(&answer.id(), &writes)).await.problem(403, "forbidden");
    assert_eq!(gate.send(show(&answer.id(), &reads)).await.status, 200);
}

#[tokio::test]
async fn another_merchants_transaction_is_not_there() {
    let gate = Gate::open().await;
    let owner = key(&gate, "shop", true, &Scope::ALL);
    let id = gate.send(post("/v1/transactions", &canonical(), &[("authorization", &owner)])).await.id();
    let path = format!("/v1/transactions/{id}");
    let other = key(&gate, "other", true, &Scope::ALL);
    let test_mode = key(&gate, "shop", false, &Scope::ALL);
    for key in [&other, &test_mode] {
        gate.send(get(&path, &[("authorization", key)])).await.problem(404, "not-found");
        let label = serde_json::json!({"verdict": "fraud"});
        let request = post(&format!("{path}/labels"), &label, &[("authorization", key)]);
        gate.send(request).await.problem(404, "not-found");
    }
    gate.get(&path).await.problem(404, "not-found");
    assert_eq!(gate.send(get(&path, &[("authorization", &owner)])).await.status, 200);
    assert_eq!(gate.labels().await.len(), 0);
}

#[tokio::test]
async fn the_guard_protects_other_routers() {
    let gate = Gate::with(GatewayConfig { allow_anonymous_test_merchant: false, ..config() }).await;
    let guard = gate.gateway.scope_guard(Scope::Analytics);
    let analytics = axum::Router::new()
        .route("/v1/query", axum::routing::get(|| async { "rows" }))
        .layer(axum::middleware::from_fn_with_state(guard, require_scope));
    let may = key(&gate, "shop", true, &[Scope::Analytics]);
    let may_not = key(&gate, "shop", true, &[Scope::TransactionsRead]);
    for (headers, status) in [
        (vec![], 401),
        (vec![("authorization", may_not.as_str())], 403),
        (vec![("authorization", may.as_str())], 200),
    ] {
        let response = analytics.clone().oneshot(get("/v1/query", &headers)).await.unwrap();
        assert_eq!(response.status(), status);
        if status != 200 {
            assert_eq!(response.headers()["content-type"], "application/problem+json");
            assert!(response.headers().contains_key("x-request-id"));
        }
    }
}
