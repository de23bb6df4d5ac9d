//! Nodes that join a cluster by its API server, are cut off, return, and change; and an agent with no more rights than
//! it asks for.

use std::time::Duration;

use serde_json::{Value, json};
use sluice_tests::bed::Servers;
use sluice_tests::cluster::{Node, OUTSIDE, Options, Pod, service, slices};
use sluice_tests::{Cluster, Error, Result, Testbed, wait_for};

use crate::api::{AGENT, RECOVERY, WEB, options, spec};
use crate::site::url;

/// Three nodes with a pod each, all of them behind the service `web`.
struct Three {
    _servers: Servers,
    pods: Vec<Pod>,
    cluster: Cluster,
}

impl Three {
    fn new(overlay: &str) -> Result<Self> {
        let agent = format!("{AGENT}overlay: {overlay}\n");
        let cluster = Cluster::new(&Options { nodes: 3, agent, ..options() })?;
        let pods = cluster.nodes().iter().enumerate().map(|(at, node)| node.pod(&format!("web-{at}")));
        let pods: Vec<Pod> = pods.collect::<Result<_>>()?;
        let mut servers = Servers::new();
        for pod in &pods {
            servers.http(pod.host(), 80, pod.name())?;
        }
        let slices = slices("web", "[{name: http, port: 80}]", &pods.iter().collect::<Vec<_>>());
        cluster.apply("web.yaml", &(service("web", &spec(WEB)) + &slices))?;
        Ok(Self { _servers: servers, pods, cluster })
    }

    /// Each of these pods reaches each of these, in both families.
    fn reach(&self, from: &[usize], to: &[usize]) -> Result<()> {
        for (client, server) in from.iter().flat_map(|from| to.iter().map(move |to| (from, to))) {
            let (client, server) = (&self.pods[*client], &self.pods[*server]);
            for address in server.url_hosts() {
                wait_for(&format!("{} to reach {address}", client.name()), RECOVERY, || {
                    let answer = client.curl(&format!("http://{address}/"))?;
                    Ok((answer.trim() == server.name()).then_some(()))
                })
                .map_err(|error| self.with_logs(&error))?;
            }
        }
        Ok(())
    }

    /// Every pod reaches every pod, the service at both addresses, and its name.
    fn everything(&self) -> Result<()> {
        self.reach(&[0, 1, 2], &[0, 1, 2])?;
        for pod in &self.pods {
            for url in WEB.map(url).into_iter().chain(["http://web/".to_owned()]) {
                wait_for(&format!("{} to reach {url}", pod.name()), RECOVERY, || {
                    let answers = pod.curl(&format!("{url}?[1-40]"))?;
                    let names: std::collections::BTreeSet<_> = answers.lines().collect();
                    Ok((names.len() == self.pods.len()).then_some(()))
                })
                .map_err(|error| self.with_logs(&error))?;
            }
        }
        Ok(())
    }

    fn with_logs(&self, error: &Error) -> Error {
        let logs =
            self.cluster.nodes().iter().map(|node| format!("\n-- {}\n{}", node.name(), node.agent_log()));
        Error::answer(error.to_string(), logs.collect::<String>())
    }
}

/// Puts the Node object of a node on the API server.
fn put_node(cluster: &Cluster, node: &Node, addresses: &[String; 2], networks: &[String]) -> Result<()> {
    let addresses = addresses.each_ref().map(|address| json!({ "type": "InternalIP", "address": address }));
    let spec = networks.first().map_or(json!({}), |first| json!({ "podCIDR": first, "podCIDRs": networks }));
    cluster.api().put(json!({
        "apiVersion": "v1", "kind": "Node", "metadata": { "name": node.name() }, "spec": spec,
        "status": { "addresses": addresses },
    }))
}

#[test]
fn everything_reaches_everything_directly() -> Result<()> {
    Three::new("direct")?.everything()
}

#[test]
fn everything_reaches_everything_through_the_overlay() -> Result<()> {
    Three::new("vxlan")?.everything()
}

