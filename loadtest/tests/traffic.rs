//! The generator as its users see it: repeatable, valid, and with fraud that looks like fraud.

#![allow(clippy::unwrap_used)] // also in what is not itself a test

use std::collections::{BTreeMap, HashSet};

use loadtest::{Generated, Scenario, Traffic, TrafficConfig, demo_traffic};
use serde_json::Value;

const RATE: f64 = 500.0;

fn config(seed: u64, run_id: &str) -> TrafficConfig {
    TrafficConfig::new(seed, run_id, "2026-11-21T12:00:00Z".parse().unwrap(), RATE)
}

/// A request with its body read.
struct Seen {
    request: Generated,
    body: Value,
}

impl Seen {
    fn text(&self, pointer: &str) -> &str {
        self.body
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_else(|| panic!("{pointer} in {}", self.body))
    }

    fn card(&self) -> &str {
        self.text("/card/number")
    }

    /// The amount in dollars, roughly.
    fn usd(&self) -> f64 {
        let minor = self.body["amount"].as_f64().unwrap();
        match self.text("/currency") {
            "JPY" => minor / 150.0,
            _ => minor / 100.0,
        }
    }

    fn place(&self) -> (f64, f64) {
        (self.body["location"]["lat"].as_f64().unwrap(), self.body["location"]["lon"].as_f64().unwrap())
    }
}

impl From<Generated> for Seen {
    fn from(request: Generated) -> Self {
        Self { body: serde_json::from_slice(&request.body).unwrap(), request }
    }
}

fn seen(count: usize) -> impl Iterator<Item = Seen> {
    Traffic::new(config(11, "run")).take(count).map(Seen::from)
}

/// The finished campaigns of one scenario: honest payments before the fraud, then the fraud.
fn campaigns(scenario: Scenario) -> Vec<(Vec<Seen>, Vec<Seen>)> {
    let mut all: BTreeMap<u64, (Vec<Seen>, Vec<Seen>)> = BTreeMap::new();
    let requests = Traffic::new(config(11, "run")).take(75_000);
    let payments = requests.filter(|request| request.truth.scenario == Some(scenario)).map(Seen::from);
    let cut_off_us = config(11, "run").start.as_microsecond() + 60_000_000;
    for seen in payments {
        let (setup, fraud) = all.entry(seen.request.truth.campaign.unwrap()).or_default();
        if seen.request.truth.fraud { fraud.push(seen) } else { setup.push(seen) }
    }
    // Those that began in the first of the two minutes have come to their end.
    let began =
        |(setup, fraud): &(Vec<Seen>, Vec<Seen>)| setup.first().or(fraud.first()).unwrap().request.due_us;
    let finished: Vec<_> =
        all.into_values().filter(|campaign| began(campaign) < cut_off_us && !campaign.1.is_empty()).collect();
    assert!(finished.len() >= 3, "{} campaigns of {scenario}", finished.len());
    finished
}

fn distinct<'a>(values: impl Iterator<Item = &'a str>) -> usize {
    values.collect::<HashSet<_>>().len()
}

fn span_s(payments: &[Seen]) -> f64 {
    let (first, last) = (payments.first().unwrap(), payments.last().unwrap());
    (last.request.due_us - first.request.due_us) as f64 / 1e6
}

fn km((lat_a, lon_a): (f64, f64), (lat_b, lon_b): (f64, f64)) -> f64 {
    let to_vector = |lat: f64, lon: f64| {
        let (lat, lon) = (lat.to_radians(), lon.to_radians());
        [lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()]
    };
    let (a, b) = (to_vector(lat_a, lon_a), to_vector(lat_b, lon_b));
    let dot: f64 = a.iter().zip(b).map(|(x, y)| x * y).sum();
    6_371.0 * dot.clamp(-1.0, 1.0).acos()
}

#[test]
fn the_same_seed_run_and_start_give_the_same_bytes() {
    let once: Vec<Generated> = Traffic::new(config(1, "a")).take(5_000).collect();
    let again: Vec<Generated> = Traffic::new(config(1, "a")).take(5_000).collect();
    assert_eq!(once, again);
    let other_seed: Vec<Generated> = Traffic::new(config(2, "a")).take(5_000).collect();
    assert!(once.iter().zip(&other_seed).all(|(a, b)| a.body != b.body));
}

