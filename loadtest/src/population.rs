//! Customers, stores and terminals. Customers are computed from their number whenever they are
//! needed, so that millions of them cost no memory.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rand::RngExt;

use crate::card::{Card, random_card};
use crate::place::{CITIES, City, activity, city_at, total_weight};
use crate::random::{Domain, Rng, hash, mix, normal, pick, stream};

/// Chance that a stay abroad falls in a customer's period of [`TRIP_DAYS`].
const TRIP_CHANCE: f64 = 0.01;
const TRIP_DAYS: i64 = 5;
const DAY_US: i64 = 86_400_000_000;
/// How many customers are looked at for one who is awake before a sleeper is taken.
const AWAKE_TRIES: u32 = 12;
/// How many customers are looked at for one who lives in a given city.
const NEIGHBOUR_TRIES: u64 = 200;
/// Enough for terminals not to look crowded at a few thousand requests per second.
const STORES: u32 = 20_000;
const LOCAL_FAVOURITES: usize = 4;
const ONLINE_FAVOURITES: usize = 3;

/// What a store sells.
struct Category {
    mcc: &'static str,
    online: bool,
    /// Prices relative to a customer's mean.
    price: f64,
}

const CATEGORIES: [Category; 12] = [
    Category { mcc: "5411", online: false, price: 1.1 }, // groceries
    Category { mcc: "5812", online: false, price: 1.0 }, // restaurants
    Category { mcc: "5814", online: false, price: 0.5 }, // fast food
    Category { mcc: "5541", online: false, price: 1.2 }, // fuel
    Category { mcc: "5912", online: false, price: 0.7 }, // pharmacies
    Category { mcc: "4111", online: false, price: 0.5 }, // local transport
    Category { mcc: "7230", online: false, price: 0.9 }, // hairdressers
    Category { mcc: "5651", online: true, price: 1.3 },  // clothing
    Category { mcc: "5942", online: true, price: 0.7 },  // books
    Category { mcc: "5732", online: true, price: 1.6 },  // electronics
    Category { mcc: "5999", online: true, price: 1.0 },  // miscellaneous
    Category { mcc: "5816", online: true, price: 0.5 },  // digital goods
];

const USER_AGENTS: [&str; 8] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 Safari/605.1.15",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/26.0 Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36",
    "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:145.0) Gecko/20100101 Firefox/145.0",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Safari/537.36 Edg/142.0.0.0",
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) SamsungBrowser/29.0 Chrome/136.0.0.0 Mobile Safari/537.36",
];

/// A shop: in a street, or on the web.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Store {
    pub(crate) number: u32,
    pub(crate) spot: Spot,
    pub(crate) mcc: &'static str,
    pub(crate) online: bool,
    pub(crate) price: f64,
    pub(crate) terminals: u8,
}

/// A device with the network it is on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Device {
    pub(crate) id: u64,
    pub(crate) ip: IpAddr,
    pub(crate) user_agent: &'static str,
}

/// A point with a little scatter around its city.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spot {
    pub(crate) city: usize,
    pub(crate) lat: f64,
    pub(crate) lon: f64,
}

impl Spot {
    fn around(city: usize, rng: &mut Rng) -> Self {
        let mut scatter = || rng.random_range(-0.08..0.08);
        Self { city, lat: CITIES[city].lat + scatter(), lon: CITIES[city].lon + scatter() }
    }

    pub(crate) fn city(&self) -> &'static City {
        &CITIES[self.city]
    }
}

/// A person with habits.
#[derive(Debug)]
pub(crate) struct Customer {
    pub(crate) number: u64,
    pub(crate) home: Spot,
    /// Digits for the postal code and telephone number.
    pub(crate) digits: u64,
    mean_usd: f64,
    spread: f64,
    pub(crate) card: Card,
    second_card: Option<Card>,
    devices: [Device; 2],
    local: [u32; LOCAL_FAVOURITES],
    online: [u32; ONLINE_FAVOURITES],
}

impl Customer {
    /// What they pay in a store of this price level, in US dollars: log-normal around their own mean.
    pub(crate) fn spends_usd(&self, price: f64, rng: &mut Rng) -> f64 {
        let usd = self.mean_usd * price * (self.spread * normal(rng, 2.2)).exp();
        match rng.random_range(0..10_u8) {
            0..3 => usd.ceil() - 0.01,
            3 => usd.ceil(),
            _ => usd,
        }
    }

    pub(crate) fn mean_usd(&self) -> f64 {
        self.mean_usd
    }

    /// The card they take out: mostly the same one.
    pub(crate) fn usual_card(&self, rng: &mut Rng) -> Card {
        self.second_card.filter(|_| rng.random_bool(0.2)).unwrap_or(self.card)
    }

