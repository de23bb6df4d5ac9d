//! Clients: their packets, what is to become of them, and what they remember of it.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

use sluice_ebpf_common::SERVICE_DEVICE;
use sluice_model::{IpFamily, ObjectName, PortName, Protocol};
use sluice_proxy::Hook;
use sluice_tests::{
    datapath::{Bench, Fate, NODE_V4, NODE_V6},
    packet::{Packet, Transport, flag},
};

use crate::{
    random::Random,
    reference::{self, Expected, From, Target, Through},
    world::World,
};

/// How many of the latest connections may go on.
const REMEMBERED: usize = 24;

/// A connection that was made.
#[derive(Clone, Debug)]
struct Connection {
    from: From,
    client: SocketAddr,
    target: Target,
    backend: SocketAddr,
    /// The backend has not served at some time since.
    interrupted: bool,
}

/// Who is remembered for what: sessions are kept for each client and each port of a service.
type Session = (IpAddr, ObjectName, PortName, Protocol);

/// Everybody who sends.
#[derive(Default)]
pub(crate) struct Clients {
    next_port: u16,
    connections: Vec<Connection>,
    /// Where a client with affinity went last.
    sessions: BTreeMap<Session, SocketAddr>,
    /// What was met, and how often.
    pub(crate) met: BTreeMap<&'static str, usize>,
}

/// A client's address.
fn address(from: From, v4: bool, random: &mut Random) -> IpAddr {
    let text = match (from, v4) {
        (From::Pod, true) => "10.244.1.11",
        (From::Pod, false) => "fd00:10:244:1::11",
        (From::OtherPod, true) => "10.244.2.21",
        (From::OtherPod, false) => "fd00:10:244:2::21",
        (From::Outside, true) => *random.of(&["198.51.100.9", "203.0.114.9"]),
        (From::Outside, false) => *random.of(&["2001:db8:9::9", "2001:db8:8::9"]),
        (From::Node, true) => NODE_V4,
        (From::Node, false) => NODE_V6,
        (From::Loopback, true) => "127.0.0.1",
        (From::Loopback, false) => "::1",
    };
    text.parse().unwrap()
}

/// Where a client's packets are met.
fn place(from: From, through: Through) -> (Hook, &'static str) {
    match from {
        From::Pod => (Hook::FromPod, "pod1"),
        From::OtherPod | From::Outside => (Hook::FromWire, "wire"),
        From::Node | From::Loopback if through == Through::NodePort => (Hook::FromHost, "lo"),
        From::Node | From::Loopback => (Hook::FromHost, SERVICE_DEVICE),
    }
}

fn packet(protocol: Protocol, from: SocketAddr, to: SocketAddr, flags: u8) -> Packet {
    let (from, to) = (from.to_string(), to.to_string());
    match protocol {
        Protocol::Tcp => Packet::tcp(&from, &to, flags),
        Protocol::Udp => Packet::udp(&from, &to),
        Protocol::Sctp => {
            // INIT, INIT ACK, DATA (RFC 9260 section 3.2).
            let chunk = match flags {
                flag::SYN => 1,
                flag::ACK => 0,
                _ => 2,
            };
            Packet { transport: Transport::Sctp(chunk), ..Packet::sctp(&from, &to) }
        }
    }
}

/// Source and destination of what came out.
fn ends(text: &str) -> Option<(SocketAddr, SocketAddr)> {
    let mut words = text.split(' ');
    Some((words.next()?.parse().ok()?, words.nth(1)?.parse().ok()?))
}

impl Clients {
    /// Takes notice of a change.
    pub(crate) fn see(&mut self, world: &World) {
        for connection in &mut self.connections {
            connection.interrupted |=
                !reference::serves(&world.snapshot, &connection.target, connection.backend);
        }
        // Whoever's service has no affinity, or is not there, is not remembered for certain from then on.
        self.sessions.retain(|(client, name, port, protocol), _| {
            world.snapshot.services.get(name).is_some_and(|service| {
                service.is_proxied()
                    && service.affinity.is_some()
                    && service.cluster_ips.iter().any(|ip| IpFamily::of(*ip) == IpFamily::of(*client))
                    && service.ports.iter().any(|p| p.name == *port && p.protocol == *protocol)
            })
        });
    }