#[test]
fn another_run_has_other_keys_and_the_same_bodies() {
    let a: Vec<Generated> = Traffic::new(config(1, "a")).take(2_000).collect();
    let b: Vec<Generated> = Traffic::new(config(1, "b")).take(2_000).collect();
    let keys: HashSet<&str> = a.iter().chain(&b).map(|request| request.idempotency_key.as_str()).collect();
    assert_eq!(keys.len(), 4_000);
    assert!(a.iter().zip(&b).all(|(a, b)| a.body == b.body));
}

#[test]
fn every_card_number_is_valid_and_expires_in_one_to_four_years() {
    for seen in seen(20_000) {
        let number = seen.card();
        let sum: u32 = number
            .bytes()
            .rev()
            .enumerate()
            .map(|(i, b)| u32::from(b - b'0') * (1 + u32::from(i % 2 == 1)))
            .map(|d| if d > 9 { d - 9 } else { d })
            .sum();
        assert!(sum.is_multiple_of(10) && (14..=16).contains(&number.len()), "{number}");
        let year = seen.body["card"]["exp_year"].as_u64().unwrap();
        assert!((2027..=2030).contains(&year), "{year}");
        let cvc = if number.starts_with("37") { 4 } else { 3 };
        assert_eq!(seen.text("/card/cvc").len(), cvc, "{number}");
    }
}

#[test]
fn bodies_hold_every_field_of_the_canonical_form_and_no_label() {
    let known = [
        "amount",
        "currency",
        "card",
        "customer",
        "device",
        "billing",
        "shipping",
        "location",
        "mcc",
        "terminal_id",
        "metadata",
    ];
    for seen in seen(5_000) {
        for field in known.iter().filter(|&&field| field != "shipping") {
            assert!(seen.body.get(*field).is_some(), "{field} in {}", seen.body);
        }
        assert!(seen.body.as_object().unwrap().keys().all(|key| known.contains(&key.as_str())));
        let amount = seen.body["amount"].as_i64().unwrap();
        events::AmountMinor::try_from(amount).unwrap();
        assert!(amount > 0);
        seen.text("/device/ip").parse::<std::net::IpAddr>().unwrap();
        let text = seen.body.to_string();
        assert!(
            Scenario::ALL.iter().all(|scenario| !text.contains(scenario.as_str())) && !text.contains("fraud")
        );
    }
}

#[test]
fn most_money_is_dollars_euros_and_pounds_with_some_yen() {
    let mut counts: BTreeMap<String, u32> = BTreeMap::new();
    for seen in seen(20_000) {
        *counts.entry(seen.text("/currency").to_owned()).or_default() += 1;
    }
    let share = |code: &str| f64::from(counts.get(code).copied().unwrap_or(0)) / 20_000.0;
    assert!(share("USD") + share("EUR") + share("GBP") > 0.8, "{counts:?}");
    assert!((0.005..0.15).contains(&share("JPY")), "{counts:?}");
}

#[test]
fn the_share_of_fraud_is_the_one_asked_for() {
    for share in [0.0, 0.02, 0.1] {
        let traffic = Traffic::new(TrafficConfig { fraud_share: share, ..config(5, "r") });
        let frauds = traffic.take(200_000).filter(|request| request.truth.fraud).count();
        let measured = frauds as f64 / 200_000.0;
        assert!((measured - share).abs() <= share * 0.1, "{measured} for {share}");
    }
}

#[test]
fn honest_customers_keep_to_their_habits() {
    let mut amounts: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    let traffic = Traffic::new(TrafficConfig { customers: Some(300), fraud_share: 0.0, ..config(5, "r") });
    let mut devices: BTreeMap<String, HashSet<String>> = BTreeMap::new();
    for request in traffic.take(30_000) {
        let seen = Seen::from(request);
        let customer = seen.text("/customer/id").to_owned();
        devices.entry(customer.clone()).or_default().insert(seen.text("/device/id").to_owned());
        amounts.entry(customer).or_default().push(seen.usd());
    }
    assert!(devices.values().all(|devices| devices.len() <= 2));
    for amounts in amounts.values().filter(|amounts| amounts.len() > 30) {
        let mean = amounts.iter().sum::<f64>() / amounts.len() as f64;
        let most = amounts.iter().copied().fold(0.0, f64::max);
        assert!(most < 6.0 * mean + 1.0, "{most} where {mean} is usual");
    }
}

