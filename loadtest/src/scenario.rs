//! Frauds: each a small script of payments by one attacker, spread over seconds to a minute.

use std::fmt;

use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::body::{Payer, Payment};
use crate::card::{random_card, sequential_card};
use crate::place::{CITIES, distance_km};
use crate::population::{Customer, Store, World, attack_device};
use crate::random::{Domain, Rng, hash, mix, stream};

const MS_US: i64 = 1_000;
/// Farther than any aeroplane flies between two payments of one script.
const FAR_KM: f64 = 3_000.0;

/// A pattern of fraud.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scenario {
    /// One payment many times what the customer ever spends.
    UnusualAmount,
    /// A payment in the street at home, then within the minute one abroad, more than 3,000 km away.
    ImpossibleTravel,
    /// Cards that paid at one terminal are copied there, and used in another city.
    CompromisedTerminal,
    /// A stolen card used again and again for rising amounts, from a device it was never used on.
    StolenCardSpree,
    /// Many cards tried for small amounts from one device and address.
    CardTesting,
    /// Consecutive card numbers of one issuer tried from one device.
    BinAttack,
}

impl Scenario {
    /// All scenarios, quick ones first.
    pub const ALL: [Self; 6] = [
        Self::UnusualAmount,
        Self::ImpossibleTravel,
        Self::CompromisedTerminal,
        Self::StolenCardSpree,
        Self::CardTesting,
        Self::BinAttack,
    ];

    /// The name in snake case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnusualAmount => "unusual_amount",
            Self::ImpossibleTravel => "impossible_travel",
            Self::CompromisedTerminal => "compromised_terminal",
            Self::StolenCardSpree => "stolen_card_spree",
            Self::CardTesting => "card_testing",
            Self::BinAttack => "bin_attack",
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is true of a request, which the request itself does not tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Truth {
    /// Whether the payment is fraudulent.
    pub fraud: bool,
    /// The scenario it belongs to. Also set, with `fraud` false, on the honest payments that a scenario
    /// builds on, such as those at a terminal where cards are being copied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scenario: Option<Scenario>,
    /// Tells the campaigns of one scenario apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub campaign: Option<u64>,
}

/// One run of a scenario. Small, because thousands are under way at high rates: who takes part and how
/// much they pay is computed from `key` at each step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Campaign {
    number: u64,
    scenario: Scenario,
    key: u64,
    step: u32,
    /// Honest payments before the fraud begins.
    setup: u32,
    steps: u32,
}

impl Campaign {
    pub(crate) fn new(world: &World, number: u64, scenario: Scenario) -> Self {
        let key = hash(world.seed, Domain::Campaign, number);
        let mut rng = stream(key, Domain::Campaign, number);
        let (setup, frauds) = match scenario {
            Scenario::UnusualAmount => (4, 1),
            Scenario::ImpossibleTravel => (rng.random_range(1..=2), rng.random_range(1..=2)),
            Scenario::CompromisedTerminal => {
                let victims = rng.random_range(8..=12);
                (victims, victims)
            }
            Scenario::StolenCardSpree => (2, rng.random_range(6..=10)),
            Scenario::CardTesting => (0, rng.random_range(16..=28)),
            Scenario::BinAttack => (0, rng.random_range(18..=30)),
        };
        Self { number, scenario, key, step: 0, setup, steps: setup + frauds }
    }

    pub(crate) fn frauds(&self) -> u64 {
        u64::from(self.steps - self.setup)
    }

    /// The same campaign one payment later, and how long after this payment that one comes.
    pub(crate) fn advance(mut self) -> Option<(Self, i64)> {
        self.step += 1;
        if self.step >= self.steps {
            return None;
        }
        let begins = self.step == self.setup;
        let gap_ms = match self.scenario {
            Scenario::UnusualAmount => 7_000..10_000,
            Scenario::ImpossibleTravel if begins => 15_000..25_000,
            Scenario::ImpossibleTravel => 6_000..12_000,
            Scenario::CompromisedTerminal if begins => 6_000..12_000,
            Scenario::CompromisedTerminal => 1_500..3_500,
            Scenario::StolenCardSpree => 2_500..6_000,
            Scenario::CardTesting => 300..1_800,
            Scenario::BinAttack => 300..1_500,
        };
        Some((self, self.rng().random_range(gap_ms) * MS_US))
    }

    pub(crate) fn truth(&self) -> Truth {
        Truth { fraud: self.step >= self.setup, scenario: Some(self.scenario), campaign: Some(self.number) }
    }

    /// The payment of the current step.
    pub(crate) fn payment(&self, world: &World) -> Payment {
        let mut rng = self.rng();
        let fraud = self.step.checked_sub(self.setup);
        match self.scenario {
            Scenario::UnusualAmount => self.unusual_amount(world, fraud, &mut rng),
            Scenario::ImpossibleTravel => self.impossible_travel(world, fraud, &mut rng),
            Scenario::CompromisedTerminal => self.compromised_terminal(world, fraud, &mut rng),
            Scenario::StolenCardSpree => self.stolen_card_spree(world, fraud, &mut rng),
            Scenario::CardTesting => self.card_testing(world, &mut rng),
            Scenario::BinAttack => self.bin_attack(world, &mut rng),
        }
    }

