//! What an event costs in the engine alone: batches in, decisions out, on one thread.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::concat_batches;
use scoring::{
    DecisionHash, KeptState, Label, MemoryStore, Probe, RuleRun, Ruleset, RulesetSource, Scorer,
    SegmentStore, Stage,
};
use serde::Serialize;

use super::batch_sql::{self, Known};
use super::source::EngineInput;
use crate::segments::SegmentDir;

/// Events scored one by one at the end, for the latency of a single one with full state.
const SINGLE_EVENTS: usize = 20_000;

/// Events between two times that segments are written to files.
const PERSIST_EVENTS: u64 = 100_000;

/// What to measure.
#[derive(Debug, Clone)]
pub struct BenchConfig {
    /// Where transactions come from.
    pub input: EngineInput,
    /// Features and rules.
    pub ruleset: RulesetSource,
    /// Rows scored at a time.
    pub batch_rows: usize,
    /// Whether stock DataFusion computes the same features, for comparison. Needs the whole input in
    /// memory.
    pub against_datafusion: bool,
    /// The directory for sealed segments; `None` keeps them in memory.
    pub segments: Option<PathBuf>,
}

/// Where segments are left.
enum Segments {
    Memory(Arc<MemoryStore>),
    Files(Arc<SegmentDir>),
}

impl Segments {
    fn open(dir: Option<&Path>) -> anyhow::Result<Self> {
        Ok(match dir {
            None => Self::Memory(MemoryStore::new()),
            Some(dir) => {
                let files = SegmentDir::open(dir).with_context(|| format!("opening {}", dir.display()))?;
                files.clean(&BTreeSet::new(), &[]).context("removing segments of other runs")?;
                Self::Files(files)
            }
        })
    }

    fn store(&self) -> Arc<dyn SegmentStore> {
        match self {
            Self::Memory(store) => Arc::<MemoryStore>::clone(store),
            Self::Files(files) => Arc::<SegmentDir>::clone(files),
        }
    }

    /// Writes what is sealed, as the analyzer's checkpoints do beside scoring.
    fn persist(&self, scorer: &Scorer) -> anyhow::Result<()> {
        if let Self::Files(files) = self {
            let cut = scorer.checkpoint();
            files.persist(&cut.segments).context("writing segments")?;
            files.clean(&cut.segments.into_iter().collect(), &cut.open).context("removing segments")?;
        }
        Ok(())
    }
}

/// What was measured. Reading or making up the input is not part of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BenchReport {
    /// Events scored in batches.
    pub events: u64,
    /// Features of each.
    pub features: usize,
    /// Rules asked of each.
    pub rules: usize,
    /// Events per second.
    pub events_per_s: f64,
    /// Nanoseconds per event.
    pub ns_per_event: f64,
    /// Nanoseconds per event, by stage.
    pub ns_by_stage: BTreeMap<&'static str, f64>,
    /// Nanoseconds per event, by feature; part of the stage `windows`. What features share is divided among
    /// them; what only windows over windows read is nobody's.
    pub ns_by_feature: BTreeMap<String, f64>,
    /// Nanoseconds per event, by rule id; part of the stage `rules`. The first rule to ask for a column
    /// pays for looking through it.
    pub ns_by_rule: BTreeMap<String, f64>,
    /// Microseconds for a batch of one event at the end, with full state: median and 99th percentile.
    pub single_p50_us: f64,
    /// The 99th percentile.
    pub single_p99_us: f64,
    /// Microseconds for which a checkpoint at the end holds scoring up.
    pub checkpoint_us: f64,
    /// Bytes of that checkpoint beside sealed segments, which are written once each.
    pub checkpoint_bytes: usize,
    /// Seconds to restore it.
    pub restore_s: f64,
    /// The most memory the process had resident, in bytes; 0 where the system does not say.
    pub peak_rss_bytes: u64,
    /// Keys and distinct values that windows hold at the end.
    pub live_keys: u64,
    /// Events that windows hold at the end.
    pub live_events: u64,
    /// Bytes of accumulators per key.
    pub state_bytes_per_key: f64,
    /// Bytes of sealed segments per event in them.
    pub segment_bytes_per_event: f64,
    /// The hash over all decisions.
    pub decision_hash: String,
    /// Events per second of stock DataFusion computing the same features in batch, on one thread.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datafusion_events_per_s: Option<f64>,
    /// This engine's rate over DataFusion's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ratio: Option<f64>,
}

