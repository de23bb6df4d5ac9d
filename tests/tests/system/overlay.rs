//! How nodes reach each other's pods: directly, through the overlay, each as it is fit; over networks of either
//! family; and what becomes of it when nodes come, go and change.

use sluice_tests::bed::Host;
use sluice_tests::cluster::{Node, OUTSIDE, Options, node_manifest};
use sluice_tests::{Error, Result, wait_for};

use crate::site::{LIMIT, NODE_PORTS, Site, WEB, bracketed, url};

const DEVICE: &str = DEVICES[0];
/// Over IPv4 and IPv6.
const DEVICES: [&str; 2] = ["sluice-vxlan", "sluice-vxlan6"];

/// Three nodes, a client on the first, backends on the others.
fn three(overlay: &str, apart: &[u8]) -> Options {
    let agent = format!("overlay: {overlay}\nresyncPeriod: 2s\n");
    Options { nodes: 3, apart: apart.to_vec(), agent, ..Options::default() }
}

const PODS: [(&str, usize); 3] = [("client", 1), ("web-0", 2), ("web-1", 3)];

/// Every pod reaches every pod, service, name and node port; in `families` nodes have addresses.
fn everything_reaches_everything(site: &mut Site, families: &[usize]) -> Result<()> {
    for client in ["client", "web-0", "web-1"] {
        let host = site.pod(client).host();
        for server in ["web-0", "web-1"] {
            for (family, address) in site.pod(server).url_hosts().iter().enumerate() {
                site.wait_spread(host, &format!("http://{address}/"), 1)?;
                let own = site.pod(client).addresses()[family].to_string();
                for protocol in ["TCP", "UDP"] {
                    let seen = host.seen_as(protocol, &format!("{address}:90"))?;
                    assert_eq!(seen, own, "{client} at {server}, {protocol}");
                }
            }
        }
        for address in WEB {
            site.wait_spread(host, &url(address), 2)?;
        }
        site.wait_spread(host, "http://web/", 2)?;
    }
    for node in site.cluster.nodes() {
        for address in WEB {
            site.wait_spread(node.host(), &url(address), 2)?;
            let udp = node.host().ask_udp(&format!("{}:70", bracketed(address)), 0)?;
            assert!(udp.starts_with("web-"), "{udp}");
        }
        for server in ["web-0", "web-1"] {
            for address in site.pod(server).url_hosts() {
                site.wait_spread(node.host(), &format!("http://{address}/"), 1)?;
            }
        }
        for family in families {
            let target = format!("{}:{}", bracketed(&node.addresses()[*family]), NODE_PORTS[0]);
            let others = site.cluster.nodes().iter().map(Node::host);
            for host in [site.client(), site.cluster.outside()].into_iter().chain(others) {
                site.wait_spread(host, &format!("http://{target}/"), 2)?;
                let udp = host.ask_udp(&target, 0)?;
                assert!(udp.starts_with("web-"), "{udp}");
            }
        }
    }
    // Sockets of the node that are bound to its own address, and pods at sockets of other nodes.
    let (one, three) = (site.cluster.node(1), site.cluster.node(3));
    site.servers.who(three.host(), 8099)?;
    for &family in families {
        let server = format!("http://{}/", site.pod("web-1").url_hosts()[family]);
        let bound = ["-sS", "-m", "5", "--interface", &one.addresses()[family], &server];
        assert_eq!(one.host().succeed("curl", &bound)?, "web-1\n", "bound to its address");
        let target = format!("{}:8099", bracketed(&three.addresses()[family]));
        for protocol in ["TCP", "UDP"] {
            site.client().seen_as(protocol, &target)?;
            one.host().seen_as(protocol, &target)?;
        }
    }
    // Much, in packets as large as they may be.
    for server in ["web-0", "web-1"] {
        for address in site.pod(server).url_hosts() {
            download(site.client(), &format!("http://{address}/large"))?;
        }
    }
    for address in WEB {
        download(site.client(), &format!("{}large", url(address)))?;
    }
    if families.contains(&0) {
        download(site.cluster.outside(), &node_url(site.cluster.node(1), "large"))?;
    }
    site.servers.who(site.cluster.outside(), 90)?;
    for family in families {
        let target = format!("{}:90", bracketed(OUTSIDE[*family]));
        let seen = site.client().seen_as("TCP", &target)?;
        assert_eq!(seen, site.cluster.node(1).addresses()[*family], "out of the cluster");
    }
    Ok(())
}

fn node_url(node: &Node, path: &str) -> String {
    format!("http://{}:{}/{path}", bracketed(&node.addresses()[0]), NODE_PORTS[0])
}

/// The first megabytes of a large file.
fn download(host: &Host, url: &str) -> Result<()> {
    let range = ["-sS", "-m", "20", "-r", "0-8388607", "-o", "/dev/null", "-w", "%{size_download}", url];
    let size = host.succeed("curl", &range)?;
    // busybox may not know ranges, and send all of it.
    let size: u64 = size.trim().parse().map_err(|error| Error::answer(url, error))?;
    assert!(size >= 8 << 20, "{url}: {size} bytes");
    Ok(())
}

