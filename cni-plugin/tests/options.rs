//! What can be asked of ADD: options, capabilities, versions, chains. By the real binary, between real namespaces.
//! Needs root.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails loudly, in its helpers too")]

mod common;

use std::net::IpAddr;

use common::{Answer, Node, Pod, assert_reaches};
use serde_json::json;
use sluice_cni::store;
use sluice_netlink::{BridgeSpec, PacketFilter, VethEnd, owned, sysctl};

#[test]
fn requests_for_addresses_and_mac_are_met() {
    let node = Node::new();
    let pod = Pod::new("wishes");
    let wishes =
        json!({ "runtimeConfig": { "ips": ["10.77.0.200", "fd77::dead:beef"], "mac": "02:11:22:33:44:55" } });
    let answer = node.add(&pod, &node.config(wishes));
    assert_eq!(
        answer.addresses(),
        ["10.77.0.200".parse::<IpAddr>().unwrap(), "fd77::dead:beef".parse().unwrap()]
    );
    assert_eq!(pod.netlink().link("eth0").unwrap().mac.unwrap().to_string(), "02:11:22:33:44:55");
    let ranges = json!({ "ranges": [[{ "subnet": "10.91.0.0/28", "rangeStart": "10.91.0.4" }]], "reserved": ["10.91.0.4", "10.91.0.8/29"] });
    let reserved = node.config(json!({ "name": "reserved", "ipam": ranges }));
    let few: Vec<Pod> = (0..4).map(|index| Pod::new(&format!("few-{index}"))).collect();
    let given: Vec<String> =
        few[..3].iter().map(|pod| node.add(pod, &reserved).addresses()[0].to_string()).collect();
    assert_eq!(given, ["10.91.0.5", "10.91.0.6", "10.91.0.7"]);
    assert_eq!(node.add(&few[3], &reserved).error().0, 102);

    // What host-local gave to containers that still run is not given again.
    let data = node.state_dir().join("host-local/changed");
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(data.join("10.92.0.2"), "old\r\neth0").unwrap();
    let ipam = json!({ "type": "host-local", "subnet": "10.92.0.0/24", "dataDir": node.state_dir().join("host-local") });
    let changed = node.config(json!({ "name": "changed", "ipam": ipam }));
    let newcomer = Pod::new("newcomer");
    assert_eq!(node.add(&newcomer, &changed).addresses(), ["10.92.0.3".parse::<IpAddr>().unwrap()]);

    let same = json!({ "runtimeConfig": { "ips": ["10.77.0.200"] } });
    let (code, msg) = node.add(&Pod::new("other"), &node.config(same)).error();
    assert_eq!((code, msg.as_str()), (102, "address 10.77.0.200 is held by wishes:eth0"));
}

#[test]
fn every_version_is_answered_in_its_own_format() {
    let node = Node::new();
    for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let pod = Pod::new(&format!("v{version}"));
        let config = node.config(json!({ "cniVersion": version }));
        let result = node.add(&pod, &config).ok();
        assert_eq!(result["cniVersion"], version);
        if version < "0.3.0" {
            assert!(result["ip4"]["ip"].as_str().unwrap().starts_with("10.77.0."), "{result}");
            assert!(result["ip6"]["ip"].as_str().unwrap().starts_with("fd77::"), "{result}");
        } else {
            assert_eq!(result["ips"][0]["version"].as_str(), (version < "1").then_some("4"), "{result}");
        }
        node.del(&pod, &config).ok();
    }
    let mut list = json!({ "cniVersion": "1.0.0", "name": "pods", "plugins": [node.config(json!({}))] });
    list["plugins"][0].as_object_mut().unwrap().remove("name");
    let pod = Pod::new("list");
    assert_eq!(node.add(&pod, &list).ok()["cniVersion"], "1.0.0");
    node.del(&pod, &list).ok();
}

#[test]
fn the_result_of_plugins_before_is_passed_on() {
    let node = Node::new();
    let previous = json!({
        "cniVersion": "1.0.0",
        "interfaces": [{ "name": "before0", "sandbox": "/x" }],
        "ips": [{ "address": "192.0.2.1/32", "interface": 0 }],
        "dns": { "nameservers": ["192.0.2.53"] },
    });
    let pod = Pod::new("one");
    let result = node.add(&pod, &node.config(json!({ "cniVersion": "1.0.0", "prevResult": previous }))).ok();
    assert_eq!(result["interfaces"][0]["name"], "before0");
    assert_eq!(result["interfaces"][3]["name"], "eth0");
    assert_eq!(result["ips"][1]["interface"], 3);
    assert_eq!(result["dns"]["nameservers"][0], "192.0.2.53");
    let config = node.config(json!({ "cniVersion": "1.0.0", "prevResult": result }));
    node.call("CHECK", &pod, &config).ok();
}

