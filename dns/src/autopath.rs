//! The walk along a pod's search path, done for it: pure.
//!
//! A pod's resolver looks for `www.example.org` as `www.example.org.<ns>.svc.<zone>` first, then as three names
//! and more before the one that was meant, each a question and an answer. We know the pod's namespace, and
//! so the path: the first question is answered with what the walk would come to, by way of a CNAME record.

use std::net::IpAddr;

use crate::{
    name::WireName,
    query::{Query, QueryName},
    wire::rtype,
    zone::Zone,
};

/// The names that follow in the walk, where this query is the first step of one: one for addresses, from a
/// pod that we know, of a name with a dot in it below `<its namespace>.svc.<zone>`.
///
/// A name without a dot is left to the client: it is seldom meant for the world outside.
pub(crate) fn walk(
    zone: &Zone,
    query: &Query<'_>,
    client: IpAddr,
    host_search: &[WireName],
) -> Option<Vec<WireName>> {
    let name = &query.name;
    if !matches!(query.qtype, rtype::A | rtype::AAAA) {
        return None;
    }
    let namespace = zone.namespace_of_pod(client)?;
    let svc = name.labels_before(zone.origin.name.as_bytes())?.checked_sub(1)?;
    let base = svc.checked_sub(1).filter(|base| *base >= 2)?;
    let is_first_step =
        name.label(svc) == b"svc" && name.label(base).eq_ignore_ascii_case(namespace.as_bytes());
    if !is_first_step {
        return None;
    }
    let with = |suffix: &[u8]| WireName::join(name.labels(0, base), suffix);
    let in_zone = [with(name.from(svc)), with(name.from(svc + 1))];
    let bare = with(b"\0");
    let host = host_search.iter().map(|domain| with(domain.as_bytes()));
    let bare_is_ours = bare.as_ref().is_some_and(|bare| {
        QueryName::read(bare.as_bytes(), 0).is_some_and(|(name, _)| zone.origin.above(&name).is_some())
    });
    let (first, last) = if bare_is_ours { (bare, None) } else { (None, bare) };
    Some(in_zone.into_iter().chain([first]).chain(host).chain([last]).flatten().collect())
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::RecordType;

    use super::*;
    use crate::{DnsConfig, testing::*};

    #[test]
    fn only_the_first_step_of_a_known_pods_walk_is_walked() {
        let sluice_model::Object::Pod(own) = pod("default/own", "10.1.0.7", false) else { panic!("a pod") };
        let own = sluice_model::Pod { own_search: true, ..own };
        let objects = [
            namespace("default"),
            pod("default/a", "10.1.0.5", false),
            pod("default/host", "10.0.0.1", true),
            pod("default/b", "10.1.0.6", false),
            pod("other/b", "10.1.0.6", false),
            sluice_model::Object::Pod(own),
        ];
        let fixture = Fixture::with(DnsConfig::default(), objects);
        let zone = fixture.publisher.zone();
        let search = [WireName::parse("corp.test").unwrap()];
        let walked = |client: &str, name: &str, qtype| {
            let message = question(name, qtype);
            let query = Query::read(&message).unwrap();
            let names = walk(&zone, &query, client.parse().unwrap(), &search)?;
            Some(names.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        let outside = "www.Example.org.default.svc.cluster.local.";
        let names = [
            "www.example.org.svc.cluster.local.",
            "www.example.org.cluster.local.",
            "www.example.org.corp.test.",
            "www.example.org.",
        ];
        assert_eq!(walked("10.1.0.5", outside, RecordType::A).unwrap(), names);
        assert_eq!(walked("10.1.0.5", outside, RecordType::AAAA).unwrap(), names);
        let inside =
            walked("10.1.0.5", "a.b.svc.cluster.local.default.svc.cluster.local.", RecordType::A).unwrap();
        assert_eq!(inside[2], "a.b.svc.cluster.local.", "a name of ours before the host's domains");
        for (what, client, name, qtype) in [
            ("another type", "10.1.0.5", outside, RecordType::MX),
            ("an unknown client", "10.1.0.9", outside, RecordType::A),
            ("the node", "10.0.0.1", outside, RecordType::A),
            ("a pod with a search path of its own", "10.1.0.7", outside, RecordType::A),
            ("two pods' address", "10.1.0.6", outside, RecordType::A),
            ("a name without dot", "10.1.0.5", "www.default.svc.cluster.local.", RecordType::A),
            ("another namespace", "10.1.0.5", "www.example.org.other.svc.cluster.local.", RecordType::A),
            ("the second step", "10.1.0.5", "www.example.org.svc.cluster.local.", RecordType::A),
            ("the last step", "10.1.0.5", "www.example.org.", RecordType::A),
        ] {
            assert_eq!(walked(client, name, qtype), None, "{what}");
        }
    }
}
