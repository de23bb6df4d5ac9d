//! Tests of the whole, and the cluster they are about.

mod answers;
mod properties;
mod sockets;

use sluice_model::Object;

use crate::{DnsConfig, testing::*};

fn config() -> DnsConfig {
    DnsConfig {
        networks: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/16".parse().unwrap()],
        ..DnsConfig::default()
    }
}

fn cluster() -> Vec<Object> {
    vec![
        namespace("default"),
        namespace("empty"),
        cluster_ip("default/web", &["10.96.0.20", "fd00:96::20"], &["http/TCP/80", "dns/UDP/53", "/TCP/9"]),
        slice("web-1", "default/web", &["http/TCP/8080"], &["10.1.0.5", "10.1.0.6=named", "10.1.0.7!"]),
        cluster_ip("default/four", &["10.96.0.21"], &["/TCP/80"]),
        headless("default/db"),
        slice(
            "db-4",
            "default/db",
            &["sql/TCP/5432", "sql/SCTP/5432"],
            &["10.1.0.8=db-0", "10.1.0.9=db-1", "10.1.0.10=db-2!"],
        ),
        slice("db-6", "default/db", &["sql/TCP/5432"], &["fd00:1::8=db-0"]),
        headless("default/plain"),
        slice("plain-4", "default/plain", &["x/TCP/1"], &["10.1.0.5"]),
        slice("plain-5", "default/plain", &["x/TCP/1"], &["10.1.0.5"]),
        headless("default/six"),
        slice("six-6", "default/six", &[], &["fd00:1::"]),
        headless("default/unready"),
        slice("unready-4", "default/unready", &["x/TCP/1"], &["10.1.0.11!"]),
        external("default/out", "www.example.org"),
        external("default/alias", "web.default.svc.cluster.local"),
        external("default/chain", "alias.default.svc.cluster.local."),
        external("default/ring", "ring.default.svc.cluster.local"),
        external("default/lost", "nothing.default.svc.cluster.local"),
        external("default/number", "192.0.2.1"),
        cluster_ip("implied/there", &["10.96.0.22"], &[]),
    ]
}
