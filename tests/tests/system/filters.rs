//! Programs attached by filters, as on kernels without links for it, and the change between the two on a live node.

use sluice_tests::cluster::{Node, OUTSIDE, Options};
use sluice_tests::{Error, Result, wait_for};

use crate::site::{LIMIT, NODE_PORTS, Site, WEB, bracketed, url};

fn options(attach: &str) -> Options {
    Options { agent: format!("attach: {attach}\nresyncPeriod: 1s\n"), ..Options::default() }
}

/// The filters of a device.
fn filters(node: &Node, device: &str) -> Result<String> {
    let [ingress, egress] = ["ingress", "egress"]
        .map(|side| Ok::<_, Error>(node.host().run("tc", &["filter", "show", "dev", device, side])?.stdout));
    Ok(ingress? + &egress?)
}

fn all_works(site: &mut Site) -> Result<()> {
    for address in WEB {
        site.wait_spread(site.client(), &url(address), 2)?;
        site.wait_spread(site.cluster.node(2).host(), &url(address), 2)?;
    }
    for family in [0, 1] {
        let target = format!("{}:{}", bracketed(&site.cluster.node(1).addresses()[family]), NODE_PORTS[0]);
        site.wait_spread(site.cluster.outside(), &format!("http://{target}/"), 2)?;
        assert!(site.cluster.outside().ask_udp(&target, 0)?.starts_with("web-"));
        let seen = site.client().seen_as("TCP", &format!("{}:90", bracketed(OUTSIDE[family])))?;
        assert_eq!(seen, site.cluster.node(1).addresses()[family], "masquerade");
    }
    // A pod that reaches itself through its service.
    site.wait_spread(site.pod("web-0").host(), &url(WEB[0]), 2)
}

fn with_outside(attach: &str) -> Result<Site> {
    let mut site = Site::new(&options(attach), &[("client", 1), ("web-0", 1), ("web-1", 2)])?;
    site.servers.who(site.cluster.outside(), 90)?;
    Ok(site)
}

#[test]
fn a_node_works_by_filters_and_repairs_them() -> Result<()> {
    let mut site = with_outside("clsact")?;
    all_works(&mut site)?;
    for program in ["from_wire", "to_wire"] {
        let listed = filters(site.cluster.node(1), "eth0")?;
        assert!(listed.contains(program), "{listed}");
    }
    // Somebody takes all filters of a device away.
    site.cluster.node(1).host().succeed("tc", &["qdisc", "del", "dev", "eth0", "clsact"])?;
    wait_for("the filters", LIMIT, || {
        let listed = filters(site.cluster.node(1), "eth0")?;
        Ok((listed.contains("from_wire") && listed.contains("to_wire")).then_some(()))
    })
    .map_err(|error| site.with_logs(&error))?;
    all_works(&mut site)?;
    // The agent is not in the way of packets here, either; and a pod that comes without one is served.
    site.cluster.node(1).kill_agent()?;
    all_works(&mut site)?;
    site.add("late-0", 1)?;
    for address in WEB {
        site.wait_spread(site.pod("late-0").host(), &url(address), 2)?;
    }
    Ok(())
}

#[test]
fn a_live_node_changes_from_links_to_filters_and_back() -> Result<()> {
    let mut site = with_outside("tcx")?;
    all_works(&mut site)?;
    for attach in ["clsact", "auto"] {
        for node in site.cluster.nodes() {
            node.kill_agent()?;
            node.configure(&options(attach))?;
            node.start_agent()?;
            node.wait_ready()?;
        }
        let listed = filters(site.cluster.node(1), "eth0")?;
        assert_eq!(listed.contains("from_wire"), attach == "clsact", "{attach}: {listed}");
        all_works(&mut site)?;
    }
    Ok(())
}

#[test]
fn cleaning_up_takes_filters_overlay_and_the_runtimes_configuration() -> Result<()> {
    let mut options = options("clsact");
    options.agent += "overlay: vxlan\n";
    let site = Site::new(&options, &[("client", 1), ("web-0", 2)])?;
    let node = site.cluster.node(1);
    let folder = node.cni_conf_dir();
    let conflist = folder.join("10-sluice.conflist");
    let text = std::fs::read_to_string(&conflist).map_err(Error::file("read", &conflist))?;
    assert!(text.contains("\"sluice-cni\""), "{text}");
    let foreign = folder.join("90-other.conflist");
    std::fs::write(&foreign, "{}").map_err(Error::file("write", &foreign))?;
    node.kill_agent()?;
    node.cleanup()?;
    assert!(!conflist.exists() && foreign.exists());
    assert_eq!(filters(node, "eth0")?, "");
    let left = node.host().ip_json(&["link", "show", "type", "vxlan"])?;
    assert!(left.as_array().is_none_or(Vec::is_empty), "{left}");
    // And back again.
    node.start_agent()?;
    node.wait_ready()?;
    assert!(conflist.exists());
    site.wait_spread(site.client(), &url(WEB[0]), 1)
}
