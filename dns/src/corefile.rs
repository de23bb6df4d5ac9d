//! Reads a Corefile, CoreDNS's configuration, into ours.
//!
//! A Corefile is read as it is: what the standard manifests of Kubernetes and NodeLocal DNSCache use is taken,
//! and a directive or an option that we do not have is an error with its line, never passed over. Where
//! something is as it should be without being told (`errors`, `loop`, `reload`), it is accepted.

mod cache;
mod directives;
mod dnssec;
mod external;
mod file;
mod forward;
mod import;
mod kubernetes;
mod loadbalance;
mod log;
mod rewrite;
mod rules;
mod syntax;
mod token;
mod values;

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use self::{
    directives::Block,
    syntax::{Directive, ServerBlock, Setting},
    token::Token,
};
use crate::{
    CacheConfig, DnsConfig, ForwardOptions, NextUpstreams, Rules, StubDomain, Upstreams, name::WireName,
};

/// What is wrong with a Corefile, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}line {line}: {directive}: {problem}", file.as_ref().map(|file| format!("{file}: ")).unwrap_or_default())]
pub struct CorefileError {
    /// The file, where it is not the Corefile itself.
    pub file: Option<String>,
    /// The line, from 1.
    pub line: usize,
    /// The directive, or the option within it.
    pub directive: String,
    /// What is wrong.
    pub problem: String,
}

impl CorefileError {
    fn at(token: &Token, directive: &str, problem: impl Into<String>) -> Self {
        Self {
            file: token.file.as_deref().map(str::to_owned),
            line: token.line,
            directive: directive.to_owned(),
            problem: problem.into(),
        }
    }
}

/// What a Corefile says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corefile {
    /// For the server.
    pub config: DnsConfig,
    /// Where `/health` is answered; none: the directive is not there.
    pub health: Option<PageAt>,
    /// How long the server goes on after it was told to stop.
    pub lameduck: Duration,
    /// Where `/ready` is answered.
    pub ready: Option<PageAt>,
    /// Where `/metrics` is answered.
    pub metrics: Option<PageAt>,
    /// Devices whose addresses are to be listened on as well.
    pub devices: Devices,
}

/// Devices of the node at whose addresses a server listens, whatever these are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Devices {
    /// The port.
    pub port: u16,
    /// The devices' names.
    pub bound: BTreeSet<String>,
    /// Names of devices, and addresses, that are left out.
    pub except: BTreeSet<String>,
}

impl Devices {
    /// Where to listen on a node whose devices have these addresses.
    pub fn listen<'a>(&self, addresses: impl IntoIterator<Item = (&'a str, IpAddr)>) -> BTreeSet<SocketAddr> {
        let is_left_out = |device: &str, ip: IpAddr| {
            self.except.contains(device) || self.except.iter().any(|text| text.parse() == Ok(ip))
        };
        let bound = addresses.into_iter().filter(|(device, _)| self.bound.contains(*device));
        let bound = bound.filter(|(device, ip)| !is_left_out(device, *ip) && !is_link_local(*ip));
        bound.map(|(_, ip)| SocketAddr::new(ip, self.port)).collect()
    }
}

/// An IPv6 address that means something else on each device.
fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// What `bind` says in all server blocks.
#[derive(Debug, Default, PartialEq, Eq)]
struct Bound {
    addresses: BTreeSet<IpAddr>,
    devices: BTreeSet<String>,
    except: BTreeSet<String>,
}

/// Where a page is served over HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageAt {
    /// At this port of every address.
    Port(u16),
    /// There alone.
    Address(SocketAddr),
}

impl Corefile {
    /// Puts a Corefile together with the files that it imports, into a text that [`Self::read`] takes. `load` gives the
    /// files of a name or pattern, in order: their names and texts.
    pub fn bundle(
        text: &str,
        mut load: impl FnMut(&str) -> io::Result<Vec<(String, String)>>,
    ) -> Result<String, CorefileError> {
        import::bundle(text, &mut load)
    }

