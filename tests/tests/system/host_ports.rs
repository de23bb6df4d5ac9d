//! Host ports: from outside, from nodes, from pods and from the pod itself.

use serde_json::{Value, json};
use sluice_tests::bed::{Host, Servers};
use sluice_tests::cluster::{Node, OUTSIDE, Options, Pod};
use sluice_tests::{Cluster, Result, Testbed, wait_for};

use crate::site::{LIMIT, bracketed};

/// Leads to the servers that [`serving`] starts: HTTP, UDP, and the peer's address.
fn mappings() -> Value {
    json!({ "portMappings": [
        { "hostPort": 18080, "containerPort": 80, "protocol": "TCP" },
        { "hostPort": 18080, "containerPort": 70, "protocol": "UDP" },
        { "hostPort": 18090, "containerPort": 90, "protocol": "TCP" },
        { "hostPort": 18090, "containerPort": 90, "protocol": "UDP" },
    ] })
}

fn serving(node: &Node, servers: &mut Servers, name: &str, wishes: Value) -> Result<Pod> {
    let pod = node.pod_that_wants(name, wishes)?;
    servers.http(pod.host(), 80, name)?;
    servers.udp(pod.host(), 70, name)?;
    servers.who(pod.host(), 90)?;
    Ok(pod)
}

/// Whether the pod of that name answers at an address, over TCP and UDP.
fn assert_answers(client: &Host, address: &str, name: &str) -> Result<()> {
    let target = format!("{}:18080", bracketed(address));
    assert_eq!(
        client.curl(&format!("http://{target}/"))?,
        format!("{name}\n"),
        "{} to {target}",
        client.name()
    );
    assert_eq!(client.ask_udp(&target, 0)?, name, "{} to {target}, UDP", client.name());
    Ok(())
}

#[test]
fn a_host_port_is_reached_from_everywhere() -> Result<()> {
    let cluster = Cluster::new(&Options::default())?;
    let [one, two] = [1, 2].map(|index| cluster.node(index));
    let mut servers = Servers::new();
    let web = serving(one, &mut servers, "web", mappings())?;
    let (near, far) = (one.pod("near")?, two.pod("far")?);
    for (family, address) in one.addresses().iter().enumerate() {
        for client in [cluster.outside(), two.host(), one.host(), near.host(), far.host(), web.host()] {
            assert_answers(client, address, "web")?;
        }
        for protocol in ["TCP", "UDP"] {
            let target = format!("{}:18090", bracketed(address));
            assert_eq!(
                cluster.outside().seen_as(protocol, &target)?,
                OUTSIDE[family],
                "clients keep their address"
            );
        }
    }
    assert_answers(one.host(), "127.0.0.1", "web")?;
    web.delete()?;
    let url = format!("http://{}:18080/", one.addresses()[0]);
    let gone = cluster.outside().curl(&url).unwrap_or_else(|error| error.to_string());
    // curl's number for a connection that was refused; for one that is not answered it has another.
    assert!(gone.contains("curl: (7)"), "a host port goes with its pod: {gone}");
    Ok(())
}

#[test]
fn a_pod_sees_its_node_where_all_who_come_by_a_host_port_are_masqueraded() -> Result<()> {
    let cluster = Cluster::new(&Options::default())?;
    let [one, two] = [1, 2].map(|index| cluster.node(index));
    let mut servers = Servers::new();
    let web = one.pod_with("web", json!({ "masqAll": true, "runtimeConfig": mappings() }))?;
    servers.http(web.host(), 80, "web")?;
    servers.udp(web.host(), 70, "web")?;
    servers.who(web.host(), 90)?;
    let (near, far) = (one.pod("near")?, two.pod("far")?);
    // Before the agent starts anew and after it: it tells the datapath what the records say.
    for round in ["by the plugin", "by the agent"] {
        for address in one.addresses() {
            for client in [cluster.outside(), two.host(), one.host(), near.host(), far.host(), web.host()] {
                assert_answers(client, &address, "web")?;
            }
            let target = format!("{}:18090", bracketed(&address));
            for protocol in ["TCP", "UDP"] {
                for client in [cluster.outside(), near.host(), far.host()] {
                    let seen = client.seen_as(protocol, &target)?;
                    assert_eq!(seen, address, "{round}: {} by {protocol} to {target}", client.name());
                }
            }
        }
        one.kill_agent()?;
        one.start_agent()?;
        one.wait_ready()?;
    }
    Ok(())
}

