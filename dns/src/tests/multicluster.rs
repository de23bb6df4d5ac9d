//! Services of a set of clusters.

use hickory_proto::rr::RecordType::{self, A, AAAA, MX, NS, PTR, SOA, SRV, TXT};
use sluice_model::{Changes, Object};

use super::{cluster, config, served};
use crate::{
    Corefile, DnsConfig, Exposure, Saved, Transfer, Upstreams,
    testing::{
        bed::{in_namespace, sh},
        *,
    },
};

fn with_imports() -> DnsConfig {
    DnsConfig { multicluster_zones: vec!["clusterset.local".to_owned()], ..config() }
}

fn clusters() -> Vec<Object> {
    let imports = [
        import("default/shop", &["10.112.0.1", "fd00:112::1"], &["http/TCP/80", "/UDP/9"]),
        slice_from("one", "shop-1", "default/shop", &["http/TCP/8080"], &["10.1.0.5", "10.1.0.6!"]),
        import("default/db", &[], &["sql/TCP/5432"]),
        slice_from("one", "db-one", "default/db", &["sql/TCP/5432"], &["10.1.0.8=db-0", "10.1.0.9=db-1"]),
        slice_from("two", "db-two", "default/db", &["sql/TCP/5433"], &["10.2.0.8=db-0"]),
        slice_from("two", "db-two-6", "default/db", &["sql/TCP/5433"], &["fd00:2::8=db-0"]),
        slice_from("", "db-three", "default/db", &[], &["10.3.0.8=lost"]),
        import("default/unready", &[], &[]),
        slice_from("one", "unready-1", "default/unready", &[], &["10.1.0.11!"]),
        import("default/pending", &[], &["http/TCP/80"]),
        import("elsewhere/there", &["10.112.0.2"], &[]),
    ];
    let pending = imports.into_iter().map(|object| match object {
        Object::ServiceImport(import) if &*import.name.name == "pending" => {
            Object::ServiceImport(sluice_model::ServiceImport { headless: false, ..import })
        }
        other => other,
    });
    cluster().into_iter().chain(pending).collect()
}

fn fixture() -> Fixture {
    Fixture::with(with_imports(), clusters())
}

fn told(fixture: &Fixture, name: &str, qtype: RecordType) -> Vec<String> {
    let name = format!("{name}.clusterset.local.");
    let told = fixture.told(&name, qtype).into_iter();
    told.map(|line| line.replace(&format!("{name} 30 "), "").replace("clusterset.local.", "*")).collect()
}

#[test]
fn names_of_the_set() {
    let fixture = fixture();
    let table: &[(&str, RecordType, &[&str])] = &[
        ("shop.default.svc", A, &["NOERROR", "A 10.112.0.1"]),
        ("shop.default.svc", AAAA, &["NOERROR", "AAAA fd00:112::1"]),
        ("SHOP.default.svc", A, &["NOERROR", "A 10.112.0.1"]),
        ("shop.default.svc", TXT, &["NOERROR"]),
        ("_http._tcp.shop.default.svc", SRV, &["NOERROR", "SRV 0 100 80 shop.default.svc.*"]),
        ("_http._udp.shop.default.svc", SRV, &["NXDOMAIN"]),
        ("_tcp.shop.default.svc", A, &["NOERROR"]),
        ("10-1-0-5.one.shop.default.svc", A, &["NOERROR", "A 10.1.0.5"]),
        ("10-1-0-6.one.shop.default.svc", A, &["NXDOMAIN"]),
        // Headless.
        ("db.default.svc", A, &["NOERROR", "A 10.1.0.8", "A 10.1.0.9", "A 10.2.0.8", "A 10.3.0.8"]),
        ("db.default.svc", AAAA, &["NOERROR", "AAAA fd00:2::8"]),
        ("db-0.one.db.default.svc", A, &["NOERROR", "A 10.1.0.8"]),
        ("db-0.one.db.default.svc", AAAA, &["NOERROR"]),
        ("db-0.two.db.default.svc", A, &["NOERROR", "A 10.2.0.8"]),
        ("db-0.two.db.default.svc", MX, &["NOERROR"]),
        ("db-1.two.db.default.svc", A, &["NXDOMAIN"]),
        ("db-0.db.default.svc", A, &["NXDOMAIN"]),
        ("two.db.default.svc", A, &["NOERROR"]),
        ("three.db.default.svc", A, &["NXDOMAIN"]),
        ("lost.db.default.svc", A, &["NOERROR", "A 10.3.0.8"]),
        ("x.db-0.two.db.default.svc", A, &["NXDOMAIN"]),
        (
            "_sql._tcp.db.default.svc",
            SRV,
            &[
                "NOERROR",
                "SRV 0 33 5432 db-0.one.db.default.svc.*",
                "SRV 0 33 5432 db-1.one.db.default.svc.*",
                "SRV 0 33 5433 db-0.two.db.default.svc.*",
            ],
        ),
        // What there is not, and what has nothing.
        ("unready.default.svc", A, &["NXDOMAIN"]),
        ("pending.default.svc", A, &["NOERROR"]),
        ("web.default.svc", A, &["NXDOMAIN"]),
        ("default.svc", A, &["NOERROR"]),
        ("elsewhere.svc", A, &["NOERROR"]),
        ("nowhere.svc", A, &["NXDOMAIN"]),
        ("svc", A, &["NOERROR"]),
        ("other", A, &["NXDOMAIN"]),
        ("10-1-0-5.default.pod", A, &["NOERROR", "A 10.1.0.5"]),
        ("dns-version", TXT, &["NOERROR", "dns-version.* 28800 TXT 1.0.0"]),
        ("ns.dns", A, &["NOERROR", "A 10.96.0.10"]),
    ];
    for (name, qtype, wanted) in table {
        assert_eq!(told(&fixture, name, *qtype), *wanted, "{name} {qtype}");
    }
    assert_eq!(fixture.told("clusterset.local.", NS)[1], "clusterset.local. 30 NS ns.dns.clusterset.local.");
    let soa = fixture.ask("x.default.svc.clusterset.local.", SOA).unwrap().authorities.remove(0);
    assert_eq!(soa.name.to_string(), "clusterset.local.");
    // A service's and an import's name are two.
    assert_eq!(fixture.told("shop.default.svc.cluster.local.", A), ["NXDOMAIN"]);
    assert_eq!(fixture.told("two.db.default.svc.cluster.local.", A), ["NXDOMAIN"]);
}

