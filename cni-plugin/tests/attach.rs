//! ADD and DEL by the real binary with a real CNI environment, between real namespaces. Needs root.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails loudly, in its helpers too")]

mod common;

use std::{
    path::Path,
    process::{Command, Stdio},
};

use common::{Answer, Node, Pod, assert_reaches};
use serde_json::json;
use sluice_cni::{node::NodeConfig, store};
use sluice_netlink::{BridgeSpec, LinkChange, MacAddress, RouteFilter, VethEnd, owned, sysctl};

#[test]
fn a_pod_gets_addresses_routes_and_the_network() {
    let node = Node::new();
    let config = node.config(json!({}));
    let (one, two) = (Pod::new("one"), Pod::new("two"));
    let first = node.add(&one, &config);
    let second = node.add(&two, &config);
    let result = Answer { success: true, json: first.json.clone() }.ok();

    assert_eq!(result["cniVersion"], "1.1.0");
    let names: Vec<_> = result["interfaces"].as_array().unwrap().iter().map(|i| i["name"].clone()).collect();
    assert_eq!(names, ["sluice0", &owned::host_veth_name("one", "eth0"), "eth0"]);
    assert_eq!(result["interfaces"][2]["sandbox"], one.path().to_str().unwrap());
    assert_eq!(
        result["ips"][0],
        json!({ "address": "10.77.0.2/24", "gateway": "10.77.0.1", "interface": 2 })
    );
    assert_eq!(result["ips"][1], json!({ "address": "fd77::2/64", "gateway": "fd77::1", "interface": 2 }));
    assert_eq!(
        result["routes"],
        json!([{ "dst": "0.0.0.0/0", "gw": "10.77.0.1" }, { "dst": "::/0", "gw": "fd77::1" }])
    );

    let mut inside = one.netlink();
    let eth0 = inside.link("eth0").unwrap();
    assert!(eth0.flags.is_up() && eth0.flags.has_carrier());
    assert_eq!(eth0.mac.unwrap().to_string(), result["interfaces"][2]["mac"].as_str().unwrap());
    assert!(inside.link("lo").unwrap().flags.is_up());
    assert!(inside.addresses_of(eth0.index).unwrap().iter().all(|address| !address.is_tentative()));
    let defaults = inside.routes(&RouteFilter { table: Some(254), ..RouteFilter::default() }).unwrap();
    assert_eq!(defaults.iter().filter(|route| route.destination.prefix_len() == 0).count(), 2);

    // At once: no waiting for duplicates, no waiting for the bridge.
    for (address, other) in second.addresses().into_iter().zip(first.addresses()) {
        assert_reaches(&one.namespace, &two.namespace, address);
        assert_reaches(&two.namespace, &one.namespace, other);
        assert_reaches(&node.namespace, &one.namespace, other);
    }
    for gateway in ["10.77.0.1", "fd77::1"] {
        assert_reaches(&one.namespace, &node.namespace, gateway.parse().unwrap());
    }
    node.namespace
        .run(|| {
            assert_eq!(sysctl::read("net/ipv4/ip_forward").unwrap(), "1");
            assert_eq!(sysctl::read("net/ipv6/conf/all/forwarding").unwrap(), "1");
        })
        .unwrap();
}

#[test]
fn del_leaves_nothing_and_can_be_repeated() {
    let node = Node::new();
    let config = node.config(json!({}));
    let resident = Pod::new("resident");
    node.add(&resident, &config).ok();
    let before = node.inventory();

    let pod = Pod::new("one");
    let address = node.add(&pod, &config).addresses()[0];
    // The node knows the pod's link-layer address, and must not know it when another gets the address.
    assert_reaches(&node.namespace, &pod.namespace, address);
    assert!(node.inventory().contains(&format!("neighbour {address}")));
    let mac = node.netlink().link("sluice0").unwrap().mac;
    assert_eq!(node.del(&pod, &config).ok(), json!(null));
    assert_eq!(node.inventory(), before);
    assert!(pod.netlink().find_link("eth0").unwrap().is_none());
    node.del(&pod, &config).ok();
    assert_eq!(node.inventory(), before);
    assert_eq!(node.netlink().link("sluice0").unwrap().mac, mac, "the gateway's address stays");
    assert_reaches(&node.namespace, &resident.namespace, "10.77.0.2".parse().unwrap());
}