/// Adds up the time of each stage and, within stages, of each state and rule.
struct Clock {
    last_stage: Instant,
    last: Instant,
    stages: BTreeMap<Stage, Duration>,
    first_state: usize,
    states: Vec<Duration>,
    rules: Vec<Duration>,
}

impl Clock {
    fn new(states: usize, rules: usize) -> Self {
        let now = Instant::now();
        let zeroes = |count| vec![Duration::ZERO; count];
        let (states, rules) = (zeroes(states), zeroes(rules));
        Self { last_stage: now, last: now, stages: BTreeMap::new(), first_state: 0, states, rules }
    }

    fn begin(&mut self, now: Instant) {
        (self.last_stage, self.last) = (now, now);
    }

    fn lap(&mut self) -> Duration {
        let now = Instant::now();
        now - std::mem::replace(&mut self.last, now)
    }
}

impl Probe for Clock {
    fn ended(&mut self, stage: Stage) {
        let now = Instant::now();
        *self.stages.entry(stage).or_default() += now - self.last_stage;
        self.begin(now);
    }

    fn states_from(&mut self, first: usize) {
        self.first_state = first;
    }

    fn states(&mut self, states: &[usize]) {
        let shared = self.lap() / u32::try_from(states.len().max(1)).unwrap_or(u32::MAX);
        states.iter().for_each(|state| self.states[self.first_state + state] += shared);
    }

    fn rule(&mut self, index: usize, _: RuleRun) {
        let own = self.lap();
        self.rules[index] += own;
    }
}

/// The time of each state, divided among the features that read it.
fn by_feature(kept: &[KeptState], times: &[Duration]) -> BTreeMap<String, Duration> {
    let mut by_feature: BTreeMap<String, Duration> = BTreeMap::new();
    for (state, time) in kept.iter().zip(times) {
        for feature in &state.features {
            let readers = u32::try_from(state.features.len()).unwrap_or(u32::MAX);
            *by_feature.entry(feature.clone()).or_default() += *time / readers;
        }
    }
    by_feature
}

