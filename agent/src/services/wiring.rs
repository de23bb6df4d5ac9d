//! Where programs belong, and what the datapath should know of this node's pods. Pure.

use std::{collections::BTreeMap, net::IpAddr};

use sluice_cni::store::{Attachment, State};
use sluice_ebpf_common::{Backend, Endpoint, FrontendKey, SERVICE_DEVICE};
use sluice_proxy::Hook;

use crate::{
    config::{Config, PodNetwork},
    node::{Facts, Found},
    routes::overlay_device,
};

/// Where programs belong, with the index of each device.
pub fn wanted_hooks(
    config: &Config,
    facts: &Facts,
    attachments: &[Attachment],
    found: &Found,
) -> BTreeMap<(Hook, String), u32> {
    let loopback = found.devices.iter().find(|(_, device)| device.loopback).map(|(name, _)| name.as_str());
    let ready = || attachments.iter().filter(|attachment| attachment.state == State::Ready);
    // What the node sends to a pod leaves by the bridge, or, where another plugin has none, by the pod's device.
    let own = Some(config.bridge.as_str()).filter(|_| config.pod_network == PodNetwork::Own);
    // To one in a VLAN, by what makes the node a member of that.
    let vlans = ready().filter_map(|attachment| own.and(attachment.gateway_device.as_deref()));
    let foreign = ready().filter(|_| own.is_none()).map(|attachment| attachment.bridge.as_str());
    let hosts = [Some(SERVICE_DEVICE), loopback, own].into_iter().flatten().chain(vlans).chain(foreign);
    let hosts = hosts.map(|device| (Hook::FromHost, device));
    let overlays = facts.ways.overlays.keys().map(|over| overlay_device(*over));
    let wires = facts.uplinks.iter().map(String::as_str).chain(overlays);
    let wires = wires.flat_map(|device| [(Hook::FromWire, device), (Hook::ToWire, device)]);
    // One without addresses is the bridge's alone: what it sends comes from addresses that nobody here knows.
    let pods = ready().filter(|attachment| !attachment.addresses.is_empty());
    let pods = pods.map(|attachment| (Hook::FromPod, attachment.host_veth.as_str()));
    hosts
        .chain(wires)
        .chain(pods)
        .filter_map(|(hook, device)| Some(((hook, device.to_owned()), found.devices.get(device)?.index)))
        .collect()
}

/// The pods that are attached, each with its device. Those whose device is gone are left out.
fn wired<'a>(
    attachments: &'a [Attachment],
    found: &'a Found,
) -> impl Iterator<Item = (&'a Attachment, &'a crate::node::Device)> {
    let ready = attachments.iter().filter(|attachment| attachment.state == State::Ready);
    ready.filter_map(|attachment| Some((attachment, found.devices.get(&attachment.host_veth)?)))
}

/// What the datapath should know of the pods that are attached.
pub(super) fn endpoints(attachments: &[Attachment], found: &Found) -> BTreeMap<IpAddr, Endpoint> {
    wired(attachments, found)
        .flat_map(|(attachment, device)| {
            let endpoint = attachment.endpoint(device.index);
            attachment.addresses.iter().map(move |address| (address.addr(), endpoint))
        })
        .collect()
}

