//! The plugin's memory: which attachments there are, and who holds which address.
//!
//! ```text
//! <state directory>/cni/
//! └── <boot id>/                        everything of this boot, and nothing of another: a reboot takes the
//!     │                                 containers away, so what an earlier boot left is removed
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

mod pool;
mod record;

use std::{
    fs::{self, DirEntry, File, OpenOptions, TryLockError},
    io::{self, Read},
    net::IpAddr,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    time::Duration,
};

pub(crate) use record::VERSION as RECORD_VERSION;
pub use record::{Attachment, PodName, State};

use self::pool::Pool;
use crate::range::Range;

/// How long to wait for another process that holds a lock.
const LOCK_LIMIT: Duration = Duration::from_secs(20);

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

fn parse_record(path: &Path, bytes: &[u8]) -> Result<Option<Attachment>> {
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

/// The store of one network in this boot.
#[derive(Debug)]
pub struct Network {
    directory: PathBuf,
    name: String,
}

/// An attachment that this process works on, and no other until this is dropped.
#[derive(Debug)]
pub struct Held {
    path: PathBuf,
    file: File,
    inode: u64,
    /// Its record, where it has one that can be read.
    pub record: Option<Attachment>,
    /// What is wrong with its record.
    pub damage: Option<StoreError>,
}

/// Ranges of which an attachment gets one address, and the one it wants.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The ranges, in the order in which they are tried.
    pub ranges: &'a [Range],
    /// The address it must be, if that matters.
    pub address: Option<IpAddr>,
}

impl Network {
    /// The store of the network `name`, made if there is none. What earlier boots left in the state directory
    /// is removed then.
    pub fn open(state_dir: &Path, name: &str) -> Result<Self> {
        let boot = boot_directory(state_dir)?;
        let directory = boot.join(name);
        let network = Self { directory, name: name.to_owned() };
        let addresses = network.directory.join(ADDRESSES);
        if !addresses.is_dir() {
            let first_of_boot = !boot.is_dir();
            for part in [&network.directory.join(ATTACHMENTS), &addresses] {
                fs::create_dir_all(part).map_err(failed("make", part))?;
            }
            if first_of_boot {
                remove_earlier_boots(&boot);
            }
        }
        Ok(network)
    }

    fn record_path(&self, container_id: &str, ifname: &str) -> PathBuf {
        self.directory.join(ATTACHMENTS).join(format!("{container_id}:{ifname}"))
    }

    fn address_path(&self, address: IpAddr) -> PathBuf {
        self.directory.join(ADDRESSES).join(address.to_string())
    }

