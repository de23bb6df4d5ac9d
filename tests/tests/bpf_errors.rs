//! Packet tables: ICMP errors about translated packets, in both families and both directions.

use sluice_ebpf_common::FRONTEND_EXTERNAL;
use sluice_proxy::Hook;
use sluice_tests::{
    datapath::{Fate, redirect, with_bench},
    packet::{Packet, TCP, UDP, flag, icmp_error},
};

#[test]
fn a_router_tells_a_masqueraded_pod() {
    with_bench(|bench| {
        let rows = [
            (
                Packet::tcp("10.244.1.11:4000", "203.0.113.5:443", flag::SYN),
                Packet::tcp("192.0.2.1:4000", "203.0.113.5:443", flag::SYN),
                "198.18.0.1",
                [3, 4],
                "198.18.0.1 > 10.244.1.11 ICMP unreachable code 4 ttl 64 about 10.244.1.11:4000 > 203.0.113.5:443",
            ),
            (
                Packet::udp("[fd00:10:244:1::11]:4000", "[2001:db8:9::5]:53"),
                Packet::udp("[2001:db8::1]:4000", "[2001:db8:9::5]:53"),
                "2001:db8:5::1",
                [2, 0],
                "2001:db8:5::1 > fd00:10:244:1::11 ICMP error code 0 ttl 64 \
                 about [fd00:10:244:1::11]:4000 > [2001:db8:9::5]:53",
            ),
            (
                Packet::ping("10.244.1.11:77", "203.0.113.5:77"),
                Packet::ping("192.0.2.1:77", "203.0.113.5:77"),
                "198.18.0.1",
                [11, 0],
                "198.18.0.1 > 10.244.1.11 ICMP error code 0 ttl 64 about 10.244.1.11:77 > 203.0.113.5:77",
            ),
        ];
        for (leaves, as_sent, router, code, becomes) in rows {
            bench.send(Hook::ToWire, "wire", &leaves);
            let error = icmp_error(router, code, &as_sent);
            assert_eq!(bench.send_frame(Hook::FromWire, "wire", &error), redirect(becomes), "{leaves:?}");
        }
    });
}

#[test]
fn a_backends_error_seems_to_come_from_the_service() {
    with_bench(|bench| {
        bench.service(&[("10.96.0.7:53", UDP, 0)], &["10.244.1.12:5353"]);
        bench.service(&[("[fd00:96::7]:53", UDP, 0)], &["[fd00:10:244:1::12]:5353"]);
        let rows = [
            (
                Packet::udp("10.244.1.11:4000", "10.96.0.7:53"),
                Packet::udp("10.244.1.11:4000", "10.244.1.12:5353"),
                "10.244.1.12",
                [3, 3],
                "10.96.0.7 > 10.244.1.11 ICMP unreachable code 3 ttl 64 about 10.244.1.11:4000 > 10.96.0.7:53",
            ),
            (
                Packet::udp("[fd00:10:244:1::11]:4000", "[fd00:96::7]:53"),
                Packet::udp("[fd00:10:244:1::11]:4000", "[fd00:10:244:1::12]:5353"),
                "fd00:10:244:1::12",
                [1, 4],
                "fd00:96::7 > fd00:10:244:1::11 ICMP unreachable code 4 ttl 64 \
                 about [fd00:10:244:1::11]:4000 > [fd00:96::7]:53",
            ),
        ];
        for (request, as_received, backend, code, becomes) in rows {
            bench.send(Hook::FromPod, "pod1", &request);
            let error = icmp_error(backend, code, &as_received);
            assert_eq!(bench.send_frame(Hook::FromPod, "pod2", &error), redirect(becomes), "{request:?}");
        }
    });
}

#[test]
fn an_error_about_a_reply_reaches_the_backend() {
    with_bench(|bench| {
        bench.service(&[("0.0.0.0:30080", TCP, FRONTEND_EXTERNAL)], &["10.244.1.12:8080"]);
        bench.send(Hook::FromWire, "wire", &Packet::tcp("198.51.100.9:4000", "192.0.2.1:30080", flag::SYN));
        let reply = Packet::tcp("192.0.2.1:30080", "198.51.100.9:4000", flag::ACK);
        let error = icmp_error("198.18.0.1", [3, 4], &reply);
        assert_eq!(
            bench.send_frame(Hook::FromWire, "wire", &error),
            redirect(
                "198.18.0.1 > 10.244.1.12 ICMP unreachable code 4 ttl 64 about 10.244.1.12:8080 > 192.0.2.1:4000"
            )
        );
    });
}

#[test]
fn an_error_about_anything_else_is_the_kernels() {
    with_bench(|bench| {
        let about = Packet::tcp("192.0.2.1:4000", "203.0.113.5:443", flag::SYN);
        let error = icmp_error("198.18.0.1", [3, 4], &about);
        let fate = bench.send_frame(Hook::FromWire, "wire", &error);
        assert!(matches!(fate, Fate::Pass(_)), "{fate:?}");
        // One that is cut short is not looked into either.
        let fate = bench.send_frame(Hook::FromWire, "wire", &error[..60]);
        assert!(matches!(fate, Fate::Pass(_)), "{fate:?}");
    });
}
