//! The plugin `loopback`, which container runtimes run for every container beside its network: `sluice-cni` does its
//! work where the configuration's `type` is `loopback`, so that a link of that name is all a plugin folder needs.

use serde_json::Value;
use sluice_netlink::{LinkChange, MacAddress, Netlink};

use crate::{
    add,
    config::{Config, Dns},
    environment::Target,
    error::{Code, Error, Result},
    result::{AddResult, Address, Interface},
};

/// Index of the loopback device, in every namespace.
pub(crate) const INDEX: u32 = 1;

/// Whether the configuration is for `loopback`.
pub(crate) fn is_meant(config: &Config) -> bool {
    config.kind.as_deref() == Some("loopback")
}

/// A netlink connection in the container's namespace.
fn open(target: &Target) -> Result<Netlink> {
    let (namespace, home) = add::open_namespaces(target, &Netlink::open()?)?;
    Ok(namespace.visit(&home, Netlink::open)??)
}

/// Switches the loopback device on.
pub(crate) fn add(config: &Config, target: &Target) -> Result<Value> {
    let version = config.version()?;
    let mut netlink = open(target)?;
    netlink.set_up(INDEX)?;
    let link = netlink.link_by_index(INDEX)?;
    // What others did before is passed on as it is: that there is a loopback device is no news.
    if let Some(previous) = &config.prev_result {
        let mut previous = previous.clone();
        previous["cniVersion"] = version.to_string().into();
        return Ok(previous);
    }
    let sandbox = target.netns.as_ref().map(|path| path.to_string_lossy().into_owned());
    let addresses = netlink.addresses_of(INDEX)?;
    let result = AddResult {
        interfaces: vec![Interface { name: link.name, mac: MacAddress::default(), mtu: link.mtu, sandbox }],
        addresses: addresses
            .into_iter()
            .map(|found| Address { address: found.address, gateway: None })
            .collect(),
        routes: Vec::new(),
        dns: Dns::default(),
    };
    Ok(result.to_json(version, None))
}

/// Switches it off. That the namespace is gone is no error.
pub(crate) fn del(target: &Target) -> Result<()> {
    let Some(path) = &target.netns else { return Ok(()) };
    if !path.exists() {
        return Ok(());
    }
    let mut netlink = open(target)?;
    Ok(netlink.change_link(INDEX, &LinkChange::new().up(false))?)
}

/// Whether it is on.
pub(crate) fn check(target: &Target) -> Result<()> {
    let link = open(target)?.link_by_index(INDEX)?;
    if link.flags.is_up() {
        Ok(())
    } else {
        Err(Error::new(Code::Damaged, format!("interface {} is down", link.name)))
    }
}
