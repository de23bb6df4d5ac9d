//! The service manager's store of file descriptors (systemd's `FileDescriptorStoreMax`): where the DNS sockets stay when
//! the agent dies, so that what clients ask meanwhile waits for the next agent.
//!
//! ```text
//!  agent ── FDSTORE=1, FDNAME=dns-10.96.0.10-53, the sockets ──▶ service manager
//!  (dies)                                                          │ holds them
//!  next agent ◀── LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES, from 3 on ┘
//! ```

#![expect(unsafe_code, reason = "file descriptors that the process was started with are numbers")]

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd, FromRawFd as _, OwnedFd},
    sync::Arc,
};

use sd_notify::NotifyState;
use tracing::{info, warn};

/// What the names of DNS sockets begin with.
const PREFIX: &str = "dns-";

/// What the service manager keeps.
#[derive(Debug, Default)]
pub struct SocketStore {
    /// There is one that can be told.
    is_there: bool,
    /// What it has handed over and nobody has taken yet.
    inherited: Vec<OwnedFd>,
    /// The names under which it keeps something, and how many sockets.
    kept: BTreeMap<String, usize>,
}

impl SocketStore {
    /// That of the service manager that has started this process, and what it has kept for it. Call once.
    pub fn of_process() -> Self {
        let is_there = std::env::var_os("NOTIFY_SOCKET").is_some();
        let listed = sd_notify::listen_fds_with_names();
        let mut store = Self { is_there, ..Self::default() };
        let fds = match listed {
            Ok(fds) => fds,
            Err(error) => {
                warn!(%error, "what the service manager hands over cannot be understood");
                return store;
            }
        };
        for (number, name) in fds {
            // SAFETY: the service manager has opened it for this process, as LISTEN_PID says, and by this protocol nobody
            // else here takes it; this is called once.
            let fd = unsafe { OwnedFd::from_raw_fd(number) };
            if name.starts_with(PREFIX) {
                store.inherited.push(fd);
                *store.kept.entry(name).or_default() += 1;
            }
        }
        if !store.inherited.is_empty() {
            info!(sockets = store.inherited.len(), "the service manager has kept the DNS sockets");
        }
        store
    }

    /// Whether there is a service manager at all.
    pub fn is_there(&self) -> bool {
        self.is_there
    }

    /// What it has kept since the last agent; nothing the second time.
    pub fn take(&mut self) -> Vec<OwnedFd> {
        std::mem::take(&mut self.inherited)
    }

    /// Has it keep these sockets and no others. Whether it can is for it to know: it says nothing.
    pub fn keep(&mut self, sockets: &[(SocketAddr, Arc<Vec<OwnedFd>>)]) {
        if !self.is_there {
            return;
        }
        let wanted: BTreeMap<String, &Arc<Vec<OwnedFd>>> =
            sockets.iter().map(|(address, fds)| (name(*address), fds)).collect();
        self.kept.retain(|name, _| {
            let is_wanted = wanted.contains_key(name);
            if !is_wanted {
                tell(&[NotifyState::FdStoreRemove, NotifyState::FdName(name)], &[]);
            }
            is_wanted
        });
        for (name, fds) in wanted {
            if self.kept.get(&name) == Some(&fds.len()) {
                continue;
            }
            let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
            // Those that it has already it does not keep twice. It must not throw one away because an error waits in it.
            let state = [NotifyState::FdStore, NotifyState::FdName(&name), NotifyState::Custom("FDPOLL=0")];
            tell(&state, &fds);
            self.kept.insert(name, fds.len());
        }
    }
}

fn tell(state: &[NotifyState<'_>], fds: &[BorrowedFd<'_>]) {
    if let Err(error) = sd_notify::notify_with_fds(state, fds) {
        warn!(%error, "the service manager was not told of the DNS sockets");
    }
}

/// The name of an address's sockets. Names of the store have no colons, which stand between them.
fn name(address: SocketAddr) -> String {
    format!("{PREFIX}{}-{}", address.ip(), address.port()).replace(':', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_can_be_listed() {
        for (address, wanted) in
            [("10.96.0.10:53", "dns-10.96.0.10-53"), ("[fd00:96::a]:53", "dns-fd00_96__a-53")]
        {
            assert_eq!(name(address.parse().unwrap()), wanted);
        }
    }
}
