//! VLANs of containers' ports. On a kernel whose bridges know none, that this is said; `cargo xtask kernels` runs the
//! rest on one that does. Needs root.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails loudly, in its helpers too")]

mod common;

use std::{
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    process::Command,
    time::Duration,
};

use common::{Node, Pod, assert_reaches, datapath, datapath::with_datapath};
use serde_json::{Value, json};
use sluice_netlink::{BridgeSpec, Namespace, PortVlans, owned};

/// What says that this kernel has all that the tests look for.
const WHOLE: &str = "SLUICE_TEST_WHOLE";
const DEFAULT: PortVlans = PortVlans { first: 1, last: 1, pvid: false, untagged: true };

/// Whether the kernel's bridges know VLANs. Where they do not, what ADD and STATUS say of it is held against `config`.
fn known(node: &Node, config: &Value, option: &str) -> bool {
    let before = node.inventory();
    let mut netlink = node.netlink();
    netlink.create_bridge(&BridgeSpec::new("probe")).unwrap();
    let probe = netlink.link("probe").unwrap().index;
    let known = netlink.set_vlan_filtering(probe, true).is_ok();
    netlink.delete_link(probe).unwrap();
    if known {
        return true;
    }
    assert!(std::env::var_os(WHOLE).is_none(), "{WHOLE} is set, and this kernel's bridges know no VLANs");
    let (code, msg) = node.add(&Pod::new("refused"), config).error();
    let why = "this kernel's bridges know no VLANs (CONFIG_BRIDGE_VLAN_FILTERING)";
    assert_eq!((code, msg), (2, format!("{option} is not supported: {why}")));
    let left: Vec<_> = node.inventory().into_iter().filter(|line| !line.ends_with("/lock")).collect();
    assert_eq!(left, before, "nothing is left, but the network's empty store");
    // A bridge that is there stays as it is.
    let pod = Pod::new("plain");
    node.add(&pod, &node.config(json!({ "name": "plain" }))).ok();
    assert_eq!(node.add(&Pod::new("refused"), config).error().0, 2);
    assert_reaches(&node.namespace, &pod.namespace, "10.77.0.2".parse().unwrap());
    false
}

/// A network of its own: a VLAN's, with a subnet.
fn network(node: &Node, name: &str, subnet: u8, more: Value) -> Value {
    let mut config = node.config(more);
    config["name"] = name.into();
    config["ipam"] = json!({ "ranges": [
        [{ "subnet": format!("10.{subnet}.0.0/24") }], [{ "subnet": format!("fd{subnet:02}::/64") }],
    ] });
    config
}

fn port(node: &Node, id: &str) -> Vec<PortVlans> {
    let mut netlink = node.netlink();
    let index = netlink.link(&owned::host_veth_name(id, "eth0")).unwrap().index;
    netlink.vlans(index).unwrap()
}

/// No TCP connection comes about, for want of an answer to the question for the other's link-layer address, too.
#[track_caller]
fn assert_apart(client: &Namespace, server: &Namespace, address: IpAddr) {
    let listener = server.run(|| TcpListener::bind(SocketAddr::new(address, 0)).unwrap()).unwrap();
    let target = listener.local_addr().unwrap();
    let asked = client.run(|| TcpStream::connect_timeout(&target, Duration::from_secs(2))).unwrap();
    assert!(asked.is_err(), "{target} is reached");
}

