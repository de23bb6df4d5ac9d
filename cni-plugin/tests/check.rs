//! CHECK by the real binary, between real namespaces: every kind of damage is found and named. Needs root.
//! What is in the datapath is in `datapath.rs` and `capabilities.rs`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails loudly, in its helpers too")]

mod common;

use std::{fs, process::Command};

use common::{Answer, Node, Pod, with_ports};
use serde_json::{Value, json};
use sluice_netlink::{
    BridgePort, LinkChange, MacAddress, RouteFilter, host_port, masquerade, owned, spoof, sysctl,
};

fn check(node: &Node, pod: &Pod, config: &Value, result: &Value) -> Answer {
    let mut config = config.clone();
    config["prevResult"] = result.clone();
    node.call("CHECK", pod, &config)
}

#[test]
fn check_names_each_kind_of_damage() {
    let node = Node::new();
    let config = node.config(json!({}));
    let host_veth = owned::host_veth_name("one", "eth0");
    let damages: [(&str, &dyn Fn(&Pod)); 13] = [
        ("bridge sluice0 has no address 10.77.0.1", &|_| {
            let mut netlink = node.netlink();
            let bridge = netlink.link("sluice0").unwrap().index;
            netlink.delete_address(bridge, "10.77.0.1/24".parse().unwrap()).unwrap();
        }),
        ("bridge sluice0 is down", &|_| {
            let mut netlink = node.netlink();
            let bridge = netlink.link("sluice0").unwrap().index;
            netlink.set_down(bridge).unwrap();
        }),
        ("is not a port of bridge sluice0", &|_| {
            let mut netlink = node.netlink();
            let host = netlink.link(&host_veth).unwrap().index;
            netlink.set_master(host, None).unwrap();
        }),
        ("link sluice", &|_| {
            let mut netlink = node.netlink();
            let host = netlink.link(&host_veth).unwrap().index;
            netlink.set_down(host).unwrap();
        }),
        ("link sluice", &|_| {
            let mut netlink = node.netlink();
            let host = netlink.link(&host_veth).unwrap().index;
            netlink.delete_link(host).unwrap();
        }),
        ("bridge sluice0 is gone", &|_| {
            let mut netlink = node.netlink();
            let bridge = netlink.link("sluice0").unwrap().index;
            netlink.delete_link(bridge).unwrap();
        }),
        ("interface eth0 is down", &|pod| {
            let mut netlink = pod.netlink();
            let index = netlink.link("eth0").unwrap().index;
            netlink.set_down(index).unwrap();
        }),
        ("interface eth0 is gone from the container", &|pod| {
            let mut netlink = pod.netlink();
            let index = netlink.link("eth0").unwrap().index;
            // Before Linux 6.2 only a link that is down can be called otherwise.
            netlink.set_down(index).unwrap();
            netlink.change_link(index, &LinkChange::new().name("other")).unwrap();
        }),
        ("interface eth0 has another link-layer address", &|pod| {
            let mut netlink = pod.netlink();
            let index = netlink.link("eth0").unwrap().index;
            netlink.change_link(index, &LinkChange::new().mac(MacAddress([2, 9, 9, 9, 9, 9]))).unwrap();
        }),
        ("interface eth0 has no address 10.77.0.", &|pod| {
            let mut netlink = pod.netlink();
            let index = netlink.link("eth0").unwrap().index;
            let all = netlink.addresses_of(index).unwrap();
            let v4 = all.iter().find(|found| found.address.addr().is_ipv4()).unwrap();
            netlink.delete_address(index, v4.address).unwrap();
        }),
        ("the container has no route to ::/0", &|pod| {
            let mut netlink = pod.netlink();
            let routes = netlink.routes(&RouteFilter { table: Some(254), ..RouteFilter::default() }).unwrap();
            let default = routes.iter().find(|route| route.destination.to_string() == "::/0").unwrap();
            netlink.delete_route(default).unwrap();
        }),
        ("is not reserved", &|_| {
            let boot = fs::read_dir(node.state_dir().join("cni")).unwrap().next().unwrap().unwrap().path();
            let addresses = fs::read_dir(boot.join("pods/addresses")).unwrap();
            addresses.for_each(|address| fs::remove_file(address.unwrap().path()).unwrap());
        }),
        ("is damaged", &|_| {
            let boot = fs::read_dir(node.state_dir().join("cni")).unwrap().next().unwrap().unwrap().path();
            fs::write(boot.join("pods/attachments/one:eth0"), "{\"state\":1").unwrap();
        }),
    ];
    for (expected, damage) in damages {
        let pod = Pod::new("one");
        let result = node.add(&pod, &config).ok();
        check(&node, &pod, &config, &result).ok();
        damage(&pod);
        let answer = check(&node, &pod, &config, &result);
        let words = format!("{} {}", answer.json["msg"], answer.json["details"]);
        assert!(!answer.success && words.contains(expected), "{expected}: {words}");
        node.del(&pod, &config).ok();
    }
    let pod = Pod::new("one");
    let result = node.add(&pod, &config).ok();
    node.del(&pod, &config).ok();
    assert_eq!(check(&node, &pod, &config, &result).error().0, 3, "an unknown container");
}

