//! What each directive means.

use std::{net::IpAddr, path::PathBuf, str::FromStr, time::Duration};

use super::{
    Corefile, CorefileError,
    syntax::{Directive, Setting},
    values::{self, duration},
    wrong,
};
use crate::{
    CacheConfig, ForwardOptions, InvalidSelector, PodRecords, Policy, Prefetch, Rules, Selector, ServeStale,
    Tls, Upstreams,
};

/// What a server block has said so far.
pub(super) struct Block {
    pub(super) bind: Vec<IpAddr>,
    pub(super) upstreams: Upstreams,
    pub(super) max_concurrent: usize,
    pub(super) forward: ForwardOptions,
    pub(super) cache: CacheConfig,
    pub(super) rules: Rules,
    pub(super) has_kubernetes: bool,
    /// Domains within the block that are asked for elsewhere, or nowhere.
    pub(super) stubs: Vec<(String, Upstreams)>,
}

impl Default for Block {
    fn default() -> Self {
        Self {
            bind: Vec::new(),
            upstreams: Upstreams::None,
            max_concurrent: usize::MAX,
            forward: ForwardOptions::default(),
            cache: CacheConfig { enabled: false, ..CacheConfig::default() },
            rules: Rules::new("."),
            has_kubernetes: false,
            stubs: Vec::new(),
        }
    }
}

pub(super) type Result<T> = std::result::Result<T, CorefileError>;

impl Block {
    /// Reads a directive.
    pub(super) fn read(&mut self, directive: &Directive, corefile: &mut Corefile) -> Result<()> {
        match directive.name.as_str() {
            // As it is without being told: failures are logged, upstreams that are ourselves are left out,
            // files are followed, addresses take turns, ANY gets RFC 8482's answer.
            "errors" | "loop" | "reload" | "any" | "debug" => Ok(()),
            "loadbalance" => match directive.words.first().map(String::as_str) {
                None | Some("round_robin") => Ok(()),
                Some(other) => Err(wrong(directive, format!("the policy {other:?} is not supported"))),
            },
            "log" => {
                self.rules.log = true;
                bare(directive)
            }
            "bind" => {
                for word in &directive.words {
                    self.bind.push(parsed(directive, word, "an address")?);
                }
                no_options(directive)
            }
            "bufsize" => {
                let word = directive.words.first().map_or("1232", String::as_str);
                corefile.config.max_udp_payload = parsed(directive, word, "a number of bytes")?;
                no_options(directive)
            }
            "health" => {
                corefile.health = listen(directive, ":8080")?;
                for option in &directive.options {
                    match option.name.as_str() {
                        "lameduck" => corefile.lameduck = option_duration(option)?,
                        _ => return Err(unknown(option)),
                    }
                }
                Ok(())
            }
            "ready" => {
                corefile.ready = listen(directive, ":8181")?;
                no_options(directive)
            }
            "prometheus" => {
                corefile.metrics = listen(directive, "localhost:9153")?;
                no_options(directive)
            }
            "kubernetes" => self.kubernetes(directive, corefile),
            "forward" => self.forward(directive),
            "cache" => self.cache(directive, corefile),
            "autopath" => {
                if directive.words.last().is_none_or(|word| word != "@kubernetes") {
                    return Err(wrong(directive, "only @kubernetes is supported"));
                }
                corefile.config.autopath = true;
                no_options(directive)
            }
            "hosts" => self.hosts(directive),
            "rewrite" => self.rewrite(directive),
            "acl" => self.acl(directive),
            "template" => self.template(directive),
            "dns64" => self.dns64(directive),
            _ => Err(wrong(directive, "this directive is not supported")),
        }
    }

