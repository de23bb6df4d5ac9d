//! A pod's entry in the datapath, where the agent has pinned one.

use std::{
    fs, io,
    net::IpAddr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use sluice_ebpf_common::{Addr, Endpoint, LAYOUT, map_name, program_name};

use crate::{
    bpf::{self, Endpoints},
    error::{Code, Error, Result},
    store::Attachment,
};

/// The pinned datapath.
#[derive(Debug)]
pub(crate) struct Datapath {
    directory: PathBuf,
    endpoints: Endpoints,
    from_pod: OwnedFd,
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
        let Some(endpoints) = open_endpoints(&directory)? else { return Ok(None) };
        Ok(Some(Self { directory, endpoints, from_pod }))
    }

    /// Brings a pod in: the program on its packets first, then the entries by which packets find it.
    pub(crate) fn enter(&self, record: &Attachment, ifindex: u32) -> Result<()> {
        let link = bpf::attach_ingress(&self.from_pod, ifindex).map_err(|error| {
            Error::new(Code::Datapath, format!("cannot attach from_pod to {}: {error}", record.host_veth))
        })?;
        let path = link_path(&self.directory, &record.host_veth);
        // Left by an attachment of the same name that was never deleted: its device is gone, or we would not be here.
        remove_file(&path)?;
        bpf::pin(&link, &path).map_err(|error| failed("pin", &path, &error))?;
        let endpoint = expected_endpoint(record, ifindex);
        for address in &record.addresses {
            self.endpoints.put(&Addr::from(address.addr()), &endpoint).map_err(|error| {
                Error::new(
                    Code::Datapath,
                    format!("cannot enter {address} into the map of endpoints: {error}"),
                )
            })?;
        }
        Ok(())
    }

    /// What is not as [`Self::enter`] left it.
    pub(crate) fn check(&self, record: &Attachment, ifindex: u32) -> Result<()> {
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
            if found != Some(expected_endpoint(record, ifindex)) {
                let what = if found.is_some() { "another entry" } else { "no entry" };
                return Err(Error::new(
                    Code::Damaged,
                    format!("address {address} has {what} in the map of endpoints"),
                ));
            }
        }
        Ok(())
    }
}

fn expected_endpoint(record: &Attachment, ifindex: u32) -> Endpoint {
    Endpoint { ifindex, flags: 0, pod_mac: record.mac.0, gateway_mac: record.gateway_mac.0, pad: 0 }
}

fn open_endpoints(directory: &Path) -> Result<Option<Endpoints>> {
    open(&directory.join("maps").join(map_name::ENDPOINTS), Endpoints::open)
}

/// Takes a pod out: what [`Datapath::enter`] did, or any part of it. Without a host veth, only the addresses.
pub(crate) fn leave(bpffs: &Path, host_veth: &str, addresses: &[IpAddr]) -> Result<()> {
    let directory = bpffs.join(LAYOUT);
    if let Some(endpoints) = open_endpoints(&directory)? {
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
    /// Host veths with a pinned attachment of `from_pod`.
    pub(crate) host_veths: Vec<String>,
}

/// Lists what is pinned; nothing, where nothing is.
pub(crate) fn list(bpffs: &Path) -> Result<Entries> {
    let directory = bpffs.join(LAYOUT);
    let mut entries = Entries::default();
    if let Some(endpoints) = open_endpoints(&directory)? {
        let addresses = endpoints.addresses().map_err(|error| failed("list", &directory, &error))?;
        entries.addresses = addresses.into_iter().map(IpAddr::from).collect();
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
