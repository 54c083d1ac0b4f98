//! Card numbers: Luhn-valid, in ranges of which the account part is invented.

use std::fmt;

use rand::RngExt;

use crate::random::Rng;

/// A card number. Made up, and still never printed by `Debug`, as everywhere else in the system.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct CardNumber(u64);

impl fmt::Display for CardNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for CardNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CardNumber(****)")
    }
}

/// A card as it is typed into a checkout.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Card {
    pub(crate) number: CardNumber,
    pub(crate) exp_month: u8,
    pub(crate) exp_year: u16,
    pub(crate) cvc: Cvc,
}

/// A card verification code: three digits, four on American Express.
#[derive(Clone, Copy)]
pub(crate) struct Cvc {
    value: u16,
    digits: u8,
}

impl fmt::Display for Cvc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0width$}", self.value, width = usize::from(self.digits))
    }
}

impl fmt::Debug for Cvc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cvc(***)")
    }
}

/// Six-digit issuer numbers of one brand.
struct BinRange {
    first: u32,
    count: u32,
    digits: u8,
    /// Share of all cards, per thousand.
    per_mille: u32,
}

/// Wide, so that no issuer number gets more cards than an issuer's would: rules on velocity per BIN
/// must stay quiet on ordinary traffic.
const BIN_RANGES: [BinRange; 8] = [
    BinRange { first: 400_000, count: 10_000, digits: 16, per_mille: 540 }, // Visa
    BinRange { first: 222_300, count: 7_000, digits: 16, per_mille: 160 },  // Mastercard, 2-series
    BinRange { first: 555_000, count: 1_000, digits: 16, per_mille: 140 },  // Mastercard
    BinRange { first: 378_000, count: 1_000, digits: 15, per_mille: 70 },   // American Express
    BinRange { first: 601_100, count: 100, digits: 16, per_mille: 20 },     // Discover
    BinRange { first: 356_000, count: 1_000, digits: 16, per_mille: 40 },   // JCB
    BinRange { first: 305_600, count: 100, digits: 14, per_mille: 10 },     // Diners Club
    BinRange { first: 620_000, count: 1_000, digits: 16, per_mille: 20 },   // UnionPay
];

/// Numbers that the API documents as test cards with a behaviour of their own.
const SPECIAL: [u64; 3] = [4_000_000_000_000_002, 4_000_000_000_009_235, 4_100_000_000_000_019];

/// A random card of a random brand. Expires one to four years after `year`.
pub(crate) fn random_card(rng: &mut Rng, year: u16) -> Card {
    let range = random_range(rng);
    let bin = range.first + rng.random_range(0..range.count);
    let account = rng.random_range(0..accounts(range.digits));
    card_of(bin, account, range.digits, rng, year)
}

/// The `nth` of a run of cards with consecutive account numbers under one issuer number.
/// `rng` draws expiry and code only.
pub(crate) fn sequential_card(campaign: u64, nth: u64, rng: &mut Rng, year: u16) -> Card {
    let range = &BIN_RANGES[0];
    let bin =
        range.first + u32::try_from(campaign % u64::from(range.count)).expect("below the count of BINs");
    let account = (campaign / u64::from(range.count) % 900_000) * 1_000 + nth;
    card_of(bin, account, range.digits, rng, year)
}

fn random_range(rng: &mut Rng) -> &'static BinRange {
    let mut at = rng.random_range(0..1_000_u32);
    for range in &BIN_RANGES {
        match at.checked_sub(range.per_mille) {
            Some(rest) => at = rest,
            None => return range,
        }
    }
    &BIN_RANGES[0]
}

/// How many account numbers lie between a six-digit issuer number and the check digit.
const fn accounts(digits: u8) -> u64 {
    10_u64.pow(digits as u32 - 7)
}

