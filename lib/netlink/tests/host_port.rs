//! Host ports by the packet filter, between namespaces that have no name and go with the test. Needs root.

#![expect(clippy::unwrap_used, reason = "a test fails loudly, in its helpers too")]

use std::{
    io::{ErrorKind, Read, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use sluice_netlink::{
    AddressFlags, BridgePort, BridgeSpec, Namespace, PacketFilter, Route, VethEnd,
    host_port::{self, HostPort},
    sysctl,
};

const LIMIT: Duration = Duration::from_secs(5);

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn filter() -> PacketFilter {
    PacketFilter::find().unwrap().unwrap()
}

struct Bed {
    node: Namespace,
    pods: [Namespace; 2],
    outside: Namespace,
}

impl Bed {
    /// Two pods on a bridge, and a host outside, in both families.
    fn new() -> Self {
        let [node, one, two, outside] = [(); 4].map(|()| Namespace::create().unwrap());
        let flags = AddressFlags { nodad: true, ..AddressFlags::default() };
        let address = |namespace: &Namespace, device: &str, addresses: [&str; 2]| {
            let mut netlink = namespace.netlink().unwrap();
            let index = netlink.link(device).unwrap().index;
            for address in addresses {
                netlink.add_address(index, address.parse().unwrap(), flags).unwrap();
            }
            index
        };
        let mut netlink = node.netlink().unwrap();
        netlink.set_up(1).unwrap();
        netlink.create_bridge(&BridgeSpec::new("bridge").up()).unwrap();
        let bridge = netlink.link("bridge").unwrap().index;
        node.run(|| sysctl::set("net/ipv6/conf/bridge/accept_dad", "0").unwrap()).unwrap();
        address(&node, "bridge", ["10.1.0.1/24", "fd01::1/64"]);
        for (name, pod, addresses) in
            [("one", &one, ["10.1.0.2/24", "fd01::2/64"]), ("two", &two, ["10.1.0.3/24", "fd01::3/64"])]
        {
            let host = VethEnd::new(name).master(bridge).up();
            netlink.create_veth(&host, &VethEnd::new("eth0").namespace(pod).up()).unwrap();
            // Where bridges obey the packet filter (br_netfilter), they translate, and send it back by themselves.
            let port = BridgePort { hairpin: Some(true), ..BridgePort::default() };
            let index = netlink.link(name).unwrap().index;
            netlink.set_bridge_port(index, port).unwrap();
            let index = address(pod, "eth0", addresses);
            for (any, gateway) in [("0.0.0.0/0", "10.1.0.1"), ("::/0", "fd01::1")] {
                pod.netlink()
                    .unwrap()
                    .add_route(&Route::via(any.parse().unwrap(), ip(gateway), index))
                    .unwrap();
            }
        }
        netlink
            .create_veth(&VethEnd::new("wire").up(), &VethEnd::new("eth0").namespace(&outside).up())
            .unwrap();
        address(&node, "wire", ["192.0.2.1/24", "2001:db8::1/64"]);
        address(&outside, "eth0", ["192.0.2.2/24", "2001:db8::2/64"]);
        node.run(|| {
            sysctl::set("net/ipv4/ip_forward", "1").unwrap();
            sysctl::set("net/ipv4/conf/bridge/route_localnet", "1").unwrap();
            sysctl::set("net/ipv6/conf/all/forwarding", "1").unwrap();
        })
        .unwrap();
        Self { node, pods: [one, two], outside }
    }

    fn open(&self, ports: &[HostPort]) {
        self.node
            .run(|| {
                for (network, v4) in [("10.1.0.0/24", true), ("fd01::/64", false)] {
                    let of: Vec<_> =
                        ports.iter().filter(|port| port.address.is_ipv4() == v4).copied().collect();
                    host_port::open(network.parse().unwrap(), &of).unwrap();
                }
            })
            .unwrap();
    }
}

fn port(protocol: u8, host_ip: &str, host_port: u16, address: &str, port: u16) -> HostPort {
    HostPort { protocol, host_ip: ip(host_ip), host_port, address: ip(address), port, masquerade: false }
}

/// What a TCP server that greets with a name says to whoever connects from there.
fn greeting(client: &Namespace, target: &str) -> Result<String, ErrorKind> {
    let target: SocketAddr = target.parse().unwrap();
    let connect = || {
        let mut stream = TcpStream::connect_timeout(&target, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok::<_, std::io::Error>(text)
    };
    client.run(connect).unwrap().map_err(|error| error.kind())
}

/// Greets everybody who connects, as long as the test runs.
fn serve(pod: &Namespace, name: &'static str) {
    let listener = pod.run(|| TcpListener::bind("[::]:80").unwrap()).unwrap();
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = stream.write_all(name.as_bytes());
        }
    });
}

