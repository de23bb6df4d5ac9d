//! Pods that another network plugin has attached (`podNetwork: foreign`), as on a node where only kube-proxy is replaced.
//!
//! Nobody tells of them, so they are found: a pod of theirs is the far end of a veth pair in another network namespace,
//! which the kernel lets us look into by the namespace's number. With that, they are to the datapath what our own are
//! whose bridge has a say in whom they reach ([`sluice_ebpf_common::ENDPOINT_BRIDGED`]): services are served, all else is
//! left to the other plugin.

mod desired;
mod observe;
#[cfg(test)]
mod tests;

pub use desired::{Abroad, abroad, is_outside, is_pod, unseen};
pub use observe::{attachments, watch};

use ipnet::IpNet;
use sluice_cni::store::{Attachment, State};
use sluice_netlink::MacAddress;

/// A pair of veths, one end here and the other a pod's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wire {
    /// The name of the end here.
    pub host: String,
    /// The name of the pod's end.
    pub inside: String,
    /// The link-layer address of the pod's end.
    pub mac: MacAddress,
    /// The pod's addresses there.
    pub addresses: Vec<IpNet>,
    /// The bridge that the end here is a port of, if any.
    pub bridge: Option<String>,
    /// Who the pod's packets from here come from, by the link layer: the bridge, or the end here.
    pub gateway_mac: MacAddress,
}

impl Wire {
    /// The record that our own plugin would have written of such a pod.
    pub fn attachment(self) -> Attachment {
        Attachment {
            state: State::Ready,
            version: 0,
            container_id: self.host.clone(),
            ifname: self.inside,
            network: "foreign".to_owned(),
            netns: "".into(),
            pod: None,
            addresses: self.addresses,
            mac: self.mac,
            // Where what the node itself sends to the pod leaves.
            bridge: self.bridge.unwrap_or_else(|| self.host.clone()),
            host_veth: self.host,
            gateway_mac: self.gateway_mac,
            gateway_device: None,
            bpffs: "".into(),
            host_ports: Vec::new(),
            masquerade: false,
            conditions_v4: Vec::new(),
            conditions_v6: Vec::new(),
            aliases: Vec::new(),
            shaped: false,
            bridged: true,
        }
    }
}
