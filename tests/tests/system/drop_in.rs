//! `sluice kube-proxy` in the place of kube-proxy: with its flags and its configuration, on nodes where another plugin has
//! attached the pods (row 44 of the behaviour table).

use std::path::PathBuf;

use serde_json::json;
use sluice_tests::bed::{Host, Servers};
use sluice_tests::cluster::{Node, Options, SERVICE_CIDRS};
use sluice_tests::{Cluster, Error, Result, Testbed, wait_for};

use crate::api::{AGENT, RECOVERY};
use crate::paths::on_both_paths;
use crate::site::{LIMIT, NODE_PORTS, WEB, bracketed, spread, url, web_service};

on_both_paths!(pods_on_somebody_elses_bridge_are_served, pods_on_routed_pairs_are_served);

fn pods_on_somebody_elses_bridge_are_served(fast_path: bool) -> Result<()> {
    let mut site = Site::new(Wiring::Bridge, fast_path)?;
    site.serves_everybody()?;
    site.follows_pods()?;
    site.goes_without_a_trace()
}

fn pods_on_routed_pairs_are_served(fast_path: bool) -> Result<()> {
    let mut site = Site::new(Wiring::Routed, fast_path)?;
    site.serves_everybody()?;
    site.follows_pods()
}

/// How the other plugin attaches pods.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wiring {
    /// Ports of a bridge, as `bridge` and flannel do.
    Bridge,
    /// A route to each, as `ptp` and Calico do.
    Routed,
}

/// A pod that no plugin of ours has made.
struct Pod {
    host: Host,
    node: String,
    addresses: [String; 2],
}

impl Pod {
    fn new(node: &Node, name: &str, number: u8, wiring: Wiring) -> Result<Self> {
        let host = node.host().bed().host_on(node.host(), name)?;
        let of = |number: u8| node.pod_cidrs().map(|cidr| address(&cidr, number));
        let ([own4, own6], [gateway4, gateway6]) = (of(number), of(1));
        let veth = format!("veth{number}");
        let netns = host.netns();
        node.host().ip(&format!("link add {veth} type veth peer name eth0 netns {netns}\n"))?;
        host.sysctl(&["net/ipv6/conf/eth0/accept_dad=0"])?;
        node.host().sysctl(&[&format!("net/ipv6/conf/{veth}/accept_dad=0")])?;
        let [bits4, bits6] = if wiring == Wiring::Bridge { [24, 64] } else { [32, 128] };
        host.ip(&format!(
            "address add {own4}/{bits4} dev eth0\naddress add {own6}/{bits6} dev eth0 nodad\nlink set eth0 up\n"
        ))?;
        node.host().ip(&match wiring {
            Wiring::Bridge => format!("link set {veth} master cni0\nlink set {veth} up\n"),
            Wiring::Routed => format!(
                "address add {gateway4}/32 dev {veth}\naddress add {gateway6}/128 dev {veth} nodad\nlink set {veth} up\n\
                 route add {own4}/32 dev {veth}\nroute add {own6}/128 dev {veth}\n"
            ),
        })?;
        if wiring == Wiring::Routed {
            host.ip(&format!("route add {gateway4}/32 dev eth0\nroute add {gateway6}/128 dev eth0\n"))?;
        }
        host.ip(&format!("route add default via {gateway4}\nroute add default via {gateway6}\n"))?;
        Ok(Self { host, node: node.name().to_owned(), addresses: [own4, own6] })
    }
}

/// An address of a network that ends in zeroes.
fn address(cidr: &str, number: u8) -> String {
    let network = cidr.split('/').next().unwrap_or_default();
    format!("{}{number:x}", network.strip_suffix('0').unwrap_or(network))
}

/// Two nodes, a client, and three endpoints: a pod on each node, and the first node itself.
struct Site {
    servers: Servers,
    client: Pod,
    webs: Vec<Pod>,
    wiring: Wiring,
    config: PathBuf,
    cluster: Cluster,
}

