//! Where it is told over HTTP how DNS is: at the cluster's DNS addresses, and without a port of the node's.

use sluice_tests::bed::Host;
use sluice_tests::cluster::{DNS_ADDRESSES, Options};
use sluice_tests::{Error, Result, wait_for};

use crate::site::{LIMIT, Site, WEB, bracketed, url};

/// What a page says, and its code.
fn get(host: &Host, address: &str, port: u16, page: &str) -> Result<String> {
    let url = format!("http://{}:{port}/{page}", bracketed(address));
    let output = host.run("curl", &["-s", "-m", "2", "-w", " %{http_code}", &url])?;
    Ok(output.stdout)
}

fn expect(host: &Host, address: &str, port: u16, page: &str, wanted: &str) -> Result<()> {
    wait_for(&format!("{wanted:?} at {address} port {port} from {}", host.name()), LIMIT, || {
        let told = get(host, address, port, page)?;
        if told.contains(wanted) { Ok(Some(())) } else { Err(Error::answer(page, told)) }
    })
}

fn pages_at_the_address_of_dns(fast_path: bool) -> Result<()> {
    let options = Options { fast_path, agent: "dnsLameduck: 3s\n".to_owned(), ..Options::default() };
    let mut site = Site::new(&options, &[("client", 1), ("web-0", 1)])?;
    let name = site.cluster.node(1).host().name().to_owned();
    for address in DNS_ADDRESSES {
        for host in [site.client(), site.cluster.node(1).host()] {
            for (port, page, wanted) in [
                (8080, "health", "OK 200"),
                (8181, "ready", "OK 200"),
                (9153, "metrics", "coredns_cache_hits_total"),
            ] {
                expect(host, address, port, page, wanted).map_err(|error| site.with_logs(&error))?;
            }
        }
    }
    // The node's own ports are free for pods on its network, at all addresses, and those are reached there.
    let [node4, node6] = site.cluster.node(1).addresses();
    for port in [8080, 8181] {
        site.servers.http(site.cluster.node(1).host(), port, &name)?;
        for address in [&node4, &node6] {
            let told = get(site.client(), address, port, "")?;
            assert_eq!(told.replace('\n', ""), format!("{name} 200"), "{address} {port}");
        }
        let page = if port == 8080 { "health" } else { "ready" };
        expect(site.client(), DNS_ADDRESSES[0], port, page, "OK 200")?;
    }
    // A port that the service itself has is the service's, at the service's own addresses.
    let [dns4, dns6] = DNS_ADDRESSES;
    site.cluster.apply(
        "kube-dns.yaml",
        &format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: kube-dns, namespace: kube-system}}\nspec:\n  clusterIP: \
             {dns4}\n  clusterIPs: [{dns4}]\n  ports:\n  - {{name: dns, port: 53, \
             protocol: UDP}}\n  - {{name: http, port: 8080, targetPort: 80}}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: kube-dns-1, namespace: kube-system, \
             labels: {{kubernetes.io/service-name: kube-dns}}}}\naddressType: IPv4\n\
             ports: [{{name: http, port: 80}}]\nendpoints: [{{addresses: [{}]}}]\n",
            site.pod("web-0").addresses()[0]
        ),
    )?;
    expect(site.client(), dns4, 8080, "", "web-0")?;
    expect(site.client(), dns4, 8181, "ready", "OK 200")?;
    // Before the end.
    let node = site.cluster.node(1);
    node.terminate_agent()?;
    expect(site.client(), dns4, 8181, "ready", "Shutting down 503")?;
    expect(site.client(), dns6, 8080, "health", "OK 200")?;
    assert_eq!(node.stop_agent()?, Some(0));
    // Nobody is there to say anything.
    assert!(get(site.client(), dns4, 8181, "ready")?.ends_with(" 000"));
    Ok(())
}

#[test]
fn health_and_readiness_are_told_at_the_address_of_dns_and_the_nodes_ports_stay_free() -> Result<()> {
    pages_at_the_address_of_dns(true)
}

#[test]
fn they_are_told_so_without_the_fast_path() -> Result<()> {
    pages_at_the_address_of_dns(false)
}

#[test]
fn a_port_of_the_address_of_dns_that_nobody_has_is_refused() -> Result<()> {
    let site = Site::usual(true)?;
    for host in [site.client(), site.cluster.node(1).host()] {
        let output = host.run("curl", &["-s", "-m", "2", &url(DNS_ADDRESSES[0])])?;
        assert_eq!(output.code, Some(7), "{output:?}");
    }
    Ok(())
}

/// The Corefile of NodeLocal DNSCache's manifest, its places filled in: four server blocks, two addresses each.
fn node_local() -> String {
    let block = |zone: &str, cache: &str, forward: &str, more: &str| {
        format!(
            "{zone}:53 {{\n    errors\n    {cache}\n    reload\n    loop\n    bind 169.254.20.10 10.96.0.10\n    \
             forward . {forward}\n    prometheus :9253\n{more}    }}\n"
        )
    };
    let own = "10.96.0.11 {\n            force_tcp\n    }";
    let sizes = "cache {\n            success 9984 30\n            denial 9984 5\n    }";
    [
        block("cluster.local", sizes, own, "    health 169.254.20.10:8080\n"),
        block("in-addr.arpa", "cache 30", own, ""),
        block("ip6.arpa", "cache 30", own, ""),
        block(".", "cache 30", "/etc/resolv.conf", ""),
    ]
    .concat()
}

#[test]
fn node_local_dnscaches_corefile_is_taken_as_it_is() -> Result<()> {
    let folder = tempfile::tempdir().map_err(Error::file("make", "a temporary folder"))?;
    let path = folder.path().join("Corefile");
    std::fs::write(&path, node_local()).map_err(Error::file("write", &path))?;
    let agent = format!("corefile: {}\ndnsLameduck: 0s\n", path.display());
    let mut site =
        Site::new(&Options { nodes: 1, agent, ..Options::default() }, &[("client", 1), ("web-0", 1)])?;
    let local = "169.254.20.10";
    for host in [site.client(), site.cluster.node(1).host()] {
        for server in [local, DNS_ADDRESSES[0]] {
            for (name, wanted) in
                [("web.default.svc.cluster.local", WEB[0]), ("www.example.org", "203.0.113.1")]
            {
                wait_for(&format!("{name} from {server}"), LIMIT, || {
                    let server = format!("@{server}");
                    let told = host.run("dig", &["+short", "+tries=1", "+time=2", &server, name])?.stdout;
                    Ok((told.trim() == wanted).then_some(()))
                })
                .map_err(|error| site.with_logs(&error))?;
            }
        }
        expect(host, local, 8080, "health", "OK 200").map_err(|error| site.with_logs(&error))?;
    }
    expect(site.cluster.node(1).host(), "127.0.0.1", 9253, "metrics", "coredns_cache_entries")?;
    // The manifest's probe goes to an address of the node's; yet its port is free.
    site.servers.http(site.cluster.node(1).host(), 8080, "mine")?;
    let [node4, _] = site.cluster.node(1).addresses();
    expect(site.client(), &node4, 8080, "", "mine")
}
