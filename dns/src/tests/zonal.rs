//! Names of endpoints in a topology zone.

use hickory_proto::rr::RecordType::{self, A, AAAA, MX, SRV, TXT};
use sluice_model::{Changes, Object};

use super::config;
use crate::{Corefile, DnsConfig, testing::*};

fn cluster() -> Vec<Object> {
    vec![
        namespace("default"),
        headless("default/db"),
        slice(
            "db-4",
            "default/db",
            &["sql/TCP/5432"],
            &[
                "10.1.0.1=db-0@West-1",
                "10.1.0.2=db-1@east",
                "10.1.0.3=db-2@east",
                "10.1.0.4=db-3",
                "10.1.0.5@south!",
            ],
        ),
        slice(
            "db-6",
            "default/db",
            &["sql/TCP/5432"],
            &["fd00:1::1=db-0@west-1", "fd00:1::6=db-6@corp.example.com"],
        ),
        headless("default/unready"),
        slice("unready-1", "default/unready", &[], &["10.1.0.11@west-1!"]),
        cluster_ip("default/web", &["10.96.0.20"], &["http/TCP/80"]),
        slice("web-1", "default/web", &["http/TCP/8080"], &["10.1.0.1@west-1"]),
        external("default/out", "www.example.org"),
        import("default/db", &[], &[]),
        slice_from("one", "far-1", "default/db", &[], &["10.2.0.1@west-1"]),
    ]
}

fn zonal() -> DnsConfig {
    DnsConfig { zonal: true, multicluster_zones: vec!["clusterset.local".to_owned()], ..config() }
}

fn told(fixture: &Fixture, name: &str, qtype: RecordType) -> Vec<String> {
    let name = format!("{name}.default.svc.cluster.local.");
    let told = fixture.told(&name, qtype).into_iter();
    told.map(|line| line.replace(&format!("{name} 30 "), "")).collect()
}

#[test]
fn endpoints_of_a_zone_have_names() {
    let fixture = Fixture::with(zonal(), cluster());
    let all = ["NOERROR", "A 10.1.0.1", "A 10.1.0.2", "A 10.1.0.3", "A 10.1.0.4"];
    let table: &[(&str, RecordType, &[&str])] = &[
        ("west-1.pin._zone.db", A, &["NOERROR", "A 10.1.0.1"]),
        ("WEST-1.Pin._Zone.db", A, &["NOERROR", "A 10.1.0.1"]),
        ("west-1.prefer._zone.db", AAAA, &["NOERROR", "AAAA fd00:1::1"]),
        ("east.pin._zone.db", A, &["NOERROR", "A 10.1.0.2", "A 10.1.0.3"]),
        ("east.pin._zone.db", AAAA, &["NOERROR"]),
        // There are some in the zone, if none of this family: nothing wider is told.
        ("east.prefer._zone.db", AAAA, &["NOERROR"]),
        ("corp.example.com.pin._zone.db", AAAA, &["NOERROR", "AAAA fd00:1::6"]),
        ("east.pin._zone.db", MX, &["NOERROR"]),
        ("east.pin._zone.db", TXT, &["NOERROR"]),
        // Nobody is there, whoever asks, or none is ready.
        ("north.pin._zone.db", A, &["NOERROR"]),
        ("south.pin._zone.db", A, &["NOERROR"]),
        ("north.pin._zone.db", SRV, &["NOERROR"]),
        ("north.prefer._zone.db", A, &all),
        ("south.prefer._zone.db", A, &all),
        ("west-1.pin._zone.unready", A, &["NOERROR"]),
        ("west-1.prefer._zone.unready", A, &["NOERROR"]),
        ("unready", A, &["NXDOMAIN"]),
        // The names above them are there as well.
        ("pin._zone.db", A, &["NOERROR"]),
        ("_zone.db", A, &["NOERROR"]),
        // Only of services that exist and are headless, with a word that is known.
        ("west-1.near._zone.db", A, &["NXDOMAIN"]),
        ("near._zone.db", A, &["NXDOMAIN"]),
        ("west-1.pin._zone.web", A, &["NXDOMAIN"]),
        ("west-1.pin._zone.out", A, &["NXDOMAIN"]),
        ("west-1.pin._zone.none", A, &["NXDOMAIN"]),
        ("west-1.pin.zone.db", A, &["NXDOMAIN"]),
        ("_sql._tcp.west-1.pin._zone.db", SRV, &["NOERROR"]),
        // Others are as ever.
        ("db", A, &all),
        ("db-1.db", A, &["NOERROR", "A 10.1.0.2"]),
    ];
    for (name, qtype, wanted) in table {
        assert_eq!(told(&fixture, name, *qtype), *wanted, "{name} {qtype}");
    }
    let srv = told(&fixture, "east.pin._zone.db", SRV);
    let target = |host: &str| format!("SRV 0 50 5432 {host}.db.default.svc.cluster.local.");
    assert_eq!(srv, ["NOERROR".to_owned(), target("db-1"), target("db-2")]);
    let message = fixture.ask("east.pin._zone.db.default.svc.cluster.local.", SRV).unwrap();
    assert_eq!(message.additionals.len(), 2);
    assert_eq!(fixture.told("west-1.pin._zone.db.default.svc.clusterset.local.", A), ["NXDOMAIN"]);
    assert_eq!(fixture.told("west-1.pin._zone.db.default.pod.cluster.local.", A), ["NXDOMAIN"]);
}

#[test]
fn without_the_option_there_are_no_such_names() {
    let fixture = Fixture::with(config(), cluster());
    for name in ["west-1.pin._zone.db", "pin._zone.db", "_zone.db"] {
        assert_eq!(told(&fixture, name, A), ["NXDOMAIN"], "{name}");
    }
}

#[test]
fn an_endpoint_that_moves_to_another_zone_has_its_name_there() {
    let fixture = Fixture::with(zonal(), cluster());
    let mut snapshot = snapshot(cluster());
    let mut changes = Changes::default();
    snapshot.apply(slice("db-4", "default/db", &["sql/TCP/5432"], &["10.1.0.1=db-0@east"]), &mut changes);
    fixture.publisher.publish(&snapshot, &changes);
    assert_eq!(told(&fixture, "east.pin._zone.db", A), ["NOERROR", "A 10.1.0.1"]);
    assert_eq!(told(&fixture, "west-1.pin._zone.db", A), ["NOERROR"]);
}

#[test]
fn a_corefile_switches_them_on() {
    let read = |options: &str| {
        let text = format!("cluster.local {{\n kubernetes {{\n{options}\n }}\n}}");
        Corefile::read(&text, DnsConfig::default()).map(|corefile| corefile.config.zonal)
    };
    assert_eq!([read("ttl 5"), read("zonal")], [Ok(false), Ok(true)]);
    assert!(read("zonal yes").is_err());
    let error = read("noendpoints\nzonal").unwrap_err().to_string();
    assert!(error.starts_with("line 4: zonal: is about endpoints"), "{error}");
    assert!(DnsConfig { zonal: true, endpoints: false, ..DnsConfig::default() }.check().is_err());
}
