//! Which addresses deliveries may go to.
//!
//! A URL is somebody's text, and names resolve to whatever their owner says: both can be made to point at this machine, at
//! the network around it or at the metadata of a cloud. So the client asks this resolver, which gives out only addresses
//! that are allowed, and the connection goes to just what was looked at. Addresses that stand in the URL itself are judged
//! before. Redirects are never followed.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use cornjacket_operators::sinks::webhook::{is_public, plain};
use ipnet::IpNet;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// Networks, written with commas or spaces between them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nets(Vec<IpNet>);

impl FromStr for Nets {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words = text.split([',', ' ']).filter(|word| !word.is_empty());
        let net = |word: &str| {
            let address = || word.parse::<IpAddr>().map(IpNet::from);
            word.parse::<IpNet>().or_else(|_| address()).map_err(|_| {
                format!(
                    "`{word}` is no network: write such as 10.0.0.0/8, fd00::/8 or 192.168.1.7, with commas between"
                )
            })
        };
        words.map(net).collect::<Result<_, _>>().map(Self)
    }
}

/// Judges addresses.
#[derive(Clone, Debug)]
pub struct Guard {
    allowed: Arc<[IpNet]>,
}

/// An address that may not be called.
#[derive(Debug)]
struct Refused {
    host: String,
    address: IpAddr,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, address } = self;
        let named = if *host == address.to_string() { host.clone() } else { format!("{host} is {address}, which") };
        write!(f, "{named} is no public address: allow it with CJ_ACTIONS_ALLOW_NETS if it is meant")
    }
}

impl std::error::Error for Refused {}

impl Guard {
    /// Public addresses are allowed, and these networks; unless they are said, loopback as long as the services listen
    /// there only.
    pub fn new(nets: Option<&Nets>, host: IpAddr) -> Self {
        let loopback = || ["127.0.0.0/8", "::1/128"].iter().filter_map(|net| net.parse().ok()).collect();
        let by_default = || if host.is_loopback() { loopback() } else { Vec::new() };
        Self { allowed: nets.map_or_else(by_default, |nets| nets.0.clone()).into() }
    }

    /// Whether an address may be called.
    pub fn allows(&self, address: IpAddr) -> bool {
        let meant = plain(address);
        is_public(address) || self.allowed.iter().any(|net| net.contains(&meant) || net.contains(&address))
    }

    /// Judges an address that stands in a URL; names are judged when they are resolved.
    pub fn judge(&self, url: &Url) -> Result<(), String> {
        let address: IpAddr = match url.host() {
            Some(Host::Ipv4(address)) => address.into(),
            Some(Host::Ipv6(address)) => address.into(),
            Some(Host::Domain(_)) | None => return Ok(()),
        };
        if self.allows(address) { Ok(()) } else { Err(Refused { host: address.to_string(), address }.to_string()) }
    }
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let host = name.as_str().to_string();
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            let allowed: Vec<SocketAddr> = found.iter().filter(|at| guard.allows(at.ip())).copied().collect();
            match found.first() {
                Some(first) if allowed.is_empty() => Err(Refused { host, address: first.ip() }.into()),
                _ => Ok(Box::new(allowed.into_iter()) as Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn loopback_is_allowed_only_while_the_services_are_there() {
        let inside = Guard::new(None, address("127.0.0.1"));
        let outside = Guard::new(None, address("0.0.0.0"));
        for (text, from_inside) in [
            ("127.0.0.1", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("10.0.0.1", false),
            ("169.254.169.254", false),
            ("::ffff:169.254.169.254", false),
            ("fe80::1", false),
            ("0.0.0.0", false),
        ] {
            assert_eq!(inside.allows(address(text)), from_inside, "{text}");
            assert!(!outside.allows(address(text)), "{text}");
        }
        assert!(inside.allows(address("1.1.1.1")) && outside.allows(address("2606:4700::1111")));
    }

    #[test]
    fn networks_that_are_said_take_the_place_of_the_default() {
        let nets: Nets = "10.1.0.0/16, fd00::/8 192.168.1.7".parse().expect("networks");
        let guard = Guard::new(Some(&nets), address("127.0.0.1"));
        for (text, expected) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("10.2.0.1", false),
            ("fd12::1", true),
            ("192.168.1.7", true),
            ("192.168.1.8", false),
            ("127.0.0.1", false),
        ] {
            assert_eq!(guard.allows(address(text)), expected, "{text}");
        }
        assert_eq!("".parse::<Nets>(), Ok(Nets::default()));
        assert!("10.0.0.0/33".parse::<Nets>().is_err_and(|message| message.contains("10.0.0.0/33")));
    }

    #[test]
    fn addresses_in_urls_are_judged_however_they_are_written() {
        let guard = Guard::new(Some(&Nets::default()), address("127.0.0.1"));
        let refused = [
            "http://127.0.0.1:9000/x",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://0177.0.0.1/",
            "http://[::ffff:7f00:1]/",
            "http://[::1]:80/",
            "http://169.254.169.254/latest/meta-data",
        ];
        for text in refused {
            let url: Url = text.parse().expect("a URL");
            assert!(guard.judge(&url).is_err_and(|why| why.contains("CJ_ACTIONS_ALLOW_NETS")), "{text}");
        }
        assert_eq!(guard.judge(&"http://1.1.1.1/".parse().expect("a URL")), Ok(()));
    }

    #[tokio::test]
    async fn names_that_resolve_to_what_is_not_allowed_are_refused() {
        let outside = Guard::new(None, address("0.0.0.0"));
        let refused = outside.resolve("localhost".parse().expect("a name")).await.err().expect("refused").to_string();
        assert!(refused.contains("localhost is ") && refused.contains("no public address"), "{refused}");
        let inside = Guard::new(None, address("127.0.0.1"));
        let found = inside.resolve("localhost".parse().expect("a name")).await.expect("resolved");
        assert!(found.into_iter().all(|at| at.ip().is_loopback()));
    }
}
