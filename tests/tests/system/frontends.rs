//! The addresses that a service has besides its cluster address, and services that change what they are (rows 1, 2, 14
//! to 16 and 31 of the behaviour table).

use sluice_tests::bed::{Host, Servers};
use sluice_tests::cluster::{OUTSIDE, service};
use sluice_tests::{Error, Result, wait_for};

use crate::paths::on_both_paths;
use crate::site::{LIMIT, NODE_PORTS, Site, WEB, bracketed, spread, url, web_service};

on_both_paths!(
    external_addresses_are_served_inside_and_outside,
    a_load_balancers_addresses_are_served_unless_it_wants_to_see_the_traffic,
    a_load_balancer_lets_in_whom_its_ranges_name,
    a_service_that_becomes_another_kind_leaves_nothing_behind,
    one_number_is_two_ports_for_two_protocols,
);

/// Addresses that nobody holds; the outside host is led to the second node.
const BALANCED: [&str; 2] = ["198.18.0.20", "2001:db8:18::20"];

/// The service `web` with these addresses of a load balancer.
fn balanced(mode: &str, more: &str) -> String {
    let [ip4, ip6] = WEB;
    let spec = format!(
        "type: LoadBalancer\nclusterIP: {ip4}\nclusterIPs: [{ip4}, '{ip6}']\nipFamilies: [IPv4, IPv6]\n\
         ipFamilyPolicy: RequireDualStack\nports:\n- {{name: http, port: 80, nodePort: {}}}\n\
         - {{name: who, port: 90, nodePort: {}}}\n{more}",
        NODE_PORTS[0], NODE_PORTS[1]
    );
    let [vip4, vip6] = BALANCED;
    let text = service("web", &spec);
    let text = text.trim_end_matches("---\n");
    format!(
        "{text}status:\n  loadBalancer:\n    ingress:\n    - {{ip: {vip4}, ipMode: {mode}}}\n    \
         - {{ip: '{vip6}', ipMode: {mode}}}\n---\n"
    )
}

/// Leads the outside host's packets for the addresses to a node.
fn lead_outside(site: &Site, node: usize) -> Result<()> {
    let via = site.cluster.node(node).addresses();
    let [vip4, vip6] = BALANCED;
    let lines = format!("route replace {vip4} via {}\nroute replace {vip6} via {}\n", via[0], via[1]);
    site.cluster.outside().ip(&lines).map(|_| ())
}

/// Waits until curl ends like this: 0 is an answer, 7 a refusal, 28 silence.
fn wait_code(site: &Site, host: &Host, url: &str, wanted: &[i32]) -> Result<()> {
    wait_for(&format!("{wanted:?} from {url} at {}", host.name()), LIMIT, || {
        let output = host.run("curl", &["-sS", "--noproxy", "*", "-m", "1", url])?;
        let met = output.code.is_some_and(|code| wanted.contains(&code));
        if met { Ok(Some(())) } else { Err(Error::answer(url, format!("{output:?}"))) }
    })
    .map_err(|error| site.with_logs(&error))
}

fn external_addresses_are_served_inside_and_outside(fast_path: bool) -> Result<()> {
    let site = Site::usual(fast_path)?;
    let [ip4, ip6] = BALANCED;
    site.cluster.apply("web.yaml", &web_service(&format!("externalIPs: [{ip4}, '{ip6}']\n")))?;
    lead_outside(&site, 2)?;
    for address in BALANCED {
        site.wait_spread(site.client(), &url(address), 2)?;
        site.wait_spread(site.cluster.node(1).host(), &url(address), 2)?;
        site.wait_spread(site.cluster.outside(), &url(address), 2)?;
    }
    Ok(())
}

fn a_load_balancers_addresses_are_served_unless_it_wants_to_see_the_traffic(fast_path: bool) -> Result<()> {
    let site = Site::usual(fast_path)?;
    lead_outside(&site, 1)?;
    site.cluster.apply("web.yaml", &balanced("VIP", "externalTrafficPolicy: Local\n"))?;
    for (family, address) in BALANCED.into_iter().enumerate() {
        // From inside, all endpoints; from outside, those of the node, which see the client.
        site.wait_spread(site.client(), &url(address), 2)?;
        site.wait_spread(site.cluster.node(1).host(), &url(address), 2)?;
        site.wait_spread(site.cluster.outside(), &url(address), 1)?;
        let seen = site.cluster.outside().seen_as("TCP", &format!("{}:90", bracketed(address)))?;
        assert_eq!(seen, OUTSIDE[family]);
    }
    // Now the balancer itself is to be met, which here is the outside host.
    site.cluster.apply("web.yaml", &balanced("Proxy", ""))?;
    let outside = site.cluster.outside();
    let [ip4, ip6] = BALANCED;
    outside.ip(&format!(
        "route del {ip4}\nroute del {ip6}\naddress add {ip4}/32 dev lo\naddress add {ip6}/128 dev lo nodad\n"
    ))?;
    let mut balancer = Servers::new();
    balancer.http(outside, 80, "the balancer")?;
    for address in BALANCED {
        wait_for("the balancer", LIMIT, || {
            Ok(spread(site.client(), &url(address), 6)?.keys().eq(["the balancer"]).then_some(()))
        })
        .map_err(|error| site.with_logs(&error))?;
    }
    Ok(())
}

