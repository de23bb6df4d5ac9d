//! What answers where nothing of the usual does: ports that a service does not have, addresses of none, and the
//! cluster's DNS while the node's own server is dead.

use std::time::{Duration, Instant};

use sluice_tests::bed::Servers;
use sluice_tests::cluster::{DNS_ADDRESSES, Options};
use sluice_tests::{Error, Result, wait_for};

use crate::paths::on_both_paths;
use crate::site::{LIMIT, Site, WEB, bracketed};

on_both_paths!(a_port_that_a_service_does_not_have_is_refused_and_an_address_of_none_is_silent);

/// curl's exit code where the connection was refused.
const REFUSED: i32 = 7;
/// curl's exit code where nobody answered in time.
const TIMED_OUT: i32 = 28;

fn a_port_that_a_service_does_not_have_is_refused_and_an_address_of_none_is_silent(
    fast_path: bool,
) -> Result<()> {
    let site = Site::usual(fast_path)?;
    for host in [site.client(), site.cluster.node(1).host()] {
        for (address, stranger) in WEB.into_iter().zip(["10.96.0.99", "fd00:96::99"]) {
            let fetch = |address: &str, port: u16| {
                let url = format!("http://{}:{port}/", bracketed(address));
                host.run("curl", &["-sS", "--noproxy", "*", "--max-time", "2", &url])
            };
            assert_eq!(fetch(address, 81)?.code, Some(REFUSED), "{} to {address}:81", host.name());
            let silent = fetch(stranger, 80)?.code;
            assert_eq!(silent, Some(TIMED_OUT), "{} to {stranger}", host.name());
        }
    }
    Ok(())
}

#[test]
fn the_clusters_other_dns_answers_while_the_nodes_own_is_dead() -> Result<()> {
    let site = Site::new(&Options::default(), &[("client", 1), ("dns-0", 2)])?;
    let mut servers = Servers::new();
    servers.udp(site.pod("dns-0").host(), 53, "another server")?;
    servers.http(site.pod("dns-0").host(), 53, "another server")?;
    let [dns4, dns6] = DNS_ADDRESSES;
    site.cluster.apply(
        "kube-dns.yaml",
        &format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: kube-dns, namespace: kube-system}}\nspec:\n  \
             clusterIP: {dns4}\n  clusterIPs: [{dns4}, '{dns6}']\n  ipFamilies: [IPv4, IPv6]\n  \
             ipFamilyPolicy: RequireDualStack\n  ports:\n  - {{name: dns, port: 53, protocol: UDP}}\n  \
             - {{name: dns-tcp, port: 53}}\n---\n{}",
            slices(site.pod("dns-0").addresses())
        ),
    )?;
    let node = site.cluster.node(1);
    let own = |host: &sluice_tests::bed::Host, server: &str| {
        let server = format!("@{server}");
        host.succeed(
            "dig",
            &["+short", "+tries=1", "+time=1", &server, "web.default.svc.cluster.local.", "A"],
        )
    };
    for server in DNS_ADDRESSES {
        wait_for("the node's own server", LIMIT, || {
            Ok((own(site.client(), server)?.trim() == WEB[0]).then_some(()))
        })?;
    }

    node.kill_agent()?;
    let death = Instant::now();
    for host in [site.client(), node.host()] {
        for server in DNS_ADDRESSES {
            let target = format!("{}:53", bracketed(server));
            let answer = host.ask_udp(&target, 0).map_err(|error| site.with_logs(&error))?;
            assert_eq!(answer, "another server", "{} asks {server}", host.name());
            assert_eq!(host.curl(&format!("http://{target}/"))?.trim(), "another server");
        }
    }
    // All eight questions found the other server at once: none waited for a time-out of its own.
    assert!(death.elapsed() < Duration::from_secs(4), "{:?}", death.elapsed());

    node.start_agent()?;
    node.wait_ready()?;
    for server in DNS_ADDRESSES {
        let answer = own(site.client(), server)?;
        if answer.trim() != WEB[0] {
            return Err(site.with_logs(&Error::answer(server, answer)));
        }
    }
    Ok(())
}

/// The EndpointSlices of the DNS service, which has no selector.
fn slices(addresses: &[std::net::IpAddr]) -> String {
    let slice = |address: &std::net::IpAddr| {
        let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: kube-dns-{}\n  \
             namespace: kube-system\n  labels: {{kubernetes.io/service-name: kube-dns}}\n\
             addressType: {family}\nports:\n- {{name: dns, port: 53, protocol: UDP}}\n\
             - {{name: dns-tcp, port: 53, protocol: TCP}}\nendpoints:\n- {{addresses: ['{address}']}}\n---\n",
            family.to_lowercase()
        )
    };
    addresses.iter().map(slice).collect()
}
