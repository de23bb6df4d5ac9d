//! Sizes and offsets of everything that lies in a map. A change here changes what programs and pins of an
//! older version see: it needs a new `LAYOUT`.

use std::mem::{align_of, offset_of, size_of};

use sluice_ebpf_common::{
    Addr, Affinity, AffinityKey, Backend, Endpoint, Flow, FlowKey, FragmentKey, FragmentPorts, Frontend,
    FrontendKey, LAYOUT, MemberKey, Network, Service, SlotKey, SourceRangeKey, Uplink, map_name,
};

/// Holds that the named fields follow one another without a gap and fill the type.
macro_rules! layout {
    ($type:ty, $size:literal, $($field:ident at $offset:literal: $field_type:ty),+ $(,)?) => {{
        let mut end = 0;
        $(
            assert_eq!(offset_of!($type, $field), $offset, "{}.{}", stringify!($type), stringify!($field));
            assert_eq!(end, $offset, "a gap before {}.{}", stringify!($type), stringify!($field));
            end = $offset + size_of::<$field_type>();
        )+
        assert_eq!((end, size_of::<$type>()), ($size, $size), "{}", stringify!($type));
    }};
}

#[test]
fn no_type_has_padding_or_moves_a_field() {
    assert_eq!(LAYOUT, "v1");
    assert_eq!((size_of::<Addr>(), align_of::<Addr>()), (16, 8));
    layout!(FrontendKey, 24, addr at 0: Addr, port at 16: u16, proto at 18: u16, pad at 20: u32);
    layout!(Frontend, 12, service at 0: u32, local at 4: u32, flags at 8: u32);
    layout!(Service, 16, count at 0: u32, flags at 4: u32, affinity at 8: u32, affinity_id at 12: u32);
    layout!(SlotKey, 8, service at 0: u32, index at 4: u32);
    layout!(Backend, 24, addr at 0: Addr, port at 16: u16, pad at 18: u16, service at 20: u32);
    layout!(FlowKey, 40, src at 0: Addr, dst at 16: Addr, sport at 32: u16, dport at 34: u16, proto at 36: u32);
    layout!(
        Flow, 56, src at 0: Addr, dst at 16: Addr, sport at 32: u16, dport at 34: u16, flags at 36: u16,
        pad at 38: u16, backend at 40: u32, service at 44: u32, seen at 48: u32, pad2 at 52: u32,
    );
    layout!(FragmentKey, 40, src at 0: Addr, dst at 16: Addr, id at 32: u32, proto at 36: u32);
    layout!(FragmentPorts, 4, sport at 0: u16, dport at 2: u16);
    layout!(
        Endpoint, 24, ifindex at 0: u32, flags at 4: u32, pod_mac at 8: [u8; 6], gateway_mac at 14: [u8; 6],
        pad at 20: u32,
    );
    layout!(AffinityKey, 24, client at 0: Addr, service at 16: u32, pad at 20: u32);
    layout!(Affinity, 24, addr at 0: Addr, port at 16: u16, pad at 18: u16, seen at 20: u32);
    layout!(MemberKey, 24, service at 0: u32, port at 4: u16, pad at 6: u16, addr at 8: Addr);
    layout!(SourceRangeKey, 20, service at 0: u32, client at 4: [u32; 4]);
    layout!(Network, 4, flags at 0: u32);
    layout!(Uplink, 32, v4 at 0: Addr, v6 at 16: Addr);
    assert_eq!((align_of::<FlowKey>(), align_of::<Endpoint>()), (8, 4));
}

#[test]
fn names_fit_the_kernel() {
    for name in map_name::ALL {
        assert!(name.len() <= 15, "{name} is cut by the kernel");
    }
}
