//! Packet tables: what is not about a service. Pods among themselves, masquerade, odd packets.

use sluice_ebpf_common::{Addr, ENDPOINT_BRIDGED, Endpoint, Uplink};
use sluice_proxy::Hook;
use sluice_tests::{
    datapath::{Bench, Fate, pass, redirect, with_bench},
    packet::{Packet, Transport, flag},
};

#[test]
fn pods_of_a_node_reach_each_other_past_the_bridge() {
    with_bench(|bench| {
        let rows = [
            (
                Packet::tcp("10.244.1.11:4000", "10.244.1.12:80", flag::SYN),
                redirect("10.244.1.11:4000 > 10.244.1.12:80 TCP ttl 64"),
            ),
            (
                Packet::udp("[fd00:10:244:1::11]:4000", "[fd00:10:244:1::12]:80"),
                redirect("[fd00:10:244:1::11]:4000 > [fd00:10:244:1::12]:80 UDP ttl 64"),
            ),
            (
                Packet::ping("10.244.1.11:7", "10.244.1.12:7"),
                redirect("10.244.1.11:7 > 10.244.1.12:7 ICMP ttl 64"),
            ),
            // Another node's pod, and the world: the kernel's routes.
            (
                Packet::tcp("10.244.1.11:4000", "10.244.2.12:80", flag::SYN),
                pass("10.244.1.11:4000 > 10.244.2.12:80 TCP ttl 64"),
            ),
            (
                Packet::tcp("10.244.1.11:4000", "203.0.113.5:80", flag::SYN),
                pass("10.244.1.11:4000 > 203.0.113.5:80 TCP ttl 64"),
            ),
        ];
        for (packet, fate) in rows {
            assert_eq!(bench.send(Hook::FromPod, "pod1", &packet), fate, "{packet:?}");
        }
    });
}

#[test]
fn what_comes_in_for_a_pod_goes_straight_to_it() {
    with_bench(|bench| {
        let rows = [
            (
                Packet::tcp("10.244.2.21:4000", "10.244.1.11:80", flag::SYN),
                redirect("10.244.2.21:4000 > 10.244.1.11:80 TCP ttl 63"),
            ),
            (
                Packet::udp("[2001:db8:9::5]:4000", "[fd00:10:244:1::12]:80"),
                redirect("[2001:db8:9::5]:4000 > [fd00:10:244:1::12]:80 UDP ttl 63"),
            ),
            // The kernel tells the sender about the end of its time to live, looks at options, and knows a forged source.
            (
                Packet { ttl: 1, ..Packet::udp("10.244.2.21:4000", "10.244.1.11:80") },
                pass("10.244.2.21:4000 > 10.244.1.11:80 UDP ttl 1"),
            ),
            (
                Packet { options: 4, ..Packet::udp("10.244.2.21:4000", "10.244.1.11:80") },
                pass("10.244.2.21:4000 > 10.244.1.11:80 UDP ttl 64"),
            ),
            (
                Packet::udp("10.244.1.12:4000", "10.244.1.11:80"),
                pass("10.244.1.12:4000 > 10.244.1.11:80 UDP ttl 64"),
            ),
            (
                Packet::udp("[2001:db8::1]:4000", "[fd00:10:244:1::11]:80"),
                pass("[2001:db8::1]:4000 > [fd00:10:244:1::11]:80 UDP ttl 64"),
            ),
        ];
        for (packet, fate) in rows {
            assert_eq!(bench.send(Hook::FromWire, "wire", &packet), fate, "{packet:?}");
        }
    });
}

