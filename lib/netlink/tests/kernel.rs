//! The verbs against the real kernel, each test in namespaces of its own that have no name and go with it.
//! Needs root.

#![expect(clippy::unwrap_used, reason = "a test fails loudly, in its helpers too")]

use std::{net::IpAddr, time::Duration};

use sluice_netlink::{
    AddressFlags, BridgePort, BridgeSpec, Event, LinkChange, MacAddress, Namespace, Netlink, Route,
    RouteFilter, Topic, VethEnd, Watch, netns, owned, sysctl,
};

const LIMIT: Duration = Duration::from_secs(5);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_veth_pair_spans_namespaces_as_described() {
    let (node, pod) = (Namespace::create().unwrap(), Namespace::create().unwrap());
    let mac = MacAddress([2, 0, 0, 0, 0, 7]);
    node.run(|| {
        let mut netlink = Netlink::open().unwrap();
        netlink.create_bridge(&BridgeSpec::new("br0").mac(MacAddress([2, 0, 0, 0, 0, 1])).up()).unwrap();
        let bridge = netlink.link("br0").unwrap();
        assert!(bridge.is_kind("bridge"));
        let pair = netlink
            .create_veth(
                &VethEnd::new("host0").mtu(1400).master(bridge.index).up(),
                &VethEnd::new("eth0").mtu(1400).mac(mac).namespace(&pod),
            )
            .unwrap();
        let host = netlink.link("host0").unwrap();
        assert_eq!((host.mtu, host.master, host.kind.as_deref()), (1400, Some(bridge.index), Some("veth")));
        assert!(host.flags.is_up() && !host.flags.has_carrier());
        assert!(host.peer_namespace.is_some());
        assert_eq!(netlink.find_link("eth0").unwrap(), None, "the peer is not here");

        let mut inside = pod.netlink().unwrap();
        let eth0 = inside.link("eth0").unwrap();
        assert_eq!((eth0.mac, eth0.mtu, eth0.flags.is_up()), (Some(mac), 1400, false));
        assert_eq!(host.peer, Some(eth0.index));
        assert_eq!((pair.index, pair.peer), (host.index, eth0.index));
        inside.set_up(eth0.index).unwrap();
        let host = netlink.wait_for_carrier("host0", LIMIT).unwrap();
        assert!(host.flags.has_carrier());
        // A port comes and the bridge keeps its address.
        assert_eq!(netlink.link("br0").unwrap().mac, bridge.mac);

        netlink
            .set_bridge_port(host.index, BridgePort { hairpin: Some(true), ..BridgePort::default() })
            .unwrap();
        let port = netlink.link("host0").unwrap().port;
        let expected = BridgePort { hairpin: Some(true), isolated: Some(false), learning: Some(true) };
        assert_eq!(port, expected);
        assert_eq!(netlink.link("br0").unwrap().port, BridgePort::default(), "no port");
        netlink.delete_link(host.index).unwrap();
        assert!(inside.find_link("eth0").unwrap().is_none(), "both ends go");
    })
    .unwrap();
}

#[test]
fn an_address_is_waited_for_until_it_can_be_used_or_is_somebody_elses() {
    let (one, two) = (Namespace::create().unwrap(), Namespace::create().unwrap());
    let address = "fd00::7/64".parse().unwrap();
    one.run(|| {
        let mut netlink = Netlink::open().unwrap();
        let pair =
            netlink.create_veth(&VethEnd::new("a").up(), &VethEnd::new("b").namespace(&two).up()).unwrap();
        let mut other = two.netlink().unwrap();
        let plain = AddressFlags::default();
        // Nobody is there to be asked.
        netlink.set_down(pair.index).unwrap();
        netlink.add_address(pair.index, address, plain).unwrap();
        let short = Duration::from_millis(20);
        let error = netlink.settle_addresses(pair.index, &[address], short).unwrap_err().to_string();
        assert_eq!(error, "address fd00::7/64 did not get usable within 20ms");
        netlink.settle_addresses(pair.index, &[], short).unwrap();
        netlink.set_up(pair.index).unwrap();
        netlink.settle_addresses(pair.index, &[address], LIMIT).unwrap();

        other.add_address(pair.peer, address, plain).unwrap();
        let error = two.run(|| {
            let mut other = Netlink::open().unwrap();
            other.settle_addresses(pair.peer, &[address], LIMIT).unwrap_err().to_string()
        });
        assert!(error.unwrap().starts_with("cannot use address fd00::7/64: "), "the first has it");
    })
    .unwrap();
}

