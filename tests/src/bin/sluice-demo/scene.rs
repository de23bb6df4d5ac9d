//! The scene: manifests, pods and servers.

use std::collections::BTreeMap;

use sluice_tests::bed::Servers;
use sluice_tests::cluster::{DNS_ADDRESSES, OUTSIDE, Options, Pod, Workload, service};
use sluice_tests::{Cluster, Result, Testbed};

use crate::transcript::Transcript;

/// Addresses of the services.
pub(crate) const WEB: [&str; 2] = ["10.96.0.20", "fd00:96::20"];
pub(crate) const SHOP: [&str; 2] = ["10.96.0.30", "fd00:96::30"];
pub(crate) const ECHO: [&str; 2] = ["10.96.0.40", "fd00:96::40"];
/// Where the shop is reached from outside.
pub(crate) const NODE_PORT: u16 = 30080;
/// The port of the UDP service.
pub(crate) const ECHO_PORT: u16 = 7007;
/// What the ExternalName service stands for.
pub(crate) const EXTERNAL: &str = "docs.example.org";

/// Name, node, app, and more lines of the specification.
const PODS: [(&str, usize, &str, &str); 8] = [
    ("client", 1, "client", ""),
    ("web-0", 1, "web", ""),
    ("web-1", 1, "web", ""),
    ("web-2", 2, "web", ""),
    ("db-0", 1, "db", "hostname: db-0\nsubdomain: db"),
    ("db-1", 2, "db", "hostname: db-1\nsubdomain: db"),
    ("shop-0", 1, "shop", ""),
    ("echo-0", 2, "echo", ""),
];

/// Everything that is there.
pub(crate) struct Scene {
    pub(crate) servers: Servers,
    pub(crate) pods: BTreeMap<String, Pod>,
    pub(crate) cluster: Cluster,
}

impl Scene {
    /// Nodes, agents and manifests.
    pub(crate) fn set(bed: &str, transcript: &mut Transcript) -> Result<Self> {
        let bed = Testbed::named(bed)?;
        let cluster = Cluster::without_agents(&bed, &Options::default())?;
        for node in cluster.nodes() {
            let ([ip4, ip6], [pods4, pods6]) = (node.addresses(), node.pod_cidrs());
            transcript.tell(&format!("{}: {ip4}, {ip6}; its pods: {pods4}, {pods6}", node.name()));
        }
        transcript.tell(&format!("outside: {}", OUTSIDE.join(", ")));
        for (file, text) in manifests() {
            cluster.apply(file, &text)?;
        }
        transcript.tell(&format!("manifests: {}", cluster.manifests().display()));
        for node in cluster.nodes() {
            node.start_agent()?;
        }
        for node in cluster.nodes() {
            let ready = node.wait_ready();
            transcript.verdict(
                &format!("agent ready on {}", node.name()),
                ready.map_err(|error| error.to_string()),
            );
        }
        Ok(Self { servers: Servers::new(), pods: BTreeMap::new(), cluster })
    }

    /// Pods and the servers in them.
    pub(crate) fn fill(&mut self, transcript: &mut Transcript) -> Result<()> {
        for (name, node, _, _) in PODS {
            self.add(name, node, transcript)?;
        }
        Ok(())
    }

    /// A pod and its server.
    pub(crate) fn add(&mut self, name: &str, node: usize, transcript: &mut Transcript) -> Result<()> {
        let node = self.cluster.node(node);
        let pod = node.pod(name)?;
        let answer = format!("{name} on {}", node.name());
        let server = match name.split('-').next() {
            Some("echo") => {
                self.servers.udp(pod.host(), ECHO_PORT, &answer)?;
                "socat UDP"
            }
            Some("client") => "curl and nslookup",
            _ => {
                self.servers.http(pod.host(), 80, &answer)?;
                "busybox httpd"
            }
        };
        let addresses: Vec<_> = pod.addresses().iter().map(ToString::to_string).collect();
        let addresses = addresses.join(", ");
        let took = pod.wired_in().as_secs_f64() * 1000.0;
        transcript.tell(&format!("{name} on {}: {addresses} ({server}; wired in {took:.1} ms)", node.name()));
        self.pods.insert(name.to_owned(), pod);
        Ok(())
    }

    /// A pod by its name.
    pub(crate) fn pod(&self, name: &str) -> &Pod {
        &self.pods[name]
    }

    /// Leaves everything running, and says how to look at it.
    pub(crate) fn keep(self) -> Result<()> {
        let client = self.pod("client").host().netns().to_owned();
        println!("\nLeft running. To enter a pod:   ip netns exec {client} bash");
        println!(
            "and there:                      curl http://web; nslookup db-0.db; nslookup {}",
            DNS_ADDRESSES[0]
        );
        println!("The manifests, watched:         {}", self.cluster.manifests().display());
        println!("The agents' logs:               {}/node1-agent.log", self.cluster.bed().folder().display());
        println!("To remove it:                   cargo xtask demo --down");
        self.servers.leave();
        std::mem::forget(self.pods);
        self.cluster.keep()
    }
}

/// The pod's manifest, alone in a file so that it can come and go.
pub(crate) fn pod_manifest(name: &str, node: usize, app: &str, spec: &str) -> String {
    Workload { name, node: &format!("node{node}"), app, spec }.manifest()
}

/// The files of the folder: several documents in one, a `List` in another.
fn manifests() -> Vec<(&'static str, String)> {
    let both = |[ip4, ip6]: [&str; 2]| {
        format!(
            "clusterIP: {ip4}\nclusterIPs: [{ip4}, '{ip6}']\nipFamilies: [IPv4, IPv6]\nipFamilyPolicy: RequireDualStack\n"
        )
    };
    let web = service("web", &(both(WEB) + "ports: [{name: http, port: 80}]"));
    let shop =
        format!("type: NodePort\n{}ports: [{{name: http, port: 80, nodePort: {NODE_PORT}}}]", both(SHOP));
    let echo = format!("{}ports: [{{name: echo, protocol: UDP, port: {ECHO_PORT}}}]", both(ECHO));
    let db = "clusterIP: None\nclusterIPs: [None]\nipFamilies: [IPv4, IPv6]\nipFamilyPolicy: RequireDualStack\nports: [{name: http, port: 80}]";
    let pods = |app: &str| {
        let of_app = PODS.iter().filter(|(_, _, own, _)| *own == app);
        of_app.map(|(name, node, app, spec)| pod_manifest(name, *node, app, spec)).collect::<String>()
    };
    // A List, as `kubectl get -o yaml` writes it.
    let external = format!(
        "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Service\n  metadata: {{name: docs, namespace: default}}\n  \
         spec: {{type: ExternalName, externalName: {EXTERNAL}}}\n"
    );
    let last_web = pod_manifest("web-2", 2, "web", "");
    let web_pods = pods("web").replace(&last_web, "");
    vec![
        ("client.yaml", pods("client")),
        ("web.yaml", web + &web_pods),
        ("web-2.yaml", last_web),
        ("db.yaml", service("db", db) + &pods("db")),
        ("shop.yaml", service("shop", &shop) + &pods("shop")),
        ("echo.yaml", service("echo", &echo) + &pods("echo")),
        ("docs.yaml", external),
    ]
}