#[test]
fn what_a_pod_sends_elsewhere_leaves_by_an_uplink_at_once() {
    with_bench(|bench| {
        bench.address("wire", "192.0.2.1/24");
        bench.address("wire", "2001:db8::1/64");
        let v4 = Packet::tcp("10.244.1.11:4000", "192.0.2.77:80", flag::SYN);
        let v6 = Packet::udp("[fd00:10:244:1::11]:4000", "[2001:db8::77]:53");
        let (out_v4, out_v6) = (
            "10.244.1.11:4000 > 192.0.2.77:80 TCP ttl 63",
            "[fd00:10:244:1::11]:4000 > [2001:db8::77]:53 UDP ttl 63",
        );
        let as_it_is = |bench: &mut Bench, packet: &Packet| {
            let fate = bench.send(Hook::FromPod, "pod1", packet);
            assert!(
                matches!(&fate, Fate::Pass(text) if text.ends_with(&format!("ttl {}", packet.ttl))),
                "{fate:?}"
            );
        };
        // A device that is none of the uplinks may be anything, and so is the kernel's.
        as_it_is(bench, &v4);
        let addresses = Uplink { v4: Addr::from_v4_word(0), v6: Addr::ANY_V6 };
        let wire = bench.device("wire");
        bench.datapath().set_uplinks(&[(0, addresses), (wire, addresses)].into()).unwrap();
        assert_eq!(bench.send(Hook::FromPod, "pod1", &v4), redirect(out_v4));
        assert_eq!(bench.send(Hook::FromPod, "pod1", &v6), redirect(out_v6));
        as_it_is(bench, &Packet { ttl: 1, ..v4.clone() });
        as_it_is(bench, &Packet { options: 4, ..v4.clone() });
        // Once the kernel knows the neighbour it says what is too large for the way.
        bench.neighbour("wire", "192.0.2.77");
        assert_eq!(bench.send(Hook::FromPod, "pod1", &v4), redirect(out_v4));
        as_it_is(bench, &Packet { payload: vec![0; 1600], ..v4.clone() });
        // The node itself.
        as_it_is(bench, &Packet::tcp("10.244.1.11:4000", "192.0.2.1:80", flag::SYN));
    });
}

#[test]
fn what_the_bridge_keeps_apart_is_left_to_it() {
    with_bench(|bench| {
        let address = "10.244.1.12".parse().unwrap();
        let open = bench.datapath().endpoints().unwrap()[&address];
        let bridged = Endpoint { flags: ENDPOINT_BRIDGED, ..open };
        bench.datapath().put_endpoint(address, &bridged).unwrap();
        bench.service(&[("10.96.0.1:80", 6, 0)], &["10.244.1.12:8080"]);
        let rows = [
            (Hook::FromPod, "pod1", "10.244.1.11:1", "10.244.1.12:80", false),
            (Hook::FromPod, "pod2", "10.244.1.12:1", "10.244.1.11:80", false),
            (Hook::FromWire, "wire", "10.244.2.21:1", "10.244.1.12:80", false),
            (Hook::FromHost, "wire", "192.0.2.1:1", "10.244.1.12:80", false),
            // To a service's endpoint others come as from the bridge itself.
            (Hook::FromPod, "pod1", "10.244.1.11:1", "10.96.0.1:80", true),
        ];
        for (hook, device, src, dst, direct) in rows {
            let fate = bench.send(hook, device, &Packet::tcp(src, dst, flag::SYN));
            assert_eq!(matches!(fate, Fate::Redirect(_)), direct, "{hook:?} {src} > {dst}: {fate:?}");
        }
    });
}

#[test]
fn what_the_node_sends_to_a_pod_goes_past_the_bridge() {
    with_bench(|bench| {
        let to_pod = Packet::tcp("192.0.2.1:4000", "10.244.1.11:80", flag::ACK);
        let same = "192.0.2.1:4000 > 10.244.1.11:80 TCP ttl 64";
        // Any device that is neither the loopback nor the service device stands for the bridge.
        assert_eq!(bench.send(Hook::FromHost, "wire", &to_pod), redirect(same));
        assert_eq!(bench.send(Hook::FromHost, "lo", &to_pod), pass(same));
    });
}

#[test]
fn another_stations_frames_are_none_of_the_nodes() {
    with_bench(|bench| {
        bench.service(&[("192.0.2.1:30080", 6, 0)], &["10.244.1.12:8080"]);
        for dst in ["192.0.2.1:30080", "10.244.1.12:8080"] {
            let packet = Packet::tcp("203.0.113.5:4000", dst, flag::SYN);
            assert!(matches!(bench.send(Hook::FromWire, "wire", &packet), Fate::Redirect(_)), "{dst}");
            let mut frame = packet.frame();
            frame[5] ^= 1;
            let seen = bench.send_frame(Hook::FromWire, "wire", &frame);
            assert_eq!(seen, pass(&format!("203.0.113.5:4000 > {dst} TCP ttl 64")));
        }
    });
}