    /// The device they buy from: mostly the same one.
    pub(crate) fn usual_device(&self, rng: &mut Rng) -> Device {
        self.devices[usize::from(rng.random_bool(0.15))]
    }
}

/// Everyone and everything that traffic is made of, as a function of the seed.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) seed: u64,
    customers: u64,
    /// Cards expire one to four years after this one.
    pub(crate) year: u16,
    stores: Vec<Store>,
    local: Vec<Vec<u32>>,
    online: Vec<u32>,
}

impl World {
    pub(crate) fn new(seed: u64, customers: u64, year: u16) -> Self {
        let stores: Vec<Store> = (0..STORES).map(|number| store(seed, number)).collect();
        let mut local = vec![Vec::new(); CITIES.len()];
        let mut online = Vec::new();
        for store in &stores {
            if store.online {
                online.push(store.number);
            } else {
                local[store.spot.city].push(store.number);
            }
        }
        Self { seed, customers: customers.max(1), year, stores, local, online }
    }

    pub(crate) fn store(&self, number: u32) -> Store {
        self.stores[number as usize]
    }

    /// A store on the web.
    pub(crate) fn any_online(&self, rng: &mut Rng) -> Store {
        self.store(*pick(rng, &self.online))
    }

    /// A store in a city's streets.
    pub(crate) fn any_local(&self, city: usize, rng: &mut Rng) -> Store {
        self.store(*pick(rng, &self.local[city]))
    }

    /// Where they shop today: a favourite nine times in ten; in the streets of where they are.
    pub(crate) fn usual_store(&self, customer: &Customer, city: usize, rng: &mut Rng) -> Store {
        let favourite = rng.random_bool(0.9);
        match (rng.random_bool(0.4), favourite && city == customer.home.city) {
            (true, _) if favourite => self.store(*pick(rng, &customer.online)),
            (true, _) => self.any_online(rng),
            (false, true) => self.store(*pick(rng, &customer.local)),
            (false, false) => self.any_local(city, rng),
        }
    }

    /// Any customer's number.
    pub(crate) fn anyone(&self, rng: &mut Rng) -> u64 {
        rng.random_range(0..self.customers)
    }

    /// The number of a customer who is likely to pay at this hour of their day.
    pub(crate) fn anyone_awake(&self, at_us: i64, rng: &mut Rng) -> u64 {
        let mut number = self.anyone(rng);
        for _ in 0..AWAKE_TRIES {
            let key = hash(self.seed, Domain::Customer, number);
            let city = &CITIES[home_city(key)];
            if rng.random_bool(activity(at_us, city.utc_offset_h, day_shift_h(key))) {
                break;
            }
            number = self.anyone(rng);
        }
        number
    }

    /// The numbers of `count` customers of one city: the `i`th is the same at every call.
    pub(crate) fn neighbour(&self, city: usize, group: u64, i: u64) -> u64 {
        let candidate = |attempt: u64| mix(group, i * NEIGHBOUR_TRIES + attempt) % self.customers;
        (0..NEIGHBOUR_TRIES)
            .map(candidate)
            .find(|&number| home_city(hash(self.seed, Domain::Customer, number)) == city)
            .unwrap_or_else(|| candidate(0))
    }

    /// Where a customer is on that day: at home, or on a trip.
    pub(crate) fn whereabouts(&self, customer: &Customer, at_us: i64) -> Spot {
        let period = at_us.div_euclid(TRIP_DAYS * DAY_US).cast_unsigned();
        let mut rng = stream(self.seed, Domain::Trip, mix(customer.number, period));
        if rng.random_bool(TRIP_CHANCE) {
            return Spot::around(city_at(rng.random_range(0..total_weight())), &mut rng);
        }
        customer.home
    }

    pub(crate) fn customer(&self, number: u64) -> Customer {
        let key = hash(self.seed, Domain::Customer, number);
        let mut rng = stream(key, Domain::Customer, number);
        let home = Spot::around(home_city(key), &mut rng);
        let ip = home_ip(self.seed, number);
        let streets = &self.local[home.city];
        Customer {
            number,
            home,
            digits: rng.random(),
            mean_usd: (3.6 + 0.5 * normal(&mut rng, 2.5)).exp(),
            spread: rng.random_range(0.2..0.35),
            card: random_card(&mut rng, self.year),
            second_card: rng.random_bool(0.25).then(|| random_card(&mut rng, self.year)),
            devices: [0, 1].map(|_| Device {
                id: rng.random(),
                ip,
                user_agent: pick::<&str>(&mut rng, &USER_AGENTS),
            }),
            local: [0; LOCAL_FAVOURITES].map(|_| *pick(&mut rng, streets)),
            online: [0; ONLINE_FAVOURITES].map(|_| *pick(&mut rng, &self.online)),
        }
    }
}