#[test]
fn srv_answers_bring_the_addresses_of_endpoints_in_all_clusters() {
    let message = fixture().ask("_sql._tcp.db.default.svc.clusterset.local.", SRV).unwrap();
    let mut told: Vec<_> =
        message.additionals.iter().map(|record| format!("{} {}", record.name, record.data)).collect();
    told.sort();
    let name = |host: &str, address: &str| format!("{host}.db.default.svc.clusterset.local. {address}");
    let wanted = [
        name("db-0.one", "10.1.0.8"),
        name("db-0.two", "10.2.0.8"),
        name("db-0.two", "fd00:2::8"),
        name("db-1.one", "10.1.0.9"),
    ];
    assert_eq!(told, wanted);
}

#[test]
fn addresses_point_to_imports_where_they_are_no_services() {
    let fixture = fixture();
    let of = |address: &str| fixture.told(&format!("{address}.in-addr.arpa."), PTR);
    assert!(
        of("1.0.112.10")[1].ends_with(" PTR shop.default.svc.clusterset.local."),
        "{:?}",
        of("1.0.112.10")
    );
    assert!(of("8.0.2.10")[1].ends_with(" PTR db-0.two.db.default.svc.clusterset.local."));
    assert!(of("8.0.1.10")[1].ends_with(" PTR db-0.db.default.svc.cluster.local."), "the cluster's own name");
    let alone = Fixture::with(config(), clusters());
    assert_eq!(alone.told("1.0.112.10.in-addr.arpa.", PTR), ["NOT OURS"]);
    assert_eq!(alone.told("shop.default.svc.clusterset.local.", A), ["NOT OURS"]);
}

#[test]
fn imports_come_and_go() {
    let fixture = Fixture::new(&DnsConfig { upstreams: Upstreams::None, ..with_imports() });
    let mut snapshot = snapshot(cluster());
    assert_eq!(told(&fixture, "shop.default.svc", A), ["SERVFAIL"], "before the cluster is known");
    fixture.publisher.publish(&snapshot, &Changes::everything());
    let mut step = |object: Object, is_there: bool| {
        let mut changes = Changes::default();
        match is_there {
            true => snapshot.apply(object, &mut changes),
            false => snapshot.remove(&object.key(), &mut changes),
        }
        fixture.publisher.publish(&snapshot, &changes);
        [told(&fixture, "db.default.svc", A), fixture.told("8.0.2.10.in-addr.arpa.", PTR)]
            .map(|told| told.len() - 1)
    };
    let slice = || slice_from("two", "db-two", "default/db", &["sql/TCP/5433"], &["10.2.0.8=db-0"]);
    let db = || import("default/db", &[], &["sql/TCP/5432"]);
    assert_eq!(step(slice(), true), [0, 0]);
    assert_eq!(step(db(), true), [1, 1]);
    assert_eq!(step(slice(), false), [0, 0]);
    assert_eq!(step(slice(), true), [1, 1]);
    assert_eq!(step(db(), false), [0, 0]);
    let fresh = Fixture::new(&with_imports());
    fresh.publisher.publish(&snapshot, &Changes::everything());
    assert!(fixture.publisher.zone() == fresh.publisher.zone());
}

