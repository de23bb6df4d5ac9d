//! Names under which those outside find services.

use hickory_proto::rr::RecordType::{self, A, AAAA, ANY, CNAME, NS, PTR, SOA, SRV, TXT};
use sluice_model::{Changes, LoadBalancerIngress, Object, Service};

use super::{cluster, config, served};
use crate::{
    Corefile, DnsConfig, External, Order, Rules, Saved, Transfer,
    testing::{
        bed::{in_namespace, sh},
        *,
    },
};

fn reached(object: Object, external_ips: &[&str], balancers: &[&str]) -> Object {
    let Object::Service(mut service) = object else { panic!("a service") };
    service.external_ips = external_ips.iter().map(|ip| ip.parse().unwrap()).collect();
    for text in balancers {
        match text.parse() {
            Ok(address) => service.load_balancer.push(LoadBalancerIngress { address, proxy_mode: false }),
            Err(_) => service.load_balancer_names.push((*text).into()),
        }
    }
    Object::Service(Service { ..service })
}

fn objects() -> Vec<Object> {
    let ports = &["http/TCP/80", "dns/UDP/53"];
    let mut objects = cluster();
    objects.extend([
        reached(
            cluster_ip("default/shop", &["10.96.0.30"], ports),
            &["192.0.2.1"],
            &["192.0.2.2", "2001:db8::2", "lb.test"],
        ),
        reached(
            cluster_ip("default/cloud", &["10.96.0.31"], &["http/TCP/80"]),
            &[],
            &["lb.test", "other.test"],
        ),
        reached(cluster_ip("default/inner", &["10.96.0.32"], ports), &[], &["web.default.svc.cluster.local"]),
        reached(cluster_ip("default/portless", &["10.96.0.33"], &[]), &["192.0.2.1"], &[]),
        reached(headless("default/known"), &["192.0.2.4"], &[]),
        slice("known-4", "default/known", &["x/TCP/1"], &["10.1.0.40"]),
        reached(cluster_ip("kube-system/kube-dns", &["10.96.0.10"], &["dns/UDP/53"]), &[], &["192.0.2.53"]),
    ]);
    objects
}

fn outside(change: impl FnOnce(&mut External)) -> DnsConfig {
    let mut external = External {
        zones: ["2.0.192.in-addr.arpa", "out.test", "deep.out.test", "ip6.arpa"].map(str::to_owned).to_vec(),
        ..External::default()
    };
    change(&mut external);
    DnsConfig { external: Some(external), ..config() }
}

