//! Removes what the agent has made on this node. What pods hold stays: their devices and addresses are the
//! plugin's.

use std::{fs, io, path::PathBuf};

use sluice_cni::node::FILE;
use sluice_ebpf_common::SERVICE_DEVICE;
use sluice_netlink::{Netlink, RouteFilter, masquerade};
use sluice_proxy::Pins;
use tracing::{info, warn};

use crate::{
    config::Config,
    conflist::{self, ConflistError},
    lock::{self, LockError},
    names,
    routes::OVERLAY_DEVICES,
};

/// Something that cannot be removed.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// The agent runs.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A device or a route.
    #[error(transparent)]
    Netlink(#[from] sluice_netlink::Error),
    /// A program on a device.
    #[error(transparent)]
    Datapath(#[from] sluice_proxy::DatapathError),
    /// The container runtime's configuration.
    #[error(transparent)]
    Conflist(#[from] ConflistError),
    /// A file or a folder.
    #[error("cannot remove {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Removes everything that can be removed, and says what could not be.
pub fn cleanup(config: &Config) -> Vec<CleanupError> {
    let _lock = match lock::lock(&config.state_dir) {
        Ok(lock) => lock,
        Err(error) => return vec![error.into()],
    };
    // Routes first: service addresses must not lead to a device without programs.
    let steps: [&dyn Fn(&Config) -> Result<(), CleanupError>; 8] = [
        &remove_conflist,
        &remove_routes,
        &remove_overlay,
        &remove_filters,
        &remove_pins,
        &remove_service_device,
        &remove_bridge,
        &remove_files,
    ];
    steps.iter().filter_map(|step| step(config).err()).collect()
}

/// First, so that the runtime sends no more pods.
fn remove_conflist(config: &Config) -> Result<(), CleanupError> {
    let Some(folder) = &config.cni_conf_dir else { return Ok(()) };
    if conflist::remove(folder)? {
        info!(folder = %folder.display(), "removing the container runtime's configuration");
    }
    Ok(())
}

fn remove_overlay(_: &Config) -> Result<(), CleanupError> {
    let mut netlink = Netlink::open()?;
    // A device of another kind is somebody else's.
    for device in OVERLAY_DEVICES {
        if let Some(link) = netlink.find_link(device)?.filter(|link| link.vxlan.is_some()) {
            info!(device, "removing a device");
            netlink.delete_link(link.index)?;
        }
    }
    Ok(())
}

/// Where programs are attached by filters, the pins keep nothing.
fn remove_filters(config: &Config) -> Result<(), CleanupError> {
    let pins = Pins::new(&config.bpffs_dir);
    if pins.root().join("links").is_dir() {
        sluice_proxy::remove_filters(&pins)?;
    }
    Ok(())
}

fn remove_routes(_: &Config) -> Result<(), CleanupError> {
    let mut netlink = Netlink::open()?;
    for route in netlink.routes(&RouteFilter::ours())? {
        info!(%route, "removing a route");
        netlink.delete_route(&route)?;
    }
    Ok(())
}

/// The pins are all that keeps programs attached and maps alive.
fn remove_pins(config: &Config) -> Result<(), CleanupError> {
    let root = Pins::new(&config.bpffs_dir).root().to_owned();
    info!(path = %root.display(), "removing programs and maps");
    match fs::remove_dir_all(&root) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            return Err(CleanupError::File { path: root, source });
        }
        _ => {}
    }
    // The folder around them is ours as well, unless somebody else has put something there.
    let _ = fs::remove_dir(&config.bpffs_dir);
    Ok(())
}

fn remove_service_device(_: &Config) -> Result<(), CleanupError> {
    let mut netlink = Netlink::open()?;
    if let Some(link) = netlink.find_link(SERVICE_DEVICE)? {
        info!(device = SERVICE_DEVICE, "removing a device");
        netlink.delete_link(link.index)?;
    }
    Ok(())
}

fn remove_bridge(config: &Config) -> Result<(), CleanupError> {
    let mut netlink = Netlink::open()?;
    let bridge = netlink.find_link(&config.bridge)?;
    let index = bridge.as_ref().map(|bridge| bridge.index);
    let ports = netlink.links()?.iter().filter(|link| index.is_some() && link.master == index).count();
    if ports > 0 {
        warn!(bridge = config.bridge, ports, "the bridge stays: pods are attached to it");
        return Ok(());
    }
    // Left by pods from a time without a datapath.
    masquerade::remove_all()?;
    let Some(bridge) = bridge else { return Ok(()) };
    info!(device = config.bridge, "removing a device");
    netlink.delete_link(bridge.index)?;
    Ok(())
}

/// What the plugin is told of the node, and what DNS would begin with. The plugin's records stay: they are the pods'.
fn remove_files(config: &Config) -> Result<(), CleanupError> {
    for file in [FILE].iter().chain(&names::FILES) {
        let path = config.state_dir.join(file);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(CleanupError::File { path, source });
            }
            _ => {}
        }
    }
    Ok(())
}
