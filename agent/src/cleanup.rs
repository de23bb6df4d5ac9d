//! Removes what the agent has made on this node. What pods hold stays: their devices and addresses are the
//! plugin's.

use std::{fs, io, path::PathBuf};

use sluice_cni::node::FILE;
use sluice_ebpf_common::SERVICE_DEVICE;
use sluice_netlink::{Netlink, RouteFilter};
use sluice_proxy::Pins;
use tracing::{info, warn};

use crate::{
    config::Config,
    lock::{self, LockError},
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
    let steps: [&dyn Fn(&Config) -> Result<(), CleanupError>; 5] =
        [&remove_routes, &remove_pins, &remove_service_device, &remove_bridge, &remove_description];
    steps.iter().filter_map(|step| step(config).err()).collect()
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
            Err(CleanupError::File { path: root, source })
        }
        _ => Ok(()),
    }
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
    let Some(bridge) = netlink.find_link(&config.bridge)? else { return Ok(()) };
    let ports = netlink.links()?.iter().filter(|link| link.master == Some(bridge.index)).count();
    if ports > 0 {
        warn!(bridge = config.bridge, ports, "the bridge stays: pods are attached to it");
        return Ok(());
    }
    info!(device = config.bridge, "removing a device");
    netlink.delete_link(bridge.index)?;
    Ok(())
}

fn remove_description(config: &Config) -> Result<(), CleanupError> {
    let path = config.state_dir.join(FILE);
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(CleanupError::File { path, source }),
        _ => Ok(()),
    }
}
