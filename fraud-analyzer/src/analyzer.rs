//! The loop: read what is there, score it, append decisions and alerts, remember how far it got.

mod change;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use eventlog::{EventLog, LogError, NewRecord, Position};
use events::{Decided, Severity, Taken, topics};
use runtime::Service;
use scoring::{Ruleset, Scored, Scorer, transactions};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use self::change::Changes;
use crate::checkpoint::{Checkpoint, CheckpointWriter, Checkpoints};
use crate::config::AnalyzerConfig;
use crate::generations::Generations;
use crate::intake::{self, Arrived, DEAD_LETTER_TOPIC};
use crate::labels::{self, Labels};
use crate::lists;
use crate::metrics::Metrics;
use crate::output;
use crate::progress::{GROUP, Progress};
use crate::recovery::{self, Recovered};
use crate::rule_clock::RuleClock;
use crate::rulesets::{Inbox, Rulesets};

/// How long an idle loop waits before it looks whether it should stop.
const IDLE_WAIT: Duration = Duration::from_millis(50);
/// How often labels are looked for while transactions flow: they matter to the windows of days to come.
const LABELS_INTERVAL: Duration = Duration::from_millis(50);
/// Changes to lists taken in at once, of each partition, while nothing is to be decided: more would keep a
/// transaction that comes waiting.
const IDLE_LIST_CHANGES: u64 = 8_192;
/// How long a full log is waited for before trying again.
const FULL_LOG_WAIT: Duration = Duration::from_millis(100);

/// A running analyzer.
#[derive(Debug)]
pub struct Analyzer {
    /// Stops by deciding everything that is in the log, then checkpointing.
    pub service: Service,
    /// Which ruleset decides, and changing it.
    pub rulesets: Rulesets,
}

impl Analyzer {
    /// Recovers, then scores on a thread of its own until stopped. Recovery runs on that thread as
    /// well: transactions can be accepted meanwhile, and are decided when it is done.
    ///
    /// # Errors
    /// When metrics, the directory or the thread cannot be set up.
    pub fn start(
        config: AnalyzerConfig,
        ruleset: Ruleset,
        log: Arc<dyn EventLog>,
        dir: &Path,
        registry: &prometheus::Registry,
    ) -> anyhow::Result<Self> {
        let metrics = Metrics::new(registry).context("registering the analyzer's metrics")?;
        let generations = Generations::open(&dir.join("analyzer"))
            .with_context(|| format!("opening the analyzer's directory in {}", dir.display()))?;
        let (rulesets, inbox) = Rulesets::new(metrics.clone());
        let stop = CancellationToken::new();
        let (ended, end) = tokio::sync::oneshot::channel();
        let (handle, stopped) = (Handle::current(), stop.clone());
        std::thread::Builder::new()
            .name("scoring".to_owned())
            .spawn(move || {
                let run = run(config, ruleset, log, generations, metrics, inbox, &stopped);
                // Nobody listens when the process is ending anyway.
                let _ = ended.send(handle.block_on(run));
            })
            .context("starting the scoring thread")?;
        let task = tokio::spawn(async move { end.await.context("the scoring thread panicked")? });
        Ok(Self { service: Service { name: "fraud-analyzer", stop, task }, rulesets })
    }
}

async fn run(
    config: AnalyzerConfig,
    ruleset: Ruleset,
    log: Arc<dyn EventLog>,
    generations: Generations,
    metrics: Metrics,
    inbox: Inbox,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let Recovered { scorer, progress, checkpoints, .. } =
        recovery::recover(&*log, &generations, ruleset, &metrics).await.context("recovering the analyzer")?;
    let writer =
        CheckpointWriter::start(generations.clone(), metrics.clone()).context("starting checkpoints")?;
    let mut pipeline = Pipeline {
        checkpointed_seq: Some(progress.next_seq),
        rule_clock: RuleClock::new(&metrics, scorer.ruleset()),
        labels_read: None,
        journalled_lists: Vec::new(),
        config,
        log,
        scorer,
        checkpoints,
        progress,
        metrics,
    };
    let mut changes = Changes::new(inbox, generations, &pipeline);
    let interval = Duration::from_millis(pipeline.config.checkpoint_interval_ms);
    let mut last_checkpoint = Instant::now();
    loop {
        // Asked before looking: what is appended before the stop is seen by the look after it.
        let stopping = stop.is_cancelled();
        let took_over = changes.between_batches(&mut pipeline).await;
        let decided = pipeline.step(if stopping { Duration::ZERO } else { IDLE_WAIT }).await?;
        let due = took_over || last_checkpoint.elapsed() >= interval;
        if pipeline.is_dirty() && due {
            writer.offer(|| pipeline.checkpoint());
            pipeline.commit().await?;
            last_checkpoint = Instant::now();
        }
        if stopping && decided == 0 {
            break;
        }
    }
    changes.stop().await;
    pipeline.commit().await?;
    let last = pipeline.checkpoint();
    tokio::task::spawn_blocking(move || writer.finish(last)).await.context("writing the last checkpoint")?;
    Ok(())
}

