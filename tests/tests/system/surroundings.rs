//! A node that is not as it should be: what is missing is named, what can go on does, and once it is mended all is well.

use sluice_tests::cluster::{Node, Options, node_manifest};
use sluice_tests::{Cluster, Error, Result, Testbed, wait_for};

use crate::site::{LIMIT, Site, WEB, url};

fn one_node(more: &str) -> Result<Cluster> {
    let agent = format!("resyncPeriod: 2s\n{more}");
    Cluster::without_agents(&Testbed::new()?, &Options { nodes: 1, agent, ..Options::default() })
}

fn wait_said(node: &Node, text: &str) -> Result<()> {
    wait_for(&format!("{text:?} in the log"), LIMIT, || Ok(node.agent_log().contains(text).then_some(())))
        .map_err(|error| Error::answer(error.to_string(), node.agent_log()))
}

/// Whether the node answers for the cluster's names.
fn wait_names(node: &Node) -> Result<()> {
    let query = ["+short", "+time=1", "+tries=1", "@10.96.0.10", "kube-dns.kube-system.svc.cluster.local"];
    wait_for("DNS", LIMIT, || {
        Ok((node.host().run("dig", &query)?.stdout.trim() == "10.96.0.10").then_some(()))
    })
    .map_err(|error| Error::answer(error.to_string(), node.agent_log()))
}

#[test]
fn a_full_disk_is_named_and_the_node_serves_all_the_same() -> Result<()> {
    let cluster = one_node("")?;
    let node = cluster.node(1);
    // The agent alone sees this file system.
    let state = node.state().display().to_string();
    let script = format!(
        "mount -t tmpfs -o size=16k none {state} && : > {state}/agent.lock && \
         {{ cat /dev/zero > {state}/rubbish 2> /dev/null; exec \"$@\"; }}"
    );
    node.start_agent_by(&["unshare", "--mount", "sh", "-c", &script, "sh"])?;
    wait_said(node, "No space left on device")?;
    wait_names(node)?;
    node.wait_ready()?;
    let pid = node.agent_pid().ok_or_else(|| Error::Missing("agent".to_owned()))?;
    let seen = |file: &str| format!("/proc/{pid}/root{state}/{file}");
    assert!(!std::fs::exists(seen("node.json")).unwrap_or(true), "half a file is worse than none");
    std::fs::remove_file(seen("rubbish")).map_err(Error::file("remove", seen("rubbish")))?;
    wait_for("node.json", LIMIT, || {
        let text = std::fs::read_to_string(seen("node.json")).unwrap_or_default();
        Ok(text.contains("10.244.1.0/24").then_some(()))
    })
    .map_err(|error| Error::answer(error.to_string(), node.agent_log()))?;
    wait_said(node, "no longer: ")
}

#[test]
fn pins_where_none_can_be_are_refused_and_names_are_answered() -> Result<()> {
    let cluster = one_node("")?;
    let node = cluster.node(1);
    let folder = cluster.bed().subfolder("nowhere")?;
    let wrong = format!("bpffsDir: {}", folder.join("sluice").display());
    let right = format!("bpffsDir: {}", node.bpffs().display());
    node.reconfigure(|text| text.replace(&right, &wrong))?;
    node.start_agent()?;
    let said = format!("is not on a BPF file system: mount one (mount -t bpf bpf {})", folder.display());
    wait_said(node, &said)?;
    wait_names(node)?;
    let left = std::fs::read_dir(&folder).map_err(Error::file("list", &folder))?.count();
    assert_eq!(left, 0, "nothing is left where no pin can be");
    let code = ["-s", "-o", "/dev/null", "-w", "%{http_code}", "http://127.0.0.1:10256/healthz"];
    assert_eq!(node.host().run("curl", &code)?.stdout, "503");
    node.kill_agent()?;
    node.reconfigure(|text| text.replace(&wrong, &right))?;
    node.start_agent()?;
    node.wait_ready()
}

#[test]
fn without_its_cgroup_services_are_served_packet_by_packet() -> Result<()> {
    let site = Site::usual(true)?;
    let node = site.cluster.node(1);
    node.kill_agent()?;
    let right = format!("cgroupRoot: {}", node.host().cgroup().display());
    node.reconfigure(|text| text.replace(&right, "cgroupRoot: /nowhere/at/all"))?;
    node.start_agent()?;
    node.wait_ready()?;
    wait_said(node, "/nowhere/at/all")?;
    for address in WEB {
        site.wait_spread(site.client(), &url(address), 2)?;
        site.wait_spread(node.host(), &url(address), 2)?;
    }
    Ok(())
}

