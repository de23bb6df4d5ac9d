//! What the datapath counts, and how full its maps are.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::Path,
    time::Duration,
};

use aya::programs::ProgramInfo;
use sluice_ebpf_common::{
    Addr, Backend, Be16, DropReason, Endpoint, FRONTEND_LOCAL_INSIDE, FRONTEND_LOCAL_OUTSIDE, FlowKey,
    FrontendKey, SERVICE_DROP_IF_EMPTY, Service, map_name, program_name,
};
use sluice_model::IpFamily;

use crate::{
    DatapathError, Observed, Pins, load,
    tables::{self, Table},
};

/// How full a map is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapUsage {
    /// The map's name.
    pub map: &'static str,
    /// Entries in it.
    pub used: usize,
    /// Entries that it can hold.
    pub capacity: usize,
}

/// Packets dropped so far, by reason.
pub(crate) fn drops(pins: &Pins) -> Result<Vec<(DropReason, u64)>, DatapathError> {
    let counters = tables::per_cpu::<u64>(pins, map_name::DROPS)?;
    DropReason::ALL
        .iter()
        .map(|reason| {
            let values = counters.get(&(*reason as u32), 0).map_err(DatapathError::map(
                "get",
                map_name::DROPS,
                reason.label(),
            ))?;
            Ok((*reason, values.iter().sum()))
        })
        .collect()
}

/// The packet that was last refused for want of room: of a source port, or in the table of connections.
pub(crate) fn last_refused(pins: &Pins, reason: DropReason) -> Result<String, DatapathError> {
    let FlowKey { src, dst, sport, dport, proto } = tables::array::<FlowKey>(pins, map_name::REFUSED)?
        .get(&(reason as u32), 0)
        .map_err(DatapathError::map("get", map_name::REFUSED, reason.label()))?;
    let at = |addr: Addr, port: Be16| SocketAddr::new(addr.into(), port.to_host());
    Ok(format!("{} > {} protocol {proto}", at(src, sport), at(dst, dport)))
}

/// How full each map is. What the proxy writes is counted in its copy; the table of connections was counted when it
/// was last walked; the rest is small.
pub(crate) fn map_usage(
    pins: &Pins,
    services: &Observed,
    flow_entries: usize,
) -> Result<Vec<MapUsage>, DatapathError> {
    let endpoints = Table::<Addr, Endpoint>::open(pins, map_name::ENDPOINTS)?.count()?;
    let host_ports = Table::<FrontendKey, Backend>::open(pins, map_name::HOST_PORTS)?.count()?;
    [
        (map_name::FRONTENDS, services.frontends.len()),
        (map_name::SERVICES, services.services.len()),
        (map_name::SLOTS, services.slots.len()),
        (map_name::BACKENDS, services.backends.len()),
        (map_name::MEMBERS, services.members.len()),
        (map_name::SOURCE_RANGES, services.source_ranges.len()),
        (map_name::ENDPOINTS, endpoints),
        (map_name::HOST_PORTS, host_ports),
        (map_name::FLOWS, flow_entries),
    ]
    .into_iter()
    .map(|(map, used)| {
        let capacity = load::map_info(&pins.map(map), map)?.max_entries() as usize;
        Ok(MapUsage { map, used, capacity })
    })
    .collect()
}

/// How often a program ran, and for how long. Zero unless the kernel counts: while somebody holds
/// [`count_runs`]'s descriptor, or `kernel.bpf_stats_enabled` is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramRuns {
    /// The program's name.
    pub program: &'static str,
    /// How often it ran since it was loaded.
    pub count: u64,
    /// How long in all.
    pub time: Duration,
}

/// Lets the kernel count the runs of all programs on the machine, until what is returned is dropped. It costs some
/// tens of nanoseconds a run.
pub fn count_runs() -> Result<OwnedFd, DatapathError> {
    aya::sys::enable_stats(aya::sys::Stats::RunTime)
        .map_err(|error| DatapathError::io("enable the statistics of", Path::new("programs"))(error.io_error))
}

