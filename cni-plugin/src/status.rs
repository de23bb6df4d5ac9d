//! STATUS: whether an ADD would work now. Runtimes ask every few seconds, so nothing is changed and little is done.

use sluice_netlink::Netlink;

use crate::{
    bridge::vlan_unsupported,
    config::Config,
    datapath::Datapath,
    delegate::Delegate,
    desired::{self, range_sets},
    error::{Code, Error, Result},
    node::NodeConfig,
    store::{Network, StoreError},
};

/// Fails with the reason for which ADD would fail.
pub(crate) fn status(config: &Config, delegate: Option<&Delegate>) -> Result<()> {
    if let Some(delegate) = delegate {
        delegate.forward("STATUS", config).map_err(unavailable)?;
    }
    let state_dir = config.state_dir();
    let node = NodeConfig::read(&state_dir).map_err(unavailable)?;
    let sets = if desired::gives_addresses(config) {
        range_sets(config, node.as_ref()).map_err(unavailable)?
    } else {
        Vec::new()
    };
    let network = Network::open(&state_dir, &config.name).map_err(unavailable)?.beside(config.host_local());
    for ranges in &sets {
        network.check_free(ranges).map_err(|error| match error {
            StoreError::Exhausted { .. } => unavailable(error),
            other => unavailable(format_args!("the state directory is not usable: {other}")),
        })?;
    }

    let mut netlink = Netlink::open().map_err(unavailable)?;
    let bridge = netlink.find_link(config.bridge()).map_err(unavailable)?;
    match &bridge {
        Some(link) if !link.is_kind("bridge") => {
            return Err(unavailable(format_args!("{} exists and is no bridge", config.bridge())));
        }
        Some(_) => {}
        // ADD would make it anew, but the ports that it had are cut off.
        None if !network.attachments().map_err(unavailable)?.is_empty() => {
            let msg = format!("bridge {} is gone, and attached containers with it", config.bridge());
            return Err(Error::new(Code::Limited, msg));
        }
        None => {}
    }
    if let Some(device) = config.vlan_gateway().map_err(unavailable)?
        && netlink.find_link(&device).map_err(unavailable)?.is_none()
        && !network.attachments().map_err(unavailable)?.is_empty()
    {
        let msg = format!("{device}, the gateway of attached containers, is gone");
        return Err(Error::new(Code::Limited, msg));
    }
    if bridge.is_some_and(|bridge| bridge.vlan_filtering.is_none())
        && config.vlans().map_err(unavailable)?.is_some()
    {
        return Err(unavailable(vlan_unsupported(config)));
    }

    let bpffs = desired::bpffs(config, node.as_ref());
    if Datapath::open(&bpffs).map_err(unavailable)?.is_none() && config.require_datapath {
        return Err(unavailable(format_args!(
            "no datapath is pinned in {}: is the agent running?",
            bpffs.display()
        )));
    }
    Ok(())
}

fn unavailable(reason: impl std::fmt::Display) -> Error {
    Error::new(Code::Unavailable, format!("pods cannot be attached: {reason}"))
}