#[test]
fn host_ports_are_for_those_who_meet_the_conditions() -> Result<()> {
    let cluster = Cluster::new(&Options::default())?;
    let [one, two] = [1, 2].map(|index| cluster.node(index));
    let mut servers = Servers::new();
    let [outside4, outside6] = OUTSIDE;
    let open_to = |name: &str, v4: &str, v6: &str| -> Result<Pod> {
        let options = json!({ "conditionsV4": [v4], "conditionsV6": [v6], "runtimeConfig": mappings() });
        one.pod_with(name, options)
    };
    let web = open_to("web", &format!("-s {outside4}"), &format!("ip6 saddr {outside6}"))?;
    servers.http(web.host(), 80, "web")?;
    servers.udp(web.host(), 70, "web")?;
    let (near, far) = (one.pod("near")?, two.pod("far")?);
    let refused = |client: &Host| -> Result<()> {
        for address in one.addresses() {
            let url = format!("http://{}:18080/", bracketed(&address));
            let asked = client.run("curl", &["--silent", "--noproxy", "*", "--max-time", "1", &url])?;
            // curl's numbers for a connection that cannot be made, and for one that nobody answers.
            assert!(matches!(asked.code, Some(7 | 28)), "{} to {url}: {asked:?}", client.name());
        }
        Ok(())
    };
    let answered = |client: &Host, name: &str| -> Result<()> {
        one.addresses().iter().try_for_each(|address| assert_answers(client, address, name))
    };
    for _ in ["as the plugin left it", "with another agent"] {
        answered(cluster.outside(), "web")?;
        for client in [two.host(), one.host(), near.host(), far.host(), web.host()] {
            refused(client)?;
        }
        one.kill_agent()?;
        one.start_agent()?;
        one.wait_ready()?;
    }
    web.delete()?;
    refused(cluster.outside())?;

    let all_but = open_to("all-but", &format!("! -s {outside4}"), &format!("! --source {outside6}"))?;
    servers.http(all_but.host(), 80, "all-but")?;
    servers.udp(all_but.host(), 70, "all-but")?;
    refused(cluster.outside())?;
    for client in [two.host(), one.host(), near.host(), far.host(), all_but.host()] {
        answered(client, "all-but")?;
    }
    Ok(())
}

#[test]
fn pods_share_a_port_by_address_and_by_protocol() -> Result<()> {
    let cluster = Cluster::new(&Options { nodes: 1, ..Options::default() })?;
    let node = cluster.node(1);
    let [address, _] = node.addresses();
    let mut servers = Servers::new();
    let wishes = |host_ip: &str, protocol: &str, port: u16| {
        json!({ "portMappings": [
            { "hostPort": 54323, "containerPort": port, "protocol": protocol, "hostIP": host_ip },
        ] })
    };
    let pods =
        [("loopback", "127.0.0.1", "TCP", 80), ("tcp", &address, "TCP", 80), ("udp", &address, "UDP", 70)];
    let pods = pods.map(|(name, host_ip, protocol, port)| {
        serving(node, &mut servers, name, wishes(host_ip, protocol, port))
    });
    let _pods = pods.into_iter().collect::<Result<Vec<_>>>()?;
    assert_eq!(node.host().curl("http://127.0.0.1:54323/")?, "loopback\n");
    for client in [node.host(), cluster.outside()] {
        assert_eq!(client.curl(&format!("http://{address}:54323/"))?, "tcp\n", "{}", client.name());
        assert_eq!(client.ask_udp(&format!("{address}:54323"), 0)?, "udp", "{}", client.name());
    }
    let refused =
        node.pod_that_wants("late", wishes("0.0.0.0", "TCP", 80)).map(|_| ()).unwrap_err().to_string();
    assert!(refused.contains("is held by node1-"), "{refused}");
    Ok(())
}

#[test]
fn host_ports_of_pods_that_were_there_before_the_agent_are_taken_over() -> Result<()> {
    let bed = Testbed::new()?;
    let cluster = Cluster::without_agents(&bed, &Options { nodes: 1, ..Options::default() })?;
    let node = cluster.node(1);
    let [pods4, pods6] = node.pod_cidrs();
    let description = json!({ "podCIDRs": [pods4, pods6], "mtu": 1500, "bpffs": node.bpffs() });
    std::fs::write(node.state().join("node.json"), description.to_string()).unwrap();
    let mut servers = Servers::new();
    let web = serving(node, &mut servers, "web", mappings())?;
    let near = node.pod("near")?;
    let everywhere = || -> Result<()> {
        for address in node.addresses() {
            for client in [cluster.outside(), node.host(), near.host(), web.host()] {
                assert_answers(client, &address, "web")?;
            }
        }
        Ok(())
    };
    everywhere()?;
    node.start_agent()?;
    node.wait_ready()?;
    everywhere()?;

    // Somebody empties the map; the agent puts back what the records say.
    let map = node.bpffs().join("v1/maps/host_ports").display().to_string();
    let entries = || -> Result<Value> {
        let text = node.host().succeed("bpftool", &["-j", "map", "dump", "pinned", &map])?;
        Ok(serde_json::from_str(&text).unwrap())
    };
    let before = entries()?;
    assert_eq!(before.as_array().map(Vec::len), Some(8));
    let first = before[0]["key"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut delete = vec!["map", "delete", "pinned", map.as_str(), "key"];
    delete.extend(first);
    node.host().succeed("bpftool", &delete)?;
    node.kill_agent()?;
    node.start_agent()?;
    node.wait_ready()?;
    wait_for("all host ports", LIMIT, || Ok((entries()?.as_array().map(Vec::len) == Some(8)).then_some(())))?;
    everywhere()?;
    web.delete()?;
    assert_eq!(entries()?.as_array().map(Vec::len), Some(0));
    Ok(())
}
