//! The directive `forward`, of which a server block may have several.

use std::{net::SocketAddr, path::PathBuf};

use super::{
    bad_option,
    directives::{Block, Result, option_duration, option_parsed, rcode, unknown},
    syntax::{Directive, Setting},
    values::{self, Over},
    wrong,
};
use crate::{ForwardOptions, NextUpstreams, Policy, Probe, Tls, Upstreams, name::WireName};

/// One `forward`: whose names it is about, and who is asked for them.
#[derive(Clone, Debug)]
pub(super) struct Forward {
    from: WireName,
    /// Domains that it is not about.
    except: Vec<WireName>,
    way: NextUpstreams,
}

impl Forward {
    fn is_about(&self, zone: &WireName) -> bool {
        is_within(zone, &self.from) && !self.except.iter().any(|except| is_within(zone, except))
    }
}

/// Whether a domain is another one, or below it.
fn is_within(zone: &WireName, above: &WireName) -> bool {
    let (zone, above) = (zone.as_bytes(), above.as_bytes());
    let mut at = 0;
    while zone.len() - at > above.len() {
        at += 1 + usize::from(zone[at]);
    }
    zone[at..] == *above
}

/// Whom a server block of a domain asks about its names, domain by domain, the block's own at the end: the first is asked, those
/// after it where an answer is passed on.
///
/// Of those that are about a name, the one that stands first is asked, so a domain's own stands before that of one above it,
/// or is never asked.
pub(super) fn routes(forwards: &[Forward], own: &WireName) -> Vec<(WireName, Vec<NextUpstreams>)> {
    let named = forwards.iter().flat_map(|forward| forward.except.iter().chain([&forward.from]));
    let mut zones: Vec<&WireName> = Vec::new();
    for zone in named.filter(|zone| *zone != own && is_within(zone, own)) {
        if !zones.contains(&zone) {
            zones.push(zone);
        }
    }
    zones.push(own);
    let ways = |zone: &WireName| {
        let mut ways: Vec<_> = forwards
            .iter()
            .filter(|forward| forward.is_about(zone))
            .map(|forward| forward.way.clone())
            .collect();
        let last = ways.iter().position(|way| way.forward.next.is_empty() && !way.forward.next_on_nodata);
        ways.truncate(last.map_or(ways.len(), |last| last + 1));
        ways
    };
    zones.into_iter().map(|zone| (zone.clone(), ways(zone))).collect()
}

impl Block<'_> {
    pub(super) fn forward(&mut self, directive: &Directive) -> Result<()> {
        let Some((from, to)) = directive.words.split_first().filter(|(_, to)| !to.is_empty()) else {
            return Err(wrong(directive, "a domain and upstreams are expected"));
        };
        let domain = |text: &str| values::zone_of(text).and_then(|zone| WireName::parse(&zone));
        let from = domain(from).ok_or_else(|| wrong(directive, format!("{from:?} is not a domain")))?;
        let (upstreams, options) = upstreams(directive, to)?;
        // CoreDNS's own default; the manifests say 1000.
        let mut forward = Forward {
            from,
            except: Vec::new(),
            way: NextUpstreams { upstreams, max_concurrent: 0, forward: options },
        };
        for option in &directive.options {
            if option.name == "except" && !option.words.is_empty() {
                for word in &option.words {
                    let zone = domain(word)
                        .ok_or_else(|| bad_option(option, format!("{word:?} is not a domain")))?;
                    forward.except.push(zone);
                }
                continue;
            }
            read(&mut forward.way, option)?;
        }
        check(directive, &forward.way)?;
        self.forwards.push(forward);
        Ok(())
    }
}

/// What no option says alone.
fn check(directive: &Directive, way: &NextUpstreams) -> Result<()> {
    let options = &way.forward;
    if options.max_age.is_some_and(|age| age < options.idle_for) {
        return Err(wrong(directive, "max_age is less than expire"));
    }
    let Some(tls) = &options.tls else { return Ok(()) };
    if tls.server_name.is_some() && !tls.server_names.is_empty() {
        return Err(wrong(directive, "tls_servername and a name after % do not go together"));
    }
    match &way.upstreams {
        Upstreams::Addresses(servers)
            if options.https.is_some()
                && tls.server_name.is_none()
                && servers.iter().any(SocketAddr::is_ipv6) =>
        {
            Err(wrong(directive, "a server with an IPv6 address over HTTPS needs a tls_servername"))
        }
        _ => Ok(()),
    }
}

