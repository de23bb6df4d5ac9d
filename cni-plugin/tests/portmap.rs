//! Options of the plugin `portmap`: who is masqueraded that comes by a host port, and who may. Needs root.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails loudly, in its helpers too")]

mod common;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use common::{
    LIMIT, Node, Pod,
    datapath::{endpoints, host_ports, with_datapath},
    with_ports,
};
use serde_json::{Value, json};
use sluice_netlink::{Namespace, PacketFilter, conditional, host_port, owned};

#[test]
fn where_everything_is_masqueraded_the_container_sees_its_node() {
    let node = Node::new();
    let outside = node.outside();
    let mut config = node.config(json!({
        "masqAll": true, "backend": "iptables", "markMasqBit": 14, "ipMasq": true, "ipMasqBackend": "iptables",
    }));
    let plain = config.clone();
    config = with_ports(&config, json!([{ "hostPort": 8080, "containerPort": 80 }]));
    let server = Pod::new("server");
    let result = node.add(&server, &config).ok();
    let listener = server.namespace.run(|| TcpListener::bind("[::]:80").unwrap()).unwrap();
    let seen = |target: &str| {
        let target: SocketAddr = target.parse().unwrap();
        let _client = outside.run(|| TcpStream::connect_timeout(&target, LIMIT).unwrap()).unwrap();
        listener.accept().unwrap().1.ip().to_canonical().to_string()
    };
    assert_eq!([seen("192.0.2.1:8080"), seen("[2001:db8::1]:8080")], ["10.77.0.1", "fd77::1"]);
    let mut check = config.clone();
    check["prevResult"] = result;
    node.call("CHECK", &server, &check).ok();
    let nft = |words: &[&str]| {
        let run = || std::process::Command::new("nft").args(words).output().unwrap();
        assert!(node.namespace.run(run).unwrap().status.success(), "{words:?}");
    };
    nft(&["delete", "element", "ip", "sluice-cni", "host-ports-masq", "{ 10.77.0.2 }"]);
    let (code, msg) = node.call("CHECK", &server, &check).error();
    assert_eq!((code, msg.as_str()), (103, "host port 8080 of protocol 6 on 0.0.0.0 is not open"));
    // GC takes no port that is somebody's.
    node.gc(&plain, &["server"]).ok();
    assert_eq!(seen("192.0.2.1:8080"), "192.0.2.2");
    node.del(&server, &config).ok();
    node.namespace.run(|| assert!(host_port::list().unwrap().is_empty())).unwrap();

    let off = with_ports(&plain, json!([{ "hostPort": 8080, "containerPort": 80 }]));
    let mut off = off;
    off["snat"] = false.into();
    let again = Pod::new("again");
    node.add(&again, &off).ok();
    let ports = node.namespace.run(|| host_port::list().unwrap()).unwrap();
    assert!(ports.len() == 2 && ports.iter().all(|port| !port.masquerade), "{ports:?}");
}

/// Says hello to everybody who connects to port 80, as long as the test runs.
fn serve(pod: &Namespace) {
    let listener = pod.run(|| TcpListener::bind("[::]:80").unwrap()).unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.write_all(b"hello");
        }
    });
}

/// Whether somebody is answered at an address and a port. Who should be has more time for it.
fn is_answered(client: &Namespace, target: &str, should: bool) -> bool {
    let limit = if should { LIMIT } else { Duration::from_millis(300) };
    let target: SocketAddr = target.parse().unwrap();
    let connect = || {
        let mut stream = TcpStream::connect_timeout(&target, limit)?;
        stream.set_read_timeout(Some(LIMIT))?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map(|_| text)
    };
    client.run(connect).unwrap().is_ok_and(|text| text == "hello")
}

/// Chains of the packet filter, by name.
fn chains(node: &Node) -> Vec<String> {
    let run = || std::process::Command::new("nft").args(["-j", "list", "chains"]).output().unwrap();
    let json: Value = serde_json::from_slice(&node.namespace.run(run).unwrap().stdout).unwrap();
    let chains =
        json["nftables"].as_array().unwrap().iter().filter_map(|entry| entry["chain"]["name"].as_str());
    chains.filter(|name| name.starts_with("if-")).map(str::to_owned).collect()
}