struct Pipeline {
    config: AnalyzerConfig,
    log: Arc<dyn EventLog>,
    scorer: Scorer,
    /// Where the scorer's go.
    checkpoints: Checkpoints,
    progress: Progress,
    metrics: Metrics,
    rule_clock: RuleClock,
    /// The place that the newest checkpoint of this scorer was made at, if it made one.
    checkpointed_seq: Option<u64>,
    labels_read: Option<Instant>,
    /// How far the last decision of this run says that lists were taken in.
    journalled_lists: Vec<u64>,
}

impl Pipeline {
    /// Deals with what is there, or with nothing after `wait`. Returns how many records it dealt with.
    async fn step(&mut self, wait: Duration) -> anyhow::Result<usize> {
        let from = Position::of_all(&self.progress.created);
        if self.log.wait_for_any(topics::CREATED, &from, wait).await?.is_empty() {
            self.metrics.lag_transactions.set(0);
            self.take_lists_idly().await?;
            return Ok(0);
        }
        let mut next = self.progress.clone();
        let (arrived, mut dead) = self.read(&mut next.created).await?;
        let Labels { labels, dead: dead_labels } = self.read_labels(&arrived, &mut next.labelled).await?;
        dead.extend(dead_labels);
        // After the transactions were read: what was on a list before one was accepted is on it now.
        dead.extend(self.lists().take_new(&mut next.lists, u64::MAX).await?);
        let (taken, letters) = (arrived.len() + dead.len(), dead.len());
        let scored = self.score(&arrived, &labels)?;
        let lists =
            if next.lists.iter().all(|&offset| offset == 0) { Vec::new() } else { next.lists.clone() };
        let any_taken = next.labelled != self.progress.labelled || lists != self.journalled_lists;
        let taken_in = any_taken.then(|| Taken { labelled: next.labelled.clone(), lists: lists.clone() });
        let (records, alerts) = records(&arrived, &scored, self.progress.next_seq, taken_in, dead);
        let positions = self.append(&records).await?;
        next.next_seq += arrived.len() as u64;
        for (record, position) in records.iter().zip(&positions) {
            match record.topic {
                topics::DECIDED => next.decided[position.partition as usize] = position.offset + 1,
                DEAD_LETTER_TOPIC => next.dead[position.partition as usize] = position.offset + 1,
                _ => {}
            }
        }
        if !arrived.is_empty() {
            self.journalled_lists = lists;
        }
        self.progress = next;
        self.metrics.labels.inc_by(labels.len() as u64);
        self.count(&scored, &alerts, letters);
        Ok(taken)
    }

    /// Takes changes to lists in while there is nothing to decide, so that a long import keeps no transaction
    /// waiting later. The next decision says how far.
    async fn take_lists_idly(&mut self) -> anyhow::Result<()> {
        let mut next = self.progress.lists.clone();
        let dead = self.lists().take_new(&mut next, IDLE_LIST_CHANGES).await?;
        if !dead.is_empty() {
            self.append(&dead).await?;
            self.count_dead(dead.len());
        }
        self.progress.lists = next;
        Ok(())
    }