#[test]
fn a_pod_cannot_send_from_an_address_that_is_not_its_own() {
    with_bench(|bench| {
        for packet in [
            Packet::tcp("10.244.1.12:4000", "10.244.1.12:80", flag::SYN),
            Packet::udp("192.0.2.1:4000", "10.244.1.12:80"),
            Packet::udp("[fd00:10:244:1::12]:4000", "[fd00:10:244:1::12]:80"),
            Packet { fragment: 0x2000, ..Packet::udp("10.244.1.99:4000", "10.244.1.12:80") },
        ] {
            assert_eq!(bench.send(Hook::FromPod, "pod1", &packet), Fate::Drop("spoofed"), "{packet:?}");
        }
        // Neighbour discovery is the kernel's.
        let solicitation = Packet::ping("[fe80::1]:1", "[ff02::1]:1");
        assert_eq!(
            bench.send(Hook::FromPod, "pod1", &solicitation),
            pass("[fe80::1]:1 > [ff02::1]:1 ICMP ttl 64")
        );
    });
}

#[test]
fn pods_leave_the_cluster_with_the_nodes_address() {
    with_bench(|bench| {
        let rows = [
            (
                Packet::tcp("10.244.1.11:4000", "203.0.113.5:443", flag::SYN),
                "192.0.2.1:4000 > 203.0.113.5:443 TCP ttl 64",
            ),
            (
                Packet::udp("[fd00:10:244:1::11]:4000", "[2001:db8:9::5]:53"),
                "[2001:db8::1]:4000 > [2001:db8:9::5]:53 UDP ttl 64",
            ),
            (Packet::ping("10.244.1.11:77", "203.0.113.5:77"), "192.0.2.1:77 > 203.0.113.5:77 ICMP ttl 64"),
            (
                Packet::ping("[fd00:10:244:1::11]:77", "[2001:db8:9::5]:77"),
                "[2001:db8::1]:77 > [2001:db8:9::5]:77 ICMP ttl 64",
            ),
            // Inside the cluster the pod's address stays.
            (
                Packet::tcp("10.244.1.11:4000", "10.244.2.5:443", flag::SYN),
                "10.244.1.11:4000 > 10.244.2.5:443 TCP ttl 64",
            ),
            // So does what is not a pod's.
            (
                Packet::tcp("192.0.2.1:5000", "203.0.113.5:443", flag::SYN),
                "192.0.2.1:5000 > 203.0.113.5:443 TCP ttl 64",
            ),
        ];
        for (packet, becomes) in rows {
            assert_eq!(bench.send(Hook::ToWire, "wire", &packet), pass(becomes), "{packet:?}");
        }
        let replies = [
            (
                Packet::tcp("203.0.113.5:443", "192.0.2.1:4000", flag::SYN | flag::ACK).ttl(50),
                "203.0.113.5:443 > 10.244.1.11:4000 TCP ttl 49",
            ),
            (
                Packet::udp("[2001:db8:9::5]:53", "[2001:db8::1]:4000"),
                "[2001:db8:9::5]:53 > [fd00:10:244:1::11]:4000 UDP ttl 63",
            ),
            (Packet::pong("203.0.113.5:77", "192.0.2.1:77"), "203.0.113.5:77 > 10.244.1.11:77 ICMP ttl 63"),
        ];
        for (packet, becomes) in replies {
            assert_eq!(bench.send(Hook::FromWire, "wire", &packet), redirect(becomes), "{packet:?}");
        }
    });
}

#[test]
fn a_source_port_that_another_pod_has_taken_is_changed() {
    with_bench(|bench| {
        let first = Packet::tcp("10.244.1.11:4000", "203.0.113.5:443", flag::SYN);
        assert_eq!(
            bench.send(Hook::ToWire, "wire", &first),
            pass("192.0.2.1:4000 > 203.0.113.5:443 TCP ttl 64")
        );
        let second = Packet::tcp("10.244.1.12:4000", "203.0.113.5:443", flag::SYN);
        let Fate::Pass(text) = bench.send(Hook::ToWire, "wire", &second) else { panic!("not sent") };
        let port =
            text.strip_prefix("192.0.2.1:").and_then(|rest| rest.split(' ').next()).unwrap().to_owned();
        assert_ne!(port, "4000");
        let reply = Packet::tcp("203.0.113.5:443", &format!("192.0.2.1:{port}"), flag::SYN | flag::ACK);
        assert_eq!(
            bench.send(Hook::FromWire, "wire", &reply),
            redirect("203.0.113.5:443 > 10.244.1.12:4000 TCP ttl 63")
        );
    });
}