/// The overlay's device of a node, if there is one; of two, either.
fn device(node: &Node) -> Result<Option<serde_json::Value>> {
    let links = node.host().ip_json(&["link", "show", "type", "vxlan"])?;
    let mut links = links.as_array().cloned().unwrap_or_default();
    Ok(links.pop().filter(|link| DEVICES.iter().any(|name| link["ifname"] == *name)))
}

/// The nodes' manifests, with addresses of some families only.
fn with_addresses(site: &Site, families: &[usize]) -> Result<()> {
    let manifest = |node: &Node| {
        let addresses: Vec<_> = families.iter().map(|family| node.addresses()[*family].clone()).collect();
        node_manifest(node.name(), &addresses, &node.pod_cidrs())
    };
    site.cluster.apply("cluster.yaml", &site.cluster.nodes().iter().map(manifest).collect::<String>())
}

#[test]
fn directly_on_a_common_network() -> Result<()> {
    let mut site = Site::new(&three("direct", &[]), &PODS)?;
    everything_reaches_everything(&mut site, &[0, 1])?;
    assert_eq!(device(site.cluster.node(1))?, None);
    Ok(())
}

#[test]
fn through_the_overlay_even_on_a_common_network() -> Result<()> {
    let mut site = Site::new(&three("vxlan", &[]), &PODS)?;
    everything_reaches_everything(&mut site, &[0, 1])?;
    for pod in PODS {
        let links = site.pod(pod.0).host().ip_json(&["link", "show", "dev", "eth0"])?;
        assert_eq!(links[0]["mtu"], 1450, "{}", pod.0);
    }
    Ok(())
}

#[test]
fn each_way_where_it_fits() -> Result<()> {
    let mut site = Site::new(&three("auto", &[3]), &PODS)?;
    everything_reaches_everything(&mut site, &[0, 1])?;
    let [near, far] = [2, 3].map(|number| site.cluster.node(number).pod_cidrs());
    for (family, flag) in [(0, "-4"), (1, "-6")] {
        for (network, wanted) in [(&near[family], "eth0"), (&far[family], DEVICE)] {
            let routes = site.cluster.node(1).host().ip_json(&[flag, "route", "show", network])?;
            assert_eq!(routes[0]["dev"], wanted, "{network}");
        }
    }
    Ok(())
}

#[test]
fn both_families_of_pods_over_nodes_with_ipv4_only() -> Result<()> {
    over_one_family(0, 1450)
}

#[test]
fn both_families_of_pods_over_nodes_with_ipv6_only() -> Result<()> {
    over_one_family(1, 1430)
}

fn over_one_family(family: usize, mtu: u32) -> Result<()> {
    let mut site = Site::new(&three("auto", &[2, 3]), &[])?;
    with_addresses(&site, &[family])?;
    for (name, node) in PODS {
        // Pods get the packet size that fits from the start.
        let told = site.cluster.node(node).state().join("node.json");
        wait_for("the packet size", LIMIT, || {
            let text = std::fs::read_to_string(&told).map_err(Error::file("read", &told))?;
            if text.contains(&format!("\"mtu\": {mtu}")) {
                Ok(Some(()))
            } else {
                Err(Error::answer("node.json", text))
            }
        })
        .map_err(|error| site.with_logs(&error))?;
        site.add(name, node)?;
    }
    everything_reaches_everything(&mut site, &[family])?;
    for node in site.cluster.nodes() {
        let device = device(node)?.ok_or_else(|| Error::Missing(DEVICES[family].to_owned()))?;
        let key = ["local", "local6"][family];
        assert_eq!(device["linkinfo"]["info_data"][key], node.addresses()[family].as_str(), "{device}");
        assert_eq!(device["mtu"], mtu);
    }
    Ok(())
}

/// The middle of a change from one family to the other: some nodes have both, some one. Each two that have one in common
/// reach each other's pods, of both families.
#[test]
fn nodes_of_one_family_and_of_both_reach_each_other() -> Result<()> {
    let mut site = Site::new(&three("vxlan", &[2, 3]), &[])?;
    let families: [&[usize]; 3] = [&[0, 1], &[0], &[1]];
    let manifest = |(node, families): (&Node, &&[usize])| {
        let addresses: Vec<_> = families.iter().map(|family| node.addresses()[*family].clone()).collect();
        node_manifest(node.name(), &addresses, &node.pod_cidrs())
    };
    let nodes: String = site.cluster.nodes().iter().zip(&families).map(manifest).collect();
    site.cluster.apply("cluster.yaml", &nodes)?;
    wait_for("a device for each family", LIMIT, || {
        let links = site.cluster.node(1).host().ip_json(&["link", "show", "type", "vxlan"])?;
        Ok((links.as_array().map(Vec::len) == Some(2)).then_some(()))
    })
    .map_err(|error| site.with_logs(&error))?;
    for (name, node) in PODS {
        site.add(name, node)?;
    }
    let reached =
        [("client", ["web-0", "web-1"]), ("web-0", ["client", "web-0"]), ("web-1", ["client", "web-1"])];
    for (from, to) in reached {
        for server in to {
            for address in site.pod(server).url_hosts() {
                let address_of = address.trim_matches(['[', ']']);
                let ping = ["ping", "-c", "1", "-W", "2", address_of];
                wait_for(&format!("{from} to reach {server} at {address}"), LIMIT, || {
                    let output = site.pod(from).host().run("busybox", &ping)?;
                    if output.code == Some(0) {
                        Ok(Some(()))
                    } else {
                        Err(Error::answer(&*address, output.stderr))
                    }
                })
                .map_err(|error| site.with_logs(&error))?;
                if server.starts_with("web") {
                    site.wait_spread(site.pod(from).host(), &format!("http://{address}/"), 1)?;
                    download(site.pod(from).host(), &format!("http://{address}/large"))?;
                }
            }
        }
    }
    for address in WEB {
        site.wait_spread(site.client(), &url(address), 2)?;
        site.wait_spread(site.cluster.node(1).host(), &url(address), 2)?;
    }
    let log = site.cluster.node(2).agent_log();
    assert!(log.contains("node node3 and this one have no addresses of a common family"), "{log}");
    Ok(())
}