    /// Starts a new attachment. Until [`Self::reserve`] its record is empty.
    pub fn create(&self, container_id: &str, ifname: &str) -> Result<Held> {
        let path = self.record_path(container_id, ifname);
        let file = match OpenOptions::new().read(true).write(true).create_new(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(StoreError::Duplicate {
                    container_id: container_id.to_owned(),
                    ifname: ifname.to_owned(),
                });
            }
            Err(error) => return Err(failed("make", &path)(error)),
        };
        let held = Held { inode: lock(&file, &path)?, path, file, record: None, damage: None };
        // Between its making and its locking, somebody may have deleted it as one that nobody works on.
        if held.is_current()? { Ok(held) } else { Err(StoreError::Busy { path: held.path }) }
    }

    /// Takes hold of an attachment; `None` if there is no record of it. Waits for the process that works on it.
    pub fn hold(&self, container_id: &str, ifname: &str) -> Result<Option<Held>> {
        self.hold_path(self.record_path(container_id, ifname))
    }

    fn hold_path(&self, path: PathBuf) -> Result<Option<Held>> {
        loop {
            let mut file = match OpenOptions::new().read(true).write(true).open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(failed("open", &path)(error)),
            };
            let inode = lock(&file, &path)?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).map_err(failed("read", &path))?;
            let (record, damage) = match parse_record(&path, &bytes) {
                Ok(record) => (record, None),
                Err(error) => (None, Some(error)),
            };
            let held = Held { path: path.clone(), file, inode, record, damage };
            // Whoever held it may have deleted it, and another may have made a new one of the same name.
            if held.is_current()? {
                return Ok(Some(held));
            }
        }
    }

    /// Chooses an address from each of `wanted`, completes the record with them, and writes it: from here on
    /// the addresses are the attachment's.
    pub fn reserve(
        &self,
        held: &mut Held,
        mut record: Attachment,
        wanted: &[Wanted<'_>],
    ) -> Result<Vec<Range>> {
        let _lock = self.lock()?;
        let mut chosen = Vec::new();
        for wanted in wanted {
            chosen.push(self.choose(wanted)?);
        }
        record.addresses = chosen.iter().map(|(range, address)| range.with_prefix(*address)).collect();
        held.file.write_all_at(&record.to_bytes(), 0).map_err(failed("write", &held.path))?;
        held.record = Some(record);
        for (range, address) in &chosen {
            let path = self.address_path(*address);
            fs::hard_link(&held.path, &path).map_err(failed("take", &path))?;
            if let Some(index) = range.index(*address) {
                let path = self.pool_path(range);
                let mut pool = self.pool(range)?;
                pool.mark(index, true).map_err(failed("write", &path))?;
                pool.advance(index).map_err(failed("write", &path))?;
            }
        }
        Ok(chosen.into_iter().map(|(range, _)| range).collect())
    }

    fn choose(&self, wanted: &Wanted<'_>) -> Result<(Range, IpAddr)> {
        let ranges = || wanted.ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        if let Some(address) = wanted.address {
            let Some(range) = wanted.ranges.iter().find(|range| range.offers(address)) else {
                return Err(StoreError::NotOffered { address, network: self.name.clone(), ranges: ranges() });
            };
            return match self.holder(address)? {
                Some(holder) => Err(StoreError::Taken { address, holder }),
                None => Ok((range.clone(), address)),
            };
        }
        for range in wanted.ranges {
            let mut pool = self.pool(range)?;
            // Addresses whose bit a crash has left clear.
            let mut found = Vec::new();
            let free = pool.find_free(|index| {
                let address = range.at(index);
                if range.is_reserved(address) {
                    return false;
                }
                let free = fs::symlink_metadata(self.address_path(address)).is_err();
                if !free {
                    found.push(index);
                }
                free
            });
            for index in found {
                pool.mark(index, true).map_err(failed("write", &self.pool_path(range)))?;
            }
            if let Some(index) = free {
                return Ok((range.clone(), range.at(index)));
            }
        }
        Err(StoreError::Exhausted { network: self.name.clone(), ranges: ranges() })
    }

    /// Who holds an address: `<container id>:<interface>`.
    pub fn holder(&self, address: IpAddr) -> Result<Option<String>> {
        let path = self.address_path(address);
        match read_record(&path) {
            Ok(Some(record)) => Ok(Some(format!("{}:{}", record.container_id, record.ifname))),
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Ok(None) if fs::symlink_metadata(&path).is_err() => Ok(None),
            Ok(None) | Err(StoreError::Damaged { .. } | StoreError::TooNew { .. }) => {
                Ok(Some("an attachment whose record is damaged".to_owned()))
            }
            Err(error) => Err(error),
        }
    }

    /// Whether the attachment holds all the addresses of its record.
    pub fn holds(&self, held: &Held, address: IpAddr) -> bool {
        fs::symlink_metadata(self.address_path(address)).is_ok_and(|found| found.ino() == held.inode)
    }

    /// Gives the attachment's addresses back and removes its record: the end of an attachment.
    pub fn remove(&self, held: Held) -> Result<()> {
        let addresses = match &held.record {
            Some(record) => record.addresses.iter().map(ipnet::IpNet::addr).collect(),
            None if held.damage.is_some() => self.addresses_by_link(held.inode)?,
            None => Vec::new(),
        };
        if !addresses.is_empty() {
            let _lock = self.lock()?;
            for address in addresses {
                self.give_back(&held, address)?;
            }
        }
        fs::remove_file(&held.path).map_err(failed("remove", &held.path))
    }

    fn give_back(&self, held: &Held, address: IpAddr) -> Result<()> {
        if !self.holds(held, address) {
            return Ok(());
        }
        for entry in entries(&self.directory)? {
            let name = entry.file_name();
            let span =
                name.to_str().and_then(|name| name.strip_prefix(POOL_PREFIX)).and_then(Range::parse_span);
            let Some((range, index)) = span.and_then(|range| Some((range.clone(), range.index(address)?)))
            else {
                continue;
            };
            let path = entry.path();
            // A damaged pool is made anew by the next search.
            if let Some(mut pool) = Pool::open(&path, range.size()).map_err(failed("open", &path))? {
                pool.mark(index, false).map_err(failed("write", &path))?;
            }
        }
        let path = self.address_path(address);
        fs::remove_file(&path).map_err(failed("give back", &path))
    }

    /// The addresses whose names link to this record.
    fn addresses_by_link(&self, inode: u64) -> Result<Vec<IpAddr>> {
        use std::os::unix::fs::DirEntryExt;
        let all = entries(&self.directory.join(ADDRESSES))?.into_iter().filter(|entry| entry.ino() == inode);
        Ok(all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
    }

    /// All attachments of the network as `(container id, interface)`.
    pub fn attachments(&self) -> Result<Vec<(String, String)>> {
        let names = entries(&self.directory.join(ATTACHMENTS))?;
        Ok(names
            .iter()
            .filter_map(|entry| {
                let name = entry.file_name();
                let (container_id, ifname) = name.to_str()?.split_once(':')?;
                Some((container_id.to_owned(), ifname.to_owned()))
            })
            .collect())
    }

    fn pool_path(&self, range: &Range) -> PathBuf {
        self.directory.join(format!("{POOL_PREFIX}{range}"))
    }

    fn pool(&self, range: &Range) -> Result<Pool> {
        let path = self.pool_path(range);
        if let Some(pool) = Pool::open(&path, range.size()).map_err(failed("open", &path))? {
            return Ok(pool);
        }
        let taken = entries(&self.directory.join(ADDRESSES))?;
        let taken = taken.iter().filter_map(|entry| range.index(entry.file_name().to_str()?.parse().ok()?));
        Pool::build(&path, range.size(), taken).map_err(failed("make", &path))
    }

    fn lock(&self) -> Result<File> {
        let path = self.directory.join("lock");
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(failed("open", &path))?;
        lock(&file, &path)?;
        Ok(file)
    }
}

impl Held {
    /// Whether the record is still the one of its name.
    fn is_current(&self) -> Result<bool> {
        match fs::symlink_metadata(&self.path) {
            Ok(metadata) => Ok(metadata.ino() == self.inode),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(failed("look at", &self.path)(error)),
        }
    }

    /// The container and the interface that the record's name tells.
    pub fn attachment(&self) -> Option<(String, String)> {
        let (container_id, ifname) = self.path.file_name()?.to_str()?.split_once(':')?;
        Some((container_id.to_owned(), ifname.to_owned()))
    }

    /// Notes how far the attachment is: one byte, so that a reader sees the old state or the new one.
    pub fn set_state(&mut self, state: State) -> Result<()> {
        let Some(record) = &mut self.record else { return Ok(()) };
        let digit = [b'0' + u8::from(state)];
        self.file.write_all_at(&digit, record::STATE_OFFSET).map_err(failed("write", &self.path))?;
        record.state = state;
        Ok(())
    }
}

fn remove_earlier_boots(current: &Path) {
    let Some(parent) = current.parent() else { return };
    // Nobody reads them again. What cannot be removed now is tried again in the next boot.
    for entry in entries(parent).unwrap_or_default() {
        if entry.path() != current {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Locks a file, waiting for another process at most [`LOCK_LIMIT`]. Returns the file's inode.
fn lock(file: &File, path: &Path) -> Result<u64> {
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::Error(error)) => return Err(failed("lock", path)(error)),
        Err(TryLockError::WouldBlock) => wait_for_lock(file, path)?,
    }
    Ok(file.metadata().map_err(failed("look at", path))?.ino())
}

/// The kernel's wait for a lock has no limit, so a thread does the waiting. Should it come too late, the lock is
/// taken by a descriptor that goes with this process, which is about to end in an error.
fn wait_for_lock(file: &File, path: &Path) -> Result<()> {
    let waiter = file.try_clone().map_err(failed("lock", path))?;
    let (done, result) = std::sync::mpsc::channel();
    std::thread::Builder::new()
        .name("lock".to_owned())
        .spawn(move || done.send(waiter.lock()))
        .map_err(failed("lock", path))?;
    match result.recv_timeout(LOCK_LIMIT) {
        Ok(locked) => locked.map_err(failed("lock", path)),
        Err(_) => Err(StoreError::Busy { path: path.to_owned() }),
    }
}

#[cfg(test)]
pub(crate) mod tests;
