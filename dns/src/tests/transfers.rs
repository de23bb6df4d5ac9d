//! The zone as a whole, in all its domains, and with the names that pods of the node have besides.

use hickory_proto::rr::RecordType::{A, AAAA, MX, NS, PTR, SRV};
use sluice_model::Changes;

use super::{cluster, config, exchange, served};
use crate::{
    DnsConfig, Transfer,
    testing::{
        bed::{in_namespace, sh},
        *,
    },
};

/// The records that a transfer brings, each as a line.
fn transferred(more: &str) -> Vec<String> {
    let text = sh(&format!("dig +tries=1 +noall +answer +noidnout @10.96.0.10 cluster.local {more}"));
    let lines = text.lines().filter(|line| !line.starts_with(';') && !line.is_empty());
    lines.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

fn with_transfers(to: &[&str]) -> DnsConfig {
    let to = to.iter().map(|net| net.parse().unwrap()).collect();
    DnsConfig { transfers: vec![Transfer { zones: vec!["cluster.local".to_owned()], to }], ..config() }
}

#[test]
fn the_zone_is_given_to_whom_the_configuration_names() {
    in_namespace(|| {
        let (running, _world) = served(with_transfers(&["10.96.0.10/32"]));
        let records = transferred("AXFR");
        let (Some(first), Some(last)) = (records.first(), records.last()) else { panic!("no records") };
        assert!(first.contains(" IN SOA ns.dns.cluster.local. hostmaster.cluster.local. "), "{first}");
        assert_eq!(first, last);
        for wanted in [
            "cluster.local. 30 IN NS ns.dns.cluster.local.",
            "ns.dns.cluster.local. 30 IN A 10.96.0.10",
            "dns-version.cluster.local. 28800 IN TXT \"1.1.0\"",
            "web.default.svc.cluster.local. 30 IN A 10.96.0.20",
            "web.default.svc.cluster.local. 30 IN AAAA fd00:96::20",
            "web.default.svc.cluster.local. 30 IN SRV 0 33 9 web.default.svc.cluster.local.",
            "_http._tcp.web.default.svc.cluster.local. 30 IN SRV 0 100 80 web.default.svc.cluster.local.",
            "named.web.default.svc.cluster.local. 30 IN A 10.1.0.6",
            "db.default.svc.cluster.local. 30 IN A 10.1.0.8",
            "db-1.db.default.svc.cluster.local. 30 IN A 10.1.0.9",
            "_sql._tcp.db.default.svc.cluster.local. 30 IN SRV 0 50 5432 db-0.db.default.svc.cluster.local.",
            "out.default.svc.cluster.local. 30 IN CNAME www.example.org.",
        ] {
            assert!(records.iter().any(|record| record == wanted), "{wanted}: {records:#?}");
        }
        assert!(!records.iter().any(|record| record.contains("unready")), "what does not exist");
        // Each record is what a question brings, too.
        for record in &records[1..records.len() - 1] {
            let words: Vec<_> = record.split(' ').collect();
            let (name, qtype, data) = (words[0], words[3], words[4..].join(" "));
            if name.starts_with("ring.") {
                continue;
            }
            let told = sh(&format!("dig +tries=1 +short @10.96.0.10 {name} {qtype}"));
            assert!(told.lines().any(|line| line == data), "{record}: {told}");
        }
        // Who has what there is gets that; who has less, everything.
        let serial: u32 = first.split(' ').nth(6).unwrap().parse().unwrap();
        assert_eq!(transferred(&format!("IXFR={serial}")).len(), 1);
        assert_eq!(transferred(&format!("IXFR={}", serial - 1)).len(), records.len());
        // Not over UDP, not to others, and no part of it.
        let udp = exchange(&question("cluster.local.", hickory_proto::rr::RecordType::AXFR)).unwrap();
        assert_eq!(udp[3] & 0xf, 5);
        let refused = |query: &str| sh(&format!("dig +tries=1 {query}")).contains("Transfer failed");
        assert!(refused("-b 127.0.0.1 @10.96.0.10 cluster.local AXFR"));
        assert!(refused("@10.96.0.10 svc.cluster.local AXFR"));
        assert!(refused("@10.96.0.10 example.org AXFR"));
        drop(running);
    });
}

#[test]
fn a_large_zone_takes_several_messages() {
    in_namespace(|| {
        let (running, _world) = served(with_transfers(&[]));
        let many = (0..3000).map(|n| {
            let address = format!("10.97.{}.{}", n / 250, n % 250);
            cluster_ip(&format!("default/service-number-{n}"), &[&address], &["http/TCP/80"])
        });
        let all = cluster().into_iter().chain(many);
        running.publisher.publish(&snapshot(all), &Changes::everything());
        let records = transferred("AXFR");
        let count = |wanted: &str| records.iter().filter(|record| record.contains(wanted)).count();
        assert_eq!(count(" A 10.97."), 3000);
        assert_eq!(count("_http._tcp.service-number-"), 3000);
        assert_eq!(count(" SOA "), 2);
    });
}

#[test]
fn nobody_is_given_the_zone_unasked() {
    in_namespace(|| {
        let (_running, _world) = served(config());
        assert!(sh("dig +tries=1 @10.96.0.10 cluster.local AXFR").contains("Transfer failed"));
    });
}

#[test]
fn all_domains_have_the_clusters_names() {
    let more_zones = vec!["b.test".to_owned(), "inner.cluster.local".to_owned()];
    let fixture = Fixture::with(DnsConfig { more_zones, ..config() }, cluster());
    for zone in ["cluster.local.", "b.test.", "inner.cluster.local."] {
        let name = |below: &str| format!("{below}.{zone}");
        assert_eq!(
            fixture.told(&name("web.default.svc"), A),
            ["NOERROR".to_owned(), format!("web.default.svc.{zone} 30 A 10.96.0.20")]
        );
        assert_eq!(
            fixture.told(&name("_http._tcp.web.default.svc"), SRV)[1],
            format!("_http._tcp.web.default.svc.{zone} 30 SRV 0 100 80 web.default.svc.{zone}")
        );
        assert_eq!(fixture.told(zone, NS)[1], format!("{zone} 30 NS ns.dns.{zone}"));
        assert_eq!(fixture.told(&name("nothing.default.svc"), AAAA), ["NXDOMAIN"]);
        let denial = fixture.ask(&name("nothing.default.svc"), A).unwrap();
        assert_eq!(denial.authorities[0].name.to_string(), zone);
    }
    assert_eq!(
        fixture.told("20.0.96.10.in-addr.arpa.", PTR)[1],
        "20.0.96.10.in-addr.arpa. 30 PTR web.default.svc.cluster.local.",
        "reverse names lead to the first"
    );
}

#[test]
fn pods_of_the_node_answer_to_their_aliases() {
    let fixture = Fixture::with(config(), cluster());
    let names = |names: &[(&str, &[&str])]| {
        let read = |ips: &[&str]| ips.iter().map(|ip| ip.parse().unwrap()).collect();
        names.iter().map(|(name, ips)| ((*name).to_owned(), read(ips))).collect()
    };
    let both: &[&str] = &["10.1.0.20", "10.1.0.21", "fd00:1::20"];
    fixture.publisher.set_aliases(&names(&[
        ("db", both),
        ("db.podnet", both),
        ("web.default.svc.cluster.local", &["192.0.2.66"]),
        ("gone.default.svc.cluster.local", &["192.0.2.66"]),
    ]));
    let serial = fixture.publisher.serial();
    assert_eq!(fixture.told("DB.", A), ["NOERROR", "DB. 30 A 10.1.0.20", "DB. 30 A 10.1.0.21"]);
    assert_eq!(fixture.told("db.podnet.", AAAA), ["NOERROR", "db.podnet. 30 AAAA fd00:1::20"]);
    assert_eq!(fixture.told("db.", MX), ["NOERROR"]);
    assert_eq!(fixture.told("db.other.", A), ["NOT OURS"]);
    // Names of the cluster stay the cluster's.
    assert_eq!(
        fixture.told("web.default.svc.cluster.local.", A)[1],
        "web.default.svc.cluster.local. 30 A 10.96.0.20"
    );
    assert_eq!(fixture.told("gone.default.svc.cluster.local.", A), ["NXDOMAIN"]);
    // They outlive what the cluster changes, and go with their pods.
    fixture.publisher.publish(&snapshot(cluster()), &Changes::everything());
    assert_eq!(fixture.told("db.", A).len(), 3);
    fixture.publisher.set_aliases(&names(&[("db", &["10.1.0.21"])]));
    assert_eq!(fixture.told("db.", A), ["NOERROR", "db. 30 A 10.1.0.21"]);
    assert!(fixture.publisher.serial() > serial);
    fixture.publisher.set_aliases(&names(&[]));
    assert_eq!(fixture.told("db.", A), ["NOT OURS"]);
}
