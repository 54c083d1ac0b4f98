//! The open loop against a server that misbehaves on purpose.

#![allow(clippy::unwrap_used)] // also in what is not itself a test

mod server;

use std::collections::{BTreeMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use loadtest::{Arrivals, LoadConfig, Report, run, run_demo, run_malformed};
use server::{Received, Reply, Server};
use tokio_util::sync::CancellationToken;

/// An answer with an id made of the idempotency key, as the API's ids are.
fn decided(request: &Received) -> String {
    let key = request.header("idempotency-key").unwrap();
    format!(r#"{{"id":"txn_{key}","status":"decided","decision":{{"outcome":"approve","degraded":false}}}}"#)
}

fn config(server: &Server, rate: f64, millis: u64) -> LoadConfig {
    LoadConfig {
        arrivals: Arrivals::Uniform,
        timeout: Duration::from_secs(20),
        ..LoadConfig::new(server.url(), rate, Duration::from_millis(millis))
    }
}

fn assert_accounted(report: &Report) {
    assert_eq!(report.scheduled, report.sent + report.not_sent, "{report:?}");
    assert_eq!(report.scheduled, report.ok + report.errors, "{report:?}");
    assert_eq!(report.errors, report.errors_by_kind.values().sum::<u64>(), "{report:?}");
}

#[tokio::test]
async fn a_run_sends_exactly_the_requests_of_its_rate_and_duration() {
    for arrivals in [Arrivals::Uniform, Arrivals::Poisson] {
        let server = Server::start(|_, request| Reply::Status(201, decided(request))).await;
        let report = run(LoadConfig { arrivals, ..config(&server, 400.0, 1_000) }, |_| {}).await.unwrap();
        assert_accounted(&report);
        assert_eq!((report.sent, report.ok, report.errors), (400, 400, 0), "{report:?}");
        assert_eq!(report.outcomes.approve, 400);
        let keys: HashSet<String> =
            server.received().iter().map(|r| r.header("idempotency-key").unwrap().to_owned()).collect();
        assert_eq!(keys.len(), 400);
    }
}

#[tokio::test]
async fn a_stall_is_felt_by_every_request_that_was_due_meanwhile() {
    // The server does nothing for 600 of 2,000 ms. Were latency taken from the actual send time, only the
    // four requests on the four connections would show it: 1 %, far above the 95th percentile.
    let stall: Mutex<Option<Instant>> = Mutex::new(None);
    let server = Server::start(move |nth, request| {
        let mut stall = stall.lock().unwrap();
        if nth == 100 {
            *stall = Some(Instant::now() + Duration::from_millis(600));
        }
        match stall.and_then(|until| until.checked_duration_since(Instant::now())) {
            Some(left) => Reply::Later(left, 201, decided(request)),
            None => Reply::Status(201, decided(request)),
        }
    })
    .await;
    let report = run(LoadConfig { connections: 4, ..config(&server, 200.0, 2_000) }, |_| {}).await.unwrap();
    assert_accounted(&report);
    assert_eq!(report.ok, 400);
    assert!(report.p95_ms > 350.0, "{report:?}");
    assert!(report.max_ms >= 590.0, "{report:?}");
    assert!(report.send_lag_p99_ms > 350.0, "the lateness of sending is told apart: {report:?}");
}

#[tokio::test]
async fn what_could_not_be_sent_by_the_end_is_counted_as_not_sent() {
    let server = Server::start(|_, _| Reply::Never).await;
    let config =
        LoadConfig { connections: 2, timeout: Duration::from_millis(300), ..config(&server, 100.0, 1_000) };
    let report = run(config, |_| {}).await.unwrap();
    assert_accounted(&report);
    assert_eq!((report.scheduled, report.ok), (100, 0));
    assert!(report.not_sent > 50, "{report:?}");
    assert_eq!(report.errors_by_kind["not_sent"], report.not_sent);
    assert_eq!(report.errors_by_kind["timeout"], report.sent);
    assert!(report.p50_ms >= 300.0, "timeouts are slow requests: {report:?}");
}

#[tokio::test]
async fn a_retry_is_the_same_request_and_every_request_is_accepted_once() {
    let server = Server::start({
        let attempts: Mutex<BTreeMap<String, usize>> = Mutex::default();
        move |_, request| {
            let key = request.header("idempotency-key").unwrap().to_owned();
            let mut attempts = attempts.lock().unwrap();
            let number = attempts.len();
            let attempt = attempts.entry(key).or_insert(0);
            *attempt += 1;
            match (*attempt, number % 4) {
                (1, 0) => Reply::Status(503, String::new()),
                (1, 1) => Reply::Drop,
                (1, 2) => Reply::Status(409, String::new()),
                _ => Reply::Status(201, decided(request)),
            }
        }
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let accepted = dir.path().join("accepted.txt");
    let report = run(
        LoadConfig {
            retry_until_accepted: true,
            accepted_out: Some(accepted.clone()),
            connections: 8,
            ..config(&server, 100.0, 1_000)
        },
        |_| {},
    )
    .await
    .unwrap();
    assert_accounted(&report);
    assert_eq!((report.ok, report.errors), (100, 0), "{report:?}");
    let mut by_key: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for request in server.received() {
        by_key.entry(request.header("idempotency-key").unwrap().to_owned()).or_default().push(request.body);
    }
    assert_eq!(by_key.len(), 100);
    let attempts: usize = by_key.values().map(Vec::len).sum();
    assert_eq!(report.retried, attempts as u64 - 100);
    assert!(report.retried >= 50, "{report:?}");
    assert!(by_key.values().all(|bodies| bodies.iter().all(|body| *body == bodies[0])));
    let ids: Vec<String> = std::fs::read_to_string(accepted).unwrap().lines().map(str::to_owned).collect();
    let expected: HashSet<String> = by_key.keys().map(|key| format!("txn_{key}")).collect();
    assert_eq!(ids.len(), 100);
    assert_eq!(ids.into_iter().collect::<HashSet<_>>(), expected);
}

#[tokio::test]
async fn without_the_option_nothing_is_sent_twice() {
    let server = Server::start(|nth, request| match nth % 2 {
        0 => Reply::Status(503, String::new()),
        _ => Reply::Status(201, decided(request)),
    })
    .await;
    let report = run(config(&server, 100.0, 500), |_| {}).await.unwrap();
    assert_accounted(&report);
    assert_eq!((report.ok, report.errors_by_kind["http_503"], report.retried), (25, 25, 0));
    assert_eq!(server.received().len(), 50);
}

#[tokio::test]
async fn retrying_ends_at_its_deadline() {
    let server = Server::start(|_, _| Reply::Status(503, String::new())).await;
    let report = run(
        LoadConfig {
            retry_until_accepted: true,
            retry_deadline: Duration::from_millis(200),
            ..config(&server, 20.0, 500)
        },
        |_| {},
    )
    .await
    .unwrap();
    assert_accounted(&report);
    assert_eq!((report.ok, report.errors), (0, 10), "{report:?}");
    assert!(report.retried >= 10);
}

#[tokio::test]
async fn a_refusal_that_no_retry_mends_is_not_retried() {
    let server = Server::start(|_, _| Reply::Status(422, String::new())).await;
    let config = LoadConfig { retry_until_accepted: true, ..config(&server, 20.0, 500) };
    let report = run(config, |_| {}).await.unwrap();
    assert_eq!((report.errors_by_kind["http_422"], report.retried), (10, 0));
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_is_replaced() {
    let server = Server::start(|_, request| Reply::ThenClose(201, decided(request))).await;
    let report = run(LoadConfig { connections: 1, ..config(&server, 20.0, 500) }, |_| {}).await.unwrap();
    assert_eq!((report.ok, report.errors), (10, 0), "{report:?}");
}

#[tokio::test]
async fn pending_and_degraded_answers_and_statuses_are_counted() {
    let server = Server::start(|nth, request| match nth % 3 {
        0 => Reply::Status(202, r#"{"id":"txn_0","status":"pending"}"#.to_owned()),
        1 => Reply::Status(201, decided(request).replace("false", "true").replace("approve", "decline")),
        _ => Reply::Status(201, decided(request)),
    })
    .await;
    let report = run(config(&server, 60.0, 500), |_| {}).await.unwrap();
    assert_eq!((report.ok, report.pending, report.degraded), (30, 10, 10));
    assert_eq!((report.outcomes.approve, report.outcomes.decline), (10, 10));
    assert_eq!((report.http_status["201"], report.http_status["202"]), (20, 10));
}

#[tokio::test]
async fn a_stopped_run_reports_on_what_was_due_by_then() {
    let stop = CancellationToken::new();
    let server = Server::start({
        let stop = stop.clone();
        move |nth, request| {
            if nth == 50 {
                stop.cancel();
            }
            Reply::Status(201, decided(request))
        }
    })
    .await;
    let report = run(LoadConfig { stop, ..config(&server, 100.0, 600_000) }, |_| {}).await.unwrap();
    assert_accounted(&report);
    assert!((51..500).contains(&report.sent), "{report:?}");
}

#[tokio::test]
async fn progress_is_told_while_it_goes() {
    let server = Server::start(|_, request| Reply::Status(201, decided(request))).await;
    let mut seen = Vec::new();
    run(config(&server, 50.0, 2_500), |progress| seen.push(*progress)).await.unwrap();
    assert!(!seen.is_empty());
    assert!(
        seen.windows(2).all(|pair| pair[0].sent <= pair[1].sent && pair[0].elapsed_s < pair[1].elapsed_s)
    );
    assert!(seen[0].ok > 0 && seen[0].p99_ms > 0.0 && seen[0].rate > 0.0, "{:?}", seen[0]);
}

#[tokio::test]
async fn the_api_key_goes_into_the_header_and_not_into_debug_output() {
    let server = Server::start(|_, request| Reply::Status(201, decided(request))).await;
    let config = LoadConfig {
        api_key: Some("sk_test_abc".to_owned()),
        url: server.url() + "/base/",
        ..config(&server, 10.0, 500)
    };
    assert!(!format!("{config:?}").contains("sk_test_abc"));
    run(config, |_| {}).await.unwrap();
    let first = server.received().remove(0);
    assert_eq!(first.header("authorization"), Some("Bearer sk_test_abc"));
    assert!(first.head.starts_with("POST /base/v1/transactions HTTP/1.1"), "{}", first.head);
}

#[tokio::test]
async fn the_same_seed_and_run_id_send_the_same_requests() {
    let mut runs = Vec::new();
    for _ in 0..2 {
        let server = Server::start(|_, request| Reply::Status(201, decided(request))).await;
        let config = LoadConfig { seed: 9, run_id: Some("again".to_owned()), ..config(&server, 50.0, 500) };
        run(config, |_| {}).await.unwrap();
        let keys: HashSet<String> =
            server.received().iter().map(|r| r.header("idempotency-key").unwrap().to_owned()).collect();
        runs.push(keys);
    }
    assert_eq!(runs[0], runs[1]);
}

#[tokio::test]
async fn a_wrong_url_or_setting_is_told_before_anything_is_sent() {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let second = Duration::from_secs(1);
    for (config, said) in [
        (LoadConfig::new(format!("http://{free}"), 10.0, second), "paystream up"),
        (LoadConfig::new("https://localhost", 10.0, second), "http://"),
        (LoadConfig::new("localhost:8080/x y", 10.0, second), "URL"),
        (LoadConfig::new("http://localhost", 0.0, second), "rate"),
        (LoadConfig::new("http://localhost", f64::NAN, second), "rate"),
        (LoadConfig::new("http://localhost", 1.0, Duration::ZERO), "duration"),
        (LoadConfig { fraud_share: 1.5, ..LoadConfig::new("http://localhost", 1.0, second) }, "fraud"),
        (LoadConfig { connections: 0, ..LoadConfig::new("http://localhost", 1.0, second) }, "connections"),
    ] {
        let error = format!("{:#}", run(config, |_| {}).await.unwrap_err());
        assert!(error.contains(said), "{error:?} says nothing of {said:?}");
    }
}

#[tokio::test]
async fn a_demo_outlives_refusals_and_ends_when_stopped() {
    static ACCEPTED: AtomicUsize = AtomicUsize::new(0);
    let stop = CancellationToken::new();
    let server = Server::start({
        let stop = stop.clone();
        move |nth, request| match nth {
            0..4 => Reply::Status(503, String::new()),
            4..8 => Reply::Drop,
            8..12 => Reply::Status(429, String::new()),
            _ => {
                if ACCEPTED.fetch_add(1, Ordering::Relaxed) == 20 {
                    stop.cancel();
                }
                Reply::Status(201, decided(request))
            }
        }
    })
    .await;
    let url = server.url();
    let demo = run_demo(&url, 100.0, stop, None);
    tokio::time::timeout(Duration::from_secs(60), demo).await.expect("it goes on after refusals").unwrap();
    assert!(ACCEPTED.load(Ordering::Relaxed) > 20);
}

#[tokio::test]
async fn a_server_that_accepts_malformed_requests_is_found_out() {
    let server = Server::start(|_, _| Reply::Status(201, "{}".to_owned())).await;
    let report = run_malformed(&server.url(), 250, None).await.unwrap();
    assert_eq!((report.sent, report.refused_4xx, report.wrong_total), (250, 0, 250));
    assert!(report.kinds >= 40 && report.wrong.len() == 100);
}

#[tokio::test]
async fn a_server_that_limits_its_callers_is_waited_for() {
    let server = Server::start(|nth, _| match nth {
        0 => Reply::Status(429, String::new()),
        _ => Reply::Status(400, r#"{"detail":"the body is not JSON"}"#.to_owned()),
    })
    .await;
    let report = run_malformed(&server.url(), 1, None).await.unwrap();
    assert_eq!((report.sent, report.named_field, report.wrong_total), (1, 1, 0), "{report}");
}
