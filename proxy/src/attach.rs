//! Links between programs and devices, pinned and taken over.

use std::{fs::File, path::Path};

use aya::{
    Ebpf,
    programs::{
        CgroupAttachMode, LinkOrder, SchedClassifier, TcAttachType,
        links::{FdLink, PinnedLink},
        tc::{SchedClassifierLink, TcAttachOptions},
    },
};
use sluice_ebpf_common::program_name;

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

    const fn direction(self) -> TcAttachType {
        match self {
            Self::FromPod | Self::FromWire => TcAttachType::Ingress,
            Self::ToWire | Self::FromHost => TcAttachType::Egress,
        }
    }
}

/// The socket programs.
pub(crate) const SOCKET_PROGRAMS: [&str; 4] =
    [program_name::CONNECT4, program_name::CONNECT6, program_name::GETPEERNAME4, program_name::GETPEERNAME6];

/// The second part of the socket links' pins.
pub(crate) const SOCKET_TARGET: &str = "cgroup";

/// Attaches a program to a device of the caller's network namespace. A pinned link that still holds gets the
/// program in place, without a moment in which there is none; one whose device is gone is made anew.
pub(crate) fn attach(ebpf: &mut Ebpf, pins: &Pins, hook: Hook, device: &str) -> Result<(), DatapathError> {
    let object = format!("{} to {device}", hook.program());
    let path = pins.link(hook.program(), device);
    let program = load::classifier(ebpf, hook.program())?;
    if path.exists() && update(program, &path).is_ok() {
        return Ok(());
    }
    pin::remove(&path)?;
    let id = program
        .attach_with_options(device, hook.direction(), TcAttachOptions::TcxOrder(LinkOrder::default()))
        .map_err(DatapathError::program("attach", &object))?;
    let link = program.take_link(id).map_err(DatapathError::program("take link of", &object))?;
    let link = FdLink::try_from(link).map_err(DatapathError::link("take link of", &object))?;
    link.pin(&path).map_err(DatapathError::link("pin", path.display().to_string()))?;
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
