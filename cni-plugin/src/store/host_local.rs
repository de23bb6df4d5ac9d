//! Addresses that the plugin `host-local` has given out on the same network, before or beside us.
//!
//! It keeps a file for each, named after the address, in `<dataDir>/<network>`, and forgets none over a reboot. What
//! it wrote before this boot belongs to containers that are gone. In the file stand the container's id and, in a line
//! of its own, the interface, which old versions left out. `lock` beside them is locked by whoever changes any.
//!
//! On a node that changes over, its addresses are taken over as they are: nobody else gets one, and the DEL of its
//! container, or a GC, gives it back.

use std::{
    fs::{self, File},
    io,
    net::IpAddr,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use super::{Result, entries, failed, lock::lock};

/// The directory of a network that `host-local` serves, or served.
#[derive(Clone, Debug)]
pub struct HostLocal {
    directory: PathBuf,
}

impl HostLocal {
    /// Looks into this directory.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Gives back the addresses of an attachment. That there are none is no error.
    pub fn release(&self, container_id: &str, ifname: &str) -> Result<()> {
        self.release_if(|id, interface| id == container_id && interface.is_none_or(|found| found == ifname))
    }

    /// Gives back the addresses of all attachments but those that `valid` says.
    pub fn release_others(&self, valid: impl Fn(&str, Option<&str>) -> bool) -> Result<()> {
        self.release_if(|id, interface| !valid(id, interface))
    }

    fn release_if(&self, unwanted: impl Fn(&str, Option<&str>) -> bool) -> Result<()> {
        let files = entries(&self.directory)?;
        let addresses = files.iter().map(fs::DirEntry::path).filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.parse::<IpAddr>().is_ok())
        });
        let mut addresses = addresses.peekable();
        if addresses.peek().is_none() {
            return Ok(());
        }
        let path = self.directory.join("lock");
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(failed("open", &path))?;
        lock(&file, &path)?;
        for path in addresses {
            let text = match fs::read_to_string(&path) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed("read", &path)(error)),
            };
            let mut lines = text.lines().map(str::trim);
            if unwanted(lines.next().unwrap_or_default(), lines.next()) {
                fs::remove_file(&path).map_err(failed("give back", &path))?;
            }
        }
        Ok(())
    }

    /// Whether one of its containers has the address.
    pub(super) fn holds(&self, address: IpAddr) -> bool {
        let Ok(metadata) = fs::symlink_metadata(self.directory.join(address.to_string())) else {
            return false;
        };
        match (metadata.modified(), boot_time()) {
            (Ok(written), Some(boot)) => written >= boot,
            // Where it cannot be told, it is not given.
            _ => true,
        }
    }
}

/// When the kernel was started, to the second.
fn boot_time() -> Option<SystemTime> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let seconds = stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_in_this_boot_is_held_and_what_an_earlier_boot_left_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let store = HostLocal::new(directory.path().to_owned());
        let path = directory.path().join("10.1.0.2");
        assert!(!store.holds("10.1.0.2".parse().unwrap()));
        let file = fs::File::create(&path).unwrap();
        assert!(store.holds("10.1.0.2".parse().unwrap()));
        file.set_modified(boot_time().unwrap() - Duration::from_secs(60)).unwrap();
        assert!(!store.holds("10.1.0.2".parse().unwrap()));
        fs::write(directory.path().join("fd00::2"), "c1\r\neth0").unwrap();
        assert!(store.holds("fd00::2".parse().unwrap()));
    }

    #[test]
    fn addresses_go_back_with_their_attachment_and_nothing_else_does() {
        let directory = tempfile::tempdir().unwrap();
        let store = HostLocal::new(directory.path().to_owned());
        store.release("c1", "eth0").unwrap();
        let files = [
            ("10.1.0.2", "c1\r\neth0"),
            ("fd00::2", "c1\r\neth0"),
            ("10.1.0.3", "c1\r\neth1"),
            ("10.1.0.4", "c2"),
            ("10.1.0.5", "c3\r\neth0"),
            ("last_reserved_ip.0", "10.1.0.5"),
        ];
        for (name, text) in files {
            fs::write(directory.path().join(name), text).unwrap();
        }
        let left = || {
            let mut names: Vec<_> = fs::read_dir(directory.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names.join(" ")
        };
        store.release("c1", "eth0").unwrap();
        assert_eq!(left(), "10.1.0.3 10.1.0.4 10.1.0.5 last_reserved_ip.0 lock");
        store.release("c2", "eth0").unwrap();
        store.release_others(|id, interface| id == "c3" && interface == Some("eth0")).unwrap();
        assert_eq!(left(), "10.1.0.5 last_reserved_ip.0 lock");
        HostLocal::new(directory.path().join("none")).release_others(|_, _| false).unwrap();
    }
}
