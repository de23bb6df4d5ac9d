//! The agent is not in the data path: killed, the node goes on; back again, it adopts what is there.

use sluice_tests::bed::Servers;
use sluice_tests::cluster::Node;
use sluice_tests::{Result, Running, wait_for};

use crate::site::{LIMIT, Site, WEB, spread, url};

fn links(node: &Node) -> Vec<String> {
    let entries = std::fs::read_dir(node.bpffs().join("v1/links")).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

fn a_download_and_new_connections_outlive_the_agent(fast_path: bool) -> Result<()> {
    let site = Site::usual(fast_path)?;
    let node = site.cluster.node(1);
    let file = site.cluster.bed().folder().join("download");
    let shown = file.display().to_string();
    let large = format!("{}large", url(WEB[0]));
    let mut command = site.client().command("curl")?;
    command.args(["-sS", "-m", "30", "--limit-rate", "20M", "-o", &shown, &large]);
    let mut download = Running::start(&mut command, &site.cluster.bed().folder().join("download.log"))?;
    let size = || file.metadata().map_or(0, |meta| meta.len());
    wait_for("the download", LIMIT, || Ok((size() > 0).then_some(())))?;

    let before = links(node);
    assert!(!before.is_empty());
    node.kill_agent()?;
    let at = size();
    assert_eq!(links(node), before, "the programs stay attached");
    for address in WEB {
        assert_eq!(spread(site.client(), &url(address), 40)?.len(), 2, "new connections without an agent");
        assert_eq!(spread(node.host(), &url(address), 40)?.len(), 2, "new connections of the node itself");
    }
    wait_for("more of the download", LIMIT, || Ok((size() > at).then_some(())))?;
    node.start_agent()?;
    node.wait_ready()?;
    assert_eq!(links(node), before, "the same attachments, adopted");
    assert_eq!(download.wait(LIMIT)?, Some(0), "{}", download.log());
    assert_eq!(size(), Servers::LARGE);
    site.wait_spread(site.client(), "http://web/", 2)
}

#[test]
fn a_download_and_new_connections_outlive_the_agent_per_packet() -> Result<()> {
    a_download_and_new_connections_outlive_the_agent(false)
}

#[test]
fn a_download_and_new_connections_outlive_the_agent_on_the_fast_path() -> Result<()> {
    a_download_and_new_connections_outlive_the_agent(true)
}

#[test]
fn what_changed_while_the_agent_was_away_is_in_force_when_it_is_back() -> Result<()> {
    let mut site = Site::usual(true)?;
    site.cluster.node(1).kill_agent()?;
    site.cluster.withdraw("web-1.yaml")?;
    site.add("web-2", 1)?;
    site.cluster.node(1).start_agent()?;
    site.cluster.node(1).wait_ready()?;
    wait_for("web-0 and web-2", LIMIT, || {
        let spread = spread(site.client(), &url(WEB[0]), 20)?;
        let names: Vec<_> = spread.into_keys().collect();
        Ok((names == ["web-0", "web-2"]).then_some(()))
    })
    .map_err(|error| site.with_logs(&error))
}

#[test]
fn a_pod_that_came_while_the_agent_was_away_is_served() -> Result<()> {
    let mut site = Site::usual(true)?;
    site.cluster.node(1).kill_agent()?;
    site.add("late-0", 1)?;
    let late = site.pod("late-0").host();
    for (pod, family) in [("web-0", 0), ("web-1", 1)] {
        let host = &site.pod(pod).url_hosts()[family];
        assert_eq!(late.curl(&format!("http://{host}/"))?, format!("{pod}\n"), "pod to pod needs no agent");
    }
    site.cluster.node(1).start_agent()?;
    site.cluster.node(1).wait_ready()?;
    site.wait_spread(late, &url(WEB[0]), 2)?;
    site.wait_spread(late, "http://web/", 2)
}
