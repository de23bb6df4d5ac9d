//! What someone deletes at run time comes back with the next look at it (row 47 of the behaviour table).

use std::fs;

use sluice_proxy::{MapOp, MapStore, PinnedStore, Pins};
use sluice_tests::cluster::Options;
use sluice_tests::{Error, Result};

use crate::paths::on_both_paths;
use crate::site::{NODE_PORTS, Site, WEB, bracketed, url};

on_both_paths!(links_maps_programs_devices_and_routes_come_back);

/// Everything still works from everywhere, or does again.
fn all_is_well(site: &Site) -> Result<()> {
    for (family, address) in WEB.into_iter().enumerate() {
        let node = bracketed(&site.cluster.node(1).addresses()[family]);
        let node_port = format!("http://{node}:{}/", NODE_PORTS[0]);
        for (host, target) in [
            (site.client(), url(address)),
            (site.cluster.node(1).host(), url(address)),
            (site.cluster.outside(), node_port),
        ] {
            // A connection that was begun before the repair may wait for seconds until it is tried anew.
            site.wait_spread(host, &target, 2).or_else(|_| site.wait_spread(host, &target, 2))?;
        }
    }
    Ok(())
}

fn remove(path: &std::path::Path) -> Result<()> {
    let done = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    done.map_err(Error::file("remove", path))
}

fn links_maps_programs_devices_and_routes_come_back(fast_path: bool) -> Result<()> {
    let options = Options { fast_path, agent: "resyncPeriod: 1s\n".into(), ..Options::default() };
    let site = Site::new(&options, &[("client", 1), ("web-0", 1), ("web-1", 2)])?;
    all_is_well(&site)?;
    let node = site.cluster.node(1);
    let pins = Pins::new(&node.bpffs());

    // Links: with its pin a program leaves its device.
    for entry in fs::read_dir(pins.root().join("links")).map_err(Error::file("read", pins.root()))? {
        remove(&entry.map_err(Error::file("read", pins.root()))?.path())?;
    }
    all_is_well(&site)?;

    // Entries of maps: every frontend, every slot, and services of which nobody knows.
    let failed = |error: sluice_proxy::StoreError| Error::answer("the services' maps", error);
    let mut store = PinnedStore::open(&pins).map_err(|error| Error::answer("the services' maps", error))?;
    let held = store.dump().map_err(failed)?;
    assert!(!held.frontends.is_empty() && !held.slots.is_empty());
    for key in held.frontends.keys() {
        store.apply(&MapOp::RemoveFrontend { key: *key }).map_err(failed)?;
    }
    for key in held.slots.keys() {
        store.apply(&MapOp::RemoveSlot { key: *key }).map_err(failed)?;
    }
    all_is_well(&site)?;
    for id in held.backends.keys() {
        store.apply(&MapOp::RemoveBackend { id: *id }).map_err(failed)?;
    }
    for id in held.services.keys() {
        store.apply(&MapOp::RemoveService { id: *id }).map_err(failed)?;
    }
    all_is_well(&site)?;

    // The service device, its routes, its state.
    node.host().ip("link set sluice-svc down\n")?;
    all_is_well(&site)?;
    node.host().ip("link delete sluice-svc\n")?;
    all_is_well(&site)?;
    for cidr in sluice_tests::cluster::SERVICE_CIDRS {
        node.host().ip(&format!("route delete {cidr}\n"))?;
    }
    all_is_well(&site)?;

    // Everything that is pinned.
    remove(pins.root())?;
    all_is_well(&site)
}
