//! Which targets may be reached, and who is ourselves.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use smartproxy_core::special::{is_special, is_special_name};
use smartproxy_core::{Host, ProxyAddr};
use smartproxy_tunnel::Target;

/// Names that only ever exist in examples and tests, or in the Tor network: they lead nowhere near.
const HARMLESS_ENDS: [&str; 4] = ["test", "example", "invalid", "onion"];

/// The rules for targets.
#[derive(Debug, Clone, Default)]
pub struct TargetRules {
    /// Nobody may reach these ports.
    pub forbidden_ports: Vec<u16>,
    /// When not empty, only these may be reached.
    pub allowed_ports: Vec<u16>,
    /// Whether loopback, private and other special-purpose addresses may be reached.
    pub allow_special: bool,
    /// Where this service listens itself.
    pub own: Vec<SocketAddr>,
}

impl TargetRules {
    /// Lets a target through, or says why not. Names are resolved by the proxies and can only be judged as names.
    pub(super) fn check(&self, target: &Target) -> Result<(), String> {
        if self.forbidden_ports.contains(&target.port) {
            return Err(format!("port {} is in [gateway] forbidden_ports", target.port));
        }
        if !self.allowed_ports.is_empty() && !self.allowed_ports.contains(&target.port) {
            return Err(format!("port {} is not in [gateway] allowed_ports", target.port));
        }
        match &target.host {
            Host::Name(name) => {
                let name = name.strip_suffix('.').unwrap_or(name);
                let end = name.rsplit('.').next().unwrap_or_default();
                let is_harmless = name.contains('.') && HARMLESS_ENDS.contains(&end);
                if !self.allow_special && is_special_name(name) && !is_harmless {
                    return Err(format!("{name} is a local name; [gateway] allow_special_targets is off"));
                }
                if name == "localhost" {
                    self.check_loop(IpAddr::from([127, 0, 0, 1]), target.port)
                } else {
                    Ok(())
                }
            }
            Host::V4(ip) => self.check_ip((*ip).into(), target.port),
            Host::V6(ip) => self.check_ip((*ip).into(), target.port),
        }
    }

    fn check_ip(&self, ip: IpAddr, port: u16) -> Result<(), String> {
        if !self.allow_special && is_special(ip) {
            return Err(format!("{ip} is a special-purpose address; [gateway] allow_special_targets is off"));
        }
        self.check_loop(ip, port)
    }

    fn check_loop(&self, ip: IpAddr, port: u16) -> Result<(), String> {
        if self.is_own(ip, port) {
            return Err(format!("{} is this service itself", SocketAddr::new(ip, port)));
        }
        Ok(())
    }

    /// Whether somebody who connects there reaches this service.
    pub(super) fn is_own(&self, ip: IpAddr, port: u16) -> bool {
        let ip = ip.to_canonical();
        self.own.iter().any(|own| {
            own.port() == port
                && (own.ip() == ip || ((own.ip().is_unspecified() || ip.is_unspecified()) && is_local(ip)))
        })
    }

    /// Whether an upstream is this service.
    pub(super) fn is_own_proxy(&self, addr: &ProxyAddr) -> bool {
        match addr.host() {
            Host::Name(name) => {
                &**name == "localhost" && self.is_own(IpAddr::from([127, 0, 0, 1]), addr.port())
            }
            Host::V4(ip) => self.is_own((*ip).into(), addr.port()),
            Host::V6(ip) => self.is_own((*ip).into(), addr.port()),
        }
    }
}

/// Whether `ip` is one of this machine's: only such an address can be bound.
fn is_local(ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_unspecified() || UdpSocket::bind((ip, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(host: &str, port: u16) -> Target {
        Target::new(Host::parse(host).unwrap(), port)
    }

    #[test]
    fn special_targets_are_refused_in_every_spelling() {
        let rules = TargetRules::default();
        for host in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "10.1.2.3",
            "169.254.169.254",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[fe80::1]",
            "[64:ff9b::7f00:1]",
            "localhost",
            "LOCALHOST",
            "localhost.",
            "a.localhost",
            "intranet",
            "db.internal",
            "printer.local",
        ] {
            assert!(rules.check(&target(host, 80)).is_err(), "{host}");
        }
        // What resolvers would read as addresses is no host at all.
        for host in ["0x7f.1", "127.1", "2130706433", "0177.0.0.1", "0x7f000001", "127.0.0.0x1"] {
            assert!(Host::parse(host).is_err(), "{host}");
        }
        for host in ["example.com", "93.184.216.34", "[2606:4700::1111]", "target.test", "abc.onion"] {
            assert_eq!(rules.check(&target(host, 80)), Ok(()), "{host}");
        }
    }

    #[test]
    fn special_targets_can_be_allowed_and_the_service_itself_never_is() {
        let own = vec!["127.0.0.1:6943".parse().unwrap(), "0.0.0.0:6942".parse().unwrap()];
        let rules = TargetRules { allow_special: true, own, ..TargetRules::default() };
        assert_eq!(rules.check(&target("127.0.0.1", 80)), Ok(()));
        for (host, port) in [
            ("127.0.0.1", 6943),
            ("[::ffff:127.0.0.1]", 6943),
            ("localhost", 6943),
            ("127.0.0.5", 6942),
            ("0.0.0.0", 6943),
        ] {
            assert!(rules.check(&target(host, port)).is_err(), "{host} {port}");
        }
        assert!(rules.is_own_proxy(&ProxyAddr::parse("http://127.0.0.1:6943").unwrap()));
        assert!(rules.is_own_proxy(&ProxyAddr::parse("socks5://localhost:6943").unwrap()));
        assert!(!rules.is_own_proxy(&ProxyAddr::parse("http://127.0.0.1:6944").unwrap()));
        assert!(!rules.is_own_proxy(&ProxyAddr::parse("http://198.51.100.1:6942").unwrap()));
    }

    #[test]
    fn ports_are_forbidden_or_allowed_by_number() {
        let rules = TargetRules { forbidden_ports: vec![25], ..TargetRules::default() };
        assert!(rules.check(&target("example.com", 25)).unwrap_err().contains("forbidden_ports"));
        assert_eq!(rules.check(&target("example.com", 26)), Ok(()));
        let rules = TargetRules { allowed_ports: vec![80, 443], ..TargetRules::default() };
        assert!(rules.check(&target("example.com", 22)).unwrap_err().contains("allowed_ports"));
        assert_eq!(rules.check(&target("example.com", 443)), Ok(()));
    }
}
