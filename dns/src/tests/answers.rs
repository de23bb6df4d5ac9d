//! How answers are made: flags, sections, sizes, serial numbers, and the options that change them.

use hickory_proto::{
    op::ResponseCode,
    rr::{RData, RecordType},
};
use sluice_model::{Changes, Object};

use super::{cluster, config};
use crate::{DnsConfig, PodRecords, Upstreams, handler::Outcome, testing::*};

use RecordType::{A, AAAA, PTR, SOA, SRV};

#[test]
fn every_answer_is_authoritative_and_every_no_carries_the_soa() {
    let fixture = Fixture::with(config(), cluster());
    for (name, qtype) in [
        ("nothing.default.svc.cluster.local.", A),
        ("four.default.svc.cluster.local.", AAAA),
        ("cluster.local.", A),
        ("lost.default.svc.cluster.local.", A),
        ("8.0.1.10.in-addr.arpa.", A),
    ] {
        let message = fixture.ask(name, qtype).unwrap();
        assert!(message.metadata.authoritative, "{name}");
        let [soa] = &message.authorities[..] else { panic!("{name}: {:?}", message.authorities) };
        let RData::SOA(data) = &soa.data else { panic!("{soa}") };
        let apex = if name.ends_with("arpa.") { "in-addr.arpa." } else { "cluster.local." };
        assert_eq!((soa.name.to_string().as_str(), soa.ttl), (apex, 30));
        assert_eq!((data.mname.to_string().as_str(), data.minimum), ("ns.dns.cluster.local.", 30));
    }
    let soa = fixture.ask("cluster.local.", SOA).unwrap();
    assert_eq!((soa.answers.len(), soa.authorities.len()), (1, 0));
}

#[test]
fn srv_answers_bring_the_addresses_of_their_targets() {
    let fixture = Fixture::with(config(), cluster());
    for (name, wanted) in [
        (
            "_sql._tcp.db.default.svc.cluster.local.",
            &[
                "db-0.db.default.svc.cluster.local. 10.1.0.8",
                "db-0.db.default.svc.cluster.local. fd00:1::8",
                "db-1.db.default.svc.cluster.local. 10.1.0.9",
            ][..],
        ),
        (
            "web.default.svc.cluster.local.",
            &["web.default.svc.cluster.local. 10.96.0.20", "web.default.svc.cluster.local. fd00:96::20"],
        ),
    ] {
        let message = fixture.ask(name, SRV).unwrap();
        let mut glue: Vec<_> = message.additionals.iter().map(|r| format!("{} {}", r.name, r.data)).collect();
        glue.sort();
        assert_eq!(glue, wanted, "{name}");
    }
}

#[test]
fn the_serial_moves_with_changes_and_only_with_them() {
    let fixture = Fixture::with(config(), cluster());
    let serial = || match &fixture.ask("cluster.local.", SOA).unwrap().answers[0].data {
        RData::SOA(soa) => soa.serial,
        other => panic!("{other}"),
    };
    let (first, mut snapshot) = (serial(), snapshot(cluster()));
    fixture.publisher.publish(&snapshot, &Changes::everything());
    assert_eq!(serial(), first, "a full pass that finds nothing changed");
    let mut changes = Changes::default();
    snapshot.apply(cluster_ip("default/new", &["10.96.0.99"], &[]), &mut changes);
    fixture.publisher.publish(&snapshot, &changes);
    assert!(serial() > first);
    assert_eq!(fixture.told("new.default.svc.cluster.local.", A).len(), 2);
}

#[test]
fn names_of_the_cluster_fail_until_it_is_known() {
    let fixture = Fixture::new(&config());
    for (name, wanted) in [
        ("web.default.svc.cluster.local.", Some(ResponseCode::ServFail)),
        ("cluster.local.", Some(ResponseCode::ServFail)),
        ("5.0.1.10.in-addr.arpa.", Some(ResponseCode::ServFail)),
        ("5.2.0.192.in-addr.arpa.", None),
        ("www.example.org.", None),
    ] {
        assert_eq!(fixture.ask(name, A).map(|m| m.metadata.response_code), wanted, "{name}");
    }
    assert!(!fixture.publisher.is_ready());
    fixture.publisher.publish(&snapshot(cluster()), &Changes::default());
    assert!(fixture.publisher.is_ready());
    assert_eq!(fixture.told("web.default.svc.cluster.local.", A).len(), 2);
}

