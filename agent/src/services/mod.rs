//! The datapath and the services in it: an adapter between the loop and the proxy.

mod wiring;

#[cfg(test)]
pub(crate) use wiring::tests::attachment;
pub use wiring::wanted_hooks;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

use nix::time::{ClockId, clock_gettime};
use sluice_cni::store::{self, Attachment};
use sluice_ebpf_common::{Backend, DropReason, FrontendKey, map_name};
use sluice_model::{Changes, IpFamily, Snapshot};
use sluice_netlink::Netlink;
use sluice_proxy::{
    AttachKind, Datapath, DatapathConfig, DatapathError, Features, FlowCensus, Hook, PinnedStore, Proxy,
    ProxyConfig,
};
use tracing::{debug, info, warn};

use crate::{
    config::{AttachMode, Config, PodNetwork},
    failure::Failure,
    foreign,
    metrics::Metrics,
    node::{Facts, Found},
};
use wiring::{endpoints, host_ports};

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
            local_pages: BTreeMap::new(),
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

    /// Says where pages of this node's DNS server are reached, for the next pass over the services.
    pub fn set_local_pages(&mut self, pages: BTreeMap<SocketAddr, SocketAddr>) {
        self.proxy.set_local_pages(pages);
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
        (found, facts): (&Found, &Facts),
        netlink: &mut Netlink,
    ) -> Result<(), Failure> {
        // In this order: the plugin writes a pod's record before its entry, so an entry of now without a record
        // of after is a remnant, and not a pod that is being made.
        let known = self.datapath.endpoints()?;
        let open = self.datapath.host_ports()?;
        *attachments = match config.pod_network {
            PodNetwork::Own => store::list(&config.state_dir).map_err(Failure::Records)?.attachments,
            PodNetwork::Foreign => {
                let found = foreign::attachments(netlink).map_err(Failure::Observe)?.into_iter();
                let pods = found.filter(|other| foreign::is_pod(&config.cluster_cidrs, other));
                pods.filter(|pod| !facts.uplinks.contains(&pod.host_veth)).collect()
            }
        };
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
            attachments.iter().flat_map(Attachment::port_entries).map(|(key, _)| key).collect();
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
            if let Err(error) = self.detach(target, config, netlink) {
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
    fn detach(
        &mut self,
        target: &(Hook, String),
        config: &Config,
        netlink: &mut Netlink,
    ) -> Result<(), Failure> {
        let (hook, device) = target;
        let has_record = *hook == Hook::FromPod && config.pod_network == PodNetwork::Own;
        if has_record && netlink.find_link(device).map_err(Failure::Observe)?.is_some() {
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
