//! The loop of one lane: read what is there, score it, append decisions and alerts, remember how far it got.

mod change;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use eventlog::{EventLog, LogError, NewRecord, Position, Writer};
use events::{Decided, Severity, Taken, topics};
use prometheus::IntGauge;
use scoring::{Ruleset, Scored, Scorer, transactions};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use self::change::Changes;
use crate::checkpoint::{Checkpoint, CheckpointWriter, Checkpoints};
use crate::config::AnalyzerConfig;
use crate::generations::Generations;
use crate::intake::{self, Arrived, DEAD_LETTER_TOPIC};
use crate::labels::{self, Labels};
use crate::lane::Lane;
use crate::lists;
use crate::metrics::Metrics;
use crate::output;
use crate::progress::{GROUP, Progress};
use crate::recent::RecentIds;
use crate::recovery::{self, Recovered};
use crate::remote::Remote;
use crate::rule_clock::RuleClock;
use crate::rulesets::Inbox;
use crate::trace::Spans;

/// How long an idle loop waits before it looks whether it should stop.
const IDLE_WAIT: Duration = Duration::from_millis(50);
/// How often labels are looked for while transactions flow: they matter to the windows of days to come.
const LABELS_INTERVAL: Duration = Duration::from_millis(50);
/// Changes to lists taken in at once, of each partition, while nothing is to be decided: more would keep a
/// transaction that comes waiting.
const IDLE_LIST_CHANGES: u64 = 8_192;
/// How long a full log is waited for before trying again.
const FULL_LOG_WAIT: Duration = Duration::from_millis(100);
/// How often the lag is looked up and positions are committed.
const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(1);

/// What a lane is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Decide what comes.
    Decide,
    /// Decide what is in the log, checkpoint, and end.
    Drain,
    /// Checkpoint, and end: another process goes on.
    HandOver,
    /// End: another process goes on already.
    Abandon,
}

/// What a lane works with.
pub(crate) struct Workplace {
    pub(crate) lane: Lane,
    pub(crate) config: AnalyzerConfig,
    pub(crate) ruleset: Ruleset,
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) generations: Generations,
    pub(crate) remote: Option<Remote>,
    pub(crate) metrics: Metrics,
    pub(crate) inbox: Inbox,
    pub(crate) order: watch::Receiver<Order>,
}

/// Recovers the lane, then decides until told otherwise.
pub(crate) async fn run(workplace: Workplace) -> anyhow::Result<()> {
    let Workplace { lane, config, ruleset, log, generations, remote, metrics, inbox, order } = workplace;
    // From here on nobody else appends decisions of this lane: what there is can be read.
    let writer =
        log.writer(&format!("{GROUP}-{}", lane.name())).await.context("becoming the lane's writer")?;
    if let Some(remote) = &remote {
        remote.fetch_newer(lane, &generations).await.context("fetching the newest checkpoint")?;
    }
    let give_up = || !matches!(*order.borrow(), Order::Decide | Order::Drain);
    let recovered = recovery::recover(&*log, lane, &generations, ruleset, &metrics, give_up).await;
    let Some(recovered) = recovered.context("recovering the analyzer")? else { return Ok(()) };
    let Recovered { scorer, progress, checkpoints, .. } = recovered;
    let recent = RecentIds::before(&*log, lane, &progress.decided).await.context("reading the newest ids")?;
    let checkpoint_writer = CheckpointWriter::start(lane, generations.clone(), remote, metrics.clone())
        .context("starting checkpoints")?;
    let mut pipeline = Pipeline {
        checkpointed_seq: Some(progress.next_seq),
        rule_clock: RuleClock::new(&metrics, scorer.ruleset()),
        window_events: metrics.window_events.with_label_values(&[&lane.number.to_string()]),
        labels_read: None,
        journalled_lists: Vec::new(),
        recent,
        lane,
        config,
        log,
        writer,
        scorer,
        checkpoints,
        progress,
        metrics,
    };
    let mut changes = Changes::new(inbox, generations, &pipeline);
    let ended = decide(&mut pipeline, &mut changes, &checkpoint_writer, &order).await;
    changes.stop().await;
    if ended? == Order::Abandon {
        return Ok(());
    }
    let last = pipeline.checkpoint();
    tokio::task::spawn_blocking(move || checkpoint_writer.finish(last))
        .await
        .context("writing the last checkpoint")?;
    Ok(())
}