    /// Reads `text`; what it does not say stays as in `base`.
    ///
    /// The cluster's domain is the one of `kubernetes`, or that of `base`: its names are answered from memory,
    /// whatever upstreams a server block of that domain names. The block of `.` says the upstreams; blocks of
    /// other domains become stub domains.
    pub fn read(text: &str, base: DnsConfig) -> Result<Self, CorefileError> {
        let blocks = syntax::parse(text)?;
        let mut corefile = Self {
            config: DnsConfig {
                stub_domains: Vec::new(),
                rules: Vec::new(),
                external: None,
                transfers: Vec::new(),
                upstreams: Upstreams::None,
                next: Vec::new(),
                detect_loops: false,
                ..base
            },
            health: None,
            lameduck: Duration::ZERO,
            ready: None,
            metrics: None,
            devices: Devices::default(),
        };
        let mut port = None;
        let mut bound = Bound::default();
        let mut has_kubernetes = false;
        for block in &blocks {
            let others = blocks.iter().filter(|other| !std::ptr::eq(*other, block));
            let others: Vec<&str> = others.flat_map(|other| &other.keys).map(String::as_str).collect();
            let is_kubernetes = corefile.add(block, &others, &mut port, &mut bound)?;
            if is_kubernetes && std::mem::replace(&mut has_kubernetes, true) {
                let problem = "the second of all server blocks: one names all domains";
                return Err(CorefileError::at(&block.at, "kubernetes", problem));
            }
        }
        let port = port.unwrap_or(53);
        if bound == Bound::default() {
            corefile.config.listen.iter_mut().for_each(|address| address.set_port(port));
        } else {
            corefile.config.listen = bound.addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
        }
        corefile.devices = Devices { port, bound: bound.devices, except: bound.except };
        Ok(corefile)
    }

    fn add(
        &mut self,
        server: &ServerBlock,
        others: &[&str],
        port: &mut Option<u16>,
        bound: &mut Bound,
    ) -> Result<bool, CorefileError> {
        let mut block = Block::new(&server.keys);
        for directive in &server.directives {
            block.read(directive, self)?;
        }
        block.put_root();
        if let Some(external) = block.external(others)? {
            self.config.external = Some(external);
        }
        bound.addresses.append(&mut block.bind.addresses);
        bound.devices.append(&mut block.bind.devices);
        bound.except.append(&mut block.bind.except);
        for key in &server.keys {
            let (zone, own) = values::zone_and_port(key)
                .ok_or_else(|| CorefileError::at(&server.at, key, "is not a domain and a port"))?;
            if port.replace(own).is_some_and(|other| other != own) {
                return Err(CorefileError::at(&server.at, key, "all server blocks must have one port"));
            }
            let name = WireName::parse(&zone)
                .ok_or_else(|| CorefileError::at(&server.at, key, "is not a domain"))?;
            self.config.rules.push(Rules { zone: name.to_string(), ..block.rules.clone() });
            let mut routes = forward::routes(&block.forwards, &name);
            let own = routes.pop().map(|(_, ways)| ways).unwrap_or_default();
            let stub = |(zone, ways): (WireName, Vec<NextUpstreams>)| stub(&zone, ways, &block.cache);
            self.config.stub_domains.extend(routes.into_iter().map(stub));
            let is_asked = !own.is_empty();
            let own = stub((name, own));
            if own.zone == "." {
                self.config.upstreams = own.upstreams;
                self.config.max_concurrent = own.max_concurrent;
                self.config.forward = own.forward;
                self.config.next = own.next;
                self.config.cache = own.cache;
            } else if is_asked || !block.has_kubernetes {
                self.config.stub_domains.push(own);
            }
        }
        Ok(block.has_kubernetes)
    }
}

/// A domain whose names these are asked about, one after the other; nobody, if there are none.
fn stub(zone: &WireName, mut ways: Vec<NextUpstreams>, cache: &CacheConfig) -> StubDomain {
    let next = ways.split_off(ways.len().min(1));
    let (upstreams, max_concurrent, forward) = match ways.pop() {
        Some(way) => (way.upstreams, way.max_concurrent, way.forward),
        None => (Upstreams::None, 0, ForwardOptions::default()),
    };
    StubDomain { zone: zone.to_string(), upstreams, max_concurrent, forward, next, cache: cache.clone() }
}

/// The error about a directive.
fn wrong(directive: &Directive, problem: impl Into<String>) -> CorefileError {
    CorefileError::at(&directive.at, &directive.name, problem)
}

/// The error about an option.
fn bad_option(option: &Setting, problem: impl Into<String>) -> CorefileError {
    CorefileError::at(&option.at, &option.name, problem)
}