#[test]
fn everything_reaches_everything_where_somebody_else_routes() -> Result<()> {
    let three = Three::new("none")?;
    for node in three.cluster.nodes() {
        let mut lines = String::new();
        for other in three.cluster.nodes().iter().filter(|other| other.name() != node.name()) {
            for (network, address) in other.pod_cidrs().iter().zip(other.addresses()) {
                lines += &format!("route add {network} via {address}\n");
            }
        }
        node.host().ip(&lines)?;
    }
    three.everything()
}

#[test]
fn a_node_that_is_cut_off_goes_on_and_returns() -> Result<()> {
    let three = Three::new("auto")?;
    three.everything()?;
    let lost = three.cluster.node(3);
    three.cluster.lan().sever(lost.host(), true)?;
    // Meanwhile the cluster gives its pod up, as a controller does.
    let left = slices("web", "[{name: http, port: 80}]", &[&three.pods[0], &three.pods[1]]);
    three.cluster.apply("web.yaml", &(service("web", &spec(WEB)) + &left))?;
    wait_for("the service to be without the lost pod", RECOVERY, || {
        let answers = three.pods[0].curl(&format!("{}?[1-30]", url(WEB[0])))?;
        Ok((!answers.contains("web-2") && answers.contains("web-1")).then_some(()))
    })?;
    three.reach(&[0, 1], &[0, 1])?;
    // What lies on the node itself works as before: pods, names, and services with a server there.
    three.reach(&[2], &[2])?;
    let name =
        three.pods[2].host().succeed("dig", &["+short", "+time=2", "web.default.svc.cluster.local"])?;
    assert_eq!(name.trim(), WEB[0]);

    three.cluster.lan().sever(lost.host(), false)?;
    let all = slices("web", "[{name: http, port: 80}]", &three.pods.iter().collect::<Vec<_>>());
    three.cluster.apply("web.yaml", &(service("web", &spec(WEB)) + &all))?;
    three.everything()
}

#[test]
fn a_node_changes_its_address() -> Result<()> {
    let three = Three::new("direct")?;
    three.everything()?;
    let moved = three.cluster.node(2);
    let [old4, old6] = moved.addresses();
    moved.host().ip(&format!(
        "address del {old4}/24 dev eth0\naddress del {old6}/64 dev eth0\n\
         address add 192.168.77.52/24 dev eth0\naddress add fd77::52/64 dev eth0 nodad\n\
         route replace default via {}\nroute replace default via {}\n",
        OUTSIDE[0], OUTSIDE[1]
    ))?;
    let new = ["192.168.77.52".to_owned(), "fd77::52".to_owned()];
    put_node(&three.cluster, moved, &new, &moved.pod_cidrs())?;
    three.everything()?;
    // Nobody sends anything to the old addresses any more.
    for family in ["-4", "-6"] {
        let routes = three.cluster.node(1).host().ip_json(&[family, "route", "show"])?.to_string();
        assert!(
            !routes.contains(&format!("\"{old4}\"")) && !routes.contains(&format!("\"{old6}\"")),
            "{routes}"
        );
    }
    Ok(())
}

#[test]
fn a_node_waits_for_its_pod_networks() -> Result<()> {
    let cluster = Cluster::without_agents(&Testbed::new()?, &Options { nodes: 1, ..options() })?;
    let node = cluster.node(1);
    // A Node's networks are given once: it comes anew.
    cluster.api().delete(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node.name()}}))?;
    put_node(&cluster, node, &node.addresses(), &[])?;
    node.start_agent()?;
    wait_for("the agent to know its node", RECOVERY, || {
        Ok(node.agent_log().contains("kind=nodes").then_some(()))
    })?;
    assert!(node.pod("early").is_err(), "a pod without a network to take addresses from");
    put_node(&cluster, node, &node.addresses(), &node.pod_cidrs())?;
    node.wait_ready_within(RECOVERY)?;
    let pod = wait_for("a pod", RECOVERY, || node.pod("late").map(Some))?;
    assert_eq!(pod.addresses().len(), 2);
    Ok(())
}