/// Returns the order that it ended for.
async fn decide(
    pipeline: &mut Pipeline,
    changes: &mut Changes,
    checkpoints: &CheckpointWriter,
    order: &watch::Receiver<Order>,
) -> anyhow::Result<Order> {
    let interval = Duration::from_millis(pipeline.config.checkpoint_interval_ms);
    let drain_deadline = Duration::from_millis(pipeline.config.drain_deadline_ms);
    let mut last_checkpoint = Instant::now();
    let mut chores = Chores::default();
    let mut drain_until = None;
    let ended_for = loop {
        // Asked before looking: what is appended before the stop is seen by the look after it.
        let order = *order.borrow();
        if matches!(order, Order::HandOver | Order::Abandon) {
            break order;
        }
        let draining = order == Order::Drain;
        let took_over = changes.between_batches(pipeline).await;
        let decided = pipeline.step(if draining { Duration::ZERO } else { IDLE_WAIT }).await?;
        let due = took_over || last_checkpoint.elapsed() >= interval;
        if pipeline.is_dirty() && due {
            checkpoints.offer(|| pipeline.checkpoint());
            last_checkpoint = Instant::now();
        }
        chores.see_to(pipeline, checkpoints);
        if draining {
            let until = *drain_until.get_or_insert_with(|| Instant::now() + drain_deadline);
            if decided == 0 || Instant::now() >= until {
                break order;
            }
        }
    };
    if ended_for != Order::Abandon {
        chores.finish(pipeline).await;
    }
    Ok(ended_for)
}

/// What is done now and then beside deciding, in a task of its own: the log may take its time to answer.
#[derive(Default)]
struct Chores {
    under_way: Option<JoinHandle<()>>,
    begun: Option<Instant>,
    committed: Offsets,
}

