//! Nodes that learn of the cluster from an API server: what is there works, what changes changes. These tests run
//! against a real server, too.

use std::collections::BTreeMap;
use std::time::Duration;

use sluice_tests::apiserver::ApiServer;
use sluice_tests::bed::{Host, Servers};
use sluice_tests::cluster::{DNS_ADDRESSES, Options, Pod, service, slices};
use sluice_tests::{Cluster, Error, Result, Testbed, wait_for};

use crate::site::{LIMIT, spread, url};

/// The service `web`.
pub(crate) const WEB: [&str; 2] = ["10.96.0.20", "fd00:96::20"];
/// How long a node may take to be itself again after an outage of its API server: tries are spread over time.
pub(crate) const RECOVERY: Duration = Duration::from_secs(30);
/// Agents of tests take silence for death sooner than others.
pub(crate) const AGENT: &str = "apiIdleTimeout: 4s\n";

/// Two nodes, a client, and two pods behind the service `web`.
pub(crate) struct Site {
    _servers: Servers,
    pub(crate) client: Pod,
    pub(crate) webs: [Pod; 2],
    pub(crate) cluster: Cluster,
}

impl Site {
    pub(crate) fn new() -> Result<Self> {
        Self::on(Cluster::without_agents(&Testbed::new()?, &options())?)
    }

    /// The usual site on a server that is prepared first.
    pub(crate) fn with(prepare: impl FnOnce(&ApiServer)) -> Result<Self> {
        let cluster = Cluster::without_agents(&Testbed::new()?, &options())?;
        prepare(cluster.api().server());
        Self::on(cluster)
    }

    /// The usual site on a cluster whose agents are yet to be started.
    pub(crate) fn on(cluster: Cluster) -> Result<Self> {
        for node in cluster.nodes() {
            node.start_agent()?;
        }
        for node in cluster.nodes() {
            node.wait_ready_within(RECOVERY)?;
        }
        let client = cluster.node(1).pod("client")?;
        let webs = [cluster.node(1).pod("web-0")?, cluster.node(2).pod("web-1")?];
        let mut servers = Servers::new();
        for web in &webs {
            servers.http(web.host(), 80, web.name())?;
        }
        let site = Self { _servers: servers, client, webs, cluster };
        site.serve("web", WEB, &[0, 1])?;
        site.answers(WEB, 2)?;
        Ok(site)
    }

    /// Puts a service of these of the pods on the API server.
    pub(crate) fn serve(&self, name: &str, addresses: [&str; 2], webs: &[usize]) -> Result<()> {
        let pods: Vec<&Pod> = webs.iter().map(|&web| &self.webs[web]).collect();
        let slices = slices(name, "[{name: http, port: 80}]", &pods);
        self.cluster.apply(&format!("{name}.yaml"), &(service(name, &spec(addresses)) + &slices))
    }

    /// Labels the service `web` as one of another proxy, and waits until it is not served any more.
    pub(crate) fn give_to_another_proxy(&self) -> Result<()> {
        let slices = slices("web", "[{name: http, port: 80}]", &[&self.webs[0], &self.webs[1]]);
        let labelled = service("web", &spec(WEB)).replace(
            "  namespace: default\nspec",
            "  namespace: default\n  labels: {service.kubernetes.io/service-proxy-name: other}\nspec",
        );
        self.cluster.apply("web.yaml", &(labelled + &slices))?;
        WEB.iter().try_for_each(|address| self.is_gone(address))
    }

    pub(crate) fn api(&self) -> &ApiServer {
        self.cluster.api().server()
    }

    /// The client reaches so many pods at each address, or soon will.
    pub(crate) fn answers(&self, addresses: [&str; 2], wanted: usize) -> Result<()> {
        addresses.iter().try_for_each(|address| {
            wait_for(&format!("{wanted} pods behind {address}"), RECOVERY, || {
                let spread = spread(self.client.host(), &url(address), 10 * wanted)?;
                if spread.len() == wanted {
                    Ok(Some(()))
                } else {
                    Err(Error::answer(*address, format!("{spread:?}")))
                }
            })
            .map_err(|error| self.with_logs(&error))
        })
    }

    /// Nobody answers at an address, or soon will not.
    pub(crate) fn is_gone(&self, address: &str) -> Result<()> {
        wait_for(&format!("{address} to be gone"), RECOVERY, || {
            let output = self.client.host().run("curl", &["-sS", "-m", "1", &url(address)])?;
            Ok((output.code != Some(0)).then_some(()))
        })
        .map_err(|error| self.with_logs(&error))
    }

    pub(crate) fn with_logs(&self, error: &Error) -> Error {
        let logs =
            self.cluster.nodes().iter().map(|node| format!("\n-- {}\n{}", node.name(), node.agent_log()));
        Error::answer(error.to_string(), logs.collect::<String>())
    }

