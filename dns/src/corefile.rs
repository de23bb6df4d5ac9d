//! Reads a Corefile, CoreDNS's configuration, into ours.
//!
//! A Corefile is read as it is: what the standard manifests of Kubernetes and NodeLocal DNSCache use is taken,
//! and a directive or an option that we do not have is an error with its line, never passed over. Where
//! something is as it should be without being told (`errors`, `loop`, `reload`), it is accepted.

mod directives;
mod rules;
mod syntax;
mod values;

use std::{net::SocketAddr, time::Duration};

use self::{
    directives::Block,
    syntax::{Directive, ServerBlock},
};
use crate::{DnsConfig, Rules, StubDomain, name::WireName};

/// What is wrong with a Corefile, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {directive}: {problem}")]
pub struct CorefileError {
    /// The line, from 1.
    pub line: usize,
    /// The directive, or the option within it.
    pub directive: String,
    /// What is wrong.
    pub problem: String,
}

impl CorefileError {
    fn new(line: usize, directive: &str, problem: impl Into<String>) -> Self {
        Self { line, directive: directive.to_owned(), problem: problem.into() }
    }
}

/// What a Corefile says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corefile {
    /// For the server.
    pub config: DnsConfig,
    /// Where `/health` is answered.
    pub health: Option<SocketAddr>,
    /// How long the server goes on after it was told to stop.
    pub lameduck: Duration,
    /// Where `/ready` is answered.
    pub ready: Option<SocketAddr>,
    /// Where `/metrics` is answered.
    pub metrics: Option<SocketAddr>,
}

impl Corefile {
    /// Reads `text`; what it does not say stays as in `base`.
    ///
    /// The cluster's domain is the one of `kubernetes`, or that of `base`: its names are answered from memory,
    /// whatever upstreams a server block of that domain names. The block of `.` says the upstreams; blocks of
    /// other domains become stub domains.
    pub fn read(text: &str, base: DnsConfig) -> Result<Self, CorefileError> {
        let blocks = syntax::parse(text)?;
        let upstreams = crate::Upstreams::None;
        let mut corefile = Self {
            config: DnsConfig { stub_domains: Vec::new(), rules: Vec::new(), upstreams, ..base },
            health: None,
            lameduck: Duration::ZERO,
            ready: None,
            metrics: None,
        };
        let mut port = None;
        let mut bound = Vec::new();
        for block in &blocks {
            corefile.add(block, &mut port, &mut bound)?;
        }
        let port = port.unwrap_or(53);
        if bound.is_empty() {
            corefile.config.listen.iter_mut().for_each(|address| address.set_port(port));
        } else {
            bound.sort_unstable();
            bound.dedup();
            corefile.config.listen = bound.into_iter().map(|ip| SocketAddr::new(ip, port)).collect();
        }
        Ok(corefile)
    }

    fn add(
        &mut self,
        server: &ServerBlock,
        port: &mut Option<u16>,
        bound: &mut Vec<std::net::IpAddr>,
    ) -> Result<(), CorefileError> {
        let mut block = Block::default();
        for directive in &server.directives {
            block.read(directive, self)?;
        }
        bound.append(&mut block.bind);
        for key in &server.keys {
            let (zone, own) = values::zone_and_port(key)
                .ok_or_else(|| CorefileError::new(server.line, key, "is not a domain and a port"))?;
            if port.replace(own).is_some_and(|other| other != own) {
                return Err(CorefileError::new(server.line, key, "all server blocks must have one port"));
            }
            let name = WireName::parse(&zone)
                .ok_or_else(|| CorefileError::new(server.line, key, "is not a domain"))?;
            self.config.rules.push(Rules { zone: name.to_string(), ..block.rules.clone() });
            let stubs = block.stubs.iter().map(|(zone, upstreams)| StubDomain {
                zone: zone.clone(),
                upstreams: upstreams.clone(),
                max_concurrent: block.max_concurrent,
                forward: block.forward.clone(),
                cache: block.cache.clone(),
            });
            self.config.stub_domains.extend(stubs);
            if name.as_bytes() == b"\0" {
                self.config.upstreams = block.upstreams.clone();
                self.config.max_concurrent = block.max_concurrent;
                self.config.forward = block.forward.clone();
                self.config.cache = block.cache.clone();
            } else if !block.has_kubernetes {
                self.config.stub_domains.push(StubDomain {
                    zone: name.to_string(),
                    upstreams: block.upstreams.clone(),
                    max_concurrent: block.max_concurrent,
                    forward: block.forward.clone(),
                    cache: block.cache.clone(),
                });
            }
        }
        Ok(())
    }
}

/// The error about a directive.
fn wrong(directive: &Directive, problem: impl Into<String>) -> CorefileError {
    CorefileError::new(directive.line, &directive.name, problem)
}
