//! What is done about a query before the zone and the upstreams are asked: CoreDNS's plugins of these names.

use std::path::PathBuf;

use ipnet::IpNet;

/// The rules for the names of a domain; the longest domain that a name ends with counts, alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The domain; `.` for all names.
    pub zone: String,
    /// Each query is logged.
    pub log: bool,
    /// Who may ask what: the first that matches counts; where none does, anyone may.
    pub acl: Vec<AclRule>,
    /// Names that are answered as others.
    pub rewrites: Vec<Rewrite>,
    /// Names with addresses of their own.
    pub hosts: Option<Hosts>,
}

impl Rules {
    /// No rules for the names of a domain.
    pub fn new(zone: &str) -> Self {
        Self { zone: zone.to_owned(), log: false, acl: Vec::new(), rewrites: Vec::new(), hosts: None }
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

/// How a name is compared. Names have a final dot and are lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameMatch {
    /// The whole name.
    Exact,
    /// How it begins.
    Prefix,
    /// How it ends.
    Suffix,
    /// Any part of it.
    Substring,
    /// A regular expression.
    Regex,
}

/// Queries for some names are answered as if they were for others. Records that bear the other name bear the
/// name asked for in the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewrite {
    /// How `from` is compared.
    pub matches: NameMatch,
    /// What is looked for.
    pub from: String,
    /// What is put in its place; `{1}` stands for the first group of a regular expression.
    pub to: String,
    /// Owners in the answer that match the expression are changed as well.
    pub answers: Vec<(String, String)>,
    /// The rules after this one are looked at too.
    pub and_on: bool,
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
}

impl Default for Hosts {
    fn default() -> Self {
        Self { file: None, lines: Vec::new(), zones: Vec::new(), ttl: 3600, reverse: true, fallthrough: None }
    }
}
