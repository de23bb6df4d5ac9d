//! What load balancers ask a node: `healthCheckNodePort` (row 37 of the behaviour table).

use sluice_tests::bed::{Host, Servers};
use sluice_tests::cluster::service;
use sluice_tests::{Error, Result, wait_for};

use crate::site::{LIMIT, Site, WEB, bracketed, web_service};
use crate::slices::{State, WEB_PORTS, slices};

const PORT: u16 = 32100;

/// The service `web` behind a load balancer.
fn balanced(policy: &str) -> String {
    let [ip4, ip6] = WEB;
    let check = if policy == "Local" { format!("healthCheckNodePort: {PORT}\n") } else { String::new() };
    let spec = format!(
        "type: LoadBalancer\nclusterIP: {ip4}\nclusterIPs: [{ip4}, '{ip6}']\nipFamilies: [IPv4, IPv6]\n\
         ipFamilyPolicy: RequireDualStack\nports:\n- {{name: http, port: 80, nodePort: 30080}}\n\
         externalTrafficPolicy: {policy}\n{check}"
    );
    service("web", &spec)
}

/// Head and body of the answer, as they came; the exit code where there is none.
fn asked(host: &Host, address: &str, path: &str) -> Result<std::result::Result<String, i32>> {
    let url = format!("http://{}:{PORT}{path}", bracketed(address));
    let output = host.run("curl", &["-sSi", "--noproxy", "*", "-m", "5", &url])?;
    Ok(match output.code {
        Some(0) => Ok(output.stdout),
        code => Err(code.unwrap_or(-1)),
    })
}

/// Waits for an answer that begins and ends like this.
fn wait_answer(site: &Site, address: &str, status: &str, endpoints: usize) -> Result<String> {
    let body = format!(
        "{{\n\t\"service\": {{\n\t\t\"namespace\": \"default\",\n\t\t\"name\": \"web\"\n\t}},\n\
         \t\"localEndpoints\": {endpoints},\n\t\"serviceProxyHealthy\": true\n}}"
    );
    let outside = site.cluster.outside();
    wait_for(&format!("{status} from {address}"), LIMIT, || {
        let answer = asked(outside, address, "/healthz")?;
        match answer {
            Ok(text) if text.starts_with(status) && text.ends_with(&format!("\r\n\r\n{body}")) => {
                Ok(Some(text))
            }
            other => Err(Error::answer(address, format!("{other:?}"))),
        }
    })
    .map_err(|error| site.with_logs(&error))
}

#[test]
fn a_load_balancer_learns_which_nodes_have_endpoints() -> Result<()> {
    let site = Site::usual(true)?;
    site.cluster.apply("web.yaml", &balanced("Local"))?;
    for family in 0..2 {
        for node in [1, 2] {
            let address = site.cluster.node(node).addresses()[family].clone();
            let text = wait_answer(&site, &address, "HTTP/1.1 200 OK", 1)?.to_lowercase();
            for header in [
                "content-type: application/json\r\n",
                "x-content-type-options: nosniff\r\n",
                "x-load-balancing-endpoint-weight: 1\r\n",
            ] {
                assert!(text.contains(header), "{header} in {text}");
            }
            let any = asked(site.cluster.outside(), &address, "/any/path?at=all")?;
            assert!(any.is_ok_and(|text| text.starts_with("HTTP/1.1 200 OK")));
        }
    }
    site.cluster.withdraw("web-1.yaml")?;
    for address in site.cluster.node(2).addresses() {
        let text = wait_answer(&site, &address, "HTTP/1.1 503 Service Unavailable", 0)?;
        assert!(text.to_lowercase().contains("x-load-balancing-endpoint-weight: 0\r\n"), "{text}");
    }
    for address in site.cluster.node(1).addresses() {
        wait_answer(&site, &address, "HTTP/1.1 200 OK", 1)?;
    }
    // The port goes with its reason.
    site.cluster.apply("web.yaml", &balanced("Cluster"))?;
    for address in site.cluster.node(1).addresses() {
        wait_for("the port to be closed", LIMIT, || {
            // 7: refused.
            Ok((asked(site.cluster.outside(), &address, "/")? == Err(7)).then_some(()))
        })
        .map_err(|error| site.with_logs(&error))?;
    }
    Ok(())
}

#[test]
fn a_node_whose_endpoints_all_terminate_takes_no_more_of_a_load_balancers_traffic() -> Result<()> {
    let site = Site::usual(true)?;
    site.cluster.apply("web.yaml", &balanced("Local"))?;
    for (state, status, endpoints) in [
        (State::Ready, "HTTP/1.1 200 OK", 1),
        (State::Terminating, "HTTP/1.1 503 Service Unavailable", 0),
        (State::Ready, "HTTP/1.1 200 OK", 1),
    ] {
        site.cluster.apply("slices.yaml", &slices("web", &WEB_PORTS, &[site.end("web-0", state)]))?;
        for address in site.cluster.node(1).addresses() {
            wait_answer(&site, &address, status, endpoints)?;
            // What is under way to it is served all the same.
            let answer = site.cluster.outside().curl(&format!("http://{}:30080/", bracketed(&address)))?;
            assert_eq!(answer, "web-0\n");
        }
    }
    Ok(())
}

#[test]
fn a_port_that_is_taken_is_reported_and_had_when_it_is_free() -> Result<()> {
    let site = Site::usual(true)?;
    let node = site.cluster.node(1);
    let mut holder = Servers::new();
    holder.http(node.host(), PORT, "somebody else")?;
    site.cluster.apply("web.yaml", &balanced("Local"))?;
    wait_for("the error in the log", LIMIT, || {
        let named = format!("default/web: cannot serve healthCheckNodePort {PORT}");
        Ok(node.agent_log().contains(&named).then_some(()))
    })
    .map_err(|error| site.with_logs(&error))?;
    let metrics = node.host().curl("http://127.0.0.1:10249/metrics")?;
    assert!(metrics.contains("sluice_failures_total{part=\"health\"}"), "{metrics}");
    drop(holder);
    wait_answer(&site, &node.addresses()[0], "HTTP/1.1 200 OK", 1)?;
    site.cluster.apply("web.yaml", &web_service(""))?;
    Ok(())
}
