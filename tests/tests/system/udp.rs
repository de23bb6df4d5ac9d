//! UDP flows outlive their backend: the next datagram goes to one that is there (row 27 of the behaviour table), from
//! wherever it comes.

use sluice_tests::bed::Host;
use sluice_tests::{Error, Result, wait_for};

use crate::paths::on_both_paths;
use crate::site::{LIMIT, NODE_PORTS, Site, WEB, bracketed, web_service};
use crate::slices::{State, WEB_PORTS, slices};

on_both_paths!(
    a_flow_moves_on_when_its_backend_goes,
    a_flow_follows_its_service_to_another_port,
    a_flow_under_policy_local_moves_on_on_its_node,
);

/// Who asks, and where: pods and nodes at the cluster address, all at node ports.
fn askers(site: &Site, family: usize) -> Vec<(&Host, String)> {
    let cluster = format!("{}:70", bracketed(WEB[family]));
    let node = format!("{}:{}", bracketed(&site.cluster.node(1).addresses()[family]), NODE_PORTS[0]);
    vec![
        (site.client(), cluster.clone()),
        (site.cluster.node(1).host(), cluster),
        (site.client(), node.clone()),
        (site.cluster.outside(), node),
    ]
}

/// Waits until the flow from port 5555 is answered by this one.
fn wait_answer(site: &Site, host: &Host, target: &str, wanted: &str) -> Result<()> {
    wait_for(&format!("{wanted} for {} at {target}", host.name()), LIMIT, || {
        let answer = host.ask_udp(target, 5555)?;
        if answer == wanted { Ok(Some(())) } else { Err(Error::answer(target, answer)) }
    })
    .map_err(|error| site.with_logs(&error))
}

fn set(site: &Site, pod: &str) -> Result<()> {
    site.cluster.apply("slices.yaml", &slices("web", &WEB_PORTS, &[site.end(pod, State::Ready)]))
}

fn a_flow_moves_on_when_its_backend_goes(fast_path: bool) -> Result<()> {
    let site = Site::usual(fast_path)?;
    for family in 0..2 {
        for pod in ["web-0", "web-1", "web-0"] {
            set(&site, pod)?;
            for (host, target) in askers(&site, family) {
                wait_answer(&site, host, &target, pod)?;
                assert_eq!(host.ask_udp(&target, 5555)?, pod, "a flow stays with its backend");
            }
        }
    }
    Ok(())
}

fn a_flow_follows_its_service_to_another_port(fast_path: bool) -> Result<()> {
    let mut site = Site::usual(fast_path)?;
    let pod = site.take("web-0")?;
    site.servers.udp(pod.host(), 71, "the other port")?;
    for family in 0..2 {
        site.cluster.apply("web.yaml", &web_service(""))?;
        let addresses = [pod.addresses()[0].to_string(), pod.addresses()[1].to_string()];
        let end = || crate::slices::End {
            addresses: addresses.clone(),
            node: site.cluster.node(1).name().to_owned(),
            state: State::Ready,
        };
        for (port, answer) in [(70, "web-0"), (71, "the other port")] {
            site.cluster.apply("slices.yaml", &slices("web", &[("udp", "UDP", port)], &[end()]))?;
            for (host, target) in askers(&site, family) {
                wait_answer(&site, host, &target, answer)?;
            }
        }
    }
    Ok(())
}

fn a_flow_under_policy_local_moves_on_on_its_node(fast_path: bool) -> Result<()> {
    let mut site = Site::usual(fast_path)?;
    site.add("web-2", 1)?;
    site.cluster.apply("web.yaml", &web_service("internalTrafficPolicy: Local\n"))?;
    for address in WEB {
        let target = format!("{}:70", bracketed(address));
        for pod in ["web-0", "web-2", "web-0"] {
            let ends = [site.end(pod, State::Ready), site.end("web-1", State::Ready)];
            site.cluster.apply("slices.yaml", &slices("web", &WEB_PORTS, &ends))?;
            for host in [site.client(), site.cluster.node(1).host()] {
                // A flow of before the policy would stay where it went, as long as that endpoint serves.
                wait_for(&format!("{pod} alone for {}", host.name()), LIMIT, || {
                    let answers = (0..6).map(|_| host.ask_udp(&target, 0)).collect::<Result<Vec<_>>>()?;
                    let alone = answers.iter().all(|answer| answer == pod);
                    if alone { Ok(Some(())) } else { Err(Error::answer(&target, answers.join(" "))) }
                })
                .map_err(|error| site.with_logs(&error))?;
                wait_answer(&site, host, &target, pod)?;
            }
        }
    }
    Ok(())
}
