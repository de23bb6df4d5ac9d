//! The cluster's DNS as pods and nodes find it, asked with the programs that people use.

use sluice_tests::bed::Host;
use sluice_tests::cluster::{DNS_ADDRESSES, Options, Pod, WORLD, Workload, service};
use sluice_tests::{Error, Result, wait_for};

use crate::site::{LIMIT, Site, WEB};

/// Looks up until the answer is as wanted; answers are sorted, as their order is free.
fn expect(host: &Host, query: &[&str], wanted: &[&str]) -> Result<()> {
    wait_for(&format!("dig {}", query.join(" ")), LIMIT, || {
        let text = host.succeed("dig", &[&["+short", "+search", "+tries=1", "+time=2"], query].concat())?;
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        if lines == wanted { Ok(Some(())) } else { Err(Error::answer("dig", text)) }
    })
}

#[test]
fn services_have_addresses_and_names_both_ways() -> Result<()> {
    let site = Site::usual(true)?;
    let client = site.client();
    let name = "web.default.svc.cluster.local.";
    expect(client, &["web", "A"], &[WEB[0]])?;
    expect(client, &["web", "AAAA"], &[WEB[1]])?;
    expect(client, &["web.default.svc.cluster.local.", "A", "+tcp"], &[WEB[0]])?;
    // The server walks the pod's search path for it: the first question is answered.
    expect(client, &["web.default", "A"], &[WEB[0], name])?;
    expect(client, &["-x", WEB[0]], &[name])?;
    expect(client, &["-x", WEB[1]], &[name])?;
    expect(client, &["_http._tcp.web", "SRV"], &["0 100 80 web.default.svc.cluster.local."])?;
    let text = client.succeed("nslookup", &["web"])?;
    assert!(
        text.contains(WEB[0]) && text.contains(WEB[1]) && text.contains("web.default.svc.cluster.local"),
        "{text}"
    );
    assert_eq!(client.curl("http://web.default.svc.cluster.local/")?.len(), "web-0\n".len());
    Ok(())
}

#[test]
fn every_address_of_the_dns_answers_from_pods_and_nodes() -> Result<()> {
    let site = Site::usual(true)?;
    for server in DNS_ADDRESSES {
        for host in [site.client(), site.cluster.node(1).host(), site.cluster.node(2).host()] {
            for more in [&[][..], &["+tcp"]] {
                let server = format!("@{server}");
                let query = [&["web.default.svc.cluster.local.", &server], more].concat();
                expect(host, &query, &[WEB[0]])?;
            }
        }
    }
    Ok(())
}

#[test]
fn headless_services_name_their_pods() -> Result<()> {
    let site = Site::new(&Options::default(), &[("client", 1), ("db-0", 1), ("db-1", 2)])?;
    let spec = "clusterIP: None\nclusterIPs: [None]\nipFamilies: [IPv4, IPv6]\nipFamilyPolicy: RequireDualStack\nports: [{name: sql, port: 5432}]";
    site.cluster.apply("db.yaml", &service("db", spec))?;
    for (name, node) in [("db-0", "node1"), ("db-1", "node2")] {
        let spec = format!("hostname: {name}\nsubdomain: db");
        let workload = Workload { name, node, app: "db", spec: &spec };
        site.cluster.apply(&format!("{name}.yaml"), &workload.manifest())?;
    }
    let address = |pod: &str, family: usize| site.pod(pod).addresses()[family].to_string();
    for (family, kind) in ["A", "AAAA"].into_iter().enumerate() {
        let mut both = [address("db-0", family), address("db-1", family)];
        both.sort();
        expect(site.client(), &["db", kind], &both.each_ref().map(String::as_str))?;
        expect(site.client(), &["db-1.db", kind], &[&address("db-1", family)])?;
        expect(site.client(), &["-x", &address("db-0", family)], &["db-0.db.default.svc.cluster.local."])?;
    }
    let hosts =
        ["0 50 5432 db-0.db.default.svc.cluster.local.", "0 50 5432 db-1.db.default.svc.cluster.local."];
    expect(site.client(), &["_sql._tcp.db", "SRV"], &hosts)
}

#[test]
fn external_names_and_the_wide_world_are_asked_elsewhere() -> Result<()> {
    let site = Site::new(&Options::default(), &[("client", 1)])?;
    let alias = "apiVersion: v1\nkind: Service\nmetadata: {name: docs, namespace: default}\nspec: {type: ExternalName, externalName: docs.example.org}\n";
    site.cluster.apply("docs.yaml", alias)?;
    expect(site.client(), &["docs", "A"], &["203.0.113.1", "docs.example.org."])?;
    expect(site.client(), &["www.example.org.", "AAAA"], &["2001:db8:1::1"])
}

#[test]
fn pods_answer_to_the_aliases_that_their_runtime_gives_them() -> Result<()> {
    let site = Site::new(&Options::default(), &[("client", 1)])?;
    let node = site.cluster.node(1);
    let wishes = serde_json::json!({"aliases": ["db", "web.default.svc.cluster.local"]});
    let first = node.pod_that_wants("first", wishes.clone())?;
    let second = node.pod_that_wants("second", wishes)?;
    let addresses = |pods: &[&Pod], family: usize| {
        let mut all: Vec<_> = pods.iter().map(|pod| pod.addresses()[family].to_string()).collect();
        all.sort();
        all
    };
    for host in [site.client(), node.host()] {
        for name in ["db.", "db.sluice."] {
            for (family, kind) in ["A", "AAAA"].into_iter().enumerate() {
                let wanted = addresses(&[&first, &second], family);
                expect(
                    host,
                    &["@10.96.0.10", name, kind],
                    &wanted.iter().map(String::as_str).collect::<Vec<_>>(),
                )?;
            }
        }
    }
    // As a program in a pod looks it up.
    let told = site.client().succeed("nslookup", &["db"])?;
    assert!(told.contains(&first.addresses()[0].to_string()), "{told}");
    // Names of the cluster stay the cluster's.
    expect(site.client(), &["web.default.svc.cluster.local.", "A"], &[WEB[0]])?;
    // They are of this node, and go with their pods. All other names the upstream server has.
    let [world, _] = WORLD;
    expect(site.cluster.node(2).host(), &["@10.96.0.10", "db.", "A"], &[world])?;
    first.delete()?;
    expect(site.client(), &["db.", "A"], &[&second.addresses()[0].to_string()])?;
    second.delete()?;
    expect(site.client(), &["db.", "A"], &[world])
}

#[test]
fn names_of_the_cluster_that_do_not_exist_are_denied_here() -> Result<()> {
    let site = Site::usual(true)?;
    for (name, status) in
        [("nowhere.default.svc.cluster.local", "NXDOMAIN"), ("web.default.svc.cluster.local", "NOERROR")]
    {
        let text = site.client().succeed("dig", &["+noall", "+comments", name, "MX"])?;
        assert!(text.contains(&format!("status: {status}")) && text.contains(" aa "), "{name}: {text}");
        assert!(text.contains("ANSWER: 0"), "{name}: {text}");
    }
    Ok(())
}
