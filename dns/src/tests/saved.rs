//! The zone of an earlier server, served until the cluster is known.

use hickory_proto::rr::RecordType::{A, AAAA, MX, PTR, SRV, TXT};
use proptest::prelude::*;
use sluice_model::Changes;

use super::{cluster, config, properties::any_object};
use crate::{DnsConfig, Saved, SavedError, Upstreams, testing::*};

fn saved() -> Saved {
    let fixture = Fixture::with(config(), cluster());
    Saved::read(fixture.publisher.save(&[]).unwrap().write().as_bytes()).unwrap()
}

#[test]
fn what_was_known_is_told_and_nothing_is_denied() {
    let config = DnsConfig { upstreams: Upstreams::None, reverse_fallthrough: false, ..config() };
    let fixture = Fixture::new(&config);
    assert!(fixture.publisher.save(&[]).is_none(), "nothing is known yet");
    fixture.publisher.restore(&saved());
    assert!(!fixture.publisher.is_ready() && fixture.publisher.save(&[]).is_none());
    for (name, qtype, wanted) in [
        ("web.default.svc.cluster.local.", A, "web.default.svc.cluster.local. 0 A 10.96.0.20"),
        ("web.default.svc.cluster.local.", AAAA, "web.default.svc.cluster.local. 0 AAAA fd00:96::20"),
        ("db-1.db.default.svc.cluster.local.", A, "db-1.db.default.svc.cluster.local. 0 A 10.1.0.9"),
        ("20.0.96.10.in-addr.arpa.", PTR, "20.0.96.10.in-addr.arpa. 0 PTR web.default.svc.cluster.local."),
        (
            "_http._tcp.web.default.svc.cluster.local.",
            SRV,
            "_http._tcp.web.default.svc.cluster.local. 0 SRV 0 100 80 web.default.svc.cluster.local.",
        ),
        ("1-2-3-4.default.pod.cluster.local.", A, "1-2-3-4.default.pod.cluster.local. 0 A 1.2.3.4"),
        ("dns-version.cluster.local.", TXT, "dns-version.cluster.local. 28800 TXT 1.1.0"),
    ] {
        assert_eq!(fixture.told(name, qtype), ["NOERROR", wanted], "{name}");
    }
    for (name, qtype) in [
        ("new.default.svc.cluster.local.", A),
        ("web.default.svc.cluster.local.", MX),
        ("lost.default.svc.cluster.local.", A),
        ("web.fresh.svc.cluster.local.", A),
        ("99.0.96.10.in-addr.arpa.", PTR),
    ] {
        let message = fixture.ask(name, qtype).unwrap();
        assert_eq!(u16::from(message.metadata.response_code), 2, "{name}");
        assert!(message.authorities.is_empty() || !message.answers.is_empty(), "{name}");
    }

    fixture.publisher.publish(&snapshot([]), &Changes::everything());
    assert!(fixture.publisher.is_ready());
    assert_eq!(fixture.told("web.default.svc.cluster.local.", A), ["NXDOMAIN"]);
    fixture.publisher.restore(&saved());
    assert_eq!(fixture.told("web.default.svc.cluster.local.", A), ["NXDOMAIN"], "too late");
}

#[test]
fn another_clusters_zone_is_not_served() {
    let fixture = Fixture::new(&DnsConfig { zone: "other.test".to_owned(), ..config() });
    fixture.publisher.restore(&saved());
    assert_eq!(fixture.told("web.default.svc.other.test.", A), ["SERVFAIL"]);
}

#[test]
fn a_damaged_file_is_refused() {
    let whole = saved().write().into_bytes();
    assert!(matches!(Saved::read(&whole[..whole.len() / 2]), Err(SavedError::Damaged(_))));
    assert!(matches!(Saved::read(b""), Err(SavedError::Damaged(_))));
    assert!(matches!(Saved::read(b"{\"version\":2}"), Err(SavedError::Version(2))));
}

proptest! {
    #[test]
    fn every_zone_comes_back_as_it_was(objects in proptest::collection::vec(any_object(), 0..40)) {
        let fixture = Fixture::with(DnsConfig::default(), objects);
        let saved = fixture.publisher.save(&["10.0.0.0/8".parse().unwrap()]).unwrap();
        let zone = fixture.publisher.zone();
        let back = Saved::of(&saved.zone(&zone.origin).unwrap(), saved.clients());
        prop_assert_eq!(Saved::read(saved.write().as_bytes()).unwrap(), saved.clone());
        prop_assert_eq!(back, saved);
    }

    #[test]
    fn no_file_panics(at in 0_usize..2000, what in "[ -~]{0,3}", qname in "[a-z0-9.-]{1,20}") {
        let mut text = saved().write();
        let at = at.min(text.len());
        text.replace_range(at..(at + what.len()).min(text.len()), &what);
        if let Ok(saved) = Saved::read(text.as_bytes()) {
            let fixture = Fixture::new(&config());
            fixture.publisher.restore(&saved);
            let _ = hickory_proto::rr::Name::from_ascii(format!("{qname}.default.svc.cluster.local."))
                .map(|name| fixture.ask(&name.to_string(), SRV));
        }
    }
}