#[test]
fn check_tolerates_what_later_plugins_did_and_wants_to_know_what_add_said() {
    let node = Node::new();
    let config = node.config(json!({}));
    let pod = Pod::new("one");
    let mut result = node.add(&pod, &config).ok();
    let index = pod.netlink().link("eth0").unwrap().index;
    pod.netlink().change_link(index, &LinkChange::new().mtu(1400)).unwrap();
    pod.netlink().add_address(index, "192.0.2.7/32".parse().unwrap(), Default::default()).unwrap();
    result["ips"].as_array_mut().unwrap().push(json!({ "address": "192.0.2.7/32" }));
    check(&node, &pod, &config, &result).ok();
    let (code, msg) = node.call("CHECK", &pod, &config).error();
    assert_eq!((code, msg.as_str()), (7, "prevResult is missing, and CHECK needs it"));
    result["ips"] = json!([]);
    assert!(check(&node, &pod, &config, &result).error().1.starts_with("prevResult has no address"));
    let old = node.config(json!({ "cniVersion": "0.3.1" }));
    assert_eq!(node.call("CHECK", &pod, &old).error().0, 1);
}

/// Attaches a container with these options, damages something, and expects that CHECK finds exactly that.
#[track_caller]
fn finds(options: Value, ports: Value, expected: &str, damage: impl FnOnce(&Node, &Pod, &str)) {
    let node = Node::new();
    let config = with_ports(&node.config(options), ports);
    let pod = Pod::new("one");
    let result = node.add(&pod, &config).ok();
    check(&node, &pod, &config, &result).ok();
    let host_veth = owned::host_veth_name("one", "eth0");
    damage(&node, &pod, &host_veth);
    let answer = check(&node, &pod, &config, &result);
    assert!(answer.json.get("details").is_none(), "{}", answer.json);
    assert_eq!(answer.error(), (103, expected.replace("HOST", &host_veth)));
    node.del(&pod, &config).ok();
}

fn set_port(node: &Node, host_veth: &str, port: BridgePort) {
    let mut netlink = node.netlink();
    let index = netlink.link(host_veth).unwrap().index;
    netlink.set_bridge_port(index, port).unwrap();
}

#[test]
fn settings_of_the_port_and_of_the_bridge_are_compared_with_the_configuration() {
    let none = || json!([]);
    let isolated = |value| BridgePort { isolated: Some(value), ..BridgePort::default() };
    let hairpin = BridgePort { hairpin: Some(false), ..BridgePort::default() };
    let expected = "link HOST is not isolated from other containers' ports";
    finds(json!({ "portIsolation": true }), none(), expected, |node, _, host| {
        set_port(node, host, isolated(false));
    });
    let expected = "link HOST is isolated from other containers' ports";
    finds(json!({}), none(), expected, |node, _, host| set_port(node, host, isolated(true)));
    let expected = "link HOST does not send packets back to where they came from";
    finds(json!({ "hairpinMode": true }), none(), expected, |node, _, host| set_port(node, host, hairpin));
    // A host port without a datapath needs it too.
    let port = json!([{ "hostPort": 8080, "containerPort": 80 }]);
    finds(json!({}), port, expected, |node, _, host| set_port(node, host, hairpin));
    let expected = "bridge sluice0 does not take every packet";
    finds(json!({ "promiscMode": true }), none(), expected, |node, _, _| {
        let mut netlink = node.netlink();
        let index = netlink.link("sluice0").unwrap().index;
        netlink.change_link(index, &LinkChange::new().promiscuous(false)).unwrap();
    });
}