#[test]
fn a_host_port_is_reached_from_everywhere() {
    let bed = Bed::new();
    serve(&bed.pods[0], "one");
    bed.open(&[port(6, "0.0.0.0", 8080, "10.1.0.2", 80), port(6, "::", 8080, "fd01::2", 80)]);
    for (name, client) in [
        ("outside", &bed.outside),
        ("node", &bed.node),
        ("other pod", &bed.pods[1]),
        ("itself", &bed.pods[0]),
    ] {
        for target in ["192.0.2.1:8080", "[2001:db8::1]:8080"] {
            assert_eq!(greeting(client, target).as_deref(), Ok("one"), "{name} to {target}");
        }
    }
    assert_eq!(greeting(&bed.node, "127.0.0.1:8080").as_deref(), Ok("one"));
    // That the bridge may route 127.0.0.0/8 opens the node's own loopback servers to nobody.
    let _own = bed.node.run(|| TcpListener::bind("127.0.0.1:7070").unwrap()).unwrap();
    let mut inside = bed.pods[1].netlink().unwrap();
    let eth0 = inside.link("eth0").unwrap().index;
    bed.pods[1].run(|| sysctl::set("net/ipv4/conf/all/route_localnet", "1").unwrap()).unwrap();
    let mut route = Route::via("127.0.0.1/32".parse().unwrap(), ip("10.1.0.1"), eth0);
    route.metric = Some(1);
    inside.add_route(&route).unwrap();
    let connect =
        || TcpStream::connect_timeout(&"127.0.0.1:7070".parse().unwrap(), Duration::from_millis(200));
    assert!(bed.pods[1].run(connect).unwrap().is_err());
}

#[test]
fn addresses_and_protocols_have_ports_of_their_own() {
    let bed = Bed::new();
    serve(&bed.pods[0], "one");
    serve(&bed.pods[1], "two");
    bed.open(&[
        port(6, "192.0.2.1", 54323, "10.1.0.2", 80),
        port(6, "127.0.0.1", 54323, "10.1.0.3", 80),
        port(17, "192.0.2.1", 54323, "10.1.0.3", 53),
    ]);
    assert_eq!(greeting(&bed.outside, "192.0.2.1:54323").as_deref(), Ok("one"));
    assert_eq!(greeting(&bed.node, "127.0.0.1:54323").as_deref(), Ok("two"));
    let server = bed.pods[1].run(|| UdpSocket::bind("0.0.0.0:53").unwrap()).unwrap();
    server.set_read_timeout(Some(LIMIT)).unwrap();
    let client = bed.outside.run(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
    client.set_read_timeout(Some(LIMIT)).unwrap();
    client.send_to(b"ask", "192.0.2.1:54323").unwrap();
    let mut buffer = [0; 8];
    let (length, from) = server.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from.ip()), (&b"ask"[..], ip("192.0.2.2")), "the client is seen as it is");
    server.send_to(b"answer", from).unwrap();
    let (length, from) = client.recv_from(&mut buffer).unwrap();
    assert_eq!((&buffer[..length], from.to_string().as_str()), (&b"answer"[..], "192.0.2.1:54323"));
}