/// Positions of the group, by topic and partition.
type Offsets = BTreeMap<(&'static str, u32), u64>;

impl Chores {
    fn see_to(&mut self, pipeline: &Pipeline, checkpoints: &CheckpointWriter) {
        let idle = self.under_way.as_ref().is_none_or(JoinHandle::is_finished);
        if !idle || self.begun.is_some_and(|begun| begun.elapsed() < HOUSEKEEPING_INTERVAL) {
            return;
        }
        let age = i64::try_from(checkpoints.age().as_secs()).unwrap_or(i64::MAX);
        pipeline
            .metrics
            .checkpoint_age_seconds
            .with_label_values(&[&pipeline.lane.number.to_string()])
            .set(age);
        self.begun = Some(Instant::now());
        self.begin(pipeline);
    }

    fn begin(&mut self, pipeline: &Pipeline) {
        let now = pipeline.offsets();
        let changed: Offsets = now
            .iter()
            .filter(|&(at, offset)| self.committed.get(at) != Some(offset))
            .map(|(&k, &v)| (k, v))
            .collect();
        self.committed = now;
        let (log, metrics, lane) = (Arc::clone(&pipeline.log), pipeline.metrics.clone(), pipeline.lane);
        let created = pipeline.progress.created.clone();
        self.under_way = Some(tokio::spawn(async move {
            for ((topic, partition), offset) in changed {
                if let Err(error) = log.commit(GROUP, topic, partition, offset).await {
                    // The decided records say it too: this is for those who look at lag.
                    tracing::warn!(topic, partition, %error, "the position could not be committed");
                }
            }
            let mut lag = 0;
            for (partition, offset) in lane.own(created) {
                match log.bounds(topics::CREATED, partition).await {
                    Ok((_, end)) => {
                        lag += end.saturating_sub(offset);
                        metrics.consumer_lag.set(GROUP, topics::CREATED, partition, offset, end);
                    }
                    Err(error) => return tracing::warn!(partition, %error, "the lag could not be looked up"),
                }
            }
            let lag = i64::try_from(lag).unwrap_or(i64::MAX);
            metrics.lag_transactions.with_label_values(&[&lane.number.to_string()]).set(lag);
        }));
    }

    /// Leaves positions behind, for whoever goes on, and no lag that another process counts too.
    async fn finish(mut self, pipeline: &Pipeline) {
        if let Some(under_way) = self.under_way.take() {
            // What it could not do, the next one does.
            let _ = under_way.await;
        }
        self.begin(pipeline);
        if let Some(last) = self.under_way.take() {
            let _ = last.await;
        }
        for (partition, _) in pipeline.lane.own(&pipeline.progress.created) {
            pipeline.metrics.consumer_lag.forget(GROUP, topics::CREATED, partition);
        }
    }
}

struct Pipeline {
    lane: Lane,
    config: AnalyzerConfig,
    log: Arc<dyn EventLog>,
    writer: Box<dyn Writer>,
    scorer: Scorer,
    /// Where the scorer's go.
    checkpoints: Checkpoints,
    progress: Progress,
    metrics: Metrics,
    rule_clock: RuleClock,
    /// This lane's, looked up once and not with every batch.
    window_events: IntGauge,
    /// The place that the newest checkpoint of this scorer was made at, if it made one.
    checkpointed_seq: Option<u64>,
    labels_read: Option<Instant>,
    recent: RecentIds,
    /// How far the last decision of this run says that lists were taken in.
    journalled_lists: Vec<u64>,
}

impl Pipeline {
    /// Deals with what is there, or with nothing after `wait`. Returns how many records it dealt with.
    async fn step(&mut self, wait: Duration) -> anyhow::Result<usize> {
        let own = self.lane.own(&self.progress.created);
        let from: Vec<_> = own.map(|(partition, &offset)| Position { partition, offset }).collect();
        let ready = self.log.wait_for_any(topics::CREATED, &from, wait).await?;
        if ready.is_empty() {
            self.take_lists_idly().await?;
            return Ok(0);
        }
        let mut next = self.progress.clone();
        let (mut arrived, mut dead) = self.read(&ready, &mut next.created).await?;
        let spans = Spans::begin(&mut arrived);
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
        let (records, alerts) =
            records(&arrived, &scored, (self.progress.next_seq, self.lane.of), taken_in, dead);
        let positions = self.append(&records).await?;
        spans.end(&arrived, &scored);
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
        lists::Intake { log: &*self.log, lane: self.lane, scorer: &mut self.scorer, metrics: &self.metrics }
    }

    /// Reads labels now and then, when there are transactions whose decisions can say so.
    async fn read_labels(&mut self, arrived: &[Arrived], next: &mut [u64]) -> anyhow::Result<Labels> {
        let lately = self.labels_read.is_some_and(|read| read.elapsed() < LABELS_INTERVAL);
        if arrived.is_empty() || lately {
            return Ok(Labels::default());
        }
        self.labels_read = Some(Instant::now());
        labels::read_new(&*self.log, self.lane, next).await
    }

    /// Reads from some partitions in turn, up to one batch. What was decided before becomes a dead letter.
    async fn read(
        &mut self,
        ready: &[u32],
        next: &mut [u64],
    ) -> anyhow::Result<(Vec<Arrived>, Vec<NewRecord>)> {
        let (mut arrived, mut dead) = (Vec::new(), Vec::new());
        let share = self.config.max_batch_transactions.div_ceil(ready.len());
        for &partition in ready {
            let offset = &mut next[partition as usize];
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
                match intake::read(partition, record, &mut self.recent) {
                    Ok(transaction) => arrived.push(transaction),
                    Err(letter) => dead.push(letter),
                }
            }
        }
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
    async fn append(&mut self, records: &[NewRecord]) -> anyhow::Result<Vec<Position>> {
        loop {
            match self.writer.append(records.to_vec()).await {
                Err(error @ (LogError::Full | LogError::NotWritten(_))) => {
                    tracing::warn!(%error, "decisions could not be appended: trying again");
                    tokio::time::sleep(FULL_LOG_WAIT).await;
                }
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
                self.metrics.rule_hits.with_label_values(&[&*reason.rule]).inc();
            }
        }
        for severity in alerts {
            self.metrics.alerts.with_label_values(&[severity.as_str()]).inc();
        }
        self.count_dead(dead);
        let events = i64::try_from(self.scorer.live_events()).unwrap_or(i64::MAX);
        self.window_events.set(events);
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

    /// How far this lane is, for the group's positions.
    fn offsets(&self) -> Offsets {
        let Progress { created, labelled, .. } = &self.progress;
        let created =
            self.lane.own(created).map(|(partition, &offset)| ((topics::CREATED, partition), offset));
        let labelled =
            (0..).zip(labelled).map(|(partition, &offset)| ((topics::LABELLED, partition), offset));
        created.chain(labelled.filter(|_| self.lane.is_first())).collect()
    }
}

fn records(
    arrived: &[Arrived],
    scored: &[Scored],
    (first_seq, lanes): (u64, u32),
    mut taken: Option<Taken>,
    dead: Vec<NewRecord>,
) -> (Vec<NewRecord>, Vec<Severity>) {
    let decided_at_us = now_us();
    let mut records = Vec::with_capacity(arrived.len() + dead.len());
    let mut alerts = Vec::new();
    for ((arrived, scored), seq) in arrived.iter().zip(scored).zip(first_seq..) {
        let decided = Decided {
            seq,
            lanes,
            source_partition: arrived.at.partition,
            source_offset: arrived.at.offset,
            decided_at_us,
            // Before the first of them.
            taken: taken.take(),
            transaction: &*arrived.text,
            decision: &scored.decision,
        };
        records.push(output::decided_record(arrived, &decided));
        if let Some(severity) = scored.alert {
            records.push(output::alert_record(arrived, &scored.decision, severity, decided_at_us));
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
