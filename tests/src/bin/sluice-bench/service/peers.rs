//! What Sluice is held against: the same nodes and pods on plain bridges, with kube-proxy's rules or without any.

use sluice_tests::bed::{Host, Switch};
use sluice_tests::{Error, Result, Running, Testbed};

use super::rules::{self, Served};
use super::{Places, serve, served};

/// Whose rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rules {
    /// None: pods are called by their own addresses.
    None,
    /// kube-proxy's mode nftables.
    Nftables,
    /// kube-proxy's mode iptables, with Debian's `iptables`.
    Iptables,
}

/// Two nodes, three pods and a host outside; gone when dropped.
pub(crate) struct Peer {
    client: Host,
    node: Host,
    outside: Host,
    rules: Rules,
    _others: (Host, Host, Host, Switch, Vec<Switch>),
    _servers: Vec<Running>,
}

/// Nodes on the switch, as in a cluster of Sluice's.
const NODES: [&str; 2] = ["192.168.77.1", "192.168.77.2"];
const LOCAL: &str = "10.244.1.3";
const REMOTE: &str = "10.244.2.3";

impl Peer {
    /// Sets it up with so many services.
    pub(crate) fn new(bed: &Testbed, name: &str, rules: Rules, services: usize) -> Result<Self> {
        let lan = bed.switch(&format!("{name}-lan"))?;
        let outside = bed.host(&format!("{name}-out"))?;
        lan.connect(&outside, "eth0", &["192.168.77.100/24"])?;
        let node = |index: usize| -> Result<Host> {
            let node = bed.host(&format!("{name}-n{index}"))?;
            lan.connect(&node, "eth0", &[&format!("{}/24", NODES[index - 1])])?;
            node.sysctl(&["net/ipv4/ip_forward=1"])?;
            // The pods' bridge is the node's own device, with the gateway's address.
            node.ip(&format!(
                "route add default via 192.168.77.100\nlink add cni0 type bridge\naddress add 10.244.{index}.1/24 dev cni0\nlink set cni0 up\n\
                 route add 10.244.{}.0/24 via {}\n",
                3 - index,
                NODES[2 - index]
            ))?;
            Ok(node)
        };
        let (first, second) = (node(1)?, node(2)?);
        outside.ip(&format!(
            "route add 10.244.1.0/24 via {}\nroute add 10.244.2.0/24 via {}\n",
            NODES[0], NODES[0]
        ))?;
        if rules == Rules::None {
            // Answers go back through the first node, and nobody finds a shorter way: so it is for whatever puts the
            // node's address in the place of the client's.
            second.ip(&format!("route add 192.168.77.100/32 via {}\n", NODES[0]))?;
            for host in [&first, &second, &outside] {
                host.sysctl(&["net/ipv4/conf/all/send_redirects=0", "net/ipv4/conf/eth0/send_redirects=0"])?;
                host.sysctl(&[
                    "net/ipv4/conf/all/accept_redirects=0",
                    "net/ipv4/conf/eth0/accept_redirects=0",
                ])?;
            }
        }
        let pod = |node: &Host, what: &str, address: &str, gateway: &str| -> Result<Host> {
            let pod = bed.host(&format!("{name}-{what}"))?;
            node.ip(&format!(
                "link add {what} type veth peer name eth0 netns {}\nlink set {what} master cni0\nlink set {what} up\n",
                pod.netns()
            ))?;
            pod.ip(&format!(
                "address add {address}/24 dev eth0\nlink set eth0 up\nroute add default via {gateway}\n"
            ))?;
            Ok(pod)
        };
        let client = pod(&first, "client", "10.244.1.2", "10.244.1.1")?;
        let local = pod(&first, "local", LOCAL, "10.244.1.1")?;
        let remote = pod(&second, "remote", REMOTE, "10.244.2.1")?;
        let peer = Self {
            _servers: [serve(&local)?, serve(&remote)?].into_iter().flatten().collect(),
            _others: (second, local, remote, lan, Vec::new()),
            client,
            node: first,
            outside,
            rules,
        };
        peer.load(bed, services)?;
        Ok(peer)
    }

    fn load(&self, bed: &Testbed, services: usize) -> Result<()> {
        let all: Vec<Served> = served([LOCAL, REMOTE], services);
        let (program, arguments, text): (_, &[&str], _) = match self.rules {
            Rules::None => return Ok(()),
            Rules::Nftables => ("nft", &["-f"], rules::nftables(NODES[0], &all)),
            Rules::Iptables => ("iptables-restore", &[], rules::iptables(&all)),
        };
        // What pods of one bridge send each other passes the rules, without which answers would miss their
        // translation: kube-proxy asks for that as well.
        let bridges = self.node.sysctl(&["net/bridge/bridge-nf-call-iptables=1"]);
        bridges.map_err(|error| Error::answer("the kernel's br_netfilter (modprobe br_netfilter)", error))?;
        let file = bed.folder().join(format!("{}-rules", self.node.name()));
        std::fs::write(&file, text).map_err(Error::file("write", &file))?;
        self.node.succeed(program, &[arguments, &[&file.to_string_lossy()]].concat()).map(|_| ())
    }
}

impl Places for Peer {
    fn client(&self) -> &Host {
        &self.client
    }

    fn node(&self) -> &Host {
        &self.node
    }

    fn outside(&self) -> &Host {
        &self.outside
    }

    fn pods(&self) -> [String; 2] {
        [LOCAL.to_owned(), REMOTE.to_owned()]
    }

    fn has_services(&self) -> bool {
        self.rules != Rules::None
    }
}