impl Site {
    fn new(wiring: Wiring, fast_path: bool) -> Result<Self> {
        let bed = Testbed::new()?;
        let options = Options { api: true, fast_path, agent: AGENT.to_owned(), ..Options::default() };
        let cluster = Cluster::without_agents(&bed, &options)?;
        let config = bed.folder().join("config.conf");
        let text = format!(
            "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: nftables\n\
             clusterCIDR: 10.244.0.0/16,fd00:244::/32\nclientConnection: {{kubeconfig: {}}}\n\
             hostnameOverride: nobody\nhealthzBindAddress: 127.0.0.1:10256\n",
            cluster.api().kubeconfig().display()
        );
        std::fs::write(&config, text).map_err(Error::file("write", &config))?;
        let cidrs = SERVICE_CIDRS.map(|cidr| format!("'{cidr}'")).join(", ");
        cluster.apply(
            "cidrs.yaml",
            &format!(
                "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {{name: kubernetes}}\nspec: {{cidrs: [{cidrs}]}}\n"
            ),
        )?;
        for (node, other) in [(1, 2), (2, 1)].map(|(one, two)| (cluster.node(one), cluster.node(two))) {
            let gateways = node.pod_cidrs().map(|cidr| address(&cidr, 1));
            if wiring == Wiring::Bridge {
                node.host().ip("link add cni0 type bridge mcast_snooping 0\n")?;
                node.host().sysctl(&["net/ipv6/conf/cni0/accept_dad=0"])?;
                node.host().ip(&format!(
                    "address add {}/24 dev cni0\naddress add {}/64 dev cni0 nodad\nlink set cni0 up\n",
                    gateways[0], gateways[1]
                ))?;
            }
            for (network, via) in other.pod_cidrs().iter().zip(other.addresses()) {
                node.host().ip(&format!("route add {network} via {via}\n"))?;
            }
            // Nothing but where things of this test lie: all else kube-proxy's flags and configuration say.
            node.reconfigure(|text| {
                let kept =
                    ["stateDir", "bpffsDir", "cgroupRoot", "fastPath", "flowEntries", "logLevel", "apiIdle"];
                let lines = text.lines().filter(|line| kept.iter().any(|kept| line.starts_with(kept)));
                lines.map(|line| format!("{line}\n")).collect()
            })?;
        }
        let client = Pod::new(cluster.node(1), "client", 5, wiring)?;
        let webs = vec![
            Pod::new(cluster.node(1), "web-0", 6, wiring)?,
            Pod::new(cluster.node(2), "web-1", 7, wiring)?,
        ];
        let mut site = Self { servers: Servers::new(), client, webs, wiring, config, cluster };
        for (host, name) in [(&site.webs[0].host, "web-0"), (&site.webs[1].host, "web-1")] {
            serve(&mut site.servers, host, name)?;
        }
        serve(&mut site.servers, site.cluster.node(1).host(), "web-node")?;
        site.apply()?;
        for node in site.cluster.nodes() {
            let config = site.config.display().to_string();
            node.start_kube_proxy(&["--config", &config, "--hostname-override", node.name(), "-v=4"])?;
        }
        for node in site.cluster.nodes() {
            node.wait_ready_within(RECOVERY)?;
        }
        Ok(site)
    }

    /// Puts the service and its endpoints on the API server.
    fn apply(&self) -> Result<()> {
        let node = self.cluster.node(1);
        let mut text = web_service("");
        for (family, kind) in ["IPv4", "IPv6"].into_iter().enumerate() {
            let pods: Vec<_> = self
                .webs
                .iter()
                .map(|pod| json!({ "addresses": [pod.addresses[family]], "nodeName": pod.node }))
                .collect();
            let own = json!({ "addresses": [node.addresses()[family]], "nodeName": node.name() });
            // Servers of the node that answer datagrams from wherever they are sent leave from another address than the one
            // that was asked, whoever translates: they are not for services.
            let tcp = [pods.clone(), vec![own]].concat();
            for (name, ports, endpoints) in [
                ("tcp", "[{name: http, port: 80}, {name: who, port: 90}]", tcp),
                (
                    "udp",
                    "[{name: udp, port: 70, protocol: UDP}, {name: who-udp, port: 90, protocol: UDP}]",
                    pods,
                ),
            ] {
                text += &format!(
                    "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: web-{name}-{}\n  \
                     namespace: default\n  labels: {{kubernetes.io/service-name: web}}\naddressType: {kind}\n\
                     ports: {ports}\nendpoints: {}\n---\n",
                    kind.to_lowercase(),
                    json!(endpoints)
                );
            }
        }
        self.cluster.apply("web.yaml", &text)
    }

    fn reaches(&self, who: &str, host: &Host, url: &str, wanted: usize) -> Result<()> {
        wait_for(&format!("{wanted} endpoints behind {url} for {who}"), LIMIT, || {
            let spread = spread(host, url, 12 * wanted)?;
            if spread.len() == wanted { Ok(Some(())) } else { Err(Error::answer(url, format!("{spread:?}"))) }
        })
        .map_err(|error| self.with_logs(&error))
    }

