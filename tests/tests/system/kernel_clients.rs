//! Clients that are no process: the kernel's own sockets, as those of a network file system (row 35 of the behaviour
//! table). The one that every kernel has is a VXLAN device: it sends and receives datagrams by itself. Here its other end is
//! a service's address.

use sluice_tests::bed::{Host, Servers};
use sluice_tests::cluster::Options;
use sluice_tests::{Error, Result, wait_for};

use crate::paths::on_both_paths;
use crate::site::{LIMIT, Site, beside_web};

on_both_paths!(a_device_whose_other_end_is_a_service_reaches_a_pod_and_hears_from_it);

/// The services, each over one pod: on the first node, and on the second.
const SERVICES: [(&str, [&str; 2], usize); 2] =
    [("near", ["10.96.0.61", "fd00:96::61"], 1), ("far", ["10.96.0.62", "fd00:96::62"], 2)];

fn a_device_whose_other_end_is_a_service_reaches_a_pod_and_hears_from_it(fast_path: bool) -> Result<()> {
    let options = Options { fast_path, ..Options::default() };
    let mut site = Site::new(&options, &[("client", 1)])?;
    for (name, addresses, node) in SERVICES {
        let text = beside_web(name, addresses, "[{name: tunnel, port: 4789, protocol: UDP}]");
        site.cluster
            .apply(&format!("{name}.yaml"), &text.replace("{app: web}", &format!("{{app: {name}}}")))?;
        site.add(&format!("{name}-0"), node)?;
    }
    let mut servers = Servers::new();
    let node = site.cluster.node(1);
    for host in [site.client(), node.host(), site.pod("near-0").host(), site.pod("far-0").host()] {
        servers.http(host, 8081, host.name())?;
    }
    let mut number = 0;
    for (name, services, _) in SERVICES {
        let server = site.pod(&format!("{name}-0"));
        for (family, service) in services.iter().enumerate() {
            let inside = server.addresses()[family].to_string();
            let pod = (site.client(), site.pod("client").addresses()[family].to_string());
            for (client, own) in [pod, (node.host(), node.addresses()[family].clone())] {
                number += 1;
                device(client, number, 1, &format!("local {own} remote {service}"))?;
                // It learns who is where from what it hears.
                device(server.host(), number, 2, &format!("local {inside}"))?;
                let what = format!("{name}, network {number}");
                answers(client, number, 2, server.name()).map_err(|error| site.with_logs(&error))?;
                answers(server.host(), number, 1, client.name()).map_err(|error| site.with_logs(&error))?;
                // The answers come from the service: the device takes its address for that of the other end.
                let entries = client.succeed("bridge", &["fdb", "show", "dev", &format!("vx{number}")])?;
                let ends: Vec<_> =
                    entries.lines().filter(|line| line.contains(&format!("dst {service} "))).collect();
                assert!(ends.len() >= 2, "{what}: {entries}");
                assert!(!entries.contains(&inside), "{what}: {entries}");
            }
        }
    }
    Ok(())
}

/// A device of a network of its own. It sends from one port, so that what answers it is an answer.
fn device(host: &Host, number: u8, end: u8, ends: &str) -> Result<()> {
    host.ip(&format!(
        "link add vx{number} type vxlan id {number} dstport 4789 srcport 4789 4790 {ends}\n\
         address add 172.16.{number}.{end}/24 dev vx{number}\nlink set vx{number} mtu 1300 up\n"
    ))?;
    Ok(())
}

/// The other end's server answers through the network between the devices.
fn answers(host: &Host, number: u8, end: u8, wanted: &str) -> Result<()> {
    let url = format!("http://172.16.{number}.{end}:8081/");
    wait_for(&format!("{wanted} at {url}"), LIMIT, || {
        let answer = host.curl(&url)?;
        if answer.trim() == wanted { Ok(Some(())) } else { Err(Error::answer(&url, answer)) }
    })
}