#[test]
fn del_works_without_a_namespace_and_without_a_record() {
    let node = Node::new();
    let config = node.config(json!({}));
    let keeper = Pod::new("keeper");
    node.add(&keeper, &config).ok();
    let before = node.inventory();
    let pod = Pod::new("one");
    node.add(&pod, &config).ok();
    let without = node.command("DEL", &pod.id, None);
    Answer::from(&node.run(without, &config.to_string())).ok();
    assert_eq!(node.inventory(), before);

    // The runtime says where the namespace was, and it is gone.
    let pod = Pod::new("two");
    node.add(&pod, &config).ok();
    let gone = node.command("DEL", &pod.id, Some(Path::new("/run/netns/gone")));
    Answer::from(&node.run(gone, &config.to_string())).ok();
    assert_eq!(node.inventory(), before);

    // The state directory is lost; the device is still known by its name.
    let pod = Pod::new("three");
    node.add(&pod, &config).ok();
    std::fs::remove_dir_all(node.state_dir().join("cni")).unwrap();
    node.del(&pod, &config).ok();
    assert!(node.netlink().find_link(&owned::host_veth_name("three", "eth0")).unwrap().is_none());
    assert!(node.netlink().find_link(&owned::host_veth_name("keeper", "eth0")).unwrap().is_some());
}

#[test]
fn the_agents_description_of_the_node_is_used_and_the_agent_sees_the_pods() {
    let node = Node::new();
    let mut config = node.config(json!({ "cniVersion": "1.0.0" }));
    config.as_object_mut().unwrap().remove("ipam");
    let pod = Pod::new("web-0");
    let (code, msg) = node.add(&pod, &config).error();
    assert_eq!(code, 7);
    assert!(msg.contains("the agent has written no node.json"), "{msg}");

    let described = NodeConfig {
        pod_cidrs: vec!["10.244.3.0/24".parse().unwrap(), "fd00:244:3::/64".parse().unwrap()],
        mtu: Some(1420),
        bpffs: None,
    };
    described.write(node.state_dir()).unwrap();
    let result = node.add(&pod, &config).ok();
    assert_eq!(result["ips"][0]["address"], "10.244.3.2/24");
    assert_eq!(result["ips"][1]["address"], "fd00:244:3::2/64");
    assert!(result["interfaces"][2].get("mtu").is_none(), "1.0.0 does not know it");
    assert_eq!(pod.netlink().link("eth0").unwrap().mtu, 1420);

    let listing = store::list(node.state_dir()).unwrap();
    let [attachment] = &listing.attachments[..] else { panic!("{listing:?}") };
    let name = attachment.pod.as_ref().unwrap();
    assert_eq!((name.namespace.as_str(), name.name.as_str()), ("shop", "web-0"));
    assert_eq!(attachment.state, store::State::Ready);
    assert_eq!(attachment.addresses.len(), 2);
    assert_eq!(attachment.netns, pod.path());
    let host = node.netlink().link(&attachment.host_veth).unwrap();
    assert_eq!(host.peer, Some(pod.netlink().link("eth0").unwrap().index));
    assert_eq!(pod.netlink().link("eth0").unwrap().mac, Some(attachment.mac));
    assert_eq!(node.netlink().link("sluice0").unwrap().mac, Some(attachment.gateway_mac));
    node.del(&pod, &config).ok();
    assert!(store::list(node.state_dir()).unwrap().attachments.is_empty());
}

#[test]
fn a_bridge_that_is_there_is_adopted_as_it_is() {
    let node = Node::new();
    let mut netlink = node.netlink();
    netlink.create_bridge(&BridgeSpec::new("br0").mtu(1300)).unwrap();
    netlink.create_veth(&VethEnd::new("other"), &VethEnd::new("peer")).unwrap();
    let before = netlink.link("br0").unwrap();
    let other = netlink.link("other").unwrap();
    netlink.set_master(other.index, Some(before.index)).unwrap();
    let pod = Pod::new("one");
    let result = node.add(&pod, &node.config(json!({ "bridge": "br0" }))).ok();
    let after = netlink.link("br0").unwrap();
    assert_eq!(after.index, before.index);
    assert!(after.flags.is_up());
    assert_eq!(netlink.link("other").unwrap().master, Some(before.index));
    assert_eq!(pod.netlink().link("eth0").unwrap().mtu, 1300, "pods send what the bridge takes");
    assert_eq!(result["interfaces"][0]["mac"], after.mac.unwrap().to_string());
    // Ports with lower addresses come and go, and it keeps its own.
    netlink
        .create_veth(
            &VethEnd::new("low").mac(MacAddress([0, 0, 0, 0, 0, 1])).master(after.index),
            &VethEnd::new("low-peer"),
        )
        .unwrap();
    assert_eq!(netlink.link("br0").unwrap().mac, after.mac);
    assert_reaches(&node.namespace, &pod.namespace, "10.77.0.2".parse().unwrap());

    let (code, msg) = node.add(&Pod::new("two"), &node.config(json!({ "bridge": "peer" }))).error();
    assert_eq!((code, msg.as_str()), (7, "bridge peer exists and is no bridge (veth)"));
}