fn a_load_balancer_lets_in_whom_its_ranges_name(fast_path: bool) -> Result<()> {
    let site = Site::usual(fast_path)?;
    lead_outside(&site, 2)?;
    let ranges = |ranges: &str| balanced("VIP", &format!("loadBalancerSourceRanges: [{ranges}]\n"));
    let [out4, out6] = OUTSIDE;
    site.cluster.apply("web.yaml", &ranges(&format!("{out4}/32, '{out6}/128'")))?;
    for (family, address) in BALANCED.into_iter().enumerate() {
        wait_code(&site, site.client(), &url(address), &[28])?;
        wait_code(&site, site.cluster.outside(), &url(address), &[0])?;
        // Neither node ports nor the cluster address are the balancer's business.
        let node = bracketed(&site.cluster.node(1).addresses()[family]);
        wait_code(&site, site.client(), &format!("http://{node}:{}/", NODE_PORTS[0]), &[0])?;
        wait_code(&site, site.client(), &url(WEB[family]), &[0])?;
    }
    site.cluster.apply("web.yaml", &ranges("10.244.0.0/16, 'fd00:244::/32'"))?;
    for address in BALANCED {
        wait_code(&site, site.client(), &url(address), &[0])?;
        wait_code(&site, site.cluster.outside(), &url(address), &[28])?;
    }
    site.cluster.apply("web.yaml", &ranges(&format!("{out4}/32, 0.0.0.0/0, '::/0'")))?;
    for address in BALANCED {
        wait_code(&site, site.client(), &url(address), &[0])?;
        wait_code(&site, site.cluster.outside(), &url(address), &[0])?;
    }
    Ok(())
}

fn a_service_that_becomes_another_kind_leaves_nothing_behind(fast_path: bool) -> Result<()> {
    let site = Site::usual(fast_path)?;
    let [ip4, ip6] = WEB;
    let families =
        format!("clusterIP: {ip4}\nclusterIPs: [{ip4}, '{ip6}']\nipFamilyPolicy: RequireDualStack\n");
    let ports = "ports: [{name: http, port: 80}]\n";
    let node_url = |family: usize| {
        format!("http://{}:{}/", bracketed(&site.cluster.node(1).addresses()[family]), NODE_PORTS[0])
    };
    let wait_all = |cluster: &[i32], node: &[i32]| -> Result<()> {
        for (family, address) in WEB.into_iter().enumerate() {
            wait_code(&site, site.client(), &url(address), cluster)?;
            wait_code(&site, site.cluster.outside(), &node_url(family), node)?;
        }
        Ok(())
    };
    let unserved = &[7, 28];
    wait_all(&[0], &[0])?;
    site.cluster.apply("web.yaml", &service("web", &format!("{families}{ports}")))?;
    wait_all(&[0], &[7])?;
    site.cluster.apply("web.yaml", &service("web", "type: ExternalName\nexternalName: example.org\n"))?;
    wait_all(unserved, &[7])?;
    site.cluster.apply("web.yaml", &web_service(""))?;
    wait_all(&[0], &[0])?;
    // Another proxy's service, by a label that is added later.
    let text = web_service("");
    let labelled = text.replacen(
        "  namespace: default\n",
        "  namespace: default\n  labels: {service.kubernetes.io/service-proxy-name: other}\n",
        1,
    );
    assert_ne!(labelled, text);
    site.cluster.apply("web.yaml", &labelled)?;
    wait_all(unserved, &[7])?;
    site.cluster.apply("web.yaml", &text)?;
    wait_all(&[0], &[0])
}

fn one_number_is_two_ports_for_two_protocols(fast_path: bool) -> Result<()> {
    let site = Site::usual(fast_path)?;
    for (family, address) in WEB.into_iter().enumerate() {
        let node = bracketed(&site.cluster.node(2).addresses()[family]);
        let [first, who] = NODE_PORTS;
        for (host, target) in [
            (site.client(), format!("{}:90", bracketed(address))),
            (site.cluster.outside(), format!("{node}:{who}")),
        ] {
            for protocol in ["TCP", "UDP"] {
                host.seen_as(protocol, &target)?;
            }
        }
        // HTTP on TCP, another server on UDP.
        assert!(site.cluster.outside().curl(&format!("http://{node}:{first}/"))?.starts_with("web-"));
        assert!(site.cluster.outside().ask_udp(&format!("{node}:{first}"), 0)?.starts_with("web-"));
    }
    Ok(())
}