#[test]
fn what_the_packet_filter_should_do_is_missed_by_name() {
    let none = || json!([]);
    let expected = "packets of 10.77.0.0/24 leave without the node's address";
    let one_family = json!({ "ranges": [[{ "subnet": "10.77.0.0/24" }]] });
    finds(json!({ "ipMasq": true, "ipam": one_family }), none(), expected, |node, _, _| {
        node.namespace.run(|| masquerade::remove_all().unwrap()).unwrap();
    });
    let expected = "link HOST lets any link-layer address through";
    finds(json!({ "macspoofchk": true }), none(), expected, |node, _, host| {
        let filter = || sluice_netlink::PacketFilter::find().unwrap().unwrap();
        node.namespace.run(|| spoof::forget(&mut filter(), host).unwrap()).unwrap();
    });
    let ports = json!([
        { "hostPort": 8080, "containerPort": 80, "hostIP": "192.0.2.1" },
        { "hostPort": 5353, "containerPort": 53, "protocol": "udp", "hostIP": "::" },
    ]);
    let expected = "host port 5353 of protocol 17 on :: is not open";
    finds(json!({}), ports, expected, |node, _, _| {
        node.namespace
            .run(|| {
                let mut filter = sluice_netlink::PacketFilter::find().unwrap().unwrap();
                host_port::close(&mut filter, |port| port.host_port == 5353).unwrap();
            })
            .unwrap();
    });
}

#[test]
fn limits_that_are_gone_or_others_are_named_on_either_end() {
    let limits = json!({ "runtimeConfig": { "bandwidth": {
        "ingressRate": 8_000_000, "ingressBurst": 80_000, "egressRate": 16_000_000, "egressBurst": 80_000,
    } } });
    let tc = |arguments: &[&str]| {
        let output = Command::new("tc").args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    finds(limits.clone(), Value::Null, "link HOST has no limit of its rate", |node, _, host| {
        node.namespace.run(|| tc(&["qdisc", "del", "dev", host, "root"])).unwrap();
    });
    finds(limits.clone(), Value::Null, "link eth0 has no limit of its rate", |_, pod, _| {
        pod.namespace.run(|| tc(&["qdisc", "del", "dev", "eth0", "root"])).unwrap();
    });
    let expected = "link HOST has a limit of 2000000 bytes a second, not 1000000";
    finds(limits, Value::Null, expected, |node, _, host| {
        let change = "rate 16mbit burst 80kb latency 25ms".split(' ');
        let arguments: Vec<&str> =
            ["qdisc", "change", "dev", host, "root", "tbf"].into_iter().chain(change).collect();
        node.namespace.run(|| tc(&arguments)).unwrap();
    });
}

#[test]
fn what_tuning_set_is_compared() {
    let change = |pod: &Pod, change: LinkChange| {
        let mut netlink = pod.netlink();
        let index = netlink.link("eth0").unwrap().index;
        netlink.change_link(index, &change).unwrap();
    };
    let none = || json!([]);
    finds(json!({ "promisc": true }), none(), "interface eth0 does not take every packet", |_, pod, _| {
        change(pod, LinkChange::new().promiscuous(false));
    });
    let expected = "interface eth0 does not take every multicast packet";
    finds(json!({ "allmulti": true }), none(), expected, |_, pod, _| {
        change(pod, LinkChange::new().all_multicast(false));
    });
    let expected = "interface eth0 has a transmit queue of 500 packets";
    finds(json!({ "txQLen": 77 }), none(), expected, |_, pod, _| {
        change(pod, LinkChange::new().tx_queue_len(500));
    });
    let settings = json!({ "sysctl": {
        "net.ipv4.ip_local_port_range": "20000 30000", "net.ipv4.route.flush": "1", "net.core.somaxconn": "517",
    } });
    let expected = "sysctl net.core.somaxconn is \"600\", not \"517\"";
    finds(settings, none(), expected, |_, pod, _| {
        pod.namespace.run(|| sysctl::set("net/core/somaxconn", "600").unwrap()).unwrap();
    });
}

#[test]
fn an_attachment_that_was_never_completed_and_a_datapath_that_is_gone_are_named() {
    finds(json!({}), json!([]), "the attachment was never completed", |node, _, _| {
        let boot = fs::read_dir(node.state_dir().join("cni")).unwrap().next().unwrap().unwrap().path();
        let path = boot.join("pods/attachments/one:eth0");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("{\"state\":1", "{\"state\":0")).unwrap();
    });
    let node = Node::new();
    let config = node.config(json!({}));
    let pod = Pod::new("one");
    let result = node.add(&pod, &config).ok();
    let demanding = node.config(json!({ "requireDatapath": true }));
    let (code, msg) = check(&node, &pod, &demanding, &result).error();
    assert_eq!(code, 103);
    assert!(msg.starts_with("no datapath is pinned in "), "{msg}");
    let mut without = result.clone();
    without["interfaces"] = json!([]);
    let (code, msg) = check(&node, &pod, &config, &without).error();
    assert_eq!((code, msg.as_str()), (103, "prevResult has no interface eth0"));
}
