//! Conditions of host ports (`conditionsV4`, `conditionsV6`): words of iptables' or of nft's command line, of which those
//! are understood that say where packets come from and go to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use sluice_netlink::conditional::{Condition, MOST_ALTERNATIVES, Match, alternatives};

use crate::error::{Code, Error, Result};

/// Whose words they are, by the first of them, as portmap tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Iptables,
    Nftables,
}

impl Style {
    /// `None` if there are no conditions.
    pub(super) fn of(words: &[String]) -> Option<Self> {
        let first = words.first()?.chars().next()?;
        Some(if matches!(first, '-' | '!') { Self::Iptables } else { Self::Nftables })
    }

    pub(super) fn backend(self) -> &'static str {
        match self {
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
        }
    }
}

/// What a condition looks at.
#[derive(Clone, Copy)]
enum Field {
    Source,
    Destination,
    Device,
}

/// The conditions of a family. `key` is what they are called in the configuration, for errors.
pub(crate) fn parse(key: &str, words: &[String], v4: bool) -> Result<Vec<Condition>> {
    let Some(style) = Style::of(words) else { return Ok(Vec::new()) };
    let reader = Reader { key, words, v4 };
    let mut words = match style {
        Style::Iptables => words.iter().flat_map(|word| word.split_whitespace()).map(str::to_owned).collect(),
        Style::Nftables => split_nft(words),
    };
    words.reverse();
    let mut conditions = Vec::new();
    while !words.is_empty() {
        conditions.push(match style {
            Style::Iptables => reader.iptables(&mut words)?,
            Style::Nftables => reader.nft(&mut words)?,
        });
    }
    if alternatives(&conditions) > MOST_ALTERNATIVES {
        let what = format!("so many alternatives (more than {MOST_ALTERNATIVES})");
        return Err(reader.unsupported(&what));
    }
    Ok(conditions)
}

/// nft's words: braces and commas are words of their own.
fn split_nft(words: &[String]) -> Vec<String> {
    let mut text = words.join(" ");
    for mark in ["{", "}", ","] {
        text = text.replace(mark, &format!(" {mark} "));
    }
    text.split_whitespace().map(str::to_owned).collect()
}

struct Reader<'a> {
    key: &'a str,
    words: &'a [String],
    v4: bool,
}

