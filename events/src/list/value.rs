//! The values of lists. Read and written here alone, so that an entry and what is looked up have one form.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use crate::countries::is_country;
use crate::ids::token_parts;

/// Digits of a BIN at most.
const BIN_DIGITS_MAX: usize = 8;
/// Fewer digits say too little about who issued a card.
const BIN_DIGITS_MIN: usize = 2;
const EMAIL_CHARS_MAX: usize = 254;
const TEXT_CHARS_MAX: usize = 256;

/// What the values of a list are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListKind {
    /// Cards, by their tokens.
    Card,
    /// The first digits of card numbers, and ranges of them.
    Bin,
    /// IP addresses and networks.
    Ip,
    /// E-mail addresses, and whole domains.
    Email,
    /// Devices, by their ids.
    Device,
    /// Countries.
    Country,
    /// Any text, compared as it is.
    Text,
}

impl ListKind {
    /// All kinds.
    pub const ALL: [Self; 7] =
        [Self::Card, Self::Bin, Self::Ip, Self::Email, Self::Device, Self::Country, Self::Text];

    /// The kind as it is written in files and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Card => "card",
            Self::Bin => "bin",
            Self::Ip => "ip",
            Self::Email => "email",
            Self::Device => "device",
            Self::Country => "country",
            Self::Text => "text",
        }
    }

    const fn expected(self) -> &'static str {
        match self {
            Self::Card => "a card token: `tok_`, a key id, `_` and 32 hexadecimal digits",
            Self::Bin => {
                "2 to 8 digits, or a range of two such numbers of equal length, such as 411111 or 222100-272099"
            }
            Self::Ip => {
                "an IPv4 or IPv6 address, or a network that begins at its address, such as 192.0.2.7 or 10.0.0.0/8"
            }
            Self::Email => "an e-mail address, or a domain with its @, such as jane@shop.test or @shop.test",
            Self::Device | Self::Text => "1 to 256 characters without control characters",
            Self::Country => "an ISO 3166-1 alpha-2 code, such as DE",
        }
    }
}

impl fmt::Display for ListKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that is no value of a list of the kind. Does not hold the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}")]
pub struct InvalidListValue {
    expected: &'static str,
}

impl InvalidListValue {
    /// What would be one.
    #[must_use]
    pub const fn expected(&self) -> &'static str {
        self.expected
    }
}

/// A value in the one form it is compared in. [`fmt::Display`] writes that form, which reads back as itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListValue<'a> {
    /// A card's token: the id of the key that made it, and the first half of the HMAC.
    Card {
        /// The key's id.
        key: &'a str,
        /// The HMAC.
        mac: [u8; 16],
    },
    /// Card numbers by their first eight digits; a shorter BIN stands for all that begin with it.
    Bin {
        /// The first of them.
        first: u32,
        /// The last of them.
        last: u32,
    },
    /// Addresses of one family whose first bits are these; an IPv4 address written as IPv6 is IPv4.
    Network {
        /// The first of them.
        address: IpAddr,
        /// How many bits they share: all of them for a single address.
        bits: u8,
    },
    /// Anything else, by its text: e-mail in lower case, a country in upper case.
    Text(Cow<'a, str>),
}

impl<'a> ListValue<'a> {
    /// Reads a value of a kind.
    ///
    /// # Errors
    /// [`InvalidListValue`], which says what is expected and does not repeat the text.
    pub fn parse(kind: ListKind, text: &'a str) -> Result<Self, InvalidListValue> {
        let read = match kind {
            ListKind::Card => token_parts(text).map(|(key, mac)| Self::Card { key, mac }),
            ListKind::Bin => bin(text),
            ListKind::Ip => network(text),
            ListKind::Email => email(text),
            ListKind::Country => country(text),
            ListKind::Device | ListKind::Text => {
                is_text(text, TEXT_CHARS_MAX).then_some(Self::Text(Cow::Borrowed(text)))
            }
        };
        read.ok_or(InvalidListValue { expected: kind.expected() })
    }

