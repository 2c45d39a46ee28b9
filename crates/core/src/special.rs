//! Special-purpose addresses: where no socket opens unless the operator allowed it.
//!
//! The sources are the two IANA registries of special-purpose addresses (RFC 6890, as updated by RFC 8190), multicast
//! (RFC 5771, RFC 4291) and the special-use names of RFC 6761. Everything that a registry lists counts, even the few
//! blocks of it that are routed (AS112, AMT): no proxy stands there. In IPv6 only 2000::/3 is global unicast space
//! (RFC 4291, section 2.4), so everything outside it counts too.
//!
//! An IPv6 address that carries an IPv4 address is as special as the one it carries: a socket to it may end there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Blocks of the IANA IPv4 special-purpose address registry, with multicast: network and prefix length.
const V4_BLOCKS: [(Ipv4Addr, u32); 18] = [
    (Ipv4Addr::UNSPECIFIED, 8),           // this network, RFC 791
    (Ipv4Addr::new(10, 0, 0, 0), 8),      // private, RFC 1918
    (Ipv4Addr::new(100, 64, 0, 0), 10),   // carrier NAT, RFC 6598
    (Ipv4Addr::new(127, 0, 0, 0), 8),     // loopback, RFC 1122
    (Ipv4Addr::new(169, 254, 0, 0), 16),  // link-local, RFC 3927; metadata services of clouds
    (Ipv4Addr::new(172, 16, 0, 0), 12),   // private, RFC 1918
    (Ipv4Addr::new(192, 0, 0, 0), 24),    // IETF protocol assignments, RFC 6890
    (Ipv4Addr::new(192, 0, 2, 0), 24),    // documentation, RFC 5737
    (Ipv4Addr::new(192, 31, 196, 0), 24), // AS112, RFC 7535
    (Ipv4Addr::new(192, 52, 193, 0), 24), // AMT, RFC 7450
    (Ipv4Addr::new(192, 88, 99, 0), 24),  // 6to4 relays, RFC 7526
    (Ipv4Addr::new(192, 168, 0, 0), 16),  // private, RFC 1918
    (Ipv4Addr::new(192, 175, 48, 0), 24), // AS112, RFC 7534
    (Ipv4Addr::new(198, 18, 0, 0), 15),   // benchmarking, RFC 2544
    (Ipv4Addr::new(198, 51, 100, 0), 24), // documentation, RFC 5737
    (Ipv4Addr::new(203, 0, 113, 0), 24),  // documentation, RFC 5737
    (Ipv4Addr::new(224, 0, 0, 0), 4),     // multicast, RFC 5771
    (Ipv4Addr::new(240, 0, 0, 0), 4),     // reserved, RFC 1112, and broadcast
];

/// Blocks of the IANA IPv6 special-purpose address registry that lie inside 2000::/3, but for Teredo and 6to4, which
/// carry an IPv4 address.
const V6_BLOCKS: [(Ipv6Addr, u32); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // IETF protocol assignments, RFC 2928
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32), // documentation, RFC 3849
    (Ipv6Addr::new(0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0), 48), // AS112, RFC 7534
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20), // documentation, RFC 9637
];

/// Names, and ends of names, that never leave the machine or its network (RFC 6761, RFC 6762, and ICANN's `internal`),
/// that the DNS does not know (RFC 7686, RFC 9476), or that never exist. In `arpa` stands the network's own machinery
/// (RFC 3172; `home.arpa` of RFC 8375 among it). `example` is the top-level domain, not `example.com`.
const NAMES: [&str; 9] =
    ["localhost", "local", "internal", "arpa", "onion", "alt", "test", "invalid", "example"];

/// Whether `ip` is a special-purpose address: loopback, private, link-local, carrier NAT, documentation,
/// benchmarking, multicast, reserved, or any other block of the IANA registries.
///
/// IPv4-mapped, IPv4-compatible and IPv4-translated addresses, well-known NAT64 (64:ff9b::/96, RFC 6052), 6to4
/// (2002::/16, RFC 3056) and Teredo (2001::/32, RFC 4380: its server and its client) are as special as the IPv4
/// address in them. Local-use NAT64 (64:ff9b:1::/48, RFC 8215) always is: where in it the IPv4 address stands is the
/// network's own choice.
///
/// ```
/// use smartproxy_core::special::is_special;
/// assert!(is_special("169.254.169.254".parse().unwrap()));
/// assert!(is_special("::ffff:10.0.0.1".parse().unwrap()));
/// assert!(!is_special("8.8.8.8".parse().unwrap()));
/// ```
pub fn is_special(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_special_v4(ip),
        IpAddr::V6(ip) => is_special_v6(ip),
    }
}

