//! The directive `forward`.

use std::{net::SocketAddr, path::PathBuf};

use super::{
    bad_option,
    directives::{Block, Result, option_duration, option_parsed, rcode, unknown},
    syntax::{Directive, Setting},
    values, wrong,
};
use crate::{ForwardOptions, Policy, Probe, Tls, Upstreams};

/// Who is asked, and how.
#[derive(Clone, Debug)]
pub(super) struct Way {
    pub(super) upstreams: Upstreams,
    pub(super) max_concurrent: usize,
    pub(super) options: ForwardOptions,
}

impl Default for Way {
    /// Nobody.
    fn default() -> Self {
        Self { upstreams: Upstreams::None, max_concurrent: usize::MAX, options: ForwardOptions::default() }
    }
}

impl Block<'_> {
    pub(super) fn forward(&mut self, directive: &Directive) -> Result<()> {
        let Some((from, to)) = directive.words.split_first().filter(|(_, to)| !to.is_empty()) else {
            return Err(wrong(directive, "a domain and upstreams are expected"));
        };
        let mut way = Way::default();
        if let [file] = to
            && file.starts_with('/')
        {
            way.upstreams = Upstreams::ResolvConf(PathBuf::from(file));
        } else {
            let (addresses, tls) = addresses(directive, to)?;
            (way.upstreams, way.options.tls) = (Upstreams::Addresses(addresses), tls);
        }
        let mut except = Vec::new();
        for option in &directive.options {
            way.read(option, &mut except)?;
        }
        self.stubs.extend(except.into_iter().map(|zone| (zone, Way::default())));
        match values::zone_of(from).filter(|zone| zone != ".") {
            Some(zone) => self.stubs.push((zone, way)),
            None if self.way.is_none() => self.way = Some(way),
            None => return Err(wrong(directive, "the second for this domain")),
        }
        Ok(())
    }
}

/// Upstreams, and who they must prove to be where they are asked over TLS.
fn addresses(directive: &Directive, words: &[String]) -> Result<(Vec<SocketAddr>, Option<Tls>)> {
    let mut addresses = Vec::new();
    let mut names = Vec::new();
    for word in words {
        let problem = || wrong(directive, format!("{word:?} is not an address with or without port"));
        let upstream = values::upstream(word).ok_or_else(problem)?;
        addresses.push(upstream.address);
        names.push(upstream.tls);
    }
    if names.iter().all(Option::is_none) {
        return Ok((addresses, None));
    }
    if names.iter().any(Option::is_none) {
        return Err(wrong(directive, "upstreams with and without tls:// do not mix"));
    }
    names.dedup();
    match names.as_slice() {
        [name] => Ok((addresses, Some(Tls { server_name: name.clone().flatten(), ..Tls::default() }))),
        _ => Err(wrong(directive, "upstreams must have one TLS server name")),
    }
}

impl Way {
    /// `except`: domains that are not asked for.
    fn read(&mut self, option: &Setting, except: &mut Vec<String>) -> Result<()> {
        let forward = &mut self.options;
        match (option.name.as_str(), option.words.as_slice()) {
            ("force_tcp", []) => forward.force_tcp = true,
            // It is preferred anyway. What comes next after a code would be another `forward` of the same domain, of which there
            // is one.
            ("prefer_udp", []) => {}
            ("next", codes) if !codes.is_empty() && codes.iter().all(|code| rcode(code).is_some()) => {}
            ("expire", [_]) => forward.idle_for = option_duration(option)?,
            ("max_age", [_]) => forward.max_age = Some(option_duration(option)?).filter(|age| !age.is_zero()),
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
            ("max_concurrent", [count]) => self.max_concurrent = option_parsed(option, count, "a number")?,
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
                for code in codes {
                    let number = rcode(code).ok_or_else(|| unknown(option))?;
                    forward.failover.push(number);
                }
            }
            ("except", zones) if !zones.is_empty() => except.extend(zones.iter().cloned()),
            _ => return Err(unknown(option)),
        }
        Ok(())
    }
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