#[test]
fn an_agent_that_is_killed_while_it_joins_joins_the_next_time() -> Result<()> {
    let mut three = Three::new("auto")?;
    // From a node that is at work, and from one that has nothing: each agent gets a little further.
    for fresh in [false, true] {
        if fresh {
            three.pods.remove(1).delete()?;
        }
        let node = three.cluster.node(2);
        node.kill_agent()?;
        if fresh {
            for folder in [node.bpffs(), node.state().to_owned()] {
                let _none = std::fs::remove_dir_all(folder);
            }
            std::fs::create_dir_all(node.state()).map_err(Error::file("make", node.state()))?;
        }
        for milliseconds in [0, 10, 25, 50, 100, 150, 200, 300, 500, 800] {
            node.start_agent()?;
            std::thread::sleep(Duration::from_millis(milliseconds));
            node.kill_agent()?;
            if !fresh {
                // What was there is at work all the while.
                three.reach(&[0], &[1])?;
            }
        }
        node.start_agent()?;
        node.wait_ready_within(RECOVERY)?;
        if fresh {
            let pod = node.pod("new")?;
            for address in pod.url_hosts() {
                // Its node answers for it: nobody listens on the port, and says so at once.
                wait_for(&address, RECOVERY, || {
                    let output = three.pods[0]
                        .host()
                        .run("curl", &["-sS", "-m", "2", &format!("http://{address}/")])?;
                    Ok((output.code == Some(7)).then_some(()))
                })?;
            }
        } else {
            three.everything()?;
        }
    }
    Ok(())
}

#[test]
fn the_agent_does_with_the_capabilities_that_the_daemonset_gives_it() -> Result<()> {
    let manifest = include_str!("../../../deploy/daemonset.yaml");
    let objects: Vec<Value> =
        serde_saphyr::from_multiple(manifest).map_err(|error| Error::answer("daemonset.yaml", error))?;
    let added =
        &objects[0]["spec"]["template"]["spec"]["containers"][0]["securityContext"]["capabilities"]["add"];
    let names = added.as_array().into_iter().flatten().filter_map(Value::as_str);
    let bounding = names.fold("-all".to_owned(), |list, name| format!("{list},+{}", name.to_lowercase()));
    assert!(bounding.contains("+bpf"), "{bounding}");

    let agent = format!("{AGENT}overlay: vxlan\n");
    let cluster = Cluster::without_agents(&Testbed::new()?, &Options { agent, ..options() })?;
    let way = ["setpriv", "--bounding-set", &bounding, "--inh-caps", "-all"];
    // Twice: with nothing there, and with everything.
    for _ in 0..2 {
        for node in cluster.nodes() {
            node.kill_agent()?;
            node.start_agent_by(&way)?;
        }
        for node in cluster.nodes() {
            node.wait_ready_within(RECOVERY)?;
        }
    }
    let pods = [cluster.node(1).pod("client")?, cluster.node(2).pod("web-0")?];
    let mut servers = Servers::new();
    servers.http(pods[1].host(), 80, "web-0")?;
    let slices = slices("web", "[{name: http, port: 80}]", &[&pods[1]]);
    cluster.apply("web.yaml", &(service("web", &spec(WEB)) + &slices))?;
    for url in WEB.map(url).into_iter().chain(["http://web/".to_owned()]) {
        for host in [pods[0].host(), cluster.node(1).host()] {
            if url.contains("//web") && host.name() == "node1" {
                continue; // The node's own resolver is not the cluster's.
            }
            wait_for(&url, RECOVERY, || Ok((host.curl(&url)? == "web-0\n").then_some(())))?;
        }
    }
    for node in cluster.nodes() {
        let log = node.agent_log();
        let denied =
            log.lines().find(|line| line.contains("not permitted") || line.contains("ermission denied"));
        assert_eq!(denied, None, "{}", node.name());
    }
    Ok(())
}