#[test]
fn options_of_the_bridge_are_obeyed() {
    let node = Node::new();
    let mut netlink = node.netlink();
    netlink.create_bridge(&BridgeSpec::new("sluice0").up()).unwrap();
    let bridge = netlink.link("sluice0").unwrap().index;
    netlink
        .add_address(bridge, "192.0.2.1/24".parse().unwrap(), sluice_netlink::AddressFlags::default())
        .unwrap();
    let has_old = |node: &Node| {
        let found = node.netlink().addresses_of(bridge).unwrap();
        found.iter().any(|address| address.address.to_string() == "192.0.2.1/24")
    };
    let plain = Pod::new("plain");
    node.add(&plain, &node.config(json!({}))).ok();
    assert!(has_old(&node), "other addresses stay");
    assert!(!netlink.link("sluice0").unwrap().flags.is_promiscuous());

    let ranges = json!({ "ranges": [[{ "subnet": "10.79.0.0/24" }]] });
    let options = json!({ "name": "other", "forceAddress": true, "promiscMode": true, "isDefaultGateway": false, "ipam": ranges });
    let pod = Pod::new("options");
    let result = node.add(&pod, &node.config(options)).ok();
    assert!(!has_old(&node), "they go where that is asked for");
    assert!(netlink.link("sluice0").unwrap().flags.is_promiscuous());
    assert_eq!(result["routes"], json!([]));

    // Isolated containers reach the node and not each other.
    let isolated = node.config(json!({ "name": "isolated", "portIsolation": true, "bridge": "br1", "ipam": { "ranges": [[{ "subnet": "10.80.0.0/24" }]] } }));
    let pods = [Pod::new("i1"), Pod::new("i2")];
    let addresses: Vec<IpAddr> = pods.iter().map(|pod| node.add(pod, &isolated).addresses()[0]).collect();
    assert_reaches(&pods[0].namespace, &node.namespace, "10.80.0.1".parse().unwrap());
    let port = |name: &str| {
        let output = node.namespace.run(|| {
            std::process::Command::new("ip").args(["-j", "-d", "link", "show", name]).output().unwrap()
        });
        let json: serde_json::Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
        json[0]["linkinfo"]["info_slave_data"].clone()
    };
    let name = owned::host_veth_name("i1", "eth0");
    assert_eq!((&port(&name)["isolated"], &port(&name)["hairpin"]), (&json!(true), &json!(false)));
    assert_eq!(addresses.len(), 2);
    let hairpin = node.config(json!({ "name": "hairpin", "hairpinMode": true, "bridge": "br2", "ipam": { "ranges": [[{ "subnet": "10.81.0.0/24" }]] } }));
    let pod = Pod::new("h1");
    node.add(&pod, &hairpin).ok();
    assert_eq!(port(&owned::host_veth_name("h1", "eth0"))["hairpin"], json!(true));
}

#[test]
fn a_router_on_the_bridge_is_the_gateway_where_the_node_is_not() {
    let node = Node::new();
    let mut netlink = node.netlink();
    netlink.create_bridge(&BridgeSpec::new("lan").up()).unwrap();
    let bridge = netlink.link("lan").unwrap().index;
    let router = Pod::new("router");
    let near = VethEnd::new("wire").master(bridge).up();
    netlink.create_veth(&near, &VethEnd::new("lan0").namespace(&router.namespace).up()).unwrap();
    let mut inside = router.netlink();
    let index = inside.link("lan0").unwrap().index;
    for (link, address) in [(index, "10.82.0.254/24"), (1, "192.0.2.9/32")] {
        inside.add_address(link, address.parse().unwrap(), Default::default()).unwrap();
    }
    inside.set_up(1).unwrap();
    let config = node.config(json!({ "name": "lan", "bridge": "lan", "isGateway": false, "ipam": {
        "subnet": "10.82.0.0/24", "gateway": "10.82.0.254", "routes": [{ "dst": "0.0.0.0/0" }],
    } }));
    let pod = Pod::new("one");
    let result = node.add(&pod, &config).ok();
    assert_eq!(result["ips"][0]["gateway"], "10.82.0.254");
    assert_eq!(result["routes"], json!([{ "dst": "0.0.0.0/0", "gw": "10.82.0.254" }]));
    assert_reaches(&pod.namespace, &router.namespace, "192.0.2.9".parse().unwrap());
    assert!(netlink.addresses_of(bridge).unwrap().iter().all(|found| found.address.addr().is_ipv6()));
    let mut check = config.clone();
    check["prevResult"] = result;
    node.call("CHECK", &pod, &check).ok();
    node.del(&pod, &config).ok();
}

