//! A pod's entry in the datapath, where the agent has pinned one.

use std::{
    fs, io,
    net::IpAddr,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use sluice_ebpf_common::{Addr, Backend, Endpoint, FrontendKey, LAYOUT, map_name, program_name};
use sluice_netlink::{Direction, Netlink};

use crate::{
    bpf::{self, Map, Plain},
    error::{Code, Error, Result},
    store::Attachment,
};

type Endpoints = Map<Addr, Endpoint>;
type HostPorts = Map<FrontendKey, Backend>;

/// The pinned datapath.
#[derive(Debug)]
pub(crate) struct Datapath {
    directory: PathBuf,
    endpoints: Endpoints,
    from_pod: OwnedFd,
    /// The agent attaches programs by filters.
    by_filters: bool,
}

fn failed(verb: &str, path: &Path, error: &io::Error) -> Error {
    Error::new(Code::Datapath, format!("cannot {verb} {}: {error}", path.display()))
}

/// Where the attachment of `from_pod` to a host veth is pinned.
fn link_path(directory: &Path, host_veth: &str) -> PathBuf {
    directory.join("links").join(format!("{}-{host_veth}", program_name::FROM_POD))
}

/// Opens a pin; `None` if there is none.
fn open<T>(path: &Path, open: impl FnOnce(&Path) -> io::Result<T>) -> Result<Option<T>> {
    match open(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("open", path, &error)),
    }
}

impl Datapath {
    /// Opens what is pinned below `bpffs`; `None` if no agent has pinned anything there.
    pub(crate) fn open(bpffs: &Path) -> Result<Option<Self>> {
        let directory = bpffs.join(LAYOUT);
        let from_pod = directory.join("programs").join(program_name::FROM_POD);
        let Some(from_pod) = open(&from_pod, bpf::open)? else { return Ok(None) };
        let Some(endpoints) = open_map(&directory, map_name::ENDPOINTS)? else { return Ok(None) };
        let by_filters = directory.join("clsact").is_dir();
        Ok(Some(Self { directory, endpoints, from_pod, by_filters }))
    }

    /// Brings a pod in: the program on its packets first, then the entries by which packets find it. One without
    /// addresses is none of the datapath's.
    pub(crate) fn enter(&self, record: &Attachment, ifindex: u32) -> Result<()> {
        if record.addresses.is_empty() {
            return Ok(());
        }
        let path = link_path(&self.directory, &record.host_veth);
        // Left by an attachment of the same name that was never deleted: its device is gone, or we would not be here.
        remove_file(&path)?;
        if self.by_filters {
            let name = program_name::FROM_POD;
            Netlink::open()?.set_filter(ifindex, Direction::Ingress, name, self.from_pod.as_fd())?;
            // It keeps nothing attached: the filter goes with the device. It says that the filter is there.
            bpf::pin(&self.from_pod, &path).map_err(|error| failed("pin", &path, &error))?;
        } else {
            let link = bpf::attach_ingress(&self.from_pod, ifindex).map_err(|error| {
                Error::new(Code::Datapath, format!("cannot attach from_pod to {}: {error}", record.host_veth))
            })?;
            bpf::pin(&link, &path).map_err(|error| failed("pin", &path, &error))?;
        }
        let endpoint = record.endpoint(ifindex);
        for address in &record.addresses {
            self.endpoints.put(&Addr::from(address.addr()), &endpoint).map_err(|error| {
                Error::new(
                    Code::Datapath,
                    format!("cannot enter {address} into the map of endpoints: {error}"),
                )
            })?;
        }
        let entries = record.port_entries();
        if entries.is_empty() {
            return Ok(());
        }
        let host_ports = self.host_ports()?;
        for (key, backend) in entries {
            host_ports.put(&key, &backend).map_err(|error| port_failed("enter", &key, "into", &error))?;
        }
        Ok(())
    }

    fn host_ports(&self) -> Result<HostPorts> {
        let found = open_map(&self.directory, map_name::HOST_PORTS)?;
        found.ok_or_else(|| {
            let path = self.directory.join("maps").join(map_name::HOST_PORTS);
            let msg =
                format!("no {}: the agent that pinned the datapath knows no host ports", path.display());
            Error::new(Code::Datapath, msg)
        })
    }

    /// What is not as [`Self::enter`] left it.
    pub(crate) fn check(&self, record: &Attachment, ifindex: u32) -> Result<()> {
        if record.addresses.is_empty() {
            return Ok(());
        }
        let path = link_path(&self.directory, &record.host_veth);
        if !path.exists() {
            return Err(Error::new(
                Code::Damaged,
                format!("the program from_pod is not attached: no {}", path.display()),
            ));
        }
        for address in record.addresses.iter().map(ipnet::IpNet::addr) {
            let found = self.endpoints.get(&Addr::from(address)).map_err(|error| {
                Error::new(
                    Code::Datapath,
                    format!("cannot look {address} up in the map of endpoints: {error}"),
                )
            })?;
            if found != Some(record.endpoint(ifindex)) {
                let what = if found.is_some() { "another entry" } else { "no entry" };
                return Err(Error::new(
                    Code::Damaged,
                    format!("address {address} has {what} in the map of endpoints"),
                ));
            }
        }
        let entries = record.port_entries();
        if entries.is_empty() {
            return Ok(());
        }
        let host_ports = self.host_ports()?;
        for (key, backend) in entries {
            let found = host_ports.get(&key).map_err(|error| port_failed("look up", &key, "in", &error))?;
            if found != Some(backend) {
                let what = if found.is_some() { "another entry" } else { "no entry" };
                let msg = format!("host port {} has {what} in the map of host ports", described(&key));
                return Err(Error::new(Code::Damaged, msg));
            }
        }
        Ok(())
    }
}

