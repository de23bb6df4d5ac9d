//! What most tests begin with: a cluster, a client pod, and pods behind services, ready to be asked.

use std::collections::BTreeMap;
use std::time::Duration;

use sluice_tests::bed::{Host, Servers};
use sluice_tests::cluster::{Options, Pod, Workload, service};
use sluice_tests::{Cluster, Error, Result, Running, Testbed, wait_for};

/// How long a change may take to be in force. Generous: a test run shares its machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(10);
/// The service `web`: HTTP on 80, its peers' addresses on 90, UDP on 70.
pub(crate) const WEB: [&str; 2] = ["10.96.0.20", "fd00:96::20"];
/// Where the service `web` is reached on every node: HTTP, and the peer's address.
pub(crate) const NODE_PORTS: [u16; 2] = [30080, 30090];

/// A cluster with pods. The pods' names are `<app>-<number>`; those of `web` have servers.
pub(crate) struct Site {
    pub(crate) servers: Servers,
    pods: BTreeMap<String, Pod>,
    pub(crate) cluster: Cluster,
}

impl Site {
    /// Pods on nodes, and the service `web` over those that are called so. Returns when the client reaches all of them.
    pub(crate) fn new(options: &Options, pods: &[(&str, usize)]) -> Result<Self> {
        Self::on(&Testbed::new()?, options, pods)
    }

    /// The same on a bed that has something on it already.
    pub(crate) fn on(bed: &Testbed, options: &Options, pods: &[(&str, usize)]) -> Result<Self> {
        let mut site =
            Self { servers: Servers::new(), pods: BTreeMap::new(), cluster: Cluster::on(bed, options)? };
        site.cluster.apply("web.yaml", &web_service(""))?;
        for (name, node) in pods {
            site.add(name, *node)?;
        }
        let webs = pods.iter().filter(|(name, _)| name.starts_with("web")).count();
        if let (Some(client), true) = (site.pods.get("client"), webs > 0) {
            for address in WEB {
                site.wait_spread(client.host(), &url(address), webs)?;
            }
        }
        Ok(site)
    }

    /// The usual one: a client and a backend on the first node, another backend on the second.
    pub(crate) fn usual(fast_path: bool) -> Result<Self> {
        let options = Options { fast_path, ..Options::default() };
        Self::new(&options, &[("client", 1), ("web-0", 1), ("web-1", 2)])
    }

    /// A new pod, its servers and its manifest.
    pub(crate) fn add(&mut self, name: &str, node: usize) -> Result<()> {
        let node = self.cluster.node(node);
        let pod = node.pod(name)?;
        let app = name.split('-').next().unwrap_or(name);
        if app == "web" {
            self.servers.http(pod.host(), 80, name)?;
            self.servers.udp(pod.host(), 70, name)?;
            self.servers.who(pod.host(), 90)?;
        }
        let workload = Workload { name, node: node.name(), app, spec: "" };
        self.cluster.apply(&format!("{name}.yaml"), &workload.manifest())?;
        self.pods.insert(name.to_owned(), pod);
        Ok(())
    }

    /// A pod.
    pub(crate) fn pod(&self, name: &str) -> &Pod {
        &self.pods[name]
    }

    /// Takes a pod out of the site, to delete it.
    pub(crate) fn take(&mut self, name: &str) -> Result<Pod> {
        self.pods.remove(name).ok_or_else(|| Error::Missing(format!("pod {name}")))
    }

    /// The client pod.
    pub(crate) fn client(&self) -> &Host {
        self.pods["client"].host()
    }

    /// The client begins to load a large file from the service `web`, at a rate (`8M`) at which that takes a while.
    pub(crate) fn download(&self, address: &str, rate: &str) -> Result<Running> {
        let mut command = self.client().command("curl")?;
        let large = format!("{}large", url(address));
        command.args(["-sS", "-m", "60", "--limit-rate", rate, "-o", "/dev/null", &large]);
        Running::start(&mut command, &self.cluster.bed().folder().join("download.log"))
    }

    /// Waits until as many backends answer as are wanted.
    pub(crate) fn wait_spread(&self, host: &Host, url: &str, wanted: usize) -> Result<()> {
        wait_for(&format!("{wanted} backends behind {url}"), LIMIT, || {
            let spread = spread(host, url, 10 * wanted)?;
            if spread.len() == wanted { Ok(Some(())) } else { Err(Error::answer(url, format!("{spread:?}"))) }
        })
        .map_err(|error| self.with_logs(&error))
    }

    /// An error with what the agents logged.
    pub(crate) fn with_logs(&self, error: &Error) -> Error {
        let logs =
            self.cluster.nodes().iter().map(|node| format!("\n-- {}\n{}", node.name(), node.agent_log()));
        Error::answer(error.to_string(), logs.collect::<String>())
    }
}

/// The service `web`, with more lines of its specification.
pub(crate) fn web_service(more: &str) -> String {
    let [ip4, ip6] = WEB;
    let [http, who] = NODE_PORTS;
    let spec = format!(
        "type: NodePort\nclusterIP: {ip4}\nclusterIPs: [{ip4}, '{ip6}']\nipFamilies: [IPv4, IPv6]\n\
         ipFamilyPolicy: RequireDualStack\nports:\n\
         - {{name: http, port: 80, nodePort: {http}}}\n- {{name: who, port: 90, nodePort: {who}}}\n\
         - {{name: udp, port: 70, protocol: UDP, nodePort: {http}}}\n\
         - {{name: who-udp, port: 90, protocol: UDP, nodePort: {who}}}\n{more}"
    );
    service("web", &spec)
}

/// A service of both families with other ports over the pods of `web`; `ports` is the field's value.
pub(crate) fn beside_web(name: &str, addresses: [&str; 2], ports: &str) -> String {
    let [ip4, ip6] = addresses;
    let spec = format!(
        "type: NodePort\nclusterIP: {ip4}\nclusterIPs: [{ip4}, '{ip6}']\nipFamilies: [IPv4, IPv6]\n\
         ipFamilyPolicy: RequireDualStack\nports: {ports}\n"
    );
    service(name, &spec).replace(&format!("selector: {{app: {name}}}"), "selector: {app: web}")
}

/// How often each backend answers, over that many connections.
pub(crate) fn spread(host: &Host, url: &str, connections: usize) -> Result<BTreeMap<String, usize>> {
    let answers = host.curl(&format!("{url}?[1-{connections}]"))?;
    Ok(answers.lines().fold(BTreeMap::new(), |mut spread, line| {
        *spread.entry(line.to_owned()).or_default() += 1;
        spread
    }))
}

/// An address as a URL has it.
pub(crate) fn bracketed(address: &str) -> String {
    if address.contains(':') { format!("[{address}]") } else { address.to_owned() }
}

/// The URL of an address's port 80.
pub(crate) fn url(address: &str) -> String {
    format!("http://{}/", bracketed(address))
}