#[test]
fn options_change_what_they_say() {
    let mut objects = cluster();
    objects.extend([pod("default/a", "10.1.0.5", false), pod("empty/b", "10.1.0.6", true)]);
    let with = |change: fn(&mut DnsConfig)| {
        let mut config = config();
        change(&mut config);
        Fixture::with(config, objects.clone())
    };
    let verified = with(|config| config.pods = PodRecords::Verified);
    let disabled = with(|config| config.pods = PodRecords::Disabled);
    let named = with(|config| config.endpoint_pod_names = true);
    let closed = with(|config| config.reverse_fallthrough = false);
    let other = with(|config| config.zone = "Example.Test".to_owned());
    let quick = with(|config| config.ttl = 0);
    for (fixture, name, qtype, code, count) in [
        (&verified, "10-1-0-5.default.pod.cluster.local.", A, "NOERROR", 1),
        (&verified, "10-1-0-6.default.pod.cluster.local.", A, "NXDOMAIN", 0),
        (&verified, "10-1-0-6.empty.pod.cluster.local.", A, "NOERROR", 1),
        (&disabled, "10-1-0-5.default.pod.cluster.local.", A, "NXDOMAIN", 0),
        (&named, "pod-10105.web.default.svc.cluster.local.", A, "NOERROR", 1),
        (&named, "named.web.default.svc.cluster.local.", A, "NOERROR", 1),
        (&named, "10-1-0-5.web.default.svc.cluster.local.", A, "NXDOMAIN", 0),
        (&closed, "10.0.1.10.in-addr.arpa.", PTR, "NXDOMAIN", 0),
        (&closed, "1.10.in-addr.arpa.", PTR, "NOERROR", 0),
        (&closed, "1.0.168.192.in-addr.arpa.", PTR, "NOT OURS", 0),
        (&other, "web.default.svc.example.test.", A, "NOERROR", 1),
        (&other, "web.default.svc.cluster.local.", A, "NOT OURS", 0),
        (&quick, "web.default.svc.cluster.local.", A, "NOERROR", 1),
    ] {
        let told = fixture.told(name, qtype);
        assert_eq!((told[0].as_str(), told.len() - 1), (code, count), "{name}");
    }
    assert!(quick.told("web.default.svc.cluster.local.", A)[1].contains(" 0 A "));
}

#[test]
fn what_does_not_fit_is_cut_and_marked() {
    let endpoints: Vec<String> = (0..5000).map(|n| format!("10.2.{}.{}", n / 250, n % 250)).collect();
    let endpoints: Vec<&str> = endpoints.iter().map(String::as_str).collect();
    let objects = [headless("default/big"), slice("big", "default/big", &["x/TCP/1"], &endpoints)];
    let fixture = Fixture::with(config(), objects);
    for (name, qtype, transport, limit, at_least) in [
        ("big.default.svc.cluster.local.", A, UDP, 512, 27),
        ("big.default.svc.cluster.local.", A, TCP, 65_535, 4090),
        ("_x._tcp.big.default.svc.cluster.local.", SRV, UDP, 512, 5),
        ("_x._tcp.big.default.svc.cluster.local.", SRV, TCP, 65_535, 900),
    ] {
        let mut out = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        for turn in 0..40 {
            let (outcome, _) =
                fixture.handler.answer(&question(name, qtype), transport, turn * 137, &mut out);
            assert!(matches!(outcome, Outcome::Answered(_)));
            let message = hickory_proto::op::Message::from_vec(&out).unwrap();
            assert!(out.len() <= limit && message.metadata.truncation, "{name} {transport:?}");
            assert!(
                message.answers.len() >= at_least,
                "{} of {name} over {transport:?}",
                message.answers.len()
            );
            seen.extend(message.answers.iter().map(|record| record.data.to_string()));
        }
        assert!(seen.len() > at_least * 3 / 2 || seen.len() == 5000, "each has its turn: {}", seen.len());
    }
}

