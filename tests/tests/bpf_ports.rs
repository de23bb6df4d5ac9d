//! Packet tables: ports of the node (host ports, node ports at loopback addresses), what becomes of a service's
//! other ports, and who answers while the node's own server does not.

use sluice_ebpf_common::{
    FRONTEND_ADDRESS, FRONTEND_EXTERNAL, FRONTEND_LOCAL_SERVER, Frontend, FrontendKey, HOST_PORT_MASQUERADE,
    SERVICE_DEVICE,
};
use sluice_proxy::{Hook, MapOp};
use sluice_tests::{
    datapath::{Bench, Fate, redirect, with_bench},
    packet::{Packet, SCTP, TCP, UDP, syn},
};

#[test]
fn a_host_port_leads_to_its_pod_and_keeps_the_client() {
    with_bench(|bench| {
        bench.host_port("0.0.0.0:8081", TCP, Some("10.244.1.12:80"));
        bench.host_port("[::]:8081", TCP, Some("[fd00:10:244:1::12]:80"));
        let rows = [
            (
                "wire",
                Hook::FromWire,
                "198.51.100.9:4000",
                "192.0.2.1:8081",
                "198.51.100.9:4000 > 10.244.1.12:80 TCP ttl 63",
            ),
            (
                "wire",
                Hook::FromWire,
                "[2001:db8:9::9]:4000",
                "[2001:db8::1]:8081",
                "[2001:db8:9::9]:4000 > [fd00:10:244:1::12]:80 TCP ttl 63",
            ),
            // From a neighbour, from the pod itself, and from the node.
            (
                "pod1",
                Hook::FromPod,
                "10.244.1.11:4001",
                "192.0.2.1:8081",
                "10.244.1.11:4001 > 10.244.1.12:80 TCP ttl 64",
            ),
            (
                "pod2",
                Hook::FromPod,
                "10.244.1.12:80",
                "10.244.1.11:4001",
                "192.0.2.1:8081 > 10.244.1.11:4001 TCP ttl 64",
            ),
            (
                "pod2",
                Hook::FromPod,
                "10.244.1.12:4002",
                "192.0.2.1:8081",
                "192.0.2.1:4002 > 10.244.1.12:80 TCP ttl 64",
            ),
            (
                "lo",
                Hook::FromHost,
                "192.0.2.1:4003",
                "192.0.2.1:8081",
                "192.0.2.1:4003 > 10.244.1.12:80 TCP ttl 64",
            ),
            (
                "lo",
                Hook::FromHost,
                "127.0.0.1:4004",
                "127.0.0.1:8081",
                "192.0.2.1:4004 > 10.244.1.12:80 TCP ttl 64",
            ),
        ];
        for (device, hook, src, dst, becomes) in rows {
            assert_eq!(bench.send(hook, device, &syn(src, dst)), redirect(becomes), "{src} > {dst}");
        }
    });
}

#[test]
fn a_host_port_that_masquerades_shows_the_pod_the_node_alone() {
    with_bench(|bench| {
        bench.host_port_with("0.0.0.0:8081", TCP, Some("10.244.1.12:80"), HOST_PORT_MASQUERADE);
        bench.host_port_with("[::]:8081", TCP, Some("[fd00:10:244:1::12]:80"), HOST_PORT_MASQUERADE);
        let rows = [
            (
                "wire",
                Hook::FromWire,
                "198.51.100.9:4000",
                "192.0.2.1:8081",
                "192.0.2.1:4000 > 10.244.1.12:80 TCP ttl 63",
            ),
            (
                "wire",
                Hook::FromWire,
                "[2001:db8:9::9]:4000",
                "[2001:db8::1]:8081",
                "[2001:db8::1]:4000 > [fd00:10:244:1::12]:80 TCP ttl 63",
            ),
            (
                "pod1",
                Hook::FromPod,
                "10.244.1.11:4001",
                "192.0.2.1:8081",
                "192.0.2.1:4001 > 10.244.1.12:80 TCP ttl 64",
            ),
            (
                "lo",
                Hook::FromHost,
                "192.0.2.1:4003",
                "192.0.2.1:8081",
                "192.0.2.1:4003 > 10.244.1.12:80 TCP ttl 64",
            ),
        ];
        for (device, hook, src, dst, becomes) in rows {
            assert_eq!(bench.send(hook, device, &syn(src, dst)), redirect(becomes), "{src} > {dst}");
        }
    });
}

