//! Packet tables: the sum over a whole packet that a device makes on receipt (`CHECKSUM_COMPLETE`) is as right after the
//! datapath as before it, whatever the kernel can do: a wrong one has the receiver take the packet for damaged.

#![expect(clippy::panic, reason = "a run that the kernel refuses ends the test with its packet")]

use sluice_proxy::Hook;
use sluice_tests::{
    datapath::{Bench, with_kernel},
    packet::{Packet, Shown, TCP, UDP, flag, icmp_error},
};

/// Sends a frame that bears such a sum; what it became.
fn summed(bench: &mut Bench, hook: Hook, device: &str, frame: &[u8]) -> String {
    let (_, out) = bench
        .run_summed(hook, device, frame)
        .unwrap_or_else(|error| panic!("{}: {error} (the flag needs Linux 6.16)", Shown(frame)));
    Shown(&out).to_string()
}

#[test]
fn a_devices_sum_stays_right() {
    for without_csum_v6 in [false, true] {
        with_kernel(without_csum_v6, |bench| {
            bench.service(
                &[("10.96.0.1:80", TCP, 0), ("10.96.0.1:53", UDP, 0), ("192.0.2.1:30080", TCP, 0)],
                &["10.244.1.12:8080"],
            );
            bench.service(
                &[("[fd00:96::1]:80", TCP, 0), ("[fd00:96::1]:53", UDP, 0), ("[2001:db8::1]:30080", TCP, 0)],
                &["[fd00:10:244:1::12]:8080"],
            );
            let syn = |src, dst| Packet::tcp(src, dst, flag::SYN);
            let (pod_v4, pod_v6) = ("10.244.1.11:4000", "[fd00:10:244:1::11]:4000");
            let rows = [
                // From a pod to a service, and back.
                (Hook::FromPod, "pod1", syn(pod_v4, "10.96.0.1:80"), "10.244.1.12:8080"),
                (Hook::FromPod, "pod1", syn(pod_v6, "[fd00:96::1]:80"), "[fd00:10:244:1::12]:8080"),
                (Hook::FromPod, "pod1", Packet::udp(pod_v4, "10.96.0.1:53"), "10.244.1.12:8080"),
                (Hook::FromPod, "pod1", Packet::udp(pod_v6, "[fd00:96::1]:53"), "[fd00:10:244:1::12]:8080"),
                (Hook::FromPod, "pod2", syn("10.244.1.12:8080", pod_v4), pod_v4),
                (Hook::FromPod, "pod2", syn("[fd00:10:244:1::12]:8080", pod_v6), pod_v6),
                // From outside, to the node and to a pod: one hop as well.
                (Hook::FromWire, "wire", syn("203.0.113.5:4000", "192.0.2.1:30080"), "10.244.1.12:8080"),
                (
                    Hook::FromWire,
                    "wire",
                    syn("[2001:db8:9::5]:4000", "[2001:db8::1]:30080"),
                    "[fd00:10:244:1::12]:8080",
                ),
                (Hook::FromWire, "wire", Packet::udp("203.0.113.5:4000", "10.244.1.11:7"), "10.244.1.11:7"),
                (
                    Hook::FromWire,
                    "wire",
                    Packet::udp("[2001:db8:9::5]:4000", "[fd00:10:244:1::11]:7"),
                    "[fd00:10:244:1::11]:7",
                ),
                // Out of the cluster, with the node's address, and back.
                (Hook::ToWire, "wire", syn(pod_v4, "203.0.113.5:443"), "203.0.113.5:443"),
                (Hook::ToWire, "wire", Packet::udp(pod_v6, "[2001:db8:9::5]:443"), "[2001:db8:9::5]:443"),
                (
                    Hook::ToWire,
                    "wire",
                    Packet::ping("[fd00:10:244:1::11]:7", "[2001:db8:9::5]:7"),
                    "[2001:db8:9::5]:7",
                ),
                (Hook::FromWire, "wire", Packet::udp("[2001:db8:9::5]:443", "[2001:db8::1]:4000"), pod_v6),
                (
                    Hook::FromWire,
                    "wire",
                    Packet::ping("[2001:db8:9::5]:7", "[2001:db8::1]:7"),
                    "[fd00:10:244:1::11]:7",
                ),
            ];
            for (hook, device, packet, to) in rows {
                let became = summed(bench, hook, device, &packet.frame());
                assert!(became.contains(&format!("> {to} ")), "{packet:?}: {became}");
                assert!(!became.contains("WRONG"), "{packet:?}: {became}");
            }
            // An error about a packet that was masqueraded.
            let about = Packet::udp("[2001:db8::1]:4000", "[2001:db8:9::5]:443");
            let error = icmp_error("2001:db8:9::1", [1, 3], &about);
            let became = summed(bench, Hook::FromWire, "wire", &error);
            assert!(became.contains("fd00:10:244:1::11") && !became.contains("WRONG"), "{became}");
        });
    }
}