#[test]
fn services_are_found_from_outside() {
    let plain = Fixture::with(outside(|_| {}), objects());
    let headless = Fixture::with(
        outside(|external| {
            external.headless = true;
            external.ttl = 60;
            external.apex = "names".to_owned();
        }),
        objects(),
    );
    let addresses =
        &["NOERROR", "SHOP.default.out.test. 5 A 192.0.2.1", "SHOP.default.out.test. 5 A 192.0.2.2"];
    let table: &[(&Fixture, &str, RecordType, &[&str])] = &[
        (&plain, "SHOP.default.out.test.", A, addresses),
        (&plain, "shop.default.out.test.", AAAA, &["NOERROR", "shop.default.out.test. 5 AAAA 2001:db8::2"]),
        (
            &plain,
            "shop.default.deep.out.test.",
            AAAA,
            &["NOERROR", "shop.default.deep.out.test. 5 AAAA 2001:db8::2"],
        ),
        (&plain, "shop.default.out.test.", TXT, &["NOERROR"]),
        (&plain, "shop.default.out.test.", ANY, &["NOERROR", "shop.default.out.test. 3600 HINFO RFC8482 "]),
        (&plain, "known.default.out.test.", A, &["NOERROR", "known.default.out.test. 5 A 192.0.2.4"]),
        (&plain, "portless.default.out.test.", A, &["NOERROR", "portless.default.out.test. 5 A 192.0.2.1"]),
        (&plain, "portless.default.out.test.", SRV, &["NOERROR"]),
        (&plain, "kube-dns.kube-system.out.test.", AAAA, &["NOERROR"]),
        // Without a way in there is no such name, whatever it is within the cluster.
        (&plain, "web.default.out.test.", A, &["NXDOMAIN"]),
        (&plain, "db.default.out.test.", A, &["NXDOMAIN"]),
        (&plain, "nothing.default.out.test.", A, &["NXDOMAIN"]),
        (&plain, "shop.nowhere.out.test.", A, &["NXDOMAIN"]),
        (&plain, "nowhere.out.test.", A, &["NXDOMAIN"]),
        (&plain, "default.out.test.", A, &["NOERROR"]),
        (&plain, "out.test.", A, &["NOERROR"]),
        (&plain, "dns.out.test.", A, &["NOERROR"]),
        (&plain, "ns1.dns.out.test.", A, &["NOERROR", "ns1.dns.out.test. 5 A 192.0.2.53"]),
        (&plain, "ns1.dns.out.test.", AAAA, &["NOERROR"]),
        (&plain, "ns2.dns.out.test.", A, &["NXDOMAIN"]),
        (&plain, "a.ns1.dns.out.test.", A, &["NXDOMAIN"]),
        (&plain, "out.test.", NS, &["NOERROR", "out.test. 5 NS ns1.dns.out.test."]),
        // Names of load balancers.
        (&plain, "cloud.default.out.test.", CNAME, &["NOERROR", "cloud.default.out.test. 5 CNAME lb.test."]),
        (&plain, "cloud.default.out.test.", A, &["NOT OURS"]),
        (
            &plain,
            "inner.default.out.test.",
            A,
            &[
                "NOERROR",
                "inner.default.out.test. 5 CNAME web.default.svc.cluster.local.",
                "web.default.svc.cluster.local. 30 A 10.96.0.20",
            ],
        ),
        // Ports.
        (&plain, "_tcp.shop.default.out.test.", A, &["NOERROR"]),
        (&plain, "_sctp.shop.default.out.test.", A, &["NXDOMAIN"]),
        (&plain, "_x._tcp.shop.default.out.test.", SRV, &["NXDOMAIN"]),
        (&plain, "a._http._tcp.shop.default.out.test.", SRV, &["NXDOMAIN"]),
        (
            &plain,
            "_http._tcp.shop.default.out.test.",
            SRV,
            &[
                "NOERROR",
                "_http._tcp.shop.default.out.test. 5 SRV 0 25 80 lb.test.",
                "_http._tcp.shop.default.out.test. 5 SRV 0 25 80 shop.default.out.test.",
            ],
        ),
        (
            &plain,
            "cloud.default.out.test.",
            SRV,
            &[
                "NOERROR",
                "cloud.default.out.test. 5 SRV 0 50 80 lb.test.",
                "cloud.default.out.test. 5 SRV 0 50 80 other.test.",
            ],
        ),
        // Reverse names.
        (
            &plain,
            "1.2.0.192.in-addr.arpa.",
            PTR,
            &[
                "NOERROR",
                "1.2.0.192.in-addr.arpa. 5 PTR portless.default.out.test.",
                "1.2.0.192.in-addr.arpa. 5 PTR shop.default.out.test.",
            ],
        ),
        (&plain, "1.2.0.192.in-addr.arpa.", A, &["NOERROR"]),
        (&plain, "9.2.0.192.in-addr.arpa.", PTR, &["NXDOMAIN"]),
        (&plain, "8.b.d.0.1.0.0.2.ip6.arpa.", PTR, &["NOERROR"]),
        (&plain, "9.b.d.0.1.0.0.2.ip6.arpa.", PTR, &["NXDOMAIN"]),
        (&plain, "9.9.9.9.in-addr.arpa.", PTR, &["NOT OURS"]),
        // Services that are reached by their endpoints.
        (
            &headless,
            "db.default.out.test.",
            A,
            &["NOERROR", "db.default.out.test. 60 A 10.1.0.8", "db.default.out.test. 60 A 10.1.0.9"],
        ),
        (
            &headless,
            "db-0.db.default.out.test.",
            AAAA,
            &["NOERROR", "db-0.db.default.out.test. 60 AAAA fd00:1::8"],
        ),
        (&headless, "db-9.db.default.out.test.", A, &["NXDOMAIN"]),
        (
            &headless,
            "_sql._sctp.db.default.out.test.",
            SRV,
            &[
                "NOERROR",
                "_sql._sctp.db.default.out.test. 60 SRV 0 50 5432 db-0.db.default.out.test.",
                "_sql._sctp.db.default.out.test. 60 SRV 0 50 5432 db-1.db.default.out.test.",
            ],
        ),
        (
            &headless,
            "db-1.db.default.out.test.",
            SRV,
            &[
                "NOERROR",
                "db-1.db.default.out.test. 60 SRV 0 50 5432 db-1.db.default.out.test.",
                "db-1.db.default.out.test. 60 SRV 0 50 5432 db-1.db.default.out.test.",
            ],
        ),
        (&headless, "unready.default.out.test.", A, &["NXDOMAIN"]),
        (&headless, "web.default.out.test.", A, &["NXDOMAIN"]),
        (
            &headless,
            "named.web.default.out.test.",
            A,
            &["NOERROR", "named.web.default.out.test. 60 A 10.1.0.6"],
        ),
        (&headless, "known.default.out.test.", A, &["NOERROR", "known.default.out.test. 60 A 192.0.2.4"]),
        (&headless, "ns1.names.out.test.", A, &["NOERROR", "ns1.names.out.test. 60 A 192.0.2.53"]),
        // The cluster's own names stay.
        (
            &plain,
            "shop.default.svc.cluster.local.",
            A,
            &["NOERROR", "shop.default.svc.cluster.local. 30 A 10.96.0.30"],
        ),
    ];
    for (fixture, name, qtype, told) in table {
        assert_eq!(fixture.told(name, *qtype), *told, "{name} {qtype}");
    }
    let soa = plain.told("deep.out.test.", SOA);
    let serial = plain.publisher.serial().unwrap();
    let wanted =
        format!("5 SOA ns1.dns.deep.out.test. hostmaster.dns.deep.out.test. {serial} 7200 1800 86400 5");
    assert_eq!(soa[1], format!("deep.out.test. {wanted}"));
    for name in ["web.default.deep.out.test.", "default.deep.out.test."] {
        let denial = plain.ask(name, A).unwrap();
        let soa = &denial.authorities[0];
        assert_eq!((soa.name.to_string(), soa.ttl), ("deep.out.test.".to_owned(), 5));
        assert!(denial.metadata.authoritative);
    }
    let glue = plain.ask("_http._tcp.shop.default.out.test.", SRV).unwrap().additionals;
    assert_eq!(glue.len(), 3);
    assert!(glue.iter().all(|record| record.name.to_string() == "shop.default.out.test."));
}

