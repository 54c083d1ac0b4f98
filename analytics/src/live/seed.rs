//! The page's state after a restart: what the warehouse's files say. What is newer comes from the log.

use std::time::Duration;

use anyhow::Context as _;
use datafusion::arrow::array::{Array, AsArray as _, PrimitiveArray, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{
    ArrowPrimitiveType, Float64Type, Int64Type, TimestampMillisecondType, UInt8Type, UInt32Type,
};
use events::{AmountMinor, Currency, Outcome, Reason};
use rustc_hash::FxHashMap;

use std::sync::Arc;

use super::series::WINDOW_S;
use super::view::{AlertView, DecisionView, amount};
use super::{LATEST, Live, Totals};
use crate::engine::Engine;
use crate::queries::{self, Param, bind};
use crate::store::Snapshot;

/// How long one of the queries may take; the page starts without what was not read by then.
const DEADLINE: Duration = Duration::from_secs(60);
/// Reasons of the newest decisions are looked for over at most this time.
const REASONS_MS: i64 = 24 * 3_600_000;

/// A batch and its columns by name. The queries are this crate's own, so the columns are there.
struct Columns<'a>(&'a RecordBatch);

impl Columns<'_> {
    fn text(&self, name: &str) -> &StringArray {
        self.0.column_by_name(name).expect("the query names it").as_string()
    }

    fn numbers<T: ArrowPrimitiveType>(&self, name: &str) -> &PrimitiveArray<T> {
        self.0.column_by_name(name).expect("the query names it").as_primitive()
    }
}

fn outcome(text: &str) -> Option<Outcome> {
    Outcome::ALL.into_iter().find(|o| o.as_str() == text)
}

fn amount_of(minor: i64, currency: &str) -> String {
    match (AmountMinor::try_from(minor), currency.parse::<Currency>()) {
        (Ok(minor), Ok(currency)) => amount(minor, currency),
        _ => minor.to_string(),
    }
}

impl Live {
    /// Fills the state from a snapshot that holds everything before the log position reading starts from.
    pub(crate) async fn seed(
        &self,
        engine: &Engine,
        snapshot: &Arc<Snapshot>,
        now_ms: i64,
    ) -> anyhow::Result<()> {
        if snapshot.files.is_empty() {
            return Ok(());
        }
        let totals = totals(engine, snapshot).await.context("reading the totals")?;
        self.lock().totals = totals;
        self.seed_window(engine, snapshot, now_ms).await.context("reading the last five minutes")?;
        self.seed_latest(engine, snapshot).await.context("reading the newest decisions")?;
        self.seed_alerts(engine, snapshot).await.context("reading the newest alerts")?;
        let mut inner = self.lock();
        inner.sent = inner.arrivals;
        Ok(())
    }

    async fn seed_window(
        &self,
        engine: &Engine,
        snapshot: &Arc<Snapshot>,
        now_ms: i64,
    ) -> anyhow::Result<()> {
        let (now_s, since) = (now_ms.div_euclid(1_000), now_ms - WINDOW_S * 1_000);
        let decisions = bind(queries::RECENT_DECISIONS, &[("since", Param::TimeMs(since))]);
        for batch in collect(engine, snapshot, &decisions).await? {
            self.seed_decisions(now_s, &Columns(&batch));
        }
        let hits = bind(queries::LIVE_RULE_HITS, &[("since", Param::TimeMs(since))]);
        for batch in collect(engine, snapshot, &hits).await? {
            let columns = Columns(&batch);
            let at = columns.numbers::<TimestampMillisecondType>("accepted_at");
            let mut inner = self.lock();
            for row in 0..batch.num_rows() {
                let key = (columns.text("rule").value(row).into(), columns.text("code").value(row).into());
                inner.rules.add(now_s, at.value(row).div_euclid(1_000), &key, [1]);
            }
        }
        Ok(())
    }

    fn seed_decisions(&self, now_s: i64, columns: &Columns<'_>) {
        let (outcomes, merchants) = (columns.text("outcome"), columns.text("merchant_id"));
        let at = columns.numbers::<TimestampMillisecondType>("decided_at");
        let latency = columns.numbers::<Float64Type>("latency_ms");
        let amounts = columns.numbers::<Int64Type>("reporting_amount_minor");
        let mut inner = self.lock();
        for row in 0..columns.0.num_rows() {
            let Some(outcome) = outcome(outcomes.value(row)) else { continue };
            let at_s = at.value(row).div_euclid(1_000);
            #[allow(clippy::cast_possible_truncation)] // saturates, and latencies are short
            let latency_us = (latency.value(row) * 1_000.0) as i64;
            let amount = if amounts.is_null(row) { 0 } else { amounts.value(row) };
            inner.series.add(now_s, at_s, outcome, latency_us);
            let declined = i64::from(outcome == Outcome::Decline);
            inner.merchants.add(now_s, at_s, &merchants.value(row).to_owned(), [1, declined, amount]);
        }
    }

    async fn seed_latest(&self, engine: &Engine, snapshot: &Arc<Snapshot>) -> anyhow::Result<()> {
        let latest = bind(queries::LATEST_DECISIONS, &[("rows", rows())]);
        let mut views = Vec::new();
        for batch in collect(engine, snapshot, &latest).await? {
            views.extend((0..batch.num_rows()).map(|row| decision(&Columns(&batch), row)));
        }
        let newest = views.iter().map(|v| v.time_ms).max().unwrap_or(0);
        let oldest = views.iter().map(|v| v.time_ms).min().unwrap_or(0).max(newest - REASONS_MS);
        let mut reasons = reasons(engine, snapshot, oldest, &views).await?;
        let mut inner = self.lock();
        for mut view in views.into_iter().rev() {
            view.reasons = reasons.remove(&view.transaction_id).unwrap_or_default();
            let arrival = inner.next_arrival();
            let approved = view.outcome == Outcome::Approve.as_str();
            let list = if approved { &mut inner.approved } else { &mut inner.flagged };
            list.push(arrival, Arc::new(view));
        }
        Ok(())
    }

