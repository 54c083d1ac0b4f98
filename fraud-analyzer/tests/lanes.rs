//! Several lanes, a change of machine, and transactions that stand twice in the log.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod support;

use std::path::Path;
use std::sync::Arc;

use eventlog::{EmbeddedLog, EventLog};
use events::{Decided, Message as _, topics};
use fraud_analyzer::{Analyzer, AnalyzerConfig};
use support::{
    assert_each_once, decided, hash, open_log, record, ruleset, stop, submit, topic, transaction,
    uninterrupted,
};

const LANES: u32 = 2;

fn start(
    config: AnalyzerConfig,
    log: &Arc<EmbeddedLog>,
    dir: &Path,
    registry: &prometheus::Registry,
) -> Analyzer {
    let log: Arc<dyn EventLog> = Arc::clone(log) as _;
    Analyzer::start(config, ruleset(), log, dir, registry).unwrap()
}

fn metric(registry: &prometheus::Registry, name: &str) -> i64 {
    let families = registry.gather();
    let family = families.iter().find(|family| family.name() == name).expect(name);
    let value = |m: &prometheus::proto::Metric| m.get_counter().get_value() + m.get_gauge().get_value();
    #[allow(clippy::cast_possible_truncation)] // counts
    let sum = family.get_metric().iter().map(value).sum::<f64>() as i64;
    sum
}

/// Those of one lane, in its order.
fn of_lane(all: &[Decided], lane: u32) -> Vec<Decided> {
    let mut own: Vec<_> = all.iter().filter(|d| d.source_partition % LANES == lane).cloned().collect();
    own.sort_by_key(|d| d.seq);
    own
}

#[tokio::test(flavor = "multi_thread")]
async fn each_lane_decides_as_if_it_were_alone_and_comes_back_to_the_same_decisions() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_log(dir.path());
    let config = AnalyzerConfig { lanes: LANES, checkpoint_interval_ms: 100, ..AnalyzerConfig::default() };
    for round in 0..3 {
        submit(&*log, round * 800..(round + 1) * 800).await;
        let registry = prometheus::Registry::new();
        stop(start(config.clone(), &log, dir.path(), &registry)).await;
        assert_eq!(metric(&registry, "paystream_analyzer_replay_mismatches_total"), 0);
        assert!(metric(&registry, "paystream_analyzer_inexact_windows") > 0, "merchants are in both lanes");
    }
    let all = decided(&*log).await;
    assert_eq!(all.len(), 2_400);
    for lane in 0..LANES {
        let own = of_lane(&all, lane);
        assert_each_once(&own, own.len());
        assert!(own.len() > 400, "both lanes have work");
        let alone = uninterrupted(ruleset(), &own);
        assert_eq!(hash(own.iter().map(|d| &d.decision)), hash(alone.iter()), "lane {lane}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_machine_goes_on_from_the_checkpoint_that_the_first_left_in_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_log(dir.path());
    let store = dir.path().join("store");
    let config = AnalyzerConfig {
        // Only those that a stop makes.
        checkpoint_interval_ms: 3_600_000,
        checkpoint_url: format!("file://{}", store.display()),
        ..AnalyzerConfig::default()
    };
    for machine in 0..4 {
        submit(&*log, machine * 20_000..(machine + 1) * 20_000).await;
        let own = dir.path().join(format!("machine-{}", machine % 3));
        let registry = prometheus::Registry::new();
        stop(start(config.clone(), &log, &own, &registry)).await;
        assert_eq!(metric(&registry, "paystream_analyzer_replay_mismatches_total"), 0);
        let files = |dir: &Path| -> Vec<String> {
            let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
            entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
        };
        let lane = own.join("analyzer/lane-0-of-1");
        let generations = files(&lane);
        assert_eq!(generations.len(), 1, "{generations:?}");
        if machine > 0 {
            // Without it the machine would have replayed everything, and have a checkpoint of the end only.
            let fetched = format!("checkpoint-{:020}.bin", machine * 20_000);
            assert!(
                files(&lane.join(&generations[0])).contains(&fetched),
                "machine {machine} has not {fetched}"
            );
        }
    }
    let all = decided(&*log).await;
    assert_each_once(&all, 80_000);
    let whole = uninterrupted(ruleset(), &all);
    assert_eq!(hash(all.iter().map(|d| &d.decision)), hash(whole.iter()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_stands_twice_in_the_log_is_decided_once() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_log(dir.path());
    submit(&*log, 0..300).await;
    let again = |i: usize| {
        let transaction = transaction(i);
        record(transaction.card.token.as_str(), transaction.encode())
    };
    // In the same batch, and in a later life of the analyzer.
    log.append(vec![again(7), again(299)]).await.unwrap();
    stop(support::start(&log, dir.path())).await;
    log.append(vec![again(7), again(250)]).await.unwrap();
    submit(&*log, 300..310).await;
    stop(support::start(&log, dir.path())).await;
    assert_each_once(&decided(&*log).await, 310);
    let dead = topic(&*log, topics::dead_letter(topics::CREATED)).await;
    assert_eq!(dead.len(), 4);
    let reason = |record: &eventlog::LoggedRecord| {
        record.headers.iter().find(|(name, _)| name == "reason").map(|(_, value)| value.clone()).unwrap()
    };
    assert!(dead.iter().all(|record| reason(record).ends_with(b"has been decided already")));
}

#[tokio::test(flavor = "multi_thread")]
async fn another_number_of_lanes_decides_each_transaction_once_with_the_windows_that_the_log_holds() {
    let dir = tempfile::tempdir().unwrap();
    let log = open_log(dir.path());
    for (round, lanes) in [1, 2, 1, 4, 1].into_iter().enumerate() {
        submit(&*log, round * 500..(round + 1) * 500).await;
        let config = AnalyzerConfig { lanes, ..AnalyzerConfig::default() };
        let registry = prometheus::Registry::new();
        stop(start(config, &log, dir.path(), &registry)).await;
        assert_eq!(metric(&registry, "paystream_analyzer_replay_mismatches_total"), 0);
    }
    let mut all = decided(&*log).await;
    all.sort_by_key(|d| d.decision.window_time_us);
    let ids: std::collections::BTreeSet<_> = all.iter().map(|d| d.transaction.id).collect();
    assert_eq!((all.len(), ids.len()), (2_500, 2_500));
    // The last round decided in one lane, over what all rounds left.
    let whole = uninterrupted(ruleset(), &all);
    let (again, logged): (Vec<_>, Vec<_>) = whole.iter().zip(&all).skip(2_000).unzip();
    assert_eq!(hash(again.into_iter()), hash(logged.into_iter().map(|d| &d.decision)));
}