/// The runs of the pinned programs.
pub fn program_runs(pins: &Pins) -> Result<Vec<ProgramRuns>, DatapathError> {
    let there = program_name::ALL.into_iter().filter(|program| pins.program(program).exists());
    there
        .map(|program| {
            let failed = |error| DatapathError::program("look at", program)(error);
            let info = ProgramInfo::from_pin(pins.program(program)).map_err(failed)?;
            let fd = info.fd().map_err(failed)?;
            // aya keeps these two to itself; the kernel shows them here as well.
            let path = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
            let text = fs::read_to_string(&path).map_err(DatapathError::io("read", Path::new(&path)))?;
            let (count, time) =
                (field(&text, "run_cnt:"), Duration::from_nanos(field(&text, "run_time_ns:")));
            Ok(ProgramRuns { program, count, time })
        })
        .collect()
}

/// A number of an fdinfo file; 0 where it is not there.
fn field(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

/// Services' ports whose traffic policy wants an endpoint of this node where there is none, though there are others:
/// their traffic is dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WithoutLocal {
    /// By `internalTrafficPolicy`.
    pub internal: usize,
    /// By `externalTrafficPolicy`.
    pub external: usize,
}

/// The services' ports of a family that have no endpoints here, where the policy wants one.
pub(crate) fn without_local(services: &Observed, family: IpFamily) -> WithoutLocal {
    let mut without = [BTreeSet::new(), BTreeSet::new()];
    for (key, frontend) in &services.frontends {
        let drops = |service: &Service| service.count == 0 && service.flags & SERVICE_DROP_IF_EMPTY != 0;
        if frontend.local == 0
            || key.addr.is_v4() != (family == IpFamily::V4)
            || !services.services.get(&frontend.local).is_some_and(drops)
        {
            continue;
        }
        for (set, flag) in without.iter_mut().zip([FRONTEND_LOCAL_INSIDE, FRONTEND_LOCAL_OUTSIDE]) {
            if frontend.flags & flag != 0 {
                set.insert(frontend.local);
            }
        }
    }
    WithoutLocal { internal: without[0].len(), external: without[1].len() }
}

#[cfg(test)]
mod tests {
    use sluice_ebpf_common::Frontend;

    use super::*;
    use crate::MapOp;

    #[test]
    fn a_program_that_ran_is_read() {
        let text = "pos:\t0\nprog_id:\t7\nrun_time_ns:\t1500\nrun_cnt:\t3\nrecursion_misses:\t0\n";
        assert_eq!((field(text, "run_cnt:"), field(text, "run_time_ns:")), (3, 1500));
        assert_eq!(field("pos:\t0\n", "run_cnt:"), 0);
    }

    #[test]
    fn only_ports_that_drop_for_want_of_an_endpoint_here_count() {
        let mut held = Observed::default();
        let key = |octet: u8, port| FrontendKey {
            addr: std::net::Ipv4Addr::new(10, 96, 0, octet).into(),
            port: sluice_ebpf_common::Be16::from_host(port),
            proto: 6,
            pad: 0,
        };
        let empty = Service { flags: SERVICE_DROP_IF_EMPTY, ..Service::default() };
        let full = Service { count: 1, ..Service::default() };
        for (id, service) in [(2, empty), (4, full), (6, empty)] {
            held.apply(&MapOp::PutService { id, service });
        }
        let both = FRONTEND_LOCAL_INSIDE | FRONTEND_LOCAL_OUTSIDE;
        for (octet, service, local, flags) in [
            (1, 1, 2, FRONTEND_LOCAL_INSIDE),
            (2, 1, 2, both),
            (3, 3, 4, both),
            (4, 5, 6, FRONTEND_LOCAL_OUTSIDE),
        ] {
            let frontend = Frontend { service, local, flags };
            held.apply(&MapOp::PutFrontend { key: key(octet, 80), frontend });
        }
        assert_eq!(without_local(&held, IpFamily::V4), WithoutLocal { internal: 1, external: 2 });
        assert_eq!(without_local(&held, IpFamily::V6), WithoutLocal::default());
    }
}