#[test]
fn a_node_leaves_returns_and_changes_its_address() -> Result<()> {
    let site = Site::new(&three("vxlan", &[3]), &PODS)?;
    let [one, three] = [1, 3].map(|number| site.cluster.node(number));
    let servers = site.pod("web-1").url_hosts();
    let reaches =
        || servers.iter().try_for_each(|host| site.wait_spread(site.client(), &format!("http://{host}/"), 1));
    let remotes = || -> Result<String> { one.host().succeed("bridge", &["fdb", "show", "dev", DEVICE]) };
    reaches()?;
    assert!(remotes()?.contains(&three.addresses()[0]));

    let nodes = |third: &str| {
        let first = site.cluster.nodes().iter().take(2);
        let first = first.map(|node| node_manifest(node.name(), &node.addresses(), &node.pod_cidrs()));
        first.collect::<String>() + third
    };
    site.cluster.apply("cluster.yaml", &nodes(""))?;
    wait_for("the node to be forgotten", LIMIT, || {
        let routes = one.host().ip_json(&["route", "show", &three.pod_cidrs()[0]])?;
        let gone = routes.as_array().is_none_or(Vec::is_empty) && !remotes()?.contains(&three.addresses()[0]);
        Ok(gone.then_some(()))
    })
    .map_err(|error| site.with_logs(&error))?;

    // It is back under another address.
    let moved = ["192.168.103.7".to_owned(), "fd77:3::7".to_owned()];
    three.host().ip(&format!(
        "address del {}/24 dev eth0\naddress del {}/64 dev eth0\naddress add {}/24 dev eth0\n\
         address add {}/64 dev eth0 nodad\n",
        three.addresses()[0],
        three.addresses()[1],
        moved[0],
        moved[1]
    ))?;
    three.host().ip("route replace default via 192.168.103.100\nroute replace default via fd77:3::100\n")?;
    site.cluster.apply("cluster.yaml", &nodes(&node_manifest(three.name(), &moved, &three.pod_cidrs())))?;
    reaches()?;
    for address in WEB {
        site.wait_spread(site.client(), &url(address), 2)?;
        site.wait_spread(three.host(), &url(address), 2)?;
    }
    assert!(remotes()?.contains(&moved[0]) && !remotes()?.contains(&three.addresses()[0]));
    let target = format!("http://{}:{}/", moved[0], NODE_PORTS[0]);
    site.wait_spread(site.cluster.outside(), &target, 2)
}

#[test]
fn a_device_that_someone_deletes_comes_back_and_goes_with_the_setting() -> Result<()> {
    let mut options = three("vxlan", &[]);
    let site = Site::new(&options, &PODS)?;
    let node = site.cluster.node(1);
    node.host().ip(&format!("link delete {DEVICE}\n"))?;
    wait_for("the device", LIMIT, || Ok(device(node)?.map(drop))).map_err(|error| site.with_logs(&error))?;
    for server in ["web-0", "web-1"] {
        for address in site.pod(server).url_hosts() {
            site.wait_spread(site.client(), &format!("http://{address}/"), 1)?;
        }
    }
    for address in WEB {
        site.wait_spread(site.client(), &url(address), 2)?;
    }
    // Someone takes an entry away.
    node.host().ip(&format!("neighbour flush dev {DEVICE} nud permanent\n"))?;
    for address in site.pod("web-0").url_hosts() {
        site.wait_spread(site.client(), &format!("http://{address}/"), 1)?;
    }

    options.agent = "overlay: direct\n".to_owned();
    for node in site.cluster.nodes() {
        node.kill_agent()?;
        node.configure(&options)?;
        node.start_agent()?;
        node.wait_ready()?;
    }
    for node in site.cluster.nodes() {
        assert_eq!(device(node)?, None, "{}", node.name());
    }
    for address in WEB {
        site.wait_spread(site.client(), &url(address), 2)?;
    }
    Ok(())
}
