//! Node ports that a process of the node wants for itself: it would be bound to the port and hear nothing (row 13 of the
//! behaviour table). Such a process is told of; with `guardNodePorts`, it does not get the port in the first place, because
//! the agent holds it.
//!
//! To hold a port is to bind it and not to listen. Packets to it never come as far as the socket: the datapath has taken them
//! before. SCTP is left out, as a socket of it would make the kernel load its module.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use sluice_model::{Changes, ObjectName, Protocol, Service, Snapshot};
use socket2::{Domain, Socket, Type};

use crate::{
    health_ports::Place,
    notice::{About, Notice},
};

/// A port of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Port {
    protocol: Protocol,
    number: u16,
}

/// A node port that a process of this node has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Taken {
    service: ObjectName,
    port: Port,
    address: IpAddr,
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Port { protocol, number } = self.port;
        write!(
            f,
            "{}: node port {number}/{protocol} is bound at {} by a process of this node, which hears nothing there",
            self.service, self.address
        )
    }
}

impl Taken {
    /// What the service's owner is told.
    pub fn notice(&self, node: &str) -> Notice {
        Notice {
            about: About::Service(self.service.clone()),
            reason: "NodePortTaken",
            action: "ServeNodePort",
            note: format!("node {node}: {self}"),
        }
    }
}

/// The node ports of this node.
pub struct NodePorts {
    /// Whether to hold them.
    guard: bool,
    place: Place,
    /// The sockets that hold ports, by service.
    held: BTreeMap<ObjectName, BTreeMap<(Port, IpAddr), Socket>>,
    taken: BTreeSet<Taken>,
}

impl NodePorts {
    /// Nothing is held or known yet.
    pub fn new(guard: bool) -> Self {
        Self { guard, place: Place::Everywhere, held: BTreeMap::new(), taken: BTreeSet::new() }
    }

    /// Looks at what the changed services want; at all of them where `whole`, which is also when who has taken a port is looked
    /// for. Which are taken.
    pub fn sync(
        &mut self,
        snapshot: &Snapshot,
        changes: &Changes,
        place: Place,
        whole: bool,
    ) -> io::Result<&BTreeSet<Taken>> {
        let all = whole || self.place != place;
        self.place = place;
        if self.guard {
            self.hold(snapshot, changes, all)?;
        } else if all {
            let bound = bound()?;
            let places = self.place.clone();
            let ports = snapshot
                .services
                .values()
                .flat_map(|service| wanted(service).into_iter().map(|port| (service.name.clone(), port)));
            let taken = ports.filter_map(|(service, port)| {
                let addresses = bound.range((port, IpAddr::V4(Ipv4Addr::UNSPECIFIED))..);
                let mut of_port =
                    addresses.take_while(|(other, _)| *other == port).map(|(_, address)| *address);
                let address = of_port.find(|address| meets(&places, *address))?;
                Some(Taken { service, port, address })
            });
            self.taken = taken.collect();
        } else {
            let gone = |taken: &Taken| {
                let service = snapshot.services.get(&taken.service);
                service.is_none_or(|service| !wanted(service).contains(&taken.port))
            };
            self.taken.retain(|taken| !gone(taken));
        }
        Ok(&self.taken)
    }

    fn hold(&mut self, snapshot: &Snapshot, changes: &Changes, all: bool) -> io::Result<()> {
        let names: BTreeSet<ObjectName> = if all || changes.everything {
            snapshot.services.keys().chain(self.held.keys()).cloned().collect()
        } else {
            changes.services.iter().cloned().collect()
        };
        let addresses = match &self.place {
            Place::Everywhere => BTreeSet::from([IpAddr::V6(Ipv6Addr::UNSPECIFIED)]),
            Place::Addresses(addresses) => addresses.clone(),
        };
        let wanted: BTreeMap<ObjectName, BTreeSet<Port>> = names
            .into_iter()
            .map(|name| {
                let ports = snapshot.services.get(&name).map(|service| wanted(service)).unwrap_or_default();
                (name, ports)
            })
            .collect();
        // What is given up goes first: another service may have got its port.
        for (name, ports) in &wanted {
            self.taken.retain(|taken| taken.service != *name);
            if let Some(held) = self.held.get_mut(name) {
                held.retain(|(port, address), _| ports.contains(port) && addresses.contains(address));
            }
        }
        for (name, ports) in wanted {
            let held = self.held.entry(name.clone()).or_default();
            for (port, address) in ports.iter().flat_map(|port| addresses.iter().map(move |a| (*port, *a))) {
                if held.contains_key(&(port, address)) {
                    continue;
                }
                match bind(port, address) {
                    Ok(socket) => {
                        held.insert((port, address), socket);
                    }
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                        self.taken.insert(Taken { service: name.clone(), port, address });
                    }
                    // An address that has just gone.
                    Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
                    Err(error) => return Err(error),
                }
            }
        }
        self.held.retain(|_, sockets| !sockets.is_empty());
        Ok(())
    }
}

