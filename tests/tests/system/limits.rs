//! What happens where there is no more room: the table of connections (issue 4: nothing is lost quietly).

use sluice_tests::cluster::Options;
use sluice_tests::{Result, programs, wait_for};

use crate::paths::on_both_paths;
use crate::site::{LIMIT, Site, WEB, beside_web, bracketed, url};

on_both_paths!(a_full_table_makes_room_for_new_connections_and_says_so);

/// Entries of a table that is too small: two make a connection.
const ENTRIES: u32 = 16_384;

fn a_full_table_makes_room_for_new_connections_and_says_so(fast_path: bool) -> Result<()> {
    let agent = format!("flowEntries: {ENTRIES}\n");
    let options = Options { fast_path, agent, ..Options::default() };
    let site = Site::new(&options, &[("client", 1), ("web-0", 1), ("web-1", 2)])?;
    let node = site.cluster.node(1);
    // One that is busy throughout, and so never the oldest.
    let mut busy = site.download(WEB[0], "4M")?;
    // Each from another port, remembered for half a minute, and to where nobody listens.
    let program = programs::built("sluice-testbed")?;
    let flood = ["flood", "10.96.0.42:99", "--from", "20000", "--count", "10000"];
    let ports = "[{name: sink, port: 99, protocol: UDP}]";
    site.cluster.apply("sink.yaml", &beside_web("sink", ["10.96.0.42", "fd00:96::42"], ports))?;
    wait_for("the full table to be told of", 2 * LIMIT, || {
        site.client().succeed(&program.to_string_lossy(), &flood)?;
        Ok(node.agent_log().contains("the table of connections is full").then_some(()))
    })
    .map_err(|error| site.with_logs(&error))?;
    for address in WEB {
        site.wait_spread(site.client(), &url(address), 2)?;
        let answer = site.client().ask_udp(&format!("{}:70", bracketed(address)), 0)?;
        assert!(answer.starts_with("web-"), "{answer}");
    }
    assert_eq!(busy.wait(3 * LIMIT)?, Some(0), "{}", busy.log());
    let metrics = node.host().curl("http://127.0.0.1:10249/metrics")?;
    assert!(
        metrics.lines().any(|line| line == format!("sluice_map_capacity{{map=\"flows\"}} {ENTRIES}")),
        "{metrics}"
    );
    Ok(())
}
