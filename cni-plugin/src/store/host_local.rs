//! Addresses that the plugin `host-local` has given out on the same network, before or beside us.
//!
//! It keeps a file for each, named after the address, in `<dataDir>/<network>`, and forgets none over a reboot. What
//! it wrote before this boot belongs to containers that are gone.

use std::{
    fs,
    net::IpAddr,
    path::PathBuf,
    time::{Duration, SystemTime},
};

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
}
