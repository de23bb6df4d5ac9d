//! Packet tables: fragments follow the flow of the packet that they are parts of (row 34 of the behaviour table).

use sluice_proxy::Hook;
use sluice_tests::{
    datapath::{Bench, with_bench},
    packet::{Packet, Shown, TCP, UDP, flag, reassemble, syn},
};

const REDIRECT: i32 = 7;
const PASS: i32 = -1;

fn large(packet: Packet) -> Packet {
    Packet { payload: vec![0x5a; 999], ..packet }
}

/// Sends both fragments of a packet; what they make together, if both get this verdict and the IPv4 header's
/// checksum of each is right.
fn send(bench: &mut Bench, hook: Hook, device: &str, packet: &Packet, wanted: i32) -> String {
    let frames = packet.fragments(512).map(|frame| {
        let (verdict, frame) = bench.run(hook, device, &frame);
        assert_eq!(verdict, wanted, "{packet:?}");
        frame
    });
    for frame in &frames {
        assert!(!Shown(frame).to_string().contains("WRONG IP"), "{packet:?}");
    }
    Shown(&reassemble(&frames[0], &frames[1])).to_string()
}

#[test]
fn a_datagram_in_pieces_reaches_a_service_and_so_does_its_answer() {
    with_bench(|bench| {
        bench.service(&[("10.96.0.7:53", UDP, 0)], &["10.244.1.12:5353"]);
        bench.service(&[("[fd00:96::7]:53", UDP, 0)], &["[fd00:10:244:1::12]:5353"]);
        let rows = [
            ("pod1", "10.244.1.11:4000", "10.96.0.7:53", "10.244.1.11:4000 > 10.244.1.12:5353 UDP ttl 64"),
            ("pod2", "10.244.1.12:5353", "10.244.1.11:4000", "10.96.0.7:53 > 10.244.1.11:4000 UDP ttl 64"),
            (
                "pod1",
                "[fd00:10:244:1::11]:4000",
                "[fd00:96::7]:53",
                "[fd00:10:244:1::11]:4000 > [fd00:10:244:1::12]:5353 UDP ttl 64",
            ),
            (
                "pod2",
                "[fd00:10:244:1::12]:5353",
                "[fd00:10:244:1::11]:4000",
                "[fd00:96::7]:53 > [fd00:10:244:1::11]:4000 UDP ttl 64",
            ),
        ];
        for (device, src, dst, becomes) in rows {
            let packet = large(Packet::udp(src, dst));
            assert_eq!(send(bench, Hook::FromPod, device, &packet, REDIRECT), becomes);
        }
    });
}

#[test]
fn pieces_of_a_segment_and_of_an_echo_are_masqueraded_alike() {
    with_bench(|bench| {
        bench.service(&[("10.96.0.7:80", TCP, 0)], &["10.244.1.12:8080"]);
        bench.send(Hook::FromPod, "pod1", &syn("10.244.1.11:4000", "10.96.0.7:80"));
        let segment = large(Packet::tcp("10.244.1.11:4000", "10.96.0.7:80", flag::ACK));
        let sent = send(bench, Hook::FromPod, "pod1", &segment, REDIRECT);
        assert_eq!(sent, "10.244.1.11:4000 > 10.244.1.12:8080 TCP ttl 64");
        let echo = large(Packet::ping("10.244.1.11:77", "198.51.100.9:77"));
        let sent = send(bench, Hook::ToWire, "wire", &echo, PASS);
        assert_eq!(sent, "192.0.2.1:77 > 198.51.100.9:77 ICMP ttl 64");
    });
}

#[test]
fn a_piece_without_a_beginning_is_left_to_the_kernel() {
    with_bench(|bench| {
        bench.service(&[("10.96.0.7:53", UDP, 0)], &["10.244.1.12:5353"]);
        let [_, second] = large(Packet::udp("10.244.1.11:4000", "10.96.0.7:53")).fragments(512);
        assert_eq!(bench.run(Hook::FromPod, "pod1", &second), (PASS, second));
    });
}

#[test]
fn an_ipv6_packet_in_one_piece_with_a_fragment_header_is_a_packet() {
    with_bench(|bench| {
        bench.service(&[("[fd00:96::7]:53", UDP, 0)], &["[fd00:10:244:1::12]:5353"]);
        let [mut frame, _] = Packet::udp("[fd00:10:244:1::11]:4000", "[fd00:96::7]:53").fragments(24);
        // RFC 6946: offset 0, and no more to come.
        frame[57] = 0;
        let (verdict, frame) = bench.run(Hook::FromPod, "pod1", &frame);
        assert_eq!(
            (verdict, &frame[38..54]),
            (REDIRECT, &"fd00:10:244:1::12".parse::<std::net::Ipv6Addr>().unwrap().octets()[..])
        );
        assert_eq!(&frame[62..66], &[&4000_u16.to_be_bytes()[..], &5353_u16.to_be_bytes()[..]].concat()[..]);
    });
}