#[test]
fn links_are_found_changed_and_gone() {
    let mut netlink = Namespace::create().unwrap().netlink().unwrap();
    netlink.create_veth(&VethEnd::new("a").noarp(), &VethEnd::new("b")).unwrap();
    let again = netlink.create_veth(&VethEnd::new("a"), &VethEnd::new("c")).unwrap_err();
    assert!(again.is_exists(), "{again}");
    assert!(again.to_string().starts_with("cannot create veth a with peer c: "), "{again}");

    let a = netlink.link("a").unwrap();
    assert!(a.flags.is_noarp());
    let mac = MacAddress([2, 1, 1, 1, 1, 1]);
    let change =
        LinkChange::new().arp(true).mtu(9000).mac(mac).name("renamed").alias("a link").tx_queue_len(17);
    netlink.change_link(a.index, &change).unwrap();
    let renamed = netlink.link("renamed").unwrap();
    assert_eq!(
        (renamed.index, renamed.mtu, renamed.mac, renamed.tx_queue_len),
        (a.index, 9000, Some(mac), 17)
    );
    assert_eq!(renamed.alias.as_deref(), Some("a link"));
    assert!(!renamed.flags.is_noarp());
    assert_eq!(netlink.link_by_index(a.index).unwrap(), renamed);
    let names: Vec<_> = netlink.links().unwrap().into_iter().map(|link| link.name).collect();
    assert_eq!(names, ["lo", "b", "renamed"]);

    netlink.delete_link(a.index).unwrap();
    assert!(netlink.link("renamed").unwrap_err().is_not_found());
    assert!(netlink.delete_link(a.index).unwrap_err().is_not_found());
    let bad = netlink.change_link(1, &LinkChange::new().master(Some(4711))).unwrap_err();
    assert!(bad.to_string().starts_with("cannot change link with index 1: "), "{bad}");
}

#[test]
fn a_bridge_keeps_the_packet_size_it_was_given() {
    let mut netlink = Namespace::create().unwrap().netlink().unwrap();
    netlink.create_bridge(&BridgeSpec::new("br0").mtu(1300).up()).unwrap();
    let bridge = netlink.link("br0").unwrap();
    netlink.create_veth(&VethEnd::new("a").master(bridge.index), &VethEnd::new("b")).unwrap();
    assert_eq!(netlink.link("br0").unwrap().mtu, 1300);
}

#[test]
fn addresses_of_both_families_are_usable_at_once() {
    let mut netlink = Namespace::create().unwrap().netlink().unwrap();
    netlink.create_bridge(&BridgeSpec::new("br0").up()).unwrap();
    let bridge = netlink.link("br0").unwrap().index;
    let flags = AddressFlags { nodad: true, ..AddressFlags::default() };
    let (v4, v6) = ("10.7.0.1/24".parse().unwrap(), "fd07::1/64".parse().unwrap());
    for address in [v4, v6] {
        netlink.add_address(bridge, address, flags).unwrap();
        assert!(netlink.add_address(bridge, address, flags).unwrap_err().is_exists());
        assert!(!netlink.ensure_address(bridge, address, flags).unwrap());
    }
    let list = netlink.addresses_of(bridge).unwrap();
    for wanted in [v4, v6] {
        let found = list.iter().find(|found| found.address == wanted).expect("the address is listed");
        assert!(!found.is_tentative() && !found.is_duplicate());
    }
    assert_eq!(netlink.find_address(ip("10.7.0.1")).unwrap().map(|found| found.index), Some(bridge));
    netlink.delete_address(bridge, v4).unwrap();
    assert!(netlink.delete_address(bridge, v4).unwrap_err().is_not_found());
    assert!(netlink.find_address(ip("10.7.0.1")).unwrap().is_none());
    assert!(netlink.addresses_of(1).unwrap().is_empty(), "the list is of one link only");
}

