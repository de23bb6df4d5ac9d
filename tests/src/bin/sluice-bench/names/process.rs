//! A process and its children: what they have used, as the kernel counts it, and what goes before them.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::time::Duration;

use sluice_tests::{Error, Result};

/// The real-time priority of what shall not wait for anything else on its core.
const PRIORITY: &str = "10";

/// Lets a process and all its descendants go before everything else.
pub(crate) fn hurry(pid: u32) -> Result<()> {
    schedule(pid, &["--fifo", "--all-tasks", "--pid", PRIORITY])
}

/// Lets them wait for their turn again, as others do.
pub(crate) fn relax(pid: u32) -> Result<()> {
    schedule(pid, &["--other", "--all-tasks", "--pid", "0"])
}

fn schedule(pid: u32, how: &[&str]) -> Result<()> {
    for pid in family(pid)? {
        let output = Command::new("chrt").args(how).arg(pid.to_string()).output();
        let output = output.map_err(Error::file("run", "chrt"))?;
        if !output.status.success() {
            return Err(Error::answer("chrt", String::from_utf8_lossy(&output.stderr).into_owned()));
        }
    }
    Ok(())
}

/// What was used so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Time on a processor.
    pub(crate) cpu: Duration,
    /// Memory that is resident, in KiB; what processes share counts once.
    pub(crate) memory: u64,
}

impl Usage {
    /// Of a process and all its descendants.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let mut usage = Self::default();
        for pid in family(pid)? {
            let tasks = format!("/proc/{pid}/task");
            for task in fs::read_dir(&tasks).map_err(Error::file("read", &tasks))?.flatten() {
                // Nanoseconds on a processor come first. A thread that has just ended is no matter.
                let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
                let time = text.split_whitespace().next().and_then(|word| word.parse().ok());
                usage.cpu += Duration::from_nanos(time.unwrap_or_default());
            }
            let maps = format!("/proc/{pid}/smaps_rollup");
            let text = fs::read_to_string(&maps).map_err(Error::file("read", &maps))?;
            let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
            let size = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
            usage.memory += size.ok_or_else(|| Error::answer(&maps, "no Pss"))?;
        }
        Ok(usage)
    }
}

fn family(pid: u32) -> Result<Vec<u32>> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc").map_err(Error::file("read", "/proc"))?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let text = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        // The name, in parentheses, may hold anything; the parent is the second word after it.
        let parent = text.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(1)?.parse().ok());
        if let Some(parent) = parent {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut all = vec![pid];
    let mut next = 0;
    while let Some(pid) = all.get(next) {
        all.extend(children.remove(pid).unwrap_or_default());
        next += 1;
    }
    Ok(all)
}