/// Measures.
///
/// # Errors
/// When the ruleset or the input is wrong.
pub async fn run(config: &BenchConfig) -> anyhow::Result<BenchReport> {
    let ruleset = Ruleset::load(&config.ruleset).context("loading the ruleset")?;
    let (features, rule_ids) = (ruleset.feature_names().len(), ruleset.rule_ids());
    let kept = ruleset.explain();
    let segments = Segments::open(config.segments.as_deref())?;
    let shared = segments.store();
    let mut persisted = 0;
    let mut scorer = Scorer::new(ruleset.clone(), &shared);
    let mut clock = Clock::new(kept.len(), rule_ids.len());
    let (mut events, mut took) = (0_u64, Duration::ZERO);
    let mut hash = DecisionHash::default();
    let mut last: Option<(RecordBatch, Vec<Label>)> = None;
    config
        .input
        .each(config.batch_rows, &mut |batch, labels| {
            // The newest batch is left for the end, to be scored event by event.
            let Some((batch, labels)) = last.replace((batch, labels.to_vec())) else { return Ok(()) };
            let began = Instant::now();
            clock.begin(began);
            let scored = scorer.score_labelled(&batch, &labels, &mut clock).context("scoring")?;
            took += began.elapsed();
            events += scored.len() as u64;
            scored.iter().for_each(|s| hash.add(&s.decision));
            if events - persisted >= PERSIST_EVENTS {
                segments.persist(&scorer)?;
                persisted = events;
            }
            Ok(())
        })
        .await?;
    let (last, _) = last.context("the input has no rows")?;
    let mut singles = Vec::new();
    for row in 0..last.num_rows().min(SINGLE_EVENTS) {
        let one = last.slice(row, 1);
        let began = Instant::now();
        let scored = scorer.score(&one).context("scoring")?;
        singles.push(began.elapsed());
        hash.add(&scored[0].decision);
    }
    singles.sort_unstable();
    let held = scorer.held();
    let peak_rss_bytes = peak_rss_bytes();
    let began = Instant::now();
    let cut = scorer.checkpoint();
    let checkpoint = began.elapsed();
    segments.persist(&scorer)?;
    drop(scorer);
    let began = Instant::now();
    drop(Scorer::restore(ruleset, &shared, &cut.bytes).context("restoring the checkpoint")?);
    let restore = began.elapsed();
    #[allow(clippy::cast_precision_loss)] // figures for people
    let per = |amount: u128, of: u64| amount as f64 / of.max(1) as f64;
    let rate = |events: u64, took: Duration| {
        per(u128::from(events) * 1_000_000_000, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX))
    };
    let single = |percent: usize| {
        let at = (singles.len() * percent / 100).min(singles.len().saturating_sub(1));
        singles.get(at).map_or(0.0, |d| d.as_secs_f64() * 1e6)
    };
    let datafusion_events_per_s = if config.against_datafusion {
        let (rows, took) = datafusion(config).await?;
        Some(rate(rows, took))
    } else {
        None
    };
    let events_per_s = rate(events, took);
    Ok(BenchReport {
        events,
        features,
        rules: rule_ids.len(),
        events_per_s,
        ns_per_event: per(took.as_nanos(), events),
        ns_by_stage: clock.stages.iter().map(|(s, d)| (s.as_str(), per(d.as_nanos(), events))).collect(),
        ns_by_feature: by_feature(&kept, &clock.states)
            .into_iter()
            .map(|(feature, d)| (feature, per(d.as_nanos(), events)))
            .collect(),
        ns_by_rule: rule_ids
            .into_iter()
            .zip(&clock.rules)
            .map(|(id, d)| (id, per(d.as_nanos(), events)))
            .collect(),
        single_p50_us: single(50),
        single_p99_us: single(99),
        checkpoint_us: checkpoint.as_secs_f64() * 1e6,
        checkpoint_bytes: cut.bytes.len(),
        restore_s: restore.as_secs_f64(),
        peak_rss_bytes,
        live_keys: held.keys,
        live_events: held.events,
        state_bytes_per_key: per(u128::from(held.state_bytes), held.keys),
        segment_bytes_per_event: per(u128::from(held.segment_bytes), held.sealed_events),
        decision_hash: hash.to_string(),
        datafusion_events_per_s,
        ratio: datafusion_events_per_s.map(|theirs| events_per_s / theirs),
    })
}

/// Rows, and how long stock DataFusion takes for the same features of all of them.
/// Reads the input again: to keep it while the engine is measured would crowd the engine's memory.
async fn datafusion(config: &BenchConfig) -> anyhow::Result<(u64, Duration)> {
    let mut batches: Vec<RecordBatch> = Vec::new();
    let mut known = Known::default();
    config
        .input
        .each(config.batch_rows, &mut |batch, labels| {
            known.extend(&batch, labels)?;
            batches.push(batch);
            Ok(())
        })
        .await?;
    let schema = batches.first().context("the input has no rows")?.schema();
    let all = concat_batches(&schema, &batches)?;
    drop(batches);
    let rows = all.num_rows() as u64;
    Ok((rows, batch_sql::features(&all, &known.labels, &config.ruleset.features).await?.1))
}

/// The high-water mark of resident memory, as Linux counts it.
fn peak_rss_bytes() -> u64 {
    const KIB: u64 = 1024;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|l| l.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).map_or(0, |kib| kib * KIB)
}