#[test]
fn the_nodes_own_connection_yields_a_port_that_a_pods_has() {
    with_bench(|bench| {
        let pods = Packet::tcp("10.244.1.11:4000", "203.0.113.5:443", flag::SYN);
        assert_eq!(
            bench.send(Hook::ToWire, "wire", &pods),
            pass("192.0.2.1:4000 > 203.0.113.5:443 TCP ttl 64")
        );
        let nodes = Packet::tcp("192.0.2.1:4000", "203.0.113.5:443", flag::SYN);
        let Fate::Pass(text) = bench.send(Hook::ToWire, "wire", &nodes) else { panic!("not sent") };
        let port = text.strip_prefix("192.0.2.1:").and_then(|rest| rest.split(' ').next()).unwrap();
        assert_ne!(port, "4000");
        let reply = |port: &str| Packet::tcp("203.0.113.5:443", &format!("192.0.2.1:{port}"), flag::ACK);
        assert_eq!(
            bench.send(Hook::FromWire, "wire", &reply(port)),
            redirect("203.0.113.5:443 > 192.0.2.1:4000 TCP ttl 64")
        );
        assert_eq!(
            bench.send(Hook::FromWire, "wire", &reply("4000")),
            redirect("203.0.113.5:443 > 10.244.1.11:4000 TCP ttl 63")
        );
    });
}

#[test]
fn odd_packets_are_left_alone_or_dropped_never_mangled() {
    with_bench(|bench| {
        bench.service(&[("10.96.0.7:80", 6, 0), ("10.96.0.7:53", 17, 0)], &["10.244.1.12:8080"]);
        let tcp = Packet::tcp("10.244.1.11:4000", "10.96.0.7:80", flag::SYN);
        // IPv4 options, and a UDP checksum that is absent.
        assert_eq!(
            bench.send(Hook::FromPod, "pod1", &Packet { options: 8, ..tcp.clone() }),
            redirect("10.244.1.11:4000 > 10.244.1.12:8080 TCP ttl 64")
        );
        let mut no_checksum = Packet::udp("10.244.1.11:4000", "10.96.0.7:53");
        no_checksum.transport = Transport::Udp(false);
        assert_eq!(
            bench.send(Hook::FromPod, "pod1", &no_checksum),
            redirect("10.244.1.11:4000 > 10.244.1.12:8080 UDP ttl 64")
        );
        // Headers that are cut short or contradict themselves. (The kernel's bench takes no frame without a
        // whole IP header.)
        let frame = tcp.frame();
        for length in [34, 40, 46] {
            assert_eq!(
                bench.send_frame(Hook::FromPod, "pod1", &frame[..length]),
                Fate::Drop("malformed"),
                "{length}"
            );
        }
        let mut bad_version = frame.clone();
        bad_version[14] = 0x35;
        assert_eq!(bench.send_frame(Hook::FromPod, "pod1", &bad_version), Fate::Drop("malformed"));
    });
}

#[test]
fn a_packet_at_the_end_of_its_life_is_not_forwarded() {
    with_bench(|bench| {
        bench.service(&[("0.0.0.0:30080", 6, 1)], &["10.244.1.12:8080"]);
        let packet = Packet::tcp("198.51.100.9:4000", "192.0.2.1:30080", flag::SYN).ttl(1);
        assert_eq!(bench.send(Hook::FromWire, "wire", &packet), Fate::Drop("ttl_expired"));
    });
}

#[test]
fn the_verifier_has_room_to_spare() {
    with_bench(|bench| {
        let counts = bench.verified_instructions();
        // The kernel's limit is a million; older kernels prune less, so half of it is ours.
        assert!(counts.values().all(|&count| count < 500_000), "{counts:?}");
        println!("{counts:?}");
    });
}
