//! Limits of pods' rates, where the datapath has a shorter way than the one that is limited.

use serde_json::{Value, json};
use sluice_tests::bed::Host;
use sluice_tests::cluster::Options;
use sluice_tests::{Cluster, Error, Result, wait_for};

use crate::site::LIMIT;

/// How often a rate that is too low is measured again.
const TRIES: usize = 3;

/// Megabits a second over TCP, on the wire, in three seconds after a first one.
fn rate(client: &Host, address: &str) -> Result<f64> {
    let arguments = ["--json", "--time", "3", "--omit", "1", "--client", address];
    // The first try may come before the server listens.
    let text = wait_for("iperf3", LIMIT, || client.succeed("iperf3", &arguments).map(Some))?;
    let result: Value = serde_json::from_str(&text).map_err(|error| Error::answer("iperf3", error))?;
    let bits = result["end"]["sum_received"]["bits_per_second"].as_f64();
    // Of a frame of 1514 bytes, 1448 are the sender's.
    bits.map(|bits| bits / 1e6 * 1514.0 / 1448.0)
        .ok_or_else(|| Error::answer("iperf3", "no rate in its answer"))
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
