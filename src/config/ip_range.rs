//! Address ranges: one address, or `address/prefix` (CIDR, RFC 4632 and RFC 4291, section 2.3).

use std::fmt;
use std::net::IpAddr;

/// A range of addresses. IPv4 addresses mapped into IPv6 (`::ffff:192.0.2.1`) count as what they map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IpRange {
    network: IpAddr,
    prefix_bits: u8,
}

impl IpRange {
    /// Reads `192.0.2.7`, `192.0.2.0/24`, `2001:db8::/32`. Bits behind the prefix do not count: `192.0.2.7/24` is
    /// `192.0.2.0/24`. `None` when it is none of these.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let width = width_bits(address);
        let prefix_bits = match prefix {
            None => width,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok()?,
            Some(_) => return None,
        };
        if prefix_bits > width {
            return None;
        }
        // `::ffff:192.0.2.0/120` is `192.0.2.0/24`; a shorter prefix covers more than the mapped addresses.
        let (address, prefix_bits) = match address.to_canonical() {
            IpAddr::V4(v4) if width == 128 && prefix_bits >= 96 => (IpAddr::V4(v4), prefix_bits - 96),
            _ => (address, prefix_bits),
        };
        Some(Self { network: masked(address, prefix_bits), prefix_bits })
    }

    /// Whether `address` is in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        width_bits(address) == width_bits(self.network) && masked(address, self.prefix_bits) == self.network
    }
}

impl fmt::Display for IpRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix_bits)
    }
}

const fn width_bits(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// `address` with the bits behind the prefix set to 0.
fn masked(address: IpAddr, prefix_bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix_bits)).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix_bits)).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(range: &str, address: &str) -> bool {
        IpRange::parse(range).unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn a_range_contains_its_addresses_and_no_others() {
        for (range, inside, outside) in [
            ("192.0.2.7", "192.0.2.7", "192.0.2.8"),
            ("192.0.2.7/24", "192.0.2.255", "192.0.3.0"),
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("0.0.0.0/0", "203.0.113.9", "::1"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::/0", "2001:db8::1", "192.0.2.1"),
            ("::1", "::1", "::2"),
            ("::ffff:192.0.2.0/120", "192.0.2.9", "192.0.3.9"),
        ] {
            assert!(contains(range, inside), "{range} {inside}");
            assert!(!contains(range, outside), "{range} {outside}");
        }
    }

    #[test]
    fn a_mapped_address_counts_as_the_address_that_it_maps() {
        assert!(contains("192.0.2.0/24", "::ffff:192.0.2.1"));
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in
            ["", "192.0.2", "192.0.2.0/33", "::/129", "192.0.2.0/", "192.0.2.0/+8", "192.0.2.0/8/8", "a/8"]
        {
            assert_eq!(IpRange::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_range_prints_as_it_is_read() {
        assert_eq!(IpRange::parse("192.0.2.7/24").unwrap().to_string(), "192.0.2.0/24");
    }
}