    /// Pods, the node itself and hosts outside reach every endpoint, wherever it is; pods keep their addresses, and what is
    /// the other plugin's stays its.
    fn serves_everybody(&self) -> Result<()> {
        let node = self.cluster.node(1);
        for (family, address) in WEB.into_iter().enumerate() {
            self.reaches("a pod", &self.client.host, &url(address), 3)?;
            self.reaches("an endpoint, which is one of them", &self.webs[0].host, &url(address), 3)?;
            self.reaches("the node", node.host(), &url(address), 3)?;
            for node in self.cluster.nodes() {
                let place = bracketed(&node.addresses()[family]);
                let url = format!("http://{place}:{}/", NODE_PORTS[0]);
                self.reaches("outside", self.cluster.outside(), &url, 3)?;
            }
            let own = &self.client.addresses[family];
            for protocol in ["TCP", "UDP"] {
                for _ in 0..9 {
                    let target = format!("{}:90", bracketed(address));
                    let seen = self.client.host.seen_as(protocol, &target);
                    assert_eq!(&seen.map_err(|error| self.with_logs(&error))?, own, "{protocol} {target}");
                }
            }
            let direct = self.client.host.curl(&url(&self.webs[1].addresses[family]))?;
            assert_eq!(direct.trim(), "web-1");
        }
        // The services' networks are known from ServiceCIDR objects alone: a port that a service does not have is refused, and
        // an address of none is silent.
        for host in [&self.client.host, node.host()] {
            for (address, stranger) in WEB.into_iter().zip(["10.96.0.99", "fd00:96::99"]) {
                for (address, port, code) in [(address, 81, 7), (stranger, 80, 28)] {
                    let url = format!("http://{}:{port}/", bracketed(address));
                    let output = host.run("curl", &["-sS", "--max-time", "2", &url])?;
                    assert_eq!(output.code, Some(code), "{} to {url}: {output:?}", host.name());
                }
            }
        }
        let links = node.host().succeed("ip", &["-o", "link"])?;
        assert!(!links.contains("sluice0"), "no bridge of ours: {links}");
        let routes = node.host().succeed("ip", &["route", "show", "proto", "83"])?;
        assert_eq!(routes.lines().count(), 1, "only the services' network: {routes}");
        assert!(!node.cni_conf_dir().exists(), "the container runtime is told nothing");
        let log = node.agent_log();
        assert!(log.contains("pods are attached by another plugin"), "{log}");
        assert!(log.contains("mode: nftables is kube-proxy's"), "{log}");
        Ok(())
    }

    /// A pod that comes is served as soon as it is there, and one that goes is forgotten.
    fn follows_pods(&mut self) -> Result<()> {
        let late = Pod::new(self.cluster.node(1), "web-2", 8, self.wiring)?;
        serve(&mut self.servers, &late.host, "web-2")?;
        self.webs.push(late);
        self.apply()?;
        for address in WEB {
            self.reaches("a pod", &self.client.host, &url(address), 4)?;
            self.reaches("a pod that has just come", &self.webs[2].host, &url(address), 4)?;
        }
        self.webs.truncate(2);
        self.apply()?;
        let node = self.cluster.node(1);
        node.host().ip("link delete veth8\n")?;
        wait_for("the pod to be forgotten", LIMIT, || {
            Ok(node.agent_log().contains("forgetting a pod that is gone").then_some(()))
        })
        .map_err(|error| self.with_logs(&error))?;
        self.reaches("a pod", &self.client.host, &url(WEB[0]), 3)
    }

    /// Services are served without the process, until `--cleanup`; what is the other plugin's goes on.
    fn goes_without_a_trace(&self) -> Result<()> {
        let node = self.cluster.node(1);
        node.stop_agent()?;
        self.reaches("a pod", &self.client.host, &url(WEB[0]), 3)?;
        node.kube_proxy(&["--cleanup"])?;
        let links = node.host().succeed("ip", &["-o", "link"])?;
        assert!(!links.contains("sluice-svc") && links.contains("cni0"), "{links}");
        for family in 0..2 {
            let direct = self.client.host.curl(&url(&self.webs[0].addresses[family]))?;
            assert_eq!(direct.trim(), "web-0");
        }
        let output = self.client.host.run("curl", &["-sS", "-m", "1", &url(WEB[0])])?;
        assert_ne!(output.code, Some(0), "{output:?}");
        Ok(())
    }

    fn with_logs(&self, error: &Error) -> Error {
        let logs =
            self.cluster.nodes().iter().map(|node| format!("\n-- {}\n{}", node.name(), node.agent_log()));
        Error::answer(error.to_string(), logs.collect::<String>())
    }
}

fn serve(servers: &mut Servers, host: &Host, name: &str) -> Result<()> {
    servers.http(host, 80, name)?;
    servers.udp(host, 70, name)?;
    servers.who(host, 90)
}
