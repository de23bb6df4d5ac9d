//! Values of a Corefile: domains, addresses, durations.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use ipnet::IpNet;

use super::PageAt;

/// A server block's domain and port: `cluster.local:53`, `.`, `dns://example.org`, `10.0.0.0/8`.
pub(super) fn zone_and_port(key: &str) -> Option<(String, u16)> {
    let key = key.strip_prefix("dns://").unwrap_or(key);
    if key.contains("://") {
        return None;
    }
    let (zone, port) = match key.rsplit_once(':') {
        Some((zone, port)) => (zone, port.parse().ok()?),
        None => (key, 53),
    };
    Some((zone_of(if zone.is_empty() { "." } else { zone })?, port))
}

/// A domain, or the reverse domain of a network that ends at a label.
pub(super) fn zone_of(text: &str) -> Option<String> {
    let Ok(net) = text.parse::<IpNet>() else {
        return (!text.contains(['/', ':'])).then(|| text.to_owned());
    };
    let count = usize::from(net.prefix_len());
    let (digits, bits, end): (Vec<String>, _, _) = match net.network() {
        IpAddr::V4(v4) => (v4.octets().iter().map(u8::to_string).collect(), 8, "in-addr.arpa"),
        IpAddr::V6(v6) => {
            (format!("{:032x}", u128::from(v6)).chars().map(String::from).collect(), 4, "ip6.arpa")
        }
    };
    let labels: Vec<&str> = digits[..count / bits].iter().rev().map(String::as_str).chain([end]).collect();
    (count % bits == 0).then(|| labels.join("."))
}

/// An upstream.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Upstream {
    pub(super) address: SocketAddr,
    pub(super) over: Over,
}

/// How an upstream is asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// Over UDP and TCP.
    Plain,
    /// Over TLS; the name that it must prove to have, if one is given.
    Tls(Option<String>),
    /// Over HTTPS, as requests for this path.
    Https(String),
}

/// An upstream: an address with or without port; `tls://` before it where it is asked over TLS, with `%name` after the
/// address where it must prove to have that name; `https://` where it is asked over HTTPS, with or without a path.
pub(super) fn upstream(text: &str) -> Option<Upstream> {
    if let Some(text) = text.strip_prefix("https://") {
        let (host, path) = text.split_once('/').map_or((text, "dns-query"), |(host, path)| (host, path));
        return Some(Upstream { address: address(host, 443)?, over: Over::Https(format!("/{path}")) });
    }
    let Some(text) = text.strip_prefix("tls://") else {
        let text = text.strip_prefix("dns://").unwrap_or(text);
        return Some(Upstream { address: address(text, 53)?, over: Over::Plain });
    };
    let Some((ip, name)) = text.split_once('%') else {
        return Some(Upstream { address: address(text, 853)?, over: Over::Tls(None) });
    };
    let (name, port) = match name.split_once(':') {
        Some((name, port)) => (name, port.parse().ok()?),
        None => (name, 853),
    };
    let address = SocketAddr::new(address(ip, port)?.ip(), port);
    Some(Upstream { address, over: Over::Tls(Some(name.to_owned())) })
}

fn address(text: &str, port: u16) -> Option<SocketAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().map(|ip: IpAddr| SocketAddr::new(ip, port)).or_else(|_| text.parse()).ok()
}

/// Where a page is served: `:8080`, `localhost:9153`, `169.254.20.10:8080`.
pub(super) fn page(text: &str) -> Option<PageAt> {
    if let Some(port) = text.strip_prefix(':') {
        return port.parse().ok().map(PageAt::Port);
    }
    let address: SocketAddr = match text.strip_prefix("localhost:") {
        Some(port) => (Ipv4Addr::LOCALHOST, port.parse().ok()?).into(),
        None => text.parse().ok()?,
    };
    let is_all = address.ip().is_unspecified();
    Some(if is_all { PageAt::Port(address.port()) } else { PageAt::Address(address) })
}

/// A duration as Go writes it: `5s`, `1m30s`, `500ms`, `1.5h`; a number alone is seconds.
pub(super) fn duration(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<u32>() {
        return Some(Duration::from_secs(seconds.into()));
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|char: char| !char.is_ascii_digit() && char != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit_end =
            rest[digits..].find(|char: char| char.is_ascii_digit()).map_or(rest.len(), |n| n + digits);
        let unit = match &rest[digits..unit_end] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number * unit).ok()?)?;
        rest = &rest[unit_end..];
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_and_ports() {
        for (text, wanted) in [
            (".:53", Some((".", 53))),
            (".", Some((".", 53))),
            (":1053", Some((".", 1053))),
            ("dns://example.org:5300", Some(("example.org", 5300))),
            ("10.0.0.0/8", Some(("10.in-addr.arpa", 53))),
            ("10.96.0.0/16:53", Some(("96.10.in-addr.arpa", 53))),
            ("10.0.0.0/9", None),
            ("tls://.", None),
            ("a:b", None),
        ] {
            let wanted = wanted.map(|(zone, port)| (zone.to_owned(), port));
            assert_eq!(zone_and_port(text), wanted, "{text}");
        }
        assert_eq!(zone_of("fd00::/16").as_deref(), Some("0.0.d.f.ip6.arpa"));
    }

    #[test]
    fn addresses() {
        let named = || Over::Tls(Some("dns.test".to_owned()));
        let https = |path: &str| Over::Https(path.to_owned());
        for (text, address, over) in [
            ("10.0.0.1", "10.0.0.1:53", Over::Plain),
            ("10.0.0.1:5353", "10.0.0.1:5353", Over::Plain),
            ("fd00::1", "[fd00::1]:53", Over::Plain),
            ("dns://[fd00::1]:5353", "[fd00::1]:5353", Over::Plain),
            ("tls://10.0.0.1", "10.0.0.1:853", Over::Tls(None)),
            ("tls://[fd00::1]:8853", "[fd00::1]:8853", Over::Tls(None)),
            ("tls://10.0.0.1%dns.test", "10.0.0.1:853", named()),
            ("tls://10.0.0.1%dns.test:8853", "10.0.0.1:8853", named()),
            ("https://10.0.0.1", "10.0.0.1:443", https("/dns-query")),
            ("https://[fd00::1]:8443/other/path", "[fd00::1]:8443", https("/other/path")),
        ] {
            assert_eq!(upstream(text), Some(Upstream { address: address.parse().unwrap(), over }), "{text}");
        }
        assert_eq!(upstream("dns.example.org"), None);
        for (text, wanted) in [
            (":8080", Some(PageAt::Port(8080))),
            ("0.0.0.0:8080", Some(PageAt::Port(8080))),
            ("[::]:8080", Some(PageAt::Port(8080))),
            ("localhost:9153", Some(PageAt::Address("127.0.0.1:9153".parse().unwrap()))),
            ("169.254.20.10:8080", Some(PageAt::Address("169.254.20.10:8080".parse().unwrap()))),
            ("8080", None),
            (":http", None),
        ] {
            assert_eq!(page(text), wanted, "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, wanted) in [
            ("5s", Some(5000)),
            ("1m30s", Some(90_000)),
            ("500ms", Some(500)),
            ("1.5h", Some(5_400_000)),
            ("30", Some(30_000)),
            ("", None),
            ("5x", None),
            ("s", None),
            ("-5s", None),
            ("99999999999999999999h", None),
        ] {
            assert_eq!(duration(text), wanted.map(Duration::from_millis), "{text}");
        }
    }
}