#[test]
fn the_containers_interface_is_tuned() {
    let node = Node::new();
    let options = json!({
        "sysctl": { "net.core.somaxconn": "517", "net.ipv4.conf.IFNAME.arp_filter": "1" },
        "txQLen": 77, "promisc": true, "allmulti": true, "mtu": 1333,
        "runtimeConfig": { "ipRanges": [[{ "subnet": "10.90.0.0/24" }]], "dns": { "servers": ["10.96.0.10"], "searches": ["shop.svc"] } },
    });
    let pod = Pod::new("tuned");
    let result = node.add(&pod, &node.config(options)).ok();
    assert_eq!(result["dns"], json!({ "nameservers": ["10.96.0.10"], "search": ["shop.svc"] }));
    assert_eq!(result["ips"][0]["address"], "10.90.0.2/24");
    // Before those of the configuration, of which there is an address each as well.
    let configured = node.add(&Pod::new("plain"), &node.config(json!({}))).ok();
    let configured = configured["ips"].as_array().unwrap().len();
    assert_eq!(result["ips"].as_array().unwrap().len(), 1 + configured);
    let eth0 = pod.netlink().link("eth0").unwrap();
    assert_eq!((eth0.mtu, eth0.tx_queue_len, eth0.flags.is_promiscuous()), (1333, 77, true));
    pod.namespace
        .run(|| {
            assert_eq!(sysctl::read("net/core/somaxconn").unwrap(), "517");
            assert_eq!(sysctl::read("net/ipv4/conf/eth0/arp_filter").unwrap(), "1");
            assert_eq!(sysctl::read("net/ipv6/conf/eth0/accept_ra").unwrap(), "0");
        })
        .unwrap();
    let (code, msg) =
        node.add(&Pod::new("no"), &node.config(json!({ "sysctl": { "net.core.nonsense": "1" } }))).error();
    assert_eq!(code, 100);
    assert!(msg.contains("net/core/nonsense"), "{msg}");

    let pod = Pod::new("off");
    let mut config = node.config(json!({ "disableContainerInterface": true }));
    config.as_object_mut().unwrap().remove("ipam");
    assert_eq!(node.add(&pod, &config).ok()["ips"], json!([]));
    assert!(!pod.netlink().link("eth0").unwrap().flags.is_up());
    node.del(&pod, &config).ok();
}

