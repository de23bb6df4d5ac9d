//! Packet tables: services, in both families and at every hook.

use sluice_ebpf_common::{
    FRONTEND_EXTERNAL, FRONTEND_LOCAL_SERVER, FrontendKey, SERVICE_DEVICE, Service, SlotKey,
};
use sluice_proxy::{Hook, MapOp};
use sluice_tests::{
    datapath::{Bench, Fate, with_bench},
    packet::{Packet, flag},
};

const TCP: u16 = 6;
const UDP: u16 = 17;

fn redirect(text: &str) -> Fate {
    Fate::Redirect(text.to_owned())
}

fn pass(text: &str) -> Fate {
    Fate::Pass(text.to_owned())
}

fn syn(src: &str, dst: &str) -> Packet {
    Packet::tcp(src, dst, flag::SYN)
}

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
        // A reset is not answered.
        let reset = Packet::tcp("10.244.1.11:4000", "10.96.0.8:80", flag::RST);
        assert_eq!(bench.send(Hook::FromPod, "pod1", &reset), Fate::Drop("no_endpoints"));
    });
}

#[test]
fn two_services_with_one_backend_do_not_mix_up_one_client_port() {
    with_bench(|bench| {
        bench.service(&[("10.96.0.1:80", TCP, 0)], &["10.244.1.12:8080"]);
        bench.service(&[("10.96.0.2:80", TCP, 0)], &["10.244.1.12:8080"]);
        let first = bench.send(Hook::FromPod, "pod1", &syn("10.244.1.11:4000", "10.96.0.1:80"));
        assert_eq!(first, redirect("10.244.1.11:4000 > 10.244.1.12:8080 TCP ttl 64"));
        let Fate::Redirect(second) =
            bench.send(Hook::FromPod, "pod1", &syn("10.244.1.11:4000", "10.96.0.2:80"))
        else {
            panic!("the second connection was not served");
        };
        let port = second.strip_prefix("10.244.1.11:").and_then(|rest| rest.split(' ').next()).unwrap();
        assert_ne!(port, "4000", "{second}");
        for (port, service) in [("4000", "10.96.0.1"), (port, "10.96.0.2")] {
            let reply =
                bench.send(Hook::FromPod, "pod2", &syn("10.244.1.12:8080", &format!("10.244.1.11:{port}")));
            assert_eq!(reply, redirect(&format!("{service}:80 > 10.244.1.11:4000 TCP ttl 64")));
        }
    });
}

#[test]
fn one_client_port_reaches_a_backend_directly_and_through_its_service() {
    with_bench(|bench| {
        bench.service(&[("10.96.0.1:80", TCP, 0)], &["10.244.1.12:8080"]);
        let through = |flags| Packet::tcp("10.244.1.11:4000", "10.96.0.1:80", flags);
        let directly = Packet::tcp("10.244.1.11:4000", "10.244.1.12:8080", flag::SYN);
        let reply =
            |port: &str, flags| Packet::tcp("10.244.1.12:8080", &format!("10.244.1.11:{port}"), flags);
        bench.send(Hook::FromPod, "pod1", &through(flag::SYN));

        // While both live, the direct one has another port at the backend, and each gets its own replies.
        let Fate::Redirect(text) = bench.send(Hook::FromPod, "pod1", &directly) else { panic!("not sent") };
        let port = text.strip_prefix("10.244.1.11:").and_then(|rest| rest.split(' ').next()).unwrap();
        assert_ne!(port, "4000");
        let to_direct = bench.send(Hook::FromPod, "pod2", &reply(port, flag::SYN | flag::ACK));
        assert_eq!(to_direct, redirect("10.244.1.12:8080 > 10.244.1.11:4000 TCP ttl 64"));
        let to_service = bench.send(Hook::FromPod, "pod2", &reply("4000", flag::SYN | flag::ACK));
        assert_eq!(to_service, redirect("10.96.0.1:80 > 10.244.1.11:4000 TCP ttl 64"));
    });
}

#[test]
fn a_connection_that_has_ended_stands_in_nobodys_way() {
    with_bench(|bench| {
        bench.service(&[("10.96.0.1:80", TCP, 0)], &["10.244.1.12:8080"]);
        for flags in [flag::SYN, flag::RST] {
            bench.send(Hook::FromPod, "pod1", &Packet::tcp("10.244.1.11:4000", "10.96.0.1:80", flags));
        }
        let directly = bench.send(Hook::FromPod, "pod1", &syn("10.244.1.11:4000", "10.244.1.12:8080"));
        assert_eq!(directly, redirect("10.244.1.11:4000 > 10.244.1.12:8080 TCP ttl 64"));
        let reply = bench.send(Hook::FromPod, "pod2", &syn("10.244.1.12:8080", "10.244.1.11:4000"));
        assert_eq!(reply, redirect("10.244.1.12:8080 > 10.244.1.11:4000 TCP ttl 64"));
    });
}

