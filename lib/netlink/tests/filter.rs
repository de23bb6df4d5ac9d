//! The packet filter against the real kernel, between namespaces that have no name and go with the test. Needs root.

#![expect(clippy::unwrap_used, reason = "a test fails loudly, in its helpers too")]

use std::{net::IpAddr, time::Duration};

use sluice_netlink::{
    AddressFlags, LinkChange, MacAddress, Namespace, PacketFilter, Route, VethEnd, masquerade, spoof, sysctl,
};

const LIMIT: Duration = Duration::from_secs(5);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn filter() -> PacketFilter {
    PacketFilter::find().unwrap().unwrap()
}

#[test]
fn pods_take_the_nodes_address_only_where_that_was_asked_for() {
    let [pod, node, outside] = [(); 3].map(|()| Namespace::create().unwrap());
    let flags = AddressFlags { nodad: true, ..AddressFlags::default() };
    let address = |namespace: &Namespace, device: &str, address: &str| {
        let mut netlink = namespace.netlink().unwrap();
        let index = netlink.link(device).unwrap().index;
        netlink.add_address(index, address.parse().unwrap(), flags).unwrap();
        index
    };
    let mut netlink = node.netlink().unwrap();
    netlink.create_veth(&VethEnd::new("pod").up(), &VethEnd::new("eth0").namespace(&pod).up()).unwrap();
    netlink.create_veth(&VethEnd::new("wire").up(), &VethEnd::new("eth0").namespace(&outside).up()).unwrap();
    for (family, any) in [("10.1.0", "0.0.0.0/0"), ("fd01::", "::/0")] {
        let suffix = |last: &str| {
            if family.starts_with("10") {
                format!("{family}.{last}/24")
            } else {
                format!("{family}{last}/64")
            }
        };
        let gateway = suffix("1").split('/').next().unwrap().to_owned();
        address(&node, "pod", &suffix("1"));
        let index = address(&pod, "eth0", &suffix("2"));
        pod.netlink().unwrap().add_route(&Route::via(any.parse().unwrap(), ip(&gateway), index)).unwrap();
    }
    for (node_address, other) in [("192.0.2.1/24", "192.0.2.2/24"), ("2001:db8::1/64", "2001:db8::2/64")] {
        address(&node, "wire", node_address);
        address(&outside, "eth0", other);
    }
    node.run(|| {
        sysctl::set("net/ipv4/ip_forward", "1").unwrap();
        sysctl::set("net/ipv6/conf/all/forwarding", "1").unwrap();
        for network in ["10.1.0.0/24", "fd01::/64"] {
            assert!(masquerade::ensure(network.parse().unwrap()).unwrap());
            assert!(!masquerade::ensure(network.parse().unwrap()).unwrap(), "once is enough");
        }
    })
    .unwrap();
    // Outside knows no way back to the pod; that it hears from it at all is the masquerade.
    for (server, seen) in [("192.0.2.2", "192.0.2.1"), ("2001:db8::2", "2001:db8::1")] {
        let listener = outside.run(|| std::net::TcpListener::bind((ip(server), 0)).unwrap()).unwrap();
        let target = listener.local_addr().unwrap();
        let stream = pod.run(|| std::net::TcpStream::connect_timeout(&target, LIMIT).unwrap()).unwrap();
        assert_eq!(listener.accept().unwrap().1.ip(), ip(seen));
        drop(stream);
    }
    // Towards its own network nothing changes.
    let listener = node.run(|| std::net::TcpListener::bind((ip("10.1.0.1"), 0)).unwrap()).unwrap();
    let target = listener.local_addr().unwrap();
    let _stream = pod.run(|| std::net::TcpStream::connect_timeout(&target, LIMIT).unwrap()).unwrap();
    assert_eq!(listener.accept().unwrap().1.ip(), ip("10.1.0.2"));
    node.run(|| {
        masquerade::remove_all().unwrap();
        masquerade::remove_all().unwrap();
        assert!(masquerade::ensure("10.1.0.0/24".parse().unwrap()).unwrap(), "it was gone");
    })
    .unwrap();
}

#[test]
fn a_device_lets_only_its_pods_address_through() {
    let (node, pod) = (Namespace::create().unwrap(), Namespace::create().unwrap());
    let mac = MacAddress([2, 0, 0, 0, 0, 5]);
    let mut netlink = node.netlink().unwrap();
    netlink
        .create_veth(&VethEnd::new("host").up(), &VethEnd::new("eth0").mac(mac).namespace(&pod).up())
        .unwrap();
    let flags = AddressFlags { nodad: true, ..AddressFlags::default() };
    let host = netlink.link("host").unwrap();
    netlink.add_address(host.index, "10.1.0.1/24".parse().unwrap(), flags).unwrap();
    let mut inside = pod.netlink().unwrap();
    let eth0 = inside.link("eth0").unwrap().index;
    inside.add_address(eth0, "10.1.0.2/24".parse().unwrap(), flags).unwrap();
    // Neither has to ask the other where it is.
    inside.set_neighbour(eth0, ip("10.1.0.1"), host.mac.unwrap()).unwrap();
    node.run(|| {
        spoof::allow_only("host", mac).unwrap();
        spoof::allow_only("host", mac).unwrap();
        assert!(spoof::is_filtered(&mut filter(), "host").unwrap());
    })
    .unwrap();
    let server = node.run(|| std::net::UdpSocket::bind("10.1.0.1:0").unwrap()).unwrap();
    server.set_read_timeout(Some(LIMIT)).unwrap();
    let client = pod.run(|| std::net::UdpSocket::bind("10.1.0.2:0").unwrap()).unwrap();
    let target = server.local_addr().unwrap();
    let mut buffer = [0; 8];
    client.send_to(b"honest 1", target).unwrap();
    assert_eq!(server.recv(&mut buffer).unwrap(), 8);
    inside.change_link(eth0, &LinkChange::new().mac(MacAddress([2, 6, 6, 6, 6, 6]))).unwrap();
    inside.set_neighbour(eth0, ip("10.1.0.1"), host.mac.unwrap()).unwrap();
    client.send_to(b"spoofed!", target).unwrap();
    inside.change_link(eth0, &LinkChange::new().mac(mac)).unwrap();
    inside.set_neighbour(eth0, ip("10.1.0.1"), host.mac.unwrap()).unwrap();
    client.send_to(b"honest 2", target).unwrap();
    server.recv(&mut buffer).unwrap();
    assert_eq!(&buffer, b"honest 2", "what was spoofed before it has not come");
    netlink.delete_link(host.index).unwrap();
    node.run(|| {
        spoof::forget(&mut filter(), "host").unwrap();
        spoof::forget(&mut filter(), "host").unwrap();
        assert!(!spoof::is_filtered(&mut filter(), "host").unwrap());
    })
    .unwrap();
}
