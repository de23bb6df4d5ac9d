//! What the kernel lets this process do. A right that is missing shows in many ways, of which few name it; so it is named
//! at the start.

use std::fs;

use nix::{
    errno::Errno,
    sys::resource::{Resource, getrlimit, setrlimit},
};

use crate::config::Config;

/// A capability: its number in linux/capability.h, its name, and what it is needed for.
type Needed = (u32, &'static str, &'static str);

const NET_BIND_SERVICE: Needed = (10, "CAP_NET_BIND_SERVICE", "port 53");
const NET_ADMIN: Needed = (12, "CAP_NET_ADMIN", "devices, routes, attaching programs");
const SYS_ADMIN: Needed = (21, "CAP_SYS_ADMIN", "finding out which program a link holds");
const PERFMON: Needed = (38, "CAP_PERFMON", "programs that look into packets by pointer");
const BPF: Needed = (39, "CAP_BPF", "maps, programs, pins");

/// The capabilities that this process lacks for what it is to do, each with what it is for.
pub fn missing(config: &Config) -> Vec<String> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    effective(&status).map(|held| lacking(held, config.proxy, config.dns)).unwrap_or_default()
}

/// Lets the process have as many files open as it may: a question to an upstream DNS server takes one, and so does a client's
/// connection. What service managers begin with, 1,024, is for programs that use select(2).
pub fn raise_open_files() -> Result<u64, Errno> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    Ok(most)
}

/// The line `CapEff` of a process's status.
fn effective(status: &str) -> Option<u64> {
    let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(hex.trim(), 16).ok()
}

fn lacking(held: u64, proxy: bool, dns: bool) -> Vec<String> {
    let has = |(bit, ..): &Needed| held & (1 << bit) != 0;
    let mut needed = vec![NET_ADMIN];
    if proxy {
        needed.push(SYS_ADMIN);
        // It stands for these two.
        if !has(&SYS_ADMIN) {
            needed.extend([BPF, PERFMON]);
        }
    }
    if dns {
        needed.push(NET_BIND_SERVICE);
    }
    needed.retain(|needed| !has(needed));
    needed.iter().map(|(_, name, purpose)| format!("{name} ({purpose})")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_files_may_be_open_as_the_process_is_granted() {
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 512.min(most), most).unwrap();
        assert_eq!(raise_open_files(), Ok(most));
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE), Ok((most, most)));
    }

    #[test]
    fn what_is_missing_is_named_with_its_purpose() {
        let status = "Name:\tsluice\nCapPrm:\t0000000000000000\nCapEff:\t000001ffffffffff\nCapBnd:\t0\n";
        let all = effective(status).unwrap();
        assert_eq!(lacking(all, true, true), [""; 0]);
        assert_eq!(effective("Name:\tsluice\n"), None);
        let only = |capabilities: &[Needed]| capabilities.iter().fold(0, |set, (bit, ..)| set | 1_u64 << bit);
        let said = lacking(only(&[NET_ADMIN]), true, true).join(", ");
        for name in ["CAP_SYS_ADMIN", "CAP_BPF (maps", "CAP_PERFMON", "CAP_NET_BIND_SERVICE (port 53)"] {
            assert!(said.contains(name), "{said}");
        }
        assert!(!said.contains("NET_ADMIN"), "{said}");
        assert_eq!(lacking(only(&[NET_ADMIN, SYS_ADMIN]), true, false), [""; 0]);
        assert_eq!(lacking(only(&[NET_ADMIN]), false, false), [""; 0]);
    }
}
