//! One network's attachments and addresses.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    net::IpAddr,
    os::unix::fs::{DirEntryExt, FileExt, MetadataExt},
    path::{Path, PathBuf},
};

use super::{
    ADDRESSES, ATTACHMENTS, Attachment, HostLocal, POOL_PREFIX, Result, State, StoreError, boot_directory,
    entries, failed, lock::lock, parse_record, pool::Pool, read_record, record,
};
use crate::range::Range;

/// The store of one network in this boot.
#[derive(Debug)]
pub struct Network {
    pub(super) directory: PathBuf,
    name: String,
    beside: Option<HostLocal>,
}

/// An attachment that this process works on, and no other until this is dropped.
#[derive(Debug)]
pub struct Held {
    pub(super) path: PathBuf,
    pub(super) file: File,
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

/// An address to give, the range it is of, and the range's pool where it is open already.
struct Choice {
    range: Range,
    address: IpAddr,
    pool: Option<Pool>,
}

impl Network {
    /// The store of the network `name`, made if there is none. What earlier boots left in the state directory
    /// is removed then.
    pub fn open(state_dir: &Path, name: &str) -> Result<Self> {
        let boot = boot_directory(state_dir)?;
        let directory = boot.join(name);
        let network = Self { directory, name: name.to_owned(), beside: None };
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

    /// The same store, of which nobody gets an address that `host-local` has given to a container of this boot.
    pub fn beside(self, host_local: Option<HostLocal>) -> Self {
        Self { beside: host_local, ..self }
    }

    pub(super) fn record_path(&self, container_id: &str, ifname: &str) -> PathBuf {
        self.directory.join(ATTACHMENTS).join(format!("{container_id}:{ifname}"))
    }

    pub(super) fn address_path(&self, address: IpAddr) -> PathBuf {
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
        record.addresses = chosen.iter().map(|choice| choice.range.with_prefix(choice.address)).collect();
        self.record(held, record)?;
        let mut ranges = Vec::new();
        for Choice { range, address, pool } in chosen {
            let path = self.address_path(address);
            fs::hard_link(&held.path, &path).map_err(failed("take", &path))?;
            if let Some(index) = range.index(address) {
                let path = self.pool_path(&range);
                let mut pool = pool.map_or_else(|| self.pool(&range), Ok)?;
                pool.mark(index, true).map_err(failed("write", &path))?;
                pool.advance(index).map_err(failed("write", &path))?;
            }
            ranges.push(range);
        }
        Ok(ranges)
    }

    /// Writes the record of an attachment whose addresses are not ours to give.
    pub fn record(&self, held: &mut Held, record: Attachment) -> Result<()> {
        held.file.write_all_at(&record.to_bytes(), 0).map_err(failed("write", &held.path))?;
        held.record = Some(record);
        Ok(())
    }

    fn choose(&self, wanted: &Wanted<'_>) -> Result<Choice> {
        let ranges = || wanted.ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        if let Some(address) = wanted.address {
            let Some(range) = wanted.ranges.iter().find(|range| range.offers(address)) else {
                return Err(StoreError::NotOffered { address, network: self.name.clone(), ranges: ranges() });
            };
            if self.beside.as_ref().is_some_and(|host_local| host_local.holds(address)) {
                return Err(StoreError::Taken { address, holder: "a container of host-local".to_owned() });
            }
            return match self.holder(address)? {
                Some(holder) => Err(StoreError::Taken { address, holder }),
                None => Ok(Choice { range: range.clone(), address, pool: None }),
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
                free && !self.beside.as_ref().is_some_and(|host_local| host_local.holds(address))
            });
            for index in found {
                pool.mark(index, true).map_err(failed("write", &self.pool_path(range)))?;
            }
            if let Some(index) = free {
                return Ok(Choice { range: range.clone(), address: range.at(index), pool: Some(pool) });
            }
        }
        Err(StoreError::Exhausted { network: self.name.clone(), ranges: ranges() })
    }

    /// Whether one of the ranges has an address left, as [`Self::reserve`] would find it.
    pub fn check_free(&self, ranges: &[Range]) -> Result<()> {
        let _lock = self.lock()?;
        self.choose(&Wanted { ranges, address: None }).map(drop)
    }

    /// Gives back addresses whose attachment has no record any more. That does not come about by itself.
    pub fn drop_orphans(&self) -> Result<()> {
        let _lock = self.lock()?;
        for entry in entries(&self.directory.join(ADDRESSES))? {
            let path = entry.path();
            let metadata = match fs::symlink_metadata(&path) {
                Ok(metadata) => metadata,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed("look at", &path)(error)),
            };
            let address = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if let Some(address) = address.filter(|_| metadata.nlink() == 1) {
                self.free(address)?;
            }
        }
        Ok(())
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
            // Empty, as it should be before it holds an address; or damaged, whatever it holds.
            None if held.file.metadata().is_ok_and(|metadata| metadata.nlink() == 1) => Vec::new(),
            None => self.addresses_of(&held)?,
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
        if self.holds(held, address) { self.free(address) } else { Ok(()) }
    }

    /// Frees an address: its bits first, so that a set bit always means a taken address.
    fn free(&self, address: IpAddr) -> Result<()> {
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

    /// The addresses whose names link to this record: all that the attachment holds, whatever its record says.
    pub fn addresses_of(&self, held: &Held) -> Result<Vec<IpAddr>> {
        let all =
            entries(&self.directory.join(ADDRESSES))?.into_iter().filter(|entry| entry.ino() == held.inode);
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

    pub(super) fn pool_path(&self, range: &Range) -> PathBuf {
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
