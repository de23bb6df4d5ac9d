//! The marks by which we recognise what is ours, in one place, for making and for recognising.
//!
//! To take another's link or route for ours would destroy their network; to miss one of ours leaks it until
//! the next clean-up. So every test here is strict.

use crate::MacAddress;

/// Protocol number of the routes that we make (`proto 83` in the output of `ip route`). It stands in no list
/// of well-known numbers.
pub const ROUTE_PROTOCOL: u8 = 83;

/// The bridge that pods are attached to unless the configuration names another.
pub const DEFAULT_BRIDGE: &str = "sluice0";

/// The device through which packets to other nodes go where the network between does not know pods, over the nodes'
/// IPv4 addresses.
pub const OVERLAY_DEVICE: &str = "sluice-vxlan";

/// The same over the nodes' IPv6 addresses.
pub const OVERLAY_DEVICE_V6: &str = "sluice-vxlan6";

/// The nf_tables table, of each family, in which the plugin keeps what a node without a datapath needs.
pub const FILTER_TABLE: &str = "sluice-cni";

const HOST_VETH_PREFIX: &str = "sluice";
const HOST_VETH_DIGITS: usize = 8;

/// The name of the node's end of an attachment's veth pair: `sluice` and eight hexadecimal digits, from the
/// container's id and the name of its interface. The same attachment gets the same name, on every run.
pub fn host_veth_name(container_id: &str, ifname: &str) -> String {
    let hash = attachment_hash(container_id, ifname);
    format!("{HOST_VETH_PREFIX}{:08x}", (hash ^ (hash >> 32)) as u32)
}

/// Another name for the same, for when the names before the `number`th (from 1) are other attachments': with 32 bits
/// that comes about once in a hundred thousand nodes full of pods.
pub fn other_host_veth_name(container_id: &str, ifname: &str, number: u32) -> String {
    // No interface has a slash in its name.
    host_veth_name(container_id, &format!("{ifname}/{number}"))
}

/// Whether this is a name that [`host_veth_name`] makes.
pub fn is_host_veth_name(name: &str) -> bool {
    name.strip_prefix(HOST_VETH_PREFIX).is_some_and(|digits| {
        digits.len() == HOST_VETH_DIGITS
            && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
    })
}

/// The link-layer address of an attachment's own end, from the same names.
pub fn pod_mac(container_id: &str, ifname: &str) -> MacAddress {
    MacAddress::from_seed(attachment_hash(container_id, ifname).rotate_left(17))
}

/// The link-layer address of the node's end.
pub fn host_veth_mac(container_id: &str, ifname: &str) -> MacAddress {
    MacAddress::from_seed(attachment_hash(container_id, ifname).rotate_left(41))
}

/// The link-layer address of a bridge, from its name and its first gateway address: stable on a node, and
/// different on each.
pub fn bridge_mac(name: &str, gateway: &str) -> MacAddress {
    MacAddress::from_seed(attachment_hash(name, gateway))
}

/// The link-layer address of a node's overlay device, from the node's name. Every node makes the others' itself,
/// so that nobody has to publish his.
pub fn overlay_mac(node: &str) -> MacAddress {
    MacAddress::from_seed(attachment_hash(OVERLAY_DEVICE, node))
}

/// A hash that stays the same over releases, machines and compilers (64-bit FNV-1a, then mixed): names on a
/// running node are made from it.
pub fn attachment_hash(first: &str, second: &str) -> u64 {
    // No NUL can be in either part, so the pair cannot be split in two ways.
    let bytes = first.bytes().chain([0]).chain(second.bytes());
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // FNV spreads its last bytes badly over the upper bits; names differ in their last bytes.
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_we_make_we_recognise_and_nothing_else() {
        let name = host_veth_name("0123456789abcdef", "eth0");
        assert!(is_host_veth_name(&name), "{name}");
        assert_eq!(name.len(), 14, "a device name has at most 15 bytes");
        for other in [
            "sluice0",
            "sluice-svc",
            "sluice-svp",
            "sluice-vxlan",
            "sluice-vxlan6",
            "sluice123456789",
            "sluiceABCDEF01",
            "slu1ce12345678",
            "veth12345678",
        ] {
            assert!(!is_host_veth_name(other), "{other}");
        }
    }

    #[test]
    fn names_stay_the_same_over_releases() {
        assert_eq!(host_veth_name("pod-1", "eth0"), host_veth_name("pod-1", "eth0"));
        assert_eq!(attachment_hash("pod-1", "eth0"), 14_385_809_171_820_652_719);
        assert_eq!(overlay_mac("node1").to_string(), "aa:13:c9:10:10:db");
    }

    #[test]
    fn names_and_addresses_differ_between_attachments() {
        let names: BTreeSet<_> =
            (0..2000).map(|n| host_veth_name(&format!("container-{n}"), "eth0")).collect();
        assert_eq!(names.len(), 2000);
        let macs: BTreeSet<_> = (0..2000).map(|n| pod_mac(&format!("container-{n}"), "eth0")).collect();
        assert_eq!(macs.len(), 2000);
        assert_ne!(pod_mac("a", "eth0"), host_veth_mac("a", "eth0"));
        assert_ne!(host_veth_name("a", "beth0"), host_veth_name("ab", "eth0"));
    }
}