fn card_of(bin: u32, account: u64, digits: u8, rng: &mut Rng, year: u16) -> Card {
    let mut number = complete(u64::from(bin) * accounts(digits) + account);
    if SPECIAL.contains(&number.0) {
        number = complete(u64::from(bin) * accounts(digits) + account + 1_000);
    }
    let cvc_digits = if digits == 15 { 4 } else { 3 };
    Card {
        number,
        exp_month: rng.random_range(1..=12),
        exp_year: year + rng.random_range(1..=4),
        cvc: Cvc { value: rng.random_range(0..10_u16.pow(cvc_digits)), digits: cvc_digits as u8 },
    }
}

/// Appends the Luhn check digit.
fn complete(payload: u64) -> CardNumber {
    let mut sum = 0;
    let mut rest = payload;
    let mut double = true;
    while rest > 0 {
        sum += luhn_term(rest % 10, double);
        double = !double;
        rest /= 10;
    }
    CardNumber(payload * 10 + (10 - sum % 10) % 10)
}

const fn luhn_term(digit: u64, double: bool) -> u64 {
    match (double, digit) {
        (false, d) => d,
        (true, d @ 0..=4) => d * 2,
        (true, d) => d * 2 - 9,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{Domain, stream};

    /// Written apart from `complete`, from the right, over the whole text.
    fn luhn_valid(text: &str) -> bool {
        let sum: u32 = text
            .bytes()
            .rev()
            .enumerate()
            .map(|(i, b)| {
                let d = u32::from(b - b'0') * if i % 2 == 1 { 2 } else { 1 };
                if d > 9 { d - 9 } else { d }
            })
            .sum();
        sum.is_multiple_of(10)
    }

    #[test]
    fn the_oracle_knows_good_and_bad_numbers() {
        assert!(luhn_valid("4242424242424242") && luhn_valid("378282246310005"));
        assert!(!luhn_valid("4242424242424241"));
    }

    #[test]
    fn every_card_is_luhn_valid_of_its_brands_length_and_expires_in_one_to_four_years() {
        let mut rng = stream(7, Domain::Ordinary, 0);
        for _ in 0..20_000 {
            let card = random_card(&mut rng, 2026);
            let text = card.number.to_string();
            assert!(luhn_valid(&text), "{text}");
            let digits = match &text[..2] {
                "37" => 15,
                "30" => 14,
                _ => 16,
            };
            assert_eq!(text.len(), digits, "{text}");
            assert_eq!(card.cvc.to_string().len(), if digits == 15 { 4 } else { 3 });
            assert!((1..=12).contains(&card.exp_month) && (2027..=2030).contains(&card.exp_year));
            assert!(!SPECIAL.contains(&card.number.0), "a documented test card in ordinary traffic");
        }
    }

    #[test]
    fn sequential_cards_share_a_bin_and_follow_each_other() {
        let mut rng = stream(7, Domain::Ordinary, 0);
        let cards: Vec<u64> = (0..30).map(|i| sequential_card(99, i, &mut rng, 2026).number.0).collect();
        for pair in cards.windows(2) {
            assert_eq!(pair[1] / 10, pair[0] / 10 + 1);
            assert!(luhn_valid(&pair[1].to_string()));
        }
        assert_eq!(cards[0] / 10_u64.pow(10), cards[29] / 10_u64.pow(10));
    }

    #[test]
    fn a_special_test_card_is_stepped_over() {
        let mut rng = stream(7, Domain::Ordinary, 0);
        let card = card_of(400_000, 0, 16, &mut rng, 2026);
        assert_ne!(card.number.0, SPECIAL[0]);
        assert!(luhn_valid(&card.number.to_string()));
    }

    #[test]
    fn debug_output_shows_no_card_data() {
        let mut rng = stream(7, Domain::Ordinary, 0);
        let card = random_card(&mut rng, 2026);
        assert!(!format!("{card:?}").contains(&card.number.to_string()));
        assert!(format!("{card:?}").contains("Cvc(***)"));
    }
}
