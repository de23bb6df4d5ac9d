//! nf_conntrack's settings (row 43 of the behaviour table). Our connections are in a table of our own; what else the node
//! carries may still go through the kernel's, and finds it as kube-proxy leaves it: what differs is set, once, at the start.

use std::{fs, io, path::Path};

use sluice_netlink::sysctl;
use tracing::{debug, info, warn};

use crate::config::{ConntrackName, NfConntrack};

const FOLDER: &str = "net/netfilter";
/// How many buckets the table has.
const BUCKETS: &str = "/sys/module/nf_conntrack/parameters/hashsize";
/// So many connections may share a bucket.
const PER_BUCKET: u64 = 4;

/// A setting below `/proc/sys`.
fn path(name: ConntrackName) -> String {
    format!("{FOLDER}/nf_conntrack_{}", name.as_str())
}

/// What is to be set: what is there and says something else. What is not there the kernel does not know.
fn plan(
    wanted: &NfConntrack,
    found: impl Fn(ConntrackName) -> Option<u64>,
) -> impl Iterator<Item = (ConntrackName, u64)> {
    wanted
        .0
        .iter()
        .map(|(name, value)| (*name, *value))
        .filter(move |(name, value)| found(*name).is_some_and(|found| found != *value))
}

/// How many buckets the table should get, if it has too few.
fn buckets(max: u64, found: u64) -> Option<u64> {
    Some(max / PER_BUCKET).filter(|wanted| found < *wanted)
}

/// Sets what differs. What cannot be set is told, and is no reason to stop.
pub fn apply(wanted: &NfConntrack) {
    let found = |name| sysctl::read(&path(name)).ok()?.parse().ok();
    for (name, value) in plan(wanted, found) {
        let path = path(name);
        // One for all network namespaces, and only the first one's to change.
        if name == ConntrackName::Max && sysctl::is_read_only(&path) {
            debug!(value, "the size of nf_conntrack's table stays: it is the first network namespace's");
            continue;
        }
        match sysctl::set(&path, &value.to_string()) {
            Ok(()) => info!(setting = path, value, "nf_conntrack is told"),
            Err(error) => warn!(%error, value, "nf_conntrack keeps what it has"),
        }
    }
    if let Some(max) = wanted.0.get(&ConntrackName::Max)
        && found(ConntrackName::Max) == Some(*max)
        && let Err(error) = grow(Path::new(BUCKETS), *max)
    {
        debug!(%error, "nf_conntrack keeps its number of buckets");
    }
}

fn grow(file: &Path, max: u64) -> io::Result<()> {
    let text = fs::read_to_string(file)?;
    let found =
        text.trim().parse().map_err(|_| io::Error::other(format!("{} says {text:?}", file.display())))?;
    match buckets(max, found) {
        Some(wanted) => {
            info!(buckets = wanted, "nf_conntrack is told");
            fs::write(file, wanted.to_string())
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use sluice_netlink::Namespace;

    use super::*;

    #[test]
    fn what_differs_is_set_and_nothing_else() {
        let wanted: NfConntrack = "max=131072,udp_timeout=30,tcp_be_liberal=1".parse().unwrap();
        let found = |name| match name {
            ConntrackName::Max => Some(262_144),
            ConntrackName::UdpTimeout => Some(30),
            _ => None,
        };
        // It makes the table smaller, too, as kube-proxy does.
        assert_eq!(plan(&wanted, found).collect::<Vec<_>>(), [(ConntrackName::Max, 131_072)]);
        assert_eq!(plan(&NfConntrack::default(), found).count(), 0, "none leaves everything");
        assert_eq!([buckets(131_072, 65_536), buckets(131_072, 16_384)], [None, Some(32_768)]);
    }

    /// Needs root, and nf_conntrack in the kernel.
    #[test]
    fn a_namespace_gets_its_times_and_the_size_for_all_is_left_alone() {
        let namespace = Namespace::create().unwrap();
        let [before, after, max] = namespace
            .run(|| {
                let read = |name| sysctl::read(&path(name)).unwrap();
                let before = read(ConntrackName::TcpTimeoutCloseWait);
                let max = read(ConntrackName::Max);
                apply(
                    &"max=77777,tcp_timeout_close_wait=3600,udp_timeout=10,tcp_be_liberal=1".parse().unwrap(),
                );
                let after = [
                    ConntrackName::TcpTimeoutCloseWait,
                    ConntrackName::UdpTimeout,
                    ConntrackName::TcpBeLiberal,
                ];
                [before, after.map(read).join(" "), max]
            })
            .unwrap();
        assert_eq!((&*before, &*after), ("60", "3600 10 1"));
        assert_ne!(max, "77777");
    }
}