/// The upstreams: a file that names them, or addresses, with what these say of how they are asked.
fn upstreams(directive: &Directive, words: &[String]) -> Result<(Upstreams, ForwardOptions)> {
    let mut options = ForwardOptions::default();
    if let [file] = words
        && file.starts_with('/')
    {
        return Ok((Upstreams::ResolvConf(PathBuf::from(file)), options));
    }
    let mut addresses = Vec::new();
    let mut kinds = Vec::new();
    let mut server_names = Vec::new();
    for word in words {
        let problem = || wrong(directive, format!("{word:?} is not an address with or without port"));
        let upstream = values::upstream(word).ok_or_else(problem)?;
        addresses.push(upstream.address);
        kinds.push(match upstream.over {
            Over::Plain => (false, None),
            Over::Tls(name) => {
                server_names.extend(name.map(|name| (upstream.address, name)));
                (true, None)
            }
            Over::Https(path) => (true, Some(path)),
        });
    }
    kinds.dedup();
    let [(is_encrypted, https)] = kinds.as_slice() else {
        return Err(wrong(
            directive,
            "upstreams over TLS, over HTTPS (with one path) and without do not mix",
        ));
    };
    options.tls = is_encrypted.then(|| Tls { server_names, ..Tls::default() });
    options.https.clone_from(https);
    Ok((Upstreams::Addresses(addresses), options))
}

fn read(way: &mut NextUpstreams, option: &Setting) -> Result<()> {
    let forward = &mut way.forward;
    match (option.name.as_str(), option.words.as_slice()) {
        ("force_tcp", []) => forward.force_tcp = true,
        // It is preferred anyway.
        ("prefer_udp", []) => {}
        ("next", codes) if !codes.is_empty() => forward.next.extend(rcodes(option)?),
        ("next_on_nodata", []) => forward.next_on_nodata = true,
        ("expire", [_]) => forward.idle_for = option_duration(option)?,
        ("max_age", [_]) => forward.max_age = Some(option_duration(option)?).filter(|age| !age.is_zero()),
        ("read_timeout", [_]) => {
            forward.attempt = option_duration(option)?;
            if forward.attempt.is_zero() {
                return Err(bad_option(option, "is not more than nothing"));
            }
        }
        ("max_idle_conns", [count]) => {
            let count: usize = option_parsed(option, count, "a number")?;
            forward.max_idle = if count == 0 { usize::MAX } else { count };
        }
        ("max_connect_attempts", [count]) => {
            forward.max_attempts = option_parsed(option, count, "a number")?;
        }
        ("failfast_all_unhealthy_upstreams", []) => forward.fail_fast = true,
        ("tls_servername", [name]) => {
            forward.tls.as_mut().ok_or_else(|| unknown(option))?.server_name = Some(name.clone());
        }
        ("tls", files) if files.len() <= 3 => {
            let tls = forward.tls.as_mut().ok_or_else(|| unknown(option))?;
            tls.ca_file = files.get(if files.len() == 1 { 0 } else { 2 }).map(PathBuf::from);
            if let [certificate, key, ..] = files {
                tls.client = Some((certificate.into(), key.into()));
            }
        }
        // The other way to ask over HTTPS is for answers that caches between us and the server keep.
        ("doh_method", [method]) if method == "POST" => {}
        ("source_address", [address]) => forward.source = Some(option_parsed(option, address, "an address")?),
        ("max_concurrent", [count]) => way.max_concurrent = option_parsed(option, count, "a number")?,
        ("max_fails", [count]) => forward.max_fails = option_parsed(option, count, "a number")?,
        ("health_check", [_, rest @ ..]) => {
            forward.health_check = option_duration(option)?;
            forward.probe = probe(option, rest)?;
        }
        ("policy", [policy]) => {
            forward.policy = match policy.as_str() {
                "random" => Policy::Random,
                "round_robin" => Policy::RoundRobin,
                "sequential" => Policy::Sequential,
                _ => return Err(unknown(option)),
            }
        }
        ("failover", codes) if !codes.is_empty() => {
            let codes = rcodes(option)?;
            if codes.contains(&0) {
                return Err(bad_option(option, "NOERROR is no failure"));
            }
            forward.failover.extend(codes);
        }
        _ => return Err(unknown(option)),
    }
    Ok(())
}

fn rcodes(option: &Setting) -> Result<Vec<u16>> {
    let code = |name: &String| {
        rcode(name).ok_or_else(|| bad_option(option, format!("{name:?} is no response code")))
    };
    option.words.iter().map(code).collect()
}

fn probe(option: &Setting, mut words: &[String]) -> Result<Probe> {
    let mut probe = Probe::default();
    loop {
        words = match words {
            [] => return Ok(probe),
            [word, rest @ ..] if word == "no_rec" => {
                probe.recursion = false;
                rest
            }
            [word, domain, rest @ ..] if word == "domain" => {
                probe.domain.clone_from(domain);
                rest
            }
            [word, ..] => return Err(bad_option(option, format!("{word:?} is not supported"))),
        };
    }
}
