//! From batches to ClickHouse: planned in the log, inserted with tokens, confirmed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use eventlog::{EventLog, LogError, NewRecord, Writer};
use futures::future::join_all;
use tokio_util::sync::CancellationToken;

use super::GROUP;
use super::batch::{Batch, Section};
use super::config::ClickHouseConfig;
use super::crash;
use super::metrics::Metrics;
use super::plan::{self, Plan, token};
use super::queue::{InHand, Queue};
use super::server::{Server, ServerError};
use super::spool::Refusal;
use crate::positions::Positions;

const FIRST_RETRY: Duration = Duration::from_millis(100);
/// A batch that is sent again this long after it was planned is planned again first: a process that stood
/// still for a while, and was replaced meanwhile, finds out before it sends anything.
const PLAN_HOLDS: Duration = Duration::from_secs(30);
/// As often rows must be refused before they are set aside: a server that is being changed may refuse once.
const REFUSALS: u32 = 3;
/// `UNKNOWN_TABLE`, `UNKNOWN_DATABASE`, `NO_SUCH_COLUMN_IN_TABLE`.
const NOT_MIGRATED: [u32; 3] = [60, 81, 16];

/// Why sending ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    #[error("another process fills the warehouse now")]
    Replaced,
    #[error("asked to stop at once")]
    Stopped,
    #[error(transparent)]
    Other(#[from] anyhow::Error),
}

/// Sends batches in the order they were formed, one after the other.
pub(crate) struct Sender {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) writer: Box<dyn Writer>,
    pub(crate) server: Server,
    pub(crate) queue: Arc<Queue>,
    pub(crate) config: ClickHouseConfig,
    pub(crate) metrics: Metrics,
    pub(crate) lineage: String,
    /// What is in, for each topic and partition.
    pub(crate) confirmed: Positions,
    /// End at once, whatever is under way.
    pub(crate) stop: CancellationToken,
}

impl Sender {
    /// Runs until the queue ends.
    pub(crate) async fn run(mut self) -> Result<(), SendError> {
        let stop = self.stop.clone();
        tokio::select! {
            ended = self.send_all() => ended,
            () = stop.cancelled() => Err(SendError::Stopped),
        }
    }

    async fn send_all(&mut self) -> Result<(), SendError> {
        self.know_server().await;
        while let Some(in_hand) = self.queue.pop().await? {
            self.send(in_hand).await?;
        }
        Ok(())
    }

    /// Until the server has answered for the first time, batches wait.
    async fn know_server(&mut self) {
        let mut pauses = self.pauses();
        while let Err(error) = self.server.know_settings().await {
            self.failed("asking for its settings", &error);
            tokio::time::sleep(pauses.next().unwrap_or_default()).await;
        }
    }

    fn pauses(&self) -> impl Iterator<Item = Duration> + Send + use<> {
        let longest = Duration::from_millis(self.config.retry_max_ms);
        ExponentialBuilder::default()
            .with_min_delay(FIRST_RETRY.min(longest))
            .with_max_delay(longest)
            .without_max_times()
            .with_jitter()
            .build()
    }

    async fn send(&mut self, in_hand: InHand) -> Result<(), SendError> {
        let batch = &in_hand.batch;
        let plan = self.plan(batch);
        let dead = if in_hand.is_planned { &[][..] } else { &batch.dead[..] };
        crash::point(&self.config.database, "before the plan")?;
        self.append(&plan, batch.topic, dead).await?;
        if !dead.is_empty() {
            let (topic, count) = (batch.topic, dead.len() as u64);
            tracing::warn!(topic, count, "records could not be decoded and are now in the dead-letter topic");
            self.metrics.dead_letters.with_label_values(&[topic]).inc_by(count);
        }
        crash::point(&self.config.database, "after the plan")?;
        self.insert(batch, &plan).await?;
        crash::point(&self.config.database, "after the inserts")?;
        self.confirm(batch, &plan).await;
        crash::point(&self.config.database, "after the commit")?;
        self.queue.done(in_hand)?;
        Ok(())
    }

    fn plan(&self, batch: &Batch) -> Plan {
        let known = (0..).zip(self.confirmed.of_topic(batch.topic).iter().copied());
        let mut next: BTreeMap<u32, u64> = known.collect();
        next.extend(batch.spans.0.iter().map(|(&partition, span)| (partition, span.to)));
        Plan::new(self.lineage.clone(), batch.spans.clone(), next)
    }

    /// Makes the plan durable, with the batch's dead letters in the same append.
    async fn append(
        &mut self,
        plan: &Plan,
        topic: &'static str,
        dead: &[NewRecord],
    ) -> Result<(), SendError> {
        let mut pauses = self.pauses();
        loop {
            let mut records = vec![plan.record(topic)];
            records.extend_from_slice(dead);
            let error = match self.writer.append(records).await {
                Ok(_) => return Ok(()),
                Err(LogError::Fenced(_)) => return Err(SendError::Replaced),
                Err(LogError::Closed) => return Err(SendError::Stopped),
                Err(error) => error,
            };
            tracing::error!(%error, topic, "cannot write the plan of a batch to the log: trying again");
            tokio::time::sleep(pauses.next().unwrap_or_default()).await;
            // The append may have succeeded without saying so; dead letters are not to be written twice.
            match plan::newest(&*self.log).await {
                Ok(plans) if plans.get(topic) == Some(plan) => return Ok(()),
                _ => {}
            }
        }
    }

