//! The bench for packet tables: the real programs in a namespace of their own, fed one packet at a time through
//! `BPF_PROG_TEST_RUN`. Nothing is attached and nothing is sent; a packet's fate is the verdict and its bytes.

#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "a bench that cannot be set up fails the test that wants it"
)]

use std::{
    collections::BTreeMap,
    fs, io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    path::Path,
};

use aya::{
    maps::{HashMap, MapData},
    programs::SchedClassifier,
};
use ipnet::IpNet;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use sluice_ebpf_common::{
    Backend, Be16, DropReason, Endpoint, Flow, FlowKey, Frontend, FrontendKey, NETWORK_LOCAL_PODS,
    NETWORK_NO_MASQUERADE, NODE_ADDRESS_INNER, NODE_ADDRESS_PORTS, NODE_MAC, SERVICE_DEVICE,
    SERVICE_PEER_DEVICE, Service, SlotKey, Uplink, map_name,
};
use sluice_model::{Changes, Snapshot};
use sluice_proxy::{
    Datapath, DatapathConfig, FlowTimeouts, Hook, MapOp, MapStore, PinnedStore, Proxy, ProxyConfig,
};

use crate::{
    packet::{self, Packet, Shown},
    test_run::{DEVICE_SUM, test_run},
};

/// The node's IPv4 address.
pub const NODE_V4: &str = "192.0.2.1";
/// The node's IPv6 address.
pub const NODE_V6: &str = "2001:db8::1";
/// Where the pins are, in the bench's own mount namespace.
const BPFFS: &str = "/run/bpf";