    /// The digits that all of a BIN's numbers begin with and no others do, and how many they are; `None` for
    /// a range that no digits stand for.
    #[must_use]
    pub fn bin_prefix(first: u32, last: u32) -> Option<(u32, usize)> {
        let (first, last, count) = shortest(first, last);
        (first == last).then_some((first, count))
    }

    /// The first address of the network of `bits` bits that an address is in.
    #[must_use]
    pub fn network_of(address: IpAddr, bits: u8) -> IpAddr {
        match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
                Ipv4Addr::from_bits(v4.to_bits() & mask).into()
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                Ipv6Addr::from_bits(v6.to_bits() & mask).into()
            }
        }
    }
}

impl fmt::Display for ListValue<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Card { key, mac } => {
                write!(f, "tok_{key}_")?;
                mac.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
            Self::Bin { first, last } => match shortest(*first, *last) {
                (first, last, count) if first == last => write!(f, "{first:0count$}"),
                (first, last, count) => write!(f, "{first:0count$}-{last:0count$}"),
            },
            Self::Network { address, bits } if *bits == width(*address) => write!(f, "{address}"),
            Self::Network { address, bits } => write!(f, "{address}/{bits}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// The bounds of a BIN with as few digits as say the same, and their number.
const fn shortest(mut first: u32, mut last: u32) -> (u32, u32, usize) {
    let mut count = BIN_DIGITS_MAX;
    while count > BIN_DIGITS_MIN && first.is_multiple_of(10) && last % 10 == 9 {
        (first, last, count) = (first / 10, last / 10, count - 1);
    }
    (first, last, count)
}

fn bin(text: &str) -> Option<ListValue<'static>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let fits = (BIN_DIGITS_MIN..=BIN_DIGITS_MAX).contains(&first.len())
        && first.len() == last.len()
        && digits(first)
        && digits(last);
    if !fits {
        return None;
    }
    let missing = u32::try_from(BIN_DIGITS_MAX - first.len()).ok()?;
    let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
    let scale = 10_u32.pow(missing);
    (first <= last).then_some(ListValue::Bin { first: first * scale, last: last * scale + (scale - 1) })
}

const fn width(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

fn network(text: &str) -> Option<ListValue<'static>> {
    const MAPPED_BITS: u8 = 96;
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) if bits.bytes().all(|b| b.is_ascii_digit()) => (address, Some(bits)),
        Some(_) => return None,
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let bits = bits.map_or(Some(width(address)), |bits| bits.parse().ok())?;
    if bits > width(address) {
        return None;
    }
    let (address, bits) = match (address.to_canonical(), address) {
        (v4 @ IpAddr::V4(_), IpAddr::V6(_)) if bits >= MAPPED_BITS => (v4, bits - MAPPED_BITS),
        _ => (address, bits),
    };
    (ListValue::network_of(address, bits) == address).then_some(ListValue::Network { address, bits })
}

/// Only what cannot be an address or a domain is refused: an entry that no transaction can have does no harm.
fn email(text: &str) -> Option<ListValue<'_>> {
    let (local, domain) = text.rsplit_once('@')?;
    let well_formed = is_text(text, EMAIL_CHARS_MAX)
        && !text.contains(char::is_whitespace)
        && !local.contains('@')
        && !domain.is_empty();
    well_formed.then(|| ListValue::Text(lower(text)))
}

fn lower(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|b| b.is_ascii() && !b.is_ascii_uppercase()) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.to_lowercase())
}

fn country(text: &str) -> Option<ListValue<'_>> {
    if is_country(text) {
        return Some(ListValue::Text(Cow::Borrowed(text)));
    }
    let upper = text.to_ascii_uppercase();
    is_country(&upper).then_some(ListValue::Text(Cow::Owned(upper)))
}

fn is_text(text: &str, chars_max: usize) -> bool {
    // Bytes are an upper bound of characters, and nearly always enough to know.
    !text.is_empty()
        && (text.len() <= chars_max || text.chars().count() <= chars_max)
        && !text.chars().any(char::is_control)
}
