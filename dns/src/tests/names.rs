//! The names of the zone and what they have: the specification, row by row.

use hickory_proto::rr::RecordType::{self, A, AAAA, ANY, CNAME, MX, NS, PTR, SRV, TXT};

use super::{cluster, config};
use crate::{name::reverse_name, testing::*};

#[test]
fn names_of_the_zone() {
    let fixture = Fixture::with(config(), cluster());
    let none: &[&str] = &[];
    let rows: &[(&str, RecordType, &str, &[&str])] = &[
        // Services.
        ("web.default.svc.cluster.local.", A, "NOERROR", &["web.default.svc.cluster.local. 30 A 10.96.0.20"]),
        (
            "web.default.svc.cluster.local.",
            AAAA,
            "NOERROR",
            &["web.default.svc.cluster.local. 30 AAAA fd00:96::20"],
        ),
        ("four.default.svc.cluster.local.", AAAA, "NOERROR", none),
        ("web.default.svc.cluster.local.", TXT, "NOERROR", none),
        ("web.default.svc.cluster.local.", MX, "NOERROR", none),
        ("WeB.deFAULT.svc.Cluster.LOCAL.", A, "NOERROR", &["WeB.deFAULT.svc.Cluster.LOCAL. 30 A 10.96.0.20"]),
        (
            "there.implied.svc.cluster.local.",
            A,
            "NOERROR",
            &["there.implied.svc.cluster.local. 30 A 10.96.0.22"],
        ),
        // Endpoints of services with an address, as CoreDNS has them.
        (
            "named.web.default.svc.cluster.local.",
            A,
            "NOERROR",
            &["named.web.default.svc.cluster.local. 30 A 10.1.0.6"],
        ),
        (
            "10-1-0-5.web.default.svc.cluster.local.",
            A,
            "NOERROR",
            &["10-1-0-5.web.default.svc.cluster.local. 30 A 10.1.0.5"],
        ),
        ("10-1-0-6.web.default.svc.cluster.local.", A, "NXDOMAIN", none),
        ("10-1-0-7.web.default.svc.cluster.local.", A, "NXDOMAIN", none),
        // SRV of a service.
        (
            "_http._tcp.web.default.svc.cluster.local.",
            SRV,
            "NOERROR",
            &["_http._tcp.web.default.svc.cluster.local. 30 SRV 0 100 80 web.default.svc.cluster.local."],
        ),
        (
            "_dns._udp.web.default.svc.cluster.local.",
            SRV,
            "NOERROR",
            &["_dns._udp.web.default.svc.cluster.local. 30 SRV 0 100 53 web.default.svc.cluster.local."],
        ),
        (
            "web.default.svc.cluster.local.",
            SRV,
            "NOERROR",
            &[
                "web.default.svc.cluster.local. 30 SRV 0 33 53 web.default.svc.cluster.local.",
                "web.default.svc.cluster.local. 30 SRV 0 33 80 web.default.svc.cluster.local.",
                "web.default.svc.cluster.local. 30 SRV 0 33 9 web.default.svc.cluster.local.",
            ],
        ),
        ("_http._tcp.web.default.svc.cluster.local.", A, "NOERROR", none),
        ("_http._udp.web.default.svc.cluster.local.", SRV, "NXDOMAIN", none),
        ("http._tcp.web.default.svc.cluster.local.", SRV, "NXDOMAIN", none),
        ("_._tcp.web.default.svc.cluster.local.", SRV, "NXDOMAIN", none),
        ("_tcp.web.default.svc.cluster.local.", SRV, "NOERROR", none),
        ("_sctp.web.default.svc.cluster.local.", SRV, "NXDOMAIN", none),
        ("_tcp.four.default.svc.cluster.local.", SRV, "NXDOMAIN", none),
        // Headless services.
        (
            "db.default.svc.cluster.local.",
            A,
            "NOERROR",
            &["db.default.svc.cluster.local. 30 A 10.1.0.8", "db.default.svc.cluster.local. 30 A 10.1.0.9"],
        ),
        (
            "db.default.svc.cluster.local.",
            AAAA,
            "NOERROR",
            &["db.default.svc.cluster.local. 30 AAAA fd00:1::8"],
        ),
        (
            "db-0.db.default.svc.cluster.local.",
            A,
            "NOERROR",
            &["db-0.db.default.svc.cluster.local. 30 A 10.1.0.8"],
        ),
        (
            "DB-0.db.default.svc.cluster.local.",
            AAAA,
            "NOERROR",
            &["DB-0.db.default.svc.cluster.local. 30 AAAA fd00:1::8"],
        ),
        ("db-1.db.default.svc.cluster.local.", AAAA, "NOERROR", none),
        ("db-2.db.default.svc.cluster.local.", A, "NXDOMAIN", none),
        (
            "_sql._tcp.db.default.svc.cluster.local.",
            SRV,
            "NOERROR",
            &[
                "_sql._tcp.db.default.svc.cluster.local. 30 SRV 0 50 5432 db-0.db.default.svc.cluster.local.",
                "_sql._tcp.db.default.svc.cluster.local. 30 SRV 0 50 5432 db-1.db.default.svc.cluster.local.",
            ],
        ),
        (
            "_sql._sctp.db.default.svc.cluster.local.",
            SRV,
            "NOERROR",
            &[
                "_sql._sctp.db.default.svc.cluster.local. 30 SRV 0 50 5432 db-0.db.default.svc.cluster.local.",
                "_sql._sctp.db.default.svc.cluster.local. 30 SRV 0 50 5432 db-1.db.default.svc.cluster.local.",
            ],
        ),
        (
            "plain.default.svc.cluster.local.",
            A,
            "NOERROR",
            &["plain.default.svc.cluster.local. 30 A 10.1.0.5"],
        ),
        (
            "10-1-0-5.plain.default.svc.cluster.local.",
            A,
            "NOERROR",
            &["10-1-0-5.plain.default.svc.cluster.local. 30 A 10.1.0.5"],
        ),
        ("six.default.svc.cluster.local.", A, "NOERROR", none),
        (
            "fd00-1--0.six.default.svc.cluster.local.",
            AAAA,
            "NOERROR",
            &["fd00-1--0.six.default.svc.cluster.local. 30 AAAA fd00:1::"],
        ),
        ("six.default.svc.cluster.local.", SRV, "NOERROR", none),
        ("unready.default.svc.cluster.local.", A, "NXDOMAIN", none),
        ("_x._tcp.unready.default.svc.cluster.local.", SRV, "NXDOMAIN", none),
        // ExternalName.
        (
            "out.default.svc.cluster.local.",
            CNAME,
            "NOERROR",
            &["out.default.svc.cluster.local. 30 CNAME www.example.org."],
        ),
        ("out.default.svc.cluster.local.", A, "NOT OURS", none),
        ("out.default.svc.cluster.local.", SRV, "NOERROR", none),
        ("alias.default.svc.cluster.local.", SRV, "NOERROR", none),
        ("_http._tcp.alias.default.svc.cluster.local.", SRV, "NXDOMAIN", none),
        ("x.out.default.svc.cluster.local.", A, "NXDOMAIN", none),
        ("_http._tcp.out.default.svc.cluster.local.", SRV, "NXDOMAIN", none),
        ("host.out.default.svc.cluster.local.", A, "NXDOMAIN", none),
        (
            "alias.default.svc.cluster.local.",
            A,
            "NOERROR",
            &[
                "alias.default.svc.cluster.local. 30 CNAME web.default.svc.cluster.local.",
                "web.default.svc.cluster.local. 30 A 10.96.0.20",
            ],
        ),
        (
            "chain.default.svc.cluster.local.",
            AAAA,
            "NOERROR",
            &[
                "alias.default.svc.cluster.local. 30 CNAME web.default.svc.cluster.local.",
                "chain.default.svc.cluster.local. 30 CNAME alias.default.svc.cluster.local.",
                "web.default.svc.cluster.local. 30 AAAA fd00:96::20",
            ],
        ),
        (
            "chain.default.svc.cluster.local.",
            CNAME,
            "NOERROR",
            &["chain.default.svc.cluster.local. 30 CNAME alias.default.svc.cluster.local."],
        ),
        (
            "lost.default.svc.cluster.local.",
            A,
            "NXDOMAIN",
            &["lost.default.svc.cluster.local. 30 CNAME nothing.default.svc.cluster.local."],
        ),
        ("number.default.svc.cluster.local.", A, "NOERROR", none),
        // Pods.
        (
            "10-1-0-5.default.pod.cluster.local.",
            A,
            "NOERROR",
            &["10-1-0-5.default.pod.cluster.local. 30 A 10.1.0.5"],
        ),
        ("10-1-0-5.default.pod.cluster.local.", AAAA, "NOERROR", none),
        (
            "fd00-1--5.default.pod.cluster.local.",
            AAAA,
            "NOERROR",
            &["fd00-1--5.default.pod.cluster.local. 30 AAAA fd00:1::5"],
        ),
        ("10-1-0-5.unknown.pod.cluster.local.", A, "NXDOMAIN", none),
        ("10-1-0-256.default.pod.cluster.local.", A, "NXDOMAIN", none),
        ("web.default.pod.cluster.local.", A, "NXDOMAIN", none),
        ("a.10-1-0-5.default.pod.cluster.local.", A, "NXDOMAIN", none),
        // Names between.
        ("cluster.local.", A, "NOERROR", none),
        ("svc.cluster.local.", A, "NOERROR", none),
        ("pod.cluster.local.", A, "NOERROR", none),
        ("default.svc.cluster.local.", A, "NOERROR", none),
        ("empty.svc.cluster.local.", A, "NOERROR", none),
        ("implied.svc.cluster.local.", A, "NOERROR", none),
        ("default.pod.cluster.local.", A, "NOERROR", none),
        ("unknown.svc.cluster.local.", A, "NXDOMAIN", none),
        ("web.unknown.svc.cluster.local.", A, "NXDOMAIN", none),
        ("nothing.default.svc.cluster.local.", A, "NXDOMAIN", none),
        ("other.cluster.local.", A, "NXDOMAIN", none),
        ("*.default.svc.cluster.local.", A, "NXDOMAIN", none),
        ("any.default.svc.cluster.local.", A, "NXDOMAIN", none),
        ("a.b.c.web.default.svc.cluster.local.", A, "NXDOMAIN", none),
        ("a._http._tcp.web.default.svc.cluster.local.", SRV, "NXDOMAIN", none),
        // The apex and the server.
        ("cluster.local.", NS, "NOERROR", &["cluster.local. 30 NS ns.dns.cluster.local."]),
        ("ns.dns.cluster.local.", A, "NOERROR", &["ns.dns.cluster.local. 30 A 10.96.0.10"]),
        ("ns.dns.cluster.local.", AAAA, "NOERROR", &["ns.dns.cluster.local. 30 AAAA fd00:96::a"]),
        ("dns.cluster.local.", A, "NOERROR", none),
        ("a.ns.dns.cluster.local.", A, "NXDOMAIN", none),
        ("dns-version.cluster.local.", TXT, "NOERROR", &["dns-version.cluster.local. 28800 TXT 1.1.0"]),
        ("dns-version.cluster.local.", A, "NOERROR", none),
        ("a.dns-version.cluster.local.", TXT, "NXDOMAIN", none),
        // RFC 8482.
        (
            "web.default.svc.cluster.local.",
            ANY,
            "NOERROR",
            &["web.default.svc.cluster.local. 3600 HINFO RFC8482 "],
        ),
        (
            "out.default.svc.cluster.local.",
            ANY,
            "NOERROR",
            &["out.default.svc.cluster.local. 3600 HINFO RFC8482 "],
        ),
        ("nothing.default.svc.cluster.local.", ANY, "NXDOMAIN", none),
        // Reverse.
        (
            "20.0.96.10.in-addr.arpa.",
            PTR,
            "NOERROR",
            &["20.0.96.10.in-addr.arpa. 30 PTR web.default.svc.cluster.local."],
        ),
        (
            "5.0.1.10.in-addr.arpa.",
            PTR,
            "NOERROR",
            &[
                "5.0.1.10.in-addr.arpa. 30 PTR 10-1-0-5.plain.default.svc.cluster.local.",
                "5.0.1.10.in-addr.arpa. 30 PTR 10-1-0-5.web.default.svc.cluster.local.",
            ],
        ),
        (
            "8.0.1.10.in-addr.arpa.",
            PTR,
            "NOERROR",
            &["8.0.1.10.in-addr.arpa. 30 PTR db-0.db.default.svc.cluster.local."],
        ),
        ("8.0.1.10.in-addr.arpa.", A, "NOERROR", none),
        ("10.0.1.10.in-addr.arpa.", PTR, "NOT OURS", none),
        // Not ours.
        ("www.example.org.", A, "NOT OURS", none),
        ("local.", A, "NOT OURS", none),
        ("acluster.local.", A, "NOT OURS", none),
        (".", NS, "NOT OURS", none),
    ];
    for (name, qtype, code, records) in rows {
        let mut wanted = vec![(*code).to_owned()];
        wanted.extend(records.iter().map(|record| (*record).to_owned()));
        assert_eq!(fixture.told(name, *qtype), wanted, "{name} {qtype}");
    }
    let six = reverse_name("fd00:96::20".parse().unwrap());
    assert_eq!(fixture.told(&six, PTR)[1..], [format!("{six} 30 PTR web.default.svc.cluster.local.")]);
}