#[test]
fn a_container_without_addresses_is_on_the_bridge_all_the_same() {
    let node = Node::new();
    let bare = |more: serde_json::Value| {
        let mut config = node.config(more);
        config["ipam"] = json!({});
        config
    };
    let before = node.inventory();
    let config = bare(
        json!({ "mtu": 1400, "macspoofchk": true, "txQLen": 55, "ipMasq": true, "mac": "02:11:22:33:44:55",
        "runtimeConfig": {
            "portMappings": [{ "hostPort": 8080, "containerPort": 80 }],
            "bandwidth": { "ingressRate": 8_000_000, "ingressBurst": 80_000 },
        } }),
    );
    node.status(&config).ok();
    let [one, two] = [Pod::new("one"), Pod::new("two")];
    let result = node.add(&one, &config).ok();
    node.add(&two, &bare(json!({ "name": "others" }))).ok();
    let names: Vec<_> = result["interfaces"].as_array().unwrap().iter().map(|i| &i["name"]).collect();
    assert_eq!(names, ["sluice0", &owned::host_veth_name("one", "eth0"), "eth0"]);
    assert_eq!((&result["ips"], &result["routes"]), (&json!([]), &json!([])));
    let eth0 = one.netlink().link("eth0").unwrap();
    assert!(eth0.flags.is_up() && eth0.flags.has_carrier());
    assert_eq!((eth0.mtu, eth0.tx_queue_len), (1400, 55));
    assert_eq!(eth0.mac.unwrap().to_string(), "02:11:22:33:44:55");
    one.namespace
        .run(|| assert_eq!(sysctl::read("net/ipv6/conf/eth0/accept_ra").unwrap(), "1", "it may find its own"))
        .unwrap();
    let bridge = node.netlink().link("sluice0").unwrap().index;
    let on_bridge = node.netlink().addresses_of(bridge).unwrap();
    assert!(on_bridge.iter().all(|found| found.scope != 0), "nobody's gateway: {on_bridge:?}");

    // Whatever addresses they give themselves.
    for (pod, address) in [(&one, "198.51.100.1/24"), (&two, "198.51.100.2/24")] {
        let index = pod.netlink().link("eth0").unwrap().index;
        pod.netlink().add_address(index, address.parse().unwrap(), Default::default()).unwrap();
    }
    assert_reaches(&one.namespace, &two.namespace, "198.51.100.2".parse().unwrap());

    let mut check = config.clone();
    check["prevResult"] = result;
    node.call("CHECK", &one, &check).ok();
    let mut netlink = node.netlink();
    let host = netlink.link(&owned::host_veth_name("one", "eth0")).unwrap();
    assert!(netlink.shaped(host.index).unwrap().is_some());
    netlink.set_master(host.index, None).unwrap();
    let (code, msg) = node.call("CHECK", &one, &check).error();
    assert_eq!((code, msg), (103, format!("link {} is not a port of bridge sluice0", host.name)));
    node.del(&one, &config).ok();
    node.del(&one, &config).ok();
    node.gc(&bare(json!({ "name": "others" })), &[]).ok();
    let bridge = node.netlink().link("sluice0").unwrap().index;
    node.netlink().delete_link(bridge).unwrap();
    let left: Vec<_> = node.inventory().into_iter().filter(|line| !line.ends_with("lock")).collect();
    assert_eq!(left, before);

    // Without any ipam it is the node's networks that are meant.
    let mut config = node.config(json!({}));
    config.as_object_mut().unwrap().remove("ipam");
    let (code, msg) = node.add(&one, &config).error();
    assert!(code == 7 && msg.contains("node.json"), "{msg}");
}

#[test]
fn duplicates_are_asked_for_where_that_is_wanted() {
    /// `IFA_F_NODAD`.
    const UNASKED: u32 = 2;
    let node = Node::new();
    for (enabledad, setting, flag) in [(false, "0", UNASKED), (true, "1", 0)] {
        let pod = Pod::new(&format!("dad-{enabledad}"));
        node.add(&pod, &node.config(json!({ "enabledad": enabledad }))).ok();
        let mut netlink = pod.netlink();
        let index = netlink.link("eth0").unwrap().index;
        let addresses = netlink.addresses_of(index).unwrap();
        let own = addresses.iter().find(|found| found.address.addr().is_ipv6() && found.scope == 0).unwrap();
        assert_eq!(own.flags & UNASKED, flag, "enabledad: {enabledad}");
        assert!(!own.is_tentative(), "usable when ADD returns");
        let read = || sysctl::read("net/ipv6/conf/eth0/accept_dad").unwrap();
        assert_eq!(pod.namespace.run(read).unwrap(), setting);
    }
}

#[test]
fn pods_reach_the_outside_with_the_nodes_address_where_that_is_asked_for() {
    let node = Node::new();
    let outside = node.outside();
    let config = node.config(json!({ "ipMasq": true }));
    let pods = [Pod::new("one"), Pod::new("two")];
    let mut check = config.clone();
    for pod in &pods {
        check["prevResult"] = node.add(pod, &config).ok();
        // Outside knows no way back to the pods' network.
        for address in ["192.0.2.2", "2001:db8::2"] {
            assert_reaches(&pod.namespace, &outside, address.parse().unwrap());
        }
    }
    node.call("CHECK", &pods[1], &check).ok();
    node.gc(&config, &["one"]).ok();
    assert_reaches(&pods[0].namespace, &outside, "192.0.2.2".parse().unwrap());
    check["prevResult"] = node.add(&pods[1], &config).ok();
    node.namespace.run(|| sluice_netlink::masquerade::remove_all().unwrap()).unwrap();
    let (code, msg) = node.call("CHECK", &pods[1], &check).error();
    assert_eq!((code, msg.as_str()), (103, "packets of 10.77.0.0/24 leave without the node's address"));
    node.gc(&config, &[]).ok();
    node.namespace
        .run(|| assert!(sluice_netlink::masquerade::ensure("10.77.0.0/24".parse().unwrap()).unwrap()))
        .unwrap();
    // Whichever tool would write the rules.
    node.add(&pods[0], &node.config(json!({ "ipMasq": true, "ipMasqBackend": "iptables" }))).ok();
    assert_reaches(&pods[0].namespace, &outside, "192.0.2.2".parse().unwrap());
    let (code, msg) =
        node.add(&pods[1], &node.config(json!({ "ipMasq": true, "ipMasqBackend": "pf" }))).error();
    assert_eq!((code, msg.as_str()), (2, "ipMasqBackend: \"pf\" is not supported"));
}