/// What became of a packet.
#[derive(Debug, PartialEq, Eq)]
pub enum Fate {
    /// Left to the kernel, as this.
    Pass(String),
    /// Sent on by the datapath, as this.
    Redirect(String),
    /// Counted as dropped, and answered with this.
    Answer(String),
    /// Dropped for this reason.
    Drop(&'static str),
}

/// Sent on by the datapath, as this.
pub fn redirect(text: &str) -> Fate {
    Fate::Redirect(text.to_owned())
}

/// Left to the kernel, as this.
pub fn pass(text: &str) -> Fate {
    Fate::Pass(text.to_owned())
}

/// The bench: a node with two pods, `pod 1` and `pod 2`, on devices of their own.
pub struct Bench {
    datapath: Datapath,
    store: PinnedStore,
    programs: BTreeMap<&'static str, SchedClassifier>,
    devices: BTreeMap<&'static str, u32>,
    next: u32,
}

/// Runs a test on a bench, on a thread of its own; everything is gone with the thread.
pub fn with_bench(test: impl FnOnce(&mut Bench) + Send) {
    with_kernel(false, test);
}

/// The same, as on a kernel without `BPF_F_IPV6` if `without_csum_v6`.
pub fn with_kernel(without_csum_v6: bool, test: impl FnOnce(&mut Bench) + Send) {
    std::thread::scope(|scope| {
        let run = scope.spawn(|| test(&mut Bench::new(without_csum_v6)));
        if let Err(panic) = run.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

impl Bench {
    fn new(without_csum_v6: bool) -> Self {
        own_namespaces();
        for forwarding in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            fs::write(Path::new("/proc/sys/net").join(forwarding), "1").expect("a setting of the namespace");
        }
        let mut link = sluice_netlink::Netlink::open().expect("netlink");
        for (name, peer) in [
            (SERVICE_DEVICE, SERVICE_PEER_DEVICE),
            ("pod1", "pod1-in"),
            ("pod2", "pod2-in"),
            ("wire", "wire-out"),
        ] {
            let end = sluice_netlink::VethEnd::new(name).up();
            let end = match name {
                SERVICE_DEVICE => end.mac(NODE_MAC.into()).noarp(),
                // Frames from elsewhere are for this device.
                "wire" => end.mac(packet::DESTINATION_MAC.into()),
                _ => end,
            };
            link.create_veth(&end, &sluice_netlink::VethEnd::new(peer).up()).expect("veth");
        }
        let devices = ["pod1", "pod2", "wire", SERVICE_DEVICE, "lo"]
            .map(|name| (name, link.link(name).expect("a device just made").index));
        let devices = BTreeMap::from(devices);
        let config = DatapathConfig {
            bpffs: BPFFS.into(),
            cgroup_root: None,
            object: None,
            // Room for connections from all ports of an address.
            flow_entries: 1 << 17,
            flow_timeouts: FlowTimeouts::default(),
            service_ifindex: devices[SERVICE_DEVICE],
            attach: None,
            without_csum_v6,
        };
        let mut datapath = Datapath::open(&config).unwrap_or_else(|error| panic!("{}", chain(&error)));
        let pins = datapath.pins().clone();
        let store = PinnedStore::open(&pins).expect("the services' maps");
        let programs = [Hook::FromPod, Hook::FromWire, Hook::ToWire, Hook::FromHost].map(|hook| {
            let name = hook.program();
            (name, SchedClassifier::from_pin(pins.program(name)).expect("a pinned program"))
        });
        let own = [NODE_V4, NODE_V6].map(|address| (ip(address), NODE_ADDRESS_PORTS));
        let loopback = ["127.0.0.1", "::1"].map(|a| (ip(a), NODE_ADDRESS_PORTS | NODE_ADDRESS_INNER));
        let node: BTreeMap<IpAddr, u32> = own.into_iter().chain(loopback).collect();
        datapath.set_node_addresses(&node).expect("node addresses");
        let uplink = Uplink { v4: ip(NODE_V4).into(), v6: ip(NODE_V6).into() };
        datapath.set_uplinks(&[(0, uplink)].into()).expect("uplinks");
        let networks = ["10.244.0.0/16", "fd00:10:244::/48"].map(|net| (network(net), NETWORK_NO_MASQUERADE));
        let local = ["10.244.1.0/24", "fd00:10:244:1::/64"].map(|net| (network(net), NETWORK_LOCAL_PODS));
        datapath.set_networks(&networks.into_iter().chain(local).collect(), true).expect("networks");
        let mut bench = Self { datapath, store, programs: programs.into(), devices, next: 1 };
        for (device, addresses, mac) in [
            ("pod1", ["10.244.1.11", "fd00:10:244:1::11"], 0x11),
            ("pod2", ["10.244.1.12", "fd00:10:244:1::12"], 0x12),
        ] {
            let ifindex = bench.devices[device];
            let endpoint =
                Endpoint { ifindex, pod_mac: [mac; 6], gateway_mac: [0xaa; 6], ..Endpoint::default() };
            for address in addresses {
                bench.datapath.put_endpoint(ip(address), &endpoint).expect("an endpoint");
            }
        }
        bench
    }

    /// A service with these frontends (address, protocol, flags) and backends; returns its id and the backends'.
    pub fn service(&mut self, frontends: &[(&str, u16, u32)], backends: &[&str]) -> (u32, Vec<u32>) {
        let service = self.id();
        let ids: Vec<u32> = backends.iter().map(|_| self.id()).collect();
        for (index, (backend, id)) in backends.iter().zip(&ids).enumerate() {
            let at: SocketAddr = backend.parse().expect("a backend's address");
            let backend = Backend { addr: at.ip().into(), port: Be16::from_host(at.port()), pad: 0, service };
            self.apply(&MapOp::PutBackend { id: *id, backend });
            self.apply(&MapOp::PutSlot { key: SlotKey { service, index: index as u32 }, backend: *id });
        }
        let value = Service { count: backends.len() as u32, ..Service::default() };
        self.apply(&MapOp::PutService { id: service, service: value });
        for (frontend, proto, flags) in frontends {
            let key = frontend_key(frontend, *proto);
            self.apply(&MapOp::PutFrontend { key, frontend: Frontend { service, local: 0, flags: *flags } });
        }
        (service, ids)
    }

    /// How many instructions the verifier looked at, by program.
    pub fn verified_instructions(&self) -> BTreeMap<&'static str, u32> {
        let count = |program: &SchedClassifier| {
            let info = program.info().expect("what the kernel says of a program");
            info.verified_instruction_count().expect("a kernel that counts (5.16)")
        };
        self.programs.iter().map(|(name, program)| (*name, count(program))).collect()
    }

    /// Lets the proxy program a snapshot, on node `n1` without the fast path. As after a restart, it takes over
    /// what the maps hold.
    pub fn sync(&mut self, snapshot: &Snapshot) {
        let node = ProxyConfig { name: "n1".into(), ..ProxyConfig::default() };
        let store = PinnedStore::open(self.datapath.pins()).expect("the services' maps");
        let mut proxy = Proxy::new(store, node).expect("what the maps hold");
        let report = proxy.sync(snapshot, &Changes::everything());
        assert!(report.errors.is_empty(), "{:?}", report.errors);
    }

    /// A host port (address, protocol) that leads to a pod's port; `None` takes it away.
    pub fn host_port(&mut self, at: &str, proto: u16, pod: Option<&str>) {
        self.host_port_with(at, proto, pod, 0);
    }

    /// The same, with what the plugin says in the place of a service.
    pub fn host_port_with(&mut self, at: &str, proto: u16, pod: Option<&str>, flags: u32) {
        let pin = self.datapath.pins().map(map_name::HOST_PORTS);
        let map = MapData::from_pin(pin).expect("the pinned map");
        let mut map: HashMap<_, FrontendKey, Backend> =
            aya::maps::Map::HashMap(map).try_into().expect("a hash map");
        let key = frontend_key(at, proto);
        match pod {
            Some(pod) => {
                let pod: SocketAddr = pod.parse().expect("a pod's address");
                let port = Be16::from_host(pod.port());
                let backend = Backend { addr: pod.ip().into(), port, pad: 0, service: flags };
                map.insert(key, backend, 0).expect("a host port");
            }
            None => map.remove(&key).expect("a host port that is there"),
        }
    }

    /// Enters what the datapath would have, of other connections.
    pub fn flows(&mut self, flows: impl Iterator<Item = (FlowKey, Flow)>) {
        let pin = self.datapath.pins().map(map_name::FLOWS);
        let map = MapData::from_pin(pin).expect("the pinned map");
        let mut map: HashMap<_, FlowKey, Flow> =
            aya::maps::Map::LruHashMap(map).try_into().expect("a table of connections");
        for (key, flow) in flows {
            map.insert(key, flow, 0).expect("a flow");
        }
    }

    /// Gives a device, which is up from then on, an address.
    pub fn address(&mut self, device: &str, address: &str) {
        let index = self.devices[device];
        let mut link = sluice_netlink::Netlink::open().expect("netlink");
        link.set_up(index).expect("a device");
        let flags = sluice_netlink::AddressFlags { nodad: true, ..Default::default() };
        link.add_address(index, network(address), flags).expect("an address");
    }

    /// Enters a neighbour on a device.
    pub fn neighbour(&mut self, device: &str, address: &str) {
        let mut link = sluice_netlink::Netlink::open().expect("netlink");
        let mac = packet::DESTINATION_MAC.into();
        link.set_neighbour(self.devices[device], ip(address), mac).expect("a neighbour");
    }

    /// A device's index.
    pub fn device(&self, name: &str) -> u32 {
        self.devices[name]
    }

    /// Applies one operation to the services' maps.
    pub fn apply(&mut self, op: &MapOp) {
        self.store.apply(op).unwrap_or_else(|error| panic!("{op}: {error}"));
    }

    /// The datapath.
    pub fn datapath(&mut self) -> &mut Datapath {
        &mut self.datapath
    }

    /// Sends a packet through a program on a device; tells its fate.
    pub fn send(&mut self, hook: Hook, device: &str, packet: &Packet) -> Fate {
        self.send_frame(hook, device, &packet.frame())
    }

    /// Sends any bytes through a program.
    pub fn send_frame(&mut self, hook: Hook, device: &str, frame: &[u8]) -> Fate {
        let before = self.drops();
        let (verdict, out) = self.run(hook, device, frame);
        let text = || Shown(&out).to_string();
        match verdict {
            -1 => Fate::Pass(text()),
            7 if self.drops() != before => Fate::Answer(text()),
            7 => Fate::Redirect(text()),
            2 => {
                let after = self.drops();
                let counted: Vec<_> =
                    DropReason::ALL.iter().filter(|r| after[**r as usize] > before[**r as usize]).collect();
                match counted[..] {
                    [reason] => Fate::Drop(reason.label()),
                    _ => panic!("a drop counted {} times", counted.len()),
                }
            }
            other => panic!("verdict {other}"),
        }
    }

    /// Runs a program on a frame; its verdict, and what it makes of the frame.
    pub fn run(&mut self, hook: Hook, device: &str, frame: &[u8]) -> (i32, Vec<u8>) {
        self.run_as(hook, device, frame, 0).unwrap_or_else(|error| panic!("test run: {error}"))
    }

    /// Runs a program on a frame that bears a device's sum over it, which must be right afterwards.
    pub fn run_summed(&mut self, hook: Hook, device: &str, frame: &[u8]) -> io::Result<(i32, Vec<u8>)> {
        self.run_as(hook, device, frame, DEVICE_SUM)
    }

    fn run_as(&mut self, hook: Hook, device: &str, frame: &[u8], flags: u32) -> io::Result<(i32, Vec<u8>)> {
        // struct __sk_buff: the device's index is the eleventh word.
        let mut context = [0u8; 192];
        context[40..44].copy_from_slice(&self.devices[device].to_ne_bytes());
        let program = self.programs[hook.program()].fd().expect("a loaded program");
        test_run(program.as_fd(), frame, &context, flags)
    }

    fn drops(&self) -> Vec<u64> {
        self.datapath.drops().expect("the drop counters").into_iter().map(|(_, count)| count).collect()
    }

    fn id(&mut self) -> u32 {
        self.next += 1;
        self.next
    }
}

/// A network and a mount namespace for this thread, with a BPF file system that nobody else sees.
fn own_namespaces() {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("unshare (are you root?)");
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
        .expect("private mounts");
    mount(Some("tmpfs"), "/run", Some("tmpfs"), MsFlags::empty(), None::<&str>).expect("a tmpfs");
    fs::create_dir(Path::new(BPFFS)).expect("a directory for the pins");
    mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>).expect("a BPF file system");
}

fn frontend_key(at: &str, proto: u16) -> FrontendKey {
    let at: SocketAddr = at.parse().expect("a frontend's address");
    FrontendKey { addr: at.ip().into(), port: Be16::from_host(at.port()), proto, pad: 0 }
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn network(text: &str) -> IpNet {
    text.parse().expect("a network")
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}
