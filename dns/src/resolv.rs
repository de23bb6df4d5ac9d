//! Reads the upstream servers out of a resolv.conf.

use std::net::{IpAddr, SocketAddr};

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
        match words.next().and_then(|word| word.parse::<IpAddr>().ok()) {
            Some(address) => {
                let server = SocketAddr::new(address, 53);
                if !servers.contains(&server) {
                    servers.push(server);
                }
            }
            None => bad.push(line.trim().to_owned()),
        }
    }
    (servers, bad)
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
                    options ndots:5\nnameserver 10.0.0.1\nnameserver fe80::1%eth0\nnameserver\nnameserver x";
        let (servers, bad) = nameservers(text);
        assert_eq!(servers, ["10.0.0.1:53".parse().unwrap(), "[fd00::53]:53".parse().unwrap()]);
        assert_eq!(bad, ["nameserver fe80::1%eth0", "nameserver", "nameserver x"]);
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