#[test]
fn options_hold_for_imports_too() {
    let with = |change: fn(&mut DnsConfig)| {
        let mut config = with_imports();
        change(&mut config);
        let fixture = Fixture::with(config, clusters());
        move |name: &str| told(&fixture, name, A).remove(0)
    };
    let code = with(|config| config.ignore_empty_services = true);
    assert_eq!([code("shop.default.svc"), code("there.elsewhere.svc")], ["NOERROR", "NXDOMAIN"]);
    let code = with(|config| {
        config.exposure = Exposure { namespaces: vec!["elsewhere".into()], ..Exposure::default() }
    });
    assert_eq!([code("shop.default.svc"), code("there.elsewhere.svc")], ["NXDOMAIN", "NOERROR"]);
    let code =
        with(|config| config.exposure = Exposure { labels: "a=b".parse().ok(), ..Exposure::default() });
    assert_eq!(code("shop.default.svc"), "NXDOMAIN");
    let code = with(|config| config.endpoint_pod_names = true);
    assert_eq!(code("pod-10105.one.shop.default.svc"), "NOERROR");
    let code = with(|config| config.endpoints = false);
    assert_eq!(code("db-0.one.db.default.svc"), "NOERROR", "as with CoreDNS");
}

#[test]
fn what_was_known_of_imports_is_known_to_the_next_server() {
    let saved = Saved::read(fixture().publisher.save(&[]).unwrap().write().as_bytes()).unwrap();
    let next = Fixture::new(&DnsConfig { upstreams: Upstreams::None, ..with_imports() });
    next.publisher.restore(&saved);
    let zero = |name: &str, qtype| {
        let told = next.told(&format!("{name}.clusterset.local."), qtype);
        told.iter().map(|line| line.rsplit(' ').next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(zero("shop.default.svc", A), ["NOERROR", "10.112.0.1"]);
    assert_eq!(zero("db-0.two.db.default.svc", A), ["NOERROR", "10.2.0.8"]);
    assert_eq!(zero("_sql._tcp.db.default.svc", SRV).len(), 4);
    assert_eq!(zero("new.default.svc", A), ["SERVFAIL"]);
}

#[test]
fn the_set_is_given_as_a_whole_to_whom_the_configuration_names() {
    in_namespace(|| {
        let transfers = vec![Transfer { zones: vec![".".to_owned()], to: Vec::new() }];
        let (running, _world) = served(DnsConfig { transfers, ..with_imports() });
        running.publisher.publish(&snapshot(clusters()), &Changes::everything());
        let text = sh("dig +tries=1 +noall +answer @10.96.0.10 clusterset.local AXFR");
        let lines: Vec<String> =
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        for wanted in [
            "dns-version.clusterset.local. 28800 IN TXT \"1.0.0\"",
            "shop.default.svc.clusterset.local. 30 IN A 10.112.0.1",
            "db-0.two.db.default.svc.clusterset.local. 30 IN A 10.2.0.8",
            "_sql._tcp.db.default.svc.clusterset.local. 30 IN SRV 0 33 5433 db-0.two.db.default.svc.clusterset.local.",
        ] {
            assert!(lines.iter().any(|line| line == wanted), "{wanted}: {lines:#?}");
        }
        assert!(!text.contains("web.default"), "{text}");
    });
}

#[test]
fn a_corefile_names_the_domains_of_the_set() {
    let read = |zones: &str, options: &str| {
        let text = format!("cluster.local:53 {{\n kubernetes {zones} {{\n{options}\n }}\n}}");
        Corefile::read(&text, DnsConfig::default()).map(|corefile| corefile.config)
    };
    let config =
        read("clusterset.local cluster.local in-addr.arpa b.test", "multicluster clusterset.local.").unwrap();
    assert_eq!(config.zone, "cluster.local", "the first that is the cluster's own");
    assert_eq!(config.multicluster_zones, ["clusterset.local"]);
    assert_eq!(config.more_zones, ["b.test"]);
    assert!(config.check().is_ok());
    let error = read("cluster.local", "multicluster clusterset.local").unwrap_err().to_string();
    assert_eq!(error, "line 3: multicluster: \"clusterset.local\" is no domain of kubernetes");
    let error = read("cluster.local", "multicluster").unwrap_err().to_string();
    assert!(error.starts_with("line 3: multicluster: "), "{error}");
    let own = DnsConfig { multicluster_zones: vec!["Cluster.Local.".to_owned()], ..DnsConfig::default() };
    assert!(own.check().is_err());
}
