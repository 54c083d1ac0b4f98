//! Kafka: reachable, its topics as they have to be, and how far its readers are.

use std::sync::Arc;
use std::time::Duration;

use eventlog::EventLog;
use events::topics;
use futures::future::join_all;
use tokio::net::TcpStream;

use super::Patient;
use super::check::Verdict;
use crate::logs;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Records a reader may be behind before that is worth a warning: some seconds of heavy traffic.
const LAG_MAX: u64 = 100_000;
/// Who commits how far they have read what.
const READERS: [(&str, &str); 5] = [
    ("fraud-analyzer", topics::CREATED),
    ("analytics", topics::DECIDED),
    ("analytics", topics::LABELLED),
    ("analytics", topics::ALERTS),
    ("alerter", topics::ALERTS),
];

pub(super) async fn reach(brokers: String) -> Verdict {
    let tries =
        brokers.split(',').map(str::trim).filter(|broker| !broker.is_empty()).map(|broker| async move {
            match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(broker)).await {
                Ok(Ok(_)) => Ok(broker),
                Ok(Err(error)) => Err(format!("{broker}: {error}")),
                Err(_) => Err(format!("{broker}: no answer within {} s", CONNECT_TIMEOUT.as_secs())),
            }
        });
    let (up, down): (Vec<_>, Vec<_>) = join_all(tries).await.into_iter().partition(Result::is_ok);
    let down: Vec<String> = down.into_iter().filter_map(Result::err).collect();
    let hint = "start the broker, or correct kafka.brokers";
    match (up.len(), down.is_empty()) {
        (0, _) => Verdict::fail(down.join(", "), hint),
        (_, false) => Verdict::warn(down.join(", "), hint),
        (up, true) => Verdict::ok(format!("{up} of {up} brokers answer")),
    }
}

async fn open(patient: &Patient) -> Result<Arc<dyn EventLog>, Verdict> {
    logs::open_log(&patient.config).await.map_err(|error| {
        let hint = "`paystream topics diff` says what differs, `paystream topics apply` makes it so";
        Verdict::fail(format!("{error:#}"), hint)
    })
}

pub(super) async fn topics(patient: Arc<Patient>) -> Verdict {
    match open(&patient).await {
        Ok(log) => partitions(&*log),
        Err(verdict) => verdict,
    }
}

/// A card's records stay in one partition only where the topics keyed by card have equally many.
fn partitions(log: &dyn EventLog) -> Verdict {
    let mut missing = Vec::new();
    let mut counts = Vec::new();
    for topic in topics::ALL.into_iter().chain(topics::DEAD_LETTERS) {
        match log.partitions(topic) {
            Ok(partitions) => counts.push((topic, partitions)),
            Err(error) => missing.push(error.to_string()),
        }
    }
    let apply = "`paystream topics apply` makes what is missing";
    if !missing.is_empty() {
        return Verdict::fail(missing.join(", "), apply);
    }
    let of = |name: &str| counts.iter().find(|(topic, _)| *topic == name).map(|(_, partitions)| *partitions);
    if of(topics::CREATED) != of(topics::DECIDED) {
        let count = |name| of(name).unwrap_or_default();
        return Verdict::fail(
            format!(
                "{} has {} partitions, {} has {}",
                topics::CREATED,
                count(topics::CREATED),
                topics::DECIDED,
                count(topics::DECIDED)
            ),
            "both have to have equally many: see `paystream topics diff`",
        );
    }
    let partitions = of(topics::CREATED).unwrap_or_default();
    Verdict::ok(format!("{} topics, {partitions} partitions of {}", counts.len(), topics::CREATED))
}

pub(super) async fn consumers(patient: Arc<Patient>) -> Verdict {
    let log = match open(&patient).await {
        Ok(log) => log,
        Err(verdict) => return verdict,
    };
    match lags(&*log).await {
        Ok(lags) => judge(&lags),
        Err(error) => Verdict::fail(format!("{error:#}"), "see whether the broker is well"),
    }
}

/// Of each reader, how many records it is behind; of those that have ever committed.
async fn lags(log: &dyn EventLog) -> anyhow::Result<Vec<(String, u64)>> {
    let mut lags = Vec::new();
    for (group, topic) in READERS {
        let mut lag = None;
        for partition in 0..log.partitions(topic)? {
            let (_, end) = log.bounds(topic, partition).await?;
            if let Some(next) = log.committed(group, topic, partition).await? {
                lag = Some(lag.unwrap_or_default() + end.saturating_sub(next));
            }
        }
        lags.extend(lag.map(|lag| (format!("{group} in {topic}"), lag)));
    }
    Ok(lags)
}

fn judge(lags: &[(String, u64)]) -> Verdict {
    let behind: Vec<String> = lags
        .iter()
        .filter(|(_, lag)| *lag > LAG_MAX)
        .map(|(reader, lag)| format!("{reader} {lag}"))
        .collect();
    if lags.is_empty() {
        return Verdict::ok("nobody has committed a position yet");
    }
    if !behind.is_empty() {
        return Verdict::warn(
            format!("records behind: {}", behind.join(", ")),
            "see whether the service runs and keeps up; more analyzers share the partitions",
        );
    }
    let most = lags.iter().map(|(_, lag)| *lag).max().unwrap_or_default();
    Verdict::ok(format!("at most {most} records behind"))
}

#[cfg(test)]
mod tests {
    use eventlog::{EmbeddedLog, EmbeddedLogConfig};

    use super::super::check::Status;
    use super::*;

    #[tokio::test]
    async fn a_log_with_all_topics_is_well_and_its_readers_lag_is_counted() {
        let temp = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(temp.path(), EmbeddedLogConfig::default()).unwrap();
        assert_eq!(partitions(&log).status, Status::Ok);
        assert_eq!(judge(&lags(&log).await.unwrap()).message, "nobody has committed a position yet");
        log.commit("alerter", topics::ALERTS, 1, 0).await.unwrap();
        assert_eq!(lags(&log).await.unwrap(), [("alerter in fraud.alerts".to_owned(), 0)]);
        assert_eq!(judge(&[("alerter in fraud.alerts".to_owned(), LAG_MAX + 1)]).status, Status::Warn);
        log.close().await;
    }

    #[tokio::test]
    async fn brokers_that_do_not_answer_are_named() {
        let up = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let up = up.local_addr().map(|address| (up, address.to_string())).unwrap();
        assert_eq!(reach(up.1.clone()).await.status, Status::Ok);
        let some = reach(format!("{}, 127.0.0.1:1", up.1)).await;
        assert_eq!(some.status, Status::Warn);
        assert!(some.message.contains("127.0.0.1:1"), "{some:?}");
        assert_eq!(reach("127.0.0.1:1".to_owned()).await.status, Status::Fail);
    }
}