    /// Sends the batch's rows to all their tables, again and again until they are in.
    async fn insert(&mut self, batch: &Batch, plan: &Plan) -> Result<(), SendError> {
        let mut left: Vec<(&Section, u32)> = batch.sections.iter().map(|section| (section, 0)).collect();
        let mut pauses = self.pauses();
        let mut planned = Instant::now();
        loop {
            if planned.elapsed() >= PLAN_HOLDS {
                self.append(plan, batch.topic, &[]).await?;
                planned = Instant::now();
            }
            let answers = join_all(left.iter().map(|(section, _)| self.insert_one(batch, section))).await;
            let mut again = Vec::new();
            for ((section, refusals), answer) in left.into_iter().zip(answers) {
                let Err(error) = answer else { continue };
                self.failed(section.table.as_str(), &error);
                let refusals = if error.is_refusal() { refusals + 1 } else { 0 };
                if refusals < REFUSALS {
                    again.push((section, refusals));
                } else {
                    self.refuse(batch, section, &error)?;
                }
            }
            crash::point(&self.config.database, "between inserts")?;
            if again.is_empty() {
                return Ok(());
            }
            left = again;
            tokio::time::sleep(pauses.next().unwrap_or_default()).await;
        }
    }

    async fn insert_one(&self, batch: &Batch, section: &Section) -> Result<(), ServerError> {
        let table = section.table.as_str();
        let token = token(&self.lineage, batch.topic, table, &batch.spans);
        let began = Instant::now();
        self.server.insert(table, &token, section.data.clone()).await?;
        self.metrics.insert_seconds.with_label_values(&[table]).observe(began.elapsed().as_secs_f64());
        self.metrics.rows.with_label_values(&[table]).inc_by(section.rows);
        Ok(())
    }

    fn failed(&self, what: &str, error: &ServerError) {
        self.metrics.insert_failures.inc();
        let hint = match error.code() {
            Some(code) if NOT_MIGRATED.contains(&code) => "run `paystream warehouse migrate`",
            _ => "rows wait and are sent again",
        };
        tracing::error!(what, %error, hint, "ClickHouse did not take rows");
    }

    /// Sets rows aside that would hold up all others for ever.
    fn refuse(&self, batch: &Batch, section: &Section, error: &ServerError) -> Result<(), SendError> {
        let rest = Batch { sections: vec![section.clone()], dead: Vec::new(), ..batch.clone() };
        let refusal = Refusal { lineage: self.lineage.clone(), error: error.to_string() };
        let path = self.queue.refuse(&rest, refusal)?;
        tracing::error!(
            table = section.table.as_str(),
            rows = section.rows,
            offsets = batch.spans.as_text(),
            path = %path.display(),
            %error,
            "ClickHouse refuses these rows for their content: they are kept in this file, and are tried again \
             at the next start"
        );
        Ok(())
    }

    /// Records that the batch is in. When that fails nothing is lost: the next plan says it too.
    async fn confirm(&mut self, batch: &Batch, plan: &Plan) {
        for (&partition, span) in &batch.spans.0 {
            self.confirmed.set(batch.topic, partition, span.to);
        }
        let commits = plan.spans.0.iter().map(|(&partition, span)| {
            let log = Arc::clone(&self.log);
            async move { log.commit(GROUP, batch.topic, partition, span.to).await }
        });
        for error in join_all(commits).await.into_iter().filter_map(Result::err) {
            tracing::warn!(%error, topic = batch.topic, "cannot commit how far the warehouse is");
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.metrics.last_insert.set(now.as_secs_f64());
        self.metrics.batches.with_label_values(&[batch.topic]).inc();
    }
}

/// Sends rows again that ClickHouse refused before; what it refuses again stays.
pub(crate) async fn retry_refused(server: &Server, files: Vec<std::path::PathBuf>) {
    for path in files {
        let (batch, refusal) = match super::spool::read(&path) {
            Ok((batch, Some(refusal))) => (batch, refusal),
            Ok((_, None)) => continue,
            Err(error) => {
                let error = format!("{error:#}");
                tracing::error!(path = %path.display(), error, "a file of refused rows cannot be read");
                continue;
            }
        };
        for section in &batch.sections {
            let table = section.table.as_str();
            let token = token(&refusal.lineage, batch.topic, table, &batch.spans);
            match server.insert(table, &token, section.data.clone()).await {
                Ok(()) => {
                    tracing::info!(path = %path.display(), table, rows = section.rows, "refused rows are in now");
                    if let Err(error) = super::spool::remove(&path) {
                        let error = format!("{error:#}");
                        tracing::error!(error, "a file that is not needed any more stays");
                    }
                }
                Err(error) => {
                    tracing::error!(path = %path.display(), table, %error, "these rows are still not taken");
                }
            }
        }
    }
}