#[test]
fn a_failed_add_undoes_everything() {
    let node = Node::new();
    let config = node.config(json!({}));
    let first = Pod::new("first");
    node.add(&first, &config).ok();
    let before = node.inventory();

    // The interface is there already: the veth cannot be made.
    let pod = Pod::new("taken");
    pod.netlink().create_veth(&VethEnd::new("eth0"), &VethEnd::new("eth1")).unwrap();
    let (code, msg) = node.add(&pod, &config).error();
    assert_eq!(code, 4);
    assert!(msg.starts_with("CNI_IFNAME=\"eth0\": the container has an interface of this name"), "{msg}");
    assert_eq!(node.inventory(), before);

    // The datapath is demanded and is not there: everything else has been made by then.
    let pod = Pod::new("no-datapath");
    let (code, msg) = node.add(&pod, &node.config(json!({ "requireDatapath": true }))).error();
    assert_eq!(code, 11, "{msg}");
    assert_eq!(node.inventory(), before);
    assert!(pod.netlink().find_link("eth0").unwrap().is_none());

    // A route that cannot be made.
    let mut bad = node.config(json!({}));
    bad["ipam"]["routes"] = json!([{ "dst": "192.0.2.0/24", "gw": "203.0.113.1" }]);
    let (code, msg) = node.add(&pod, &bad).error();
    assert_eq!(code, 100);
    assert!(msg.contains("cannot add route to 192.0.2.0/24 via 203.0.113.1"), "{msg}");
    assert_eq!(node.inventory(), before);

    // And the pod can be attached after all.
    node.add(&pod, &config).ok();
}

#[test]
fn what_the_runtime_gets_wrong_is_said() {
    let node = Node::new();
    let config = node.config(json!({}));
    let missing = node.command("ADD", "c1", Some(Path::new("/run/netns/none")));
    let (code, msg) = Answer::from(&node.run(missing, &config.to_string())).error();
    assert_eq!(code, 8);
    assert!(msg.contains("/run/netns/none"), "{msg}");

    let own = Path::new("/proc/self/ns/net");
    let (code, msg) =
        Answer::from(&node.run(node.command("ADD", "c1", Some(own)), &config.to_string())).error();
    assert_eq!(code, 8);
    assert!(msg.contains("the node itself"), "{msg}");

    std::fs::write(node.state_dir().join("file"), "").unwrap();
    let pod = Pod::new("no-state");
    let (code, msg) =
        node.add(&pod, &node.config(json!({ "stateDir": node.state_dir().join("file") }))).error();
    assert_eq!(code, 5);
    assert!(msg.starts_with("cannot make ") && msg.contains("/file/cni/"), "{msg}");

    let pod = Pod::new("twice");
    node.add(&pod, &config).ok();
    let (code, msg) = node.add(&pod, &config).error();
    assert_eq!(code, 101);
    assert!(msg.contains("attached by eth0 already"), "{msg}");
    // The refused ADD has not harmed the one that was there.
    assert_reaches(&node.namespace, &pod.namespace, "10.77.0.2".parse().unwrap());
}