#[test]
fn two_host_addresses_and_two_protocols_share_a_port() {
    with_bench(|bench| {
        bench.host_port("192.0.2.1:5353", UDP, Some("10.244.1.11:53"));
        bench.host_port("127.0.0.1:5353", UDP, Some("10.244.1.12:53"));
        bench.host_port("192.0.2.1:5353", TCP, Some("10.244.1.12:53"));
        let udp = |dst: &str| Packet::udp("198.51.100.9:4000", dst);
        let one = bench.send(Hook::FromWire, "wire", &udp("192.0.2.1:5353"));
        assert_eq!(one, redirect("198.51.100.9:4000 > 10.244.1.11:53 UDP ttl 63"));
        let two = bench.send(Hook::FromHost, "lo", &Packet::udp("127.0.0.1:4000", "127.0.0.1:5353"));
        assert_eq!(two, redirect("192.0.2.1:4000 > 10.244.1.12:53 UDP ttl 64"));
        let three = bench.send(Hook::FromWire, "wire", &syn("198.51.100.9:4000", "192.0.2.1:5353"));
        assert_eq!(three, redirect("198.51.100.9:4000 > 10.244.1.12:53 TCP ttl 63"));
    });
}

#[test]
fn a_datagram_follows_a_host_port_to_the_pod_that_has_it_now() {
    with_bench(|bench| {
        let packet = Packet::udp("198.51.100.9:4000", "192.0.2.1:5353");
        bench.host_port("0.0.0.0:5353", UDP, Some("10.244.1.11:53"));
        let first = redirect("198.51.100.9:4000 > 10.244.1.11:53 UDP ttl 63");
        assert_eq!(bench.send(Hook::FromWire, "wire", &packet), first);
        assert_eq!(bench.send(Hook::FromWire, "wire", &packet), first);
        bench.host_port("0.0.0.0:5353", UDP, Some("10.244.1.12:53"));
        let next = redirect("198.51.100.9:4000 > 10.244.1.12:53 UDP ttl 63");
        assert_eq!(bench.send(Hook::FromWire, "wire", &packet), next);
        bench.host_port("0.0.0.0:5353", UDP, None);
        let gone = Fate::Pass("198.51.100.9:4000 > 192.0.2.1:5353 UDP ttl 64".to_owned());
        assert_eq!(bench.send(Hook::FromWire, "wire", &packet), gone);
    });
}

#[test]
fn a_node_port_is_served_at_loopback_addresses() {
    with_bench(|bench| {
        for proto in [TCP, UDP] {
            bench.service(&[("0.0.0.0:30080", proto, FRONTEND_EXTERNAL)], &["10.244.1.12:8080"]);
            bench.service(&[("[::]:30080", proto, FRONTEND_EXTERNAL)], &["[fd00:10:244:1::12]:8080"]);
        }
        let rows = [
            (syn("127.0.0.1:4000", "127.0.0.1:30080"), "192.0.2.1:4000 > 10.244.1.12:8080 TCP ttl 64"),
            (
                Packet::udp("127.0.0.1:4000", "127.0.0.1:30080"),
                "192.0.2.1:4000 > 10.244.1.12:8080 UDP ttl 64",
            ),
            (syn("[::1]:4000", "[::1]:30080"), "[2001:db8::1]:4000 > [fd00:10:244:1::12]:8080 TCP ttl 64"),
        ];
        for (packet, becomes) in rows {
            assert_eq!(bench.send(Hook::FromHost, "lo", &packet), redirect(becomes), "{packet:?}");
        }
        // From a device, a loopback address is a forgery.
        let forged = syn("198.51.100.9:4000", "127.0.0.1:30080");
        let passed = Fate::Pass("198.51.100.9:4000 > 127.0.0.1:30080 TCP ttl 64".to_owned());
        assert_eq!(bench.send(Hook::FromWire, "wire", &forged), passed);
        let replies = [
            (syn("10.244.1.12:8080", "192.0.2.1:4000"), "127.0.0.1:30080 > 127.0.0.1:4000 TCP ttl 64"),
            (syn("[fd00:10:244:1::12]:8080", "[2001:db8::1]:4000"), "[::1]:30080 > [::1]:4000 TCP ttl 64"),
        ];
        for (packet, becomes) in replies {
            assert_eq!(bench.send(Hook::FromPod, "pod2", &packet), redirect(becomes), "{packet:?}");
        }
    });
}