#[test]
fn routes_are_added_replaced_listed_and_only_the_described_one_goes() {
    let mut netlink = Namespace::create().unwrap().netlink().unwrap();
    netlink.create_veth(&VethEnd::new("a").up(), &VethEnd::new("b").up()).unwrap();
    let a = netlink.link("a").unwrap().index;
    let flags = AddressFlags { nodad: true, ..AddressFlags::default() };
    netlink.add_address(a, "10.7.0.1/24".parse().unwrap(), flags).unwrap();
    netlink.add_address(a, "fd07::1/64".parse().unwrap(), flags).unwrap();

    let mut v4 = Route::via("10.8.0.0/24".parse().unwrap(), ip("10.7.0.2"), a);
    v4.mtu = Some(1400);
    v4.source = Some(ip("10.7.0.1"));
    let mut v6 = Route::via("fd08::/64".parse().unwrap(), ip("fd07::2"), a);
    v6.metric = Some(1024);
    let mut onlink = Route::via("10.9.0.0/24".parse().unwrap(), ip("192.0.2.1"), a);
    onlink.onlink = true;
    let direct = Route::new("10.10.0.0/24".parse().unwrap(), a);
    for route in [&v4, &v6, &onlink, &direct] {
        netlink.add_route(route).unwrap();
        assert!(netlink.add_route(route).unwrap_err().is_exists());
    }
    let mut ours = netlink.routes(&RouteFilter::ours()).unwrap();
    ours.sort_by_key(|route| route.destination);
    assert_eq!(ours, [v4.clone(), onlink.clone(), direct.clone(), v6.clone()]);
    let connected = RouteFilter { device: Some(a), protocol: Some(2), ..RouteFilter::default() };
    assert!(netlink.routes(&connected).unwrap().iter().all(|route| route.protocol == 2));

    let moved = Route { gateway: Some(ip("10.7.0.3")), ..v4.clone() };
    netlink.replace_route(&moved).unwrap();
    assert!(netlink.delete_route(&v4).unwrap_err().is_not_found(), "that one is no longer there");
    for route in [&moved, &v6, &onlink, &direct] {
        netlink.delete_route(route).unwrap();
    }
    assert!(netlink.routes(&RouteFilter::ours()).unwrap().is_empty());
    let error = netlink.delete_route(&moved).unwrap_err().to_string();
    assert!(
        error.starts_with(&format!("cannot delete route to 10.8.0.0/24 via 10.7.0.3 by link {a}: ")),
        "{error}"
    );
}

#[test]
fn neighbours_are_set_and_forgotten() {
    let mut netlink = Namespace::create().unwrap().netlink().unwrap();
    netlink.create_veth(&VethEnd::new("a").up(), &VethEnd::new("b").up()).unwrap();
    let a = netlink.link("a").unwrap().index;
    let mac = MacAddress([2, 0, 0, 0, 0, 9]);
    for address in [ip("10.7.0.9"), ip("fd07::9")] {
        netlink.set_neighbour(a, address, mac).unwrap();
        let found =
            netlink.neighbours(a).unwrap().into_iter().find(|found| found.address == address).unwrap();
        assert_eq!((found.mac, found.permanent), (Some(mac), true));
        assert!(netlink.forget_neighbour(a, address).unwrap());
        assert!(!netlink.forget_neighbour(a, address).unwrap());
    }
}