    fn kubernetes(&mut self, directive: &Directive, corefile: &mut Corefile) -> Result<()> {
        self.has_kubernetes = true;
        let is_reverse = |zone: &str| zone.ends_with("arpa") || zone.ends_with("arpa.") || zone.contains('/');
        let mut zones = directive.words.iter().filter(|zone| !is_reverse(zone));
        if let Some(zone) = zones.next() {
            corefile.config.zone.clone_from(zone);
        }
        if let Some(other) = zones.next() {
            return Err(wrong(directive, format!("a second domain {other:?} is not supported")));
        }
        let config = &mut corefile.config;
        config.ttl = 5;
        config.pods = PodRecords::Disabled;
        // Without a reverse domain the reverse names that are not ours are others'.
        config.reverse_fallthrough = !directive.words.iter().any(|zone| is_reverse(zone));
        for option in &directive.options {
            match (option.name.as_str(), option.words.as_slice()) {
                ("pods", [mode]) => {
                    config.pods = match mode.as_str() {
                        "disabled" => PodRecords::Disabled,
                        "insecure" => PodRecords::Insecure,
                        "verified" => PodRecords::Verified,
                        _ => return Err(unknown(option)),
                    }
                }
                ("ttl", [seconds]) => config.ttl = option_parsed(option, seconds, "seconds")?,
                ("endpoint_pod_names", []) => config.endpoint_pod_names = true,
                ("noendpoints", []) => config.endpoints = false,
                ("ignore", [what]) if what == "empty_service" => config.ignore_empty_services = true,
                ("namespaces", names) if !names.is_empty() => {
                    config.exposure.namespaces.extend(names.iter().cloned());
                }
                ("namespace_labels", words) => {
                    config.exposure.namespace_labels = Some(selector(option, words)?);
                }
                ("fallthrough", []) => {
                    config.reverse_fallthrough = true;
                    config.fallthrough.push(".".to_owned());
                }
                ("fallthrough", zones) => {
                    config.reverse_fallthrough |= zones.iter().any(|zone| is_reverse(zone) || zone == ".");
                    config.fallthrough.extend(zones.iter().filter(|zone| !is_reverse(zone)).cloned());
                }
                // How CoreDNS talks to the API server; here the agent does.
                (
                    "endpoint" | "kubeconfig" | "startup_timeout" | "apiserver_qps" | "apiserver_burst",
                    [_],
                )
                | ("apiserver_max_inflight", [_])
                | ("tls", [_, _, _])
                | ("kubeconfig", [_, _]) => {}
                _ => return Err(unknown(option)),
            }
        }
        Ok(())
    }

    fn forward(&mut self, directive: &Directive) -> Result<()> {
        let Some((from, to)) = directive.words.split_first().filter(|(_, to)| !to.is_empty()) else {
            return Err(wrong(directive, "a domain and upstreams are expected"));
        };
        let upstreams = if let [file] = to
            && file.starts_with('/')
        {
            Upstreams::ResolvConf(PathBuf::from(file))
        } else {
            let address = |word: &String| {
                let problem = || wrong(directive, format!("{word:?} is not an address with or without port"));
                values::upstream(word).ok_or_else(problem)
            };
            let all = to.iter().map(address).collect::<Result<Vec<_>>>()?;
            let encrypted = all.iter().filter(|(_, tls)| *tls).count();
            if encrypted > 0 && encrypted < all.len() {
                return Err(wrong(directive, "upstreams with and without tls:// do not mix"));
            }
            if encrypted > 0 {
                self.forward.tls = Some(Tls::default());
            }
            Upstreams::Addresses(all.into_iter().map(|(address, _)| address).collect())
        };
        for option in &directive.options {
            self.forward_option(option)?;
        }
        match values::zone_of(from).filter(|zone| zone != ".") {
            Some(zone) => self.stubs.push((zone, upstreams)),
            None if self.upstreams == Upstreams::None => self.upstreams = upstreams,
            None => return Err(wrong(directive, "the second for this domain")),
        }
        Ok(())
    }

    fn forward_option(&mut self, option: &Setting) -> Result<()> {
        let forward = &mut self.forward;
        match (option.name.as_str(), option.words.as_slice()) {
            ("force_tcp", []) => forward.force_tcp = true,
            // UDP is preferred anyway, and connections do not outlive a question.
            ("prefer_udp", []) | ("expire" | "max_age", [_]) => {}
            ("tls_servername", [name]) => {
                forward.tls.as_mut().ok_or_else(|| unknown(option))?.server_name = Some(name.clone());
            }
            ("tls", []) if forward.tls.is_some() => {}
            ("tls", [ca_file]) => {
                forward.tls.as_mut().ok_or_else(|| unknown(option))?.ca_file = Some(ca_file.into());
            }
            ("max_concurrent", [count]) => self.max_concurrent = option_parsed(option, count, "a number")?,
            ("max_fails", [count]) => forward.max_fails = option_parsed(option, count, "a number")?,
            ("health_check", [time]) => {
                forward.health_check =
                    duration(time).ok_or_else(|| CorefileError::new(option.line, time, "not a duration"))?;
            }
            ("policy", [policy]) => {
                forward.policy = match policy.as_str() {
                    "random" => Policy::Random,
                    "round_robin" => Policy::RoundRobin,
                    "sequential" => Policy::Sequential,
                    _ => return Err(unknown(option)),
                }
            }
            ("next" | "failover", codes) if !codes.is_empty() => {
                for code in codes {
                    let number = rcode(code).ok_or_else(|| unknown(option))?;
                    forward.failover.push(number);
                }
            }
            ("except", zones) if !zones.is_empty() => {
                self.stubs.extend(zones.iter().map(|zone| (zone.clone(), Upstreams::None)));
            }
            _ => return Err(unknown(option)),
        }
        Ok(())
    }

