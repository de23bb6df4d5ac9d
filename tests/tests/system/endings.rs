//! Endpoints that end, and services that have none (rows 18 to 22 of the behaviour table).

use sluice_tests::bed::Host;
use sluice_tests::cluster::OUTSIDE;
use sluice_tests::{Error, Result, wait_for};

use crate::paths::on_both_paths;
use crate::site::{LIMIT, NODE_PORTS, Site, WEB, bracketed, spread, url, web_service};
use crate::slices::{State, WEB_PORTS, slices};

on_both_paths!(
    endpoints_that_terminate_serve_only_while_there_is_no_other,
    a_nodes_own_endpoints_are_judged_by_themselves,
    traffic_that_must_stay_on_a_node_without_endpoints_is_dropped,
    a_service_without_endpoints_refuses_at_all_its_addresses,
);

/// Puts slices in the place of those that follow from the pods.
fn set(site: &Site, states: &[(&str, State)]) -> Result<()> {
    let ends: Vec<_> = states.iter().map(|(pod, state)| site.end(pod, *state)).collect();
    site.cluster.apply("slices.yaml", &slices("web", &WEB_PORTS, &ends))
}

/// Waits until just these answer.
fn wait_just(site: &Site, host: &Host, url: &str, wanted: &[&str]) -> Result<()> {
    wait_for(&format!("just {wanted:?} behind {url}"), LIMIT, || {
        let spread = spread(host, url, 12)?;
        if spread.keys().eq(wanted) { Ok(Some(())) } else { Err(Error::answer(url, format!("{spread:?}"))) }
    })
    .map_err(|error| site.with_logs(&error))
}

/// Waits until curl ends like this: 7 is a refusal, 28 silence.
fn wait_code(site: &Site, host: &Host, url: &str, wanted: i32) -> Result<()> {
    wait_for(&format!("{wanted} from {url} at {}", host.name()), LIMIT, || {
        let output = host.run("curl", &["-sS", "--noproxy", "*", "-m", "1", url])?;
        if output.code == Some(wanted) {
            Ok(Some(()))
        } else {
            Err(Error::answer(url, format!("{output:?}")))
        }
    })
    .map_err(|error| site.with_logs(&error))
}

fn node_url(site: &Site, node: usize, family: usize) -> String {
    format!("http://{}:{}/", bracketed(&site.cluster.node(node).addresses()[family]), NODE_PORTS[0])
}

fn endpoints_that_terminate_serve_only_while_there_is_no_other(fast_path: bool) -> Result<()> {
    let site = Site::usual(fast_path)?;
    set(&site, &[("web-0", State::Terminating), ("web-1", State::Ready)])?;
    for address in WEB {
        wait_just(&site, site.client(), &url(address), &["web-1"])?;
    }
    set(&site, &[("web-0", State::Terminating), ("web-1", State::Gone)])?;
    for (family, address) in WEB.into_iter().enumerate() {
        wait_just(&site, site.client(), &url(address), &["web-0"])?;
        wait_just(&site, site.cluster.node(2).host(), &url(address), &["web-0"])?;
        wait_just(&site, site.cluster.outside(), &node_url(&site, 2, family), &["web-0"])?;
    }
    set(&site, &[("web-0", State::Gone), ("web-1", State::NotReady)])?;
    for address in WEB {
        wait_code(&site, site.client(), &url(address), 7)?;
    }
    Ok(())
}

fn a_nodes_own_endpoints_are_judged_by_themselves(fast_path: bool) -> Result<()> {
    let site = Site::usual(fast_path)?;
    site.cluster
        .apply("web.yaml", &web_service("externalTrafficPolicy: Local\ninternalTrafficPolicy: Local\n"))?;
    // There is a ready endpoint elsewhere, which changes nothing for this node.
    set(&site, &[("web-0", State::Terminating), ("web-1", State::Ready)])?;
    for (family, address) in WEB.into_iter().enumerate() {
        wait_just(&site, site.cluster.outside(), &node_url(&site, 1, family), &["web-0"])?;
        wait_just(&site, site.cluster.outside(), &node_url(&site, 2, family), &["web-1"])?;
        wait_just(&site, site.client(), &url(address), &["web-0"])?;
        let who = format!("{}:{}", bracketed(&site.cluster.node(1).addresses()[family]), NODE_PORTS[1]);
        assert_eq!(site.cluster.outside().seen_as("TCP", &who)?, OUTSIDE[family]);
    }
    Ok(())
}

fn traffic_that_must_stay_on_a_node_without_endpoints_is_dropped(fast_path: bool) -> Result<()> {
    let site = Site::usual(fast_path)?;
    site.cluster.apply("web.yaml", &web_service("externalTrafficPolicy: Local\n"))?;
    set(&site, &[("web-1", State::Ready)])?;
    for (family, address) in WEB.into_iter().enumerate() {
        wait_code(&site, site.cluster.outside(), &node_url(&site, 1, family), 28)?;
        // Whoever is on the node already is led elsewhere.
        wait_just(&site, site.client(), &node_url(&site, 1, family), &["web-1"])?;
        wait_just(&site, site.cluster.node(1).host(), &node_url(&site, 1, family), &["web-1"])?;
        wait_just(&site, site.client(), &url(address), &["web-1"])?;
    }
    site.cluster.apply("web.yaml", &web_service("internalTrafficPolicy: Local\n"))?;
    for (family, address) in WEB.into_iter().enumerate() {
        wait_code(&site, site.client(), &url(address), 28)?;
        wait_code(&site, site.cluster.node(1).host(), &url(address), 28)?;
        wait_just(&site, site.cluster.node(2).host(), &url(address), &["web-1"])?;
        wait_just(&site, site.cluster.outside(), &node_url(&site, 1, family), &["web-1"])?;
    }
    Ok(())
}

fn a_service_without_endpoints_refuses_at_all_its_addresses(fast_path: bool) -> Result<()> {
    let site = Site::usual(fast_path)?;
    set(&site, &[("web-0", State::NotReady)])?;
    for (family, address) in WEB.into_iter().enumerate() {
        for host in [site.client(), site.cluster.node(1).host()] {
            wait_code(&site, host, &url(address), 7)?;
            wait_code(&site, host, &node_url(&site, 1, family), 7)?;
        }
        wait_code(&site, site.cluster.outside(), &node_url(&site, 1, family), 7)?;
        // A datagram is refused as well: the error comes at once, not after a time-out.
        let port = format!("{}:{}", bracketed(&site.cluster.node(1).addresses()[family]), NODE_PORTS[0]);
        for target in [format!("{}:70", bracketed(address)), port] {
            let sent = site.client().run("sh", &["-c", &format!("echo ask | socat -T 3 - UDP:{target}")])?;
            assert!(sent.stderr.contains("refused"), "{target}: {sent:?}");
        }
    }
    Ok(())
}
