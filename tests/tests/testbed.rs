//! The testbed itself: quick to make, and nothing of it outlives its owner, however that ends.

use std::process::Command;
use std::time::{Duration, Instant};

use sluice_tests::bed::Servers;
use sluice_tests::{Result, Running, Testbed, wait_for};

/// In the environment of the test's own child: it makes a bed and waits to be killed.
const CHILD: &str = "SLUICE_TEST_CHILD";

#[test]
fn hosts_on_a_switch_reach_each_other_over_both_families() -> Result<()> {
    let started = Instant::now();
    let bed = Testbed::new()?;
    let lan = bed.switch("lan")?;
    let (one, two) = (bed.host("one")?, bed.host("two")?);
    lan.connect(&one, "eth0", &["192.0.2.1/24", "2001:db8::1/64"])?;
    lan.connect(&two, "eth0", &["192.0.2.2/24", "2001:db8::2/64"])?;
    let made = started.elapsed();

    let mut servers = Servers::new();
    servers.http(&two, 80, "two")?;
    servers.udp(&two, 7, "two")?;
    for address in ["192.0.2.2", "[2001:db8::2]"] {
        assert_eq!(one.succeed("curl", &["-s", "-m", "2", &format!("http://{address}/")])?, "two\n");
        assert_eq!(one.ask_udp(&format!("{address}:7"), 0)?, "two");
    }
    assert!(made < Duration::from_secs(1), "a bed with two hosts took {made:?}");
    Ok(())
}

#[test]
fn a_host_has_files_of_its_own_in_etc_and_a_name() -> Result<()> {
    let bed = Testbed::new()?;
    let host = bed.host("named")?;
    host.etc("resolv.conf", "nameserver 192.0.2.53\n")?;
    assert_eq!(host.succeed("cat", &["/etc/resolv.conf"])?, "nameserver 192.0.2.53\n");
    assert_eq!(host.succeed("hostname", &[])?, "named\n");
    let outside = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    assert!(!outside.contains("192.0.2.53"));
    Ok(())
}

#[test]
fn a_dropped_bed_leaves_nothing() -> Result<()> {
    let bed = furnished()?;
    let name = bed.0.name().to_owned();
    assert!(!Testbed::traces(&name)?.is_empty());
    drop(bed);
    assert_eq!(Testbed::traces(&name)?, [""; 0]);
    Ok(())
}

#[test]
fn a_bed_whose_owner_panics_leaves_nothing() -> Result<()> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let outcome = std::thread::spawn(move || {
        let bed = furnished().unwrap();
        sender.send(bed.0.name().to_owned()).unwrap();
        panic!("as a failing test does");
    });
    assert!(outcome.join().is_err());
    assert_eq!(Testbed::traces(&receiver.recv().unwrap())?, [""; 0]);
    Ok(())
}

#[test]
fn a_bed_whose_owner_is_killed_leaves_nothing() -> Result<()> {
    if std::env::var_os(CHILD).is_some() {
        let bed = furnished()?;
        println!("bed {}", bed.0.name());
        std::thread::sleep(Duration::from_secs(60)); // until the kill
        return Ok(());
    }
    let log = std::env::temp_dir().join(format!("sluice-test-child-{}", std::process::id()));
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "--nocapture", "a_bed_whose_owner_is_killed_leaves_nothing"]).env(CHILD, "1");
    let mut child = Running::start(&mut command, &log)?;
    let name = wait_for("the child's bed", Duration::from_secs(10), || {
        let named = child.log().lines().find_map(|line| Some(line.split_once("bed ")?.1.trim().to_owned()));
        Ok(named)
    })?;
    assert!(!Testbed::traces(&name)?.is_empty());
    child.kill()?;
    std::fs::remove_file(&log).unwrap();
    wait_for("nothing left of the bed", Duration::from_secs(10), || {
        let traces = Testbed::traces(&name)?;
        if traces.is_empty() {
            Ok(Some(()))
        } else {
            Err(sluice_tests::Error::answer("left", traces.join(", ")))
        }
    })
}

/// A bed with a wire, a server and a bpffs mount. The guards are kept, as a test would have them.
fn furnished() -> Result<(Testbed, Vec<Box<dyn std::any::Any>>)> {
    let bed = Testbed::new()?;
    let lan = bed.switch("lan")?;
    let host = bed.host("host")?;
    lan.connect(&host, "eth0", &["192.0.2.1/24"])?;
    host.etc("resolv.conf", "nameserver 192.0.2.53\n")?;
    let mut servers = Servers::new();
    servers.http(&host, 80, "host")?;
    bed.mount_bpffs("host-bpf")?;
    Ok((bed, vec![Box::new(lan), Box::new(host), Box::new(servers)]))
}