/// Whether the host name `name` can only mean something local, or nothing: `localhost`, the special-use top-level
/// domains, and every name without a dot (it is looked up in the local search domains). Case and a root dot at the
/// end do not matter.
///
/// ```
/// use smartproxy_core::special::is_special_name;
/// assert!(is_special_name("db.internal"));
/// assert!(!is_special_name("proxy.example.com"));
/// ```
pub fn is_special_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let ends_with = |end: &str| {
        name.len() > end.len()
            && name.as_bytes()[name.len() - end.len() - 1] == b'.'
            && name.as_bytes()[name.len() - end.len()..].eq_ignore_ascii_case(end.as_bytes())
    };
    !name.contains('.') || NAMES.iter().any(|end| name.eq_ignore_ascii_case(end) || ends_with(end))
}

fn is_special_v4(ip: Ipv4Addr) -> bool {
    V4_BLOCKS.iter().any(|(network, length)| (ip.to_bits() ^ network.to_bits()) >> (32 - length) == 0)
}

fn is_special_v6(ip: Ipv6Addr) -> bool {
    let carried = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match ip.segments() {
        // Compatible (::a.b.c.d; holds :: and ::1 as well, which are 0/8), mapped, and translated (RFC 2765).
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => is_special_v4(carried(high, low)),
        // Teredo writes the client's address inverted.
        [0x2001, 0, high, low, _, _, client_high, client_low] => {
            is_special_v4(carried(high, low)) || is_special_v4(carried(!client_high, !client_low))
        }
        [first, ..] => {
            first & 0xe000 != 0x2000
                || V6_BLOCKS
                    .iter()
                    .any(|(network, length)| (ip.to_bits() ^ network.to_bits()) >> (128 - length) == 0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn special(ip: &str) -> bool {
        is_special(ip.parse().unwrap())
    }

    #[test]
    fn first_and_last_address_of_every_v4_block_are_special_and_their_neighbours_are_not() {
        for (first, last) in [
            ("0.0.0.0", "0.255.255.255"),
            ("10.0.0.0", "10.255.255.255"),
            ("100.64.0.0", "100.127.255.255"),
            ("127.0.0.0", "127.255.255.255"),
            ("169.254.0.0", "169.254.255.255"),
            ("172.16.0.0", "172.31.255.255"),
            ("192.0.0.0", "192.0.0.255"),
            ("192.0.2.0", "192.0.2.255"),
            ("192.31.196.0", "192.31.196.255"),
            ("192.52.193.0", "192.52.193.255"),
            ("192.88.99.0", "192.88.99.255"),
            ("192.168.0.0", "192.168.255.255"),
            ("192.175.48.0", "192.175.48.255"),
            ("198.18.0.0", "198.19.255.255"),
            ("198.51.100.0", "198.51.100.255"),
            ("203.0.113.0", "203.0.113.255"),
            ("224.0.0.0", "255.255.255.255"),
        ] {
            assert!(special(first) && special(last), "{first} {last}");
            let (first, last): (Ipv4Addr, Ipv4Addr) = (first.parse().unwrap(), last.parse().unwrap());
            if let Some(before) = first.to_bits().checked_sub(1) {
                assert!(!is_special(Ipv4Addr::from_bits(before).into()), "before {first}");
            }
            if let Some(after) = last.to_bits().checked_add(1) {
                assert!(!is_special(Ipv4Addr::from_bits(after).into()), "after {last}");
            }
        }
    }

    /// The whole IANA IPv4 Special-Purpose Address Registry.
    const V4_REGISTRY: [&str; 27] = [
        "0.0.0.0/8",
        "0.0.0.0/32",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.0.0/29",
        "192.0.0.8/32",
        "192.0.0.9/32",
        "192.0.0.10/32",
        "192.0.0.170/32",
        "192.0.0.171/32",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.88.99.2/32",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "240.0.0.0/4",
        "255.255.255.255/32",
        // Not in the registry: multicast, RFC 5771.
        "224.0.0.0/4",
    ];

    /// The IANA IPv6 Special-Purpose Address Registry, but for the blocks that carry an IPv4 address.
    const V6_REGISTRY: [&str; 23] = [
        "::1/128",
        "::/128",
        "64:ff9b:1::/48",
        "100::/64",
        "100:0:0:1::/64",
        "2001::/23",
        "2001:1::1/128",
        "2001:1::2/128",
        "2001:1::3/128",
        "2001:2::/48",
        "2001:3::/32",
        "2001:4:112::/48",
        "2001:10::/28",
        "2001:20::/28",
        "2001:30::/28",
        "2001:db8::/32",
        "2620:4f:8000::/48",
        "3fff::/20",
        "5f00::/16",
        "fc00::/7",
        "fe80::/10",
        // Not in the registry: site-local, RFC 3879, and multicast, RFC 4291.
        "fec0::/10",
        "ff00::/8",
    ];

    /// Compatible, mapped, translated, NAT64, 6to4, and Teredo with it as server and as client.
    fn forms(v4: Ipv4Addr) -> [Ipv6Addr; 7] {
        let [a, b, c, d] = v4.octets();
        let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        [
            Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),
            Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, high, low),
            Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low),
            Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
            Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
            Ipv6Addr::new(0x2001, 0, high, low, 0, 0, !0x0808, !0x0808),
            Ipv6Addr::new(0x2001, 0, 0x0808, 0x0808, 0, 0, !high, !low),
        ]
    }

    /// First, middle and last address of a block.
    fn samples(block: &str) -> [IpAddr; 3] {
        let (network, length) = block.split_once('/').unwrap();
        let length: u32 = length.parse().unwrap();
        match network.parse().unwrap() {
            IpAddr::V4(ip) => {
                let span = u32::MAX.checked_shr(length).unwrap_or(0);
                [0, span / 2, span].map(|more| Ipv4Addr::from_bits(ip.to_bits() | more).into())
            }
            IpAddr::V6(ip) => {
                let span = u128::MAX.checked_shr(length).unwrap_or(0);
                [0, span / 2, span].map(|more| Ipv6Addr::from_bits(ip.to_bits() | more).into())
            }
        }
    }

    #[test]
    fn everything_in_the_registries_is_special() {
        for block in V4_REGISTRY.iter().chain(&V6_REGISTRY) {
            for ip in samples(block) {
                assert!(is_special(ip), "{ip} of {block}");
            }
        }
    }

    #[test]
    fn every_special_v4_address_is_so_in_every_v6_form() {
        for ip in V4_REGISTRY.iter().flat_map(|block| samples(block)) {
            let IpAddr::V4(ip) = ip else { panic!("{ip}") };
            for form in forms(ip) {
                assert!(is_special(form.into()), "{form} carries {ip}");
            }
        }
    }

    #[test]
    fn v6_blocks_are_special() {
        for ip in [
            "::",
            "::1",
            "100::1",
            "fc00::1",
            "fdff::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "2001:db8::1",
            "2001:2::1",
            "2001:20::1",
            "2001:1ff:ffff::1",
            "3fff::1",
            "3fff:fff::1",
            "5f00::1",
            "64:ff9b:1::808:808",
            "64:ff9b:1:ffff::1",
            "2620:4f:8000::1",
            "4000::1",
        ] {
            assert!(special(ip), "{ip}");
        }
        for ip in ["2001:200::1", "2001:4860:4860::8888", "2606:4700::1111", "2a00:1450::1", "3fff:1000::1"] {
            assert!(!special(ip), "{ip}");
        }
    }

    #[test]
    fn a_v6_address_is_as_special_as_the_v4_address_in_it() {
        for ip in forms(Ipv4Addr::new(169, 254, 169, 254)) {
            assert!(is_special(ip.into()), "{ip}");
        }
        for ip in forms(Ipv4Addr::new(8, 8, 8, 8)) {
            assert!(!is_special(ip.into()), "{ip}");
        }
    }

    #[test]
    fn local_names_are_special_and_public_ones_are_not() {
        for name in [
            "localhost",
            "LOCALHOST.",
            "a.localhost",
            "printer.local",
            "db.Internal",
            "x.home.arpa",
            "1.0.0.127.in-addr.arpa",
            "wallet.alt",
            "intranet",
            "",
        ] {
            assert!(is_special_name(name), "{name}");
        }
        for name in ["example.com", "notlocalhost.com", "mylocal.net", "local.example.org", "xinternal.org"] {
            assert!(!is_special_name(name), "{name}");
        }
    }
}
