//! The generator: an endless, repeatable sequence of requests.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use bytes::Bytes;
use rand::seq::SliceRandom;

use crate::body::Letters;
use crate::population::World;
use crate::random::{Domain, Rng, hash, hash_text, mix, stream};
use crate::scenario::{Campaign, Scenario, Truth, at_store};

/// Campaigns under way at once. At the bound, payments of theirs come early instead of new ones piling up.
const MAX_CAMPAIGNS: usize = 4_096;
/// How long a fraudulent payment is planned before it is due, on average: planning runs this far ahead,
/// so that also the first minute has its share of fraud.
const LEAD_S: f64 = 15.0;
/// Every how many seconds a customer pays, on average, when their number is not given.
const SECONDS_PER_VISIT: f64 = 1_800.0;
const CUSTOMERS: std::ops::RangeInclusive<f64> = 5_000.0..=20_000_000.0;

/// What traffic to generate.
#[derive(Debug, Clone)]
pub struct TrafficConfig {
    /// The same seed, run id and start give the same bytes.
    pub seed: u64,
    /// Makes idempotency keys of separate runs differ.
    pub run_id: String,
    /// When the first request is due. Gives the expiry of cards and the hour of the day.
    pub start: jiff::Timestamp,
    /// Requests per second of simulated time.
    pub rate_per_s: f64,
    /// Share of payments that are fraudulent, 0 to 1.
    pub fraud_share: f64,
    /// How many customers there are; by default as many as make each pay every half hour.
    pub customers: Option<u64>,
    /// Whether people sleep at night. When not, all hours are alike.
    pub day_curve: bool,
}

impl TrafficConfig {
    /// Traffic with 2 % fraud, by day and night.
    #[must_use]
    pub fn new(seed: u64, run_id: impl Into<String>, start: jiff::Timestamp, rate_per_s: f64) -> Self {
        Self {
            seed,
            run_id: run_id.into(),
            start,
            rate_per_s,
            fraud_share: 0.02,
            customers: None,
            day_curve: true,
        }
    }
}

/// One request to submit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generated {
    /// Its place in the sequence, from 0.
    pub index: u64,
    /// When it is due, in microseconds since the Unix epoch.
    pub due_us: i64,
    /// For the `Idempotency-Key` header: unique to the run and index.
    pub idempotency_key: String,
    /// The JSON body for `POST /v1/transactions`.
    pub body: Bytes,
    /// What is true of it: not for sending.
    pub truth: Truth,
}

/// An endless, repeatable sequence of requests in bounded memory.
#[derive(Debug)]
pub struct Traffic {
    config: TrafficConfig,
    world: World,
    start_us: i64,
    /// Names the run in idempotency keys.
    run: u64,
    index: u64,
    campaigns: BinaryHeap<Reverse<Due>>,
    launched: u64,
    planned_frauds: u64,
    frauds: u64,
    deck: Vec<Scenario>,
}

