//! Options about which names there are.

use hickory_proto::rr::RecordType::{self, A, AAAA, MX, PTR, SRV};
use sluice_model::{Changes, Namespace, Object};

use super::{cluster, config, served};
use crate::{
    DnsConfig, Exposure, Upstreams,
    testing::{
        bed::{in_namespace, sh},
        *,
    },
};

fn labelled(name: &str, label: &str) -> Object {
    let labels = [(label.to_owned(), "yes".to_owned())].into();
    Object::Namespace(Namespace { name: name.into(), labels })
}

fn told(fixture: &Fixture, name: &str, qtype: RecordType) -> String {
    fixture.told(&format!("{name}.cluster.local."), qtype).remove(0)
}

#[test]
fn only_the_namespaces_that_are_exposed_have_names() {
    let other = [namespace("other"), cluster_ip("other/web", &["10.96.0.30"], &[])];
    let exposure = Exposure { namespaces: vec!["other".to_owned()], ..Exposure::default() };
    let fixture = Fixture::with(DnsConfig { exposure, ..config() }, cluster().into_iter().chain(other));
    assert_eq!(told(&fixture, "web.other.svc", A), "NOERROR");
    assert_eq!(told(&fixture, "web.default.svc", A), "NXDOMAIN");
    assert_eq!(told(&fixture, "default.svc", A), "NXDOMAIN", "the namespace itself");
    assert_eq!(fixture.told("20.0.96.10.in-addr.arpa.", PTR), ["NOT OURS"]);
}

#[test]
fn a_namespace_that_gets_a_label_gets_its_names() {
    let namespace_labels = Some("seen=yes".parse().unwrap());
    let exposure = Exposure { namespace_labels, ..Exposure::default() };
    let fixture = Fixture::with(DnsConfig { exposure, ..config() }, cluster());
    assert_eq!(told(&fixture, "web.default.svc", A), "NXDOMAIN");
    let mut snapshot = snapshot(cluster());
    for (object, code) in [(labelled("default", "seen"), "NOERROR"), (namespace("default"), "NXDOMAIN")] {
        let mut changes = Changes::default();
        snapshot.apply(object, &mut changes);
        fixture.publisher.publish(&snapshot, &changes);
        assert_eq!(told(&fixture, "web.default.svc", A), code);
        assert_eq!(told(&fixture, "default.svc", A), code);
    }
}

#[test]
fn endpoints_may_have_no_names() {
    let fixture = Fixture::with(DnsConfig { endpoints: false, ..config() }, cluster());
    for (name, qtype, code) in [
        ("web.default.svc", A, "NOERROR"),
        ("named.web.default.svc", A, "NXDOMAIN"),
        ("db.default.svc", A, "NXDOMAIN"),
        ("_sql._tcp.db.default.svc", SRV, "NXDOMAIN"),
    ] {
        assert_eq!(told(&fixture, name, qtype), code, "{name}");
    }
    assert_eq!(fixture.told("8.0.1.10.in-addr.arpa.", PTR), ["NOT OURS"]);
}

#[test]
fn services_without_a_ready_endpoint_may_be_left_out() {
    let fixture = Fixture::with(DnsConfig { ignore_empty_services: true, ..config() }, cluster());
    assert_eq!(told(&fixture, "web.default.svc", A), "NOERROR");
    assert_eq!(told(&fixture, "four.default.svc", A), "NXDOMAIN", "nobody is behind it");
    assert_eq!(told(&fixture, "out.default.svc", MX), "NOT OURS", "it has no endpoints by nature");
}

#[test]
fn names_that_do_not_exist_may_be_looked_for_elsewhere() {
    in_namespace(|| {
        let fallthrough = vec!["svc.cluster.local".to_owned()];
        let (_running, world) = served(DnsConfig { fallthrough, ..config() });
        let ask = |name: &str| sh(&format!("dig +tries=1 @10.96.0.10 {name}"));
        let text = ask("shop.default.svc.cluster.local");
        assert!(
            text.contains("status: NXDOMAIN") && text.contains("www.example.org"),
            "not our SOA record: {text}"
        );
        assert_eq!(world.queries(), 1);
        let text = ask("web.default.svc.cluster.local MX");
        assert!(text.contains("status: NOERROR") && text.contains("ns.dns.cluster.local"), "{text}");
        assert!(ask("www.elsewhere.cluster.local").contains("status: NXDOMAIN"));
        assert_eq!(world.queries(), 1, "what exists, and what is in another domain, is answered here");
    });
}

#[test]
fn networks_that_change_leave_the_names_as_they_are() {
    let fixture = Fixture::with(DnsConfig { upstreams: Upstreams::None, ..config() }, cluster());
    let before = fixture.publisher.zone();
    let networks = vec!["10.0.0.0/8".parse().unwrap(), "192.168.0.0/16".parse().unwrap()];
    fixture.publisher.change(origin(&DnsConfig { networks, ..config() }), &snapshot(cluster()));
    let after = fixture.publisher.zone();
    assert_eq!(after.origin.networks.len(), 2);
    assert!(after.serial != before.serial);
    assert_eq!(told(&fixture, "web.default.svc", AAAA), "NOERROR");
}
