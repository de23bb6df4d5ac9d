//! What can go wrong, with the object and the call.

use crate::{KeyError, MasterError};
use std::{io, net::SocketAddr, path::PathBuf};

/// A configuration that cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The zone is not a domain name.
    #[error("zone {0:?} is not a domain name of letters, digits, hyphens and dots")]
    Zone(String),
    /// A domain of imports cannot be the cluster's own.
    #[error("multicluster zone {0:?} is the cluster's own domain")]
    Multicluster(String),
    /// There is nothing to tell of topology zones.
    #[error("zonal names need endpoints")]
    Zonal,
    /// The time to live is out of range.
    #[error("ttl {0} is not between 0 and 3600 seconds")]
    Ttl(u32),
    /// The UDP payload is out of range.
    #[error("max_udp_payload {0} is not between 512 and 4096 bytes")]
    UdpPayload(u16),
    /// An option that cannot change while the server runs.
    #[error("{0} cannot change while the server runs")]
    Fixed(&'static str),
    /// A label cannot be one.
    #[error("{0:?} is not one label of a domain name")]
    Label(String),
    /// A part that needs domains has none.
    #[error("{0} has no domain")]
    NoZone(&'static str),
    /// A key cannot be used.
    #[error("DNSSEC key")]
    Key(#[source] Box<KeyError>),
    /// Answers are to be signed without keys.
    #[error("dnssec has no key")]
    NoKey,
    /// A domain is there twice.
    #[error("{0} is there twice")]
    Twice(String),
    /// A file cannot be read.
    #[error("{}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A master file says what cannot be.
    #[error(transparent)]
    Master(Box<MasterError>),
    /// A line is not of the form of `/etc/hosts`.
    #[error("hosts line {0:?} is not an address and names")]
    Hosts(String),
    /// The certificates to trust cannot be read.
    #[error("certificates of {}: {problem}", file.display())]
    Certificates {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// An upstream cannot have this name.
    #[error("TLS server name {0:?} is not a name")]
    ServerName(String),
    /// An upstream over HTTPS whose address is none that a request can name.
    #[error("upstream {0}: a server with an IPv6 address over HTTPS needs a TLS server name")]
    HttpsName(SocketAddr),
    /// The path that an upstream is asked for over HTTPS.
    #[error("upstreams' path {0:?} does not begin with a slash")]
    HttpsPath(String),
    /// IPv4 addresses cannot be embedded in the network.
    #[error("dns64 prefix {0} is not 32, 40, 48, 56, 64 or 96 bits long")]
    Dns64(ipnet::Ipv6Net),
    /// An EDNS option for upstreams that cannot be.
    #[error("EDNS option {0} has more in it than it may")]
    EdnsOption(u16),
    /// A log's format has a word that we do not know.
    #[error("log format {0:?} has a word that is not supported")]
    LogFormat(String),
    /// A template has an expression that we do not know.
    #[error("template {0:?} has an expression that is not supported")]
    Template(String),
    /// A template's response code is none that can be given.
    #[error("response code {0} is not one from 0 to 5")]
    Rcode(u16),
    /// A regular expression cannot be read.
    #[error("regular expression {text:?}")]
    Regex {
        /// The expression.
        text: String,
        /// What is wrong with it.
        source: Box<regex::Error>,
    },
    /// The library that asks upstreams cannot be set up.
    #[error("setting up the resolver")]
    Resolver(#[source] hickory_resolver::net::NetError),
    /// More upstreams than are tried in turn.
    #[error("{0} upstreams are more than the 15 that are allowed")]
    TooManyUpstreams(usize),
}

/// Why a server could not be set up or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// The configuration is not valid.
    #[error("DNS configuration")]
    Config(#[from] ConfigError),
    /// The metrics could not be made.
    #[error("metrics")]
    Metrics(#[source] prometheus::Error),
    /// A socket could not be set up.
    #[error("{call} on {address}/{protocol}")]
    Socket {
        /// The system call.
        call: &'static str,
        /// The address to listen on.
        address: SocketAddr,
        /// `udp` or `tcp`.
        protocol: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A thread could not be started.
    #[error("starting the thread that answers {address}/udp")]
    Thread {
        /// The address it would have served.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}
