//! A cluster whose owner is killed leaves nothing on the machine: no namespace, mount, cgroup, process or file.

use std::process::Command;
use std::time::Duration;

use sluice_tests::{Error, Result, Running, Testbed, wait_for};

use crate::site::{LIMIT, Site};

/// In the environment of the test's own child: it makes a cluster and waits to be killed.
const CHILD: &str = "SLUICE_TEST_CHILD";

#[test]
fn a_cluster_whose_owner_is_killed_leaves_nothing() -> Result<()> {
    if std::env::var_os(CHILD).is_some() {
        let site = Site::usual(true)?;
        println!("bed {}", site.cluster.bed().name());
        std::thread::sleep(Duration::from_secs(60)); // until the kill
        return Ok(());
    }
    let log = std::env::temp_dir().join(format!("sluice-test-child-{}", std::process::id()));
    let mut command = Command::new(std::env::current_exe().map_err(Error::file("find", "/proc/self/exe"))?);
    command.args(["--exact", "--nocapture", "leftovers::a_cluster_whose_owner_is_killed_leaves_nothing"]);
    let mut child = Running::start(command.env(CHILD, "1"), &log)?;
    let name = wait_for("the child's bed", LIMIT * 2, || {
        let named = child.log().lines().find_map(|line| Some(line.split_once("bed ")?.1.trim().to_owned()));
        Ok(named)
    })
    .map_err(|error| Error::answer(error.to_string(), child.log()))?;
    let before = Testbed::traces(&name)?;
    for kind in ["/run/netns/", "/etc/netns/", "/sys/fs/cgroup", "mount bpf"] {
        assert!(before.iter().any(|trace| trace.contains(kind)), "{kind} is not among {before:?}");
    }
    child.kill()?;
    let _removed = std::fs::remove_file(&log);
    wait_for("nothing left of the bed", LIMIT, || {
        let traces = Testbed::traces(&name)?;
        if traces.is_empty() { Ok(Some(())) } else { Err(Error::answer("left", traces.join(", "))) }
    })
}