fn described(key: &FrontendKey) -> String {
    format!("{} of protocol {} on {}", key.port, key.proto, key.addr)
}

fn port_failed(verb: &str, key: &FrontendKey, into: &str, error: &io::Error) -> Error {
    let msg = format!("cannot {verb} host port {} {into} the map of host ports: {error}", described(key));
    Error::new(Code::Datapath, msg)
}

fn open_map<K: Plain + Ord, V: Plain>(directory: &Path, name: &str) -> Result<Option<Map<K, V>>> {
    open(&directory.join("maps").join(name), Map::open)
}

/// Closes the host ports that lead to these addresses, and no others: another attachment may have got one of them.
pub(crate) fn close_ports(bpffs: &Path, addresses: &[IpAddr]) -> Result<()> {
    close_ports_if(bpffs, |_, backend| addresses.contains(&IpAddr::from(backend.addr)))
}

/// Closes these host ports, as far as they lead where they are said to.
pub(crate) fn close_listed_ports(bpffs: &Path, ports: &[Port]) -> Result<()> {
    if ports.is_empty() {
        return Ok(());
    }
    close_ports_if(bpffs, |key, backend| ports.contains(&(*key, *backend)))
}

/// A host port, and where it leads.
pub(crate) type Port = (FrontendKey, Backend);

fn close_ports_if(bpffs: &Path, unwanted: impl Fn(&FrontendKey, &Backend) -> bool) -> Result<()> {
    let directory = bpffs.join(LAYOUT);
    let Some(host_ports) = open_map::<FrontendKey, Backend>(&directory, map_name::HOST_PORTS)? else {
        return Ok(());
    };
    for (key, backend) in list_ports(&directory, &host_ports)? {
        if unwanted(&key, &backend) {
            host_ports.remove(&key).map_err(|error| port_failed("remove", &key, "from", &error))?;
        }
    }
    Ok(())
}

fn list_ports(directory: &Path, host_ports: &HostPorts) -> Result<Vec<Port>> {
    let mut ports = Vec::new();
    for key in host_ports.keys().map_err(|error| failed("list", directory, &error))? {
        let found = host_ports.get(&key).map_err(|error| port_failed("look up", &key, "in", &error))?;
        ports.extend(found.map(|backend| (key, backend)));
    }
    Ok(ports)
}

/// Takes a pod out: what [`Datapath::enter`] did, or any part of it. Without a host veth, only the addresses.
pub(crate) fn leave(bpffs: &Path, host_veth: &str, addresses: &[IpAddr]) -> Result<()> {
    let directory = bpffs.join(LAYOUT);
    if let Some(endpoints) = open_map::<Addr, Endpoint>(&directory, map_name::ENDPOINTS)? {
        for address in addresses {
            endpoints.remove(&Addr::from(*address)).map_err(|error| {
                Error::new(
                    Code::Datapath,
                    format!("cannot remove {address} from the map of endpoints: {error}"),
                )
            })?;
        }
    }
    if host_veth.is_empty() {
        return Ok(());
    }
    // The last reference: with the pin goes the attachment.
    remove_file(&link_path(&directory, host_veth))
}

/// What is in the datapath.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    /// Addresses with an entry in the map of endpoints.
    pub(crate) addresses: Vec<IpAddr>,
    /// Host ports.
    pub(crate) host_ports: Vec<Port>,
    /// Host veths with a pinned attachment of `from_pod`.
    pub(crate) host_veths: Vec<String>,
}

/// Lists what is pinned; nothing, where nothing is.
pub(crate) fn list(bpffs: &Path) -> Result<Entries> {
    let directory = bpffs.join(LAYOUT);
    let mut entries = Entries::default();
    if let Some(endpoints) = open_map::<Addr, Endpoint>(&directory, map_name::ENDPOINTS)? {
        let addresses = endpoints.keys().map_err(|error| failed("list", &directory, &error))?;
        entries.addresses = addresses.into_iter().map(IpAddr::from).collect();
    }
    if let Some(host_ports) = open_map(&directory, map_name::HOST_PORTS)? {
        entries.host_ports = list_ports(&directory, &host_ports)?;
    }
    let links = directory.join("links");
    let read = match fs::read_dir(&links) {
        Ok(read) => read,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(entries),
        Err(error) => return Err(failed("list", &links, &error)),
    };
    for entry in read {
        let entry = entry.map_err(|error| failed("list", &links, &error))?;
        let name = entry.file_name();
        let host_veth =
            name.to_str().and_then(|name| name.strip_prefix(program_name::FROM_POD)?.strip_prefix('-'));
        entries.host_veths.extend(host_veth.map(str::to_owned));
    }
    Ok(entries)
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Err(failed("remove", path, &error))
        }
        _ => Ok(()),
    }
}
