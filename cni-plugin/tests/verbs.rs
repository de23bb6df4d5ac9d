//! CHECK, STATUS and GC by the real binary, between real namespaces. Needs root.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails loudly, in its helpers too"
)]

mod common;

use std::fs;

use common::{Answer, Node, Pod, assert_reaches};
use serde_json::{Value, json};
use sluice_netlink::{LinkChange, MacAddress, RouteFilter, VethEnd, owned};

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

#[test]
fn status_says_whether_an_add_would_work() {
    let node = Node::new();
    let config = node.config(json!({}));
    node.status(&config).ok();
    assert_eq!(node.status(&node.config(json!({ "cniVersion": "1.0.0" }))).error().0, 1);

    let refuses = |config: &Value, expected_code: u64, expected: &str| {
        let (code, msg) = node.status(config).error();
        assert_eq!(code, expected_code, "{msg}");
        assert!(msg.contains(expected), "{msg}");
    };
    let small =
        node.config(json!({ "name": "small", "ipam": { "ranges": [[{ "subnet": "10.78.0.0/30" }]] } }));
    node.status(&small).ok();
    let pod = Pod::new("one");
    node.add(&pod, &small).ok();
    refuses(&small, 50, "no address is free in 10.78.0.1-10.78.0.2 of network small");

    let mut netlink = node.netlink();
    let bridge = netlink.link("sluice0").unwrap().index;
    netlink.delete_link(bridge).unwrap();
    node.del(&pod, &small).ok();
    let pod = Pod::new("two");
    node.add(&pod, &config).ok();
    let bridge = netlink.link("sluice0").unwrap().index;
    netlink.delete_link(bridge).unwrap();
    refuses(&config, 51, "bridge sluice0 is gone");

    refuses(&node.config(json!({ "bridge": "lo" })), 50, "lo exists and is no bridge");
    refuses(
        &node.config(json!({ "requireDatapath": true, "bridge": "br9", "name": "n9" })),
        50,
        "is the agent running?",
    );
    let mut none = node.config(json!({}));
    none.as_object_mut().unwrap().remove("ipam");
    refuses(&none, 50, "the agent has written no node.json");
    fs::write(node.state_dir().join("a-file"), "").unwrap();
    let unwritable = node.config(json!({ "stateDir": node.state_dir().join("a-file") }));
    refuses(&unwritable, 50, "a-file");
}

#[test]
fn gc_leaves_exactly_the_valid_attachments() {
    let node = Node::new();
    let config = node.config(json!({}));
    let keep = Pod::new("keep");
    node.add(&keep, &config).ok();
    let before = node.inventory();
    let pods: Vec<Pod> = ["a", "b", "c"].into_iter().map(Pod::new).collect();
    for pod in &pods {
        node.add(pod, &config).ok();
    }
    // What is not ours stays, whatever it is called.
    let mut netlink = node.netlink();
    netlink.create_veth(&VethEnd::new("sluice-foreign"), &VethEnd::new("x")).unwrap();
    netlink.create_veth(&VethEnd::new("sluice99999999"), &VethEnd::new("y")).unwrap();

    assert_eq!(node.gc(&config, &["keep", "unknown"]).ok(), Value::Null);
    let mut after = node.inventory();
    for foreign in ["link sluice-foreign", "link x", "link sluice99999999", "link y"] {
        let at = after.iter().position(|line| line == foreign).expect(foreign);
        after.remove(at);
    }
    assert_eq!(after, before);
    assert_reaches(&node.namespace, &keep.namespace, "10.77.0.2".parse().unwrap());

    // Without the list nothing is touched; with an empty one everything goes.
    let bare = Answer::from(&node.run(node.command("GC", "", None), &config.to_string()));
    assert_eq!(bare.error().0, 7);
    assert!(keep.netlink().find_link("eth0").unwrap().is_some());
    node.gc(&config, &[]).ok();
    assert!(keep.netlink().find_link("eth0").unwrap().is_none());
}

#[test]
fn gc_takes_apart_what_has_a_damaged_record() {
    let node = Node::new();
    let config = node.config(json!({}));
    let pods: Vec<Pod> = ["a", "b"].into_iter().map(Pod::new).collect();
    for pod in &pods {
        node.add(pod, &config).ok();
    }
    let boot = fs::read_dir(node.state_dir().join("cni")).unwrap().next().unwrap().unwrap().path();
    fs::write(boot.join("pods/attachments/a:eth0"), "{\"state\":9,\"version\":1}").unwrap();
    node.gc(&config, &[]).ok();
    assert!(node.netlink().links().unwrap().iter().all(|link| !owned::is_host_veth_name(&link.name)));
    assert!(fs::read_dir(boot.join("pods/addresses")).unwrap().next().is_none());
}
