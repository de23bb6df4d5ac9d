//! The loaded datapath of one node: programs, links, and the maps that are not about services.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
};

use aya::{
    Ebpf, Pod,
    maps::{LpmTrie, MapData, lpm_trie::Key},
};
use ipnet::IpNet;
use sluice_ebpf_common::{Addr, Backend, DropReason, Endpoint, FrontendKey, Network, Uplink, map_name};

use crate::{
    AttachKind, DatapathError, Features, Hook, Observed, Pins, attach,
    counters::{self, MapUsage, ProgramRuns},
    flows::{FlowCensus, FlowCollector, FlowTimeouts},
    load,
    probe::TCX,
    tables::{self, Table},
};

/// What a node's datapath is made with.
#[derive(Clone, Debug)]
pub struct DatapathConfig {
    /// The directory for pins, on a BPF file system.
    pub bpffs: PathBuf,
    /// The cgroup v2 directory above all processes of the node; `None` does without the socket programs.
    pub cgroup_root: Option<PathBuf>,
    /// The programs' object file; `None` takes the one built into this binary.
    pub object: Option<PathBuf>,
    /// Capacity of the table of connections, in entries; a connection takes two. Holds for a table that
    /// is made anew: a pinned one keeps its capacity.
    pub flow_entries: u32,
    /// How long connections are remembered.
    pub flow_timeouts: FlowTimeouts,
    /// Index of the service device in this namespace.
    pub service_ifindex: u32,
    /// How programs are put on devices; `None`: by what the kernel has.
    pub attach: Option<AttachKind>,
    /// Does without `BPF_F_IPV6` even where the kernel has it, as kernels before 6.16 must.
    pub without_csum_v6: bool,
}

/// The loaded datapath. Dropping it leaves everything pinned and attached.
pub struct Datapath {
    ebpf: Ebpf,
    pins: Pins,
    kind: AttachKind,
    features: Features,
    cgroup_root: Option<PathBuf>,
    endpoints: Table<Addr, Endpoint>,
    host_ports: Table<FrontendKey, Backend>,
    node_addresses: Table<Addr, u32>,
    uplinks: Table<u32, Uplink>,
    networks: LpmTrie<MapData, Addr, Network>,
    /// What the map `networks` holds, once that is known.
    networks_held: Option<BTreeMap<(u32, Addr), u32>>,
    flows: FlowCollector,
}

impl Datapath {
    /// Loads the programs. Maps that are pinned are taken over with all they hold; links that are pinned go on
    /// with the programs that they have until [`Self::attach`] gives them these.
    pub fn open(config: &DatapathConfig) -> Result<Self, DatapathError> {
        let pins = Pins::new(&config.bpffs);
        let features = Features::probe();
        let missing = features.missing();
        if !missing.is_empty() {
            let (kernel, missing) = (features.kernel, missing.join(", "));
            return Err(DatapathError::Kernel { kernel, missing });
        }
        let kind =
            config.attach.unwrap_or(if features.has(TCX) { AttachKind::Tcx } else { AttachKind::Clsact });
        let ebpf = load::load(config, &pins, config.service_ifindex)?;
        pins.set_kind(kind)?;
        Ok(Self {
            kind,
            features,
            endpoints: Table::open(&pins, map_name::ENDPOINTS)?,
            host_ports: Table::open(&pins, map_name::HOST_PORTS)?,
            node_addresses: Table::open(&pins, map_name::NODE_ADDRESSES)?,
            uplinks: Table::open(&pins, map_name::UPLINKS)?,
            networks: tables::trie(&pins, map_name::NETWORKS)?,
            networks_held: None,
            flows: FlowCollector::open(&pins, config.flow_timeouts)?,
            ebpf,
            pins,
            cgroup_root: config.cgroup_root.clone(),
        })
    }

    /// The node's pins.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Attaches a program to a device of the caller's network namespace, or puts it behind the link that is
    /// pinned. May be called again at any time; a device that was made anew gets a new link.
    pub fn attach(&mut self, hook: Hook, device: &str) -> Result<(), DatapathError> {
        attach::attach(&mut self.ebpf, &self.pins, self.kind, hook, device)
    }

    /// Attaches the socket programs to the node's cgroup, if there is one in the configuration.
    pub fn attach_sockets(&mut self) -> Result<(), DatapathError> {
        match &self.cgroup_root {
            Some(cgroup) => attach::attach_sockets(&mut self.ebpf, &self.pins, cgroup),
            None => self.detach_sockets(),
        }
    }

