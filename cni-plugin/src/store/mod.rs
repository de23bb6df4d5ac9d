//! The plugin's memory: which attachments there are, and who holds which address.
//!
//! ```text
//! <state directory>/cni/
//! └── <boot id>/                        everything of this boot, and nothing of another: a reboot takes the
//!     │                                 containers away, so what an earlier boot left is removed
//!     ├── _host-ports                   locked while host ports are chosen, for all networks
//!     └── <network>/
//!         ├── lock                      locked while addresses are chosen or given back; never longer
//!         ├── attachments/
//!         │   └── <container id>:<interface>     the attachment's record (JSON, `record.rs`); locked by the
//!         │                                      one process that works on the attachment; empty until that
//!         │                                      process has decided anything
//!         ├── addresses/
//!         │   └── <address>             a second name (hard link) of the record of the attachment that holds it
//!         └── pool-<first>-<last>       a bit for each address of a range (`pool.rs`); derived from `addresses/`
//! ```
//!
//! What holds at every moment, whatever process was killed wherever:
//!
//! - An address belongs to the attachment whose record its name links to. The kernel makes a name at most once,
//!   so no address is given twice, even without the lock.
//! - A record is there before anything else of an attachment is, and goes last: whatever an attachment left
//!   behind can be found and undone from its record.
//! - Nothing needs to survive the machine going down, so nothing is synced to the disk.
//!
//! A damaged record is reported and stays until the attachment is deleted; the addresses it holds are then
//! found by their links. A damaged pool is made anew from the address files.

mod host_local;
mod host_port;
mod lock;
mod network;
mod pool;
mod record;

use std::{
    fs::{self, DirEntry},
    io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use self::lock::LOCK_LIMIT;
pub(crate) use self::record::VERSION as RECORD_VERSION;
pub use self::{
    host_local::HostLocal,
    host_port::{HostPort, Mapping, PortLock, Protocol, claim_ports},
    network::{Held, Network, Wanted},
    record::{Attachment, PodName, State},
};

const DIRECTORY: &str = "cni";
const ATTACHMENTS: &str = "attachments";
const ADDRESSES: &str = "addresses";
const POOL_PREFIX: &str = "pool-";

/// What can go wrong with the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file or directory.
    #[error("cannot {verb} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        verb: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A record that cannot be read.
    #[error("the record {path} is damaged: {source}", path = path.display())]
    Damaged {
        /// The record.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A record that a newer version wrote.
    #[error("the record {path} has version {version}, which this version does not know", path = path.display())]
    TooNew {
        /// The record.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// The container has this interface already.
    #[error("container {container_id} is attached by {ifname} already; delete that attachment first")]
    Duplicate {
        /// The container.
        container_id: String,
        /// Its interface.
        ifname: String,
    },
    /// Another process works on the same thing and does not finish.
    #[error("another process has held {path} for {LOCK_LIMIT:?}", path = path.display())]
    Busy {
        /// The lock.
        path: PathBuf,
    },
    /// No address is left.
    #[error("no address is free in {ranges} of network {network}")]
    Exhausted {
        /// The network.
        network: String,
        /// The ranges that were tried.
        ranges: String,
    },
    /// An address that was asked for is another's.
    #[error("address {address} is held by {holder}")]
    Taken {
        /// The address.
        address: IpAddr,
        /// Container and interface.
        holder: String,
    },
    /// A host port is another's.
    #[error("host port {port} is held by {holder}")]
    PortTaken {
        /// The port, with its protocol and address, as the holder has it.
        port: String,
        /// Container, interface and pod.
        holder: String,
    },
    /// An address that was asked for is in no range.
    #[error("address {address} is not one that {ranges} of network {network} can give")]
    NotOffered {
        /// The address.
        address: IpAddr,
        /// The network.
        network: String,
        /// The ranges that were tried.
        ranges: String,
    },
}

/// A result of the store.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

fn failed(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Io { verb, path: path.to_owned(), source }
}

/// What [`list`] found.
#[derive(Debug, Default)]
pub struct Listing {
    /// The attachments of all networks, in no order, those being made or taken apart included.
    pub attachments: Vec<Attachment>,
    /// Records that could not be read.
    pub damaged: Vec<StoreError>,
}

/// The directory below which all records are, for a watch: files in `*/*/attachments` below it come, are
/// written and go. Makes it, so that there is something to watch.
pub fn directory(state_dir: &Path) -> Result<PathBuf> {
    let directory = state_dir.join(DIRECTORY);
    fs::create_dir_all(&directory).map_err(failed("make", &directory))?;
    Ok(directory)
}

/// All attachments of this boot, whatever their network. Takes no lock and changes nothing.
///
/// An error means that nothing is known, not that there is nothing; a record that comes or goes meanwhile is in
/// the list or not.
pub fn list(state_dir: &Path) -> Result<Listing> {
    let boot = boot_directory(state_dir)?;
    let mut listing = Listing::default();
    for network in entries(&boot)? {
        let directory = network.path().join(ATTACHMENTS);
        for entry in entries(&directory)? {
            match read_record(&entry.path()) {
                Ok(Some(record)) => listing.attachments.push(record),
                Ok(None) => {}
                Err(error) => listing.damaged.push(error),
            }
        }
    }
    Ok(listing)
}

/// Reads a pool's file and searches it, for fuzzing.
pub(crate) fn try_pool(path: &Path, size: u32) {
    if let Ok(Some(pool)) = pool::Pool::open(path, size) {
        let free = pool.find_free(|_| true);
        assert!(free.is_none_or(|index| index < size && !pool.is_taken(index)));
    }
}

fn boot_directory(state_dir: &Path) -> Result<PathBuf> {
    let source = Path::new("/proc/sys/kernel/random/boot_id");
    let id = fs::read_to_string(source).map_err(failed("read", source))?;
    Ok(state_dir.join(DIRECTORY).join(id.trim()))
}

/// The entries of a directory; none if it does not exist.
fn entries(directory: &Path) -> Result<Vec<DirEntry>> {
    let read = match fs::read_dir(directory) {
        Ok(read) => read,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(failed("list", directory)(error)),
    };
    read.collect::<io::Result<_>>().map_err(failed("list", directory))
}

/// Reads a record; `None` if there is none, or an empty one.
fn read_record(path: &Path) -> Result<Option<Attachment>> {
    match fs::read(path) {
        Ok(bytes) => parse_record(path, &bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    }
}

pub(crate) fn parse_record(path: &Path, bytes: &[u8]) -> Result<Option<Attachment>> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let damaged = |source| StoreError::Damaged { path: path.to_owned(), source };
    #[derive(serde::Deserialize)]
    struct Version {
        version: u32,
    }
    let Version { version } = serde_json::from_slice(bytes).map_err(damaged)?;
    if version > RECORD_VERSION {
        return Err(StoreError::TooNew { path: path.to_owned(), version });
    }
    serde_json::from_slice(bytes).map(Some).map_err(damaged)
}

#[cfg(test)]
pub(crate) mod tests;