#[test]
fn a_large_dump_is_whole_while_links_come_and_go() {
    let namespace = Namespace::create().unwrap();
    let (mut netlink, mut other) = (namespace.netlink().unwrap(), namespace.netlink().unwrap());
    netlink.create_bridge(&BridgeSpec::new("br0").up()).unwrap();
    let bridge = netlink.link("br0").unwrap().index;
    for n in 0..400_u32 {
        let destination = format!("10.{}.{}.0/24", n / 200, n % 200).parse().unwrap();
        netlink.add_route(&Route::new(destination, bridge)).unwrap();
    }
    std::thread::scope(|scope| {
        let churn = scope.spawn(move || {
            for n in 0..200_u32 {
                let route = Route::new(format!("172.16.{n}.0/24").parse().unwrap(), bridge);
                other.add_route(&route).unwrap();
                other.delete_route(&route).unwrap();
            }
        });
        while !churn.is_finished() {
            let routes = netlink.routes(&RouteFilter::ours()).unwrap();
            let stable =
                routes.iter().filter(|route| route.destination.to_string().starts_with("10.")).count();
            assert_eq!(stable, 400);
        }
    });
}

#[test]
fn a_watch_tells_what_happens_and_waits_no_longer_than_asked() {
    Namespace::create()
        .unwrap()
        .run(|| {
            let mut netlink = Netlink::open().unwrap();
            let mut watch = Watch::open(&[Topic::Links, Topic::Addresses, Topic::Routes]).unwrap();
            assert_eq!(watch.next(Some(Duration::ZERO)).unwrap(), None);
            assert_eq!(watch.next(Some(Duration::from_millis(5))).unwrap(), None);

            netlink.create_bridge(&BridgeSpec::new("br0").up()).unwrap();
            let index = netlink.link("br0").unwrap().index;
            let mut until = |wanted: &dyn Fn(&Event) -> bool| {
                while !wanted(&watch.next(Some(LIMIT)).unwrap().expect("an event in time")) {}
            };
            until(&|event| matches!(event, Event::Link(link) if link.name == "br0" && link.flags.is_up()));
            let address = "10.7.0.1/24".parse().unwrap();
            netlink.add_address(index, address, AddressFlags::default()).unwrap();
            until(&|event| matches!(event, Event::Address(found) if found.address == address));
            let route = Route::new("10.8.0.0/24".parse().unwrap(), index);
            netlink.add_route(&route).unwrap();
            until(&|event| *event == Event::Route(route.clone()));
            netlink.delete_link(index).unwrap();
            until(&|event| matches!(event, Event::LinkGone(link) if link.index == index));
        })
        .unwrap();
}

#[test]
fn waiting_for_a_carrier_that_never_comes_ends() {
    Namespace::create()
        .unwrap()
        .run(|| {
            let mut netlink = Netlink::open().unwrap();
            netlink.create_veth(&VethEnd::new("a").up(), &VethEnd::new("b")).unwrap();
            let error = netlink.wait_for_carrier("a", Duration::from_millis(10)).unwrap_err();
            assert_eq!(error.to_string(), "link a did not get a carrier within 10ms");
        })
        .unwrap();
}

#[test]
fn a_namespace_is_pinned_opened_told_apart_and_unpinned() {
    let directory = std::env::temp_dir().join(format!("sluice-netns-{}", std::process::id()));
    let pin = directory.join("one");
    let (one, two) = (Namespace::create().unwrap(), Namespace::create().unwrap());
    one.pin(&pin).unwrap();
    assert!(one.pin(&pin).is_err(), "a pin is not covered by another");
    let opened = Namespace::open(&pin).unwrap();
    assert_eq!(opened.id().unwrap(), one.id().unwrap());
    assert_ne!(opened.id().unwrap(), two.id().unwrap());
    assert_ne!(opened.id().unwrap(), Namespace::current().unwrap().id().unwrap());
    assert_eq!(opened.run(|| Namespace::current().unwrap().id().unwrap()).unwrap(), one.id().unwrap());
    let connection = opened.netlink().unwrap();
    assert_eq!(Namespace::of(&connection).unwrap().id().unwrap(), one.id().unwrap(), "asked from elsewhere");
    netns::unpin(&pin).unwrap();
    netns::unpin(&pin).unwrap();
    std::fs::remove_dir(&directory).unwrap();

    let error = Namespace::open(&pin).unwrap_err();
    assert!(error.is_not_found());
    assert!(Namespace::open("/dev/null").is_err(), "a file that is no namespace");
    assert!(Namespace::open("/proc/self/ns/pid").is_ok_and(|pid| pid.run(|| ()).is_err()));
}