#[test]
fn a_stray_reset_ends_no_connection() {
    with_bench(|bench| {
        bench.service(&[("10.96.0.1:80", TCP, 0)], &["10.244.1.12:8080"]);
        let answer = |flags| Packet::tcp("10.244.1.12:8080", "10.244.1.11:4000", flags);
        bench.send(Hook::FromPod, "pod1", &syn("10.244.1.11:4000", "10.96.0.1:80"));
        // Whoever was reset says nothing more: this one was outside the window, and goes to the client to judge.
        for flags in [flag::SYN | flag::ACK, flag::RST, flag::ACK] {
            let fate = bench.send(Hook::FromPod, "pod2", &answer(flags));
            let kind = if flags == flag::RST { "TCP reset" } else { "TCP" };
            assert_eq!(fate, redirect(&format!("10.96.0.1:80 > 10.244.1.11:4000 {kind} ttl 64")));
        }
        // The connection lives: another one of the same ends has to make way.
        let Fate::Redirect(text) =
            bench.send(Hook::FromPod, "pod1", &syn("10.244.1.11:4000", "10.244.1.12:8080"))
        else {
            panic!("a direct connection was not sent on");
        };
        assert!(!text.starts_with("10.244.1.11:4000 "), "{text}");
        let fate = bench.send(Hook::FromPod, "pod2", &answer(flag::ACK));
        assert_eq!(fate, redirect("10.96.0.1:80 > 10.244.1.11:4000 TCP ttl 64"));
    });
}

#[test]
fn a_datagram_leaves_a_backend_that_is_gone_and_a_tcp_connection_drains() {
    with_bench(|bench| {
        for (protocol, address) in [(UDP, "10.96.0.1:53"), (TCP, "10.96.0.2:80")] {
            let (service, backends) = bench.service(&[(address, protocol, 0)], &["10.244.1.12:8080"]);
            let packet = |flags| match protocol {
                UDP => Packet::udp("10.244.1.11:4000", address),
                _ => Packet::tcp("10.244.1.11:4000", address, flags),
            };
            bench.send(Hook::FromPod, "pod1", &packet(flag::SYN));
            let (_, new) = bench.service(&[], &["10.244.1.11:9090"]);
            let key = SlotKey { service, index: 0 };
            bench.apply(&MapOp::PutSlot { key, backend: new[0] });
            bench.apply(&MapOp::RemoveBackend { id: backends[0] });
            let goes_on = bench.send(Hook::FromPod, "pod1", &packet(flag::ACK));
            let anew = bench.send(Hook::FromPod, "pod1", &packet(flag::SYN));
            let (old, new) = (
                redirect(&format!("10.244.1.11:4000 > 10.244.1.12:8080 {} ttl 64", name(protocol))),
                redirect(&format!("192.0.2.1:4000 > 10.244.1.11:9090 {} ttl 64", name(protocol))),
            );
            assert_eq!(
                goes_on,
                if protocol == UDP {
                    redirect(&format!("192.0.2.1:4000 > 10.244.1.11:9090 {} ttl 64", name(protocol)))
                } else {
                    old
                }
            );
            assert_eq!(anew, new);
        }
    });
}

fn name(protocol: u16) -> &'static str {
    if protocol == UDP { "UDP" } else { "TCP" }
}

#[test]
fn a_client_port_that_is_used_again_after_a_close_gets_a_new_choice() {
    with_bench(|bench| {
        let (service, _) = bench.service(&[("10.96.0.1:80", TCP, 0)], &["10.244.1.12:8080"]);
        let there = |flags| Packet::tcp("10.244.1.11:4000", "10.96.0.1:80", flags);
        let back = |flags| Packet::tcp("10.244.1.12:8080", "10.244.1.11:4000", flags);
        for (device, packet) in [
            ("pod1", there(flag::SYN)),
            ("pod2", back(flag::SYN | flag::ACK)),
            ("pod1", there(flag::FIN | flag::ACK)),
            ("pod2", back(flag::FIN | flag::ACK)),
        ] {
            bench.send(Hook::FromPod, device, &packet);
        }
        let (_, new) = bench.service(&[], &["10.244.1.12:9999"]);
        bench.apply(&MapOp::PutSlot { key: SlotKey { service, index: 0 }, backend: new[0] });
        let last_ack = bench.send(Hook::FromPod, "pod1", &there(flag::ACK));
        assert_eq!(last_ack, redirect("10.244.1.11:4000 > 10.244.1.12:8080 TCP ttl 64"));
        let again = bench.send(Hook::FromPod, "pod1", &there(flag::SYN));
        assert_eq!(again, redirect("10.244.1.11:4000 > 10.244.1.12:9999 TCP ttl 64"));
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
