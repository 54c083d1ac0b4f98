//! Repeatable randomness: every fact of the simulated world is a function of the seed and its number.

use rand::rngs::Xoshiro256PlusPlus;
use rand::{RngExt, SeedableRng};

/// Named by algorithm, so that a seed means the same traffic after an upgrade of `rand`.
pub(crate) type Rng = Xoshiro256PlusPlus;

/// Mixes two numbers into one that looks random (the finaliser of SplitMix64).
pub(crate) const fn mix(a: u64, b: u64) -> u64 {
    let mut z = a ^ b.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// What a stream of random numbers is for: keeps streams of equal numbers apart.
#[derive(Clone, Copy)]
pub(crate) enum Domain {
    Customer = 1,
    Trip,
    Store,
    Campaign,
    Step,
    Ordinary,
    Arrivals,
    Key,
    Deck,
}

/// The stream of random numbers that belongs to one thing.
pub(crate) fn stream(seed: u64, domain: Domain, number: u64) -> Rng {
    Rng::seed_from_u64(hash(seed, domain, number))
}

/// One random number that belongs to one thing.
pub(crate) const fn hash(seed: u64, domain: Domain, number: u64) -> u64 {
    mix(mix(seed, domain as u64), number)
}

/// A number of a text: FNV-1a, then mixed.
pub(crate) fn hash_text(text: &str) -> u64 {
    let fnv = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    mix(fnv, 0)
}

/// A standard normal number, cut off at `limit` on both sides.
pub(crate) fn normal(rng: &mut Rng, limit: f64) -> f64 {
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    let angle = std::f64::consts::TAU * rng.random::<f64>();
    (radius * angle.cos()).clamp(-limit, limit)
}

/// One element of a non-empty slice.
pub(crate) fn pick<'a, T>(rng: &mut Rng, items: &'a [T]) -> &'a T {
    &items[rng.random_range(0..items.len())]
}
