//! A pod's walk along its search path takes one question.

use sluice_model::Changes;

use super::{addresses, cluster, config, listening};
use crate::{
    DnsConfig, Upstreams,
    testing::{
        bed::{Running, World, in_namespace, sh},
        *,
    },
};

const POD: &str = "10.1.0.5";

/// A server, a pod of namespace `default`, and a world that says nothing of `corp.test`.
fn served(config: DnsConfig) -> (Running, World, tempfile::TempDir) {
    addresses();
    sh(&format!("ip addr add {POD}/32 dev lo"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("resolv.conf");
    std::fs::write(&file, "search corp.test\nnameserver 127.0.0.53\n").unwrap();
    let world = World::start("127.0.0.53:53");
    let running = Running::start(DnsConfig { upstreams: Upstreams::ResolvConf(file), ..listening(config) });
    let mut objects = cluster();
    objects.extend([pod("default/client", POD, false), cluster_ip("other/api", &["10.96.0.60"], &[])]);
    running.publisher.publish(&snapshot(objects), &Changes::everything());
    (running, world, folder)
}

/// Asks as the pod, or as the node; the answer's records without times.
fn ask(from: &str, name: &str, qtype: &str) -> Vec<String> {
    let printed = sh(&format!("dig -b {from} +tries=1 +noall +answer +comments @10.96.0.10 {name} {qtype}"));
    assert!(printed.contains("status: "), "{printed}");
    let status = printed.split("status: ").nth(1).unwrap().split(',').next().unwrap().to_owned();
    let records = printed.lines().filter(|line| !line.starts_with(';') && !line.is_empty());
    let mut told = vec![status];
    told.extend(records.map(|line| {
        let words: Vec<_> = line.split_whitespace().collect();
        format!("{} {}", words[0], words[3..].join(" "))
    }));
    told
}

#[test]
fn the_first_question_gets_what_the_walk_comes_to() {
    in_namespace(|| {
        let (_running, world, _folder) = served(config());
        let outside = "www.example.org.default.svc.cluster.local";
        for _ in 0..2 {
            assert_eq!(
                ask(POD, outside, "A"),
                [
                    "NOERROR",
                    "www.example.org.default.svc.cluster.local. CNAME www.example.org.",
                    "www.example.org. A 192.0.2.80"
                ]
            );
        }
        assert_eq!(world.queries(), 2, "corp.test and the name itself, once");
        let alias = ask(POD, "alias.example.org.default.svc.cluster.local", "A");
        assert_eq!(
            alias[2..],
            ["alias.example.org. CNAME www.example.org.", "www.example.org. A 192.0.2.80"]
        );
        // The walk stops at the first name that exists, as the client's would.
        for name in [
            "api.other.default.svc.cluster.local",
            "api.other.svc.default.svc.cluster.local",
            "api.other.svc.cluster.local.default.svc.cluster.local",
        ] {
            let told = ask(POD, name, "A");
            assert_eq!(
                told[1..],
                [
                    format!("{name}. CNAME api.other.svc.cluster.local."),
                    "api.other.svc.cluster.local. A 10.96.0.60".to_owned()
                ],
                "{name}"
            );
            assert_eq!(ask(POD, name, "AAAA"), ["NOERROR".to_owned(), told[1].clone()], "{name}");
        }
        for (from, name) in [
            (POD, "nothing.example.org.default.svc.cluster.local"),
            (POD, "nothing.default.svc.cluster.local"),
            (POD, "www.example.org.other.svc.cluster.local"),
            (POD, "silent.example.org.default.svc.cluster.local"),
            ("10.96.0.10", outside),
        ] {
            assert_eq!(ask(from, name, "A"), ["NXDOMAIN"], "{name} from {from}");
        }
    });
}

#[test]
fn it_can_be_off_and_is_for_pods_of_other_nodes() {
    for config in [
        DnsConfig { autopath: false, ..config() },
        DnsConfig { node: Some("elsewhere".to_owned()), ..config() },
    ] {
        in_namespace(|| {
            let (_running, world, _folder) = served(config);
            assert_eq!(ask(POD, "www.example.org.default.svc.cluster.local", "A"), ["NXDOMAIN"]);
            assert_eq!(world.queries(), 0);
        });
    }
    in_namespace(|| {
        let (_running, _world, _folder) = served(DnsConfig { node: Some("here".to_owned()), ..config() });
        assert_eq!(ask(POD, "www.example.org.default.svc.cluster.local", "A").len(), 3);
    });
}