    async fn seed_alerts(&self, engine: &Engine, snapshot: &Arc<Snapshot>) -> anyhow::Result<()> {
        let latest = bind(queries::LATEST_ALERTS, &[("rows", rows())]);
        let mut views = Vec::new();
        for batch in collect(engine, snapshot, &latest).await? {
            views.extend((0..batch.num_rows()).map(|row| alert(&Columns(&batch), row)));
        }
        let mut inner = self.lock();
        for view in views.into_iter().rev() {
            let arrival = inner.next_arrival();
            inner.alerts.push(arrival, Arc::new(view));
        }
        Ok(())
    }
}

fn rows() -> Param<'static> {
    Param::Number(u32::try_from(LATEST).expect("a small constant"))
}

async fn collect(engine: &Engine, snapshot: &Arc<Snapshot>, sql: &str) -> anyhow::Result<Vec<RecordBatch>> {
    // Five minutes at full load fit the memory; the channel only hands the batches over.
    let (batches, all) = std::sync::mpsc::sync_channel(MAX_BATCHES);
    let keep = move |batch: &RecordBatch| {
        let _ = batches.try_send(batch.clone());
    };
    drop(engine.visit(Arc::clone(snapshot), sql, DEADLINE, keep).await?);
    Ok(all.try_iter().collect())
}

/// Batches of 8,192 rows kept while seeding: beyond them the page's first five minutes are incomplete.
const MAX_BATCHES: usize = 1_024;

async fn totals(engine: &Engine, snapshot: &Arc<Snapshot>) -> anyhow::Result<Totals> {
    let mut totals = Totals::default();
    for batch in collect(engine, snapshot, queries::TOTALS).await? {
        let columns = Columns(&batch);
        let transactions = columns.numbers::<Int64Type>("transactions");
        let amounts = columns.numbers::<Int64Type>("amount_reporting_minor");
        for row in 0..batch.num_rows() {
            if let Some(outcome) = outcome(columns.text("outcome").value(row)) {
                totals.count(outcome, u64::try_from(transactions.value(row)).unwrap_or(0));
            }
            totals.amount_reporting_minor = totals.amount_reporting_minor.saturating_add(amounts.value(row));
        }
    }
    for batch in collect(engine, snapshot, queries::ALERTS_TOTAL).await? {
        let alerts = Columns(&batch).numbers::<Int64Type>("alerts").value(0);
        totals.alerts += u64::try_from(alerts).unwrap_or(0);
    }
    Ok(totals)
}

fn decision(columns: &Columns<'_>, row: usize) -> DecisionView {
    let text = |name| columns.text(name).value(row).to_owned();
    let minor = columns.numbers::<Int64Type>("amount_minor").value(row);
    DecisionView {
        transaction_id: text("transaction_id"),
        merchant_id: text("merchant_id"),
        time_ms: columns.numbers::<TimestampMillisecondType>("accepted_at").value(row),
        amount: amount_of(minor, columns.text("currency").value(row)),
        currency: text("currency"),
        card: text("card_masked"),
        outcome: text("outcome"),
        risk_score: columns.numbers::<UInt8Type>("risk_score").value(row),
        risk_level: text("risk_level"),
        reasons: Vec::new(),
        latency_ms: columns.numbers::<Float64Type>("latency_ms").value(row),
    }
}

fn alert(columns: &Columns<'_>, row: usize) -> AlertView {
    let text = |name| columns.text(name).value(row).to_owned();
    let minor = columns.numbers::<Int64Type>("amount_minor").value(row);
    AlertView {
        id: text("id"),
        transaction_id: text("transaction_id"),
        merchant_id: text("merchant_id"),
        time_ms: columns.numbers::<TimestampMillisecondType>("raised_at").value(row),
        severity: text("severity"),
        outcome: text("outcome"),
        risk_score: columns.numbers::<UInt8Type>("risk_score").value(row),
        card: text("card_masked"),
        amount: amount_of(minor, columns.text("currency").value(row)),
        currency: text("currency"),
        reasons: serde_json::from_str(columns.text("reasons").value(row)).unwrap_or_default(),
    }
}

/// The reasons of the given decisions, by transaction.
async fn reasons(
    engine: &Engine,
    snapshot: &Arc<Snapshot>,
    since_ms: i64,
    views: &[DecisionView],
) -> anyhow::Result<FxHashMap<String, Vec<Reason>>> {
    let mut reasons: FxHashMap<String, Vec<Reason>> =
        views.iter().map(|view| (view.transaction_id.clone(), Vec::new())).collect();
    let hits = bind(queries::LIVE_RULE_HITS, &[("since", Param::TimeMs(since_ms))]);
    for batch in collect(engine, snapshot, &hits).await? {
        let columns = Columns(&batch);
        for row in 0..batch.num_rows() {
            if let Some(reasons) = reasons.get_mut(columns.text("transaction_id").value(row)) {
                reasons.push(reason(&columns, row));
            }
        }
    }
    Ok(reasons)
}

fn reason(columns: &Columns<'_>, row: usize) -> Reason {
    let text = |name| columns.text(name).value(row);
    Reason {
        code: text("code").into(),
        rule: text("rule").into(),
        message: text("message").to_owned(),
        observed: columns.numbers::<Float64Type>("observed").value(row),
        limit: columns.numbers::<Float64Type>("limit_value").value(row),
        points: columns.numbers::<UInt32Type>("points").value(row),
    }
}
