//! The servers that are held against each other, and how they are set up: one worker each, nothing logged, no limits.

use std::path::Path;

use sluice_tests::bed::Host;
use sluice_tests::{Error, Result, Running, programs};

use super::{SERVER, cluster};

/// A server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    /// Ours.
    Sluice,
    /// Knot DNS, authoritative.
    Knot,
    /// NSD, authoritative.
    Nsd,
    /// Unbound, which asks others and remembers.
    Unbound,
    /// Nothing but the socket: what the kernel and the client take.
    Floor,
}

impl Server {
    pub(crate) const ALL: [Self; 5] = [Self::Sluice, Self::Knot, Self::Nsd, Self::Unbound, Self::Floor];

    /// Where it listens.
    pub(crate) const fn port(self) -> u16 {
        match self {
            Self::Sluice => 5301,
            Self::Knot => 5302,
            Self::Nsd => 5303,
            Self::Unbound => 5304,
            Self::Floor => 5305,
        }
    }

    /// Starts it on a core.
    pub(crate) fn start(self, host: &Host, core: &str) -> Result<Running> {
        let folder = host.bed().subfolder(format!("{self:?}").to_lowercase())?;
        let own = programs::built("sluice-bench")?.display().to_string();
        let (listen, upstream) = (format!("{SERVER}:{}", self.port()), format!("{SERVER}:53"));
        let config = folder.join("config");
        if !matches!(self, Self::Sluice | Self::Floor) {
            std::fs::write(&config, self.config(&folder)).map_err(Error::file("write", &config))?;
        }
        if matches!(self, Self::Knot | Self::Nsd) {
            let zone = folder.join("zone");
            std::fs::write(&zone, cluster::zone_file()).map_err(Error::file("write", &zone))?;
        }
        let config = config.display().to_string();
        let command: &[&str] = match self {
            Self::Sluice => &[&own, "serve-names", &listen, &upstream],
            Self::Floor => &[&own, "serve-floor", &listen],
            Self::Knot => &["knotd", "-c", &config],
            Self::Nsd => &["nsd", "-d", "-c", &config],
            Self::Unbound => &["unbound", "-d", "-c", &config],
        };
        host.start(&format!("{self:?}"), "taskset", &[&["-c", core], command].concat())
    }

    fn config(self, folder: &Path) -> String {
        let (folder, port) = (folder.display(), self.port());
        match self {
            Self::Sluice | Self::Floor => String::new(),
            Self::Knot => format!(
                "server:\n  rundir: {folder}\n  pidfile: {folder}/pid\n  user: root\n  listen: {SERVER}@{port}\n  udp-workers: 1\n  \
                 tcp-workers: 1\n  background-workers: 1\ncontrol:\n  listen: {folder}/control\ndatabase:\n  storage: {folder}\n\
                 zone:\n  - domain: cluster.local\n    file: {folder}/zone\n    zonefile-load: whole\n    journal-content: none\n"
            ),
            Self::Nsd => format!(
                "server:\n  ip-address: {SERVER}@{port}\n  server-count: 1\n  username: \"\"\n  zonesdir: {folder}\n  \
                 database: \"\"\n  pidfile: {folder}/pid\n  xfrdfile: {folder}/xfrd\n  xfrdir: {folder}\n  \
                 zonelistfile: {folder}/zones\n  rrl-ratelimit: 0\n  logfile: {folder}/log\nremote-control:\n  \
                 control-enable: no\nzone:\n  name: cluster.local\n  zonefile: {folder}/zone\n"
            ),
            Self::Unbound => format!(
                "server:\n  interface: {SERVER}\n  port: {port}\n  num-threads: 1\n  do-daemonize: no\n  username: \"\"\n  \
                 chroot: \"\"\n  directory: {folder}\n  pidfile: {folder}/pid\n  use-syslog: no\n  logfile: {folder}/log\n  \
                 access-control: 0.0.0.0/0 allow\n  do-not-query-localhost: no\n  module-config: iterator\n  \
                 msg-cache-size: 16m\n  rrset-cache-size: 32m\n  minimal-responses: yes\nremote-control:\n  \
                 control-enable: no\nforward-zone:\n  name: .\n  forward-addr: {SERVER}@53\n"
            ),
        }
    }
}

/// Starts the server of the world outside.
pub(crate) fn upstream(host: &Host) -> Result<Running> {
    let program = programs::built("sluice-testbed")?;
    host.start("upstream", &program.to_string_lossy(), &["upstream", "203.0.113.1"])
}