    /// Takes the socket programs away; connections made through them go on.
    pub fn detach_sockets(&self) -> Result<(), DatapathError> {
        attach::SOCKET_PROGRAMS
            .iter()
            .try_for_each(|program| attach::detach(&self.pins, program, attach::SOCKET_TARGET))
    }

    /// Takes a program away from a device.
    pub fn detach(&self, hook: Hook, device: &str) -> Result<(), DatapathError> {
        attach::remove_filter(hook, device)?;
        attach::detach(&self.pins, hook.program(), device)
    }

    /// Whether a program that is pinned for a device is at work there. A link is as long as it is pinned; a filter,
    /// somebody may have removed.
    pub fn holds(&self, hook: Hook, device: &str) -> Result<bool, DatapathError> {
        match self.kind {
            AttachKind::Tcx => Ok(true),
            AttachKind::Clsact => attach::has_filter(hook, device),
        }
    }

    /// What the kernel can do.
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// How programs are put on devices.
    pub fn attach_kind(&self) -> AttachKind {
        self.kind
    }

    /// The devices that a program has pinned links to.
    pub fn attached(&self, hook: Hook) -> Result<BTreeSet<String>, DatapathError> {
        let links = self.pins.links()?.into_iter();
        Ok(links.filter(|(program, _)| program == hook.program()).map(|(_, device)| device).collect())
    }

    /// Sets the node's addresses, each with what it is to the node (`NODE_ADDRESS_*`).
    pub fn set_node_addresses(&mut self, addresses: &BTreeMap<IpAddr, u32>) -> Result<(), DatapathError> {
        let wanted = addresses.iter().map(|(address, flags)| (Addr::from(*address), *flags)).collect();
        replace(&mut self.node_addresses, &wanted)
    }

    /// Sets the source addresses for masquerade: by the index of the outgoing device, and at index 0 the
    /// node's primary ones.
    pub fn set_uplinks(&mut self, uplinks: &BTreeMap<u32, Uplink>) -> Result<(), DatapathError> {
        replace(&mut self.uplinks, uplinks)
    }

    /// Sets what is known of networks (`NETWORK_*`). An address is judged by the longest prefix it is in, so
    /// that a prefix here also has the flags of those that contain it. With `read_back`, with a look at what the map
    /// holds; otherwise it costs as much as differs from the last time.
    pub fn set_networks(
        &mut self,
        networks: &BTreeMap<IpNet, u32>,
        read_back: bool,
    ) -> Result<(), DatapathError> {
        let wanted = merge_networks(networks);
        let failed = |call, key: &dyn ToString| DatapathError::map(call, map_name::NETWORKS, key.to_string());
        // Not known while it is being changed: after a failure it is read.
        let held = match self.networks_held.take().filter(|_| !read_back) {
            Some(held) => held,
            None => {
                let entry = |entry: Result<(Key<Addr>, Network), _>| {
                    entry.map(|(key, network)| ((key.prefix_len(), key.data()), network.flags))
                };
                self.networks.iter().map(entry).collect::<Result<_, _>>().map_err(failed("read", &""))?
            }
        };
        for ((prefix, addr), flags) in wanted.iter().filter(|(key, flags)| held.get(key) != Some(*flags)) {
            self.networks
                .insert(&Key::new(*prefix, *addr), Network { flags: *flags }, 0)
                .map_err(|error| failed("put", &format!("{addr}/{prefix}"))(error))?;
        }
        for (prefix, addr) in held.keys().filter(|key| !wanted.contains_key(key)) {
            match self.networks.remove(&Key::new(*prefix, *addr)) {
                Err(error) if !tables::is_missing(&error) => {
                    return Err(failed("remove", &format!("{addr}/{prefix}"))(error));
                }
                _ => {}
            }
        }
        self.networks_held = Some(wanted);
        Ok(())
    }

    /// The pods that the datapath knows.
    pub fn endpoints(&self) -> Result<BTreeMap<IpAddr, Endpoint>, DatapathError> {
        self.endpoints.entries().map(|entry| entry.map(|(addr, endpoint)| (addr.into(), endpoint))).collect()
    }

    /// Makes a pod's address known, or changes what is known of it.
    pub fn put_endpoint(&mut self, address: IpAddr, endpoint: &Endpoint) -> Result<(), DatapathError> {
        self.endpoints.put(&address.into(), endpoint)
    }

    /// Forgets a pod's address.
    pub fn remove_endpoint(&mut self, address: IpAddr) -> Result<(), DatapathError> {
        self.endpoints.remove(&address.into())
    }

    /// The host ports that lead to pods: where packets are sent to, and where they go.
    pub fn host_ports(&self) -> Result<BTreeMap<FrontendKey, Backend>, DatapathError> {
        self.host_ports.entries().collect()
    }