#[test]
fn what_is_unknown_outside_may_be_others() {
    let fixture = |fallthrough: Option<&[&str]>, except: &[&str]| {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let config = outside(|external| {
            external.fallthrough = fallthrough.map(owned);
            external.except = owned(except);
        });
        Fixture::with(config, objects())
    };
    let all = fixture(Some(&[]), &[]);
    let some = fixture(Some(&["deep.out.test"]), &["left.out.test"]);
    for (fixture, name, told) in [
        (&all, "web.default.out.test.", "NOT OURS"),
        (&all, "default.out.test.", "NOERROR"),
        (&some, "web.default.out.test.", "NXDOMAIN"),
        (&some, "web.default.deep.out.test.", "NOT OURS"),
        (&some, "a.left.out.test.", "NOT OURS"),
    ] {
        assert_eq!(fixture.told(name, A), [told], "{name}");
    }
    // Of a cluster that is not known, nothing is denied.
    let early = Fixture::new(&outside(|external| external.fallthrough = Some(Vec::new())));
    assert_eq!(early.told("shop.default.out.test.", A), ["SERVFAIL"]);
}

#[test]
fn names_outside_follow_the_cluster() {
    let fixture = Fixture::with(outside(|_| {}), objects());
    let (before, name) = (fixture.publisher.serial(), "shop.default.out.test.");
    let service = reached(cluster_ip("default/shop", &["10.96.0.30"], &[]), &[], &["192.0.2.9"]);
    let mut changes = Changes::default();
    let mut now = snapshot(objects());
    now.apply(service, &mut changes);
    fixture.publisher.publish(&now, &changes);
    assert_eq!(fixture.told(name, A), ["NOERROR", "shop.default.out.test. 5 A 192.0.2.9"]);
    assert_eq!(fixture.told("9.2.0.192.in-addr.arpa.", PTR).len(), 2);
    assert_eq!(fixture.told("2.2.0.192.in-addr.arpa.", PTR), ["NXDOMAIN"]);
    assert!(fixture.publisher.serial() > before);
}

#[test]
fn a_zone_that_was_kept_has_names_outside() {
    let saved = Fixture::with(outside(|_| {}), objects()).publisher.save(&[]).unwrap();
    let later = Fixture::new(&outside(|_| {}));
    later.publisher.restore(&Saved::read(saved.write().as_bytes()).unwrap());
    for (name, qtype, told) in [
        ("known.default.out.test.", A, &["NOERROR", "known.default.out.test. 0 A 192.0.2.4"][..]),
        (
            "_dns._udp.kube-dns.kube-system.out.test.",
            SRV,
            &[
                "NOERROR",
                "_dns._udp.kube-dns.kube-system.out.test. 0 SRV 0 100 53 kube-dns.kube-system.out.test.",
            ],
        ),
        ("cloud.default.out.test.", CNAME, &["NOERROR", "cloud.default.out.test. 0 CNAME lb.test."]),
        ("nothing.default.out.test.", A, &["SERVFAIL"]),
        ("known.default.out.test.", AAAA, &["SERVFAIL"]),
    ] {
        assert_eq!(later.told(name, qtype), told, "{name} {qtype}");
    }
}