fn home_city(key: u64) -> usize {
    city_at(u32::try_from(key % u64::from(total_weight())).expect("below a u32"))
}

/// Early birds to night owls: two hours either way.
fn day_shift_h(key: u64) -> i64 {
    i64::try_from((key >> 32) % 5).expect("below five") - 2
}

fn store(seed: u64, number: u32) -> Store {
    let mut rng = stream(seed, Domain::Store, u64::from(number));
    let category = pick(&mut rng, &CATEGORIES);
    // One store in each city comes first, so that no city is without.
    let cities = u32::try_from(CITIES.len()).expect("a short table");
    let (city, category) = if number < cities {
        (number as usize, &CATEGORIES[0])
    } else {
        (city_at(rng.random_range(0..total_weight())), category)
    };
    Store {
        number,
        spot: Spot::around(city, &mut rng),
        mcc: category.mcc,
        online: category.online,
        price: category.price,
        terminals: rng.random_range(1..=6),
    }
}

/// Every second customer has an IPv6 address out of the documentation prefix, the others one out of the
/// shared address space 100.64.0.0/10: not routed on the internet, and four million before one repeats.
fn home_ip(seed: u64, number: u64) -> IpAddr {
    if number.is_multiple_of(2) {
        let prefix = 0x2001_0db8_u128 << 96;
        return Ipv6Addr::from_bits(prefix | u128::from(seed & 0xffff) << 80 | u128::from(number)).into();
    }
    let host = (number / 2).wrapping_mul(2_654_435_761).wrapping_add(seed) & 0x3f_ffff;
    Ipv4Addr::from_bits(0x6440_0000 | u32::try_from(host).expect("22 bits")).into()
}

/// An attacker's device: never a customer's, and on 198.18.0.0/15, the range set apart for benchmarks.
pub(crate) fn attack_device(campaign_key: u64, network: u64) -> Device {
    let host = mix(campaign_key, network) & 0x1_ffff;
    Device {
        id: mix(campaign_key, 0xdead),
        ip: Ipv4Addr::from_bits(0xc612_0000 | u32::try_from(host).expect("17 bits")).into(),
        user_agent: USER_AGENTS[usize::try_from(campaign_key % 8).expect("below eight")],
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_customer_is_the_same_person_at_every_visit() {
        let world = World::new(3, 1_000, 2026);
        let (a, b) = (world.customer(77), world.customer(77));
        assert_eq!(format!("{a:?}"), format!("{b:?}"));
        assert_eq!(a.card.number, b.card.number);
        assert_ne!(a.card.number, world.customer(78).card.number);
    }

    #[test]
    fn customers_have_an_address_card_and_device_of_their_own() {
        let world = World::new(3, 50_000, 2026);
        let people: Vec<_> = (0..50_000).map(|n| world.customer(n)).collect();
        let distinct = |f: &dyn Fn(&Customer) -> String| people.iter().map(f).collect::<HashSet<_>>().len();
        assert_eq!(distinct(&|c| c.devices[0].ip.to_string()), 50_000);
        assert_eq!(distinct(&|c| c.devices[0].id.to_string()), 50_000);
        assert!(distinct(&|c| c.card.number.to_string()) > 49_990);
    }

    #[test]
    fn every_city_has_streets_and_the_web_has_stores() {
        for seed in 0..20 {
            let world = World::new(seed, 10, 2026);
            assert!(world.local.iter().all(|stores| !stores.is_empty()));
            assert!(world.online.len() > 100);
        }
    }

    #[test]
    fn neighbours_live_in_the_city() {
        let world = World::new(3, 100_000, 2026);
        let homes = (0..12).map(|i| world.customer(world.neighbour(8, 55, i)).home.city);
        assert!(homes.filter(|&city| city == 8).count() >= 11);
    }

    #[test]
    fn people_pay_by_day() {
        let world = World::new(3, 100_000, 2026);
        let mut rng = stream(3, Domain::Ordinary, 0);
        let noon_utc = 20_000 * DAY_US + DAY_US / 2;
        let mut at_night = 0;
        for _ in 0..5_000 {
            let city = world.customer(world.anyone_awake(noon_utc, &mut rng)).home.city();
            at_night += u32::from(matches!((12 + city.utc_offset_h).rem_euclid(24), 22.. | 0..6));
        }
        assert!(at_night < 1_000, "{at_night} of 5,000 paid between 22 and 6 o'clock");
    }
}
