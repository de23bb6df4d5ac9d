//! A cluster on a bed: nodes that run the agent and share a folder of manifests or an API server, a switch between
//! them, and a host outside.
//!
//! ```text
//!   outside 192.168.77.100, fd77::100   (and 203.0.113.1, 2001:db8:1::1: the wide world)
//!      |
//!   lan ---- node1 192.168.77.1, fd77::1   pods 10.244.1.0/24, fd00:244:1::/64
//!      |\--- node2 192.168.77.2, fd77::2   pods 10.244.2.0/24, fd00:244:2::/64
//!       \--- api 192.168.77.200, fd77::c8  if the nodes are fed by an API server
//!
//!   A node that is apart: node3 192.168.103.1, fd77:3::1, behind outside, 192.168.103.100, fd77:3::100
//!   services 10.96.0.0/16, fd00:96::/108   DNS 10.96.0.10, fd00:96::a
//! ```

mod api;
mod manifests;
mod node;
mod pod;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

pub use api::{API, Api};
pub use manifests::{Workload, node as node_manifest, service, slices};
pub use node::Node;
pub use pod::Pod;

use crate::bed::{Host, Switch};
use crate::{Error, Result, Running, Testbed, programs};

/// The networks that service addresses are taken from.
pub const SERVICE_CIDRS: [&str; 2] = ["10.96.0.0/16", "fd00:96::/108"];
/// The addresses of the cluster's DNS.
pub const DNS_ADDRESSES: [&str; 2] = ["10.96.0.10", "fd00:96::a"];
/// The outside host on the switch.
pub const OUTSIDE: [&str; 2] = ["192.168.77.100", "fd77::100"];
/// Addresses behind the outside host, which nobody but the nodes' default route leads to.
pub const WORLD: [&str; 2] = ["203.0.113.1", "2001:db8:1::1"];

/// How the nodes are set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many nodes.
    pub nodes: u8,
    /// Whether connections to services are translated at connect() where that is possible.
    pub fast_path: bool,
    /// Whether the agents learn of the cluster from an API server; otherwise from the folder of manifests.
    pub api: bool,
    /// The kubeconfig of an API server to use in the place of the test's own and of the one that the environment names.
    pub real: Option<PathBuf>,
    /// The numbers of nodes that are on networks of their own, behind the outside host, which routes.
    pub apart: Vec<u8>,
    /// More lines for the agents' configuration.
    pub agent: String,
}

impl Default for Options {
    fn default() -> Self {
        Self { nodes: 2, fast_path: true, api: false, real: None, apart: Vec::new(), agent: String::new() }
    }
}

/// A cluster; its parts are removed when dropped.
#[derive(Debug)]
pub struct Cluster {
    // Dropped in this order: what runs before what it runs in.
    _upstream: Running,
    nodes: Vec<Node>,
    api: Option<Api>,
    outside: Host,
    manifests: PathBuf,
    /// What was put on the API server, by the name of the manifest.
    applied: RefCell<BTreeMap<String, String>>,
    lan: Switch,
    /// The networks of nodes that are apart.
    _apart: Vec<Switch>,
    bed: Testbed,
}

impl Cluster {
    /// A cluster on a new bed, its agents ready.
    pub fn new(options: &Options) -> Result<Self> {
        Self::on(&Testbed::new()?, options)
    }

    /// A cluster on a bed, its agents ready.
    pub fn on(bed: &Testbed, options: &Options) -> Result<Self> {
        let cluster = Self::without_agents(bed, options)?;
        for node in &cluster.nodes {
            node.start_agent()?;
        }
        for node in &cluster.nodes {
            node.wait_ready()?;
        }
        Ok(cluster)
    }