/// The host ports that should be open.
pub(super) fn host_ports(attachments: &[Attachment], found: &Found) -> BTreeMap<FrontendKey, Backend> {
    wired(attachments, found).flat_map(|(attachment, _)| attachment.port_entries()).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeSet;

    use sluice_cni::store::PodName;
    use sluice_netlink::MacAddress;

    use super::*;
    use crate::{config::Settings, node::Device, routes::Ways};

    pub(crate) fn attachment(state: State, host_veth: &str, address: &str) -> Attachment {
        Attachment {
            state,
            version: 1,
            container_id: "c".into(),
            ifname: "eth0".into(),
            network: "sluice".into(),
            netns: "/run/netns/c".into(),
            pod: Some(PodName { namespace: "default".into(), name: "a".into(), uid: None }),
            addresses: vec![address.parse().unwrap()],
            host_veth: host_veth.into(),
            mac: MacAddress([2, 0, 0, 0, 0, 1]),
            bridge: "sluice0".into(),
            gateway_mac: MacAddress([2, 0, 0, 0, 0, 2]),
            gateway_device: None,
            aliases: Vec::new(),
            bpffs: "/sys/fs/bpf".into(),
            host_ports: Vec::new(),
            masquerade: false,
            conditions_v4: Vec::new(),
            conditions_v6: Vec::new(),
            shaped: false,
            bridged: false,
        }
    }

    fn found(devices: &[(&str, u32)]) -> Found {
        let device = |(name, index): &(&str, u32)| {
            ((*name).to_owned(), Device { index: *index, loopback: *name == "lo", ..Device::default() })
        };
        Found { devices: devices.iter().map(device).collect(), ..Found::default() }
    }

    fn attachments() -> Vec<Attachment> {
        vec![
            attachment(State::Ready, "sluice00000001", "10.1.0.2/24"),
            attachment(State::Adding, "sluice00000002", "10.1.0.3/24"),
            attachment(State::Ready, "sluice00000003", "10.1.0.4/24"),
            Attachment { addresses: Vec::new(), ..attachment(State::Ready, "sluice00000004", "10.1.0.5/24") },
        ]
    }

    #[test]
    fn pods_are_adopted_once_they_are_complete_and_while_their_device_is_there() {
        let found = found(&[("sluice00000001", 7), ("sluice00000002", 8)]);
        let endpoints = endpoints(&attachments(), &found);
        let expected = Endpoint {
            ifindex: 7,
            pod_mac: [2, 0, 0, 0, 0, 1],
            gateway_mac: [2, 0, 0, 0, 0, 2],
            ..Endpoint::default()
        };
        assert_eq!(endpoints, [("10.1.0.2".parse().unwrap(), expected)].into());
    }

    #[test]
    fn programs_go_where_they_belong() {
        let settings =
            Settings { node_name: Some("one".into()), manifests: Some("/m".into()), ..Settings::default() };
        let config = Config::new(settings).unwrap();
        let found = found(&[
            ("lo", 1),
            ("eth0", 2),
            ("sluice-svc", 4),
            ("sluice0.100", 5),
            ("sluice00000001", 7),
            ("sluice00000004", 8),
            ("veth9", 9),
        ]);
        let mut attachments = attachments();
        attachments[0].gateway_device = Some("sluice0.100".to_owned());
        let facts = Facts {
            uplinks: ["eth0".to_owned()].into(),
            sources: BTreeMap::new(),
            addresses: BTreeMap::new(),
            networks: BTreeMap::new(),
            unserved: BTreeSet::new(),
            pod_cidrs: Vec::new(),
            mtu: 1500,
            outer_mtu: 1500,
            ways: Ways::default(),
        };
        let wanted = wanted_hooks(&config, &facts, &attachments, &found);
        let said: Vec<_> = wanted
            .iter()
            .map(|((hook, device), index)| format!("{} {device} {index}", hook.program()))
            .collect();
        assert_eq!(
            said,
            [
                "from_pod sluice00000001 7",
                "from_wire eth0 2",
                "to_wire eth0 2",
                "from_host lo 1",
                "from_host sluice-svc 4",
                "from_host sluice0.100 5",
            ]
        );
        // Another plugin's: what the node sends to its pods leaves by its bridge, or by the pod's own device.
        let config = Config { pod_network: PodNetwork::Foreign, ..config };
        let mut foreign = attachments;
        foreign[0].bridge = "eth0".into();
        foreign
            .push(Attachment { bridge: "veth9".into(), ..attachment(State::Ready, "veth9", "10.1.0.9/32") });
        let wanted = wanted_hooks(&config, &facts, &foreign, &found);
        let said: Vec<_> =
            wanted.keys().map(|(hook, device)| format!("{} {device}", hook.program())).collect();
        assert_eq!(
            said,
            [
                "from_pod sluice00000001",
                "from_pod veth9",
                "from_wire eth0",
                "to_wire eth0",
                "from_host eth0",
                "from_host lo",
                "from_host sluice-svc",
                "from_host veth9",
            ]
        );
    }
}