/// A pod whose host ports not everybody may use, on a node with or without a datapath.
fn assert_conditions(node: &Node, plain: &Value) {
    let outside = node.outside();
    let mut config = with_ports(
        plain,
        json!([
            { "hostPort": 8080, "containerPort": 80 },
            { "hostPort": 8081, "containerPort": 80, "hostIP": "192.0.2.1" },
        ]),
    );
    let (server, other) = (Pod::new("server"), Pod::new("other"));
    node.add(&other, plain).ok();
    let host = owned::host_veth_name("server", "eth0");
    serve(&server.namespace);
    for (v4, v6, outside_may, pod_may) in [
        (json!(["-s", "192.0.2.0/30"]), json!(["-s", "2001:db8::2"]), true, false),
        (json!(["!", "-s", "192.0.2.2"]), json!(["ip6 saddr != { 2001:db8::2, fd00::1 }"]), false, true),
        (json!(["iifname", "\"wire\""]), json!(["-i", "wi+"]), true, false),
        (
            json!(["ip saddr {10.77.0.0/24, 192.0.2.7} ip daddr 192.0.2.1"]),
            json!(["!", "-i", "wire"]),
            false,
            true,
        ),
    ] {
        (config["conditionsV4"], config["conditionsV6"]) = (v4.clone(), v6.clone());
        let result = node.add(&server, &config).ok();
        for target in ["192.0.2.1:8080", "192.0.2.1:8081", "[2001:db8::1]:8080"] {
            assert_eq!(
                is_answered(&outside, target, outside_may),
                outside_may,
                "outside to {target}: {v4} {v6}"
            );
            assert_eq!(
                is_answered(&other.namespace, target, pod_may),
                pod_may,
                "a pod to {target}: {v4} {v6}"
            );
        }
        let mut check = config.clone();
        check["prevResult"] = result;
        node.call("CHECK", &server, &check).ok();
        assert!(!chains(node).is_empty());
        if v4 == json!(["-s", "192.0.2.0/30"]) {
            let close = || conditional::close(&mut PacketFilter::find().unwrap().unwrap(), &host).unwrap();
            node.namespace.run(close).unwrap();
            let (code, msg) = node.call("CHECK", &server, &check).error();
            assert_eq!((code, msg.as_str()), (103, "host port 8080 of protocol 6 on 0.0.0.0 is not open"));
        }
        node.del(&server, &config).ok();
        assert_eq!(chains(node), Vec::<String>::new());
    }

    // GC finds them, whoever is gone, and leaves those of others.
    node.add(&server, &config).ok();
    node.gc(plain, &["server", "other"]).ok();
    assert!(!chains(node).is_empty());
    node.gc(plain, &["other"]).ok();
    assert_eq!(chains(node), Vec::<String>::new());
    node.add(&server, &config).ok();
    let records = node.state_dir().join("cni");
    let boot = std::fs::read_dir(&records).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_file(boot.join("pods/attachments/server:eth0")).unwrap();
    node.gc(plain, &["other"]).ok();
    assert_eq!(chains(node), Vec::<String>::new());
}

#[test]
fn who_may_use_host_ports_can_be_said() {
    let node = Node::new();
    let plain = node.config(json!({}));
    assert_conditions(&node, &plain);
    let (code, msg) = node
        .add(&Pod::new("no"), &node.config(json!({ "conditionsV4": ["-m", "mark", "--mark", "1"] })))
        .error();
    assert_eq!(code, 2);
    assert!(
        msg.starts_with(r#"conditionsV4: ["-m", "mark", "--mark", "1"] is not supported: "-m""#),
        "{msg}"
    );
}

#[test]
fn who_may_use_host_ports_can_be_said_beside_a_datapath() {
    with_datapath(16, |node, config| {
        assert_conditions(node, config);
        let both = json!([{ "hostPort": 8080, "containerPort": 80 }]);
        let mut half = with_ports(config, both);
        half["conditionsV4"] = json!(["-s", "192.0.2.0/24"]);
        node.add(&Pod::new("half"), &half).ok();
        let found = host_ports(config);
        assert_eq!(found.len(), 1, "what everybody may use is the datapath's: {found:?}");
        assert_eq!(found[0].0[..16], [0; 16], "over IPv6");
        let marked = endpoints(config).iter().filter(|(_, value)| value[4] == 2).count();
        assert_eq!(marked, 2, "answers pass the packet filter, too, in both families");
    });
}