    /// A cluster on a bed, with everything but running agents.
    pub fn without_agents(bed: &Testbed, options: &Options) -> Result<Self> {
        let lan = bed.switch("lan")?;
        let outside = bed.host("outside")?;
        lan.connect(&outside, "eth0", &OUTSIDE.map(with_length).each_ref().map(String::as_str))?;
        let [world4, world6] = WORLD;
        outside.ip(&format!("address add {world4}/32 dev lo\naddress add {world6}/128 dev lo\n"))?;
        let manifests = bed.subfolder("manifests")?;
        let mut upstream = outside.command(&programs::built("sluice-testbed")?.to_string_lossy())?;
        upstream.args(["upstream", world4, world6]);
        let upstream = Running::start(&mut upstream, &outside.log_path("dns"))?;
        let api = if options.api { Some(Api::make(bed, &lan, options.real.as_deref())?) } else { None };
        let source = match &api {
            None => format!("manifests: {}\npublishPodStatus: true", manifests.display()),
            Some(api) => format!("kubeconfig: {}", api.kubeconfig().display()),
        };
        let apart = options.apart.iter().map(|index| network_apart(bed, &outside, *index));
        let apart = apart.collect::<Result<Vec<_>>>()?;
        let nodes = (1..=options.nodes).map(|index| {
            let place = options.apart.iter().position(|apart| *apart == index);
            Node::make(bed, place.map_or(&lan, |place| &apart[place]), index, &source, options)
        });
        let nodes = nodes.collect::<Result<Vec<_>>>()?;
        let cluster = Self {
            _upstream: upstream,
            nodes,
            api,
            outside,
            manifests,
            applied: RefCell::default(),
            lan,
            _apart: apart,
            bed: bed.clone(),
        };
        cluster.apply("cluster.yaml", &manifests::nodes(&cluster.nodes))?;
        Ok(cluster)
    }

    /// The node of this number, from 1.
    ///
    /// # Panics
    ///
    /// Where there is no such node.
    pub fn node(&self, number: usize) -> &Node {
        &self.nodes[number - 1]
    }

    /// All nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The host outside the cluster.
    pub fn outside(&self) -> &Host {
        &self.outside
    }

    /// The bed.
    pub fn bed(&self) -> &Testbed {
        &self.bed
    }

    /// The folder of manifests.
    pub fn manifests(&self) -> &Path {
        &self.manifests
    }

    /// The API server.
    ///
    /// # Panics
    ///
    /// Where the cluster has none.
    #[expect(clippy::expect_used, reason = "as for a node that is not there")]
    pub fn api(&self) -> &Api {
        self.api.as_ref().expect("a cluster with an API server")
    }

    /// The switch between the nodes, for faults.
    pub fn lan(&self) -> &Switch {
        &self.lan
    }

    /// Writes a manifest, whole at once, in the place of one of the same name; or puts its objects on the API server,
    /// and deletes those that the one in its place had besides.
    pub fn apply(&self, file: &str, text: &str) -> Result<()> {
        if let Some(api) = &self.api {
            let old = self.applied.borrow_mut().insert(file.to_owned(), text.to_owned());
            return api.replace(old.as_deref().unwrap_or_default(), text);
        }
        let beside = self.bed.folder().join(format!("{file}.new"));
        std::fs::write(&beside, text).map_err(Error::file("write", &beside))?;
        let path = self.manifests.join(file);
        std::fs::rename(&beside, &path).map_err(Error::file("write", path))
    }

    /// Removes a manifest.
    pub fn withdraw(&self, file: &str) -> Result<()> {
        if let Some(api) = &self.api {
            let old = self.applied.borrow_mut().remove(file);
            let old = old.ok_or_else(|| Error::Missing(format!("manifest {file}")))?;
            return api.replace(&old, "");
        }
        let path = self.manifests.join(file);
        std::fs::remove_file(&path).map_err(Error::file("remove", path))
    }

    /// Leaves everything running when this process ends.
    pub fn keep(self) -> Result<()> {
        self.bed.keep()?;
        std::mem::forget(self);
        Ok(())
    }
}

/// A network for one node, with the outside host as its router.
fn network_apart(bed: &Testbed, outside: &Host, index: u8) -> Result<Switch> {
    let lan = bed.switch(&format!("lan{index}"))?;
    let gateways = node::gateways_apart(index).map(|address| with_length(&address));
    lan.connect(outside, &format!("eth{index}"), &gateways.each_ref().map(String::as_str))?;
    outside.sysctl(&["net/ipv4/ip_forward=1", "net/ipv6/conf/all/forwarding=1"])?;
    // It drops what comes from addresses that it does not know, as networks of clouds do.
    for (family, pods) in [("-4", "10.244.0.0/16"), ("-6", "fd00:244::/32")] {
        outside.succeed("ip", &[family, "rule", "add", "from", pods, "blackhole"])?;
    }
    Ok(lan)
}

/// An address of the switch's networks with their prefix length.
fn with_length(address: &str) -> String {
    format!("{address}/{}", if address.contains(':') { 64 } else { 24 })
}
