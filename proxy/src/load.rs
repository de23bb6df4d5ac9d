//! Loads the programs with the pinned maps of this layout, or with new ones.

use std::{fs, path::Path};

use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, MapInfo},
    programs::{CgroupSockAddr, Program, SchedClassifier},
};
use sluice_ebpf_common::{
    Addr, Affinity, AffinityKey, Backend, Endpoint, Flow, FlowKey, FragmentKey, FragmentPorts, Frontend,
    FrontendKey, LAYOUT, MemberKey, Network, Service, SlotKey, SourceRangeKey, Uplink, map_name,
};

use crate::{DatapathConfig, DatapathError, Pins, pin, probe::knows_checksum_v6};

/// The object file, built into this binary; empty where it was built without one.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/datapath.o"));

/// `BPF_F_IPV6`, which `bpf_l4_csum_replace` knows since Linux 6.16.
const BPF_F_IPV6: u64 = 1 << 7;

/// Loads all programs and pins maps and programs.
pub(crate) fn load(
    config: &DatapathConfig,
    pins: &Pins,
    service_ifindex: u32,
) -> Result<Ebpf, DatapathError> {
    pins.create()?;
    check_pinned_maps(pins)?;
    let read;
    let object = match &config.object {
        Some(path) => {
            read = fs::read(path).map_err(DatapathError::io("read", path))?;
            &read[..]
        }
        None if OBJECT.is_empty() => return Err(DatapathError::NoObject),
        None => OBJECT,
    };
    let csum_v6_flag = if knows_checksum_v6() && !config.without_csum_v6 { BPF_F_IPV6 } else { 0 };
    let mut ebpf = EbpfLoader::new()
        .default_map_pin_directory(pins.maps())
        .map_max_entries(map_name::FLOWS, config.flow_entries)
        .override_global("SERVICE_IFINDEX", &service_ifindex, true)
        .override_global("CSUM_V6_FLAG", &csum_v6_flag, true)
        .load(object)
        .map_err(|error| DatapathError::Load(Box::new(error)))?;
    for (name, program) in ebpf.programs_mut() {
        load_program(name, program)?;
        pin::replace(&pins.program(name), |path| program.pin(path))?;
    }
    Ok(ebpf)
}

fn load_program(name: &str, program: &mut Program) -> Result<(), DatapathError> {
    let result = match program {
        Program::SchedClassifier(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        _ => return Err(DatapathError::Missing { kind: "program of a known type", name: name.to_owned() }),
    };
    result.map_err(DatapathError::program("load", name))
}

/// A packet program by name.
pub(crate) fn classifier<'a>(
    ebpf: &'a mut Ebpf,
    name: &str,
) -> Result<&'a mut SchedClassifier, DatapathError> {
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| DatapathError::Missing { kind: "program", name: name.to_owned() })
}

/// A socket-address program by name.
pub(crate) fn sock_addr<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut CgroupSockAddr, DatapathError> {
    ebpf.program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or_else(|| DatapathError::Missing { kind: "program", name: name.to_owned() })
}

/// Key and value sizes of every map, in bytes.
fn sizes() -> [(&'static str, usize, usize); map_name::ALL.len()] {
    const fn of<K, V>(name: &'static str) -> (&'static str, usize, usize) {
        (name, size_of::<K>(), size_of::<V>())
    }
    [
        of::<FrontendKey, Frontend>(map_name::FRONTENDS),
        of::<u32, Service>(map_name::SERVICES),
        of::<SlotKey, u32>(map_name::SLOTS),
        of::<u32, Backend>(map_name::BACKENDS),
        of::<u32, u64>(map_name::IDS),
        of::<FlowKey, Flow>(map_name::FLOWS),
        of::<Addr, Endpoint>(map_name::ENDPOINTS),
        // The trie's key begins with the prefix's length.
        of::<(u32, [u32; 4]), Network>(map_name::NETWORKS),
        of::<Addr, u32>(map_name::NODE_ADDRESSES),
        of::<u32, Uplink>(map_name::UPLINKS),
        of::<u32, u64>(map_name::DROPS),
        of::<u64, FrontendKey>(map_name::PEERS),
        of::<AffinityKey, Affinity>(map_name::AFFINITIES),
        of::<MemberKey, u32>(map_name::MEMBERS),
        of::<(u32, SourceRangeKey), u32>(map_name::SOURCE_RANGES),
        of::<FrontendKey, Backend>(map_name::HOST_PORTS),
        of::<FragmentKey, FragmentPorts>(map_name::FRAGMENTS),
        of::<u32, FlowKey>(map_name::REFUSED),
    ]
}

/// The loader takes a pinned map as it is, whatever its sizes; so they are compared here. A difference means
/// that somebody changed the contract without changing [`LAYOUT`].
fn check_pinned_maps(pins: &Pins) -> Result<(), DatapathError> {
    for (map, key_size, value_size) in sizes() {
        let path = pins.map(map);
        if !path.exists() {
            continue;
        }
        let info = map_info(&path, map)?;
        for (what, found, wanted) in [
            ("key size", info.key_size(), key_size as u32),
            ("value size", info.value_size(), value_size as u32),
        ] {
            if found != wanted {
                tracing::error!(map, what, found, wanted, layout = LAYOUT, "pinned map does not fit");
                return Err(DatapathError::Incompatible {
                    map,
                    what,
                    found,
                    wanted,
                    path: pins.root().to_owned(),
                });
            }
        }
    }
    Ok(())
}

/// What the kernel says of a pinned map.
pub(crate) fn map_info(path: &Path, map: &'static str) -> Result<MapInfo, DatapathError> {
    MapData::from_pin(path).and_then(|data| data.info()).map_err(DatapathError::map("open", map, ""))
}