#[test]
fn card_testing_is_many_cards_for_small_amounts_from_one_address() {
    for (_, fraud) in campaigns(Scenario::CardTesting) {
        assert!(distinct(fraud.iter().map(Seen::card)) >= 16);
        assert_eq!(distinct(fraud.iter().map(|seen| seen.text("/device/ip"))), 1);
        assert_eq!(distinct(fraud.iter().map(|seen| seen.text("/device/id"))), 1);
        assert!(fraud.iter().all(|seen| seen.usd() < 5.0));
        assert!(span_s(&fraud) < 60.0, "{} s", span_s(&fraud));
    }
}

#[test]
fn a_bin_attack_is_consecutive_cards_of_one_issuer_from_one_device() {
    for (_, fraud) in campaigns(Scenario::BinAttack) {
        assert!(fraud.len() >= 18);
        let accounts: Vec<u64> = fraud.iter().map(|seen| seen.card().parse::<u64>().unwrap() / 10).collect();
        assert!(accounts.windows(2).all(|pair| pair[1] == pair[0] + 1), "{accounts:?}");
        assert_eq!(distinct(fraud.iter().map(|seen| &seen.card()[..8])), 1);
        assert_eq!(distinct(fraud.iter().map(|seen| seen.text("/device/id"))), 1);
        assert!(span_s(&fraud) < 60.0);
    }
}

#[test]
fn a_stolen_card_spree_is_one_card_with_rising_amounts_from_a_new_device() {
    for (setup, fraud) in campaigns(Scenario::StolenCardSpree) {
        assert!(fraud.len() >= 6);
        assert_eq!(distinct(setup.iter().chain(&fraud).map(Seen::card)), 1);
        assert!(fraud.windows(2).all(|pair| pair[1].usd() > pair[0].usd()));
        assert!(fraud.last().unwrap().usd() > 8.0 * fraud[0].usd());
        let own: HashSet<&str> = setup.iter().map(|seen| seen.text("/device/id")).collect();
        assert!(fraud.iter().all(|seen| !own.contains(seen.text("/device/id"))));
        assert!(span_s(&fraud) < 90.0);
    }
}

#[test]
fn cards_of_a_compromised_terminal_are_used_elsewhere_afterwards() {
    for (setup, fraud) in campaigns(Scenario::CompromisedTerminal) {
        assert_eq!(distinct(setup.iter().map(|seen| seen.text("/terminal_id"))), 1);
        let copied: HashSet<&str> = setup.iter().map(Seen::card).collect();
        assert!(copied.len() >= 7, "{} cards", copied.len());
        let terminal = setup[0].text("/terminal_id");
        for seen in &fraud {
            assert!(copied.contains(seen.card()));
            assert_ne!(seen.text("/terminal_id"), terminal);
            assert!(km(seen.place(), setup[0].place()) > 50.0);
            assert!(seen.request.due_us > setup.last().unwrap().request.due_us);
        }
    }
}

#[test]
fn impossible_travel_is_one_card_in_two_places_no_aeroplane_connects() {
    for (setup, fraud) in campaigns(Scenario::ImpossibleTravel) {
        let (home, away) = (setup.last().unwrap(), &fraud[0]);
        assert_eq!(home.card(), away.card());
        let hours = (away.request.due_us - home.request.due_us) as f64 / 3.6e9;
        assert!(km(home.place(), away.place()) / hours > 100_000.0);
    }
}

#[test]
fn an_unusual_amount_is_many_times_what_the_card_paid_before() {
    for (setup, fraud) in campaigns(Scenario::UnusualAmount) {
        assert!(setup.len() >= 3 && fraud.len() == 1);
        assert_eq!(distinct(setup.iter().chain(&fraud).map(Seen::card)), 1);
        let most = setup.iter().map(Seen::usd).fold(0.0, f64::max);
        assert!(fraud[0].usd() > 5.0 * most, "{} after {most}", fraud[0].usd());
    }
}

#[test]
fn a_demo_shows_every_scenario_within_its_first_minute() {
    let start = "2026-11-21T03:00:00Z".parse().unwrap();
    for rate in [10.0, 20.0, 100.0] {
        for run in ["a", "b", "c"] {
            let minute = demo_traffic(rate, run.to_owned(), start).take((60.0 * rate) as usize);
            let shown: HashSet<Scenario> = minute
                .filter(|request| request.truth.fraud)
                .filter_map(|request| request.truth.scenario)
                .collect();
            assert_eq!(shown.len(), Scenario::ALL.len(), "at {rate}/s in run {run}: {shown:?}");
        }
    }
}
