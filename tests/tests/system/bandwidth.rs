//! Limits of pods' rates, where the datapath has a shorter way than the one that is limited.

use std::time::Duration;

use serde_json::json;
use sluice_tests::bed::Host;
use sluice_tests::cluster::Options;
use sluice_tests::{Cluster, Result, iperf, wait_for};

/// How long iperf3 may fail: one try takes four seconds, and one that was cut short five more at the server.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often a rate that is too low is measured again.
const TRIES: usize = 3;

/// Megabits a second over TCP, on the wire, in three seconds after a first one.
fn rate(client: &Host, address: &str) -> Result<f64> {
    // The server may not listen yet, or not have seen yet that its last client is gone.
    let payload = wait_for("an answer of iperf3", PATIENCE, || {
        iperf::megabits(client, &["--time", "3", "--omit", "1", "--client", address]).map(Some)
    })?;
    // Of a frame of 1514 bytes, 1448 are the sender's.
    Ok(payload * 1514.0 / 1448.0)
}

#[test]
fn a_limit_for_some_leaves_the_rest_as_fast_as_it_is() -> Result<()> {
    let cluster = Cluster::new(&Options { nodes: 1, ..Options::default() })?;
    let node = cluster.node(1);
    let [pods, _] = node.pod_cidrs();
    let limits = json!({ "bandwidth": {
        "ingressRate": 30_000_000, "ingressBurst": 600_000, "egressRate": 50_000_000, "egressBurst": 600_000,
        "unshapedSubnets": [pods],
    } });
    let (limited, other) = (node.pod_that_wants("limited", limits)?, node.pod("other")?);
    let _servers = [
        limited.host().start("iperf3", "iperf3", &["--server"])?,
        other.host().start("iperf3", "iperf3", &["--server"])?,
    ];
    let mbit = |from: &Host, to: &sluice_tests::cluster::Pod, family: usize| {
        rate(from, &to.addresses()[family].to_string())
    };
    for (from, to) in [(&other, &limited), (&limited, &other)] {
        let fast = mbit(from.host(), to, 0)?;
        assert!(fast > 500.0, "{fast:.2} Mbit/s from {} over IPv4", from.name());
    }
    // IPv6 is not of the network, and limited.
    for (expected, from, to) in [(30.0, &other, &limited), (50.0, &limited, &other)] {
        let mut best = 0.0_f64;
        for _ in 0..TRIES {
            // Of a frame, twenty bytes less than over IPv4 are the sender's.
            best = best.max(mbit(from.host(), to, 1)? * 1448.0 / 1428.0);
            if best >= expected * 0.95 {
                break;
            }
        }
        let said = format!("{best:.2} instead of {expected} Mbit/s from {}", from.name());
        assert!((best / expected - 1.0).abs() < 0.05, "{said}");
    }
    Ok(())
}

#[test]
fn a_limited_pod_gets_and_sends_no_more_and_no_less() -> Result<()> {
    let cluster = Cluster::new(&Options { nodes: 1, ..Options::default() })?;
    let node = cluster.node(1);
    let limits = json!({ "bandwidth": {
        "ingressRate": 30_000_000, "ingressBurst": 600_000, "egressRate": 50_000_000, "egressBurst": 600_000,
    } });
    let (limited, other) = (node.pod_that_wants("limited", limits)?, node.pod("other")?);
    let _servers = [
        limited.host().start("iperf3", "iperf3", &["--server"])?,
        other.host().start("iperf3", "iperf3", &["--server"])?,
    ];
    for (way, expected, from, to) in [("ingress", 30.0, &other, &limited), ("egress", 50.0, &limited, &other)]
    {
        // Never more. Less comes about on a machine whose processors are busy with something else; not every time.
        let mut best = 0.0_f64;
        for _ in 0..TRIES {
            best = best.max(rate(from.host(), &to.addresses()[0].to_string())?);
            if best >= expected * 0.95 {
                break;
            }
        }
        assert!((best / expected - 1.0).abs() < 0.05, "{way}: {best:.2} instead of {expected} Mbit/s");
    }
    Ok(())
}
