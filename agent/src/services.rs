//! The datapath and the services in it: an adapter between the loop and the proxy.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use nix::time::{ClockId, clock_gettime};
use sluice_cni::store::{self, Attachment, State};
use sluice_ebpf_common::{Backend, DropReason, Endpoint, FrontendKey, SERVICE_DEVICE, map_name};
use sluice_model::{Changes, IpFamily, Snapshot};
use sluice_netlink::Netlink;
use sluice_proxy::{
    AttachKind, Datapath, DatapathConfig, DatapathError, Features, FlowCensus, Hook, PinnedStore, Proxy,
    ProxyConfig,
};
use tracing::{debug, info, warn};

use crate::{
    config::{AttachMode, Config},
    failure::Failure,
    metrics::Metrics,
    node::{Facts, Found},
    routes::overlay_device,
};

/// The loaded datapath.
pub struct Services {
    datapath: Datapath,
    proxy: Proxy<PinnedStore>,
    service_ifindex: u32,
    /// What this process has attached, with the device's index at that time.
    attached: BTreeMap<(Hook, String), u32>,
    sockets: bool,
    /// How many packets were refused for want of room, by reason, at the last look.
    refused: BTreeMap<&'static str, u64>,
}

impl Services {
    /// Loads the programs, or adopts what is pinned. Nothing that is attached changes yet.
    pub fn open(config: &Config, service_ifindex: u32) -> Result<Self, Failure> {
        let datapath = Datapath::open(&DatapathConfig {
            bpffs: config.bpffs_dir.clone(),
            cgroup_root: config.cgroup_root.clone().filter(|_| config.fast_path),
            object: config.datapath_object.clone(),
            flow_entries: config.flow_entries,
            flow_timeouts: config.flow_timeouts,
            service_ifindex,
            attach: match config.attach {
                AttachMode::Auto => None,
                AttachMode::Tcx => Some(AttachKind::Tcx),
                AttachMode::Clsact => Some(AttachKind::Clsact),
            },
            without_csum_v6: false,
        })?;
        let features = datapath.features();
        info!("kernel: {features}");
        for feature in features.features.iter().filter(|feature| !feature.present) {
            if let Some(without) = feature.without {
                info!(feature = feature.name, "the kernel does without: {without}");
            }
        }
        let view = ProxyConfig {
            name: config.node_name.clone(),
            local_dns: config.dns.then(|| config.dns_service.clone()),
            fast_path: config.fast_path && config.cgroup_root.is_some(),
            masquerade_all: config.masquerade_all,
        };
        let proxy = Proxy::new(PinnedStore::open(datapath.pins())?, view)?;
        info!(pins = %datapath.pins().root().display(), "the datapath is loaded");
        Ok(Self {
            datapath,
            proxy,
            service_ifindex,
            attached: BTreeMap::new(),
            sockets: false,
            refused: BTreeMap::new(),
        })
    }

    /// Whether everything is pinned where the plugin and a next agent look for it.
    pub fn is_pinned(&self) -> bool {
        let pins = self.datapath.pins();
        pins.root().join("links").is_dir() && map_name::ALL.iter().all(|map| pins.map(map).exists())
    }

    /// The index of the service device that the programs were loaded for.
    pub fn service_ifindex(&self) -> u32 {
        self.service_ifindex
    }

    /// Tells the datapath about the node; with `read_back`, with a look at what it knows.
    pub fn set_facts(&mut self, facts: &Facts, read_back: bool) -> Result<(), DatapathError> {
        self.datapath.set_networks(&facts.networks, read_back)?;
        self.datapath.set_uplinks(&facts.sources)?;
        self.datapath.set_node_addresses(&facts.addresses)
    }

    /// Brings the services in line with the snapshot; with `read_back`, with a look at what the maps hold.
    pub fn sync(&mut self, snapshot: &Snapshot, changes: &Changes, read_back: bool) -> Vec<Failure> {
        let report = match read_back {
            true => self.proxy.repair(snapshot, changes),
            false => self.proxy.sync(snapshot, changes),
        };
        if report.operations > 0 {
            debug!(operations = report.operations, "services are in line");
        }
        report.errors.into_iter().map(Failure::from).collect()
    }