/// The node ports that a service has sockets' protocols for.
fn wanted(service: &Service) -> BTreeSet<Port> {
    if !service.is_proxied() {
        return BTreeSet::new();
    }
    let ports = service.ports.iter().filter(|port| port.protocol != Protocol::Sctp);
    ports.filter_map(|port| Some(Port { protocol: port.protocol, number: port.node_port? })).collect()
}

/// Whether a socket at this address would get what is for a node port.
fn meets(place: &Place, address: IpAddr) -> bool {
    match place {
        Place::Everywhere => true,
        Place::Addresses(addresses) if address == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => !addresses.is_empty(),
        Place::Addresses(addresses) if address.is_unspecified() => addresses.iter().any(IpAddr::is_ipv4),
        Place::Addresses(addresses) => addresses.contains(&address),
    }
}

/// Binds, and does not listen. The wildcard of IPv6 takes both families, where the node has both.
fn bind(port: Port, address: IpAddr) -> io::Result<Socket> {
    let kind = if port.protocol == Protocol::Tcp { Type::STREAM } else { Type::DGRAM };
    let at = |address: IpAddr| -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(SocketAddr::new(address, port.number)), kind, None)?;
        if address.is_ipv6() {
            socket.set_only_v6(!address.is_unspecified())?;
        }
        socket.bind(&SocketAddr::new(address, port.number).into())?;
        Ok(socket)
    };
    match at(address) {
        Err(error) if address == Ipv6Addr::UNSPECIFIED && error.kind() != io::ErrorKind::AddrInUse => {
            at(Ipv4Addr::UNSPECIFIED.into())
        }
        other => other,
    }
}