#[test]
fn the_node_reaches_external_addresses_of_services() {
    with_bench(|bench| {
        for (external, backend) in
            [("198.51.100.1:80", "10.244.1.12:8080"), ("[2001:db8:5::1]:80", "[fd00:10:244:1::12]:8080")]
        {
            bench.service(&[(external, TCP, FRONTEND_EXTERNAL)], &[backend]);
        }
        let rows = [
            ("192.0.2.1:4000", "198.51.100.1:80", redirect("192.0.2.1:4000 > 10.244.1.12:8080 TCP ttl 64")),
            (
                "[2001:db8::1]:4000",
                "[2001:db8:5::1]:80",
                redirect("[2001:db8::1]:4000 > [fd00:10:244:1::12]:8080 TCP ttl 64"),
            ),
            // Another port there, and what is not the node's own, go where they went.
            (
                "192.0.2.1:4000",
                "198.51.100.1:81",
                Fate::Pass("192.0.2.1:4000 > 198.51.100.1:81 TCP ttl 64".to_owned()),
            ),
            (
                "203.0.113.7:4000",
                "198.51.100.1:80",
                Fate::Pass("203.0.113.7:4000 > 198.51.100.1:80 TCP ttl 64".to_owned()),
            ),
        ];
        for (src, dst, fate) in rows {
            assert_eq!(bench.send(Hook::ToWire, "wire", &syn(src, dst)), fate, "{src} > {dst}");
        }
        let reply = bench.send(Hook::FromPod, "pod2", &syn("10.244.1.12:8080", "192.0.2.1:4000"));
        assert_eq!(reply, redirect("198.51.100.1:80 > 192.0.2.1:4000 TCP ttl 64"));
    });
}

/// Makes known that a cluster address is a service's.
#[expect(clippy::unwrap_used, reason = "a test's own address")]
fn cluster_address(bench: &mut Bench, address: &str, service: u32) {
    let key = FrontendKey { addr: address.parse::<std::net::IpAddr>().unwrap().into(), ..Default::default() };
    let frontend = Frontend { service, local: 0, flags: FRONTEND_ADDRESS };
    bench.apply(&MapOp::PutFrontend { key, frontend });
}

#[test]
fn another_port_of_a_service_is_refused_and_an_address_of_none_is_dropped() {
    with_bench(|bench| {
        let (v4, _) = bench.service(&[("10.96.0.7:80", TCP, 0)], &["10.244.1.12:8080"]);
        let (v6, _) = bench.service(&[("[fd00:96::7]:80", TCP, 0)], &["[fd00:10:244:1::12]:8080"]);
        cluster_address(bench, "10.96.0.7", v4);
        cluster_address(bench, "fd00:96::7", v6);
        let answer = |text: &str| Fate::Answer(text.to_owned());
        let rows = [
            (
                syn("10.244.1.11:4000", "10.96.0.7:81"),
                answer("10.96.0.7:81 > 10.244.1.11:4000 TCP reset ttl 64"),
            ),
            (
                syn("[fd00:10:244:1::11]:4000", "[fd00:96::7]:81"),
                answer("[fd00:96::7]:81 > [fd00:10:244:1::11]:4000 TCP reset ttl 64"),
            ),
            (syn("10.244.1.11:4000", "10.96.0.8:80"), Fate::Drop("no_service")),
        ];
        for (packet, fate) in rows {
            assert_eq!(bench.send(Hook::FromHost, SERVICE_DEVICE, &packet), fate, "{packet:?}");
        }
        let datagram = Packet::udp("10.244.1.11:4000", "10.96.0.7:80");
        let refused = bench.send(Hook::FromHost, SERVICE_DEVICE, &datagram);
        assert!(matches!(refused, Fate::Answer(_)), "{refused:?}");
    });
}