fn ip(namespace: &Namespace, arguments: &str) {
    let output = namespace.run(|| Command::new("ip").args(arguments.split(' ')).output().unwrap()).unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn pods_of_a_vlan_reach_each_other_and_their_gateway_and_nobody_else_on_the_bridge() {
    let node = Node::new();
    // One subnet for all: who reaches whom is a matter of the bridge alone.
    let red = node.config(json!({ "name": "pods", "vlan": 100 }));
    if !known(&node, &red, "vlan: 100") {
        return;
    }
    let blue = node.config(json!({ "name": "pods", "vlan": 200, "isGateway": false }));
    let plain = node.config(json!({ "name": "pods", "isGateway": false }));
    let pods = ["red1", "red2", "blue1", "blue2", "plain"].map(Pod::new);
    let configs = [&red, &red, &blue, &blue, &plain];
    let results: Vec<_> = pods.iter().zip(configs).map(|(pod, config)| node.add(pod, config).ok()).collect();
    let [red1, red2, blue1, blue2, other] = pods.each_ref().map(|pod| &pod.namespace);
    let at = |number: u8| [address(&format!("10.77.0.{number}")), address(&format!("fd77::{number}"))];
    for family in [0, 1] {
        assert_reaches(red1, red2, at(3)[family]);
        assert_reaches(red1, &node.namespace, at(1)[family]);
        assert_reaches(&node.namespace, red2, at(3)[family]);
        assert_reaches(blue1, blue2, at(5)[family]);
        for (client, server, number) in
            [(red1, blue1, 4), (blue1, red1, 2), (red1, other, 6), (other, red1, 2), (blue1, other, 6)]
        {
            assert_apart(client, server, at(number)[family]);
        }
    }
    assert_eq!(port(&node, "red1"), [PortVlans::access(100)], "and no longer in the bridge's default one");
    let interfaces = results[0]["interfaces"].as_array().unwrap();
    let names: Vec<_> = interfaces.iter().map(|interface| interface["name"].as_str().unwrap()).collect();
    let veth = owned::host_veth_name("red1", "eth0");
    assert_eq!(names, ["sluice0", &veth, "eth0", "sluice0.100"]);
    assert_eq!(results[0]["ips"][1]["interface"], 2);
    assert!(results[2]["interfaces"].as_array().unwrap().len() == 3, "no gateway, no device for it");
    assert!(node.netlink().find_link("sluice0.200").unwrap().is_none());
}

#[test]
fn the_default_vlan_is_kept_where_that_is_asked_for() {
    let node = Node::new();
    let kept = network(&node, "kept", 88, json!({ "vlan": 100, "preserveDefaultVlan": true }));
    if !known(&node, &kept, "vlan: 100") {
        return;
    }
    let left = network(&node, "left", 89, json!({ "vlan": 101, "preserveDefaultVlan": false }));
    let first = Pod::new("kept");
    node.add(&first, &kept).ok();
    let pod = Pod::new("left");
    let mut result = node.add(&pod, &left).ok();
    assert_eq!(port(&node, "kept"), [DEFAULT, PortVlans::access(100)]);
    assert_eq!(port(&node, "left"), [PortVlans::access(101)]);
    let index = |name: &str| node.netlink().link(name).unwrap().index;
    assert_eq!(node.netlink().vlans(index("sluice0.100p")).unwrap(), [DEFAULT, PortVlans::access(100)]);
    assert_eq!(node.netlink().vlans(index("sluice0.101p")).unwrap(), [PortVlans::access(101)]);

    // Who goes into it later is found out.
    let mut check = left.clone();
    check["prevResult"] = result.take();
    node.call("CHECK", &pod, &check).ok();
    let veth = owned::host_veth_name("left", "eth0");
    let veth = index(&veth);
    node.netlink().add_vlans(veth, &[DEFAULT]).unwrap();
    let (code, msg) = node.call("CHECK", &pod, &check).error();
    assert_eq!(code, 103);
    assert!(msg.ends_with("is in other VLANs than it should be"), "{msg}");

    // A bridge may have another one for those of whom nothing is said.
    ip(&node.namespace, "link add br9 type bridge vlan_filtering 1 vlan_default_pvid 9");
    let more = json!({ "vlan": 102, "bridge": "br9" });
    let nine = Pod::new("nine");
    node.add(&nine, &network(&node, "nine", 90, more)).ok();
    assert_eq!(port(&node, "nine"), [PortVlans::access(102)]);
}

#[test]
fn a_trunk_carries_the_vlans_that_it_is_told_and_no_others() {
    let node = Node::new();
    let ranges = json!([{ "minID": 100, "maxID": 110 }, { "id": 200 }]);
    let trunk = network(&node, "trunk", 91, json!({ "vlanTrunk": ranges }));
    if !known(&node, &trunk, "vlanTrunk: 2 entries") {
        return;
    }
    let native = network(&node, "native", 92, json!({ "vlanTrunk": ranges, "vlan": 300 }));
    let access = |number: u16, subnet| {
        network(&node, &format!("access{number}"), subnet, json!({ "vlan": number, "isGateway": false }))
    };
    let (router, other) = (Pod::new("router"), Pod::new("native"));
    let mut check = trunk.clone();
    check["prevResult"] = node.add(&router, &trunk).ok();
    node.add(&other, &native).ok();
    let tagged = [PortVlans::tagged(100, 110), PortVlans::tagged(200, 200)];
    assert_eq!(port(&node, "router"), [&[PortVlans::access(1)][..], &tagged].concat());
    assert_eq!(port(&node, "native"), [&tagged[..], &[PortVlans::access(300)]].concat());
    node.call("CHECK", &router, &check).ok();

    let members = [(105, 15), (200, 20), (210, 21)];
    let pods = members.map(|(number, subnet)| {
        let pod = Pod::new(&format!("m{number}"));
        node.add(&pod, &access(number, subnet)).ok();
        ip(&router.namespace, &format!("link add link eth0 name v{number} type vlan id {number}"));
        ip(&router.namespace, &format!("addr add 10.{subnet}.0.77/24 dev v{number}"));
        ip(&router.namespace, &format!("link set v{number} up"));
        pod
    });
    for (pod, (number, subnet)) in pods.iter().zip(members) {
        let (own, at_trunk) = (address(&format!("10.{subnet}.0.2")), address(&format!("10.{subnet}.0.77")));
        if number == 210 {
            assert_apart(&router.namespace, &pod.namespace, own);
        } else {
            assert_reaches(&router.namespace, &pod.namespace, own);
            assert_reaches(&pod.namespace, &router.namespace, at_trunk);
        }
    }
    // What has no tag reaches the node, as it does from a container without VLANs; and from the other, by VLAN 300.
    assert_reaches(&router.namespace, &node.namespace, address("10.91.0.1"));
    assert_reaches(&other.namespace, &node.namespace, address("10.92.0.1"));
    assert!(node.netlink().find_link("sluice0.300").unwrap().is_some());

    let mut netlink = node.netlink();
    let index = netlink.link(&owned::host_veth_name("router", "eth0")).unwrap().index;
    netlink.remove_vlan(index, 104).unwrap();
    let (code, msg) = node.call("CHECK", &router, &check).error();
    assert_eq!((code, msg.ends_with("is in other VLANs than it should be")), (103, true), "{msg}");
}

#[test]
fn check_names_what_is_wrong_and_del_and_gc_leave_nothing_of_the_container() {
    let node = Node::new();
    let config = network(&node, "red", 88, json!({ "vlan": 100 }));
    if !known(&node, &config, "vlan: 100") {
        return;
    }
    // What makes the node a member stays, like the bridge itself, for the next.
    node.add(&Pod::new("first"), &config).ok();
    node.gc(&config, &[]).ok();
    // Routes are told with the number of their device, which a new one has anew.
    let inventory = || -> Vec<String> {
        node.inventory().into_iter().map(|line| line.split(" by ").next().unwrap().to_owned()).collect()
    };
    let before = inventory();
    let pod = Pod::new("one");
    let mut check = config.clone();
    check["prevResult"] = node.add(&pod, &config).ok();
    node.call("CHECK", &pod, &check).ok();

    let mut netlink = node.netlink();
    let finding = |node: &Node| {
        let (code, msg) = node.call("CHECK", &pod, &check).error();
        assert_eq!(code, 103);
        msg
    };
    let bridge = netlink.link("sluice0").unwrap().index;
    netlink.set_vlan_filtering(bridge, false).unwrap();
    assert_eq!(finding(&node), "bridge sluice0 does not keep VLANs apart");
    netlink.set_vlan_filtering(bridge, true).unwrap();
    let gateway = netlink.link("sluice0.100").unwrap().index;
    netlink.delete_address(gateway, "10.88.0.1/24".parse().unwrap()).unwrap();
    assert_eq!(finding(&node), "link sluice0.100 has no address 10.88.0.1");
    netlink.delete_link(gateway).unwrap();
    assert_eq!(finding(&node), "link sluice0.100 is gone");
    assert_eq!(node.status(&config).error().0, 51);
    // The next container brings it back, for the one that is there, too.
    node.add(&Pod::new("two"), &config).ok();
    node.call("CHECK", &pod, &check).ok();
    assert_reaches(&pod.namespace, &node.namespace, address("10.88.0.1"));

    node.del(&pod, &config).ok();
    node.gc(&config, &[]).ok();
    assert_eq!(inventory(), before);
}

#[test]
fn a_vlan_goes_with_isolated_ports_and_with_checked_link_layer_addresses() {
    let node = Node::new();
    let more = json!({ "vlan": 100, "portIsolation": true, "macspoofchk": true });
    let config = network(&node, "red", 88, more);
    if !known(&node, &config, "vlan: 100") {
        return;
    }
    let pods = ["one", "two"].map(Pod::new);
    let mut check = config.clone();
    for pod in &pods {
        check["prevResult"] = node.add(pod, &config).ok();
        node.call("CHECK", pod, &check).ok();
    }
    let [one, two] = pods.each_ref().map(|pod| &pod.namespace);
    assert_reaches(one, &node.namespace, address("10.88.0.1"));
    assert_reaches(&node.namespace, two, address("10.88.0.3"));
    assert_apart(one, two, address("10.88.0.3"));
    ip(one, "link set eth0 address 02:06:06:06:06:06");
    assert_apart(one, &node.namespace, address("10.88.0.1"));
    for pod in &pods {
        node.del(pod, &config).ok();
    }
}

#[test]
fn the_datapath_leaves_a_vlan_to_the_bridge() {
    with_datapath(16, |node, config| {
        let mut config = config.clone();
        config["vlan"] = 100.into();
        if !known(node, &config, "vlan: 100") {
            return;
        }
        let pod = Pod::new("one");
        let mut check = config.clone();
        check["prevResult"] = node.add(&pod, &config).ok();
        node.call("CHECK", &pod, &check).ok();
        // Bridged; and the address that packets come from is that of its own gateway.
        let gateway = node.netlink().link("sluice0.100").unwrap().mac.unwrap();
        for (_, value) in datapath::endpoints(&config) {
            assert_eq!(value[4], 2);
            assert_eq!(value[14..20], gateway.0);
        }
        node.del(&pod, &config).ok();
        assert!(datapath::endpoints(&config).is_empty());
    });
}
