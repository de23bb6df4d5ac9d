//! Overlay devices against the real kernel, each test in a namespace of its own. Needs root.

#![expect(clippy::unwrap_used, reason = "a test fails loudly, in its helpers too")]

use std::net::IpAddr;

use sluice_netlink::{
    AddressFlags, Direction, Forwarding, MacAddress, Namespace, Netlink, Request, Route, RouteFilter,
    VethEnd, Vxlan,
    owned::{self, OVERLAY_DEVICE},
};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A namespace with a device that leads out.
fn node() -> Netlink {
    let mut netlink = Namespace::create().unwrap().netlink().unwrap();
    netlink.create_veth(&VethEnd::new("eth0").up(), &VethEnd::new("wire").up()).unwrap();
    let eth0 = netlink.link("eth0").unwrap().index;
    let flags = AddressFlags { nodad: true, ..AddressFlags::default() };
    for text in ["192.0.2.1/24", "2001:db8::1/64"] {
        netlink.add_address(eth0, text.parse().unwrap(), flags).unwrap();
    }
    netlink
}

#[test]
fn an_overlay_device_is_as_described_over_either_family() {
    let mut netlink = node();
    for local in ["192.0.2.1", "2001:db8::1"] {
        let vxlan = Vxlan { id: 83, port: 8472, local: Some(ip(local)), learning: false };
        let mac = owned::overlay_mac("one");
        netlink.create_vxlan(OVERLAY_DEVICE, &vxlan, mac, 1430).unwrap();
        let again = netlink.create_vxlan(OVERLAY_DEVICE, &vxlan, mac, 1430).unwrap_err();
        assert!(again.is_exists(), "{again}");
        let link = netlink.link(OVERLAY_DEVICE).unwrap();
        assert_eq!((link.vxlan, link.mac, link.mtu), (Some(vxlan), Some(mac), 1430));
        netlink.set_up(link.index).unwrap();

        // Two nodes behind it; one of them moves.
        let (two, three) = (owned::overlay_mac("two"), owned::overlay_mac("three"));
        let near = local.trim_end_matches('1');
        let [at_two, at_three, moved] = [2, 3, 4].map(|number| ip(&format!("{near}{number}")));
        netlink.set_forwarding(link.index, two, at_two).unwrap();
        netlink.set_forwarding(link.index, three, at_three).unwrap();
        netlink.set_forwarding(link.index, three, moved).unwrap();
        let mut listed = netlink.forwardings(link.index).unwrap();
        listed.sort();
        let mut wanted = [Forwarding { mac: two, remote: at_two }, Forwarding { mac: three, remote: moved }];
        wanted.sort();
        assert_eq!(listed, wanted);
        netlink.delete_forwarding(link.index, two, at_two).unwrap();
        assert_eq!(netlink.forwardings(link.index).unwrap(), [Forwarding { mac: three, remote: moved }]);
        netlink.delete_link(link.index).unwrap();
    }
}

#[test]
fn routes_lead_over_it_to_next_hops_that_no_address_of_ours_is_near() {
    let mut netlink = node();
    let vxlan = Vxlan { id: 83, port: 8472, local: Some(ip("192.0.2.1")), learning: false };
    netlink.create_vxlan(OVERLAY_DEVICE, &vxlan, owned::overlay_mac("one"), 1450).unwrap();
    let index = netlink.link(OVERLAY_DEVICE).unwrap().index;
    netlink.set_up(index).unwrap();
    let mac = owned::overlay_mac("two");
    for hop in [ip("10.244.2.1"), mac.link_local().into()] {
        netlink.set_neighbour(index, hop, mac).unwrap();
    }
    // A way that is there already, by another device, is no hindrance.
    let eth0 = netlink.link("eth0").unwrap().index;
    for (network, near, hop) in [
        ("10.244.2.0/24", ip("192.0.2.2"), ip("10.244.2.1")),
        ("fd00:2::/64", ip("2001:db8::2"), mac.link_local().into()),
    ] {
        let network = network.parse().unwrap();
        netlink.replace_route(&Route::via(network, near, eth0)).unwrap();
        let mut route = Route::via(network, hop, index);
        route.onlink = true;
        netlink.replace_route(&route).unwrap();
        let ours = netlink.routes(&RouteFilter::ours()).unwrap();
        let held: Vec<_> = ours.into_iter().filter(|held| held.destination == network).collect();
        assert_eq!(held.len(), 1, "{held:?}");
        assert_eq!((held[0].gateway, held[0].device, held[0].onlink), (Some(hop), Some(index), true));
    }
}

#[test]
fn requests_that_are_sent_together_fail_one_by_one() {
    let mut netlink = node();
    let vxlan = Vxlan { id: 83, port: 8472, local: Some(ip("192.0.2.1")), learning: false };
    netlink.create_vxlan(OVERLAY_DEVICE, &vxlan, owned::overlay_mac("one"), 1450).unwrap();
    let index = netlink.link(OVERLAY_DEVICE).unwrap().index;
    netlink.set_up(index).unwrap();
    // More than are sent at once; the hundredth names a device that is not there.
    let entry = |number: u8| {
        let (mac, remote) = (MacAddress([2, 0, 0, 0, 1, number]), ip(&format!("198.51.100.{number}")));
        let index = if number == 100 { 4711 } else { index };
        Request::SetForwarding { index, mac, remote }
    };
    let failed = netlink.carry_out(&(1..=200).map(entry).collect::<Vec<_>>());
    let [(99, error)] = &failed[..] else { panic!("{failed:?}") };
    assert!(error.is_not_found() && error.to_string().contains("02:00:00:00:01:64"), "{error}");
    assert_eq!(netlink.forwardings(index).unwrap().len(), 199);

    // Routes of others stay; what is to go may have gone.
    let network = |number: u8| format!("10.9.{number}.0/24").parse().unwrap();
    let mut foreign = Route::via(network(2), ip("192.0.2.9"), netlink.link("eth0").unwrap().index);
    foreign.protocol = 4;
    netlink.add_route(&foreign).unwrap();
    let route = |number: u8| {
        let mut route = Route::via(network(number), ip("10.9.0.1"), index);
        route.onlink = true;
        route
    };
    let failed = netlink.carry_out(&[1, 2, 3].map(route).map(Request::AddRoute));
    let [(1, error)] = &failed[..] else { panic!("{failed:?}") };
    assert!(error.is_exists(), "{error}");
    let failed = netlink.carry_out(&[1, 3, 4].map(route).map(Request::DeleteRoute));
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(netlink.routes(&RouteFilter::ours()).unwrap(), []);
    assert!(netlink.carry_out(&[]).is_empty());
}

#[test]
fn a_link_without_programs_has_none() {
    let mut netlink = node();
    let index = netlink.link("eth0").unwrap().index;
    for direction in [Direction::Ingress, Direction::Egress] {
        assert_eq!(netlink.filter(index, direction).unwrap(), None);
        assert!(!netlink.delete_filter(index, direction).unwrap());
    }
    assert!(netlink.filter(4711, Direction::Ingress).is_ok_and(|none| none.is_none()));
    assert_ne!(owned::overlay_mac("one"), MacAddress([0; 6]));
}
