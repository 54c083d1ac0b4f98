//! One payment, and the request body that submits it.

use std::fmt::{self, Write as _};

use bytes::Bytes;

use crate::card::Card;
use crate::place::Money;
use crate::population::{Device, Spot, Store};

const FIRST_NAMES: [&str; 24] = [
    "anna", "ben", "carla", "david", "emma", "felix", "grace", "hugo", "ines", "jack", "kenji", "laura",
    "marco", "nina", "oscar", "paula", "quentin", "rosa", "sam", "tina", "umar", "vera", "will", "yuki",
];
const LAST_NAMES: [&str; 24] = [
    "adams", "bauer", "costa", "dupont", "evans", "fischer", "garcia", "hughes", "ito", "jones", "keller",
    "lopez", "meyer", "novak", "olsen", "petit", "quinn", "rossi", "sato", "taylor", "ueda", "vogel",
    "wright", "young",
];
/// Reserved for examples (RFC 2606): no mail ever arrives there.
const MAIL_HOSTS: [&str; 3] = ["example.com", "example.net", "example.org"];
/// Longest body the generator writes, rounded up.
const BODY_BYTES: usize = 1_152;

/// Who pays, as far as the store knows.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Payer {
    /// With an account.
    Customer { number: u64, digits: u64 },
    /// Without one: only the throw-away address they typed.
    Guest(u64),
}

/// Everything one request says.
#[derive(Debug)]
pub(crate) struct Payment {
    pub(crate) amount_minor: i64,
    pub(crate) money: Money,
    pub(crate) card: Card,
    pub(crate) payer: Payer,
    pub(crate) device: Device,
    /// Where the card's statements go, with the digits of the postal code.
    pub(crate) billing: (usize, u64),
    /// Where the goods go, when they are sent.
    pub(crate) shipping: Option<(usize, u64)>,
    pub(crate) spot: Spot,
    pub(crate) store: Store,
    pub(crate) terminal: u8,
}

impl Payment {
    /// The canonical request body. `index` becomes the order number.
    pub(crate) fn body(&self, index: u64) -> Bytes {
        let mut text = String::with_capacity(BODY_BYTES);
        self.write(&mut text, index).expect("writing to a String cannot fail");
        Bytes::from(text)
    }

    fn write(&self, out: &mut String, index: u64) -> fmt::Result {
        let Card { number, exp_month, exp_year, cvc } = &self.card;
        write!(
            out,
            r#"{{"amount":{},"currency":"{}","card":{{"number":"{number}","exp_month":{exp_month},"exp_year":{exp_year},"cvc":"{cvc}"}}"#,
            self.amount_minor, self.money.code,
        )?;
        self.write_payer(out)?;
        let Device { id, ip, user_agent } = &self.device;
        write!(out, r#","device":{{"id":"dev_{}","ip":"{ip}","user_agent":"{user_agent}"}}"#, Letters(*id))?;
        write_address(out, "billing", self.billing)?;
        if let Some(shipping) = self.shipping {
            write_address(out, "shipping", shipping)?;
        }
        let Store { number: store, mcc, online, .. } = self.store;
        write!(
            out,
            r#","location":{{"country":"{}","lat":{},"lon":{}}},"mcc":"{mcc}""#,
            self.spot.city().country,
            Degrees(self.spot.lat),
            Degrees(self.spot.lon),
        )?;
        let (kind, channel) = if online { ("web", "online") } else { ("trm", "in_store") };
        write!(
            out,
            r#","terminal_id":"{kind}_{store:05}_{}","metadata":{{"store":"str_{store:05}","channel":"{channel}","order":"ord_{index}"}}}}"#,
            self.terminal,
        )
    }

    fn write_payer(&self, out: &mut String) -> fmt::Result {
        match self.payer {
            Payer::Customer { number, digits } => {
                let first = FIRST_NAMES[at(digits, FIRST_NAMES.len())];
                let last = LAST_NAMES[at(digits >> 8, LAST_NAMES.len())];
                let host = MAIL_HOSTS[at(digits >> 16, MAIL_HOSTS.len())];
                let phone = crate::place::CITIES[self.billing.0].phone;
                let line = (digits >> 24) % 10_000;
                write!(
                    out,
                    r#","customer":{{"id":"cus_{number:07}","email":"{first}.{last}{number}@{host}","phone":"{phone}{line:04}"}}"#
                )
            }
            Payer::Guest(key) => {
                let host = MAIL_HOSTS[at(key, MAIL_HOSTS.len())];
                write!(out, r#","customer":{{"email":"{}@{host}"}}"#, Letters(key))
            }
        }
    }
}

fn at(number: u64, len: usize) -> usize {
    usize::try_from(number % len as u64).expect("below a short table's length")
}

fn write_address(out: &mut String, name: &str, (city, mut digits): (usize, u64)) -> fmt::Result {
    let city = &crate::place::CITIES[city];
    write!(out, r#","{name}":{{"country":"{}","city":"{}","postal_code":""#, city.country, city.name)?;
    for c in city.postal.chars() {
        if c == '#' {
            write!(out, "{}", digits % 10)?;
            digits /= 10;
        } else {
            out.push(c);
        }
    }
    out.write_str("\"}")
}

/// A number as sixteen letters: unlike decimal or hexadecimal digits, never taken for a card number.
pub(crate) struct Letters(pub(crate) u64);

impl fmt::Display for Letters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters: [u8; 16] = std::array::from_fn(|i| b'a' + (self.0 >> (4 * i) & 0xf) as u8);
        f.write_str(std::str::from_utf8(&letters).expect("letters a to p"))
    }
}

/// Degrees to four decimals, about ten metres. The formatter of floats would take a fifth of the
/// generator's time.
struct Degrees(f64);

impl fmt::Display for Degrees {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = (self.0 * 1e4).round() as i64;
        let sign = if parts < 0 { "-" } else { "" };
        write!(f, "{sign}{}.{:04}", parts.abs() / 10_000, parts.abs() % 10_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn degrees_are_written_as_the_formatter_of_floats_would() {
        for degrees in [0.0, -0.1278, 0.00004, 51.50742, -118.2437, 179.99996, -0.00016] {
            let exact: f64 = format!("{degrees:.4}").parse().unwrap();
            let text = Degrees(degrees).to_string();
            assert!((text.parse::<f64>().unwrap() - exact).abs() < 1e-9, "{text} for {degrees}");
            assert!(serde_json::from_str::<f64>(&text).is_ok());
        }
    }
}
