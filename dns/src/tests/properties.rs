//! What holds for every cluster and every message.

use hickory_proto::rr::RecordType::{A, AAAA, MX, PTR, SRV};
use proptest::prelude::*;
use sluice_model::{Changes, Object};

use super::{cluster, config};
use crate::{
    DnsConfig, Upstreams,
    desired::{RecordOptions, service_key, service_records},
    name::{reverse_name, write_name},
    testing::*,
};

/// Objects of few names, so that they meet.
pub(super) fn any_object() -> impl Strategy<Value = Object> {
    let name = "[a-c]/[a-d]";
    let v4 = (0_u8..12).prop_map(|n| format!("10.1.0.{n}"));
    let v6 = (0_u8..12).prop_map(|n| format!("fd00:1::{n:x}"));
    let host = prop_oneof![Just(String::new()), "=[a-c]".prop_map(|h| h)];
    let endpoint = (prop_oneof![v4, v6], host, any::<bool>())
        .prop_map(|(a, h, r)| format!("{a}{h}{}", if r { "" } else { "!" }));
    let port = ("[ab]?", prop_oneof![Just("TCP"), Just("UDP")], 1_u16..4)
        .prop_map(|(n, p, k)| format!("{n}/{p}/{k}"));
    fn refs(strings: &[String]) -> Vec<&str> {
        strings.iter().map(String::as_str).collect()
    }
    prop_oneof![
        (name, 0_u8..6, proptest::collection::vec(port.clone(), 0..3)).prop_map(|(n, a, p)| cluster_ip(
            &n,
            &[&format!("10.96.0.{a}"), &format!("fd00:96::{a}")],
            &refs(&p)
        )),
        name.prop_map(|n| headless(&n)),
        (name, name).prop_map(|(n, to)| external(&n, &to.replace('/', "."))),
        "[a-c]".prop_map(|n| namespace(&n)),
        (name, 0_u8..3).prop_map(|(n, a)| {
            let address = format!("10.112.0.{a}");
            let addresses = [&*address];
            import(&n, if a == 0 { &[] } else { &addresses }, &["a/TCP/1"])
        }),
        ("[w-z]", name, "[ab]?", proptest::collection::vec(endpoint.clone(), 0..4))
            .prop_map(|(n, of, c, e)| slice_from(&c, &n, &of, &["a/TCP/1"], &refs(&e))),
        ("[s-v]", name, proptest::collection::vec(port, 0..3), proptest::collection::vec(endpoint, 0..4))
            .prop_map(|(n, of, p, e)| slice(&n, &of, &refs(&p), &refs(&e))),
    ]
}

proptest! {
    #[test]
    fn forward_and_reverse_agree_and_ancestors_exist(objects in proptest::collection::vec(any_object(), 0..40)) {
        let snapshot = snapshot(objects);
        let fixture = Fixture::new(&DnsConfig { upstreams: Upstreams::None, ..config() });
        fixture.publisher.publish(&snapshot, &Changes::everything());
        let options = RecordOptions::new(&DnsConfig::default());
        for (name, service) in &snapshot.services {
            let records = service_records(service, snapshot.slices_of(name).map(|s| &**s), &options);
            let base = format!("{}.{}.svc.cluster.local.", name.name, name.namespace);
            let mut names = Vec::new();
            if records.exists {
                names.push(base.clone());
            }
            for host in &records.hosts {
                let mut label = String::new();
                write_name(&host.label, &mut label).unwrap();
                names.push(format!("{label}{base}"));
                // The name gives the address, and the address gives the name or that of a service.
                let qtype = if host.address.is_ipv4() { A } else { AAAA };
                let told = fixture.told(&format!("{label}{base}"), qtype);
                prop_assert!(told.iter().any(|line| line.ends_with(&format!(" {}", host.address))), "{told:?}");
                let told = fixture.told(&reverse_name(host.address), PTR);
                prop_assert!(told.iter().any(|line| line.ends_with(&format!(" {label}{base}"))), "{told:?}");
            }
            for port in records.ports.iter().filter(|port| !port.name.is_empty()) {
                let name = String::from_utf8(port.name.to_vec()).unwrap();
                names.push(format!("_{name}._{}.{base}", port.protocol.to_string().to_lowercase()));
            }
            for name in names {
                let mut rest = name.as_str();
                while rest.ends_with("cluster.local.") {
                    prop_assert_eq!(&fixture.told(rest, MX)[0], if records.alias.is_some() && rest == base { "NOT OURS" } else { "NOERROR" }, "{} of {}", rest, name);
                    rest = rest.split_once('.').unwrap().1;
                }
            }
        }
        // Every reverse name leads to a name that has the address.
        for n in 0_u8..12 {
            for (address, qtype) in [(format!("10.1.0.{n}"), A), (format!("fd00:1::{n:x}"), AAAA), (format!("10.96.0.{n}"), A), (format!("fd00:96::{n:x}"), AAAA)] {
                let address: std::net::IpAddr = address.parse().unwrap();
                for line in fixture.told(&reverse_name(address), PTR).iter().skip(1) {
                    let target = line.rsplit(' ').next().unwrap();
                    let told = fixture.told(target, qtype);
                    prop_assert!(told.iter().any(|line| line.ends_with(&format!(" {address}"))), "{} {:?}", target, told);
                }
            }
        }
    }

    #[test]
    fn many_small_changes_come_to_the_same_as_one(
        steps in proptest::collection::vec((any_object(), any::<bool>()), 1..40),
    ) {
        let multicluster_zones = vec!["clusterset.local".to_owned()];
        let config = DnsConfig { multicluster_zones, zonal: true, ..config() };
        let fixture = Fixture::new(&config);
        let mut snapshot = sluice_model::Snapshot::default();
        fixture.publisher.publish(&snapshot, &Changes::everything());
        for (object, is_there) in steps {
            let mut changes = Changes::default();
            if is_there {
                snapshot.apply(object, &mut changes);
            } else {
                snapshot.remove(&object.key(), &mut changes);
            }
            fixture.publisher.publish(&snapshot, &changes);
        }
        let fresh = Fixture::new(&config);
        fresh.publisher.publish(&snapshot, &Changes::everything());
        prop_assert!(fixture.publisher.zone() == fresh.publisher.zone());
        let keys = snapshot.services.keys().filter_map(service_key).count();
        prop_assert_eq!(fresh.publisher.zone().services().count(), keys);
    }

    #[test]
    fn no_message_panics(message in proptest::collection::vec(any::<u8>(), 0..200)) {
        let fixture = Fixture::with(config(), cluster());
        let mut out = Vec::new();
        fixture.handler.answer(&message, UDP, 0, &mut out);
    }

    #[test]
    fn a_changed_query_does_not_panic(flips in proptest::collection::vec((0_usize..80, any::<u8>()), 1..6), cut in 0_usize..80) {
        let fixture = Fixture::with(config(), cluster());
        let mut message = question("_sql._tcp.db.default.svc.cluster.local.", SRV);
        for (at, byte) in flips {
            if let Some(place) = message.get_mut(at) {
                *place = byte;
            }
        }
        message.truncate(message.len() - cut.min(message.len()) / 8);
        let mut out = Vec::new();
        fixture.handler.answer(&message, UDP, 0, &mut out);
    }
}
