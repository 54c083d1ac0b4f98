//! Rules as expressions over a batch.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion::logical_expr::cast;
use datafusion::physical_expr::PhysicalExpr;
use events::{Reason, TransactionId};

use super::bounds::Ranges;
use super::condition::{Condition, Hit};
use super::decide::{Match, Verdict, decide};
use super::message::Message;
use super::pack::{Mode, RulePack, RuleSpec, Thresholds};
use crate::error::{LoadError, ScoreError};
use crate::features::FeaturePlan;
use crate::features::plan::pure;
use crate::lists::{Calls, DeclaredList, Lists};
use crate::probe::{Probe, RuleRun};
use crate::source::SourceFile;

const MAX_POINTS: u32 = 100;

/// All rules of a ruleset, compiled.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    rules: Vec<Rule>,
    /// What the rules ask lists.
    calls: Calls,
    thresholds: Thresholds,
}

#[derive(Debug, Clone)]
struct Rule {
    spec: RuleSpec,
    /// Its id and the code of its reason, which each reason shares.
    id: Arc<str>,
    code: Arc<str>,
    message: Message,
    condition: Condition,
    /// How far back it looks through its columns, in microseconds.
    reach_us: i64,
}

/// The window times of a batch's rows, which rise, and since when all transactions are known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known<'a> {
    pub(crate) times_us: &'a [i64],
    pub(crate) since_us: i64,
}

impl Known<'_> {
    /// The first row of which everything is known that lies up to `reach_us` before it.
    fn first_row(self, reach_us: i64) -> usize {
        self.times_us.partition_point(|time_us| time_us.saturating_sub(reach_us) < self.since_us)
    }
}

/// A rule that fired on a row of a batch, by its place in order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fired {
    rule: usize,
    hit: Hit,
}

impl Fired {
    pub(crate) const fn row(&self) -> usize {
        self.hit.row
    }
}

/// What rules say of one transaction.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    pub(crate) verdict: Verdict,
    /// The live rules that matched: those of lists first, then most points first.
    pub(crate) reasons: Vec<Reason>,
    pub(crate) shadow_reasons: Vec<Reason>,
}

impl Rules {
    /// Compiles every pack against the columns rules may use; on errors, all of them.
    pub(crate) fn load(
        state: &SessionState,
        features: &FeaturePlan,
        files: &[SourceFile],
        lists: &[DeclaredList],
    ) -> Result<Self, Vec<LoadError>> {
        let mut calls = Calls::new(&features.schema, lists);
        let mut errors = Vec::new();
        let mut rules = Vec::new();
        let mut ids = BTreeSet::new();
        let mut thresholds = None;
        for file in files {
            let pack = match file.yaml(|pack: &RulePack| pack.version) {
                Ok(pack) => pack,
                Err(error) => {
                    errors.push(error);
                    continue;
                }
            };
            let mut refuse = |reason: String| errors.push(LoadError::new(&file.name, None, reason));
            if let Some(given) = pack.thresholds {
                check_thresholds(&given).unwrap_or_else(&mut refuse);
                if thresholds.replace(given).is_some() {
                    refuse("thresholds: another pack of this ruleset has them already".to_owned());
                }
            }
            for spec in pack.rules {
                if !ids.insert(spec.id.clone()) {
                    refuse(format!("rules.{}.id: is used twice", spec.id));
                }
                match compile(state, &mut calls, &features.reaches_us, spec) {
                    Ok(rule) => rules.push(rule),
                    Err(reasons) => reasons.into_iter().for_each(&mut refuse),
                }
            }
        }
        let thresholds = thresholds.unwrap_or_else(|| {
            let reason = "thresholds: no rule pack has them; write, for example, thresholds: {review: 65, decline: 75}";
            errors.push(LoadError::new(files.first().map_or("rules", |f| &f.name), None, reason));
            Thresholds { review: None, challenge: None, decline: None }
        });
        if errors.is_empty() { Ok(Self { rules, calls, thresholds }) } else { Err(errors) }
    }

    /// What fired on a batch with features, under the lists as they are now: by row, and then in the rules' order.
    /// Rules that no row can match are passed over, and so are rows of which a rule would need to know more
    /// than is known.
    pub(crate) fn matches(
        &self,
        batch: RecordBatch,
        lists: &Lists,
        ids: &[TransactionId],
        known: Known<'_>,
        probe: &mut dyn Probe,
    ) -> Result<Vec<Fired>, ScoreError> {
        let batch = &self.calls.run(batch, known.times_us, lists)?;
        let mut fired = Vec::new();
        let ranges = Ranges::new(batch);
        for (index, rule) in self.rules.iter().enumerate().filter(|(_, r)| r.spec.mode != Mode::Off) {
            let first_row = known.first_row(rule.reach_us);
            if first_row == ids.len() || !rule.condition.may_hold(&ranges) {
                probe.rule(index, RuleRun::Skipped);
                continue;
            }
            let hits = rule.condition.hits(&rule.spec.id, batch)?;
            let may_fire = |hit: &Hit| hit.row >= first_row && rule.looks_at(ids[hit.row]);
            fired.extend(hits.into_iter().filter(may_fire).map(|hit| Fired { rule: index, hit }));
            probe.rule(index, RuleRun::Evaluated);
        }
        // Stable, and quick where there are few rules: each rule's rows rise already.
        fired.sort_by_key(Fired::row);
        Ok(fired)
    }

