//! What the page shows, kept in memory as records arrive: bounded, and independent of the warehouse's size.
//!
//! - [`view`]: rows as the page gets them.
//! - [`series`]: outcomes and latency per second, over five minutes.
//! - [`top`]: what occurs most over five minutes.
//! - [`seed`]: the state after a restart, from the warehouse.

pub(crate) mod seed;
pub(crate) mod series;
pub(crate) mod top;
pub(crate) mod view;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use events::{Alert, Decided, Outcome};
use serde::Serialize;
use tokio::sync::broadcast;

use self::series::{Point, Series, SeriesView};
use self::top::Top;
use self::view::{AlertView, DecisionView, MerchantView, RuleView};

/// Rows the page is sent at a time.
const LATEST: usize = 50;
/// Of these, as many are kept for what was not approved, which a flood of approvals would push out.
const FLAGGED: usize = 25;
/// Entries of the lists of what occurs most.
const TOP: usize = 10;
/// Ticks a page may be behind before it is dropped.
const TICKS_BEHIND: usize = 8;
/// Missed seconds that are made up for; after a longer stall the page has a gap.
const MAX_CATCH_UP_S: i64 = 5;

/// The clock of the page and of file merging: milliseconds since the Unix epoch.
pub(crate) fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Sums over everything stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Totals {
    pub(crate) transactions: u64,
    pub(crate) approve: u64,
    pub(crate) review: u64,
    pub(crate) challenge: u64,
    pub(crate) decline: u64,
    pub(crate) alerts: u64,
    pub(crate) amount_reporting_minor: i64,
}

impl Totals {
    pub(crate) const fn count(&mut self, outcome: Outcome, transactions: u64) {
        self.transactions += transactions;
        match outcome {
            Outcome::Approve => self.approve += transactions,
            Outcome::Review => self.review += transactions,
            Outcome::Challenge => self.challenge += transactions,
            Outcome::Decline => self.decline += transactions,
        }
    }
}

/// The newest rows of a kind, each with the number of its arrival. Holds what is shown and what is to be
/// shown with the next tick.
#[derive(Debug)]
struct Newest<T> {
    rows: VecDeque<(u64, Arc<T>)>,
}

impl<T> Newest<T> {
    const fn new() -> Self {
        Self { rows: VecDeque::new() }
    }

    fn push(&mut self, arrival: u64, row: Arc<T>) {
        if self.rows.len() == 2 * LATEST {
            self.rows.pop_front();
        }
        self.rows.push_back((arrival, row));
    }

    /// Newest first, of those that arrived in the range.
    fn within(&self, arrivals: std::ops::Range<u64>) -> impl Iterator<Item = (u64, Arc<T>)> {
        self.rows.iter().rev().filter(move |(n, _)| arrivals.contains(n)).take(LATEST).cloned()
    }
}

struct Inner {
    series: Series,
    rules: Top<(Arc<str>, Arc<str>), 1>,
    merchants: Top<String, 3>,
    approved: Newest<DecisionView>,
    flagged: Newest<DecisionView>,
    alerts: Newest<AlertView>,
    totals: Totals,
    /// The number of the next row to arrive.
    arrivals: u64,
    /// Rows before this one have been sent.
    sent: u64,
    /// The last second that was sent.
    last_s: i64,
}

/// The page's state, and the stream of its changes.
pub(crate) struct Live {
    inner: Mutex<Inner>,
    ticks: broadcast::Sender<Arc<str>>,
}

#[derive(Serialize)]
struct Snapshot<'a> {
    now_ms: i64,
    series: SeriesView,
    #[serde(flatten)]
    state: State<'a>,
}

#[derive(Serialize)]
struct Tick<'a> {
    now_ms: i64,
    point: Point,
    #[serde(flatten)]
    state: State<'a>,
}

#[derive(Serialize)]
struct State<'a> {
    latest: Vec<Arc<DecisionView>>,
    alerts: Vec<Arc<AlertView>>,
    top_rules: Vec<RuleView>,
    top_merchants: Vec<MerchantView>,
    totals: &'a Totals,
}

