//! Packet tables: services, in both families and at every hook.

use sluice_ebpf_common::{FRONTEND_EXTERNAL, FRONTEND_LOCAL_SERVER, FrontendKey, SERVICE_DEVICE, Service};
use sluice_proxy::{Hook, MapOp};
use sluice_tests::{
    datapath::{Bench, Fate, pass, redirect, with_bench},
    packet::{Packet, TCP, UDP, flag, syn},
};

/// A service on both families: cluster address port 80, node port 30080, backend pod 2.
fn web(bench: &mut Bench) {
    bench.service(
        &[("10.96.0.7:80", TCP, 0), ("0.0.0.0:30080", TCP, FRONTEND_EXTERNAL)],
        &["10.244.1.12:8080"],
    );
    bench.service(
        &[("[fd00:96::7]:80", TCP, 0), ("[::]:30080", TCP, FRONTEND_EXTERNAL)],
        &["[fd00:10:244:1::12]:8080"],
    );
}

#[test]
fn a_pod_reaches_a_local_backend_and_the_reply_comes_from_the_service() {
    with_bench(|bench| {
        web(bench);
        let rows = [
            (
                "pod1",
                syn("10.244.1.11:4000", "10.96.0.7:80"),
                "10.244.1.11:4000 > 10.244.1.12:8080 TCP ttl 64",
            ),
            (
                "pod2",
                syn("10.244.1.12:8080", "10.244.1.11:4000"),
                "10.96.0.7:80 > 10.244.1.11:4000 TCP ttl 64",
            ),
            (
                "pod1",
                syn("[fd00:10:244:1::11]:4000", "[fd00:96::7]:80"),
                "[fd00:10:244:1::11]:4000 > [fd00:10:244:1::12]:8080 TCP ttl 64",
            ),
            (
                "pod2",
                syn("[fd00:10:244:1::12]:8080", "[fd00:10:244:1::11]:4000"),
                "[fd00:96::7]:80 > [fd00:10:244:1::11]:4000 TCP ttl 64",
            ),
        ];
        for (device, packet, becomes) in rows {
            assert_eq!(bench.send(Hook::FromPod, device, &packet), redirect(becomes), "{packet:?}");
        }
    });
}

#[test]
fn a_pod_that_reaches_itself_sees_the_node() {
    with_bench(|bench| {
        web(bench);
        let request = bench.send(Hook::FromPod, "pod2", &syn("10.244.1.12:4000", "10.96.0.7:80"));
        assert_eq!(request, redirect("192.0.2.1:4000 > 10.244.1.12:8080 TCP ttl 64"));
        let reply = bench.send(Hook::FromPod, "pod2", &syn("10.244.1.12:8080", "192.0.2.1:4000"));
        assert_eq!(reply, redirect("10.96.0.7:80 > 10.244.1.12:4000 TCP ttl 64"));
    });
}

#[test]
fn a_node_port_is_served_with_the_nodes_address() {
    with_bench(|bench| {
        web(bench);
        let rows = [
            (
                Hook::FromWire,
                "wire",
                syn("198.51.100.9:4000", "192.0.2.1:30080"),
                redirect("192.0.2.1:4000 > 10.244.1.12:8080 TCP ttl 63"),
            ),
            (
                Hook::FromWire,
                "wire",
                syn("[2001:db8:9::9]:4000", "[2001:db8::1]:30080"),
                redirect("[2001:db8::1]:4000 > [fd00:10:244:1::12]:8080 TCP ttl 63"),
            ),
            // Only the node's own addresses, and only the node port's protocol.
            (
                Hook::FromWire,
                "wire",
                syn("198.51.100.9:4000", "192.0.2.77:30080"),
                pass("198.51.100.9:4000 > 192.0.2.77:30080 TCP ttl 64"),
            ),
            (
                Hook::FromWire,
                "wire",
                Packet::udp("198.51.100.9:4000", "192.0.2.1:30080"),
                pass("198.51.100.9:4000 > 192.0.2.1:30080 UDP ttl 64"),
            ),
            // A pod at its own node's port.
            (
                Hook::FromPod,
                "pod1",
                syn("10.244.1.11:4001", "192.0.2.1:30080"),
                redirect("192.0.2.1:4001 > 10.244.1.12:8080 TCP ttl 64"),
            ),
            (
                Hook::FromPod,
                "pod2",
                syn("10.244.1.12:8080", "192.0.2.1:4001"),
                redirect("192.0.2.1:30080 > 10.244.1.11:4001 TCP ttl 64"),
            ),
        ];
        for (hook, device, packet, fate) in rows {
            assert_eq!(bench.send(hook, device, &packet), fate, "{packet:?}");
        }
    });
}

#[test]
fn from_outside_a_cluster_address_is_masqueraded() {
    with_bench(|bench| {
        web(bench);
        let fate = bench.send(Hook::FromWire, "wire", &syn("198.51.100.9:4000", "10.96.0.7:80"));
        assert_eq!(fate, redirect("192.0.2.1:4000 > 10.244.1.12:8080 TCP ttl 63"));
    });
}

#[test]
fn the_node_reaches_a_service_and_its_reply_comes_back() {
    with_bench(|bench| {
        web(bench);
        let request = bench.send(Hook::FromHost, SERVICE_DEVICE, &syn("192.0.2.1:4000", "10.96.0.7:80"));
        assert_eq!(request, redirect("192.0.2.1:4000 > 10.244.1.12:8080 TCP ttl 64"));
        let reply = bench.send(Hook::FromPod, "pod2", &syn("10.244.1.12:8080", "192.0.2.1:4000"));
        assert_eq!(reply, redirect("10.96.0.7:80 > 192.0.2.1:4000 TCP ttl 64"));
    });
}