    /// What a pod's resolver finds under a name.
    pub(crate) fn dig(&self, name: &str, kind: &str) -> Result<Vec<String>> {
        dig(self.client.host(), name, kind)
    }

    /// How many watches each node has of each kind.
    pub(crate) fn watches(&self) -> BTreeMap<(String, &'static str), usize> {
        self.api().watching().into_iter().fold(BTreeMap::new(), |mut counts, watching| {
            *counts.entry((watching.client.to_string(), watching.kind)).or_default() += 1;
            counts
        })
    }
}

pub(crate) fn options() -> Options {
    Options { api: true, agent: AGENT.to_owned(), ..Options::default() }
}

pub(crate) fn spec([ip4, ip6]: [&str; 2]) -> String {
    format!(
        "clusterIP: {ip4}\nclusterIPs: [{ip4}, '{ip6}']\nipFamilies: [IPv4, IPv6]\n\
         ipFamilyPolicy: RequireDualStack\nports: [{{name: http, port: 80}}]"
    )
}

fn dig(host: &Host, name: &str, kind: &str) -> Result<Vec<String>> {
    let [dns, _] = DNS_ADDRESSES;
    let text = host.succeed("dig", &["+short", "+tries=1", "+time=2", &format!("@{dns}"), name, kind])?;
    let mut lines: Vec<_> = text.lines().map(ToOwned::to_owned).collect();
    lines.sort();
    Ok(lines)
}

pub(crate) fn services_names_and_their_changes(site: &Site) -> Result<()> {
    let client = site.client.host();
    for (kind, address) in ["A", "AAAA"].into_iter().zip(WEB) {
        assert_eq!(site.dig("web.default.svc.cluster.local", kind)?, [address]);
    }
    assert!(client.curl("http://web/")?.starts_with("web-"));

    site.serve("web", WEB, &[1])?;
    site.answers(WEB, 1)?;
    site.serve("web", WEB, &[0, 1])?;
    site.answers(WEB, 2)?;

    let headless = service("all", "clusterIP: None\nclusterIPs: [None]\nports: [{name: http, port: 80}]");
    let pods: Vec<&Pod> = site.webs.iter().collect();
    site.cluster.apply("all.yaml", &(headless + &slices("all", "[{name: http, port: 80}]", &pods)))?;
    for (family, kind) in ["A", "AAAA"].into_iter().enumerate() {
        let mut expected: Vec<_> = pods.iter().map(|pod| pod.addresses()[family].to_string()).collect();
        expected.sort();
        wait_for("the names of the pods", LIMIT, || {
            let found = site.dig("all.default.svc.cluster.local", kind)?;
            if found == expected { Ok(Some(())) } else { Err(Error::answer(kind, format!("{found:?}"))) }
        })?;
    }
    site.cluster.withdraw("web.yaml")?;
    WEB.iter().try_for_each(|address| site.is_gone(address))?;
    assert_eq!(site.dig("web.default.svc.cluster.local", "A")?, Vec::<String>::new());
    Ok(())
}

#[test]
fn services_names_and_their_changes_with_streaming_lists() -> Result<()> {
    services_names_and_their_changes(&Site::new()?)
}

#[test]
fn a_label_names_another_proxy_and_the_service_is_not_ours_any_more() -> Result<()> {
    let site = Site::new()?;
    site.give_to_another_proxy()?;
    // It is not ours to serve, but its name is as before.
    assert_eq!(site.dig("web.default.svc.cluster.local", "A")?, [WEB[0]]);
    site.serve("web", WEB, &[0, 1])?;
    site.answers(WEB, 2)
}

#[test]
fn the_service_for_dns_may_be_there_without_endpoints() -> Result<()> {
    let site = Site::new()?;
    let [dns4, dns6] = DNS_ADDRESSES;
    let dns = service("kube-dns", &format!("clusterIP: {dns4}\nclusterIPs: [{dns4}, '{dns6}']\nipFamilyPolicy: PreferDualStack\nports:\n- {{name: dns, port: 53, protocol: UDP}}\n- {{name: dns-tcp, port: 53}}"))
        .replace("namespace: default", "namespace: kube-system");
    site.cluster.apply("dns.yaml", &dns)?;
    wait_for("the name of the service", LIMIT, || {
        Ok((site.dig("kube-dns.kube-system.svc.cluster.local", "A")? == [dns4]).then_some(()))
    })?;
    for address in DNS_ADDRESSES {
        for transport in ["+notcp", "+tcp"] {
            let words =
                ["+short", transport, "+time=2", &format!("@{address}"), "web.default.svc.cluster.local"];
            assert_eq!(site.client.host().succeed("dig", &words)?.trim(), WEB[0], "{address} {transport}");
        }
    }
    Ok(())
}
