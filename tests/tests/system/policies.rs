//! Traffic policies and session affinity, with real clients in both families.

use sluice_tests::cluster::{OUTSIDE, Options};
use sluice_tests::{Error, Result, wait_for};

use crate::paths::on_both_paths;
use crate::site::{LIMIT, NODE_PORTS, Site, WEB, bracketed, spread, url, web_service};

on_both_paths!(
    external_policy_local_keeps_the_clients_address,
    internal_policy_local_asks_this_nodes_endpoints,
    a_client_with_affinity_stays_until_its_endpoint_goes,
);

/// Waits until what answers is just this.
fn wait_only(site: &Site, host: &sluice_tests::bed::Host, url: &str, wanted: &str) -> Result<()> {
    wait_for(&format!("{wanted} alone behind {url}"), LIMIT, || {
        let spread = spread(host, url, 12)?;
        if spread.keys().eq([wanted]) { Ok(Some(())) } else { Err(Error::answer(url, format!("{spread:?}"))) }
    })
    .map_err(|error| site.with_logs(&error))
}

fn external_policy_local_keeps_the_clients_address(fast_path: bool) -> Result<()> {
    let site = Site::usual(fast_path)?;
    site.cluster.apply("web.yaml", &web_service("externalTrafficPolicy: Local\n"))?;
    let outside = site.cluster.outside();
    for (family, client) in OUTSIDE.iter().enumerate() {
        for (node, backend) in [(1, "web-0"), (2, "web-1")] {
            let address = bracketed(&site.cluster.node(node).addresses()[family]);
            wait_only(&site, outside, &format!("http://{address}:{}/", NODE_PORTS[0]), backend)?;
            for protocol in ["TCP", "UDP"] {
                let seen = outside.seen_as(protocol, &format!("{address}:{}", NODE_PORTS[1]))?;
                assert_eq!(&seen, client, "{protocol}, node {node}");
            }
            // Inside, any endpoint will do.
            site.wait_spread(site.client(), &url(WEB[family]), 2)?;
        }
    }
    Ok(())
}

fn internal_policy_local_asks_this_nodes_endpoints(fast_path: bool) -> Result<()> {
    let site = Site::usual(fast_path)?;
    site.cluster.apply("web.yaml", &web_service("internalTrafficPolicy: Local\n"))?;
    for address in WEB {
        wait_only(&site, site.client(), &url(address), "web-0")?;
        wait_only(&site, site.cluster.node(2).host(), &url(address), "web-1")?;
    }
    // Node ports are not inside.
    site.cluster.node(1).addresses().iter().try_for_each(|address| {
        let url = format!("http://{}:{}/", bracketed(address), NODE_PORTS[0]);
        site.wait_spread(site.cluster.outside(), &url, 2)
    })
}

fn a_client_with_affinity_stays_until_its_endpoint_goes(fast_path: bool) -> Result<()> {
    let options = Options { fast_path, ..Options::default() };
    let mut site = Site::new(&options, &[("client", 1), ("web-0", 1), ("web-1", 2), ("web-2", 2)])?;
    site.cluster.apply("web.yaml", &web_service("sessionAffinity: ClientIP\n"))?;
    for address in WEB {
        let stays = wait_for("one endpoint for one client", LIMIT, || {
            let spread = spread(site.client(), &url(address), 20)?;
            match &spread.keys().collect::<Vec<_>>()[..] {
                [only] => Ok(Some((*only).clone())),
                _ => Err(Error::answer(url(address), format!("{spread:?}"))),
            }
        })
        .map_err(|error| site.with_logs(&error))?;
        // A restart of the agent forgets nobody.
        site.cluster.node(1).kill_agent()?;
        site.cluster.node(1).start_agent()?;
        site.cluster.node(1).wait_ready()?;
        wait_only(&site, site.client(), &url(address), &stays)?;
    }
    let gone = spread(site.client(), &url(WEB[0]), 1)?.into_keys().next().unwrap_or_default();
    site.cluster.withdraw(&format!("{gone}.yaml"))?;
    let pod = site.take(&gone)?;
    pod.delete()?;
    wait_for("another endpoint", LIMIT, || {
        let spread = spread(site.client(), &url(WEB[0]), 20)?;
        let moved = spread.len() == 1 && !spread.contains_key(&gone);
        if moved { Ok(Some(())) } else { Err(Error::answer(url(WEB[0]), format!("{spread:?}"))) }
    })
    .map_err(|error| site.with_logs(&error))?;
    // Switched off, clients are free at once.
    site.cluster.apply("web.yaml", &web_service(""))?;
    WEB.iter().try_for_each(|address| site.wait_spread(site.client(), &url(address), 2))
}
