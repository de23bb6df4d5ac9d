//! Pods in VLANs of the bridge, where the datapath knows shorter ways than the bridge. On a kernel whose bridges know none,
//! that the plugin says so; `cargo xtask kernels` runs the rest on one that does.

use serde_json::{Value, json};
use sluice_tests::bed::{Host, Servers};
use sluice_tests::cluster::{Node, OUTSIDE, Options, Pod, Workload, service};
use sluice_tests::{Cluster, Result, wait_for};

use crate::paths::on_both_paths;
use crate::site::{LIMIT, url};

/// A service over a pod in a VLAN, one over a pod in none, and one over the node itself.
const INSIDE: [&str; 2] = ["10.96.0.41", "fd00:96::41"];
const PLAIN: [&str; 2] = ["10.96.0.42", "fd00:96::42"];
const NODE: [&str; 2] = ["10.96.0.43", "fd00:96::43"];

/// A pod in a VLAN with a subnet of its own; nothing, where the kernel's bridges know no VLANs.
fn pod_in(node: &Node, name: &str, number: u8, more: Value) -> Result<Option<Pod>> {
    let ranges =
        json!([[{ "subnet": format!("10.{number}.0.0/24") }], [{ "subnet": format!("fd{number:02}::/64") }]]);
    let mut options =
        json!({ "name": format!("vlan{number}"), "vlan": number, "ipam": { "ranges": ranges } });
    for (option, value) in more.as_object().into_iter().flatten() {
        options[option] = value.clone();
    }
    match node.pod_with(name, options) {
        Ok(pod) => Ok(Some(pod)),
        Err(error) if std::env::var_os("SLUICE_TEST_WHOLE").is_none() => {
            let said = error.to_string();
            assert!(said.contains("this kernel's bridges know no VLANs"), "{said}");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn over(name: &str, [ip4, ip6]: [&str; 2]) -> String {
    let spec = format!(
        "clusterIP: {ip4}\nclusterIPs: [{ip4}, '{ip6}']\nipFamilies: [IPv4, IPv6]\n\
         ipFamilyPolicy: RequireDualStack\nports: [{{port: 80}}]"
    );
    service(name, &spec)
}

/// The node's own server as the only endpoint of a service.
fn over_node(node: &Node) -> String {
    let mut text = over("node", NODE).replace("  selector: {app: node}\n", "");
    for (address, family) in node.addresses().iter().zip(["IPv4", "IPv6"]) {
        text += &format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: node-{}\n  namespace: default\n  \
             labels: {{kubernetes.io/service-name: node}}\naddressType: {family}\nports: [{{port: 80}}]\n\
             endpoints: [{{addresses: ['{address}'], conditions: {{ready: true}}}}]\n---\n",
            family.to_lowercase()
        );
    }
    text
}

fn assert_answers(client: &Host, address: &str, name: &str) -> Result<()> {
    assert_eq!(client.curl(&url(address))?, format!("{name}\n"), "{} to {address}", client.name());
    Ok(())
}

/// No TCP connection comes about.
fn assert_silent(client: &Host, address: &str) -> Result<()> {
    let target = url(address);
    let asked = client.run("curl", &["--silent", "--noproxy", "*", "--max-time", "2", &target])?;
    assert!(matches!(asked.code, Some(7 | 28)), "{} reaches {target}: {asked:?}", client.name());
    Ok(())
}

on_both_paths!(pods_in_vlans_reach_what_their_gateway_leads_to);

fn pods_in_vlans_reach_what_their_gateway_leads_to(fast_path: bool) -> Result<()> {
    let cluster = Cluster::new(&Options { nodes: 1, fast_path, ..Options::default() })?;
    let node = cluster.node(1);
    let Some(red) = pod_in(node, "red", 41, json!({}))? else { return Ok(()) };
    let Some(server) = pod_in(node, "inside", 41, json!({}))? else { return Ok(()) };
    let plain = node.pod("plain")?;
    let mut servers = Servers::new();
    for pod in [&red, &server, &plain] {
        servers.http(pod.host(), 80, pod.name())?;
    }
    servers.http(node.host(), 80, "node")?;
    servers.http(cluster.outside(), 80, "outside")?;
    for (pod, addresses) in [(&server, INSIDE), (&plain, PLAIN)] {
        let name = pod.name();
        let workload = Workload { name, node: node.name(), app: name, spec: "" };
        cluster.apply(&format!("{name}.yaml"), &(workload.manifest() + &over(name, addresses)))?;
    }
    cluster.apply("node.yaml", &over_node(node))?;
    for address in [INSIDE[1], PLAIN[1], NODE[1]] {
        wait_for("the services", LIMIT, || Ok(plain.curl(&url(address)).ok()))?;
    }
    for family in [0, 1] {
        let at = |pod: &Pod| pod.addresses()[family].to_string();
        assert_answers(red.host(), &at(&server), "inside")?;
        for (address, name) in [
            (["10.41.0.1", "fd41::1"][family].to_owned(), "node"),
            (node.addresses()[family].clone(), "node"),
            (OUTSIDE[family].to_owned(), "outside"),
            (NODE[family].to_owned(), "node"),
            (PLAIN[family].to_owned(), "plain"),
            // Another VLAN's pod is behind the gateway, as any other host: VLANs keep apart below that.
            (at(&plain), "plain"),
        ] {
            assert_answers(red.host(), &address, name)?;
        }
        for client in [node.host(), plain.host()] {
            assert_answers(client, &at(&server), "inside")?;
            assert_answers(client, INSIDE[family], "inside")?;
        }
    }
    Ok(())
}

#[test]
fn no_short_way_leads_from_one_vlan_into_another() -> Result<()> {
    let cluster = Cluster::new(&Options { nodes: 1, ..Options::default() })?;
    let node = cluster.node(1);
    // One subnet, that of the node: only the bridge is between them.
    let within = |number: u16| json!({ "vlan": number, "isGateway": false, "isDefaultGateway": false });
    let red = match node.pod_with("red", within(41)) {
        Err(error) if std::env::var_os("SLUICE_TEST_WHOLE").is_none() => {
            let said = error.to_string();
            assert!(said.contains("this kernel's bridges know no VLANs"), "{said}");
            return Ok(());
        }
        other => other?,
    };
    let (other, blue, plain) =
        (node.pod_with("other", within(41))?, node.pod_with("blue", within(42))?, node.pod("plain")?);
    let mut servers = Servers::new();
    for pod in [&red, &other, &blue, &plain] {
        servers.http(pod.host(), 80, pod.name())?;
    }
    for family in [0, 1] {
        let at = |pod: &Pod| pod.addresses()[family].to_string();
        assert_answers(red.host(), &at(&other), "other")?;
        for (client, server) in [(&red, &blue), (&blue, &red), (&red, &plain), (&plain, &red)] {
            assert_silent(client.host(), &at(server))?;
        }
    }
    Ok(())
}

#[test]
fn a_trunk_without_addresses_of_ours_carries_its_vlans() -> Result<()> {
    let cluster = Cluster::new(&Options { nodes: 1, ..Options::default() })?;
    let node = cluster.node(1);
    let Some(member) = pod_in(node, "member", 41, json!({}))? else { return Ok(()) };
    let Some(stranger) = pod_in(node, "stranger", 42, json!({}))? else { return Ok(()) };
    let trunk =
        node.pod_with("trunk", json!({ "name": "trunk", "vlanTrunk": [{ "id": 41 }], "ipam": {} }))?;
    let mut servers = Servers::new();
    for pod in [&member, &stranger, &trunk] {
        servers.http(pod.host(), 80, pod.name())?;
    }
    for number in [41, 42] {
        trunk.host().ip(&format!("link add link eth0 name v{number} type vlan id {number}\n"))?;
        trunk.host().sysctl(&[&format!("net/ipv6/conf/v{number}/accept_dad=0")])?;
        trunk.host().ip(&format!(
            "link set v{number} up\naddress add 10.{number}.0.77/24 dev v{number}\n\
             address add fd{number}::77/64 dev v{number} nodad\n"
        ))?;
    }
    for (family, at_trunk) in ["10.41.0.77", "fd41::77"].into_iter().enumerate() {
        assert_answers(trunk.host(), &member.addresses()[family].to_string(), "member")?;
        assert_answers(member.host(), at_trunk, "trunk")?;
        assert_silent(trunk.host(), &stranger.addresses()[family].to_string())?;
    }
    Ok(())
}