#[test]
fn the_plugin_stands_in_for_loopback() {
    let node = Node::new();
    let pod = Pod::new("one");
    let config = json!({ "cniVersion": "1.0.0", "name": "cni-loopback", "type": "loopback" });
    let result = node.add(&pod, &config).ok();
    assert_eq!(
        result["interfaces"],
        json!([{ "name": "lo", "mac": "00:00:00:00:00:00", "sandbox": pod.path() }])
    );
    assert_eq!(
        result["ips"],
        json!([{ "address": "127.0.0.1/8", "interface": 0 }, { "address": "::1/128", "interface": 0 }])
    );
    assert_reaches(&pod.namespace, &pod.namespace, "127.0.0.1".parse().unwrap());
    node.call("CHECK", &pod, &config).ok();
    node.del(&pod, &config).ok();
    assert!(!pod.netlink().link("lo").unwrap().flags.is_up());
    assert_eq!(node.call("CHECK", &pod, &config).error(), (103, "interface lo is down".to_owned()));
    Answer::from(&node.run(node.command("DEL", "one", None), &config.to_string())).ok();
    assert!(store::list(node.state_dir()).unwrap().attachments.is_empty());
    let previous = json!({ "cniVersion": "1.0.0", "interfaces": [{ "name": "x" }] });
    let chained = json!({ "cniVersion": "1.0.0", "name": "n", "type": "loopback", "prevResult": previous });
    assert_eq!(node.add(&pod, &chained).ok(), previous);
}

#[test]
fn a_container_with_another_link_layer_address_is_not_heard_where_that_is_asked_for() {
    let node = Node::new();
    let config = node.config(json!({ "macspoofchk": true }));
    let pod = Pod::new("one");
    let result = node.add(&pod, &config).ok();
    assert_reaches(&pod.namespace, &node.namespace, "10.77.0.1".parse().unwrap());
    let host_veth = owned::host_veth_name("one", "eth0");
    let filtered = || {
        node.namespace
            .run(|| {
                sluice_netlink::spoof::is_filtered(&mut PacketFilter::find().unwrap().unwrap(), &host_veth)
                    .unwrap()
            })
            .unwrap()
    };
    assert!(filtered());
    let mut check = config.clone();
    check["prevResult"] = result;
    node.call("CHECK", &pod, &check).ok();

    // The gateway is asked for from the wrong address, and does not answer.
    let eth0 = pod.netlink().link("eth0").unwrap();
    let change = sluice_netlink::LinkChange::new().mac(sluice_netlink::MacAddress([2, 6, 6, 6, 6, 6]));
    pod.netlink().change_link(eth0.index, &change).unwrap();
    let target = "10.77.0.1:9".parse().unwrap();
    let connect = || std::net::TcpStream::connect_timeout(&target, std::time::Duration::from_millis(200));
    let error = pod.namespace.run(connect).unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut, "refused would mean that it was heard");

    node.namespace
        .run(|| {
            sluice_netlink::spoof::forget(&mut PacketFilter::find().unwrap().unwrap(), &host_veth).unwrap();
        })
        .unwrap();
    assert!(
        node.call("CHECK", &pod, &check).json["msg"]
            .as_str()
            .unwrap()
            .contains("lets any link-layer address through")
    );
    node.del(&pod, &config).ok();
    let pod = Pod::new("one");
    node.add(&pod, &config).ok();
    assert!(filtered());
    node.del(&pod, &config).ok();
    assert!(!filtered());
}