#[test]
fn rights_that_the_process_lacks_are_named() -> Result<()> {
    let cluster = one_node("")?;
    let node = cluster.node(1);
    let few = ["setpriv", "--bounding-set", "-all,+net_admin,+net_bind_service", "--inh-caps", "-all"];
    node.start_agent_by(&few)?;
    for name in ["CAP_SYS_ADMIN", "CAP_BPF", "CAP_PERFMON"] {
        wait_said(node, &format!("this process lacks {name} ("))?;
    }
    wait_names(node)?;
    assert!(!node.agent_log().contains("lacks CAP_NET_ADMIN"), "{}", node.agent_log());
    Ok(())
}

#[test]
fn a_second_agent_says_who_is_in_its_way() -> Result<()> {
    let cluster = one_node("")?;
    let node = cluster.node(1);
    node.start_agent()?;
    node.wait_ready()?;
    let program = sluice_tests::programs::built("sluice")?;
    let config = cluster.bed().folder().join("node1.yaml");
    let (program, config) = (program.to_string_lossy(), config.to_string_lossy());
    for verb in ["agent", "cleanup"] {
        let output = node.host().run(&program, &[verb, "--config", &config])?;
        assert_eq!(output.code, Some(1), "{output:?}");
        assert!(output.stderr.contains("another agent of this node is running: it holds"), "{output:?}");
    }
    wait_names(node)
}

#[test]
fn a_repair_of_what_nobody_has_touched_finds_it_as_it_was_left() -> Result<()> {
    let agent = "resyncPeriod: 1s\n".to_owned();
    let site = Site::new(&Options { agent, ..Options::default() }, &[("client", 1), ("web-0", 2)])?;
    wait_said(site.cluster.node(1), "the services' maps are as they were left")?;
    site.wait_spread(site.client(), &url(WEB[0]), 1)
}

/// What another plugin leaves behind.
#[test]
fn what_others_have_left_is_told_and_stays() -> Result<()> {
    let cluster = one_node("overlay: vxlan\n")?;
    let node = cluster.node(1);
    node.host().ip(
        "link add cni0 type bridge\nlink set cni0 up\naddress add 10.244.1.1/24 dev cni0\n\
         link add flannel.1 type vxlan id 1 dstport 8472 local 192.168.77.1 nolearning\nlink set flannel.1 up\n\
         route add 10.244.9.0/24 via 10.244.9.0 dev flannel.1 onlink\n",
    )?;
    let far = node_manifest("far", &["192.168.77.9".to_owned()], &["10.244.9.0/24".to_owned()]);
    cluster.apply("far.yaml", &far)?;
    node.start_agent()?;
    node.wait_ready()?;
    wait_said(node, "cni0 has the address 10.244.1.1/24 in 10.244.1.0/24")?;
    wait_said(node, "somebody else's route to 10.244.9.0/24 by flannel.1 is there")?;
    let routes = node.host().ip_json(&["route", "show", "10.244.9.0/24"])?;
    assert_eq!(
        (routes.as_array().map(Vec::len), &routes[0]["dev"]),
        (Some(1), &"flannel.1".into()),
        "{routes}"
    );
    // One that somebody makes just before we would.
    node.host().ip("route add 10.244.8.0/24 via 192.168.77.100\n")?;
    let farther = ["192.168.77.8".to_owned()];
    cluster.apply("farther.yaml", &node_manifest("farther", &farther, &["10.244.8.0/24".to_owned()]))?;
    wait_said(node, "somebody else's route to 10.244.8.0/24 by eth0 is there")?;
    let routes = node.host().ip_json(&["route", "show", "10.244.8.0/24"])?;
    assert_eq!((routes.as_array().map(Vec::len), &routes[0]["dev"]), (Some(1), &"eth0".into()), "{routes}");
    // Gone, it makes room.
    node.host().ip("link delete cni0\nlink delete flannel.1\n")?;
    wait_for("the route", LIMIT, || {
        let routes = node.host().ip_json(&["route", "show", "10.244.9.0/24"])?;
        Ok((routes[0]["dev"] == "sluice-vxlan").then_some(()))
    })
    .map_err(|error| Error::answer(error.to_string(), node.agent_log()))
}