#[test]
fn ports_are_listed_moved_and_closed() {
    let bed = Bed::new();
    serve(&bed.pods[0], "one");
    serve(&bed.pods[1], "two");
    let all = [
        port(6, "0.0.0.0", 8080, "10.1.0.2", 80),
        port(132, "192.0.2.1", 9, "10.1.0.2", 9),
        port(17, "2001:db8::1", 53, "fd01::2", 53),
    ];
    bed.node
        .run(|| {
            assert!(host_port::list().unwrap().is_empty());
            host_port::close(&mut filter(), |_| true).unwrap();
        })
        .unwrap();
    bed.open(&all);
    bed.open(&all);
    bed.node.run(|| assert_eq!(host_port::list().unwrap(), all.into())).unwrap();
    // Another pod gets it, whose predecessor has gone without a word.
    bed.open(&[port(6, "0.0.0.0", 8080, "10.1.0.3", 80)]);
    assert_eq!(greeting(&bed.outside, "192.0.2.1:8080").as_deref(), Ok("two"));
    bed.node
        .run(|| {
            host_port::close(&mut filter(), |port| port.address == ip("10.1.0.2")).unwrap();
            assert_eq!(host_port::list().unwrap().len(), 2);
            host_port::close(&mut filter(), |_| true).unwrap();
            assert!(host_port::list().unwrap().is_empty());
        })
        .unwrap();
    assert_eq!(greeting(&bed.outside, "192.0.2.1:8080"), Err(ErrorKind::ConnectionRefused));
}

#[test]
fn whoever_comes_by_a_port_that_masquerades_is_seen_as_the_node() {
    let bed = Bed::new();
    let masquerading = |port: HostPort| HostPort { masquerade: true, ..port };
    let ports = [
        masquerading(port(6, "0.0.0.0", 8080, "10.1.0.2", 80)),
        masquerading(port(6, "192.0.2.1", 8081, "10.1.0.2", 80)),
        masquerading(port(6, "::", 8080, "fd01::2", 80)),
        port(6, "0.0.0.0", 8090, "10.1.0.3", 80),
    ];
    bed.open(&ports);
    bed.node.run(|| assert_eq!(host_port::list().unwrap(), ports.into())).unwrap();
    let listeners = bed.pods.each_ref().map(|pod| pod.run(|| TcpListener::bind("[::]:80").unwrap()).unwrap());
    // Who is seen of whoever connects.
    let seen = |pod: usize, client: &Namespace, target: &str| {
        let target: SocketAddr = target.parse().unwrap();
        let _client = client.run(|| TcpStream::connect_timeout(&target, LIMIT).unwrap()).unwrap();
        listeners[pod].accept().unwrap().1.ip().to_canonical()
    };
    for client in [&bed.outside, &bed.node, &bed.pods[1], &bed.pods[0]] {
        for target in ["192.0.2.1:8080", "192.0.2.1:8081"] {
            assert_eq!(seen(0, client, target), ip("10.1.0.1"), "{target}");
        }
        assert_eq!(seen(0, client, "[2001:db8::1]:8080"), ip("fd01::1"));
    }
    assert_eq!(seen(1, &bed.outside, "192.0.2.1:8090"), ip("192.0.2.2"), "another's is as it was");

    // While one is left that leads there, it stays as it is; the next that leads there is not.
    bed.node.run(|| host_port::close(&mut filter(), |port| port.host_port == 8080).unwrap()).unwrap();
    assert_eq!(seen(0, &bed.outside, "192.0.2.1:8081"), ip("10.1.0.1"));
    bed.node.run(|| host_port::close(&mut filter(), |port| port.host_port == 8081).unwrap()).unwrap();
    bed.open(&[port(6, "0.0.0.0", 8080, "10.1.0.2", 80)]);
    assert_eq!(seen(0, &bed.outside, "192.0.2.1:8080"), ip("192.0.2.2"));
}