/// A campaign and when its next payment is due. Ordered by time, then by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Due {
    at_us: i64,
    order: u64,
    campaign: Campaign,
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_us, self.order).cmp(&(other.at_us, other.order))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Traffic {
    /// The sequence that `config` describes, from its beginning.
    #[must_use]
    pub fn new(config: TrafficConfig) -> Self {
        let by_rate =
            (config.rate_per_s * SECONDS_PER_VISIT).clamp(*CUSTOMERS.start(), *CUSTOMERS.end()) as u64;
        let year = config.start.to_zoned(jiff::tz::TimeZone::UTC).year();
        let year = u16::try_from(year).unwrap_or(1970);
        Self {
            world: World::new(config.seed, config.customers.unwrap_or(by_rate), year),
            start_us: config.start.as_microsecond(),
            run: hash(config.seed, Domain::Key, hash_text(&config.run_id)),
            index: 0,
            campaigns: BinaryHeap::new(),
            launched: 0,
            planned_frauds: 0,
            frauds: 0,
            deck: Vec::new(),
            config,
        }
    }

    /// The next request. The sequence does not end.
    pub fn generate(&mut self) -> Generated {
        let index = self.index;
        self.index += 1;
        let due_us = self.start_us + self.offset_us(index);
        let mut rng = stream(self.world.seed, Domain::Ordinary, index);
        self.launch(index, due_us, &mut rng);
        let (body, truth) = match self.due_campaign(due_us) {
            Some(campaign) => (campaign.payment(&self.world).body(index), campaign.truth()),
            None => (self.ordinary(index, due_us, &mut rng), Truth::default()),
        };
        let idempotency_key = format!("lt-{}-{index}", Letters(self.run));
        Generated { index, due_us, idempotency_key, body, truth }
    }

    /// Exact to the microsecond for 285 years.
    fn offset_us(&self, index: u64) -> i64 {
        (index as f64 * 1e6 / self.config.rate_per_s) as i64
    }

    fn ordinary(&self, index: u64, due_us: i64, rng: &mut Rng) -> Bytes {
        let number = match self.config.day_curve {
            true => self.world.anyone_awake(due_us, rng),
            false => self.world.anyone(rng),
        };
        let customer = self.world.customer(number);
        let here = self.world.whereabouts(&customer, due_us);
        let mut payment = at_store(&customer, self.world.usual_store(&customer, here.city, rng), rng);
        payment.card = customer.usual_card(rng);
        if payment.store.online {
            payment.spot = here;
        }
        payment.body(index)
    }

    /// Starts as many campaigns as the share of fraud asks for.
    fn launch(&mut self, index: u64, now_us: i64, rng: &mut Rng) {
        let wanted = self.config.fraud_share * (index as f64 + self.config.rate_per_s * LEAD_S);
        while (self.planned_frauds as f64) < wanted && self.campaigns.len() < MAX_CAMPAIGNS {
            let scenario = self.next_scenario();
            let campaign = Campaign::new(&self.world, self.launched, scenario);
            self.planned_frauds += campaign.frauds();
            // The first of each kind begins at once, later ones spread out: a run's beginning is no burst.
            let spread_us = if self.launched < Scenario::ALL.len() as u64 { 1 } else { 10_000_000 };
            let at_us = now_us + rand::RngExt::random_range(rng, 0..spread_us);
            self.campaigns.push(Reverse(Due { at_us, order: self.launched, campaign }));
            self.launched += 1;
        }
    }

    /// Every scenario comes once before any comes again.
    fn next_scenario(&mut self) -> Scenario {
        if self.deck.is_empty() {
            self.deck.extend(Scenario::ALL.iter().rev());
            if self.launched > 0 {
                self.deck.shuffle(&mut stream(self.world.seed, Domain::Deck, self.launched));
            }
        }
        self.deck.pop().expect("filled above")
    }

    fn due_campaign(&mut self, now_us: i64) -> Option<Campaign> {
        let behind = (self.frauds as f64) < self.config.fraud_share * self.index as f64;
        let early = behind && self.campaigns.len() >= MAX_CAMPAIGNS;
        let first = self.campaigns.peek().filter(|Reverse(due)| due.at_us <= now_us || early)?;
        let Reverse(Due { order, campaign, .. }) = *first;
        self.campaigns.pop();
        self.frauds += u64::from(campaign.truth().fraud);
        if let Some((next, gap_us)) = campaign.advance() {
            self.campaigns.push(Reverse(Due { at_us: now_us + gap_us, order, campaign: next }));
        }
        Some(campaign)
    }
}

impl Iterator for Traffic {
    type Item = Generated;

    fn next(&mut self) -> Option<Generated> {
        Some(self.generate())
    }
}

/// A run id for a run that need not be repeated: differs from one call to the next.
pub(crate) fn fresh_run_id() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let nanos = now.as_secs().wrapping_mul(1_000_000_000).wrapping_add(u64::from(now.subsec_nanos()));
    Letters(mix(nanos, u64::from(std::process::id()))).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn campaigns_under_way_are_bounded_and_the_share_of_fraud_still_holds() {
        let start = jiff::Timestamp::UNIX_EPOCH;
        let config = TrafficConfig { fraud_share: 0.5, ..TrafficConfig::new(1, "r", start, 50_000.0) };
        let mut traffic = Traffic::new(config);
        let (mut most, mut frauds) = (0, 0_u32);
        for _ in 0..300_000 {
            frauds += u32::from(traffic.generate().truth.fraud);
            most = most.max(traffic.campaigns.len());
        }
        assert_eq!(most, MAX_CAMPAIGNS, "the bound is reached and held");
        let share = f64::from(frauds) / 300_000.0;
        assert!((0.3..=0.75).contains(&share), "{share}");
    }
}