#[test]
fn what_no_service_holds_does_not_leave_the_service_device() {
    with_bench(|bench| {
        web(bench);
        for packet in [
            syn("192.0.2.1:4000", "10.96.0.99:80"),
            Packet::udp("192.0.2.1:4000", "10.96.0.7:80"),
            Packet::ping("192.0.2.1:4000", "10.96.0.7:4000"),
            Packet { fragment: 0x2000, ..Packet::udp("192.0.2.1:4000", "10.96.0.7:80") },
        ] {
            assert_eq!(
                bench.send(Hook::FromHost, SERVICE_DEVICE, &packet),
                Fate::Drop("no_service"),
                "{packet:?}"
            );
        }
    });
}

#[test]
fn a_local_server_gets_the_packet_untouched() {
    with_bench(|bench| {
        bench.service(&[("10.96.0.10:53", UDP, FRONTEND_LOCAL_SERVER)], &[]);
        let fate = bench.send(Hook::FromPod, "pod1", &Packet::udp("10.244.1.11:4000", "10.96.0.10:53"));
        assert_eq!(fate, pass("10.244.1.11:4000 > 10.96.0.10:53 UDP ttl 64"));
    });
}

#[test]
fn a_service_without_endpoints_refuses_aloud() {
    with_bench(|bench| {
        bench.service(
            &[("10.96.0.8:80", TCP, 0), ("10.96.0.8:53", UDP, 0), ("0.0.0.0:30080", TCP, FRONTEND_EXTERNAL)],
            &[],
        );
        bench.service(&[("[fd00:96::8]:80", TCP, 0), ("[fd00:96::8]:53", UDP, 0)], &[]);
        let rows = [
            (
                Hook::FromPod,
                "pod1",
                syn("10.244.1.11:4000", "10.96.0.8:80"),
                "10.96.0.8:80 > 10.244.1.11:4000 TCP reset ttl 64",
            ),
            (
                Hook::FromPod,
                "pod1",
                syn("[fd00:10:244:1::11]:4000", "[fd00:96::8]:80"),
                "[fd00:96::8]:80 > [fd00:10:244:1::11]:4000 TCP reset ttl 64",
            ),
            (
                Hook::FromPod,
                "pod1",
                Packet::udp("10.244.1.11:4000", "10.96.0.8:53"),
                "10.96.0.8 > 10.244.1.11 ICMP unreachable code 3 ttl 64 about 10.244.1.11:4000 > 10.96.0.8:53",
            ),
            (
                Hook::FromPod,
                "pod1",
                Packet::udp("[fd00:10:244:1::11]:4000", "[fd00:96::8]:53"),
                "fd00:96::8 > fd00:10:244:1::11 ICMP unreachable code 4 ttl 64 about [fd00:10:244:1::11]:4000 > [fd00:96::8]:53",
            ),
            (
                Hook::FromHost,
                SERVICE_DEVICE,
                syn("192.0.2.1:4000", "10.96.0.8:80"),
                "10.96.0.8:80 > 192.0.2.1:4000 TCP reset ttl 64",
            ),
            (
                Hook::FromWire,
                "wire",
                syn("198.51.100.9:4000", "192.0.2.1:30080"),
                "192.0.2.1:30080 > 198.51.100.9:4000 TCP reset ttl 64",
            ),
        ];
        for (hook, device, packet, answer) in rows {
            assert_eq!(bench.send(hook, device, &packet), Fate::Answer(answer.to_owned()), "{packet:?}");
        }
        // A reset is not answered: it begins nothing, and ends where service addresses are routed to.
        let reset = Packet::tcp("10.244.1.11:4000", "10.96.0.8:80", flag::RST);
        let same = "10.244.1.11:4000 > 10.96.0.8:80 TCP reset ttl 64";
        assert_eq!(bench.send(Hook::FromPod, "pod1", &reset), pass(same));
        assert_eq!(bench.send(Hook::FromHost, SERVICE_DEVICE, &reset), Fate::Drop("no_service"));
    });
}

#[test]
fn connections_spread_over_all_backends() {
    with_bench(|bench| {
        bench.service(&[("10.96.0.1:80", TCP, 0)], &["10.244.1.12:1", "10.244.1.12:2", "10.244.1.12:3"]);
        let mut hits = [0; 3];
        for port in 0..600 {
            let fate = bench.send(
                Hook::FromPod,
                "pod1",
                &syn(&format!("10.244.1.11:{}", 2000 + port), "10.96.0.1:80"),
            );
            let Fate::Redirect(text) = fate else { panic!("{fate:?}") };
            let backend = text
                .split(" TCP")
                .next()
                .and_then(|t| t.chars().last())
                .and_then(|c| c.to_digit(10))
                .unwrap();
            hits[backend as usize - 1] += 1;
        }
        assert!(hits.iter().all(|&count| count > 130), "{hits:?}");
    });
}

#[test]
fn a_service_that_lost_its_slots_drops_and_says_so() {
    with_bench(|bench| {
        let (service, _) = bench.service(&[("10.96.0.1:80", TCP, 0)], &[]);
        bench.apply(&MapOp::PutService { id: service, service: Service { count: 1, ..Service::default() } });
        let fate = bench.send(Hook::FromPod, "pod1", &syn("10.244.1.11:4000", "10.96.0.1:80"));
        assert_eq!(fate, Fate::Drop("no_backend"));
        bench.apply(&MapOp::RemoveService { id: service });
        let fate = bench.send(Hook::FromPod, "pod1", &syn("10.244.1.11:4000", "10.96.0.1:80"));
        assert_eq!(fate, Fate::Drop("no_service"));
        assert_eq!(FrontendKey::default().pad, 0);
    });
}
