//! Every map, with who writes it, and the load-time globals. The capacities here are the defaults; the loader
//! sets others from the node's configuration.

#![expect(unsafe_code, reason = "map lookups return pointers into the kernel's memory")]

use aya_ebpf::{
    Global,
    bindings::BPF_F_NO_PREALLOC,
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, lpm_trie::Key},
};
use sluice_ebpf_common::{
    Addr, Affinity, AffinityKey, Backend, DropReason, Endpoint, Flow, FlowKey, FragmentKey, FragmentPorts,
    Frontend, FrontendKey, MemberKey, Network, Service, SlotKey, SourceRangeKey, Uplink,
};

// The loader sets the globals. What they begin with stands for nothing, and must be a value that occurs nowhere
// else: the optimiser merges equal constants, and a constant merged with a global changes when that is set.

/// Index of the service device.
#[unsafe(no_mangle)]
static SERVICE_IFINDEX: Global<u32> = Global::new(0x5e41_1fdc);

/// `BPF_F_IPV6` where the kernel knows it (6.16), otherwise 0.
#[unsafe(no_mangle)]
static CSUM_V6_FLAG: Global<u64> = Global::new(0x5e41_1fdc_c5a6_f1a9);

// Not preallocated: their size follows the cluster's, and an element is replaced as a whole.

/// Written by the proxy.
#[map(name = "frontends")]
static FRONTENDS: HashMap<FrontendKey, Frontend> = HashMap::pinned(131_072, BPF_F_NO_PREALLOC);
/// Written by the proxy.
#[map(name = "services")]
static SERVICES: HashMap<u32, Service> = HashMap::pinned(131_072, BPF_F_NO_PREALLOC);
/// Written by the proxy.
#[map(name = "slots")]
static SLOTS: HashMap<SlotKey, u32> = HashMap::pinned(524_288, BPF_F_NO_PREALLOC);
/// Written by the proxy.
#[map(name = "backends")]
static BACKENDS: HashMap<u32, Backend> = HashMap::pinned(262_144, BPF_F_NO_PREALLOC);
/// Written and read by the proxy alone; here so that it is pinned with the rest.
#[map(name = "ids")]
static IDS: Array<u64> = Array::pinned(2, 0);
/// Written by the datapath; the agent removes what has expired. About 170 bytes an entry, two entries a
/// connection, all of it taken at once (an LRU map cannot do otherwise).
#[map(name = "flows")]
static FLOWS: LruHashMap<FlowKey, Flow> = LruHashMap::pinned(262_144, 0);
/// Written by the plugin and the agent.
#[map(name = "endpoints")]
static ENDPOINTS: HashMap<Addr, Endpoint> = HashMap::pinned(16_384, BPF_F_NO_PREALLOC);
/// Written by the agent.
#[map(name = "networks")]
static NETWORKS: LpmTrie<Addr, Network> = LpmTrie::pinned(65_536, BPF_F_NO_PREALLOC);
/// Written by the agent.
#[map(name = "node_addresses")]
static NODE_ADDRESSES: HashMap<Addr, u32> = HashMap::pinned(1_024, BPF_F_NO_PREALLOC);
/// Written by the agent; index 0 holds the node's primary addresses.
#[map(name = "uplinks")]
static UPLINKS: HashMap<u32, Uplink> = HashMap::pinned(256, BPF_F_NO_PREALLOC);
/// Written by the datapath.
#[map(name = "drops")]
static DROPS: PerCpuArray<u64> = PerCpuArray::pinned(64, 0);
/// Written by the connect hooks.
#[map(name = "peers")]
static PEERS: LruHashMap<u64, FrontendKey> = LruHashMap::pinned(65_536, 0);

/// Written by the datapath.
#[map(name = "affinities")]
static AFFINITIES: LruHashMap<AffinityKey, Affinity> = LruHashMap::pinned(65_536, 0);
/// Written by the proxy.
#[map(name = "members")]
static MEMBERS: HashMap<MemberKey, u32> = HashMap::pinned(262_144, BPF_F_NO_PREALLOC);
/// Written by the proxy.
#[map(name = "source_ranges")]
static SOURCE_RANGES: LpmTrie<SourceRangeKey, u32> = LpmTrie::pinned(65_536, BPF_F_NO_PREALLOC);
/// Written by the datapath.
#[map(name = "fragments")]
static FRAGMENTS: LruHashMap<FragmentKey, FragmentPorts> = LruHashMap::pinned(8_192, 0);
/// Written by the datapath.
#[map(name = "refused")]
static REFUSED: Array<FlowKey> = Array::pinned(64, 0);
/// Written by the plugin and the agent.
#[map(name = "host_ports")]
static HOST_PORTS: HashMap<FrontendKey, Backend> = HashMap::pinned(16_384, BPF_F_NO_PREALLOC);

/// Index of the service device.
#[inline(always)]
pub fn service_ifindex() -> u32 {
    SERVICE_IFINDEX.load()
}

/// The flag for changing an IPv6 packet's checksum.
#[inline(always)]
pub fn csum_v6_flag() -> u64 {
    CSUM_V6_FLAG.load()
}