#[test]
fn a_result_that_nobody_takes_goes_into_no_file_of_ours() {
    let node = Node::new();
    let config = node.config(json!({}));
    let pod = Pod::new("mute");
    let plugin = node.command("ADD", &pod.id, Some(&pod.path()));
    let mut closed = Command::new("/bin/sh");
    closed.args(["-c", "exec \"$0\" >&- 2>&-"]).arg(plugin.get_program()).env_clear();
    closed.envs(plugin.get_envs().filter_map(|(name, value)| Some((name, value?))));
    closed.stdin(Stdio::piped());
    assert!(node.run(closed, &config.to_string()).status.success());

    let records = store::list(node.state_dir()).unwrap();
    assert_eq!(records.attachments.len(), 1, "{:?}", records.damaged);
    assert_reaches(&node.namespace, &pod.namespace, "10.77.0.2".parse().unwrap());
    node.del(&pod, &config).ok();
}

#[test]
fn a_namespace_without_ipv6_gets_it_when_it_gets_an_address() {
    let node = Node::new();
    let pod = Pod::new("six");
    pod.namespace.run(|| sysctl::set("net/ipv6/conf/default/disable_ipv6", "1").unwrap()).unwrap();
    let address = node.add(&pod, &node.config(json!({}))).addresses()[1];
    assert_reaches(&node.namespace, &pod.namespace, address);
}

#[test]
fn five_hundred_by_sixteen_at_once_never_share_an_address_and_leave_nothing() {
    let node = Node::new();
    let ranges = json!({ "ranges": [[{ "subnet": "10.77.0.0/22" }], [{ "subnet": "fd77::/64" }]] });
    let config = node.config(json!({ "ipam": ranges }));
    // The bridge, the pools and the lock are there from the first on.
    let first = Pod::new("first");
    node.add(&first, &config).ok();
    node.del(&first, &config).ok();
    let before = node.inventory();
    let seen = std::sync::Mutex::new(std::collections::BTreeMap::new());
    std::thread::scope(|scope| {
        for worker in 0..16 {
            let (node, config, seen) = (&node, &config, &seen);
            scope.spawn(move || {
                // Each worker keeps some pods while it makes others, and deletes in another order than it added.
                let mut held = std::collections::VecDeque::new();
                for index in 0..32 {
                    let pod = Pod::new(&format!("many-{worker}-{index}"));
                    let addresses = node.add(&pod, config).addresses();
                    for address in &addresses {
                        let holder = seen.lock().unwrap().insert(*address, pod.id.clone());
                        assert_eq!(holder, None, "{address} is given twice");
                    }
                    held.push_back((pod, addresses));
                    if held.len() > 8 {
                        let (pod, addresses) =
                            if index % 2 == 0 { held.pop_front() } else { held.pop_back() }.unwrap();
                        seen.lock().unwrap().retain(|address, _| !addresses.contains(address));
                        node.del(&pod, config).ok();
                    }
                }
                for (pod, addresses) in held {
                    seen.lock().unwrap().retain(|address, _| !addresses.contains(address));
                    node.del(&pod, config).ok();
                }
            });
        }
    });
    assert_eq!(node.inventory(), before);
}

#[test]
fn two_attachments_whose_devices_would_have_one_name_get_two() {
    let node = Node::new();
    let config = node.config(json!({}));
    let first = Pod::new("first");
    node.add(&first, &config).ok();
    // As if the name of the first came out as that of the second.
    let (own, wanted) = (owned::host_veth_name("first", "eth0"), owned::host_veth_name("second", "eth0"));
    let mut netlink = node.netlink();
    let index = netlink.link(&own).unwrap().index;
    netlink.set_down(index).unwrap();
    netlink.change_link(index, &LinkChange::new().name(&wanted).up(true)).unwrap();
    let boot = std::fs::read_dir(node.state_dir().join("cni")).unwrap().next().unwrap().unwrap().path();
    let record = boot.join("pods/attachments/first:eth0");
    let text = std::fs::read_to_string(&record).unwrap().replace(&own, &wanted);
    std::fs::write(&record, text).unwrap();

    let before = node.inventory();
    let second = Pod::new("second");
    let result = node.add(&second, &config).ok();
    let other = owned::other_host_veth_name("second", "eth0", 1);
    assert_eq!(result["interfaces"][1]["name"], other);
    assert_reaches(&first.namespace, &second.namespace, "10.77.0.3".parse().unwrap());
    assert_reaches(&second.namespace, &first.namespace, "10.77.0.2".parse().unwrap());
    node.del(&second, &config).ok();
    let left: Vec<_> = node.inventory();
    assert_eq!(left, before);
    node.del(&first, &config).ok();
    assert!(netlink.find_link(&wanted).unwrap().is_none());
}
