//! Who is asked about names that are not the cluster's, and how: CoreDNS's `forward`.

use std::{
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use super::CacheConfig;

/// Where names outside the cluster are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstreams {
    /// Nowhere: they are refused.
    None,
    /// The `nameserver` lines of this file, which is read again when it changes.
    ResolvConf(PathBuf),
    /// These servers.
    Addresses(Vec<SocketAddr>),
}

/// In which order upstreams are asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// At random.
    #[default]
    Random,
    /// Each question starts with the next one.
    RoundRobin,
    /// As they are given; the second only where the first does not answer.
    Sequential,
}

/// How upstreams are asked: the `forward` of CoreDNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardOptions {
    /// In which order.
    pub policy: Policy,
    /// Over TCP only; without, over UDP, and over TCP what is too large for that.
    pub force_tcp: bool,
    /// How often a server that failed is asked whether it is back.
    pub health_check: Duration,
    /// After so many of those without an answer it counts as down; 0: never.
    pub max_fails: u32,
    /// Over TLS only (DNS over TLS, RFC 7858).
    pub tls: Option<Tls>,
    /// Over HTTPS only (RFC 8484, HTTP/2), as requests for this path; `tls` says who the server must prove to be.
    pub https: Option<String>,
    /// The address that they are asked from, those of its family; none: the kernel's choice.
    pub source: Option<IpAddr>,
    /// How long one server is given to answer.
    pub attempt: Duration,
    /// Response codes for which the next server is asked, as for no answer.
    pub failover: Vec<u16>,
    /// Response codes of answers in whose place the next upstreams are asked, where there are any.
    pub next: Vec<u16>,
    /// The same for answers that say that there are no records of the type.
    pub next_on_nodata: bool,
    /// The most attempts for one question; 0: as many as there is time for.
    pub max_attempts: u32,
    /// Connections to a server, kept between questions and shared where there are more questions at one time; 0: each question
    /// has one for itself.
    pub max_idle: usize,
    /// How long they are kept without a question.
    pub idle_for: Duration,
    /// How long they are kept at all; none: as long as there are questions.
    pub max_age: Option<Duration>,
    /// Where all servers are down, none is asked; without, they are asked all the same.
    pub fail_fast: bool,
    /// How servers are asked whether they are back.
    pub probe: Probe,
}

/// How a server is asked whether it is back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// For the servers of this domain.
    pub domain: String,
    /// Whether it is to ask others for it.
    pub recursion: bool,
}

impl Default for Probe {
    fn default() -> Self {
        Self { domain: ".".to_owned(), recursion: true }
    }
}

impl Default for ForwardOptions {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            force_tcp: false,
            health_check: Duration::from_millis(500),
            max_fails: 2,
            tls: None,
            https: None,
            source: None,
            attempt: Duration::from_millis(1500),
            failover: Vec::new(),
            next: Vec::new(),
            next_on_nodata: false,
            max_attempts: 0,
            max_idle: 16,
            idle_for: Duration::from_secs(10),
            max_age: None,
            fail_fast: false,
            probe: Probe::default(),
        }
    }
}

/// Who an upstream must prove to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The name in its certificate; none: its address.
    pub server_name: Option<String>,
    /// The names of single servers.
    pub server_names: Vec<(SocketAddr, String)>,
    /// A file of certificates (PEM), one of which must vouch for it; none: those that the system trusts.
    pub ca_file: Option<PathBuf>,
    /// Our own certificate and its key (PEM), for servers that want to know who asks.
    pub client: Option<(PathBuf, PathBuf)>,
}

impl Tls {
    /// The name that a server must prove to have, if one is given.
    pub(crate) fn name_of(&self, server: &SocketAddr) -> Option<&str> {
        let own = self.server_names.iter().find(|(address, _)| address == server).map(|(_, name)| name);
        own.or(self.server_name.as_ref()).map(String::as_str)
    }
}

/// A domain with upstreams of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StubDomain {
    /// The domain; all names below it are meant too.
    pub zone: String,
    /// Where its names are asked for. None: nowhere, they are refused.
    pub upstreams: Upstreams,
    /// Queries under way at one time; 0: as many as there are.
    pub max_concurrent: usize,
    /// How they are asked.
    pub forward: ForwardOptions,
    /// Who is asked after them where their answer is one that [`ForwardOptions::next`] passes on.
    pub next: Vec<NextUpstreams>,
    /// What is kept of their answers.
    pub cache: CacheConfig,
}

/// Those who are asked after others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextUpstreams {
    /// Who.
    pub upstreams: Upstreams,
    /// Queries under way at one time; 0: as many as there are.
    pub max_concurrent: usize,
    /// How they are asked.
    pub forward: ForwardOptions,
}
