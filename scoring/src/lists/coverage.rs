//! From a value to the keys of all entries that would cover it.
//!
//! A network or a BIN covers what begins with it: one look-up for each length there is. A range of BINs that
//! no digits stand for is found among ranges of its class of size.

use std::collections::BTreeMap;
use std::net::IpAddr;

use events::ListValue;

/// The first byte of the key of a range of BINs; other BINs have the number of their digits there.
const RANGE: u8 = u8::MAX;
const LENGTHS: usize = 129;

/// How many entries of which form a list has: what need not be looked for.
#[derive(Debug)]
pub(super) struct Coverage {
    /// By family (IPv4, IPv6) and bits, or by number of digits.
    lengths: [Vec<u32>; 2],
    /// E-mail entries that are whole domains.
    domains: u32,
    /// Class of size, first, last → entries, whatever their scope.
    ranges: BTreeMap<(u32, u32, u32), u32>,
}

/// The key of an entry: short, and different for different values of one kind.
pub(super) fn key(value: &ListValue<'_>, out: &mut Vec<u8>) {
    match value {
        // The last 16 bytes are the HMAC.
        ListValue::Card { key, mac } => out.extend(key.bytes().chain(*mac)),
        ListValue::Bin { first, last } => match ListValue::bin_prefix(*first, *last) {
            Some((digits, count)) => bin_key(digits, count, out),
            None => out.extend([RANGE].into_iter().chain(first.to_le_bytes()).chain(last.to_le_bytes())),
        },
        ListValue::Network { address, bits } => network_key(*address, *bits, out),
        ListValue::Text(text) => out.extend(text.bytes()),
    }
}

#[allow(clippy::cast_possible_truncation)] // at most 8
fn bin_key(digits: u32, count: usize, out: &mut Vec<u8>) {
    out.push(count as u8);
    out.extend(digits.to_le_bytes());
}

fn network_key(address: IpAddr, bits: u8, out: &mut Vec<u8>) {
    out.push(bits);
    match address {
        IpAddr::V4(v4) => out.extend(v4.octets()),
        IpAddr::V6(v6) => out.extend(v6.octets()),
    }
}

impl Coverage {
    pub(super) fn new() -> Self {
        Self { lengths: [vec![0; LENGTHS], vec![0; LENGTHS]], domains: 0, ranges: BTreeMap::new() }
    }

    /// An entry with this key has come, or gone.
    pub(super) fn count(&mut self, kind: events::ListKind, key: &[u8], came: bool) {
        use events::ListKind;
        match kind {
            ListKind::Bin if key[0] == RANGE => {
                let bound = |at: usize| u32::from_le_bytes(key[at..at + 4].try_into().expect("four bytes"));
                let (first, last) = (bound(1), bound(5));
                let class = (class_of(first, last), first, last);
                let entries = self.ranges.entry(class).or_default();
                step(entries, came);
                if *entries == 0 {
                    self.ranges.remove(&class);
                }
            }
            ListKind::Bin => step(&mut self.lengths[0][usize::from(key[0])], came),
            ListKind::Ip => {
                let family = usize::from(key.len() > 5);
                step(&mut self.lengths[family][usize::from(key[0])], came);
            }
            ListKind::Email if key[0] == b'@' => step(&mut self.domains, came),
            _ => {}
        }
    }

    /// Whether `found` says so of the key of any entry that would cover the value.
    pub(super) fn any(&self, value: &ListValue<'_>, mut found: impl FnMut(&[u8]) -> bool) -> bool {
        let mut buffer = Vec::with_capacity(64);
        let mut ask = |write: &dyn Fn(&mut Vec<u8>)| {
            buffer.clear();
            write(&mut buffer);
            found(&buffer)
        };
        match value {
            ListValue::Card { .. } => ask(&|out| key(value, out)),
            ListValue::Network { address, bits } => {
                let lengths = &self.lengths[usize::from(address.is_ipv6())];
                let present = (0..=*bits).filter(|&bits| lengths[usize::from(bits)] > 0);
                let mut present = present.map(|bits| (ListValue::network_of(*address, bits), bits));
                present.any(|(network, bits)| ask(&|out| network_key(network, bits, out)))
            }
            ListValue::Bin { first, last } => {
                let mut prefixes = (1_u32..=8).filter(|&count| self.lengths[0][count as usize] > 0);
                let covers = prefixes.any(|count| {
                    let scale = 10_u32.pow(8 - count);
                    first / scale == last / scale && ask(&|out| bin_key(first / scale, count as usize, out))
                });
                covers || self.ranges_around(*first, *last).any(|range| ask(&|out| key(&range, out)))
            }
            ListValue::Text(text) => {
                let domain = text.rfind('@').filter(|_| self.domains > 0).map(|at| &text[at..]);
                ask(&|out| out.extend(text.bytes()))
                    || domain.is_some_and(|domain| ask(&|out| out.extend(domain.bytes())))
            }
        }
    }

    /// The ranges that hold all from `first` to `last`. In each class a range begins at most its class's size
    /// before what it holds, and at least half of such a window is the range's own: few are looked at in vain.
    fn ranges_around(&self, first: u32, last: u32) -> impl Iterator<Item = ListValue<'static>> {
        let classes = self.ranges.last_key_value().map_or(0, |(&(class, _, _), _)| class + 1);
        (0..classes).flat_map(move |class| {
            let from = last.saturating_sub((1 << class) - 1);
            let near =
                (from <= first).then(|| self.ranges.range((class, from, 0)..=(class, first, u32::MAX)));
            let around = near.into_iter().flatten().filter(move |&(&(_, _, end), _)| end >= last);
            around.map(|(&(_, first, last), _)| ListValue::Bin { first, last })
        })
    }
}

/// The least power of two that is no less than a range's size.
const fn class_of(first: u32, last: u32) -> u32 {
    (last - first + 1).next_power_of_two().trailing_zeros()
}

fn step(count: &mut u32, up: bool) {
    *count = if up { *count + 1 } else { count.saturating_sub(1) };
}
