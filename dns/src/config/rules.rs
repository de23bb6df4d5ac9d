//! What is done about a query beside asking the zone and the upstreams: CoreDNS's plugins of these names.

use std::{net::Ipv6Addr, path::PathBuf, time::Duration};

use ipnet::{IpNet, Ipv6Net};

use super::{Dnssec, LogRule, Order, Rewrite, ZoneFile};

/// The rules for the names of a domain; the longest domain that a name ends with counts, alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The domain; `.` for all names.
    pub zone: String,
    /// What is written to the log.
    pub log: Vec<LogRule>,
    /// Who may ask what: the first that matches counts; where none does, anyone may.
    pub acl: Vec<AclRule>,
    /// What is put as something else.
    pub rewrites: Vec<Rewrite>,
    /// Answers made by a pattern; the first that matches counts.
    pub templates: Vec<Template>,
    /// Names with addresses of their own.
    pub hosts: Option<Hosts>,
    /// Domains in master files, for what the cluster does not know.
    pub files: Vec<ZoneFile>,
    /// Answers are signed.
    pub dnssec: Option<Dnssec>,
    /// Names without IPv6 addresses get some.
    pub dns64: Option<Dns64>,
    /// In which order addresses are told.
    pub order: Order,
}

impl Rules {
    /// No rules for the names of a domain.
    pub fn new(zone: &str) -> Self {
        Self {
            zone: zone.to_owned(),
            log: Vec::new(),
            acl: Vec::new(),
            rewrites: Vec::new(),
            templates: Vec::new(),
            hosts: None,
            files: Vec::new(),
            dnssec: None,
            dns64: None,
            order: Order::default(),
        }
    }
}

/// What becomes of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AclAction {
    /// It is answered.
    Allow,
    /// It is refused.
    Block,
    /// It gets an answer without records.
    Filter,
    /// It gets no answer.
    Drop,
}

/// One rule about who may ask what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclRule {
    /// What becomes of queries that match.
    pub action: AclAction,
    /// Only names of these domains; empty: of all.
    pub zones: Vec<String>,
    /// Only these record types; empty: all.
    pub types: Vec<u16>,
    /// Only clients from here; empty: from anywhere.
    pub networks: Vec<IpNet>,
}

/// IPv6 addresses for names that only have IPv4 addresses (RFC 6147).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns64 {
    /// The network that IPv4 addresses are embedded in: 32, 40, 48, 56, 64 or 96 bits long.
    pub prefix: Ipv6Net,
    /// Also for names that have IPv6 addresses.
    pub translate_all: bool,
    /// Also for clients that ask over IPv4.
    pub allow_ipv4: bool,
}

impl Default for Dns64 {
    /// The well-known prefix `64:ff9b::/96` of RFC 6052.
    fn default() -> Self {
        let prefix = Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);
        Self { prefix, translate_all: false, allow_ipv4: false }
    }
}

/// Answers made by a pattern: the `template` of CoreDNS.
///
/// Records are lines as in a zone file. In them `{{ .Name }}`, `{{ .Zone }}`, `{{ .Class }}`, `{{ .Type }}`,
/// `{{ .Remote }}`, `{{ index .Match 1 }}` and `{{ .Group.name }}` stand for what the query has there; `{{ parseInt .Group.name 16 8 }}`
/// for the number that this is to that base, of at most so many bits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    /// Only this record type; none: all.
    pub qtype: Option<u16>,
    /// Only names of these domains; empty: of all.
    pub zones: Vec<String>,
    /// Only names that match one of these regular expressions; empty: all.
    pub matches: Vec<String>,
    /// Records of the answer. An alias among them is followed.
    pub answer: Vec<String>,
    /// Records of the authority section.
    pub authority: Vec<String>,
    /// Additional records.
    pub additional: Vec<String>,
    /// The response code.
    pub rcode: u16,
    /// An extended error (RFC 8914), its code and a text, for clients that speak EDNS.
    pub error: Option<(u16, String)>,
    /// Names that match no expression are looked for elsewhere: none of them (they get SERVFAIL), all (empty), or
    /// those of the domains.
    pub fallthrough: Option<Vec<String>>,
}

/// Names with addresses, as in `/etc/hosts`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hosts {
    /// A file of them, read again when it changes.
    pub file: Option<PathBuf>,
    /// Lines of the same form.
    pub lines: Vec<String>,
    /// Only names of these domains; empty: all.
    pub zones: Vec<String>,
    /// Time to live.
    pub ttl: u32,
    /// Whether reverse names are answered.
    pub reverse: bool,
    /// Names that are not there are looked for elsewhere: none of them, all (empty), or those of the domains.
    pub fallthrough: Option<Vec<String>>,
    /// So are names that are there, for types that are not those of addresses.
    pub fallthrough_unsupported: bool,
    /// How often the file is looked at; zero: never again.
    pub reload: Duration,
}

impl Default for Hosts {
    fn default() -> Self {
        Self {
            file: None,
            lines: Vec::new(),
            zones: Vec::new(),
            ttl: 3600,
            reverse: true,
            fallthrough: None,
            fallthrough_unsupported: false,
            reload: Duration::from_secs(5),
        }
    }
}