    /// Opens a host port, or lets it lead elsewhere.
    pub fn put_host_port(&mut self, key: &FrontendKey, backend: &Backend) -> Result<(), DatapathError> {
        self.host_ports.put(key, backend)
    }

    /// Closes a host port.
    pub fn remove_host_port(&mut self, key: &FrontendKey) -> Result<(), DatapathError> {
        self.host_ports.remove(key)
    }

    /// Packets dropped so far, by reason.
    pub fn drops(&self) -> Result<Vec<(DropReason, u64)>, DatapathError> {
        counters::drops(&self.pins)
    }

    /// The packet that was last dropped for want of room, for [`DropReason::NatExhausted`] or
    /// [`DropReason::FlowTableFull`], as text.
    pub fn last_refused(&self, reason: DropReason) -> Result<String, DatapathError> {
        counters::last_refused(&self.pins, reason)
    }

    /// Removes connections that have expired at `now`, in seconds of the monotonic clock. Looks at a part of the
    /// table in each call, so that a call's time is bounded; tells what it found when it has seen the whole.
    pub fn collect_flows(&mut self, now: u32) -> Result<Option<FlowCensus>, DatapathError> {
        self.flows.collect(now)
    }

    /// How many entries the table of connections can hold.
    pub fn flow_capacity(&self) -> Result<usize, DatapathError> {
        let info = load::map_info(&self.pins.map(map_name::FLOWS), map_name::FLOWS)?;
        Ok(info.max_entries() as usize)
    }

    /// How full each map is, given what the proxy knows of its own.
    pub fn map_usage(&self, services: &Observed) -> Result<Vec<MapUsage>, DatapathError> {
        counters::map_usage(&self.pins, services, self.flows.entries())
    }

    /// How often each program ran, and for how long, as far as the kernel counts that.
    pub fn program_runs(&self) -> Result<Vec<ProgramRuns>, DatapathError> {
        counters::program_runs(&self.pins)
    }
}

/// Makes a table hold just these entries: what is new first, what is gone last.
fn replace<K, V>(table: &mut Table<K, V>, wanted: &BTreeMap<K, V>) -> Result<(), DatapathError>
where
    K: Pod + Ord + std::fmt::Debug,
    V: Pod + PartialEq,
{
    let held: BTreeMap<K, V> = table.entries().collect::<Result<_, _>>()?;
    for (key, value) in wanted {
        if held.get(key) != Some(value) {
            table.put(key, value)?;
        }
    }
    held.keys().filter(|key| !wanted.contains_key(*key)).try_for_each(|key| table.remove(key))
}

/// Networks in the form of the trie: (prefix length over 128 bits, address), each with the flags of all the
/// networks around it.
fn merge_networks(networks: &BTreeMap<IpNet, u32>) -> BTreeMap<(u32, Addr), u32> {
    let mut sorted: Vec<_> = networks.iter().map(|(network, flags)| (network.trunc(), *flags)).collect();
    // A network comes before all that are in it, and those before what is outside.
    sorted.sort_unstable();
    let mut around: Vec<(IpNet, u32)> = Vec::new();
    let mut merged = BTreeMap::new();
    for (network, own) in sorted {
        around.truncate(around.iter().take_while(|(outer, _)| outer.contains(&network)).count());
        let flags = own | around.last().map_or(0, |(_, flags)| *flags);
        around.push((network, flags));
        let extra = if network.addr().is_ipv4() { 96 } else { 0 };
        merged.insert((u32::from(network.prefix_len()) + extra, network.network().into()), flags);
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_inside_another_has_the_flags_of_both() {
        let net = |text: &str| text.parse::<IpNet>().unwrap();
        let merged = merge_networks(
            &[
                (net("10.244.0.0/16"), 1),
                (net("10.244.1.0/24"), 2),
                (net("10.244.1.7/32"), 4),
                (net("10.244.2.0/24"), 8),
                (net("10.245.0.0/24"), 2),
                (net("fd00::/64"), 1),
            ]
            .into(),
        );
        let addr = |text: &str| Addr::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(merged[&(112, addr("10.244.0.0"))], 1);
        assert_eq!(merged[&(120, addr("10.244.1.0"))], 3);
        assert_eq!(merged[&(128, addr("10.244.1.7"))], 7);
        assert_eq!(merged[&(120, addr("10.244.2.0"))], 9);
        assert_eq!(merged[&(120, addr("10.245.0.0"))], 2);
        assert_eq!(merged[&(64, addr("fd00::"))], 1);
    }
}