    /// Makes the datapath know the pods that are attached, whoever was there when they came, and reads who
    /// that is.
    pub fn adopt_pods(
        &mut self,
        config: &Config,
        attachments: &mut Vec<Attachment>,
        found: &Found,
    ) -> Result<(), Failure> {
        // In this order: the plugin writes a pod's record before its entry, so an entry of now without a record
        // of after is a remnant, and not a pod that is being made.
        let known = self.datapath.endpoints()?;
        let open = self.datapath.host_ports()?;
        *attachments = store::list(&config.state_dir).map_err(Failure::Records)?.attachments;
        for (address, endpoint) in endpoints(attachments, found) {
            if known.get(&address) != Some(&endpoint) {
                info!(%address, "adopting a pod");
                self.datapath.put_endpoint(address, &endpoint)?;
            }
        }
        let recorded: BTreeSet<IpAddr> = attachments
            .iter()
            .flat_map(|attachment| attachment.addresses.iter().map(ipnet::IpNet::addr))
            .collect();
        for address in known.keys().filter(|address| !recorded.contains(*address)) {
            info!(%address, "forgetting a pod that is gone");
            self.datapath.remove_endpoint(*address)?;
        }
        self.adopt_host_ports(&open, attachments, found)
    }

    /// Brings the host ports in line with the records of the pods.
    fn adopt_host_ports(
        &mut self,
        open: &BTreeMap<FrontendKey, Backend>,
        attachments: &[Attachment],
        found: &Found,
    ) -> Result<(), Failure> {
        for (key, backend) in host_ports(attachments, found) {
            if open.get(&key) != Some(&backend) {
                info!(address = %key.addr, port = %key.port, pod = %backend.addr, "opening a host port");
                self.datapath.put_host_port(&key, &backend)?;
            }
        }
        let recorded: BTreeSet<FrontendKey> =
            attachments.iter().flat_map(Attachment::mappings).map(|mapping| mapping.entry().0).collect();
        for key in open.keys().filter(|key| !recorded.contains(*key)) {
            info!(address = %key.addr, port = %key.port, "closing a host port whose pod is gone");
            self.datapath.remove_host_port(key)?;
        }
        Ok(())
    }

    /// Attaches the programs where they belong, and takes them away where they do not. With `again`, pinned links
    /// that somebody has removed are made anew.
    pub fn attach(
        &mut self,
        config: &Config,
        wanted: &BTreeMap<(Hook, String), u32>,
        netlink: &mut Netlink,
        again: bool,
    ) -> Vec<Failure> {
        let mut failures = Vec::new();
        if !self.sockets || again && self.datapath.pins().links().is_ok_and(|links| !has_sockets(&links)) {
            match self.attach_sockets(config) {
                Ok(()) => self.sockets = true,
                Err(error) => failures.push(error.into()),
            }
        }
        let pinned = match pinned_hooks(&self.datapath) {
            Ok(pinned) => pinned,
            Err(error) => return vec![error.into()],
        };
        for (target, index) in wanted {
            if self.attached.get(target) == Some(index)
                && (!again || pinned.contains(target) && self.holds(target))
            {
                continue;
            }
            match self.datapath.attach(target.0, &target.1) {
                Ok(()) => {
                    debug!(program = target.0.program(), device = target.1, "attached");
                    self.attached.insert(target.clone(), *index);
                }
                Err(error) => failures.push(error.into()),
            }
        }
        for target in pinned.iter().filter(|target| !wanted.contains_key(*target)) {
            if let Err(error) = self.detach(target, netlink) {
                failures.push(error);
            }
        }
        failures
    }

    /// Whether a program is at work where it is pinned for. If that cannot be told, attaching it once more does no harm.
    fn holds(&self, (hook, device): &(Hook, String)) -> bool {
        self.datapath.holds(*hook, device).unwrap_or(false)
    }

    /// What the kernel can do.
    pub fn features(&self) -> &Features {
        self.datapath.features()
    }

    fn attach_sockets(&mut self, config: &Config) -> Result<(), DatapathError> {
        if config.fast_path && config.cgroup_root.is_some() {
            self.datapath.attach_sockets()
        } else {
            self.datapath.detach_sockets()
        }
    }

    /// Takes a program away. A pod's device that is there is left alone: its record may be on its way.
    fn detach(&mut self, target: &(Hook, String), netlink: &mut Netlink) -> Result<(), Failure> {
        let (hook, device) = target;
        if *hook == Hook::FromPod && netlink.find_link(device).map_err(Failure::Observe)?.is_some() {
            return Ok(());
        }
        info!(program = hook.program(), device, "detaching");
        self.datapath.detach(*hook, device)?;
        self.attached.remove(target);
        Ok(())
    }