    fn rng(&self) -> Rng {
        stream(self.key, Domain::Step, u64::from(self.step))
    }

    fn victim(&self, world: &World) -> Customer {
        world.customer(world.anyone(&mut stream(self.key, Domain::Customer, 0)))
    }

    fn unusual_amount(&self, world: &World, fraud: Option<u32>, rng: &mut Rng) -> Payment {
        let victim = self.victim(world);
        let mut payment = at_store(&victim, world.any_online(rng), rng);
        if fraud.is_some() {
            let usd = (victim.mean_usd() * rng.random_range(20.0..40.0)).max(1_500.0);
            payment.amount_minor = payment.money.minor(usd);
        }
        payment
    }

    fn impossible_travel(&self, world: &World, fraud: Option<u32>, rng: &mut Rng) -> Payment {
        let victim = self.victim(world);
        let home = victim.home.city;
        let city = match fraud {
            None => home,
            Some(_) => {
                let abroad = |&city: &usize| {
                    CITIES[city].country != CITIES[home].country && distance_km(home, city) > FAR_KM
                };
                let far: Vec<usize> = (0..CITIES.len()).filter(abroad).collect();
                far[usize::try_from(self.key % far.len() as u64).expect("below a short table's length")]
            }
        };
        let mut payment = at_store(&victim, world.any_local(city, rng), rng);
        if fraud.is_some() {
            payment.device = attack_device(self.key, 0);
        }
        payment
    }

    fn compromised_terminal(&self, world: &World, fraud: Option<u32>, rng: &mut Rng) -> Payment {
        let mut place = stream(self.key, Domain::Store, 0);
        let city = self.victim(world).home.city;
        let store = world.any_local(city, &mut place);
        let victim = world.customer(world.neighbour(city, self.key, u64::from(fraud.unwrap_or(self.step))));
        let Some(_) = fraud else {
            let mut payment = at_store(&victim, store, rng);
            payment.terminal = 1;
            return payment;
        };
        let elsewhere = (city + 1 + rng.random_range(0..CITIES.len() - 1)) % CITIES.len();
        let mut payment = at_store(&victim, world.any_local(elsewhere, rng), rng);
        let usd = victim.mean_usd() * rng.random_range(3.0..6.0);
        payment.amount_minor = payment.money.minor(usd.max(150.0));
        payment.device = attack_device(self.key, 0);
        payment
    }

    fn stolen_card_spree(&self, world: &World, fraud: Option<u32>, rng: &mut Rng) -> Payment {
        let victim = self.victim(world);
        let mut payment = at_store(&victim, world.any_online(rng), rng);
        if let Some(nth) = fraud {
            let first = victim.mean_usd().max(40.0);
            let step = 1.7_f64.powi(i32::try_from(nth).expect("few steps"));
            payment.amount_minor = payment.money.minor(first * step * rng.random_range(1.0..1.15));
            payment.device = attack_device(self.key, 0);
            let drop_off = usize::try_from(self.key % CITIES.len() as u64).expect("a short table");
            payment.shipping = Some((drop_off, self.key));
        }
        payment
    }

    fn card_testing(&self, world: &World, rng: &mut Rng) -> Payment {
        let store = world.any_online(&mut stream(self.key, Domain::Store, 0));
        let holder = world.customer(world.anyone(rng));
        Payment {
            amount_minor: holder.home.city().money.minor(rng.random_range(0.5..3.0)),
            money: holder.home.city().money,
            card: random_card(rng, world.year),
            payer: Payer::Guest(mix(self.key, u64::from(self.step))),
            device: attack_device(self.key, 0),
            billing: (holder.home.city, holder.digits),
            shipping: None,
            spot: self.victim(world).home,
            store,
            terminal: 1,
        }
    }

    fn bin_attack(&self, world: &World, rng: &mut Rng) -> Payment {
        let attacker = self.victim(world);
        let money = attacker.home.city().money;
        Payment {
            amount_minor: money.minor(1.0 + f64::from(rng.random_range(0..4_u8))),
            money,
            card: sequential_card(self.key, u64::from(self.step), rng, world.year),
            payer: Payer::Guest(mix(self.key, u64::from(self.step / 8))),
            device: attack_device(self.key, u64::from(self.step % 3)),
            billing: (attacker.home.city, attacker.digits),
            shipping: None,
            spot: attacker.home,
            store: world.any_online(&mut stream(self.key, Domain::Store, 0)),
            terminal: 1,
        }
    }
}

/// What a customer pays, as usual, in a store they are in or whose page they are on.
pub(crate) fn at_store(customer: &Customer, store: Store, rng: &mut Rng) -> Payment {
    let spot = if store.online { customer.home } else { store.spot };
    let money = spot.city().money;
    let home = (customer.home.city, customer.digits);
    Payment {
        amount_minor: money.minor(customer.spends_usd(store.price, rng)),
        money,
        card: customer.card,
        payer: Payer::Customer { number: customer.number, digits: customer.digits },
        device: customer.usual_device(rng),
        billing: home,
        shipping: store.online.then_some(home),
        spot,
        store,
        terminal: rng.random_range(1..=store.terminals),
    }
}
