//! Programs on devices, pinned and taken over.
//!
//! By links (TCX) where the kernel has them. Elsewhere by filters of the qdisc `clsact`; then the pin in the place of the
//! link's is the program itself. It keeps nothing attached, but it says to the plugin and to the next agent
//! that the program is there.

use std::{fs::File, os::fd::AsFd, path::Path};

use aya::{
    Ebpf,
    programs::{
        CgroupAttachMode, LinkOrder, SchedClassifier, TcAttachType,
        links::{FdLink, PinnedLink},
        tc::{SchedClassifierLink, TcAttachOptions},
    },
};
use sluice_ebpf_common::program_name;
use sluice_netlink::{Direction, Netlink};

use crate::{DatapathError, Pins, load, pin};

/// Where a packet program belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// Ingress of a pod's host veth.
    FromPod,
    /// Ingress of an uplink.
    FromWire,
    /// Egress of an uplink.
    ToWire,
    /// Egress of the service device, the loopback device and the bridge.
    FromHost,
}

impl Hook {
    /// The program's name, which is also the first part of the link's pin.
    pub const fn program(self) -> &'static str {
        match self {
            Self::FromPod => program_name::FROM_POD,
            Self::FromWire => program_name::FROM_WIRE,
            Self::ToWire => program_name::TO_WIRE,
            Self::FromHost => program_name::FROM_HOST,
        }
    }

    /// All of them.
    pub const ALL: [Self; 4] = [Self::FromPod, Self::FromWire, Self::ToWire, Self::FromHost];

    const fn direction(self) -> Direction {
        match self {
            Self::FromPod | Self::FromWire => Direction::Ingress,
            Self::ToWire | Self::FromHost => Direction::Egress,
        }
    }

    const fn attach_type(self) -> TcAttachType {
        match self.direction() {
            Direction::Ingress => TcAttachType::Ingress,
            Direction::Egress => TcAttachType::Egress,
        }
    }
}

/// How programs are put on devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AttachKind {
    /// By links (Linux 6.6).
    #[default]
    Tcx,
    /// By filters of the qdisc `clsact`.
    Clsact,
}

/// The socket programs.
pub(crate) const SOCKET_PROGRAMS: [&str; 4] =
    [program_name::CONNECT4, program_name::CONNECT6, program_name::GETPEERNAME4, program_name::GETPEERNAME6];

/// The second part of the socket links' pins.
pub(crate) const SOCKET_TARGET: &str = "cgroup";

/// Attaches a program to a device of the caller's network namespace, in the place of the one that is there. No packet
/// passes between the two.
pub(crate) fn attach(
    ebpf: &mut Ebpf,
    pins: &Pins,
    kind: AttachKind,
    hook: Hook,
    device: &str,
) -> Result<(), DatapathError> {
    match kind {
        AttachKind::Tcx => attach_link(ebpf, pins, hook, device),
        AttachKind::Clsact => attach_filter(ebpf, pins, hook, device),
    }
}

/// A pinned link that still holds gets the program in place; one whose device is gone is made anew.
fn attach_link(ebpf: &mut Ebpf, pins: &Pins, hook: Hook, device: &str) -> Result<(), DatapathError> {
    let object = format!("{} to {device}", hook.program());
    let path = pins.link(hook.program(), device);
    let program = load::classifier(ebpf, hook.program())?;
    if path.exists() && update(program, &path).is_ok() {
        return Ok(());
    }
    let was_pinned = path.exists();
    pin::remove(&path)?;
    let id = program
        .attach_with_options(device, hook.attach_type(), TcAttachOptions::TcxOrder(LinkOrder::default()))
        .map_err(DatapathError::program("attach", &object))?;
    let link = program.take_link(id).map_err(DatapathError::program("take link of", &object))?;
    let link = FdLink::try_from(link).map_err(DatapathError::link("take link of", &object))?;
    link.pin(&path).map_err(DatapathError::link("pin", path.display().to_string()))?;
    if was_pinned {
        // Of an agent that worked by filters, perhaps. Until here, packets met both: the second finds them translated.
        remove_filter(hook, device)?;
    }
    Ok(())
}

fn attach_filter(ebpf: &mut Ebpf, pins: &Pins, hook: Hook, device: &str) -> Result<(), DatapathError> {
    let program = load::classifier(ebpf, hook.program())?;
    let object = format!("{} to {device}", hook.program());
    let mut netlink = Netlink::open()?;
    let index = netlink.link(device)?.index;
    let fd = program.fd().map_err(DatapathError::program("attach", &object))?;
    netlink.set_filter(index, hook.direction(), hook.program(), fd.as_fd())?;
    // In the place of a link, too, which ends with its pin.
    pin::replace(&pins.link(hook.program(), device), |path| program.pin(path))
}

/// Removes the filter of a program, if its device has one.
pub(crate) fn remove_filter(hook: Hook, device: &str) -> Result<(), DatapathError> {
    let mut netlink = Netlink::open()?;
    if let Some(link) = netlink.find_link(device)? {
        netlink.delete_filter(link.index, hook.direction())?;
    }
    Ok(())
}

/// Whether the filter of a program is on a device.
pub(crate) fn has_filter(hook: Hook, device: &str) -> Result<bool, DatapathError> {
    let mut netlink = Netlink::open()?;
    let Some(link) = netlink.find_link(device)? else { return Ok(false) };
    Ok(netlink.filter(link.index, hook.direction())?.is_some_and(|filter| filter.name == hook.program()))
}

/// Removes the filters of everything that is pinned: what only links would do by themselves when their pins go.
pub fn remove_filters(pins: &Pins) -> Result<(), DatapathError> {
    for (program, device) in pins.links()? {
        if let Some(hook) = Hook::ALL.into_iter().find(|hook| hook.program() == program) {
            remove_filter(hook, &device)?;
        }
    }
    Ok(())
}

/// Puts the program behind a pinned link. Fails where the link's device is gone.
fn update(
    program: &mut SchedClassifier,
    path: &Path,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let link = SchedClassifierLink::try_from(FdLink::from(PinnedLink::from_pin(path)?))?;
    let id = program.attach_to_link(link)?;
    // Closing our end leaves the pinned one as it is.
    drop(program.take_link(id)?);
    Ok(())
}

/// Attaches the socket programs to a cgroup. The new links stand beside the old ones for a moment, in which a
/// call meets both: the second finds no service behind the backend's address and leaves it.
pub(crate) fn attach_sockets(ebpf: &mut Ebpf, pins: &Pins, cgroup: &Path) -> Result<(), DatapathError> {
    let directory = File::open(cgroup).map_err(DatapathError::io("open", cgroup))?;
    for name in SOCKET_PROGRAMS {
        let object = format!("{name} to {}", cgroup.display());
        let program = load::sock_addr(ebpf, name)?;
        let id = program
            // A link stands beside others by its nature, and takes no flag that says so.
            .attach(&directory, CgroupAttachMode::Single)
            .map_err(DatapathError::program("attach", &object))?;
        let link = program.take_link(id).map_err(DatapathError::program("take link of", &object))?;
        let link = FdLink::try_from(link).map_err(DatapathError::link("take link of", &object))?;
        pin::replace(&pins.link(name, SOCKET_TARGET), |path| link.pin(path).map(drop))?;
    }
    Ok(())
}

/// Removes a link's pin, and with it the link.
pub(crate) fn detach(pins: &Pins, program: &str, target: &str) -> Result<(), DatapathError> {
    pin::remove(&pins.link(program, target))
}