    /// Removes connections that are over, a part of them at a time; tells when all have been looked at.
    pub fn sweep(&mut self) -> Result<Option<FlowCensus>, DatapathError> {
        self.tell_refused()?;
        // The clock of bpf_ktime_get_ns. It cannot fail: the clock is there on every Linux.
        let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| time.tv_sec());
        self.datapath.collect_flows(u32::try_from(now).unwrap_or(u32::MAX))
    }

    /// Tells of connections that were refused, since the last look, for want of a source port or of room in the
    /// table.
    fn tell_refused(&mut self) -> Result<(), DatapathError> {
        let want = |reason| matches!(reason, DropReason::NatExhausted | DropReason::FlowTableFull);
        for (reason, count) in self.datapath.drops()?.into_iter().filter(|(reason, _)| want(*reason)) {
            let before = self.refused.insert(reason.label(), count).unwrap_or(count);
            if count > before {
                let last = self.datapath.last_refused(reason)?;
                warn!(reason = reason.label(), packets = count - before, last, "connections are refused");
            }
        }
        Ok(())
    }

    /// How many entries the table of connections can hold.
    pub fn flow_capacity(&self) -> Result<usize, DatapathError> {
        self.datapath.flow_capacity()
    }

    /// Reads the datapath's counters.
    pub fn count(&self, metrics: &Metrics) -> Result<(), DatapathError> {
        let drops = self.datapath.drops()?;
        metrics.set_drops(&drops.into_iter().map(|(reason, count)| (reason.label(), count)).collect());
        for usage in self.datapath.map_usage(self.proxy.observed())? {
            metrics.set_map(usage.map, usage.used, usage.capacity);
        }
        for family in IpFamily::ALL {
            metrics.set_without_local(family, self.proxy.without_local(family));
        }
        for runs in self.datapath.program_runs()? {
            metrics.set_program(&runs);
        }
        Ok(())
    }
}

/// Whether the socket programs have pinned links.
fn has_sockets(links: &[(String, String)]) -> bool {
    links.iter().any(|(program, _)| program == sluice_ebpf_common::program_name::CONNECT4)
}

fn pinned_hooks(datapath: &Datapath) -> Result<BTreeSet<(Hook, String)>, DatapathError> {
    let mut pinned = BTreeSet::new();
    for hook in [Hook::FromPod, Hook::FromWire, Hook::ToWire, Hook::FromHost] {
        pinned.extend(datapath.attached(hook)?.into_iter().map(|device| (hook, device)));
    }
    Ok(pinned)
}

/// Where programs belong, with the index of each device.
pub fn wanted_hooks(
    config: &Config,
    facts: &Facts,
    attachments: &[Attachment],
    found: &Found,
) -> BTreeMap<(Hook, String), u32> {
    let loopback = found.devices.iter().find(|(_, device)| device.loopback).map(|(name, _)| name.as_str());
    let own = [Some(SERVICE_DEVICE), loopback, Some(config.bridge.as_str())];
    let hosts = own.into_iter().flatten().map(|device| (Hook::FromHost, device));
    let overlays = facts.ways.overlays.keys().map(|over| overlay_device(*over));
    let wires = facts.uplinks.iter().map(String::as_str).chain(overlays);
    let wires = wires.flat_map(|device| [(Hook::FromWire, device), (Hook::ToWire, device)]);
    let pods = attachments
        .iter()
        .filter(|attachment| attachment.state == State::Ready)
        .map(|attachment| (Hook::FromPod, attachment.host_veth.as_str()));
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
fn endpoints(attachments: &[Attachment], found: &Found) -> BTreeMap<IpAddr, Endpoint> {
    wired(attachments, found)
        .flat_map(|(attachment, device)| {
            let endpoint = attachment.endpoint(device.index);
            attachment.addresses.iter().map(move |address| (address.addr(), endpoint))
        })
        .collect()
}

/// The host ports that should be open.
fn host_ports(attachments: &[Attachment], found: &Found) -> BTreeMap<FrontendKey, Backend> {
    wired(attachments, found)
        .flat_map(|(attachment, _)| attachment.mappings())
        .map(|mapping| mapping.entry())
        .collect()
}

#[cfg(test)]
mod tests {
    use sluice_cni::store::PodName;
    use sluice_netlink::MacAddress;

    use super::*;
    use crate::{config::Settings, node::Device, routes::Ways};

    fn attachment(state: State, host_veth: &str, address: &str) -> Attachment {
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
        let found = found(&[("lo", 1), ("eth0", 2), ("sluice-svc", 4), ("sluice00000001", 7), ("veth9", 9)]);
        let facts = Facts {
            uplinks: ["eth0".to_owned()].into(),
            sources: BTreeMap::new(),
            addresses: BTreeMap::new(),
            networks: BTreeMap::new(),
            pod_cidrs: Vec::new(),
            mtu: 1500,
            outer_mtu: 1500,
            ways: Ways::default(),
        };
        let wanted = wanted_hooks(&config, &facts, &attachments(), &found);
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
            ]
        );
    }
}