#[test]
fn other_servers_answer_while_the_nodes_own_does_not() {
    with_bench(|bench| {
        bench.service(&[("10.96.0.10:53", UDP, FRONTEND_LOCAL_SERVER)], &["10.244.1.12:53"]);
        bench.service(&[("10.96.0.10:53", TCP, FRONTEND_LOCAL_SERVER)], &["10.244.1.12:53"]);
        let query = |port: u16| Packet::udp(&format!("10.244.1.11:{port}"), "10.96.0.10:53");
        let elsewhere = |port: u16| redirect(&format!("10.244.1.11:{port} > 10.244.1.12:53 UDP ttl 64"));
        assert_eq!(bench.send(Hook::FromPod, "pod1", &query(4000)), elsewhere(4000));
        let connect = syn("10.244.1.11:4000", "10.96.0.10:53");
        let tcp = bench.send(Hook::FromPod, "pod1", &connect);
        assert_eq!(tcp, redirect("10.244.1.11:4000 > 10.244.1.12:53 TCP ttl 64"));

        bench.address("lo", "10.96.0.10/32");
        let server = std::net::UdpSocket::bind("10.96.0.10:53").unwrap();
        let here = Fate::Pass("10.244.1.11:4001 > 10.96.0.10:53 UDP ttl 64".to_owned());
        assert_eq!(bench.send(Hook::FromPod, "pod1", &query(4001)), here);
        drop(server);
        assert_eq!(bench.send(Hook::FromPod, "pod1", &query(4002)), elsewhere(4002));
    });
}

#[test]
fn an_sctp_association_is_translated_ports_and_checksum() {
    with_bench(|bench| {
        bench.service(
            &[("10.96.0.7:9260", SCTP, 0), ("0.0.0.0:30926", SCTP, FRONTEND_EXTERNAL)],
            &["10.244.1.12:5060"],
        );
        bench.service(&[("[fd00:96::7]:9260", SCTP, 0)], &["[fd00:10:244:1::12]:5060"]);
        bench.service(&[("10.96.0.7:9260", TCP, 0)], &["10.244.1.12:8080"]);
        let rows = [
            (
                Hook::FromPod,
                "pod1",
                "10.244.1.11:4000",
                "10.96.0.7:9260",
                "10.244.1.11:4000 > 10.244.1.12:5060 SCTP ttl 64",
            ),
            (
                Hook::FromPod,
                "pod2",
                "10.244.1.12:5060",
                "10.244.1.11:4000",
                "10.96.0.7:9260 > 10.244.1.11:4000 SCTP ttl 64",
            ),
            (
                Hook::FromPod,
                "pod1",
                "[fd00:10:244:1::11]:4000",
                "[fd00:96::7]:9260",
                "[fd00:10:244:1::11]:4000 > [fd00:10:244:1::12]:5060 SCTP ttl 64",
            ),
            (
                Hook::FromWire,
                "wire",
                "198.51.100.9:4000",
                "192.0.2.1:30926",
                "192.0.2.1:4000 > 10.244.1.12:5060 SCTP ttl 63",
            ),
        ];
        for (hook, device, src, dst, becomes) in rows {
            assert_eq!(bench.send(hook, device, &Packet::sctp(src, dst)), redirect(becomes), "{src} > {dst}");
        }
        for length in [0, 1, 2, 3, 100, 1_400] {
            let packet =
                Packet { payload: vec![7; length], ..Packet::sctp("10.244.1.11:4000", "10.96.0.7:9260") };
            let sent = bench.send(Hook::FromPod, "pod1", &packet);
            assert_eq!(sent, redirect("10.244.1.11:4000 > 10.244.1.12:5060 SCTP ttl 64"), "{length} bytes");
        }
    });
}

#[test]
fn an_sctp_service_without_endpoints_refuses_aloud() {
    with_bench(|bench| {
        bench.service(&[("10.96.0.7:9260", 132, 0)], &[]);
        let fate = bench.send(Hook::FromPod, "pod1", &Packet::sctp("10.244.1.11:4000", "10.96.0.7:9260"));
        let Fate::Answer(text) = &fate else { panic!("{fate:?}") };
        assert!(text.contains("ICMP unreachable code 3"), "{text}");
    });
}