impl Reader<'_> {
    fn unsupported(&self, what: &str) -> Error {
        let known = "what can be said is where packets come from (-s, ip saddr), where they go (-d, ip daddr), and by \
                     which device they come in (-i, iifname), each negated or not";
        let msg = format!("{}: {:?} is not supported: {what}; {known}", self.key, self.words);
        Error::new(Code::UnsupportedField, msg)
    }

    fn wrong(&self, why: impl std::fmt::Display) -> Error {
        Error::config(format!("{}: {:?}: {why}", self.key, self.words))
    }

    /// One condition of iptables: `[!] -s 10.0.0.0/8,192.0.2.1`. The next word is the last.
    fn iptables(&self, words: &mut Vec<String>) -> Result<Condition> {
        let mut option = words.pop().unwrap_or_default();
        let negated = option == "!";
        if negated {
            option = words.pop().ok_or_else(|| self.wrong("nothing follows \"!\""))?;
        }
        if let Some((long, value)) = option.split_once('=').filter(|(long, _)| long.starts_with("--")) {
            words.push(value.to_owned());
            option = long.to_owned();
        }
        let field = match option.as_str() {
            "-s" | "--src" | "--source" => Field::Source,
            "-d" | "--dst" | "--destination" => Field::Destination,
            "-i" | "--in-interface" => Field::Device,
            _ => return Err(self.unsupported(&format!("{option:?}"))),
        };
        let value = words.pop().ok_or_else(|| self.wrong(format_args!("nothing follows {option:?}")))?;
        let any_of = match field {
            Field::Device => vec![self.device(&value, '+')?],
            _ => value.split(',').map(|text| self.network(field, text)).collect::<Result<_>>()?,
        };
        Ok(Condition { negated, any_of })
    }

    /// One condition of nft: `ip saddr != { 10.0.0.0/8, 192.0.2.1 }`. The next word is the last.
    fn nft(&self, words: &mut Vec<String>) -> Result<Condition> {
        let mut next = || words.pop().ok_or_else(|| self.wrong("something is missing at the end"));
        let mut first = next()?;
        if first == "meta" {
            first = next()?;
        }
        let family = if self.v4 { "ip" } else { "ip6" };
        let field = match first.as_str() {
            "iifname" => Field::Device,
            "ip" | "ip6" if first != family => {
                return Err(self.wrong(format_args!("{first:?} is of the other family")));
            }
            "ip" | "ip6" => match next()?.as_str() {
                "saddr" => Field::Source,
                "daddr" => Field::Destination,
                other => return Err(self.unsupported(&format!("{:?}", format!("{first} {other}")))),
            },
            other => return Err(self.unsupported(&format!("{other:?}"))),
        };
        let mut value = next()?;
        let negated = matches!(value.as_str(), "!=" | "ne");
        if negated || matches!(value.as_str(), "==" | "eq") {
            value = next()?;
        }
        let mut values = Vec::new();
        if value == "{" {
            loop {
                values.push(next()?);
                match next()?.as_str() {
                    "," => {}
                    "}" => break,
                    other => return Err(self.wrong(format_args!("{other:?} in the place of a comma"))),
                }
            }
        } else {
            values.push(value);
        }
        let one = |value: &String| match field {
            Field::Device => self.device(value.trim_matches('"'), '*'),
            _ => self.network(field, value),
        };
        Ok(Condition { negated, any_of: values.iter().map(one).collect::<Result<_>>()? })
    }

    /// A device's name, or what names begin with before `any`.
    fn device(&self, name: &str, any: char) -> Result<Match> {
        let prefix = name.strip_suffix(any);
        let bare = prefix.unwrap_or(name);
        if bare.is_empty() || bare.len() > 15 || bare.contains('/') {
            return Err(self.wrong(format_args!("{name:?} is not a name that a device can have")));
        }
        let bare = bare.to_owned();
        Ok(if prefix.is_some() { Match::DevicePrefix(bare) } else { Match::Device(bare) })
    }

    /// An address or a network, whose mask may be a length or, for IPv4, an address.
    fn network(&self, field: Field, text: &str) -> Result<Match> {
        let parse = || {
            if let Ok(address) = text.parse::<IpAddr>() {
                return Some(IpNet::from(address));
            }
            let (address, mask) = text.split_once('/')?;
            match mask.parse::<u8>() {
                Ok(length) => IpNet::new(address.parse().ok()?, length).ok(),
                Err(_) if address.parse::<Ipv4Addr>().is_ok() => {
                    IpNet::with_netmask(address.parse().ok()?, IpAddr::V4(mask.parse().ok()?)).ok()
                }
                Err(_) => {
                    IpNet::with_netmask(address.parse().ok()?, IpAddr::V6(mask.parse::<Ipv6Addr>().ok()?))
                        .ok()
                }
            }
        };
        let network =
            parse().ok_or_else(|| self.wrong(format_args!("{text:?} is no address and no network")))?;
        if network.addr().is_ipv4() != self.v4 {
            return Err(self.wrong(format_args!("{text:?} is of the other family")));
        }
        let network = network.trunc();
        Ok(match field {
            Field::Source => Match::Source(network),
            _ => Match::Destination(network),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, v4: bool) -> Result<String> {
        let words: Vec<String> = serde_json::from_str(text).unwrap();
        let said = |one: &Match| match one {
            Match::Source(network) => format!("from {network}"),
            Match::Destination(network) => format!("to {network}"),
            Match::Device(name) => format!("by {name}"),
            Match::DevicePrefix(name) => format!("by {name}.."),
        };
        let condition = |condition: &Condition| {
            let any_of: Vec<_> = condition.any_of.iter().map(said).collect();
            format!("{}{}", if condition.negated { "not " } else { "" }, any_of.join(" or "))
        };
        let conditions = parse("conditions", &words, v4)?;
        Ok(conditions.iter().map(condition).collect::<Vec<_>>().join(", "))
    }

    #[test]
    fn words_of_iptables_are_understood() {
        for (text, v4, expected) in [
            (r#"["-s","1.2.3.4"]"#, true, "from 1.2.3.4/32"),
            (r#"["!","-s","12::34"]"#, false, "not from 12::34/128"),
            (r#"["!","-d","192.0.2.9/24","-i","eth+"]"#, true, "not to 192.0.2.0/24, by eth.."),
            (
                r#"["--source=10.0.0.0/255.0.0.0,192.0.2.1","! --in-interface lo"]"#,
                true,
                "from 10.0.0.0/8 or from 192.0.2.1/32, not by lo",
            ),
            ("[]", true, ""),
            (r#"[""]"#, true, ""),
        ] {
            assert_eq!(read(text, v4).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn words_of_nft_are_understood() {
        for (text, v4, expected) in [
            (r#"["ip","saddr","10.0.0.0/8"]"#, true, "from 10.0.0.0/8"),
            (r#"["ip6 daddr != { fd00::/8,2001:db8::1 }"]"#, false, "not to fd00::/8 or to 2001:db8::1/128"),
            (
                r#"["ip saddr == 192.0.2.1","meta iifname { \"eth0\", \"en*\" }"]"#,
                true,
                "from 192.0.2.1/32, by eth0 or by en..",
            ),
        ] {
            assert_eq!(read(text, v4).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (text, v4, code, part) in [
            (r#"["-m","mark"]"#, true, 2, r#"conditions: ["-m", "mark"] is not supported: "-m"; what"#),
            (r#"["tcp","sport","1"]"#, true, 2, r#""tcp""#),
            (r#"["ip","ttl","1"]"#, true, 2, r#""ip ttl""#),
            (r#"["-s"]"#, true, 7, r#"nothing follows "-s""#),
            (r#"["!"]"#, true, 7, r#"nothing follows "!""#),
            (r#"["-s","fd00::1"]"#, true, 7, r#""fd00::1" is of the other family"#),
            (r#"["ip6","saddr","fd00::1"]"#, true, 7, r#""ip6" is of the other family"#),
            (r#"["-s","example.com"]"#, true, 7, r#""example.com" is no address and no network"#),
            (r#"["-s","10.0.0.0/33"]"#, true, 7, "no network"),
            (r#"["ip saddr {10.0.0.1"]"#, true, 7, "something is missing"),
            (r#"["ip saddr {10.0.0.1 10.0.0.2}"]"#, true, 7, "place of a comma"),
            (r#"["-i","a-name-too-long-"]"#, true, 7, "name that a device can have"),
        ] {
            let error = read(text, v4).unwrap_err();
            assert_eq!((error.code as u32, error.msg.contains(part)), (code, true), "{text}: {}", error.msg);
        }
        let many: Vec<_> = (0..17).map(|number| format!("10.0.{number}.1")).collect();
        let twice = [format!("-s {}", many.join(",")), format!("-d {}", many.join(","))];
        let error = parse("conditions", &twice, true).unwrap_err();
        assert!(error.code == Code::UnsupportedField && error.msg.contains("more than 256"), "{}", error.msg);
    }
}