    /// Makes a new connection to somewhere.
    pub(crate) fn connect(
        &mut self,
        bench: &mut Bench,
        world: &World,
        random: &mut Random,
    ) -> Result<(), String> {
        let from =
            *random.of(&[From::Pod, From::Pod, From::OtherPod, From::Outside, From::Node, From::Loopback]);
        let own: &[&str] = if from == From::Loopback { &["127.0.0.1", "::1"] } else { &[NODE_V4, NODE_V6] };
        let own: Vec<IpAddr> = own.iter().map(|ip| ip.parse().unwrap()).collect();
        let mut targets = reference::targets(&world.snapshot, &own);
        if from == From::Loopback {
            targets.retain(|target| target.through == Through::NodePort);
        }
        if targets.is_empty() {
            return Ok(());
        }
        let target = random.of(&targets).clone();
        self.next_port = if self.next_port < 10_000 { 10_000 } else { self.next_port + 1 };
        let client = SocketAddr::new(address(from, target.at.is_ipv4(), random), self.next_port);
        self.open(bench, world, from, client, &target)
            .map_err(|problem| format!("{from:?} {client} to {target:?}: {problem}"))
    }

    fn open(
        &mut self,
        bench: &mut Bench,
        world: &World,
        from: From,
        client: SocketAddr,
        target: &Target,
    ) -> Result<(), String> {
        let (hook, device) = place(from, target.through);
        let protocol = target.port.protocol;
        let fate = bench.send(hook, device, &packet(protocol, client, target.at, flag::SYN));
        let expected = reference::expected(&world.snapshot, from, client.ip(), target);
        let wrong = || Err(format!("expected {expected:?}, found {fate:?}"));
        self.meet(match &expected {
            Expected::NotServed => "not served",
            Expected::Refused => "refused",
            Expected::Dropped => "dropped",
            Expected::Goes { masqueraded: true, .. } => "goes from the node's address",
            Expected::Goes { masqueraded: false, .. } => "goes from its own address",
        });
        let (to, masqueraded) = match (&expected, &fate) {
            (Expected::NotServed, Fate::Pass(text) | Fate::Redirect(text)) => {
                return if ends(text).is_some_and(|(_, to)| to == target.at) { Ok(()) } else { wrong() };
            }
            (Expected::NotServed, _) => return Ok(()),
            (Expected::Refused, Fate::Answer(text)) => {
                let sign = if protocol == Protocol::Tcp { "reset" } else { "unreachable" };
                return if text.contains(sign) { Ok(()) } else { wrong() };
            }
            (Expected::Dropped, Fate::Drop("no_local_endpoints" | "source_range")) => return Ok(()),
            (Expected::Goes { to, masqueraded }, Fate::Pass(_) | Fate::Redirect(_)) => (to, *masqueraded),
            _ => return wrong(),
        };
        let (Fate::Pass(text) | Fate::Redirect(text)) = &fate else { return wrong() };
        let Some((source, backend)) = ends(text) else { return wrong() };
        // Row 8: whoever meets itself comes from the node.
        let masqueraded = masqueraded || client.ip() == backend.ip();
        let node: IpAddr = if client.is_ipv4() { NODE_V4 } else { NODE_V6 }.parse().unwrap();
        let right_source = if masqueraded { source.ip() == node } else { source == client };
        if !to.contains(&backend) || !right_source {
            return wrong();
        }
        if client.ip() == backend.ip() {
            self.meet("meets itself");
        }
        self.remember(world, client.ip(), target, backend, to)?;
        answer(bench, protocol, source, backend, (target.at, client))?;
        self.connections.push(Connection {
            from,
            client,
            target: target.clone(),
            backend,
            interrupted: false,
        });
        if self.connections.len() > REMEMBERED {
            self.connections.remove(0);
        }
        Ok(())
    }