#[test]
fn what_we_do_not_serve_is_refused() {
    let fixture = Fixture::with(config(), cluster());
    let class = |class: u16| {
        let mut message = question("web.default.svc.cluster.local.", A);
        let at = message.len() - 2;
        message[at..].copy_from_slice(&class.to_be_bytes());
        message
    };
    for (what, message) in [
        ("AXFR", question("cluster.local.", RecordType::AXFR)),
        ("IXFR", question("cluster.local.", RecordType::IXFR)),
        ("chaos", class(3)),
        ("any class", class(255)),
        ("class 0", class(0)),
    ] {
        let mut out = Vec::new();
        fixture.handler.answer(&message, TCP, 0, &mut out);
        let answer = hickory_proto::op::Message::from_vec(&out).unwrap();
        assert_eq!(answer.metadata.response_code, ResponseCode::Refused, "{what}");
    }
}

#[test]
fn a_change_costs_what_it_touches() {
    let objects = (0..10_000).flat_map(|n: u32| {
        let name = format!("ns-{}/svc-{n}", n % 100);
        let address = std::net::Ipv4Addr::from(0x0a60_0000 + n).to_string();
        let endpoint = format!("10.1.{}.{}", n / 250, n % 250);
        [
            cluster_ip(&name, &[&address], &["http/TCP/80"]),
            slice(&format!("s-{n}"), &name, &["http/TCP/80"], &[&endpoint]),
        ]
    });
    let mut snapshot = snapshot(objects);
    let fixture = Fixture::new(&DnsConfig { upstreams: Upstreams::None, ..config() });
    fixture.publisher.publish(&snapshot, &Changes::everything());
    let mut slowest = std::time::Duration::ZERO;
    for n in 0..100 {
        let mut changes = Changes::default();
        let address = format!("10.2.0.{n}");
        snapshot.apply(slice("s-77", "ns-77/svc-77", &["http/TCP/80"], &[&address]), &mut changes);
        let start = std::time::Instant::now();
        fixture.publisher.publish(&snapshot, &changes);
        slowest = slowest.max(start.elapsed());
        let name = format!("10-2-0-{n}.svc-77.ns-77.svc.cluster.local.");
        assert_eq!(fixture.told(&name, A)[1..], [format!("{name} 30 A {address}")]);
    }
    // Microseconds, but for what else the machine does; all services anew would take a second in this build.
    assert!(slowest < std::time::Duration::from_millis(100), "{slowest:?}");
}

#[test]
fn the_time_from_change_to_answer_is_measured_once() {
    let fixture = Fixture::new(&DnsConfig { upstreams: Upstreams::None, ..config() });
    let count =
        || fixture.metrics.programming.with_label_values(&["headless_with_selector"]).get_sample_count();
    let mut service = service("default/db");
    service.headless = true;
    service.selector.insert("app".to_owned(), "db".to_owned());
    let Object::EndpointSlice(mut endpoints) = slice("db-1", "default/db", &[], &["10.1.0.1"]) else {
        panic!()
    };
    let mut snapshot = snapshot([Object::Service(service)]);
    let mut publish = |last_change| {
        let mut changes = Changes::default();
        endpoints.last_change = last_change;
        snapshot.apply(Object::EndpointSlice(endpoints.clone()), &mut changes);
        fixture.publisher.publish(&snapshot, &changes);
        count()
    };
    let now = std::time::SystemTime::now();
    assert_eq!(publish(Some(now)), 0, "what was there before us");
    assert_eq!(publish(Some(now + std::time::Duration::from_secs(1))), 1);
    assert_eq!(publish(Some(now + std::time::Duration::from_secs(1))), 1);
    assert_eq!(publish(None), 1);
}
