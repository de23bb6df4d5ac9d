//! What each directive means.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use super::{
    Bound, Corefile, CorefileError, PageAt, bad_option,
    forward::Forward,
    syntax::{Directive, Setting},
    token::Token,
    values::{self, duration},
    wrong,
};
use crate::{CacheConfig, External, Order, Rules};

pub(super) type Result<T> = std::result::Result<T, CorefileError>;

/// What a server block has said so far.
pub(super) struct Block<'k> {
    /// Its domains and ports, as they are written.
    pub(super) keys: &'k [String],
    pub(super) bind: Bound,
    /// Who is asked about its names, and about those of domains below it.
    pub(super) forwards: Vec<Forward>,
    pub(super) cache: CacheConfig,
    pub(super) rules: Rules,
    pub(super) has_kubernetes: bool,
    /// The folder of files that are not named in full.
    pub(super) root: Option<PathBuf>,
    /// What `k8s_external` says, and where.
    pub(super) external: Option<(Token, External)>,
}

impl<'k> Block<'k> {
    /// One that has said nothing.
    pub(super) fn new(keys: &'k [String]) -> Self {
        Self {
            keys,
            bind: Bound::default(),
            forwards: Vec::new(),
            cache: CacheConfig { enabled: false, ..CacheConfig::default() },
            // Without the directive nothing is shuffled.
            rules: Rules { order: Order::AS_IT_COMES, ..Rules::new(".") },
            has_kubernetes: false,
            root: None,
            external: None,
        }
    }