    fn cache(&mut self, directive: &Directive, corefile: &Corefile) -> Result<()> {
        let cache = &mut self.cache;
        *cache = CacheConfig { enabled: true, success_ttl: 3600, denial_ttl: 1800, ..CacheConfig::default() };
        if let Some(ttl) = directive.words.first().and_then(|word| word.parse().ok()) {
            (cache.success_ttl, cache.denial_ttl) = (ttl, ttl);
        }
        for option in &directive.options {
            let words: Vec<&str> = option.words.iter().map(String::as_str).collect();
            match (option.name.as_str(), words.as_slice()) {
                ("success", [capacity, rest @ ..]) if rest.len() <= 2 => {
                    cache.success_capacity = option_parsed(option, capacity, "a number")?;
                    lifetimes(option, rest, &mut cache.success_ttl, &mut cache.min_success_ttl)?;
                }
                ("denial", [capacity, rest @ ..]) if rest.len() <= 2 => {
                    cache.denial_capacity = option_parsed(option, capacity, "a number")?;
                    lifetimes(option, rest, &mut cache.denial_ttl, &mut cache.min_denial_ttl)?;
                }
                ("keepttl", []) => cache.keep_ttl = true,
                ("servfail", [_]) => cache.servfail_ttl = option_duration(option)?.as_secs().min(300) as u32,
                ("prefetch", [amount, rest @ ..]) if rest.len() <= 2 => {
                    let percent = rest.get(1).map_or("10", |word| word.trim_end_matches('%'));
                    cache.prefetch = Some(Prefetch {
                        hits: option_parsed(option, amount, "a number")?,
                        percent: option_parsed(option, percent, "a percentage")?,
                    });
                }
                ("serve_stale", rest) if rest.len() <= 2 => {
                    let time = rest.first().filter(|word| word.starts_with(|c: char| c.is_ascii_digit()));
                    let mode = rest.last().filter(|word| Some(*word) != time);
                    let duration = match time {
                        None => Duration::from_secs(3600),
                        Some(time) => duration(time)
                            .ok_or_else(|| CorefileError::new(option.line, time, "not a duration"))?,
                    };
                    let verify = match mode {
                        None | Some(&"immediate") => false,
                        Some(&"verify") => true,
                        Some(_) => return Err(unknown(option)),
                    };
                    cache.serve_stale = Some(ServeStale { duration, verify });
                }
                // Names of the cluster are never kept.
                ("disable", [_, zones @ ..])
                    if !zones.is_empty()
                        && zones.iter().all(|z| {
                            z.trim_end_matches('.') == corefile.config.zone.trim_end_matches('.')
                        }) => {}
                ("disable", ["success"]) => cache.success_capacity = 0,
                ("disable", ["denial"]) => cache.denial_capacity = 0,
                _ => return Err(unknown(option)),
            }
        }
        Ok(())
    }
}

fn selector(option: &Setting, words: &[String]) -> Result<Selector> {
    let text = words.join(" ");
    text.parse().map_err(|problem: InvalidSelector| {
        CorefileError::new(option.line, &option.name, problem.to_string())
    })
}

/// A response code by its name.
pub(super) fn rcode(name: &str) -> Option<u16> {
    const NAMES: [&str; 6] = ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];
    NAMES.iter().position(|known| known.eq_ignore_ascii_case(name)).map(|place| place as u16)
}

fn lifetimes(option: &Setting, words: &[&str], most: &mut u32, least: &mut u32) -> Result<()> {
    if let Some(word) = words.first() {
        *most = option_parsed(option, word, "seconds")?;
    }
    if let Some(word) = words.get(1) {
        *least = option_parsed(option, word, "seconds")?;
    }
    Ok(())
}

pub(super) fn unknown(option: &Setting) -> CorefileError {
    let words = option.words.join(" ");
    CorefileError::new(
        option.line,
        &option.name,
        format!("{:?} is not supported", format!("{} {words}", option.name).trim()),
    )
}

fn bare(directive: &Directive) -> Result<()> {
    match directive.words.iter().find(|word| *word != ".") {
        Some(word) => Err(wrong(directive, format!("{word:?} is not supported"))),
        None => no_options(directive),
    }
}

fn no_options(directive: &Directive) -> Result<()> {
    directive.options.first().map_or(Ok(()), |option| Err(unknown(option)))
}

fn parsed<T: FromStr>(directive: &Directive, word: &str, what: &str) -> Result<T> {
    word.parse().map_err(|_| wrong(directive, format!("{word:?} is not {what}")))
}

pub(super) fn option_parsed<T: FromStr>(option: &Setting, word: &str, what: &str) -> Result<T> {
    word.parse().map_err(|_| CorefileError::new(option.line, &option.name, format!("{word:?} is not {what}")))
}

fn option_duration(option: &Setting) -> Result<Duration> {
    let word = option.words.first().map_or("", String::as_str);
    let problem = || CorefileError::new(option.line, &option.name, format!("{word:?} is not a duration"));
    duration(word).ok_or_else(problem)
}

fn listen(directive: &Directive, default: &str) -> Result<Option<std::net::SocketAddr>> {
    let word = directive.words.first().map_or(default, String::as_str);
    values::listen(word)
        .map(Some)
        .ok_or_else(|| wrong(directive, format!("{word:?} is not an address and a port")))
}