    fn lists(&mut self) -> lists::Intake<'_> {
        lists::Intake { log: &*self.log, scorer: &mut self.scorer, metrics: &self.metrics }
    }

    /// Reads labels now and then, when there are transactions whose decisions can say so.
    async fn read_labels(&mut self, arrived: &[Arrived], next: &mut [u64]) -> anyhow::Result<Labels> {
        let lately = self.labels_read.is_some_and(|read| read.elapsed() < LABELS_INTERVAL);
        if arrived.is_empty() || lately {
            return Ok(Labels::default());
        }
        self.labels_read = Some(Instant::now());
        labels::read_new(&*self.log, next).await
    }

    /// Reads from every partition in turn, up to one batch.
    async fn read(&mut self, next: &mut [u64]) -> anyhow::Result<(Vec<Arrived>, Vec<NewRecord>)> {
        let (mut arrived, mut dead) = (Vec::new(), Vec::new());
        let share = self.config.max_batch_transactions.div_ceil(next.len());
        let mut lag = 0;
        for (partition, offset) in (0_u32..).zip(next.iter_mut()) {
            let records = match self
                .log
                .read(topics::CREATED, partition, *offset, share, Duration::ZERO)
                .await
            {
                Err(LogError::OffsetOutOfRange { start, .. }) if start > *offset => {
                    tracing::error!(
                        partition,
                        from = *offset,
                        to = start,
                        "retention removed transactions before they were decided: raise log.retention.max_age_ms"
                    );
                    *offset = start;
                    continue;
                }
                other => other.with_context(|| format!("reading {}/{partition}", topics::CREATED))?,
            };
            for record in records {
                *offset = record.offset + 1;
                match intake::read(partition, record) {
                    Ok(transaction) => arrived.push(transaction),
                    Err(letter) => dead.push(letter),
                }
            }
            lag += self.log.bounds(topics::CREATED, partition).await?.1 - *offset;
        }
        self.metrics.lag_transactions.set(i64::try_from(lag).unwrap_or(i64::MAX));
        Ok((arrived, dead))
    }

    fn score(&mut self, arrived: &[Arrived], labels: &[scoring::Label]) -> anyhow::Result<Vec<Scored>> {
        let began = Instant::now();
        let list: Vec<_> = arrived.iter().map(|a| &a.transaction).collect();
        self.rule_clock.begin();
        let batch = transactions::batch(&list);
        let scored = self.scorer.score_labelled(&batch, labels, &mut self.rule_clock).context("scoring")?;
        self.metrics.score_seconds.observe(began.elapsed().as_secs_f64());
        #[allow(clippy::cast_precision_loss)] // a batch is far below 2^52
        self.metrics.batch_transactions.observe(arrived.len() as f64);
        Ok(scored)
    }

    /// Appends, waiting out a full log: everything behind it is bounded, so it will drain.
    async fn append(&self, records: &[NewRecord]) -> anyhow::Result<Vec<Position>> {
        loop {
            match self.log.append(records.to_vec()).await {
                Err(LogError::Full) => tokio::time::sleep(FULL_LOG_WAIT).await,
                other => {
                    return other.context("appending decisions: restart once the log's disk is well again");
                }
            }
        }
    }

    fn count(&self, scored: &[Scored], alerts: &[Severity], dead: usize) {
        for scored in scored {
            self.metrics.decisions.with_label_values(&[scored.decision.outcome.as_str()]).inc();
            let (live, shadow) = (&scored.decision.reasons, &scored.decision.shadow_reasons);
            for reason in live.iter().chain(shadow) {
                self.metrics.rule_hits.with_label_values(&[reason.rule.as_str()]).inc();
            }
        }
        for severity in alerts {
            self.metrics.alerts.with_label_values(&[severity.as_str()]).inc();
        }
        self.count_dead(dead);
        self.metrics.window_events.set(i64::try_from(self.scorer.live_events()).unwrap_or(i64::MAX));
    }

    fn count_dead(&self, dead: usize) {
        if dead > 0 {
            self.metrics.dead_letters.inc_by(dead as u64);
            tracing::warn!(dead, "records could not be decoded: see the dead letters of their topics");
        }
    }

    fn is_dirty(&self) -> bool {
        self.checkpointed_seq != Some(self.progress.next_seq)
    }

    fn checkpoint(&mut self) -> (Checkpoints, Checkpoint) {
        self.checkpointed_seq = Some(self.progress.next_seq);
        let (progress, state) = (self.progress.clone(), self.scorer.checkpoint());
        (self.checkpoints.clone(), Checkpoint { progress, decides: true, state })
    }

    async fn commit(&self) -> anyhow::Result<()> {
        let Progress { created, labelled, .. } = &self.progress;
        for (topic, offsets) in [(topics::CREATED, created), (topics::LABELLED, labelled)] {
            for (partition, &offset) in (0_u32..).zip(offsets) {
                self.log.commit(GROUP, topic, partition, offset).await.context("committing positions")?;
            }
        }
        Ok(())
    }
}

fn records(
    arrived: &[Arrived],
    scored: &[Scored],
    first_seq: u64,
    mut taken: Option<Taken>,
    dead: Vec<NewRecord>,
) -> (Vec<NewRecord>, Vec<Severity>) {
    let decided_at_us = now_us();
    let mut records = Vec::with_capacity(arrived.len() + dead.len());
    let mut alerts = Vec::new();
    for ((arrived, scored), seq) in arrived.iter().zip(scored).zip(first_seq..) {
        let decided = Decided {
            seq,
            source_partition: arrived.at.partition,
            source_offset: arrived.at.offset,
            decided_at_us,
            // Before the first of them.
            taken: taken.take(),
            transaction: arrived.transaction.clone(),
            decision: scored.decision.clone(),
        };
        records.push(output::decided_record(&decided));
        if let Some(severity) = scored.alert {
            records.push(output::alert_record(&decided, severity));
            alerts.push(severity);
        }
    }
    records.extend(dead);
    (records, alerts)
}

fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
