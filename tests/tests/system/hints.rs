//! Endpoints for nodes and zones: `trafficDistribution`, as the hints of slices say (row 24 of the behaviour table).

use std::collections::BTreeSet;

use sluice_tests::cluster::{Options, node_manifest};
use sluice_tests::{Error, Result, wait_for};

use crate::paths::on_both_paths;
use crate::site::{LIMIT, NODE_PORTS, Site, WEB, bracketed, spread, url};
use crate::slices::{State, WEB_PORTS, slices};

on_both_paths!(traffic_stays_in_its_zone_or_on_its_node_where_hints_say_so);

/// Nodes 1 and 2 are in zone a, node 3 in zone b.
const ZONES: [&str; 3] = ["a", "a", "b"];
const PODS: [&str; 3] = ["web-0", "web-1", "web-2"];

/// Puts the nodes into zones.
fn zone(site: &Site, zones: &[&str]) -> Result<()> {
    let nodes = site.cluster.nodes().iter().zip(zones).map(|(node, zone)| {
        let text = node_manifest(node.name(), &node.addresses(), &node.pod_cidrs());
        text.replace("labels: {", &format!("labels: {{topology.kubernetes.io/zone: {zone}, "))
    });
    let namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: default}\n---\n";
    site.cluster.apply("cluster.yaml", &(namespace.to_owned() + &nodes.collect::<String>()))
}

/// Slices in which each pod has these hints.
fn hint(site: &Site, states: &[State], hints: [&str; 3]) -> Result<()> {
    let ends: Vec<_> = PODS.iter().zip(states).map(|(pod, state)| site.end(pod, *state)).collect();
    let mut text = slices("web", &WEB_PORTS, &ends);
    for (pod, hint) in PODS.iter().zip(hints).filter(|(_, hint)| !hint.is_empty()) {
        for address in site.pod(pod).addresses() {
            let endpoint = format!("- addresses: ['{address}']\n");
            text = text.replace(&endpoint, &format!("{endpoint}  hints: {{{hint}}}\n"));
        }
    }
    site.cluster.apply("slices.yaml", &text)
}

/// Waits until the clients of each node meet just these.
fn wait_each(site: &Site, wanted: [&[&str]; 3], what: &str) -> Result<()> {
    for (family, address) in WEB.into_iter().enumerate() {
        for (node, wanted) in site.cluster.nodes().iter().zip(wanted) {
            let client = site.pod(&format!("client-{}", &node.name()[4..])).host();
            let ports = format!("http://{}:{}/", bracketed(&node.addresses()[family]), NODE_PORTS[0]);
            let targets =
                [(client, url(address)), (node.host(), url(address)), (site.cluster.outside(), ports)];
            for (host, target) in targets {
                wait_for(&format!("{what}: {wanted:?} for {} at {target}", host.name()), LIMIT, || {
                    let met: BTreeSet<String> = spread(host, &target, 24)?.into_keys().collect();
                    if met.iter().eq(wanted) {
                        Ok(Some(()))
                    } else {
                        Err(Error::answer(&target, format!("{met:?}")))
                    }
                })
                .map_err(|error| site.with_logs(&error))?;
            }
        }
    }
    Ok(())
}

fn traffic_stays_in_its_zone_or_on_its_node_where_hints_say_so(fast_path: bool) -> Result<()> {
    let options = Options { nodes: 3, fast_path, ..Options::default() };
    let pods = [("client-1", 1), ("client-2", 2), ("client-3", 3), ("web-0", 1), ("web-1", 2), ("web-2", 3)];
    let site = Site::new(&options, &pods)?;
    zone(&site, &ZONES)?;
    let ready = [State::Ready; 3];
    let for_zone = |zone: &str| format!("forZones: [{{name: {zone}}}]");
    let (a, b) = (for_zone("a"), for_zone("b"));
    hint(&site, &ready, [&a, &a, &b])?;
    wait_each(&site, [&["web-0", "web-1"], &["web-0", "web-1"], &["web-2"]], "PreferSameZone")?;

    // One endpoint without a hint, and hints count for nobody.
    hint(&site, &ready, [&a, &a, ""])?;
    wait_each(&site, [&PODS, &PODS, &PODS], "an endpoint without a hint")?;

    // A zone that no hint names gets all; so does one whose endpoint is not ready.
    hint(&site, &[State::Ready, State::Ready, State::NotReady], [&a, &a, &b])?;
    let both: &[&str] = &["web-0", "web-1"];
    wait_each(&site, [both, both, both], "a zone without endpoints")?;

    // Hints for nodes go before those for zones, but only for nodes that have one.
    let nodes = site.cluster.nodes();
    let with_node =
        |index: usize, zone: &str| format!("forNodes: [{{name: {}}}], {zone}", nodes[index].name());
    hint(&site, &ready, [&with_node(0, &a), &with_node(1, &a), &with_node(2, &b)])?;
    wait_each(&site, [&["web-0"], &["web-1"], &["web-2"]], "PreferSameNode")?;
    hint(
        &site,
        &[State::NotReady, State::Ready, State::Ready],
        [&with_node(0, &a), &with_node(1, &a), &with_node(2, &b)],
    )?;
    wait_each(&site, [&["web-1"], &["web-1"], &["web-2"]], "the zone where the node has none")?;

    // A node that moves meets the endpoints of its new zone.
    hint(&site, &ready, [&a, &a, &b])?;
    zone(&site, &["a", "b", "b"])?;
    wait_each(&site, [&["web-0", "web-1"], &["web-2"], &["web-2"]], "a node in another zone")
}
