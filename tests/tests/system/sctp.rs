//! SCTP between real sockets. On a kernel that has none, that it says so; `cargo xtask kernels` runs the rest on one that
//! does. Single packets are in `bpf_ports.rs`, for every kernel.

use serde_json::json;
use sluice_tests::bed::{Host, Servers};
use sluice_tests::cluster::{OUTSIDE, Options};
use sluice_tests::{Cluster, Result, Testbed, wait_for};

use crate::site::{LIMIT, Site, beside_web, bracketed};

/// The service's addresses and ports.
const TALK: [&str; 2] = ["10.96.0.40", "fd00:96::40"];
const NODE_PORT: u16 = 30091;

/// Whether the kernel has SCTP sockets. That it has none may only be where nothing else is promised.
fn known() -> Result<bool> {
    let bed = Testbed::new()?;
    let host = bed.host("probe")?;
    let asked = host.run("socat", &["-u", "OPEN:/dev/null", "SCTP:127.0.0.1:9"])?;
    let known = !asked.stderr.contains("Protocol not supported");
    let whole = std::env::var_os("SLUICE_TEST_WHOLE").is_some();
    assert!(known || !whole, "SLUICE_TEST_WHOLE is set, and this kernel has no SCTP: {asked:?}");
    Ok(known)
}

/// How much comes over an association.
fn received(client: &Host, target: &str) -> Result<usize> {
    let association = format!("SCTP:{target},connect-timeout=5");
    Ok(client.succeed("socat", &["-T", "5", "-u", &association, "-"])?.len())
}

#[test]
fn a_service_is_reached_over_sctp() -> Result<()> {
    if !known()? {
        return Ok(());
    }
    let site = Site::usual(true)?;
    let mut servers = Servers::new();
    let ports = format!(
        "[{{name: who, port: 9, targetPort: 91, protocol: SCTP, nodePort: {NODE_PORT}}}, \
         {{name: long, port: 10, targetPort: 92, protocol: SCTP}}]"
    );
    for web in ["web-0", "web-1"] {
        servers.sctp(site.pod(web).host(), 91)?;
    }
    site.cluster.apply("talk.yaml", &beside_web("talk", TALK, &ports))?;
    let [one, two] = [1, 2].map(|number| site.cluster.node(number));
    for (family, address) in TALK.iter().map(|address| bracketed(address)).enumerate() {
        let target = format!("{address}:9");
        wait_for("the service", LIMIT, || Ok(site.client().seen_as("SCTP", &target).ok()))?;
        let own = site.pod("client").addresses()[family].to_string();
        // Often enough for both backends: one on this node, one on the other.
        for _ in 0..8 {
            assert_eq!(site.client().seen_as("SCTP", &target)?, own, "{target}");
            assert_eq!(received(site.client(), &format!("{address}:10"))?, Servers::LONG);
            one.host().seen_as("SCTP", &target)?;
        }
        for node in [one, two] {
            let target = format!("{}:{NODE_PORT}", bracketed(&node.addresses()[family]));
            for client in [site.cluster.outside(), two.host(), site.client()] {
                for _ in 0..4 {
                    client.seen_as("SCTP", &target)?;
                }
            }
        }
    }
    Ok(())
}

#[test]
fn a_host_port_and_the_way_out_carry_sctp() -> Result<()> {
    if !known()? {
        return Ok(());
    }
    let cluster = Cluster::new(&Options::default())?;
    let [one, two] = [1, 2].map(|number| cluster.node(number));
    let mut servers = Servers::new();
    let mapping = json!({ "hostPort": 18091, "containerPort": 91, "protocol": "SCTP" });
    let pod = one.pod_that_wants("talk", json!({ "portMappings": [mapping] }))?;
    let near = one.pod("near")?;
    servers.sctp(pod.host(), 91)?;
    servers.sctp(cluster.outside(), 91)?;
    for (family, outside) in OUTSIDE.into_iter().enumerate() {
        let target = format!("{}:18091", bracketed(&one.addresses()[family]));
        assert_eq!(cluster.outside().seen_as("SCTP", &target)?, outside, "clients keep their address");
        for client in [two.host(), one.host(), near.host(), pod.host()] {
            client.seen_as("SCTP", &target)?;
        }
        let target = bracketed(outside);
        let seen = near.host().seen_as("SCTP", &format!("{target}:91"))?;
        assert_eq!(seen, one.addresses()[family], "a pod leaves under its node's address");
        assert_eq!(received(near.host(), &format!("{target}:92"))?, Servers::LONG);
    }
    Ok(())
}

#[test]
fn without_an_agent_the_packet_filter_carries_sctp() -> Result<()> {
    if !known()? {
        return Ok(());
    }
    let bed = Testbed::new()?;
    let cluster = Cluster::without_agents(&bed, &Options { nodes: 1, ..Options::default() })?;
    let node = cluster.node(1);
    let [pods4, pods6] = node.pod_cidrs();
    let description = json!({ "podCIDRs": [pods4, pods6], "mtu": 1500, "bpffs": node.bpffs() });
    std::fs::write(node.state().join("node.json"), description.to_string()).unwrap();
    let mut servers = Servers::new();
    let mapping = json!({ "hostPort": 18091, "containerPort": 91, "protocol": "SCTP" });
    let pod = node.pod_that_wants("talk", json!({ "portMappings": [mapping] }))?;
    servers.sctp(pod.host(), 91)?;
    for (family, outside) in OUTSIDE.into_iter().enumerate() {
        let target = format!("{}:18091", bracketed(&node.addresses()[family]));
        assert_eq!(cluster.outside().seen_as("SCTP", &target)?, outside);
        node.host().seen_as("SCTP", &target)?;
    }
    Ok(())
}