#[test]
fn settings_belong_to_the_namespace() {
    let (one, two) = (Namespace::create().unwrap(), Namespace::create().unwrap());
    let name = "net/ipv4/ip_forward";
    one.run(|| {
        sysctl::set(name, "0").unwrap();
        assert!(sysctl::ensure(name, "1").unwrap());
        assert!(!sysctl::ensure(name, "1").unwrap());
        assert_eq!(sysctl::read(name).unwrap(), "1");
    })
    .unwrap();
    two.run(|| {
        sysctl::set(name, "0").unwrap();
        let error = sysctl::set("net/ipv4/conf/none/rp_filter", "0").unwrap_err();
        assert!(error.is_not_found());
        assert!(
            error.to_string().starts_with("cannot set the sysctl net/ipv4/conf/none/rp_filter: "),
            "{error}"
        );
    })
    .unwrap();
    one.run(|| assert_eq!(sysctl::read(name).unwrap(), "1")).unwrap();
}

#[test]
fn names_of_ours_are_told_from_those_of_others_on_a_real_node() {
    let mut netlink = Namespace::create().unwrap().netlink().unwrap();
    let name = owned::host_veth_name("container", "eth0");
    netlink.create_veth(&VethEnd::new(&name), &VethEnd::new("eth0")).unwrap();
    netlink.create_bridge(&BridgeSpec::new(owned::DEFAULT_BRIDGE)).unwrap();
    let ours: Vec<_> = netlink
        .links()
        .unwrap()
        .into_iter()
        .filter(|link| owned::is_host_veth_name(&link.name))
        .map(|l| l.name)
        .collect();
    assert_eq!(ours, [name]);
}

#[test]
fn a_visit_ends_at_home_even_if_it_panics() {
    let (home, away) = (Namespace::create().unwrap(), Namespace::create().unwrap());
    home.run(|| {
        let here = || Namespace::current().unwrap().id().unwrap();
        assert_eq!(away.visit(&home, here).unwrap(), away.id().unwrap());
        assert_eq!(here(), home.id().unwrap());
        let panicked = std::panic::catch_unwind(|| away.visit(&home, || panic!("on the way")));
        assert!(panicked.is_err());
        assert_eq!(here(), home.id().unwrap());
    })
    .unwrap();
}

#[test]
fn settings_of_a_link_are_those_that_were_asked_for() {
    Namespace::create()
        .unwrap()
        .run(|| {
            let mut netlink = Netlink::open().unwrap();
            netlink.create_veth(&VethEnd::new("one"), &VethEnd::new("two")).unwrap();
            let index = netlink.link("one").unwrap().index;
            netlink.change_link(index, &LinkChange::new().arp_notify()).unwrap();
            let settings = [("accept_ra", "0"), ("of_another_kernel", "1"), ("accept_dad", "0")];
            sysctl::set_those_present("net/ipv6/conf/one", &settings).unwrap();
            sysctl::set_those_present("net/ipv6/conf/none", &settings).unwrap();
            for (name, value) in [
                ("net/ipv4/conf/one/arp_notify", "1"),
                ("net/ipv4/conf/two/arp_notify", "0"),
                ("net/ipv6/conf/one/accept_ra", "0"),
                ("net/ipv6/conf/one/accept_dad", "0"),
            ] {
                assert_eq!(sysctl::read(name).unwrap(), value, "{name}");
            }
            let refused = sysctl::set_those_present("net/ipv6/conf/one", &[("accept_ra", "x")]).unwrap_err();
            assert!(refused.to_string().contains("net/ipv6/conf/one/accept_ra"), "{refused}");
        })
        .unwrap();
}
