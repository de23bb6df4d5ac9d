//! Datagrams in pieces, ways with room for less, and errors on the way (row 34 of the behaviour table).

use sluice_tests::bed::{Host, Servers};
use sluice_tests::{Error, Result, wait_for};

use crate::paths::on_both_paths;
use crate::site::{LIMIT, Site, beside_web, bracketed};

on_both_paths!(
    datagrams_in_pieces_reach_a_service_and_come_back,
    a_narrow_way_to_a_backend_is_found_out,
    a_route_can_be_traced_through_a_service,
);

const ECHO: [&str; 2] = ["10.96.0.41", "fd00:96::41"];
const PORT: u16 = 92;
const NODE_PORT: u16 = 30092;
/// Where `traceroute` sends its first probes.
const TRACED: u16 = 33434;

/// The usual site, with echoes behind a service.
fn echoes(fast_path: bool) -> Result<(Site, Servers)> {
    let site = Site::usual(fast_path)?;
    let mut echoes = Servers::new();
    for pod in ["web-0", "web-1"] {
        echoes.echo(site.pod(pod).host(), PORT)?;
    }
    let ports = format!(
        "[{{name: tcp, port: {PORT}, nodePort: {NODE_PORT}}}, {{name: udp, port: {PORT}, protocol: UDP, nodePort: {NODE_PORT}}}]"
    );
    site.cluster.apply("echo.yaml", &beside_web("echo", ECHO, &ports))?;
    for address in ECHO {
        let target = format!("{}:{PORT}", bracketed(address));
        wait_for("the echoes", LIMIT, || {
            Ok((site.client().echoed(&target, 10).ok().as_deref() == Some("10")).then_some(()))
        })
        .map_err(|error| site.with_logs(&error))?;
    }
    Ok((site, echoes))
}

fn datagrams_in_pieces_reach_a_service_and_come_back(fast_path: bool) -> Result<()> {
    let (site, _echoes) = echoes(fast_path)?;
    for (family, address) in ECHO.into_iter().enumerate() {
        let cluster = format!("{}:{PORT}", bracketed(address));
        let node = format!("{}:{NODE_PORT}", bracketed(&site.cluster.node(1).addresses()[family]));
        let hosts: [(&Host, &str); 4] = [
            (site.client(), &cluster),
            (site.cluster.node(1).host(), &cluster),
            (site.client(), &node),
            (site.cluster.outside(), &node),
        ];
        for (host, target) in hosts {
            // Enough tries to meet both backends: on this node and on the other.
            for size in [1_400, 1_480, 3_000, 9_000, 20_000, 40_000, 60_000, 3_001] {
                let length = host.echoed(target, size);
                let length = length.map_err(|error| site.with_logs(&error))?;
                assert_eq!(length, size.to_string(), "{} to {target}", host.name());
            }
        }
    }
    Ok(())
}

fn a_narrow_way_to_a_backend_is_found_out(fast_path: bool) -> Result<()> {
    let (mut site, _echoes) = echoes(fast_path)?;
    // Only the backend on the other node is left; on the way there, and back, there is room for 1300 bytes.
    site.cluster.withdraw("web-0.yaml")?;
    let gone = site.take("web-0")?;
    gone.delete()?;
    for node in [1, 2] {
        site.cluster.node(node).host().ip("link set eth0 mtu 1300\n")?;
    }
    for address in ECHO {
        let target = format!("TCP:{}:{PORT}", bracketed(address));
        let ask = format!("head -c 3000000 /dev/zero | socat -t 5 - {target} | wc -c");
        for host in [site.client(), site.cluster.node(1).host()] {
            wait_for(&format!("three million bytes there and back at {}", host.name()), LIMIT, || {
                let said = host.run("timeout", &["8", "sh", "-c", &ask])?;
                if said.stdout.trim() == "3000000" {
                    Ok(Some(()))
                } else {
                    Err(Error::answer(&ask, format!("{said:?}")))
                }
            })
            .map_err(|error| site.with_logs(&error))?;
        }
        // A datagram that does not fit is cut into pieces once its sender has learned of the way.
        let target = format!("{}:{PORT}", bracketed(address));
        wait_for("a datagram on the narrow way", LIMIT, || {
            Ok((site.client().echoed(&target, 1_450)? == "1450").then_some(()))
        })
        .map_err(|error| site.with_logs(&error))?;
    }
    Ok(())
}

fn a_route_can_be_traced_through_a_service(fast_path: bool) -> Result<()> {
    let site = Site::usual(fast_path)?;
    site.cluster.withdraw("web-0.yaml")?;
    let number = |index: u16| TRACED + index;
    let ports: Vec<_> =
        (0..8).map(|index| format!("{{name: p{index}, port: {}, protocol: UDP}}", number(index))).collect();
    site.cluster.apply("traced.yaml", &beside_web("traced", ECHO, &format!("[{}]", ports.join(", "))))?;
    site.wait_spread(site.client(), &crate::site::url(crate::site::WEB[0]), 1)?;
    for (family, program) in ["traceroute", "traceroute6"].into_iter().enumerate() {
        let first = TRACED.to_string();
        let arguments = [program, "-n", "-q", "1", "-w", "1", "-m", "4", "-p", &first, ECHO[family]];
        let (hop, end) = (site.cluster.node(2).addresses()[family].clone(), ECHO[family]);
        wait_for("the trace", LIMIT, || {
            let said = site.client().run("busybox", &arguments)?;
            let hops: Vec<Vec<&str>> =
                said.stdout.lines().map(|line| line.split_whitespace().collect()).collect();
            let has = |number: &str, host: &str| hops.iter().any(|hop| hop.starts_with(&[number, host]));
            // The first hop is the client's own node, by whichever of its addresses.
            let first_answers = hops.iter().any(|hop| hop.first() == Some(&"1")) && !has("1", "*");
            if first_answers && has("2", &hop) && has("3", end) {
                Ok(Some(()))
            } else {
                Err(Error::answer(program, format!("{said:?}")))
            }
        })
        .map_err(|error| site.with_logs(&error))?;
    }
    Ok(())
}
