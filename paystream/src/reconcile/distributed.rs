//! Kafka and ClickHouse compared.

use std::path::Path;
use std::sync::Arc;

use analytics::clickhouse::{ClickHouseStored, Server};
use analytics::{Accepted, Report};
use anyhow::{Context as _, bail};
use eventlog::{EventLog, KafkaLog};

use crate::config::Config;

/// Compares what was accepted with the log on Kafka and with ClickHouse, views included.
pub(super) async fn reconcile(config: &Config, accepted: Accepted) -> anyhow::Result<Report> {
    if !config.kafka.is_set() {
        bail!(
            "clickhouse.url is set and kafka.brokers is not: what is in ClickHouse is compared with the log on \
             Kafka; name its brokers, or, to look at one data directory, give --data-dir"
        );
    }
    let kafka = Arc::new(KafkaLog::open(config.kafka.clone()).await.context("connecting to Kafka")?);
    let log: Arc<dyn EventLog> = kafka.clone();
    // The services may be running.
    let stored = ClickHouseStored::new(Server::new(&config.clickhouse), Arc::clone(&log), true);
    let report = analytics::reconcile(accepted, &*log, &stored).await;
    kafka.close().await;
    report
}

/// The ids of a file, one a line, as `paystream loadtest --accepted-out` writes them.
pub(super) fn read_accepted(file: &Path) -> anyhow::Result<Accepted> {
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let mut listed = Vec::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let id = line.trim().parse().with_context(|| {
            format!("{}:{number}: `{line}` is not the id of a transaction", file.display())
        })?;
        // When it was accepted is not in the file: everything the log holds is compared.
        listed.push((id, i64::MIN));
    }
    Ok(Accepted::Listed(listed))
}