/// Makes a lookup that copies nothing: the value stays in the kernel's memory. Of a map that is not
/// preallocated, a value that goes while it is being read is freed only after the program has run (RCU).
macro_rules! lookup {
    ($(#[$doc:meta])* $name:ident, $map:ident, $key:ty => $value:ty) => {
        $(#[$doc])*
        #[inline(always)]
        pub fn $name(key: &$key) -> Option<&'static $value> {
            // SAFETY: the pointer is valid until the program returns, and a program's references do not
            // outlive its run.
            $map.get_ptr(key).map(|value| unsafe { &*value })
        }
    };
}

lookup!(/** The service behind an address. */ frontend, FRONTENDS, FrontendKey => Frontend);
lookup!(/** A service. */ service, SERVICES, u32 => Service);
lookup!(/** The backend's id in a slot. */ slot, SLOTS, SlotKey => u32);
lookup!(/** A backend. */ backend, BACKENDS, u32 => Backend);
lookup!(/** The pod of this node that has an address. */ endpoint, ENDPOINTS, Addr => Endpoint);
lookup!(/** The node's addresses on an uplink. */ uplink, UPLINKS, u32 => Uplink);
lookup!(/** What a connected socket's peer was before the fast path. */ peer, PEERS, u64 => FrontendKey);

lookup!(/** The pod behind a host port. */ host_port, HOST_PORTS, FrontendKey => Backend);
lookup!(/** What (`NODE_ADDRESS_*`) an address is to the node; `None` where it is not its own. */
    node_address, NODE_ADDRESSES, Addr => u32);
lookup!(/** The backend that an endpoint is to a service. */ member, MEMBERS, MemberKey => u32);
lookup!(/** Where a client went last. */ affinity, AFFINITIES, AffinityKey => Affinity);

lookup!(/** What the first fragment of a packet said. */ fragment, FRAGMENTS, FragmentKey => FragmentPorts);

/// Remembers what a first fragment says.
#[inline(always)]
pub fn fragment_put(key: &FragmentKey, ports: &FragmentPorts) {
    // An LRU map takes everything.
    let _ = FRAGMENTS.insert(key, ports, 0);
}

/// Remembers where a client goes.
#[inline(always)]
pub fn affinity_put(key: &AffinityKey, value: &Affinity) {
    // An LRU map takes everything; a client that it forgot is led anywhere.
    let _ = AFFINITIES.insert(key, value, 0);
}

/// Whether a client may use a load balancer's address.
#[inline(always)]
pub fn in_source_ranges(service: u32, client: &Addr) -> bool {
    let key = SourceRangeKey { service: service.to_be(), client: client.words() };
    SOURCE_RANGES.get(Key::new(160, key)).is_some()
}

/// Whether an address is the node's own.
#[inline(always)]
pub fn is_node_address(addr: &Addr) -> bool {
    node_address(addr).is_some()
}

/// The flags (`NETWORK_*`) of the network that an address is in.
#[inline(always)]
pub fn network_flags(addr: &Addr) -> u32 {
    NETWORKS.get(Key::new(128, *addr)).map_or(0, |network| network.flags)
}

/// A flow's entry.
#[inline(always)]
pub fn flow(key: &FlowKey) -> Option<&'static mut Flow> {
    // SAFETY: the pointer is valid until the program returns. Another CPU may write the same entry at the
    // same time: its fields are written one by one with aligned stores, of which the last one wins, and no
    // field's meaning depends on another's being written with it.
    FLOWS.get_ptr_mut(key).map(|value| unsafe { &mut *value })
}

/// Adds a flow's entry, unless there is one.
#[inline(always)]
pub fn flow_add(key: &FlowKey, value: &Flow) -> Result<(), FlowError> {
    const NOEXIST: u64 = 1;
    FLOWS
        .insert(key, value, NOEXIST)
        .map_err(|errno| if errno == -17 { FlowError::Exists } else { FlowError::Full })
}

/// Why a flow's entry was not added.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum FlowError {
    /// There is one.
    Exists,
    /// The map takes no more.
    Full,
}

/// Removes a flow's entry.
#[inline(always)]
pub fn flow_remove(key: &FlowKey) {
    // An entry that is gone already is what was wanted.
    let _ = FLOWS.remove(key);
}

/// Remembers a socket's peer.
#[inline(always)]
pub fn peer_put(cookie: u64, peer: &FrontendKey) {
    // A full table makes getpeername() tell the backend's address: no reason to fail a connection.
    let _ = PEERS.insert(cookie, peer, 0);
}

/// Forgets a socket's peer.
#[inline(always)]
pub fn peer_remove(cookie: u64) {
    let _ = PEERS.remove(cookie);
}

/// Remembers which packet was refused for want of room, so that the agent can tell.
#[inline(always)]
pub fn refused_put(reason: DropReason, key: &FlowKey) {
    // An array has room for every reason.
    let _ = REFUSED.set(reason as u32, key, 0);
}

/// Counts a drop.
#[inline(always)]
pub fn count_drop(reason: DropReason) {
    if let Some(count) = DROPS.get_ptr_mut(reason as u32) {
        // SAFETY: a per-CPU value; programs on one CPU do not interrupt one another here.
        unsafe { *count += 1 };
    }
}