    /// Reads a directive.
    pub(super) fn read(&mut self, directive: &Directive, corefile: &mut Corefile) -> Result<()> {
        match directive.name.as_str() {
            "loop" | "any" | "debug" => {
                // Of the others it is as they say without being told: ANY gets RFC 8482's answer.
                corefile.config.detect_loops |= directive.name == "loop";
                no_words(directive)?;
                no_options(directive)
            }
            "errors" => errors(directive),
            "reload" => reload(directive),
            "loadbalance" => self.loadbalance(directive),
            "log" => self.log(directive),
            "bind" => bind(&mut self.bind, directive),
            "transfer" => self.transfer(directive, corefile),
            "bufsize" => {
                let word = directive.words.first().map_or("1232", String::as_str);
                corefile.config.max_udp_payload = parsed(directive, word, "a number of bytes")?;
                no_options(directive)
            }
            "health" => {
                corefile.health = Some(page(directive, PageAt::Port(8080))?);
                for option in &directive.options {
                    match option.name.as_str() {
                        "lameduck" => corefile.lameduck = option_duration(option)?,
                        _ => return Err(unknown(option)),
                    }
                }
                Ok(())
            }
            "ready" => {
                corefile.ready = Some(page(directive, PageAt::Port(8181))?);
                for option in &directive.options {
                    match (option.name.as_str(), option.words.as_slice()) {
                        // What is ready here stays so until the end.
                        ("monitor", [how]) if ["until-ready", "continuously"].contains(&how.as_str()) => {}
                        _ => return Err(unknown(option)),
                    }
                }
                Ok(())
            }
            "prometheus" => {
                let usual = PageAt::Address((Ipv4Addr::LOCALHOST, 9153).into());
                corefile.metrics = Some(page(directive, usual)?);
                no_options(directive)
            }
            "kubernetes" => self.kubernetes(directive, corefile),
            "root" => self.root(directive),
            "dnssec" => self.dnssec(directive),
            "file" => self.file(directive),
            "k8s_external" => self.k8s_external(directive),
            "forward" => self.forward(directive),
            "cache" => self.cache(directive),
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
}

/// Addresses and devices, and which of them are not meant.
fn bind(bound: &mut Bound, directive: &Directive) -> Result<()> {
    // As the kernel has it (dev_valid_name).
    let is_device = |word: &str| {
        (1..16).contains(&word.len()) && ![".", ".."].contains(&word) && !word.contains(['/', ':'])
    };
    if directive.words.is_empty() {
        return Err(wrong(directive, "addresses or devices are expected"));
    }
    let mut addresses = BTreeSet::new();
    for word in &directive.words {
        match word.parse::<IpAddr>() {
            Ok(address) => drop(addresses.insert(address)),
            Err(_) if is_device(word) => drop(bound.devices.insert(word.clone())),
            Err(_) => return Err(wrong(directive, format!("{word:?} is no address and no device"))),
        }
    }
    for option in &directive.options {
        match (option.name.as_str(), option.words.as_slice()) {
            ("except", words) if !words.is_empty() => {
                addresses.retain(|address| words.iter().all(|word| word.parse() != Ok(*address)));
                bound.except.extend(words.iter().cloned());
            }
            _ => return Err(unknown(option)),
        }
    }
    bound.addresses.append(&mut addresses);
    Ok(())
}

/// Failures are logged anyway, and gathered: what is said of gathering them is held against its form alone.
fn errors(directive: &Directive) -> Result<()> {
    for option in &directive.options {
        match (option.name.as_str(), option.words.as_slice()) {
            ("stacktrace", []) => {}
            ("consolidate", [time, regex, rest @ ..]) if rest.len() <= 2 => {
                duration(time).ok_or_else(|| bad_option(option, format!("{time:?} is not a duration")))?;
                regex::Regex::new(regex)
                    .map_err(|_| bad_option(option, format!("{regex:?} is not a regular expression")))?;
            }
            _ => return Err(unknown(option)),
        }
    }
    Ok(())
}

/// Files are followed anyway, at once.
fn reload(directive: &Directive) -> Result<()> {
    if directive.words.len() > 2 {
        return Err(wrong(directive, "an interval and a jitter are expected"));
    }
    for word in &directive.words {
        duration(word).ok_or_else(|| wrong(directive, format!("{word:?} is not a duration")))?;
    }
    no_options(directive)
}

/// A response code by its name.
pub(super) fn rcode(name: &str) -> Option<u16> {
    const NAMES: [&str; 11] = [
        "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET", "NXRRSET",
        "NOTAUTH", "NOTZONE",
    ];
    NAMES.iter().position(|known| known.eq_ignore_ascii_case(name)).map(|place| place as u16)
}

pub(super) fn unknown(option: &Setting) -> CorefileError {
    let words = option.words.join(" ");
    bad_option(option, format!("{:?} is not supported", format!("{} {words}", option.name).trim()))
}

fn no_words(directive: &Directive) -> Result<()> {
    let word = directive.words.first();
    word.map_or(Ok(()), |word| Err(wrong(directive, format!("{word:?} is not supported"))))
}

fn no_options(directive: &Directive) -> Result<()> {
    directive.options.first().map_or(Ok(()), |option| Err(unknown(option)))
}

fn parsed<T: FromStr>(directive: &Directive, word: &str, what: &str) -> Result<T> {
    word.parse().map_err(|_| wrong(directive, format!("{word:?} is not {what}")))
}

pub(super) fn option_parsed<T: FromStr>(option: &Setting, word: &str, what: &str) -> Result<T> {
    word.parse().map_err(|_| bad_option(option, format!("{word:?} is not {what}")))
}

/// The option's first word as a duration.
pub(super) fn option_duration(option: &Setting) -> Result<Duration> {
    word_duration(option, option.words.first().map_or("", String::as_str))
}

/// A word of an option as a duration.
pub(super) fn word_duration(option: &Setting, word: &str) -> Result<Duration> {
    duration(word).ok_or_else(|| bad_option(option, format!("{word:?} is not a duration")))
}

/// Where a page is served: where the directive says, or else where it usually is.
fn page(directive: &Directive, usual: PageAt) -> Result<PageAt> {
    match directive.words.as_slice() {
        [] => Ok(usual),
        [word] => values::page(word)
            .ok_or_else(|| wrong(directive, format!("{word:?} is not an address and a port"))),
        [_, other, ..] => Err(wrong(directive, format!("{other:?} is one word too many"))),
    }
}