#[test]
fn dig_gets_the_whole_domain_for_those_outside() {
    in_namespace(|| {
        let config = outside(|external| external.headless = true);
        let transfers = vec![Transfer { zones: vec!["out.test".to_owned()], to: Vec::new() }];
        let (running, _world) = served(DnsConfig { transfers, ..config });
        running.publisher.publish(&snapshot(objects()), &Changes::everything());
        let text = sh("dig +tries=1 +noall +answer @10.96.0.10 out.test AXFR");
        let lines: Vec<_> = text
            .lines()
            .filter(|line| !line.starts_with(';') && !line.is_empty())
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert!(lines[0].contains("out.test. 5 IN SOA ns1.dns.out.test. "), "{lines:#?}");
        assert_eq!(lines.first(), lines.last());
        for wanted in [
            "out.test. 5 IN NS ns1.dns.out.test.",
            "ns1.dns.out.test. 5 IN A 192.0.2.53",
            "shop.default.out.test. 5 IN AAAA 2001:db8::2",
            "_dns._udp.shop.default.out.test. 5 IN SRV 0 25 53 lb.test.",
            "cloud.default.out.test. 5 IN CNAME lb.test.",
            "db-0.db.default.out.test. 5 IN A 10.1.0.8",
            "_sql._tcp.db.default.out.test. 5 IN SRV 0 50 5432 db-1.db.default.out.test.",
        ] {
            assert!(lines.iter().any(|line| line == wanted), "{wanted}: {lines:#?}");
        }
        // Each of them is what a question brings.
        for line in &lines[1..lines.len() - 1] {
            let words: Vec<_> = line.split(' ').collect();
            let told = sh(&format!("dig +tries=1 +short @10.96.0.10 {} {}", words[0], words[3]));
            assert!(told.lines().any(|told| told == words[4..].join(" ")), "{line}: {told}");
        }
        let refused =
            |name: &str| sh(&format!("dig +tries=1 @10.96.0.10 {name} AXFR")).contains("Transfer failed");
        assert!(refused("cluster.local") && refused("default.out.test") && refused("2.0.192.in-addr.arpa"));
        // A load balancer's name is asked for elsewhere.
        let followed = reached(cluster_ip("default/far", &["10.96.0.35"], &[]), &[], &["www.example.org"]);
        running.publisher.publish(&snapshot([namespace("default"), followed]), &Changes::everything());
        let told = sh("dig +tries=1 +short @10.96.0.10 far.default.out.test A");
        assert_eq!(told, "www.example.org.\n192.0.2.80\n");
    });
}

#[test]
fn k8s_external_is_read_from_a_corefile() {
    let read = |text: &str| Corefile::read(text, DnsConfig::default()).map(|corefile| corefile.config);
    let text = ". {
        k8s_external out.test 192.0.2.0/24 {
            apex names
            ttl 60
            headless
            fallthrough in.out.test
        }
        kubernetes cluster.local
    }
    left.out.test:53 {
        forward . 192.0.2.1
    }";
    let config = read(text).unwrap();
    let wanted = External {
        zones: vec!["out.test".to_owned(), "2.0.192.in-addr.arpa".to_owned()],
        apex: "names".to_owned(),
        ttl: 60,
        headless: true,
        fallthrough: Some(vec!["in.out.test".to_owned()]),
        except: vec!["left.out.test".to_owned()],
    };
    assert_eq!(config.external, Some(wanted));
    assert_eq!(config.rules[0], Rules { order: Order::AS_IT_COMES, ..Rules::new(".") });
    assert!(config.check().is_ok());
    let own = read("a.test b.test {\n kubernetes\n k8s_external\n}").unwrap().external.unwrap();
    assert_eq!(
        own,
        External { zones: vec!["a.test".to_owned(), "b.test".to_owned()], ..External::default() }
    );
    for (options, told) in [
        (
            "k8s_external x.test\n",
            "line 2: k8s_external: the server block has no kubernetes, whose services these are",
        ),
        (
            "kubernetes\n k8s_external x.test {\n ttl 4000\n }",
            "line 4: ttl: is not between 0 and 3600 seconds",
        ),
        ("kubernetes\n k8s_external x.test {\n ttl a\n }", "line 4: ttl: \"a\" is not seconds"),
        ("kubernetes\n k8s_external x.test {\n what\n }", "line 4: what: \"what\" is not supported"),
        ("kubernetes\n k8s_external a..b", "line 3: k8s_external: \"a..b\" is not a domain"),
        ("kubernetes\n k8s_external\n k8s_external", "line 4: k8s_external: the second in this server block"),
    ] {
        let error = read(&format!("x.test {{\n {options}\n}}")).unwrap_err();
        assert_eq!(error.to_string(), told);
    }
    let bad = outside(|external| external.apex = "a.b".to_owned());
    assert!(format!("{:?}", bad.check()).contains("Label"), "{:?}", bad.check());
    let none = outside(|external| external.zones.clear());
    assert!(format!("{:?}", none.check()).contains("NoZone"), "{:?}", none.check());
}
