//! Settings that kube-proxy has: its own configuration, masquerade of everything, who is of the cluster, and node ports
//! that processes of the node want (rows 6, 7, 13, 43 and 44 of the behaviour table).

use sluice_tests::cluster::{OUTSIDE, Options};
use sluice_tests::{Error, Result, Testbed, wait_for};

use crate::paths::on_both_paths;
use crate::site::{LIMIT, NODE_PORTS, Site, WEB, bracketed, url};

on_both_paths!(
    where_everything_is_masqueraded_pods_are_seen_as_their_node,
    clients_with_an_address_of_the_cluster_keep_it,
);

const PODS: [(&str, usize); 3] = [("client", 1), ("web-0", 1), ("web-1", 2)];

fn where_everything_is_masqueraded_pods_are_seen_as_their_node(fast_path: bool) -> Result<()> {
    let options = Options { fast_path, agent: "masqueradeAll: true\n".into(), ..Options::default() };
    let site = Site::new(&options, &PODS)?;
    let node = site.cluster.node(1).addresses();
    for (family, address) in WEB.into_iter().enumerate() {
        let target = format!("{}:90", bracketed(address));
        for protocol in ["TCP", "UDP"] {
            for _ in 0..6 {
                assert_eq!(site.client().seen_as(protocol, &target)?, node[family], "{protocol} {target}");
            }
        }
    }
    Ok(())
}

#[test]
fn an_agent_runs_with_kube_proxys_configuration() -> Result<()> {
    let bed = Testbed::new()?;
    let file = bed.folder().join("config.conf");
    let text = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: iptables\n\
                clusterCIDR: 10.244.0.0/16,fd00:244::/32\niptables: {masqueradeAll: true, syncPeriod: 7s}\n\
                metricsBindAddress: 127.0.0.1:10777\nhealthzBindAddress: 192.0.2.1\nipvs: {scheduler: rr}\n";
    std::fs::write(&file, text).map_err(Error::file("write", &file))?;
    let agent = format!("kubeProxyConfig: {}\n", file.display());
    let site = Site::on(&bed, &Options { agent, ..Options::default() }, &PODS)?;
    let node = site.cluster.node(1);
    // It masquerades, and serves node ports at all addresses, as mode iptables does.
    let seen = site.client().seen_as("TCP", &format!("{}:90", WEB[0]))?;
    assert_eq!(seen, node.addresses()[0]);
    site.wait_spread(node.host(), &format!("http://127.0.0.1:{}/", NODE_PORTS[0]), 2)?;
    // What the file of the agent says goes before.
    assert!(node.host().curl("http://127.0.0.1:10256/livez")?.contains("\"healthy\":true"));
    let flags = node.host().curl("http://127.0.0.1:10777/flagz")?;
    assert!(flags.lines().any(|line| line == "resyncPeriod=7s"), "{flags}");
    let log = node.agent_log();
    assert!(log.contains("ipvs.scheduler: \"rr\" has no effect"), "{log}");
    Ok(())
}

fn clients_with_an_address_of_the_cluster_keep_it(fast_path: bool) -> Result<()> {
    // The outside host counts as a pod of the cluster; a route leads it to the services.
    let [out4, out6] = OUTSIDE;
    let agent = format!("detectLocal: clusterCIDR\nclusterCIDRs: [{out4}/32, '{out6}/128']\n");
    for (agent, kept) in
        [(agent, true), (String::new(), false), ("detectLocal: interface\n".to_owned(), false)]
    {
        let options = Options { fast_path, agent, ..Options::default() };
        let site = Site::new(&options, &[("client", 1), ("web-0", 1)])?;
        let [via4, via6] = site.cluster.node(1).addresses();
        site.cluster
            .outside()
            .ip(&format!("route add {}/32 via {via4}\nroute add {}/128 via {via6}\n", WEB[0], WEB[1]))?;
        for (family, address) in WEB.into_iter().enumerate() {
            let target = format!("{}:90", bracketed(address));
            let seen = wait_for("an answer outside", LIMIT, || {
                site.cluster.outside().seen_as("TCP", &target).map(Some)
            });
            let seen = seen.map_err(|error| site.with_logs(&error))?;
            assert_eq!(seen == OUTSIDE[family], kept, "{target} saw {seen}");
            // Pods keep theirs in any case.
            let own = site.pod("client").addresses()[family].to_string();
            assert_eq!(site.client().seen_as("TCP", &target)?, own);
        }
    }
    Ok(())
}

#[test]
fn a_process_that_has_a_node_port_is_told_of_and_one_that_wants_a_guarded_one_does_not_get_it() -> Result<()>
{
    let site = Site::new(&Options { agent: "resyncPeriod: 1s\n".into(), ..Options::default() }, &PODS)?;
    let node = site.cluster.node(1);
    let listen = format!("TCP-LISTEN:{},reuseaddr", NODE_PORTS[0]);
    let _loser = node.host().start("loser", "socat", &[&listen, "PIPE"])?;
    let told =
        format!("default/web: node port {}/TCP is bound at 0.0.0.0 by a process of this node", NODE_PORTS[0]);
    wait_for("the process to be told of", LIMIT, || Ok(node.agent_log().contains(&told).then_some(())))
        .map_err(|error| site.with_logs(&error))?;
    site.wait_spread(
        site.cluster.outside(),
        &format!("http://{}:{}/", node.addresses()[0], NODE_PORTS[0]),
        2,
    )?;

    let site = Site::new(&Options { agent: "guardNodePorts: true\n".into(), ..Options::default() }, &PODS)?;
    let node = site.cluster.node(1).host();
    let listens = [
        format!("TCP-LISTEN:{},reuseaddr", NODE_PORTS[0]),
        format!("TCP6-LISTEN:{},reuseaddr", NODE_PORTS[0]),
        format!("UDP-RECVFROM:{}", NODE_PORTS[0]),
    ];
    for listen in listens {
        let output = node.run("timeout", &["2", "socat", &listen, "PIPE"])?;
        assert!(output.stderr.contains("Address already in use"), "{listen}: {output:?}");
    }
    // The guard takes nothing from those whom the port is for.
    for family in 0..2 {
        let address = bracketed(&site.cluster.node(1).addresses()[family]);
        let url = format!("http://{address}:{}/", NODE_PORTS[0]);
        site.wait_spread(site.cluster.outside(), &url, 2)?;
        site.wait_spread(node, &url, 2)?;
        let answer = site.cluster.outside().ask_udp(&format!("{address}:{}", NODE_PORTS[0]), 0)?;
        assert!(answer.starts_with("web-"), "{answer}");
    }
    site.wait_spread(site.client(), &url(WEB[0]), 2)
}

#[test]
fn connections_are_remembered_as_long_as_is_set() -> Result<()> {
    let agent = "udpTimeout: 1s\nudpStreamTimeout: 1s\n".to_owned();
    let site = Site::new(&Options { agent, ..Options::default() }, &PODS)?;
    let answer = site.client().ask_udp(&format!("{}:70", WEB[0]), 0)?;
    assert!(answer.starts_with("web-"), "{answer}");
    let node = site.cluster.node(1).host();
    let count = |text: &str| {
        let name = "kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family=\"IPv4\"} ";
        text.lines().find_map(|line| line.strip_prefix(name)?.parse::<f64>().ok()).unwrap_or(0.0)
    };
    // Looked for every five seconds; by default it would be there for two minutes.
    wait_for("the datagram to be forgotten", 2 * LIMIT, || {
        Ok((count(&node.curl("http://127.0.0.1:10249/metrics")?) >= 2.0).then_some(()))
    })
    .map_err(|error| site.with_logs(&error))
}