    /// What the rules that fired on one row have to say; `matches` is room that is used again.
    pub(crate) fn say(&self, fired: &[Fired], matches: &mut Vec<Match>) -> Said {
        matches.clear();
        let mut shadow_reasons = Vec::new();
        for (at, one) in fired.iter().enumerate() {
            let RuleSpec { mode, points, severity, action, .. } = self.rules[one.rule].spec;
            match mode {
                Mode::Shadow => shadow_reasons.push(self.reason(one)),
                Mode::Live | Mode::Off => matches.push(Match { at, points, severity, action }),
            }
        }
        let verdict = decide(matches, &self.thresholds);
        let reasons = matches.iter().map(|matched| self.reason(&fired[matched.at])).collect();
        Said { verdict, reasons, shadow_reasons }
    }

    fn reason(&self, &Fired { rule, hit: Hit { observed, limit, .. } }: &Fired) -> Reason {
        let Rule { spec, id, code, message, .. } = &self.rules[rule];
        Reason {
            code: Arc::clone(code),
            rule: Arc::clone(id),
            message: message.fill(observed, limit),
            observed,
            limit,
            points: spec.points,
        }
    }

    /// The rules that are evaluated, each with how far back it looks, in microseconds.
    pub(crate) fn reaches_us(&self) -> impl Iterator<Item = (&str, i64)> {
        let evaluated = self.rules.iter().filter(|rule| rule.spec.mode != Mode::Off);
        evaluated.map(|rule| (rule.spec.id.as_str(), rule.reach_us))
    }

    /// The ids of all rules, in order.
    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|r| r.spec.id.as_str())
    }
}

impl Rule {
    /// Whether the rule's rollout takes this transaction in: the same answer whenever it is asked.
    fn looks_at(&self, id: TransactionId) -> bool {
        if self.spec.rollout_percent >= 100 {
            return true;
        }
        // FNV-1a over the rule's id and the transaction's.
        let bytes = self.spec.id.bytes().chain(id.as_uuid().into_bytes());
        let hash = bytes
            .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3));
        // The high bits of FNV are mixed better than the low ones.
        (hash >> 32) % 100 < u64::from(self.spec.rollout_percent)
    }
}

fn check_thresholds(t: &Thresholds) -> Result<(), String> {
    let given: Vec<u8> = [t.review, t.challenge, t.decline].into_iter().flatten().collect();
    let in_range = given.iter().all(|s| (1..=100).contains(s));
    if in_range && given.is_sorted() {
        Ok(())
    } else {
        Err("thresholds: review, challenge and decline must be 1 to 100 and not fall".to_owned())
    }
}

fn compile(
    state: &SessionState,
    calls: &mut Calls,
    reaches_us: &[i64],
    spec: RuleSpec,
) -> Result<Rule, Vec<String>> {
    let mut errors = Vec::new();
    let mut field = |field: &str, result: Result<Arc<dyn PhysicalExpr>, String>| {
        result.map_err(|reason| errors.push(format!("rules.{}.{field}: {reason}", spec.id))).ok()
    };
    let when = field("when", expression(state, calls, &spec.when, &DataType::Boolean));
    let observed = field("observed", expression(state, calls, &spec.observed.sql(), &DataType::Float64));
    let limit = field("limit", expression(state, calls, &spec.limit.sql(), &DataType::Float64));
    let word =
        |text: &str| !text.is_empty() && text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    for (name, text) in [("id", &spec.id), ("reason", &spec.reason)] {
        if !word(text) {
            errors.push(format!("rules.{}.{name}: must be of a-z, 0-9 and _", spec.id));
        }
    }
    if spec.points > MAX_POINTS {
        errors.push(format!("rules.{}.points: must be 0 to {MAX_POINTS}", spec.id));
    }
    if spec.rollout_percent > 100 {
        errors.push(format!("rules.{}.rollout_percent: must be 0 to 100", spec.id));
    }
    match (when, observed, limit) {
        (Some(when), Some(observed), Some(limit)) if errors.is_empty() => {
            let failed = |e: DataFusionError| vec![format!("rules.{}: {}", spec.id, e.strip_backtrace())];
            let condition = Condition::new(when, observed, limit, calls.schema()).map_err(failed)?;
            let message = Message::new(&spec.message);
            let (id, code) = (spec.id.as_str().into(), spec.reason.as_str().into());
            Ok(Rule { reach_us: condition.reach_us(reaches_us), condition, message, id, code, spec })
        }
        _ => Err(errors),
    }
}

pub(super) fn expression(
    state: &SessionState,
    calls: &mut Calls,
    sql: &str,
    wanted: &DataType,
) -> Result<Arc<dyn PhysicalExpr>, String> {
    let relation =
        |calls: &Calls| DFSchema::try_from(Arc::clone(calls.schema())).map_err(|e| e.strip_backtrace());
    let expr = state.create_logical_expr(sql, &relation(calls)?).map_err(|e| e.strip_backtrace())?;
    let expr = calls.rewrite(state, expr)?;
    pure(&expr)?;
    let schema = &relation(calls)?;
    let compiled = state
        .create_physical_expr(expr.clone(), schema)
        .map_err(|e| format!("`{sql}`: {}", e.strip_backtrace()))?;
    let found = compiled.data_type(schema.as_arrow()).map_err(|e| e.strip_backtrace())?;
    match (wanted, found) {
        (wanted, found) if *wanted == found => Ok(compiled),
        (DataType::Float64, found) if found.is_numeric() => {
            state.create_physical_expr(cast(expr, DataType::Float64), schema).map_err(|e| e.strip_backtrace())
        }
        (DataType::Boolean, found) => Err(format!("`{sql}` is {found}, and must be true or false")),
        (_, found) => Err(format!("`{sql}` is {found}, and must be a number")),
    }
}