    /// Row 25: one client, one endpoint, through all of a service's addresses, while it may be used.
    fn remember(
        &mut self,
        world: &World,
        client: IpAddr,
        target: &Target,
        backend: SocketAddr,
        to: &std::collections::BTreeSet<SocketAddr>,
    ) -> Result<(), String> {
        let Some(service) = world.snapshot.services.get(&target.service) else { return Ok(()) };
        if service.affinity.is_none() {
            return Ok(());
        }
        let session = (client, target.service.clone(), target.port.name.clone(), target.port.protocol);
        match self.sessions.insert(session, backend) {
            Some(last) if last != backend && to.contains(&last) => {
                Err(format!("the client was used to {last} and went to {backend}"))
            }
            Some(last) if last == backend && to.len() > 1 => {
                self.meet("goes where it went last");
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn meet(&mut self, what: &'static str) {
        *self.met.entry(what).or_default() += 1;
    }

    /// Goes on with one of the latest connections (rows 26 and 27).
    pub(crate) fn go_on(
        &mut self,
        bench: &mut Bench,
        world: &World,
        random: &mut Random,
    ) -> Result<(), String> {
        if self.connections.is_empty() {
            return Ok(());
        }
        let index = random.below(self.connections.len());
        let connection = self.connections[index].clone();
        let Connection { from, client, target, backend, interrupted } = &connection;
        let (hook, device) = place(*from, target.through);
        let fate = bench.send(hook, device, &packet(target.port.protocol, *client, target.at, flag::ACK));
        let went = match &fate {
            Fate::Pass(text) | Fate::Redirect(text) => ends(text).map(|(_, to)| to),
            _ => None,
        };
        // Only datagrams look for another endpoint.
        let stays = target.port.protocol != Protocol::Udp || !interrupted;
        if went == Some(*backend) && (stays || reference::serves(&world.snapshot, target, *backend)) {
            self.meet(if *interrupted { "drains" } else { "goes on" });
            return Ok(());
        }
        let wrong = |expected: &dyn std::fmt::Debug| {
            Err(format!("{connection:?} went on, expected {expected:?}, found {fate:?}"))
        };
        if stays {
            return wrong(backend);
        }
        // A datagram whose endpoint is gone begins anew.
        match reference::expected(&world.snapshot, *from, client.ip(), target) {
            Expected::Goes { to, .. } => match went.filter(|went| to.contains(went)) {
                Some(went) => {
                    self.meet("begins anew");
                    self.connections[index] = Connection { backend: went, interrupted: false, ..connection };
                    let connection = &self.connections[index];
                    let (client, target) = (connection.client.ip(), connection.target.clone());
                    self.remember(world, client, &target, went, &to)
                }
                None => wrong(&to),
            },
            // Nobody is left: whatever happens, nothing is reached.
            _ => Ok(()),
        }
    }
}

/// Lets a pod's answer come back, and looks whether it comes from where the client sent to. Servers on nodes themselves
/// answer by other ways.
fn answer(
    bench: &mut Bench,
    protocol: Protocol,
    source: SocketAddr,
    backend: SocketAddr,
    (from, to): (SocketAddr, SocketAddr),
) -> Result<(), String> {
    let device = match backend.ip().to_string().as_str() {
        "10.244.1.11" | "fd00:10:244:1::11" => "pod1",
        "10.244.1.12" | "fd00:10:244:1::12" => "pod2",
        text if text.starts_with("10.244.2.") || text.starts_with("fd00:10:244:2:") => "wire",
        _ => return Ok(()),
    };
    let hook = if device == "wire" { Hook::FromWire } else { Hook::FromPod };
    let fate = bench.send(hook, device, &packet(protocol, backend, source, flag::SYN | flag::ACK));
    match &fate {
        Fate::Pass(text) | Fate::Redirect(text) if ends(text) == Some((from, to)) => Ok(()),
        _ => Err(format!("the answer of {backend} to {source} should be {from} > {to}, found {fate:?}")),
    }
}
