//! Packet tables: connections that live beside each other, end, and begin anew.

use std::net::IpAddr;

use sluice_ebpf_common::{Be16, DropReason, FLOW_REPLY, FRONTEND_EXTERNAL, Flow, FlowKey, SlotKey};
use sluice_proxy::{Hook, MapOp};
use sluice_tests::{
    datapath::{Fate, pass, redirect, with_bench},
    packet::{Packet, TCP, UDP, flag, syn},
};

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
fn a_connection_without_a_source_port_left_is_refused_and_told_with_its_tuple() {
    with_bench(|bench| {
        bench.service(&[("0.0.0.0:30080", TCP, FRONTEND_EXTERNAL)], &["10.244.1.12:8080"]);
        // Replies to all ports of the node belong to somebody.
        let reply = |port: u16| FlowKey {
            src: "10.244.1.12".parse::<IpAddr>().unwrap().into(),
            dst: "192.0.2.1".parse::<IpAddr>().unwrap().into(),
            sport: Be16::from_host(8080),
            dport: Be16::from_host(port),
            proto: TCP.into(),
        };
        bench.flows((0..=u16::MAX).map(|port| (reply(port), Flow { flags: FLOW_REPLY, ..Flow::default() })));
        let begin = syn("198.51.100.9:4000", "192.0.2.1:30080");
        assert_eq!(bench.send(Hook::FromWire, "wire", &begin), Fate::Drop("nat_exhausted"));
        let told = bench.datapath().last_refused(DropReason::NatExhausted).unwrap();
        assert_eq!(told, "198.51.100.9:4000 > 192.0.2.1:30080 protocol 6");
    });
}

#[test]
fn a_stray_segment_to_a_service_begins_nothing() {
    with_bench(|bench| {
        bench.service(&[("10.96.0.1:80", TCP, 0)], &["10.244.1.12:8080"]);
        bench.service(&[("[fd00:96::1]:80", TCP, 0)], &["[fd00:10:244:1::12]:8080"]);
        for (client, vip, backend) in [
            ("10.244.1.11:4000", "10.96.0.1:80", "10.244.1.12:8080"),
            ("[fd00:10:244:1::11]:4000", "[fd00:96::1]:80", "[fd00:10:244:1::12]:8080"),
        ] {
            // The fast path's connection goes to the backend itself.
            bench.send(Hook::FromPod, "pod1", &syn(client, backend));
            for flags in [flag::ACK, flag::RST, flag::SYN | flag::ACK, flag::FIN | flag::ACK] {
                let fate = bench.send(Hook::FromPod, "pod1", &Packet::tcp(client, vip, flags));
                let reset = if flags & flag::RST != 0 { "reset " } else { "" };
                assert_eq!(fate, pass(&format!("{client} > {vip} TCP {reset}ttl 64")), "{flags:#x}");
                let answer = bench.send(Hook::FromPod, "pod2", &Packet::tcp(backend, client, flag::ACK));
                assert_eq!(answer, redirect(&format!("{backend} > {client} TCP ttl 64")), "{flags:#x}");
            }
        }
    });
}

#[test]
fn what_is_at_the_end_of_its_time_to_live_is_left_for_the_kernel_to_answer() {
    with_bench(|bench| {
        bench.service(&[("10.96.0.1:80", TCP, 0)], &["10.244.2.21:8080"]);
        let packet = Packet { ttl: 1, ..syn("10.244.1.11:4000", "10.96.0.1:80") };
        let fate = bench.send(Hook::FromPod, "pod1", &packet);
        assert_eq!(fate, pass("10.244.1.11:4000 > 10.96.0.1:80 TCP ttl 1"));
    });
}

fn name(protocol: u16) -> &'static str {
    if protocol == UDP { "UDP" } else { "TCP" }
}
