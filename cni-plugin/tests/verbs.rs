//! STATUS and GC by the real binary, between real namespaces. Needs root.

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
use sluice_netlink::{BridgeSpec, VethEnd, owned};

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
fn status_misses_the_gateway_of_a_vlan_and_says_where_the_kernel_knows_none() {
    let node = Node::new();
    let mut netlink = node.netlink();
    netlink.create_bridge(&BridgeSpec::new("sluice0").up()).unwrap();
    let known = netlink.link("sluice0").unwrap().vlan_filtering.is_some();
    let config = node.config(json!({ "vlan": 100 }));
    let answer = node.status(&config);
    if known {
        answer.ok();
    } else {
        let (code, msg) = answer.error();
        assert_eq!(code, 50);
        assert!(msg.contains("vlan: 100 is not supported: this kernel's bridges know no VLANs"), "{msg}");
    }
    // Of the same network: what they are attached by has lost its gateway.
    node.add(&Pod::new("one"), &node.config(json!({}))).ok();
    let (code, msg) = node.status(&config).error();
    assert_eq!((code, msg.as_str()), (51, "sluice0.100, the gateway of attached containers, is gone"));
}

#[test]
fn a_list_that_switches_commands_off_is_heeded_by_whoever_is_given_all_of_it() {
    let node = Node::new();
    let pod = Pod::new("one");
    let config = node.config(json!({}));
    node.add(&pod, &config).ok();
    let mut list = json!({ "cniVersion": "1.1.0", "name": "pods", "plugins": [config] });
    list["disableCheck"] = true.into();
    list["disableGC"] = "true".into();
    node.call("CHECK", &pod, &list).ok();
    node.gc(&list, &[]).ok();
    assert!(pod.netlink().find_link("eth0").unwrap().is_some(), "nothing was cleaned up");
    list["disableCheck"] = false.into();
    list["disableGC"] = false.into();
    assert_eq!(node.call("CHECK", &pod, &list).error().0, 7, "it looks for prevResult");
    assert_eq!(node.status(&json!({ "cniVersion": "1.1.0", "name": "pods", "plugins": [] })).error().0, 7);
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
