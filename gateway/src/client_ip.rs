//! Whose address a request comes from. `X-Forwarded-For` is believed only from configured proxies:
//! from anyone else it would be a way around the rate limit.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::str::FromStr;

use axum::extract::ConnectInfo;
use axum::http::{Extensions, HeaderMap};

/// A network in CIDR notation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    address: u128,
    mask: u128,
}

/// A text that is not a network.
#[derive(Debug, thiserror::Error)]
#[error("expected a network such as 10.0.0.0/8, 192.0.2.7 or fd00::/8")]
pub(crate) struct InvalidNetwork;

impl FromStr for Network {
    type Err = InvalidNetwork;

    fn from_str(text: &str) -> Result<Self, InvalidNetwork> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse::<u8>().map_err(|_| InvalidNetwork)?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| InvalidNetwork)?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(bits);
        if prefix > bits {
            return Err(InvalidNetwork);
        }
        let mask = u128::MAX.checked_shl(u32::from(bits - prefix)).unwrap_or(0);
        Ok(Self { address: as_v6_bits(address) & mask, mask })
    }
}

impl Network {
    fn contains(&self, address: IpAddr) -> bool {
        as_v6_bits(address) & self.mask == self.address
    }
}

/// IPv4 addresses in their IPv6-mapped form, so that both kinds compare with one mask.
fn as_v6_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The address that limits are kept by: the peer's, or behind trusted proxies the last one in
/// `X-Forwarded-For` that is not itself a trusted proxy.
pub(crate) fn client_ip(extensions: &Extensions, headers: &HeaderMap, trusted: &[Network]) -> IpAddr {
    let peer = extensions
        .get::<ConnectInfo<SocketAddr>>()
        .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(address)| address.ip().to_canonical());
    if trusted.is_empty() {
        return peer;
    }
    let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    if !is_trusted(peer) {
        return peer;
    }
    let mut client = peer;
    // Each proxy appends the address it saw, so the list is read from its end.
    for value in headers.get_all("x-forwarded-for").iter().rev() {
        let Ok(list) = value.to_str() else { return client };
        for entry in list.rsplit(',') {
            let Ok(address) = entry.trim().parse::<IpAddr>() else { return client };
            client = address.to_canonical();
            if !is_trusted(client) {
                return client;
            }
        }
    }
    client
}

/// What a bucket is kept for: an IPv6 subscriber has a /64, and all its addresses count as one.
pub(crate) fn bucket_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits() & (u128::MAX << 64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip_of(peer: &str, forwarded: &[&str], trusted: &[&str]) -> String {
        let mut extensions = Extensions::new();
        extensions.insert(ConnectInfo(SocketAddr::new(peer.parse().unwrap(), 9)));
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append("x-forwarded-for", value.parse().unwrap());
        }
        headers.append("x-real-ip", "203.0.113.99".parse().unwrap());
        let trusted: Vec<Network> = trusted.iter().map(|t| t.parse().unwrap()).collect();
        client_ip(&extensions, &headers, &trusted).to_string()
    }

    #[test]
    fn forwarded_addresses_are_believed_from_trusted_proxies_only() {
        assert_eq!(ip_of("198.51.100.1", &["203.0.113.5"], &[]), "198.51.100.1");
        assert_eq!(ip_of("198.51.100.1", &["203.0.113.5"], &["10.0.0.0/8"]), "198.51.100.1");
        assert_eq!(ip_of("10.1.2.3", &["203.0.113.5"], &["10.0.0.0/8"]), "203.0.113.5");
    }

    #[test]
    fn what_a_client_wrote_into_the_header_itself_is_not_believed() {
        assert_eq!(ip_of("10.1.2.3", &["1.1.1.1, 203.0.113.5, 10.9.9.9"], &["10.0.0.0/8"]), "203.0.113.5");
        assert_eq!(ip_of("10.1.2.3", &["1.1.1.1", "203.0.113.5"], &["10.0.0.0/8"]), "203.0.113.5");
        assert_eq!(ip_of("10.1.2.3", &["1.1.1.1, rubbish"], &["10.0.0.0/8"]), "10.1.2.3");
    }

    #[test]
    fn networks_have_prefixes_of_their_own_kind() {
        for bad in ["10.0.0.0/33", "::/129", "10.0.0/8", "", "10.0.0.0/-1", "10.0.0.0/x"] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
        let all: Network = "0.0.0.0/0".parse().unwrap();
        assert!(all.contains("203.0.113.5".parse().unwrap()));
        assert!(!all.contains("2001:db8::1".parse().unwrap()), "an IPv4 network holds no IPv6 address");
    }

    #[test]
    fn one_ipv6_subscriber_is_one_bucket() {
        let bucket = |text: &str| bucket_of(text.parse().unwrap());
        assert_eq!(bucket("2001:db8:1:2::1"), bucket("2001:db8:1:2:ffff::9"));
        assert_ne!(bucket("2001:db8:1:2::1"), bucket("2001:db8:1:3::1"));
        assert_ne!(bucket("192.0.2.1"), bucket("192.0.2.2"));
    }
}