impl Live {
    pub(crate) fn new(now_ms: i64) -> Self {
        let inner = Inner {
            series: Series::new(),
            rules: Top::new(),
            merchants: Top::new(),
            approved: Newest::new(),
            flagged: Newest::new(),
            alerts: Newest::new(),
            totals: Totals::default(),
            arrivals: 0,
            sent: 0,
            last_s: now_ms.div_euclid(1_000) - 1,
        };
        Self { inner: Mutex::new(inner), ticks: broadcast::Sender::new(TICKS_BEHIND) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes decided transactions in.
    pub(crate) fn decided(&self, all: &[Decided]) {
        self.decided_at(now_ms().div_euclid(1_000), all);
    }

    pub(crate) fn decided_at(&self, now_s: i64, all: &[Decided]) {
        // Only rows that can be shown are made; they are made before the lock is taken.
        let newest = |approved: bool| {
            let of_kind = move |d: &&Decided| (d.decision.outcome == Outcome::Approve) == approved;
            let first = all.iter().rev().filter(of_kind).take(LATEST).count();
            let skip = all.iter().filter(of_kind).count() - first;
            all.iter().filter(of_kind).skip(skip).map(|d| Arc::new(DecisionView::of(d))).collect::<Vec<_>>()
        };
        let (approved, flagged) = (newest(true), newest(false));
        let mut inner = self.lock();
        for decided in all {
            inner.count(now_s, decided);
        }
        inner.show(approved, flagged);
    }

    /// Takes alerts in.
    pub(crate) fn alerts(&self, all: &[Alert]) {
        let mut inner = self.lock();
        inner.totals.alerts += all.len() as u64;
        for alert in all {
            let arrival = inner.next_arrival();
            inner.alerts.push(arrival, Arc::new(AlertView::of(alert)));
        }
    }

    /// Sends every second that has passed since the last one to all pages.
    pub(crate) fn tick(&self, now_ms: i64) {
        let mut inner = self.lock();
        let last_full_s = now_ms.div_euclid(1_000) - 1;
        inner.last_s = inner.last_s.max(last_full_s - MAX_CATCH_UP_S);
        inner.rules.expire(last_full_s);
        inner.merchants.expire(last_full_s);
        while inner.last_s < last_full_s {
            inner.last_s += 1;
            let (from, to) = (inner.sent, inner.arrivals);
            let tick = Tick { now_ms, point: inner.series.point(inner.last_s), state: inner.state(from..to) };
            let text = serde_json::to_string(&tick).expect("rows have string keys only");
            inner.sent = to;
            // Without a page there is nobody to tell.
            let _ = self.ticks.send(text.into());
        }
    }

    /// All of the state as of the last tick, and the ticks after it: none is missed, none comes twice.
    pub(crate) fn subscribe(&self, now_ms: i64) -> (String, broadcast::Receiver<Arc<str>>) {
        let inner = self.lock();
        let snapshot =
            Snapshot { now_ms, series: inner.series.view(inner.last_s), state: inner.state(0..inner.sent) };
        let text = serde_json::to_string(&snapshot).expect("rows have string keys only");
        (text, self.ticks.subscribe())
    }

    #[cfg(test)]
    pub(crate) fn totals(&self) -> Totals {
        self.lock().totals
    }
}

impl Inner {
    const fn next_arrival(&mut self) -> u64 {
        self.arrivals += 1;
        self.arrivals - 1
    }

    fn count(&mut self, now_s: i64, decided: &Decided) {
        let (t, d) = (&decided.transaction, &decided.decision);
        let at_s = decided.decided_at_us.div_euclid(1_000_000);
        let latency_us = decided.decided_at_us.saturating_sub(t.accepted_at_us);
        let amount = t.reporting_amount_minor.unwrap_or(0);
        self.totals.count(d.outcome, 1);
        self.totals.amount_reporting_minor = self.totals.amount_reporting_minor.saturating_add(amount);
        self.series.add(now_s, at_s, d.outcome, latency_us);
        for reason in &d.reasons {
            self.rules.add(now_s, at_s, &(reason.rule.clone(), reason.code.clone()), [1]);
        }
        let declined = i64::from(d.outcome == Outcome::Decline);
        self.merchants.add(now_s, at_s, &t.merchant_id.as_str().to_owned(), [1, declined, amount]);
    }

    fn show(&mut self, approved: Vec<Arc<DecisionView>>, flagged: Vec<Arc<DecisionView>>) {
        for row in approved {
            let arrival = self.next_arrival();
            self.approved.push(arrival, row);
        }
        for row in flagged {
            let arrival = self.next_arrival();
            self.flagged.push(arrival, row);
        }
    }

    fn state(&self, arrivals: std::ops::Range<u64>) -> State<'_> {
        State {
            latest: self.latest(arrivals.clone()),
            alerts: self.alerts.within(arrivals).map(|(_, row)| row).collect(),
            top_rules: self.rules.most(TOP).into_iter().map(RuleView::from).collect(),
            top_merchants: self.merchants.most(TOP).into_iter().map(MerchantView::from).collect(),
            totals: &self.totals,
        }
    }

    /// Newest first. Flagged rows are sure of half the places, and get the other half too when free.
    fn latest(&self, arrivals: std::ops::Range<u64>) -> Vec<Arc<DecisionView>> {
        let approved: Vec<_> = self.approved.within(arrivals.clone()).collect();
        let places = FLAGGED.max(LATEST - approved.len());
        let mut rows: Vec<_> = self.flagged.within(arrivals).take(places).collect();
        let free = LATEST - rows.len();
        rows.extend(approved.into_iter().take(free));
        rows.sort_by_key(|(arrival, row)| std::cmp::Reverse((row.time_ms, *arrival)));
        rows.into_iter().map(|(_, row)| row).collect()
    }
}