/// Ports of this network namespace to which a socket that hears something is bound.
fn bound() -> io::Result<BTreeSet<(Port, IpAddr)>> {
    let mut all = BTreeSet::new();
    for (file, protocol) in
        [("tcp", Protocol::Tcp), ("tcp6", Protocol::Tcp), ("udp", Protocol::Udp), ("udp6", Protocol::Udp)]
    {
        match fs::read_to_string(format!("/proc/thread-self/net/{file}")) {
            Ok(text) => all.extend(listeners(&text, protocol)),
            // A kernel without the family.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// The sockets of a file such as `/proc/net/tcp` (proc_net_tcp.txt of the kernel's documentation) that wait for whoever comes.
fn listeners(text: &str, protocol: Protocol) -> impl Iterator<Item = (Port, IpAddr)> {
    // TCP_LISTEN; for UDP, whose sockets have states of TCP, TCP_CLOSE: bound, and not connected.
    let wanted = if protocol == Protocol::Tcp { "0A" } else { "07" };
    text.lines().skip(1).filter_map(move |line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (local, _, state) = (fields.next()?, fields.next()?, fields.next()?);
        let (address, number) = local.split_once(':')?;
        let port = Port { protocol, number: u16::from_str_radix(number, 16).ok()? };
        (state == wanted).then_some((port, hex_address(address)?))
    })
}

/// An address as words of the machine's byte order, each of which holds four bytes of the network's.
fn hex_address(text: &str) -> Option<IpAddr> {
    let word = |at: usize| Some(u32::from_str_radix(text.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    match text.len() {
        8 => Some(word(0)?.into()),
        32 => {
            let mut octets = [0; 16];
            for (index, chunk) in octets.chunks_mut(4).enumerate() {
                chunk.copy_from_slice(&word(8 * index)?);
            }
            Some(octets.into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use sluice_model::{Object, ServiceKind, ServicePort, TargetPort};

    use super::*;

    fn snapshot(ports: &[(Protocol, u16)]) -> Snapshot {
        let port = |(protocol, number): &(Protocol, u16)| ServicePort {
            name: number.to_string().into(),
            protocol: *protocol,
            port: 80,
            target_port: TargetPort::Number(80),
            node_port: Some(*number),
        };
        let service = Service {
            kind: ServiceKind::NodePort,
            cluster_ips: vec!["10.96.0.1".parse().unwrap()],
            ports: ports.iter().map(port).collect(),
            ..Service::new(ObjectName::new("shop", "web"))
        };
        let mut snapshot = Snapshot::default();
        snapshot.apply(Object::Service(service), &mut Changes::default());
        snapshot
    }

    fn loopback() -> Place {
        Place::Addresses([IpAddr::V4(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()].into())
    }

    /// A port that nobody has, in either protocol, and a process that has it.
    fn taken() -> (std::net::TcpListener, u16) {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    fn said(ports: &mut NodePorts, snapshot: &Snapshot) -> Vec<String> {
        let taken = ports.sync(snapshot, &Changes::everything(), loopback(), true).unwrap();
        taken.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_process_that_has_a_node_port_is_told_of() {
        let (listener, port) = taken();
        let snapshot = snapshot(&[(Protocol::Tcp, port), (Protocol::Udp, port)]);
        for guard in [false, true] {
            let mut ports = NodePorts::new(guard);
            let [text] = &said(&mut ports, &snapshot)[..] else { panic!("one is taken, guard {guard}") };
            let start = format!("shop/web: node port {port}/TCP is bound at 127.0.0.1 by a process");
            assert!(text.starts_with(&start), "{text}");
            let other = Changes::default();
            assert_eq!(ports.sync(&snapshot, &other, loopback(), false).unwrap().len(), 1, "it still is");
            let gone = Snapshot::default();
            let changes = Changes::everything();
            assert!(ports.sync(&gone, &changes, loopback(), false).unwrap().is_empty(), "nobody wants it");
        }
        drop(listener);
        assert_eq!(said(&mut NodePorts::new(false), &snapshot), [""; 0]);
    }

    #[test]
    fn a_port_that_is_held_cannot_be_had_and_is_not_served() {
        let (listener, port) = taken();
        drop(listener);
        let mut ports = NodePorts::new(true);
        assert_eq!(said(&mut ports, &snapshot(&[(Protocol::Tcp, port), (Protocol::Udp, port)])), [""; 0]);
        for address in
            [IpAddr::V4(Ipv4Addr::LOCALHOST), Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::LOCALHOST.into()]
        {
            let error = std::net::TcpListener::bind((address, port)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "TCP {address}");
            let error = std::net::UdpSocket::bind((address, port)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse, "UDP {address}");
        }
        let refused = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        // The service gives it up.
        assert_eq!(said(&mut ports, &Snapshot::default()), [""; 0]);
        assert!(std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok());
    }

    #[test]
    fn sockets_are_read_as_the_kernel_tells_them() {
        let header = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid\n";
        let tcp = format!(
            "{header}   0: 0100007F:7590 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0\n   \
             1: 0100007F:7590 0100007F:A000 01 00000000:00000000 00:00000000 00000000     0\n"
        );
        let found: Vec<_> = listeners(&tcp, Protocol::Tcp).collect();
        let port = Port { protocol: Protocol::Tcp, number: 30096 };
        assert_eq!(found, [(port, IpAddr::V4(Ipv4Addr::LOCALHOST))]);
        let udp = format!(
            "{header} 9: B80D0120000000000000000001000000:0035 00000000000000000000000000000000:0000 07 0 0 0 0\n"
        );
        let found: Vec<_> = listeners(&udp, Protocol::Udp).collect();
        let port = Port { protocol: Protocol::Udp, number: 53 };
        assert_eq!(found, [(port, "2001:db8::1".parse().unwrap())]);
    }

    #[test]
    fn sockets_elsewhere_take_nothing() {
        let place = |text: &str| Place::Addresses([text.parse().unwrap()].into());
        let rows = [
            ("192.0.2.1", "0.0.0.0", true),
            ("192.0.2.1", "::", true),
            ("192.0.2.1", "127.0.0.1", false),
            ("192.0.2.1", "192.0.2.1", true),
            ("2001:db8::1", "0.0.0.0", false),
        ];
        for (served, bound, meets_it) in rows {
            assert_eq!(meets(&place(served), bound.parse().unwrap()), meets_it, "{served} {bound}");
        }
    }
}
