//! Reads the upstream servers out of a resolv.conf.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};

use nix::net::if_::if_nametoindex;

use crate::name::WireName;

/// The servers of the `nameserver` lines, in order and each once, on port 53; and the lines that name none.
pub(crate) fn nameservers(text: &str) -> (Vec<SocketAddr>, Vec<String>) {
    let mut servers = Vec::new();
    let mut bad = Vec::new();
    for line in text.lines() {
        let line = line.split(['#', ';']).next().unwrap_or_default();
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        match words.next().and_then(server) {
            Some(server) => {
                if !servers.contains(&server) {
                    servers.push(server);
                }
            }
            None => bad.push(line.trim().to_owned()),
        }
    }
    (servers, bad)
}

/// A server by its address, which may name the interface behind which it is (`fe80::1%eth0`).
fn server(word: &str) -> Option<SocketAddr> {
    let Some((address, interface)) = word.split_once('%') else {
        return Some(SocketAddr::new(word.parse::<IpAddr>().ok()?, 53));
    };
    let index = interface.parse().ok().or_else(|| if_nametoindex(interface).ok())?;
    Some(SocketAddrV6::new(address.parse::<Ipv6Addr>().ok()?, 53, 0, index).into())
}

/// The domains of the last `search` or `domain` line.
pub(crate) fn search(text: &str) -> Vec<WireName> {
    let lines = text.lines().map(|line| line.split(['#', ';']).next().unwrap_or_default());
    let mut words = lines.filter_map(|line| {
        let mut words = line.split_whitespace();
        matches!(words.next()?, "search" | "domain").then_some(words)
    });
    words
        .next_back()
        .into_iter()
        .flatten()
        .filter_map(WireName::parse)
        .filter(|d| d.as_bytes().len() > 1)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nameserver_lines_are_read_and_the_rest_passed_over() {
        let text = "# nameserver 9.9.9.9\nsearch example.org\n nameserver\t10.0.0.1 # first\nnameserver fd00::53\n\
                    options ndots:5\nnameserver 10.0.0.1\nnameserver fe80::1%nowhere\nnameserver\nnameserver x\n\
                    nameserver fe80::2%lo\nnameserver fe80::3%7\nnameserver 10.0.0.2%lo";
        let (servers, bad) = nameservers(text);
        let wanted = ["10.0.0.1:53", "[fd00::53]:53", "[fe80::2%1]:53", "[fe80::3%7]:53"];
        assert_eq!(servers, wanted.map(|server| server.parse().unwrap()));
        assert_eq!(
            bad,
            ["nameserver fe80::1%nowhere", "nameserver", "nameserver x", "nameserver 10.0.0.2%lo"]
        );
        assert_eq!(nameservers(""), (Vec::new(), Vec::new()));
    }

    #[test]
    fn the_last_search_line_counts() {
        for (text, domains) in [
            ("", &[][..]),
            ("search a.test b.test. # c.test", &["a.test.", "b.test."]),
            ("search a.test\ndomain b.test\n", &["b.test."]),
            ("search .\n", &[]),
        ] {
            let found: Vec<_> = search(text).iter().map(ToString::to_string).collect();
            assert_eq!(found, domains, "{text}");
        }
    }
}
